"""What of TRL's and transformers' settings is refused, because the objective owns it or nothing here reads it.

Every other field of GRPOConfig has its effect; tests/trl/test_trl_contract.py divides all of them, so that a field
that a new version brings is noticed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from qredit.utils.errors import QreditError

_ADAPTIVE = "add a penalty: … | adaptive_entropy()"
_REFERENCE = "leave it; the reference is the model that the run began with"
_ENGINE_RATIO = (
    "the ratio between trainer and sampler is the objective's: garl(ratio=sequence_mask(limit=3)), or "
    "grpo() | weigh_by_ratio(ratio=sequence_mask(limit=3)); vllm_importance_sampling_correction=False leaves it out"
)
_BATCHED = "rollouts are sampled one batch at a time"
_LOSS_ALONE = "an evaluation gives the objective's loss and the rewards, and reads no labels"

OWNED: Mapping[str, str] = {
    "loss_type": "choose the objective: grpo(), dapo(), dr_grpo(length=…), …",
    "beta": "add a penalty: … | kl_to_reference(strength)",
    "epsilon": "grpo(epsilon_low=…)",
    "epsilon_high": "grpo(epsilon_high=…)",
    "delta": "dapo(dual_clip=…), or clipped_ratio(dual_clip=…)",
    "scale_rewards": "grpo() scales by group; rloo() and dr_grpo(length=…) do not; scale_by_batch_std() is a stage",
    "multi_objective_aggregation": "rewards are summed by reward_weights; write other combinations as stages",
    "importance_sampling_level": "gspo()",
    "mask_truncated_completions": "write a stage that keeps the rows you want",
    "top_entropy_quantile": "top_entropy(), or the stage keep_top_entropy",
    "entropy_coef": "add a penalty: … | entropy_bonus(strength)",
    "use_adaptive_entropy": _ADAPTIVE,
    "off_policy_mask_threshold": "no stage for off-policy masks exists yet",
    **dict.fromkeys(
        (
            *("vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max"),
            *("vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap"),
        ),
        _ENGINE_RATIO,
    ),
    "use_bias_correction_kl": "leave it; kl_to_reference has no such correction",
    "sync_ref_model": _REFERENCE,
    "sapo_temperature_neg": "no stage for SAPO exists yet",
    "sapo_temperature_pos": "no stage for SAPO exists yet",
    "vespo_k_pos": "no stage for VESPO exists yet",
    "vespo_k_neg": "no stage for VESPO exists yet",
    "vespo_lambda_pos": "no stage for VESPO exists yet",
    "vespo_lambda_neg": "no stage for VESPO exists yet",
    "entropy_coef_min": _ADAPTIVE,
    "entropy_coef_max": _ADAPTIVE,
    "entropy_coef_delta": _ADAPTIVE,
    "entropy_target": _ADAPTIVE,
    "ref_model_mixup_alpha": _REFERENCE,
    "ref_model_sync_steps": _REFERENCE,
}
"""Fields that say what an objective says, and the stage to use instead."""

UNSUPPORTED: Mapping[str, str] = {
    "vllm_structured_outputs_regex": "a completion is a rationale and an answer, in the layout of QreditConfig",
    "vllm_group_port": "weights reach a server through files that it reads",
    "use_transformers_continuous_batching": _BATCHED,
    "use_transformers_paged": _BATCHED,
    "transformers_continuous_batching_config": _BATCHED,
    "generation_kwargs": "set temperature, top_p, top_k, min_p or repetition_penalty themselves",
    "cache_implementation": "sampling keeps a cache of its own kind",
    "pad_to_multiple_of": "rows are as wide as the longest of them",
    "router_aux_loss_coef": "no stage adds the loss of a router; set it to 0",
    "max_tool_calling_iterations": "max_turns counts turns, the answer's among them",
    "log_multimodal": "prompts are text",
    "neftune_noise_alpha": "noise on the embeddings would change the likelihoods that are learned from",
    "label_smoothing_factor": "the loss is the objective's",
    "average_tokens_across_devices": "denominators are always those of a whole step over all processes",
    "auto_find_batch_size": "a smaller batch would split groups; rows_per_forward is chosen by the memory there is",
    "train_sampling_strategy": "prompts are shuffled by the seed, group by group",
    "length_column_name": "prompts are not sorted by length",
    "data_seed": "prompts are shuffled by seed",
    "remove_unused_columns": "rewards read the other columns",
    "include_num_input_tokens_seen": "tokens are counted as num_tokens in the log",
    "parallelism_config": "rows are not divided within a forward pass",
    **dict.fromkeys(
        (
            *("label_names", "include_for_metrics", "batch_eval_metrics", "eval_do_concat_batches"),
            *("eval_use_gather_object", "eval_accumulation_steps"),
        ),
        _LOSS_ALONE,
    ),
    "resume_from_checkpoint": "give it to train(resume_from_checkpoint=…)",
}
"""Fields that nothing here reads, and why or what to use."""

UNCHANGED: Mapping[str, Sequence[Any]] = {
    "router_aux_loss_coef": (0,),
    "pad_to_multiple_of": (None,),  # what TRL makes of its default
    "include_num_input_tokens_seen": (False,),
}
"""Other values than the default that change nothing either."""

ARGUMENTS = {
    "rollout_func": "rollouts are sampled here, so that thinking is closed and the gold answer can follow",
}
"""Arguments of TRL's trainer that are refused, and why."""


def check_arguments(model: str | nn.Module, args: Any, given: Mapping[str, Any]) -> None:
    """Refuse arguments of TRL's trainer that would have no effect here.

    Args:
        model: an id, a path, or a loaded model.
        args: the training arguments.
        given: the trainer's further arguments by name.

    Raises:
        QreditError: names the argument, and what takes its place.
    """
    for name, reason in ARGUMENTS.items():
        if given.get(name):
            raise QreditError(f"{name} is not supported: {reason}")
    if isinstance(model, str):
        return
    for name, value in (
        ("model_init_kwargs", args.model_init_kwargs),
        ("quantization_config", given.get("quantization_config")),
    ):
        if value:
            raise QreditError(f"{name} has no effect on a model that is loaded already: load the model with it")
