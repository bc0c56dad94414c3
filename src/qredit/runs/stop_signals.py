"""An orderly stop: the first Ctrl-C or SIGTERM lets the step end and saves it, the second ends at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from transformers import TrainerCallback

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """Ends the training after the step in which a signal came, with a checkpoint; processes stop at the same step.

    Args:
        say: is told, once, that the run will stop.
        accelerator: of the processes that stop together.

    Attributes:
        asked: whether a signal came.
    """

    def __init__(self, say: Callable[[str], None], accelerator: Accelerator) -> None:
        self.say, self.accelerator = say, accelerator
        self.asked = False
        self._ends: Callable[[], Any] | None = None

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """While this lasts the first signal asks for a stop; afterwards, and for the second one, all is as before.

        Outside the main thread, where Python takes no signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def ask(number: int, frame: FrameType | None) -> None:
            for each, handler in before.items():
                signal.signal(each, handler)
            usual = before[signal.Signals(number)]
            self._ends = (lambda: usual(number, None)) if callable(usual) else None
            self.asked = True
            self.say("stopping after this step, then saving it; once more ends at once, without saving")

        for number in _SIGNALS:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> NoReturn:
        """End as the signal would have ended the run, had it not been saved first.

        Raises:
            KeyboardInterrupt: always.
        """
        if self._ends is not None:
            self._ends()
        raise KeyboardInterrupt

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._asked_anywhere():
            self.asked = True
            control.should_save = control.should_training_stop = True

    def _asked_anywhere(self) -> bool:
        """Whether any process was asked: all save together, or none could."""
        if self.accelerator.num_processes == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=self.accelerator.device)
        return float(self.accelerator.reduce(flag, "sum")) > 0
