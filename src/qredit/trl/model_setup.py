"""A model made ready to be scored: exactly, at temperature 1 where that is wanted, prompts computed once if it can."""

from collections.abc import Callable
from typing import Any

from accelerate.logging import get_logger
from accelerate.utils import is_peft_model
from trl.trainer.utils import add_fused_lm_head

from qredit.core.chain import field_kinds
from qredit.core.field_names import ANSWER_AT_TURNS, DIVERGENCES, LOGP_PREFIX
from qredit.core.objective import Objective
from qredit.engine.base_probability import BASE
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.layout import Layout
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.patch_forward import NUCLEUS, VECTOR_FIELDS, enable_token_scoring
from qredit.shared_prefix.share import share_prefix
from qredit.trl.config import QreditConfig
from qredit.utils.errors import QreditError

_log = get_logger(__name__)


def score_at_temperature_one(model: Any, objective: Objective, args: QreditConfig) -> None:
    """The gold answer's likelihood is wanted at temperature 1 and exact: TRL's head divides by the sampling
    temperature, and under bf16 rounds each token's logit by some hundredths of a nat.

    Args:
        model: as the trainer holds it.
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        args: of the trainer.
    """
    if "answer_logp" in objective.needs and (args.temperature != 1.0 or args.bf16 or args.fp16):
        base = model.get_base_model() if is_peft_model(model) else model
        add_fused_lm_head(base, temperature=1.0, cast_lm_head_to_fp32=True, outputs=("log_probs", "entropy"))


def choose_layout(model: Any, objective: Objective, args: QreditConfig) -> Callable[[Rows], Layout] | None:
    """How rows lie in a forward pass: prompts computed once if the model can, said if it cannot.

    Where nothing is shared, accelerators keep TRL's fused head, whose tiles are slow on a CPU.

    Args:
        model: as the trainer holds it.
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        args: of the trainer.

    Raises:
        QreditError: the objective needs what the model's head cannot tell.
    """
    reason = share_prefix(model) if args.shared_prefix else "it was asked for"
    if reason is None:
        return pack
    scored = {NUCLEUS, *VECTOR_FIELDS, *DIVERGENCES, LOGP_PREFIX, BASE, *ANSWER_AT_TURNS}
    told = field_kinds(objective.needs) & scored
    if told and not enable_token_scoring(model):
        named = sorted(name for name in objective.needs if field_kinds({name}) & told)
        raise QreditError(f"{objective} needs {', '.join(named)}, which this model's head cannot tell")
    if args.shared_prefix:
        _log.warning(f"prompts are computed once for each rollout, not once for each group: {reason}")
    return pad_rows if (told or args.use_cpu) and enable_token_scoring(model) else None
