"""DpoConfig: TRL's DPOConfig for pairs that are token ids already, and the fields of it that have no effect here."""

from dataclasses import dataclass

from trl import DPOConfig

from qredit.trl.unread_settings import UNREAD_SETTINGS
from qredit.utils.errors import QreditError, unknown_name_error

NOT_READ = UNREAD_SETTINGS
"""Fields of DPOConfig that have no effect on a DpoTrainer."""
F_DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")


@dataclass
class DpoConfig(DPOConfig):  # type: ignore[misc]
    """TRL's DPOConfig for pairs that are token ids already; `NOT_READ` names the fields without effect.

    Raises:
        QreditError: a value that TRL would stumble over in the first step.
    """

    def __post_init__(self) -> None:
        self.max_length, self.remove_unused_columns = None, False  # nothing is cut; the masks are columns of ours
        if self.f_divergence_type not in F_DIVERGENCES:
            raise unknown_name_error("f_divergence_type", str(self.f_divergence_type), F_DIVERGENCES)
        if self.ld_alpha is not None and not 0 <= self.ld_alpha <= 1:
            raise QreditError(f"ld_alpha must lie between 0 and 1, got {self.ld_alpha}")
        super().__post_init__()
