"""verl's worker, whose learning rate may be changed while a run goes on."""

from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker

from qredit.engine.learning_rate import scale_learning_rate


class QreditWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """Does what verl's does."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def set_learning_rate_share(self, share: float) -> None:
        """Have this and all later steps take a share of the schedule's learning rate, whatever share it was before."""
        engine = self.actor.engine
        rate, scheduler = float(self.config.actor.optim.lr), engine.lr_scheduler
        scale_learning_rate(engine.optimizer, scheduler, share * rate / scheduler.base_lrs[0])
