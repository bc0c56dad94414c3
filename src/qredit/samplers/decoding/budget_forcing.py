"""Thinking that is made longer: where it ends before its budget, "Wait" is put in the place of its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qredit.rollouts.tokenizer import encode
from qredit.rollouts.trajectory import Role, Segment, Trajectory
from qredit.samplers.decoding.protocol import Decoding, DecodingTools
from qredit.samplers.protocol import Completion, Request, Sampler
from qredit.samplers.think_then_answer import ThinkThenAnswer, draw_completions
from qredit.utils.errors import QreditError, check_count
from qredit.utils.seed import WAIT_STREAM, derive_seed


@dataclass(frozen=True)
class budget_forcing(Decoding):
    """Where thinking ends by itself within its budget, its end is dropped, `text` is put there, and it goes on.

    That happens up to `times` times, as long as a token can be drawn behind the text. All of it, the texts too, counts
    as thinking, whose budget is that of the run: at its end the closing is forced, as ever. The text was not sampled.

    Args:
        times: how often an end of thinking is dropped.
        text: what is put there.

    Raises:
        QreditError: no whole number of at least 1, or no text.

    Source: arXiv 2501.19393 (s1) and its official code, where "Wait" is appended once to six times. Difference: there
    the text itself is not counted.
    """

    times: int = 1
    text: str = "Wait"

    def __post_init__(self) -> None:
        check_count("budget_forcing: times", self.times, 1)
        if not isinstance(self.text, str) or not self.text:
            raise QreditError(f"budget_forcing: text must be a text that is not empty, got {self.text!r}")

    def play(
        self,
        tools: DecodingTools,
        sampler: Sampler,
        prompts: Sequence[Sequence[int]],
        examples: Sequence[Mapping[str, Any]],
        *,
        stop_tokens: Sequence[int],
        seed: int,
    ) -> list[Trajectory]:
        asked = ThinkThenAnswer(tools.format, tools.budget, tuple(stop_tokens))
        wait = tuple(encode(tools.format.tokenizer, self.text))
        requests = [asked.thinking_request(prompt) for prompt in prompts]
        drawn = draw_completions(sampler, requests, seed)
        rows = [_Row(request, last) for request, last in zip(requests, drawn, strict=True)]
        for turn in range(self.times):
            going = [row for row in rows if row.can_wait(asked, wait)]
            for row in going:
                row.wait(asked, wait)
            again = draw_completions(sampler, [row.request for row in going], derive_seed(seed, WAIT_STREAM + turn))
            for row, last in zip(going, again, strict=True):
                row.last = last
        heads = [(*row.before, *asked.close(row.last)) for row in rows]
        return asked.answer_behind(sampler, prompts, heads, [row.last for row in rows], seed)


@dataclass
class _Row:
    """A rationale that is being drawn.

    Attributes:
        request: the last one; None where no thinking may be drawn.
        last: its completion.
        before: what was kept of those before it, and the texts between.
    """

    request: Request | None
    last: Completion
    before: list[Segment] = field(default_factory=list)

    def can_wait(self, asked: ThinkThenAnswer, text: tuple[int, ...]) -> bool:
        """Whether the text would leave room for a token; never where the budget is used up.

        Args:
            asked: the layout.
            text: ids of the text.
        """
        if self.request is None:
            return False
        kept, _ = asked.close(self.last)
        return len(kept.ids) + len(text) < self.request.max_tokens

    def wait(self, asked: ThinkThenAnswer, text: tuple[int, ...]) -> None:
        """Drop the end, put the text there, and ask for what comes behind it.

        Args:
            asked: the layout.
            text: ids of the text.
        """
        assert self.request is not None
        kept, _ = asked.close(self.last)
        self.before += [kept, Segment(text, Role.THINK, sampled=False)]
        self.request = Request(
            (*self.request.prompt_ids, *kept.ids, *text),
            self.request.max_tokens - len(kept.ids) - len(text),
            self.request.stop_token_ids,
            self.request.stop_string,
        )
