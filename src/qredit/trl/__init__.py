"""The single-machine engine: Hugging Face TRL."""

from qredit.utils.extras import require_extras

require_extras("qredit.trl", "trl")  # before TRL is imported: its absence is then said with what installs it

from qredit.trl.config import QreditConfig  # noqa: E402
from qredit.trl.teachers import Hint  # noqa: E402
from qredit.trl.trainer import QreditTrainer  # noqa: E402

__all__ = ["Hint", "QreditConfig", "QreditTrainer"]
