"""Seeds that are functions of what is drawn, so that nothing depends on the order of draws; the streams they make.

A rollout's seed is that of the run, mixed with the number of the draw and the process. Generations of training are
numbered 0, 1, 2, …; every other draw has its numbers from one of the streams below, so that no two share a seed.
"""

EVALUATION_STREAM = 1 << 40
"""Rollouts of evaluation batches: from here on, by a hash of the optimiser step and the place of the batch in it."""
DYNAMIC_SAMPLING_STREAM = 1 << 41
"""Rollouts of further prompts (dynamic sampling): from here on, by a hash of the generation and the round."""
INITIAL_Q_STREAM = 1 << 42
"""Rollouts of the look before the first step: from here on, batch by batch."""
ANSWER_STREAM = 1 << 43
"""Answers that are drawn apart from their rationales: mixed with the seed of those."""

HINTED_RETRY_STREAM = 1 << 44
"""Groups without a success, drawn again with a hint: from here on, by a hash of the generation, the level and whether
the hint is asked for or used."""

TURN_STREAM = 1 << 45
"""Turns of an episode behind its first: mixed with the seed of that, by the number of the turn."""
ENVIRONMENT_STREAM = 1 << 46
"""What an environment draws by itself: mixed with the seed of the first turns, by the number of the episode."""
FORK_STREAM = 1 << 47
"""Answers behind rationales that were cut: from here on, by a hash of the generation."""
BRANCH_STREAM = 1 << 48
"""Which episodes branch and where: mixed with the seed of the first turns, by the place of the group and the round."""
DRAWING_STREAM = 1 << 49
"""Rollouts that a rule of drawing draws beside the plain ones, and what it draws by itself: from here on, by a hash of
the generation and the number of the draw."""
WAIT_STREAM = 1 << 52
"""Thinking that goes on behind a dropped end: from here on, by how often it was dropped before."""
STRATEGY_STREAM = 1 << 53
"""Samples of a question behind its pilots: from here on, by the strategy that those called for."""
INTERVENTION_STREAM = 1 << 54
"""What a correction of a wrong rollout is asked and tried with: from here on, mixed with the place of the batch."""
PERTURBATION_STREAM = 1 << 57
"""What `shrink_and_perturb` adds to weights before a run: mixed with the seed of the run."""
REPLAY_STREAM = 0x5EA2
"""Which rollouts are learned from again: mixed with the seed of the run and the number of the step before it."""


def derive_seed(*numbers: int) -> int:
    """One well-spread 63-bit seed from several integers (splitmix64's finaliser, applied in turn)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK64)) + 0x9E3779B97F4A7C15 & _MASK64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK64
        state ^= state >> 31
    return state >> 1


_MASK64 = (1 << 64) - 1
