"""What makers refuse of their arguments."""

from qredit.utils.errors import QreditError


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least `least`.

    Args:
        name: what errors call it.
        value: as it was given.
        least: the smallest that may be given.

    Raises:
        QreditError: names the argument, the least it may be and what was given.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise QreditError(f"{name} must be a whole number, at least {least}, got {value!r}")
