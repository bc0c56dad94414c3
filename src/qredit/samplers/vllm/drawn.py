"""A completion while it is drawn by an engine that looks for ends in its own way: here the ids decide where it ends."""

from dataclasses import dataclass, field, replace

from qredit.rollouts.format import StopString
from qredit.samplers.protocol import Completion, Request, StopReason
from qredit.samplers.vllm.engine import EngineOutput, EngineRow
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed


@dataclass(frozen=True)
class DrawnCompletion:
    """What there is of a completion.

    Attributes:
        stop: why there is no more; None while there is.
    """

    request: Request
    seed: int
    ids: tuple[int, ...] = ()
    logp: tuple[float, ...] = ()
    stop: StopReason | None = field(default=None)

    def remainder(self) -> EngineRow:
        """What is asked of the engine."""
        request, marker = self.request, self.request.stop_string
        return EngineRow(
            prompt_ids=(*request.prompt_ids, *self.ids),
            max_tokens=request.max_tokens - len(self.ids),
            stop_token_ids=tuple(sorted(request.stop_token_ids)),
            stop=None if marker is None else marker.text,
            seed=derive_seed(self.seed, len(self.ids)) if self.ids else self.seed,
        )

    def extend(self, output: EngineOutput) -> "DrawnCompletion":
        """With what was drawn, up to its end: ids decide where that is.

        Raises:
            QreditError: nothing was drawn.
        """
        if not output.ids:
            raise QreditError("vLLM drew nothing for a request; its log says why")
        ids, logp = (*self.ids, *output.ids), (*self.logp, *output.logp)
        for length in range(len(self.ids) + 1, len(ids) + 1):
            stop = _find_stop(self.request, ids[:length])
            if stop is not None:
                return replace(self, ids=ids[:length], logp=logp[:length], stop=stop)
        return replace(self, ids=ids, logp=logp)

    def completion(self) -> Completion:
        """Once it has an end."""
        assert self.stop is not None
        return Completion(self.ids, self.logp, self.stop)


def _find_stop(request: Request, ids: tuple[int, ...]) -> StopReason | None:
    """Why a completion ends with its last token, if it does."""
    if ids[-1] in request.stop_token_ids:
        return StopReason.END
    if request.stop_string is not None and _completes(request.stop_string, ids):
        return StopReason.MARKER
    return StopReason.LENGTH if len(ids) == request.max_tokens else None


def _completes(marker: StopString, ids: tuple[int, ...]) -> bool:
    # Only a token that can complete the text is worth a look at it.
    return ids[-1] in marker.candidate_set and marker.length(ids) is not None
