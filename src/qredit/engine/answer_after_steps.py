"""How unsure the model is of the right answer after each step of a rationale.

    prompt | step 1   step 2   step 3 | closing  gold
           └ close gold               (K = 3: h_0 at the prompt, h_1, h_2 behind a step, h_3 behind all)
                    └ close gold
                             └ close gold

Thinking is closed by force at a step's end. All K + 1 places of a rationale branch off one row, so it is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.engine.answer_at_turns import AnswerBranch, lay_out_branches
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import Trajectory


@dataclass(frozen=True)
class StepTrack:
    """What a rationale of K steps does to the answer.

    Attributes:
        entropies: h_0 … h_K: the mean entropy of a token of the right answer after k steps, nats.
        first: of each step, the entropy of its first token when it was drawn, nats.
    """

    entropies: tuple[float, ...]
    first: tuple[float, ...]

    @property
    def gains(self) -> tuple[float, ...]:
        """IG_k = h_{k-1} - h_k of each step."""
        return tuple(before - after for before, after in zip(self.entropies, self.entropies[1:], strict=False))

    @property
    def utility(self) -> float:
        """h_0 - h_K, the sum of the gains; 0 without a step."""
        return self.entropies[0] - self.entropies[-1]


class EntropyOf(Protocol):
    """Runs a model forward."""

    def __call__(self, rows: Rows, only: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The entropy of the distribution that each of these tokens was taken from, nats.

        Args:
            rows: prompts and completions, branches among them.
            only: the tokens that are read.
        """


def score_answer_after_steps(
    trajectories: Sequence[Trajectory],
    steps: Sequence[Sequence[int]],
    close: Sequence[int],
    pad: int,
    entropy_of: EntropyOf,
    device: torch.device,
) -> list[StepTrack]:
    """The track of each rationale, by one pass over all of them.

        h_k = (1/|y*|) Σ_t H(p(· | x, z_{≤k}, closing, y*_{<t}))

    Of several right answers the gold one is taken. h_K stands behind the rationale and its own closing.

    Args:
        trajectories: rollouts of one turn, with the ids of their right answers in `golds`.
        steps: of each, the number of the step of every rationale token, from 0 in unbroken order.
        close: ids of the closing as it is forced.
        pad: the id that fills rows up.
        entropy_of: how the model runs.
        device: where rows are put.

    Source: arXiv 2508.20395, by notes of others. Differences: the policy itself is asked, not another model; thinking
    is closed before the answer, as it is in a rollout.
    """
    ends = [_find_ends(own) for own in steps]
    branches = [
        [
            AnswerBranch(one.close_end, (), one.golds[0]),
            *(AnswerBranch(fork, tuple(close), one.golds[0]) for fork in (0, *own)[: len(own)]),
        ]
        for one, own in zip(trajectories, ends, strict=True)
    ]
    rows = lay_out_branches(trajectories, branches, pad, device)
    batch = rows.batch
    assert batch.alias is not None
    assert batch.close is not None
    gold = batch.answer & ~batch.close
    begins = torch.zeros_like(batch.mask)
    for row, own in enumerate(ends):
        begins[row, [0, *own][: len(own)]] = True
    entropy = entropy_of(rows, gold | begins).double()
    found = []
    for row, own in enumerate(ends):
        h = [float(entropy[row][gold[row] & (batch.alias[row] == number)].mean()) for number in range(len(own) + 1)]
        first = tuple(entropy[row, [0, *own][: len(own)]].tolist())
        found.append(StepTrack((*h[1:], h[0]), first))
    return found


def _find_ends(steps: Sequence[int]) -> list[int]:
    """How many tokens stand before the end of each step."""
    return [place + 1 for place in range(len(steps)) if place + 1 == len(steps) or steps[place + 1] != steps[place]]
