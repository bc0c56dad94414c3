"""docs/trl-options.md: what becomes of each field of TRL's GRPOConfig here, from the lists that qredit.trl checks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from qredit.trl.refused_settings import ARGUMENTS, OWNED, UNCHANGED, UNSUPPORTED

PAGE = Path(__file__).parents[1] / "docs" / "trl-options.md"

HONOURED: Mapping[str, str] = {
    "Sizes": "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps generation_batch_size "
    "steps_per_generation num_generations num_generations_eval num_iterations max_completion_length num_train_epochs "
    "max_steps",
    "Sampling": "temperature top_p top_k min_p repetition_penalty chat_template_kwargs shuffle_dataset "
    "ds3_gather_for_generation",
    "Sampling with vLLM": "use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_gpu_memory_utilization "
    "vllm_max_model_length vllm_tensor_parallel_size vllm_importance_sampling_correction vllm_server_base_url "
    "vllm_server_host vllm_server_port vllm_server_timeout",
    "Optimiser and schedule": "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args "
    "optim_target_modules weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm",
    "Model and precision": "model_init_kwargs trust_remote_code disable_dropout cast_lm_head_to_fp32 bf16 fp16 "
    "bf16_full_eval fp16_full_eval tf32 gradient_checkpointing gradient_checkpointing_kwargs torch_compile "
    "torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache torch_empty_cache_steps "
    "use_cpu",
    "Rewards and logs": "reward_weights log_completions num_completions_to_print log_unique_prompts "
    "log_completions_hub_repo logging_strategy logging_steps logging_first_step logging_nan_inf_filter "
    "log_on_each_node log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id "
    "trackio_bucket_id trackio_static_space_id skip_memory_metrics debug",
    "Evaluation": "eval_strategy eval_steps eval_delay eval_on_start metric_for_best_model greater_is_better "
    "load_best_model_at_end",
    "Saving and resuming": "output_dir save_strategy save_steps save_total_limit save_only_model save_on_each_node "
    "enable_jit_checkpoint ignore_data_skip restore_callback_states_from_checkpoint push_to_hub hub_model_id hub_token "
    "hub_private_repo hub_strategy hub_always_push hub_revision",
    "Processes and loaders": "seed full_determinism accelerator_config ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed dataloader_drop_last "
    "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
    "dataloader_multiprocessing_context dataloader_in_order",
}
"""Fields that have their effect, by what they are about."""

NOTES: Sequence[str] = (
    "`per_device_train_batch_size` counts rollouts and must be a multiple of `num_generations`: no group is split.",
    "`max_completion_length` holds rationale and answer. `answer_budget` of its tokens are kept for the answer.",
    "`temperature`, `top_p`, `top_k`, `min_p` and `repetition_penalty` must keep their defaults under an objective of "
    "likelihoods (GARL, PAFT), unless `biased_sampling` is set.",
    "`vllm_importance_sampling_correction` is on: rollouts of vLLM count as those of another policy, by the ratio of "
    "the objective. Off, they count as the policy's own. See [vLLM](vllm.md).",
    "`bf16` and `gradient_checkpointing` default to on with an accelerator and to off on a CPU.",
    "`use_liger_kernel` patches the layers of the model, as in TRL. It leaves the loss alone.",
)

IDLE: Mapping[str, str] = {
    "do_train": "it is for scripts alone, as transformers documents",
    "do_eval": "it is for scripts alone, as transformers documents",
    "do_predict": "it is for scripts alone, as transformers documents",
    "local_rank": "transformers keeps it for launchers of old",
    "prediction_loss_only": "an evaluation gives the loss alone, as if it were on",
}
"""Fields that are taken and change nothing, and why that misleads nobody."""


def names_of(kind: str) -> list[str]:
    """The fields about one thing, in their order."""
    return HONOURED[kind].split()


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _refused(fields: Mapping[str, str]) -> list[str]:
    """A row for each reason, with the fields that share it."""
    shared: dict[str, list[str]] = {}
    for name, reason in fields.items():
        shared.setdefault(reason, []).append(f"`{name}`")
    return [_row(", ".join(names), reason.replace("|", "\\|").replace("; ", ", ")) for reason, names in shared.items()]


def page() -> str:
    """The text of docs/trl-options.md."""
    kept = ", ".join(f"`{name}={value!r}`" for name, values in UNCHANGED.items() for value in values)
    return "\n".join(
        [
            "# TRL's options",
            "",
            "`QreditConfig` is a `GRPOConfig`. Each of its fields is honoured, refused or has no effect. Nothing is",
            "ignored in silence: a field that is refused ends with one line that names what to use instead, before any",
            "compute. `python experiments/trl_options.py` writes this page from the lists that the trainer checks.",
            "",
            "## Refused, because the objective says it",
            "",
            "In TRL these fields choose the loss. Here the objective is a value, such as `dapo()`, that holds them.",
            "",
            _row("TRL option", "use instead"),
            "|---|---|",
            *_refused(OWNED),
            "",
            "## Refused, because nothing here reads it",
            "",
            f"The default is accepted, and so is a value that says the same: {kept}.",
            "",
            _row("TRL option", "why, or what to use"),
            "|---|---|",
            *_refused(UNSUPPORTED),
            "",
            "Of the arguments of `GRPOTrainer`, this one is refused:",
            "",
            _row("argument", "why"),
            "|---|---|",
            *_refused(ARGUMENTS),
            "",
            "## Honoured",
            "",
            _row("about", "TRL option"),
            "|---|---|",
            *(_row(kind, ", ".join(f"`{name}`" for name in names_of(kind))) for kind in HONOURED),
            "",
            *(f"- {note}" for note in NOTES),
            "",
            "## No effect",
            "",
            _row("TRL option", "because"),
            "|---|---|",
            *_refused(IDLE),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
