"""A judge behind an OpenAI-compatible endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.rewards.judge.endpoint import EndpointJudge, Question, check_endpoint
from qredit.selection.judges.protocol import Judge
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class endpoint(Judge):
    """A chat model behind an endpoint.

    Args:
        url: of the endpoint's chat completions, such as http://localhost:8000/v1/chat/completions.
        model: the model's name there.
        temperature: of its sampling.

    Raises:
        QreditError: an address that is none, a temperature below 0.
    """

    url: str
    model: str
    temperature: float = 0.0

    def __post_init__(self) -> None:
        check_endpoint(self, self.url, self.model)
        if not self.temperature >= 0:
            raise QreditError(f"endpoint: temperature must be at least 0, got {self.temperature}")

    @property
    def _judge(self) -> EndpointJudge:
        return EndpointJudge(self.url, self.model, temperature=self.temperature)

    @property
    def varies(self) -> bool:
        return self.temperature > 0

    def ask(self, questions: Sequence[Question]) -> list[str | None]:
        return self._judge.ask(questions)
