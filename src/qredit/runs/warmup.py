"""Learning rate and optimiser of a run: the rate rises from its first step on, so that none is computed for nothing."""

from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from qredit.engine.lr_schedules.parsing import parse_lr_schedule
from qredit.engine.lr_schedules.protocol import put_behind_warmup
from qredit.engine.optimizers.parsing import parse_optimizer
from qredit.engine.optimizers.protocol import AdamSettings, OptimizerRule
from qredit.trl import QreditTrainer
from qredit.trl.dpo_trainer import DpoTrainer
from qredit.trl.sft_trainer import SftTrainer
from qredit.utils.errors import QreditError

MAX_WARMUP_STEPS = 5


def choose_warmup_steps(steps: int, asked: int | None) -> int:
    """Steps over which the learning rate rises: as asked, else 5, and at most a tenth of the run.

    Of 100 steps these are 5, of 30 steps 3, of 5 steps none.

    Args:
        steps: of the run.
        asked: what the user wants; None is the default.
    """
    return min(MAX_WARMUP_STEPS, steps // 10) if asked is None else asked


def make_lr_schedule(text: str | None) -> Callable[[float], float] | None:
    """What follows the warmup of a run, read once and before a model is loaded.

    Args:
        text: a rule; None leaves it to the training arguments.

    Raises:
        QreditError: as `parse_lr_schedule`; what the rule is made of cannot be read.
    """
    return None if text is None else parse_lr_schedule(text).make()


class WarmupSchedule(Trainer):  # type: ignore[misc]
    """A base for trainers: a warmup of w steps in which step k, counted from 1, has k/w of the learning rate.

    transformers gives step k of a warmup (k - 1)/w, so that its first step changes nothing. Here every schedule is
    taken one step later, of a run that is one step longer.

    Attributes:
        optimizer_rule: makes the optimiser; None takes that of the training arguments.
        lr_schedule: what follows the warmup, by the share of the later steps that are over; None takes that of the
            training arguments.
    """

    optimizer: Any
    optimizer_rule: OptimizerRule | None = None
    lr_schedule: Callable[[float], float] | None = None

    def use_optimizer(self, text: str | None) -> None:
        """Take the optimiser that a text names.

        Args:
            text: a rule; None keeps that of the training arguments.

        Raises:
            QreditError: as `parse_optimizer`; weights that are split over processes.
        """
        if text is None:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise QreditError(f"optimizer={text} needs whole matrices on each process; leave FSDP and DeepSpeed out")
        self.optimizer_rule = parse_optimizer(text)

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None and self.optimizer_rule is not None:
            learned, args = self.model if model is None else model, self.args
            decayed = self.get_decay_parameter_names(learned)
            betas = (args.adam_beta1, args.adam_beta2)
            settings = AdamSettings(args.learning_rate, args.weight_decay, betas, args.adam_epsilon, decayed)
            self.optimizer = self.optimizer_rule.make(learned, settings)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        later = self.args.warmup_steps >= 1
        total = num_training_steps + later
        if self.lr_schedule is not None and self.lr_scheduler is None:
            moved = put_behind_warmup(self.lr_schedule, self.args.get_warmup_steps(total), total)
            self.lr_scheduler: Any = LambdaLR(self.optimizer if optimizer is None else optimizer, moved)
            self._created_lr_scheduler = True  # transformers' mark of a schedule that it made, and may make anew
        made: Any = super().create_scheduler(total, optimizer)
        if later and isinstance(made, LambdaLR):
            made.lr_lambdas = [_one_later(factor) for factor in made.lr_lambdas]
            groups = made.optimizer.param_groups
            for group, base, factor in zip(groups, made.base_lrs, made.lr_lambdas, strict=True):
                group["lr"] = base * factor(0)
            made._last_lr = [group["lr"] for group in groups]
        return made


class WarmupTrainer(WarmupSchedule, QreditTrainer):
    """QreditTrainer with this warmup."""


class WarmupSftTrainer(WarmupSchedule, SftTrainer):
    """SftTrainer with this warmup."""


class WarmupDpoTrainer(WarmupSchedule, DpoTrainer):
    """DpoTrainer with this warmup."""


def _one_later(factor: Callable[[int], float]) -> Callable[[int], float]:
    def later(step: int) -> float:
        return factor(step + 1)

    return later
