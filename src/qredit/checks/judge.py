"""Steps that a language model judges."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.checks.protocol import StepCase, StepCheck, Verdict
from qredit.rewards.judge.endpoint import (
    WRONG_STEPS_TASK,
    EndpointJudge,
    JudgeCase,
    check_endpoint,
    parse_step_list,
    show_case,
)
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class judge(StepCheck):
    """What a chat model behind an endpoint says of a step, which it reads behind the question and the steps before.

    A step is wrong if it makes an error of its own. One that only builds on an earlier error is not. None where no
    reply came after all tries, or none that can be read.

    Args:
        url: of the endpoint's chat completions, such as http://localhost:8000/v1/chat/completions.
        model: the model's name there.
        temperature: of its sampling.
        show_answer: the judge is shown the right answer.

    Raises:
        QreditError: an address that is none, a temperature below 0.
    """

    url: str
    model: str
    temperature: float = 0.0
    show_answer: bool = False

    def __post_init__(self) -> None:
        check_endpoint(self, self.url, self.model)
        if not self.temperature >= 0:
            raise QreditError(f"judge: temperature must be at least 0, got {self.temperature}")

    def check(self, cases: Sequence[StepCase]) -> list[Verdict]:
        replies = EndpointJudge(self.url, self.model, temperature=self.temperature).ask(
            [(WRONG_STEPS_TASK, show_case(self._show(case))) for case in cases]
        )
        return [_read(reply, case) for reply, case in zip(replies, cases, strict=True)]

    def _show(self, case: StepCase) -> JudgeCase:
        return JudgeCase(case.question, (*case.before, case.step), case.answer if self.show_answer else None)


def _read(reply: str | None, case: StepCase) -> Verdict:
    wrong = None if reply is None else parse_step_list(reply, len(case.before) + 1)
    return None if wrong is None else len(case.before) not in wrong
