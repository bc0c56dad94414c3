"""`logp@NAME`: the same completion behind another prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qredit.core.hint import fill_places, find_missing_places
from qredit.engine.prompt_teacher import Hint
from qredit.fields._kinds import TeacherMaker
from qredit.rollouts.format import Prompt
from qredit.rollouts.hinted_prompt import show_answer
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class behind_prompt(TeacherMaker):
    """`logp@NAME` (B, T): log p(y_t | another prompt, y_<t) of each completion token in nats, a constant.

    Two of them are the contrastive prompts of `t_reg`: `logp@better` behind a prompt that asks for a good answer,
    `logp@worse` behind one that asks for a bad one. The completion's ids are put behind the other prompt as they were
    sampled. Each costs a forward pass of the whole generation, prompts computed once for their group.

    Args:
        template: the other prompt. {prompt} is the row's own, {answer} its gold answer. Of a chat it is the text of
            the last user message.
        model: path of the model that reads it, with the policy's token ids; None is the policy itself, by its weights
            when the rollouts are made.

    Source: arXiv 2412.02685 (contrastive prompts), known from others' notes. Difference: the policy takes the place of
    the fixed reference model, so no second model is held; give the path that the run begins with for the reference.
    """

    template: str
    model: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.template, str) or find_missing_places(self.template, ("prompt",)):
            raise QreditError(
                f"template of behind_prompt must be a text that holds {{prompt}}, where the row's own prompt stands; "
                f"got {self.template!r}"
            )
        if self.model is not None and not isinstance(self.model, str):
            raise QreditError(f"model of behind_prompt must be a path, got {self.model!r}")

    @property
    def reads_gold(self) -> bool:
        return not find_missing_places(self.template, ("answer",))

    def make_teacher(self) -> Hint:
        return Hint(self._prompt, self.model)

    def _prompt(self, row: Mapping[str, Any]) -> Prompt:
        def fill(prompt: str, answer: str) -> str:
            return fill_places(self.template, {"prompt": prompt, "answer": answer})

        return show_answer(row["prompt"], str(row.get("answer", "")), fill)
