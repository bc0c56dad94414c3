"""The facts about TRL that qredit.trl rests on, each against the installed TRL: drift fails here, by name."""

import dataclasses
import importlib
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
import trl_options
from datasets import Dataset
from transformers import Trainer, TrainingArguments
from trl import DPOTrainer, GRPOConfig, GRPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

import qredit.trl
from qredit import QreditError
from qredit.trl import QreditConfig
from qredit.trl.config import DEFAULTS
from qredit.trl.refused_settings import ARGUMENTS, OWNED, UNSUPPORTED
from tests.support.tiny import model, tokenizer


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("_prepare_inputs", ["self", "generation_batch"]),
        ("_compute_loss", ["self", "model", "inputs"]),
        ("_get_train_sampler", ["self", "dataset"]),
        ("get_train_dataloader", ["self"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("training_step", ["self", "model", "inputs", "num_items_in_batch"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
    ],
)
def test_methods_that_are_replaced_have_the_signatures_they_had(method, expected):
    assert parameters(getattr(GRPOTrainer, method)) == expected


def test_pairs_are_prepared_by_the_method_that_is_replaced():
    """It is the only one that makes ids of texts, and it is called for the columns that the collator reads."""
    assert parameters(DPOTrainer._prepare_dataset) == ["self", "dataset", "processing_class", "args", "dataset_name"]
    code = inspect.getsource(DPOTrainer)
    assert code.count("_tokenize(") == inspect.getsource(DPOTrainer._prepare_dataset).count("_tokenize(") > 0
    names = re.findall(r'example\["(\w+)"\]', inspect.getsource(DataCollatorForPreference.torch_call))
    precomputed = {"ref_chosen_logps", "ref_rejected_logps"}
    assert set(names) - precomputed == {"prompt_ids", "chosen_ids", "rejected_ids"}


def test_the_scoring_method_takes_ids_mask_and_what_to_keep():
    names = parameters(GRPOTrainer._get_per_token_logps_and_entropies)
    assert names[:7] == [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy",
    ]  # fmt: skip


def test_loss_and_micro_batch_go_through_the_replaced_methods():
    assert "self._compute_loss(model, inputs)" in inspect.getsource(GRPOTrainer.compute_loss)
    assert "self._prepare_inputs(inputs)" in inspect.getsource(Trainer.training_step)
    assert "self._prepare_inputs(inputs)" in inspect.getsource(GRPOTrainer.prediction_step)


def test_our_loss_is_not_scaled_again_for_accumulation():
    assert GRPOTrainer.loss_is_scaled_for_ga is True


def test_clipped_gradient_norm_is_seen_before_optimiser_steps():
    source = inspect.getsource(Trainer._run_epoch)
    assert source.index("self._clip_grad_norm(model)") < source.index("self.optimizer.step()")


def test_a_checkpoint_is_written_where_the_output_folder_says():
    source = inspect.getsource(Trainer._save_checkpoint)
    assert "run_dir = self._get_output_dir(trial=trial)" in source
    assert "self.save_model(output_dir, _internal_call=True)" in source


# Fields that act through code that is still TRL's or transformers', or that ours reads.
READ = """
    output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    optim_target_modules
    gradient_accumulation_steps max_grad_norm bf16 fp16 bf16_full_eval fp16_full_eval gradient_checkpointing
    gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode use_liger_kernel
    liger_kernel_config use_cache torch_empty_cache_steps logging_strategy logging_first_step logging_nan_inf_filter
    disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy
    eval_delay per_device_eval_batch_size eval_on_start save_only_model save_strategy save_steps save_total_limit
    enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip
    restore_callback_states_from_checkpoint full_determinism seed use_cpu accelerator_config dataloader_drop_last
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order ddp_find_unused_parameters ddp_bucket_cap_mb
    ddp_broadcast_buffers ddp_static_graph fsdp fsdp_config deepspeed debug skip_memory_metrics model_init_kwargs
    trust_remote_code disable_dropout cast_lm_head_to_fp32 num_generations num_generations_eval max_completion_length
    ds3_gather_for_generation shuffle_dataset generation_batch_size steps_per_generation temperature top_p top_k min_p
    chat_template_kwargs repetition_penalty num_iterations reward_weights log_completions num_completions_to_print
    log_unique_prompts log_completions_hub_repo
    use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_max_model_length
    vllm_tensor_parallel_size vllm_importance_sampling_correction vllm_server_base_url vllm_server_host vllm_server_port
    vllm_server_timeout
"""
# Fields that TrainingArguments itself acts on.
OF_ARGUMENTS = """
    tf32 logging_steps log_on_each_node log_level log_level_replica eval_steps save_on_each_node ddp_backend ddp_timeout
"""
# Fields that change nothing, with the reason why that misleads nobody.
IDLE = {
    "do_train": "documented as for scripts alone",
    "do_eval": "documented as for scripts alone",
    "do_predict": "documented as for scripts alone",
    "local_rank": "set by launchers of old; kept by transformers so that they run",
    "prediction_loss_only": "an evaluation gives the loss alone, as if it were on",
}
REPLACED = """
    _prepare_inputs _compute_loss _get_train_sampler get_train_dataloader _generate _generate_single_turn
    _generate_and_score_completions _tool_call_loop
"""


def sources():
    """The code that reads settings: ours, what TRL's trainer keeps, transformers' trainer."""
    ours = [path for path in Path(qredit.trl.__file__).parent.rglob("*.py") if path.name != "refused.py"]
    kept = [f for name, f in inspect.getmembers(GRPOTrainer, inspect.isfunction) if name not in REPLACED.split()]
    libraries = ("trainer", "trainer_callback", "trainer_optimizer", "trainer_utils", "integrations.integration_utils")
    return "\n".join(
        [path.read_text() for path in ours]
        + [inspect.getsource(f) for f in kept]
        + [inspect.getsource(importlib.import_module(f"transformers.{name}")) for name in libraries]
    )


def test_every_trl_setting_has_an_effect_or_a_reason():
    """A field that a new version of TRL or transformers brings is in none of these lists, and fails here by name."""
    divided = [*READ.split(), *OF_ARGUMENTS.split(), *IDLE, *OWNED, *UNSUPPORTED]
    assert sorted(divided) == sorted({f.name for f in dataclasses.fields(GRPOConfig)})
    found = set(re.findall(r"(?<=args\.)\w+|(?<=self\.)\w+", sources()))
    assert set(READ.split()) <= found
    code = inspect.getsource(TrainingArguments)
    assert set(OF_ARGUMENTS.split()) <= set(re.findall(r"(?<=self\.)\w+", code))


def test_the_page_of_options_says_what_becomes_of_each():
    told = [name for kind in trl_options.HONOURED for name in trl_options.names_of(kind)]
    assert sorted(told) == sorted([*READ.split(), *OF_ARGUMENTS.split()])
    assert trl_options.IDLE.keys() == IDLE.keys()
    assert trl_options.PAGE.read_text() == trl_options.page(), "run python experiments/trl_options.py"


def other(value):
    """A value that differs from a field's default."""
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else "other"


@pytest.mark.parametrize("name", [*OWNED, *UNSUPPORTED])
def test_a_setting_that_nothing_here_reads_is_refused_by_name(name, tmp_path):
    with pytest.raises(QreditError, match=f"^{name}=.* (is not supported|belongs to the objective): "):
        QreditConfig(output_dir=str(tmp_path), use_cpu=True, **{name: other(DEFAULTS[name])})


def test_every_argument_of_the_trainer_is_taken_or_refused():
    taken = """
        self model reward_funcs args train_dataset eval_dataset processing_class reward_processing_classes callbacks
        optimizers quantization_config peft_config tools environment_factory
    """
    assert sorted(parameters(GRPOTrainer.__init__)) == sorted([*taken.split(), *ARGUMENTS])


@pytest.fixture
def trainer(tmp_path):
    data = Dataset.from_dict({"prompt": ["What is two?", "What is one?"] * 4})
    args = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=6, bf16=False,
        gradient_checkpointing=False, report_to=[], max_steps=2, use_cpu=True,
    )  # fmt: skip
    return GRPOTrainer(model(), reward_funcs=lambda completions, **_: [0.0] * len(completions), args=args,
                       train_dataset=data, processing_class=tokenizer())  # fmt: skip


def test_the_attributes_that_are_read_exist(trainer):
    names = """
        _metrics _logs _pending_extra_logs _pending_metrics _step _dist eos_token_ids reward_weights reward_func_names
        num_generations_eval num_iterations _tokenizer _is_vlm chat_template_kwargs shuffle_dataset model_wrapped
    """
    for name in names.split():
        assert hasattr(trainer, name), name
    assert set(trainer._logs) >= {"prompt", "completion", "rewards", "advantages", "extra"}


def test_rewards_come_back_for_all_processes_by_function(trainer):
    rows = [{"prompt": "a", "answer": "b"}] * 3
    rewards = trainer._calculate_rewards(rows, ["a"] * 3, ["c"] * 3, [[1]] * 3)
    assert rewards.shape == (3, 1)


def test_masked_tokens_get_zero_and_others_the_models_own(trainer):
    ids = torch.randint(5, 200, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    mask[1, 7:] = 0
    logp, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 4)
    with torch.no_grad():
        plain = trainer.model(ids, attention_mask=mask).logits.log_softmax(-1)[:, 4:-1]
    expected = plain.gather(-1, ids[:, 5:, None])[..., 0] * mask[:, 5:]
    assert torch.allclose(logp, expected, atol=1e-5)


def test_the_fused_head_divides_once_and_can_be_put_on_again():
    network, ids = model(), torch.randint(5, 200, (2, 6))
    labels = ids.clone()

    def scored():
        return network(input_ids=ids, labels=labels, fused_lm_head=True).log_probs

    add_fused_lm_head(network, temperature=2.0)
    tempered = scored()
    add_fused_lm_head(network, temperature=1.0)
    with torch.no_grad():
        logits = network(ids).logits[:, :-1]
    at = ids[:, 1:, None]
    assert torch.allclose(tempered, (logits / 2).log_softmax(-1).gather(-1, at)[..., 0], atol=1e-5)
    assert torch.allclose(scored(), logits.log_softmax(-1).gather(-1, at)[..., 0], atol=1e-5)


def test_trl_replays_the_first_epochs_prompts_in_the_second():
    """The reason for an order of our own: TRL's sampler draws its permutations one after the other."""
    from trl.trainer.utils import RepeatSampler

    def order():
        return RepeatSampler(list(range(8)), mini_repeat_count=1, batch_size=8, seed=3)

    whole = order()
    first, second = list(whole), list(whole)
    assert first != second
    assert list(order()) == first


def test_an_unscored_row_is_nan_in_trl_too(trainer):
    trainer.reward_funcs = [lambda completions, **_: [None, 1.0]]
    rewards = trainer._calculate_rewards([{"prompt": "a"}] * 2, ["a"] * 2, ["c"] * 2, [[1]] * 2)
    assert math.isnan(float(rewards[0, 0]))
    assert float(rewards[1, 0]) == 1.0
