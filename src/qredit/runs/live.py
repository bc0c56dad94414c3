"""A run as it goes, on a terminal: a bar, curves of the last steps below it; elsewhere a line now and then."""

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import TaskID
from rich.text import Text
from transformers import TrainerCallback

from qredit.runs.live_metrics import LiveMetrics
from qredit.runs.progress_bars import make_progress_bars
from qredit.utils.sanitize import to_one_line

_BESIDE = 48  # columns that a bar with its counts and times takes
_APART = 60.0  # seconds between lines where nothing can be redrawn


class LiveView(TrainerCallback):  # type: ignore[misc]
    """Shows the training that goes on inside its `with` block.

    On a terminal the view is redrawn in place, and its bar and curves stay when the training ends. Where nothing can be
    redrawn, such as a file or a pipe, there is a line for each tenth of the run, at most one a minute, and the bar at
    the end. A quiet console shows nothing.
    """

    def __init__(self, console: Console, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.title, self.clock = console, to_one_line(title), clock
        self.redrawn = console.is_interactive and not console.quiet
        self.inline = not self.redrawn or cell_len(self.title) + _BESIDE <= console.width
        self.bars = make_progress_bars(console)
        self.bar: TaskID | None = None
        self.readings = LiveMetrics()
        self.running = True
        self.noted = ""
        self.said, self.tenth = clock(), 0
        self.live = Live(get_renderable=self._view, console=console)

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.running = False
        self.live.stop()
        if self.bar is not None and not self.redrawn:
            self.bars.update(self.bar, note=self.readings.summary())
            self.console.print(
                self.bars.get_renderable(), *map(Text, filter(None, [self.readings.silence])), *self._note()
            )

    def note(self, text: str) -> None:
        """Show one line of text, in place of the one before; what would be markup is shown as it is."""
        self.noted = to_one_line(text)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        for logs in state.log_history:  # of the run that is resumed
            self.readings = self.readings.after(logs, args.gradient_accumulation_steps)
        told = self.title if self.inline else ""
        self.bar = self.bars.add_task(told, total=state.max_steps, completed=state.global_step, note="")
        self.tenth = _tenth(state)
        if self.redrawn:
            self.live.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bars.update(self.bar, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.bar is None or not logs:
            return
        self.readings = self.readings.after(logs, args.gradient_accumulation_steps)
        now = self.clock()
        if not self.redrawn and _tenth(state) > self.tenth and now - self.said >= _APART:
            self.said, self.tenth = now, _tenth(state)
            self._say(state)

    def _say(self, state: Any) -> None:
        task = self.bars.tasks[0]
        left = "unknown" if task.time_remaining is None else _clock(task.time_remaining)
        told = f"{self.title}: step {state.global_step} of {state.max_steps}, {_clock(task.elapsed or 0)}, eta {left}"
        self.console.print(
            Text(", ".join(filter(None, (told, self.readings.summary(), self.readings.silence, self.noted)))),
            soft_wrap=True,
        )

    def _view(self) -> RenderableType:
        title = [] if self.inline else [Text(self.title, no_wrap=True, overflow="ellipsis")]
        facts = self.readings.facts() if self.running else []
        curves = self.readings.curves(self.console.width)
        return Group(*title, self.bars.get_renderable(), *curves, *facts, *self._note())

    def _silence(self) -> list[Text]:
        return [Text(self.readings.silence)] if self.readings.silence else []

    def _note(self) -> list[Text]:
        return [Text(self.noted, no_wrap=True, overflow="ellipsis")] if self.noted else []


def _tenth(state: Any) -> int:
    """How many tenths of the run are done."""
    return int(10 * state.global_step // max(state.max_steps, 1))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
