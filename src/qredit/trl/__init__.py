"""The single-machine engine: Hugging Face TRL."""

from qredit.trl.config import QreditConfig
from qredit.trl.trainer import QreditTrainer

__all__ = ["QreditConfig", "QreditTrainer"]
