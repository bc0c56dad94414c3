"""What a rule of selection is worth: the success of what it chose, beside the majority of the same samples."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.evaluation.metrics import QuestionResult, get_voting_scorer, list_successes
from qredit.selection.majority import majority
from qredit.selection.protocol import Ballot, Choice, Selected, Selection
from qredit.stats.interval import Interval, difference_interval, mean_interval


@dataclass(frozen=True)
class JudgeRecord:
    """How a judge did that was asked in both orders.

    Attributes:
        games: comparisons, each of two questions.
        swayed: those that the order alone decided.
        unread: those of which a reply is missing or cannot be read.
        told: of games between a right and a wrong answer, the share that the right one won in both orders, over those
            that were decided; None where there was none. A judge that guesses has 50 %.
    """

    games: int
    swayed: int
    unread: int
    told: Interval | None


@dataclass(frozen=True)
class Outcome:
    """What came of a rule.

    Attributes:
        rule: as it was written.
        success: of what it chose, the mean over questions; ties count their expectation.
        gain: by how much that is above the majority of the same samples, question by question; None for the majority.
        selected: the choices, in the order of the questions.
        each: the expected success of each choice.
        judge: None for a rule that played no games.
    """

    rule: str
    success: Interval
    gain: Interval | None
    selected: Selected
    each: tuple[float, ...]
    judge: JudgeRecord | None


def make_ballot(result: QuestionResult, question: str, primary: str) -> Ballot:
    """A question's samples as rules see them.

    Args:
        result: what was sampled.
        question: its prompt as text.
        primary: name of the reward that says which answers are one.
    """
    unknown = (None,) * len(result.predictions)
    return Ballot(
        question,
        result.predictions,
        result.rationales,
        result.mean_logp or unknown,
        result.answer_logp or unknown,
        tuple(map(tuple, get_voting_scorer(primary).grouped(result.predictions))),
    )


@dataclass(frozen=True)
class Samples:
    """What rules choose from, and what is right of it.

    Attributes:
        ballots: the samples of each question.
        right: of each question, 1 for every sample that is a success, 0 for others.
    """

    ballots: Sequence[Ballot]
    right: Sequence[Sequence[float]]


def read_samples(answered: Sequence[QuestionResult], questions: Sequence[str], primary: str) -> Samples:
    """The samples of an evaluation, for any number of rules.

    Args:
        answered: the samples of each question.
        questions: the prompt of each, as text.
        primary: name of the reward of which 1 or more is a success, and that says which answers are one.
    """
    ballots = [make_ballot(one, question, primary) for one, question in zip(answered, questions, strict=True)]
    return Samples(ballots, [list_successes(one, primary) for one in answered])


def evaluate_selection(text: str, rule: Selection, samples: Samples, seed: int) -> Outcome:
    """The rule on these samples.

    Args:
        text: the rule as it was written.
        rule: what it stands for.
        samples: of each question.
        seed: all that the rule draws is a function of it.
    """
    ballots, right = samples.ballots, samples.right
    selected = rule.select(ballots, seed)
    own = [_expect(choice, scores) for choice, scores in zip(selected.choices, right, strict=True)]
    votes = majority().select(ballots, seed)
    common = [_expect(choice, scores) for choice, scores in zip(votes.choices, right, strict=True)]
    return Outcome(
        text,
        mean_interval(own),
        None if rule == majority() else difference_interval([a - b for a, b in zip(own, common, strict=True)]),
        selected,
        tuple(own),
        _record_judge(selected.choices, right),
    )


def _expect(choice: Choice, scores: Sequence[float]) -> float:
    return sum(chance * score for chance, score in zip(choice.chances, scores, strict=True))


def _record_judge(choices: Sequence[Choice], right: Sequence[Sequence[float]]) -> JudgeRecord | None:
    """What the games of all questions say of the judge.

    Args:
        choices: of each question, with its games.
        right: 1 for each sample that is a success, 0 for others.
    """
    played = [(game, scores) for choice, scores in zip(choices, right, strict=True) for game in choice.games]
    if not played:
        return None
    decided = [
        scores[game.winner]
        for game, scores in played
        if game.winner is not None and scores[game.first] != scores[game.second]
    ]
    return JudgeRecord(
        games=len(played),
        swayed=sum(game.is_swayed for game, _ in played),
        unread=sum(None in game.verdicts for game, _ in played),
        told=mean_interval(decided) if decided else None,
    )
