"""Groups without a success are sampled again from prompts with a hint, as SAGE does (arXiv 2602.03143).

Released code: BaohaoLiao/SAGE, recipe/hint/hint_trainer.py, method "sage". As there: a group fails where no rollout has
a reward above 0. All M rollouts of a failed group are drawn anew from the prompt with a hint of the next level, until
one of them succeeds or no level is left. The last ones drawn stay, with or without a success. They are scored and
trained behind the prompt that they were drawn from, the one with the hint: the policy is updated on its own
distribution, and nothing corrects for the hint.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qredit.data.encoding import PROMPT_IDS
from qredit.engine.sampling import RolloutSampler
from qredit.rollouts.collate import split_groups
from qredit.rollouts.format import Prompt
from qredit.rollouts.retry_hint import HintLevel
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.seed import HINTED_RETRY_STREAM, derive_seed

Row = Mapping[str, Any]
_ASK, _RETRY = 0, 1  # the two draws of a level


@dataclass(frozen=True)
class HintedRetry:
    """Samples failed groups again, on one process of several; every process draws alike.

    Attributes:
        rollouts: draws and scores.
        levels: the hints that are tried, one after the other.
        template: switches of the chat template.
        budget: tokens that are sampled for a completion.
        context: the model's context length in tokens; None is unlimited. A group whose prompt with the hint does not
            fit stays as it is.
        score: rewards of the rollouts that are drawn here, apart from those of plain prompts.
    """

    rollouts: RolloutSampler
    levels: Sequence[HintLevel]
    template: Mapping[str, Any]
    budget: TokenBudget
    context: int | None
    score: Callable[[Sequence[Trajectory]], list[float]]

    def retry(
        self, sampled: Sequence[Trajectory], rows: Sequence[Row], number: int, m: int
    ) -> tuple[list[Trajectory], dict[str, float]]:
        """The rollouts with failed groups drawn anew; and for logs, over all processes, how many failed and how they
        did.

        `hint/failed` is the share of groups that had no success, `hint/used` of those that were drawn with a hint,
        `hint/rescued` of those that then had a success, `hint/rollouts` the number that was drawn beside the plain
        ones.

        Args:
            sampled: of this process, the M of each prompt together.
            rows: the data set's row of each of them.
            number: that of the generation.
            m: rollouts per prompt.
        """
        groups, given = split_groups(sampled, m), list(rows[::m])
        failed = [place for place, group in enumerate(groups) if not has_success(group)]
        first, used, drawn = len(failed), set[int](), 0
        for attempt, level in enumerate(self.levels):
            wanted = max(self.rollouts.collective.gather([len(failed)]))
            if wanted == 0:
                break
            places = (failed + list(range(len(groups))) * wanted)[:wanted]  # the others are drawn to keep step only
            fresh = self._draw([given[place] for place in places], level, (number, attempt), m)
            drawn += wanted * m
            for place, group in zip(failed, fresh, strict=False):
                if group is not None:
                    used.add(place)
                    groups[place] = [replace(one, group=groups[place][0].group) for one in group]
            failed = [place for place in failed if not has_success(groups[place])]
        mine = [len(groups), first, len(used), first - len(failed), drawn]
        total, no_success, hinted, rescued, extra = map(sum, zip(*self.rollouts.collective.gather([mine]), strict=True))
        shares = {"failed": no_success / total, "used": hinted / total, "rescued": rescued / total}
        return [one for group in groups for one in group], {
            **{f"hint/{name}": value for name, value in shares.items()},
            "hint/rollouts": float(extra),
        }

    def _draw(
        self, rows: Sequence[Row], level: HintLevel, at: tuple[int, int], m: int
    ) -> list[list[Trajectory] | None]:
        """M rollouts of each row behind its prompt with a hint; None where there is no hint, or no room for it."""
        prompts = self._write_prompts(rows, level, at)
        asked = [None if prompt is None else self._encode(prompt) for prompt in prompts]
        fits = [ids is not None and self._has_room(ids) for ids in asked]
        inputs = [
            {**row, PROMPT_IDS: ids if fit else row[PROMPT_IDS]}
            for row, ids, fit in zip(rows, asked, fits, strict=True)
            for _ in range(m)
        ]
        drawn = self.rollouts.sampled(inputs, _stream(*at, _RETRY), m, reward=self.score)
        return [group if fit else None for group, fit in zip(split_groups(drawn, m), fits, strict=True)]

    def _write_prompts(self, rows: Sequence[Row], level: HintLevel, at: tuple[int, int]) -> list[Prompt | None]:
        """The prompt of each row with a hint; None where the model wrote none."""
        if level.ask is None:
            return [level.show_gold(row["prompt"], row["answer"]) for row in rows]
        asked = [self._encode(level.ask_for_hint(row["prompt"], row["answer"])) for row in rows]
        written = self.rollouts.draw([list(ids) for ids in asked], _stream(*at, _ASK))
        hints = [self.rollouts.format.response_text(one.answer_ids).strip() for one in written]
        return [level.show_hint(row["prompt"], text) if text else None for row, text in zip(rows, hints, strict=True)]

    def _encode(self, prompt: Prompt) -> list[int]:
        return self.rollouts.format.prompt_ids(prompt, **self.template)

    def _has_room(self, ids: Sequence[int]) -> bool:
        tokens = len(ids) + self.budget.thinking + len(self.rollouts.format.close_ids) + self.budget.answer
        return self.context is None or tokens <= self.context


def has_success(group: Sequence[Trajectory]) -> bool:
    """Whether a rollout of the group has a reward above 0; one that nothing scored has none."""
    return any(one.reward > 0 for one in group if not math.isnan(one.reward))


def _stream(number: int, attempt: int, draw: int) -> int:
    return HINTED_RETRY_STREAM + derive_seed(number, attempt, draw) % HINTED_RETRY_STREAM
