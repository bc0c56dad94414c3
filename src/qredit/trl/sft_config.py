"""SftConfig: TRL's SFTConfig, without its own preparation of data, and the fields of it that have no effect here."""

from dataclasses import dataclass

from trl import SFTConfig

NOT_READ = frozenset(
    {
        # of data: ids and labels are made before TRL sees them
        *("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "eos_token", "pad_token", "max_length"),
        *("shuffle_dataset", "truncation_mode", "packing", "packing_strategy", "padding_free", "eval_packing"),
        *("completion_only_loss", "assistant_only_loss", "chat_template_path", "remove_unused_columns", "label_names"),
        # of evaluation: there is no evaluation data set; validations sample answers
        *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps", "do_eval"),
        *("eval_use_gather_object", "eval_do_concat_batches", "batch_eval_metrics", "include_for_metrics"),
        *("per_device_eval_batch_size", "prediction_loss_only", "bf16_full_eval", "fp16_full_eval", "do_train"),
        *("do_predict", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        # of models and resuming: models are loaded before, whole checkpoints are found by --resume
        *("model_init_kwargs", "trust_remote_code", "resume_from_checkpoint", "auto_find_batch_size"),
    }
)
"""Fields of SFTConfig that have no effect on an SftTrainer."""


@dataclass
class SftConfig(SFTConfig):  # type: ignore[misc]
    """TRL's SFTConfig for demonstrations that are token ids already; `NOT_READ` names the fields without effect."""

    def __post_init__(self) -> None:
        self.dataset_kwargs = {"skip_prepare_dataset": True}
        super().__post_init__()
