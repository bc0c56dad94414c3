"""What it takes to return to an earlier checkpoint inside a run of transformers' Trainer."""

from qredit.trl.config import QreditConfig
from qredit.utils.errors import QreditError


def check_revertible(args: QreditConfig, whole: bool, slower: bool) -> None:
    """Refuse settings under which the guard could not do its work.

    Args:
        args: of the trainer.
        whole: whether each process holds all weights.
        slower: whether it will change the learning rate.

    Raises:
        QreditError: naming the setting.
    """
    if not whole:
        raise QreditError("the guard restores whole weights, which DeepSpeed and FSDP cut apart; leave guard out")
    if args.save_only_model:
        raise QreditError("the guard restores the optimiser's moments too, which save_only_model leaves out")
    if args.load_best_model_at_end:
        raise QreditError("the guard keeps the best checkpoint itself; leave load_best_model_at_end out")
    if slower and args.lr_scheduler_type == "reduce_lr_on_plateau":
        raise QreditError("guard=roll_back halves the rates of a schedule; reduce_lr_on_plateau has none")
