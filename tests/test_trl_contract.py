"""The facts about TRL that qredit.trl rests on, each against the installed TRL: drift fails here, by name."""

import dataclasses
import inspect
import math

import pytest
import torch
from datasets import Dataset
from tiny import model, tokenizer
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from qredit.trl.config import _UNSUPPORTED, OWNED


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("_prepare_inputs", ["self", "generation_batch"]),
        ("_compute_loss", ["self", "model", "inputs"]),
        ("_get_train_sampler", ["self", "dataset"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("training_step", ["self", "model", "inputs", "num_items_in_batch"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
    ],
)
def test_the_methods_that_are_replaced_have_the_signatures_they_had(method, expected):
    assert parameters(getattr(GRPOTrainer, method)) == expected


def test_the_scoring_method_takes_a_model_ids_a_mask_and_how_much_to_keep():
    names = parameters(GRPOTrainer._get_per_token_logps_and_entropies)
    assert names[:7] == [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy",
    ]  # fmt: skip


def test_the_loss_and_the_micro_batch_go_through_the_replaced_methods():
    assert "self._compute_loss(model, inputs)" in inspect.getsource(GRPOTrainer.compute_loss)
    assert "self._prepare_inputs(inputs)" in inspect.getsource(Trainer.training_step)
    assert "self._prepare_inputs(inputs)" in inspect.getsource(GRPOTrainer.prediction_step)


def test_our_loss_is_not_scaled_again_for_accumulation():
    assert GRPOTrainer.loss_is_scaled_for_ga is True


def test_the_clipped_gradient_norm_is_seen_before_the_optimiser_steps():
    source = inspect.getsource(Trainer._run_epoch)
    assert source.index("self._clip_grad_norm(model)") < source.index("self.optimizer.step()")


def test_a_checkpoint_is_written_where_the_output_folder_says():
    source = inspect.getsource(Trainer._save_checkpoint)
    assert "run_dir = self._get_output_dir(trial=trial)" in source
    assert "self.save_model(output_dir, _internal_call=True)" in source


def test_every_field_that_the_objective_owns_exists():
    names = {f.name for f in dataclasses.fields(GRPOConfig)}
    assert set(OWNED) | set(_UNSUPPORTED) <= names


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


def test_rewards_come_back_for_all_processes_one_column_per_function(trainer):
    rows = [{"prompt": "a", "answer": "b"}] * 3
    rewards = trainer._calculate_rewards(rows, ["a"] * 3, ["c"] * 3, [[1]] * 3)
    assert rewards.shape == (3, 1)


def test_masked_tokens_get_log_probability_zero_and_the_others_the_models_own(trainer):
    ids = torch.randint(5, 200, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    mask[1, 7:] = 0
    logp, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 4)
    with torch.no_grad():
        plain = trainer.model(ids, attention_mask=mask).logits.log_softmax(-1)[:, 4:-1]
    expected = plain.gather(-1, ids[:, 5:, None])[..., 0] * mask[:, 5:]
    assert torch.allclose(logp, expected, atol=1e-5)


def test_the_fused_head_divides_by_one_temperature_and_can_be_put_on_again():
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


def test_trl_replays_the_first_epochs_prompts_after_a_resume_in_the_second():
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
