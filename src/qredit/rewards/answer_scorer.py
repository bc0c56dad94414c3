"""What a scorer is: a prediction and its gold answers in, a number in [0, 1] out."""

import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

Score = Callable[[str, Sequence[str]], float]


def is_not_blank(text: str) -> bool:
    """True where `text` holds more than white space."""
    return bool(text.strip())


def score_best(match: Callable[[str, str], float], prediction: str, golds: Sequence[str]) -> float:
    """The largest match(prediction, gold) over the golds that are not blank; 0 for a blank prediction or no gold.

    Every scorer goes through here, so that nothing is ever won by saying nothing.

    Args:
        match: (prediction, gold) → number in [0, 1].
        prediction: sampled answer.
        golds: reference answers.
    """
    if not is_not_blank(prediction):
        return 0.0
    return max((float(match(prediction, gold)) for gold in golds if is_not_blank(gold)), default=0.0)


@dataclass(frozen=True)
class Scorer:
    """A named judge of answers.

    Attributes:
        name: as given to --reward; the name TRL logs.
        summary: one line for the command line.
        score: (prediction, golds) → number in [0, 1]; the golds are the answer and its aliases, the best one counts.
        parses: whether a gold can be judged at all. One that cannot is never rewarded.
        normal_form: what of a prediction counts. Predictions with equal normal forms are one answer in a vote.
        alike: whether two different normal forms are one answer all the same.
        extras: optional parts of the installation without which it cannot judge; see `qredit.utils.extras`.
        reads_gold: whether it looks at the golds.
    """

    name: str
    summary: str
    score: Score
    parses: Callable[[str], bool] = is_not_blank
    normal_form: Callable[[str], Hashable] = str.strip
    alike: Callable[[Hashable, Hashable], bool] = operator.eq
    extras: tuple[str, ...] = ()
    reads_gold: bool = True

    def __call__(self, prediction: str, golds: Sequence[str]) -> float:
        return self.score(prediction, golds)

    def grouped(self, predictions: Sequence[str]) -> list[list[int]]:
        """The predictions that are one answer, as lists of their positions, in order of first occurrence.

        Blank predictions are in no group. A prediction joins the first group whose first member it is alike.
        """
        exact: dict[Hashable, list[int]] = {}
        for index, prediction in enumerate(predictions):
            if is_not_blank(prediction):
                exact.setdefault(self.normal_form(prediction), []).append(index)
        groups: list[tuple[Hashable, list[int]]] = []
        for form, members in exact.items():
            group = next((held for first, held in groups if self.alike(first, form)), None)
            if group is None:
                groups.append((form, members))
            else:
                group.extend(members)
        return [sorted(members) for _, members in groups]
