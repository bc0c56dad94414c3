"""A judge behind an OpenAI-compatible endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.rewards.judge.endpoint import EndpointJudge, Question
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
        for name in ("url", "model"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise QreditError(f"{name} of endpoint must be a text, got {getattr(self, name)!r}")
        if not self.temperature >= 0:
            raise QreditError(f"endpoint: temperature must be at least 0, got {self.temperature}")
        _ = self._judge  # refuses an address that is none

    @property
    def _judge(self) -> EndpointJudge:
        return EndpointJudge(self.url, self.model, temperature=self.temperature)

    @property
    def varies(self) -> bool:
        return self.temperature > 0

    def ask(self, questions: Sequence[Question]) -> list[str | None]:
        return self._judge.ask(questions)
