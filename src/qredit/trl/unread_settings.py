"""Fields of TRL's configurations that have no effect where token ids and models are made before TRL sees them."""

UNREAD_SETTINGS = frozenset(
    {
        # of data: ids are made before TRL sees them
        *("dataset_num_proc", "pad_token", "max_length", "truncation_mode", "padding_free", "remove_unused_columns"),
        "label_names",
        # of evaluation: there is no evaluation data set; validations sample answers
        *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps", "do_eval"),
        *("eval_use_gather_object", "eval_do_concat_batches", "batch_eval_metrics", "include_for_metrics"),
        *("per_device_eval_batch_size", "prediction_loss_only", "bf16_full_eval", "fp16_full_eval", "do_train"),
        *("do_predict", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        # of models and resuming: models are loaded before, whole checkpoints are found by --resume
        *("model_init_kwargs", "trust_remote_code", "resume_from_checkpoint", "auto_find_batch_size"),
    }
)
