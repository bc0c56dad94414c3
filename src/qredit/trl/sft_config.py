"""SftConfig: TRL's SFTConfig, without its own preparation of data, and the fields of it that have no effect here."""

from dataclasses import dataclass

from trl import SFTConfig

from qredit.trl.unread_settings import UNREAD_SETTINGS

NOT_READ = UNREAD_SETTINGS | {
    *("dataset_text_field", "dataset_kwargs", "eos_token", "shuffle_dataset", "packing", "packing_strategy"),
    *("eval_packing", "completion_only_loss", "assistant_only_loss", "chat_template_path"),
}
"""Fields of SFTConfig that have no effect on an SftTrainer."""


@dataclass
class SftConfig(SFTConfig):  # type: ignore[misc]
    """TRL's SFTConfig for demonstrations that are token ids already; `NOT_READ` names the fields without effect."""

    def __post_init__(self) -> None:
        self.dataset_kwargs = {"skip_prepare_dataset": True}
        super().__post_init__()
