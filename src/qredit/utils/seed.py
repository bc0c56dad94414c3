"""Seeds that are functions of what is drawn, so that nothing depends on the order of draws."""


def mix(*numbers: int) -> int:
    """One well-spread 63-bit seed from several integers (splitmix64's finaliser, applied in turn)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK64)) + 0x9E3779B97F4A7C15 & _MASK64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK64
        state ^= state >> 31
    return state >> 1


_MASK64 = (1 << 64) - 1
