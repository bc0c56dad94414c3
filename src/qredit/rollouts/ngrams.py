"""Strategic n-grams: the runs of tokens that right rollouts to many questions share, and where they stand."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set

from qredit.utils.errors import QreditError

Gram = tuple[int, ...]


def find_strategic_grams(
    rollouts: Iterable[Sequence[int]], shortest: int, longest: int, least_rollouts: int
) -> frozenset[Gram]:
    """The n-grams of token ids that occur in at least `least_rollouts` of these rollouts.

    A rollout counts once, however often it repeats itself. A gram inside a longer one that as many rollouts hold says
    nothing more and is left out. Ids are compared as they were sampled; nothing is decoded.

    Args:
        rollouts: token ids of right rollouts, best one for each question: the rollouts of one question share its
            wording, which is no plan.
        shortest, longest: lengths of the grams, in tokens.
        least_rollouts: how many rollouts must hold a gram.

    Source: arXiv 2509.03646, known from others' notes, which tell no threshold. Difference: the paper groups grams by
    meaning before counting, for which another model is needed.

    Raises:
        QreditError: lengths that are no range, or a number of rollouts below 1.
    """
    if not 1 <= shortest <= longest:
        raise QreditError(f"strategic grams need 1 ≤ shortest ≤ longest, got {shortest} and {longest}")
    if least_rollouts < 1:
        raise QreditError(f"least_rollouts must be at least 1, got {least_rollouts}")
    held: Counter[Gram] = Counter()
    for ids in rollouts:
        held.update({gram for _, gram in _grams(ids, range(shortest, longest + 1))})
    common = {gram: count for gram, count in held.items() if count >= least_rollouts}
    told = {part for gram, count in common.items() for part in _parts(gram) if common.get(part) == count}
    return frozenset(common) - told


def mark_grams(ids: Sequence[int], grams: Set[Gram]) -> list[bool]:
    """For each token, whether it stands inside an occurrence of one of the grams; occurrences may overlap."""
    marked = [False] * len(ids)
    for start, gram in _grams(ids, sorted({len(gram) for gram in grams})):
        if gram in grams:
            marked[start : start + len(gram)] = [True] * len(gram)
    return marked


def count_grams(ids: Sequence[int], grams: Set[Gram]) -> Counter[Gram]:
    """How often each of the grams occurs; occurrences may overlap."""
    return Counter(gram for _, gram in _grams(ids, sorted({len(gram) for gram in grams})) if gram in grams)


def _grams(ids: Sequence[int], lengths: Iterable[int]) -> Iterator[tuple[int, Gram]]:
    """(start, gram) of every run of one of these lengths."""
    for length in lengths:
        for start in range(len(ids) - length + 1):
            yield start, tuple(ids[start : start + length])


def _parts(gram: Gram) -> Iterator[Gram]:
    """The two runs that are one token shorter."""
    yield gram[1:]
    yield gram[:-1]
