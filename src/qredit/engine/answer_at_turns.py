"""How likely the right answer would be if it were given in the place of each turn of an episode.

    prompt | think  close  action | observation | think  close | gold
           └ close  gold                        └ close  gold

Thinking is closed at once there, as it is closed by force, and the gold answer follows. Behind the last turn's thinking
stands what stands in the rows that a likelihood is learned from. An episode of K turns thus has K + 1 places. All of
them branch off one row, so that the episode is computed once (`Rows.forks`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.field_names import ANSWER_AFTER, ANSWER_AT
from qredit.core.right_answers import sum_per_answer
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows, Tail, pad_prompts, plan_rows
from qredit.rollouts.trajectory import Trajectory

_Ids = tuple[int, ...]


@dataclass(frozen=True)
class AnswerBranch:
    """One right answer at one place of an episode.

    Attributes:
        fork: how many of the episode's tokens it continues.
        close: ids that close the thinking before it.
        gold: its ids.
    """

    fork: int
    close: _Ids
    gold: _Ids

    @property
    def ids(self) -> _Ids:
        return (*self.close, *self.gold)


def branch_answers(trajectories: Sequence[Trajectory], close: Sequence[int], pad: int, device: torch.device) -> Rows:
    """One row for each episode, as `lay_out_branches` makes them: every right answer behind the last thinking, then
    every one in the place of turn 0, of turn 1, and so on.

    Args:
        trajectories: sampled episodes, in order; a rollout without environment is one of one turn.
        close: ids of the closing as it is forced.
        pad: the id that fills rows up.
        device: where the rows are put.
    """
    branches = [list(_list_branches(one, tuple(close))) for one in trajectories]
    return lay_out_branches(trajectories, branches, pad, device)


def lay_out_branches(
    trajectories: Sequence[Trajectory], branches: Sequence[Sequence[AnswerBranch]], pad: int, device: torch.device
) -> Rows:
    """One row for each episode: all that was said and observed before its last answer, and the answers that branch off.

    `alias` numbers the branches of a row, in order. A closing that a branch begins with is in `close`.

    Args:
        trajectories: sampled episodes, in order.
        branches: of each, one at least; the first continues all of it.
        pad: the id that fills rows up.
        device: where the rows are put.
    """
    stems = [tuple(chain.from_iterable(segment.ids for segment in one.head)) for one in trajectories]
    width = max(len(stem) + sum(len(one.ids) for one in own) for stem, own in zip(stems, branches, strict=True))
    mask, answer, closing = torch.zeros(3, len(stems), width, dtype=torch.bool).unbind()
    ids, alias = torch.full((len(stems), width), pad), torch.zeros(len(stems), width, dtype=torch.long)
    for row, (stem, own) in enumerate(zip(stems, branches, strict=True)):
        ends = list(accumulate((len(one.ids) for one in own), initial=len(stem)))
        mask[row, : ends[-1]], answer[row, len(stem) : ends[-1]] = True, True
        ids[row, : ends[-1]] = torch.tensor([*stem, *chain.from_iterable(one.ids for one in own)])
        for number, (start, one) in enumerate(zip(ends, own, strict=False)):
            alias[row, start : start + len(one.ids)] = number
            closing[row, start : start + len(one.close)] = True
    batch = RolloutBatch(
        mask=mask.to(device),
        rationale=(mask & ~answer).to(device),
        answer=answer.to(device),
        close=closing.to(device),
        alias=alias.to(device),
        ids=ids.to(device),
        group=torch.tensor([one.group for one in trajectories], device=device),
    )
    forks = torch.nn.utils.rnn.pad_sequence([torch.tensor([one.fork for one in own]) for own in branches], True)
    return Rows(*pad_prompts([one.prompt for one in trajectories], pad, device), batch, forks=forks.to(device))


def _list_branches(one: Trajectory, close: _Ids) -> Iterator[AnswerBranch]:
    starts = [sum(len(s.ids) for s in one.segments if s.turn < turn) for turn in range(_count_turns(one))]
    for fork, before in [(one.close_end, ()), *((start, close) for start in starts)]:
        yield from (AnswerBranch(fork, before, gold) for gold in dict.fromkeys(one.golds))


def _count_turns(one: Trajectory) -> int:
    return 1 + max((segment.turn for segment in one.segments), default=0)


def score_answer_at_turns(
    trajectories: Sequence[Trajectory], close: Sequence[int], pad: int, forward: Forward, device: torch.device
) -> list[Float[Tensor, " n"]]:
    """For each episode of K turns the K + 1 numbers log p_0 … log p_K, constants, in nats.

        log p_k = (1/|y*|) Σ_t log π(y*_t | prompt, turns before k, closing, y*_<t)

    p_K is that behind the last turn's thinking and its own closing. Of several right answers it is the largest one's.
    All are NaN for an episode that was not played to its end: it was not on its way to an answer.

    Args:
        trajectories: sampled episodes, in order, with the ids of their right answers.
        close: ids of the closing as it is forced.
        pad: the id that fills rows up.
        forward: how the policy runs; its temperature is not read, for a likelihood is at temperature 1.
        device: where rows are put.
    """
    each = score_each_answer_at_turns(trajectories, close, pad, forward, device)
    found = [one.amax(1) for one in each]
    return [
        mean if one.is_whole else torch.full_like(mean, torch.nan)
        for one, mean in zip(trajectories, found, strict=True)
    ]


def score_each_answer_at_turns(
    trajectories: Sequence[Trajectory], close: Sequence[int], pad: int, forward: Forward, device: torch.device
) -> list[Float[Tensor, "n A"]]:
    """For each episode of K turns and A different right answers the (K + 1, A) numbers log p_k of each, as
    `score_answer_at_turns` has them of the likeliest. It does not ask whether an episode was played to its end.

    Args:
        trajectories: sampled episodes, in order, with the ids of their right answers, one at least.
        close: ids of the closing as it is forced.
        pad: the id that fills rows up.
        forward: how the policy runs; its temperature is not read, for a likelihood is at temperature 1.
        device: where rows are put.
    """
    rows = branch_answers(trajectories, close, pad, device)
    plain = replace(forward, temperature=1.0, layout=lambda part: forward.layout(part).only(_get_golds(part)))
    logp = plain.scores(forward.model, rows)["logp"]
    assert rows.batch.alias is not None
    each = sum_per_answer(logp, _get_golds(rows), rows.batch.alias)
    found = []
    for one, total, tokens in zip(trajectories, each.total, each.tokens, strict=True):
        mean = (total / tokens)[tokens > 0].unflatten(0, (_count_turns(one) + 1, -1))
        found.append(mean.roll(-1, 0))
    return found


def _get_golds(rows: Rows) -> Bool[Tensor, "B T"]:
    """The tokens of right answers, without the closings before them: all that the head is asked for."""
    assert rows.batch.close is not None
    return rows.batch.answer & ~rows.batch.close


def spread_over_turns(
    told: Sequence[Float[Tensor, " n"]], trajectories: Sequence[Trajectory], tails: Sequence[Tail], rows: Rows
) -> dict[str, Tensor]:
    """The batch fields of rows: `answer_logp_at` (B, T), on each token log p_k of its turn k, and `answer_logp_after`
    (B,), log p_K.

    Args:
        told: of each episode, as `score_answer_at_turns` gives it.
        trajectories: the episodes.
        tails: what rows end in.
        rows: those of the episodes, in the order of `plan_rows`.
    """
    turn = rows.batch.turn
    assert turn is not None
    own = [told[spec.number] for spec in plan_rows(trajectories, tails)]
    before = torch.nn.utils.rnn.pad_sequence([one[:-1] for one in own], batch_first=True, padding_value=torch.nan)
    return {ANSWER_AT: before.gather(1, turn), ANSWER_AFTER: torch.stack([one[-1] for one in own])}
