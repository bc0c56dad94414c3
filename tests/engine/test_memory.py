"""What a forward pass holds is measured, and how many rows fit follows from it."""

import gc
import weakref

import pytest
import torch
from torch import nn

import qredit.trl.trainer as training
from qredit.core.batch import RolloutBatch
from qredit.engine.memory import count_fitting_rows, estimate_optimizer_bytes, get_free_bytes, measure_bytes_per_token
from qredit.rollouts.collate import Rows
from qredit.trl.memory_estimate import ADVICE, MemoryEstimate, _rows, estimate_memory
from tests.support.rounding import gradient_bound
from tests.support.runs import first_step_gradients, relative_difference, trainer


def test_what_autograd_saves_is_counted_once_and_no_weights():
    model = nn.Linear(3, 5, bias=False)
    x = torch.randn(7, 3)

    def run():
        return model(x).exp().sum() + model(x).sum()  # exp keeps its result; both products keep one and the same x

    assert measure_bytes_per_token(run, 7, torch.device("cpu"), model) == 4 * (7 * 3 + 7 * 5) / 7


def test_a_measured_pass_is_let_go():
    model = nn.Linear(4, 4)
    weight = weakref.ref(model.weight)
    measure_bytes_per_token(lambda: torch.exp(model(torch.ones(2, 4))).sum(), 2, torch.device("cpu"), model)
    del model
    gc.collect()
    assert weight() is None  # the node of exp saves its own output: held through Python, it would hold the pass


def test_measuring_draws_no_random_numbers():
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    measure_bytes_per_token(lambda: model(torch.ones(2, 3)), 2, torch.device("cpu"), model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("tokens", "rows"),
    [(10, 1), (100, 1), (120, 2), (140, 4), (180, 8), (280, 8), (290, 9), (360, 16), (10**6, 44444)],
)
def test_rows_share_a_prompt_up_to_their_group(tokens, rows):
    """A prompt of 100 tokens, completions of 10, groups of 8: 180 tokens for each whole group."""
    assert count_fitting_rows(tokens, prompt=100, completion=10, group=8) == pytest.approx(rows, rel=1e-3)


def test_free_memory_is_some_and_not_all():
    assert 2**20 < get_free_bytes(torch.device("cpu")) < 2**50


def test_what_an_engine_in_this_process_holds_is_not_free(monkeypatch):
    """24 of a card's 80 are vLLM's, allocated as the policy's 6 are; 4 more wait with the allocator."""
    told = {"mem_get_info": (46, 80), "memory_allocated": 30, "memory_reserved": 34}
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert get_free_bytes(torch.device("cuda")) == pytest.approx(0.6 * (80 - 24 - 6))


def test_a_step_that_does_not_fit_is_cut_with_the_same_gradient(tmp_path, monkeypatch):
    whole = trainer(tmp_path)
    expected = first_step_gradients(whole)
    monkeypatch.setattr(training, "get_free_bytes", lambda device: 2e5)
    cut = trainer(tmp_path)
    passes = []
    scored = cut.scorer.score
    cut.scorer.score = lambda network, rows, only=None: (
        passes.append(len(rows.batch.mask)) or scored(network, rows, only)
    )
    found = first_step_gradients(cut)
    assert relative_difference(found, expected) < gradient_bound()
    assert len(passes) > 3
    assert max(passes) < len(cut._generation.microbatches[0].rows.batch.mask)


def test_what_a_token_needs_does_not_depend_on_the_first_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "get_free_bytes", lambda device: 2e7)
    ids = torch.ones(8, 100, dtype=torch.long)
    lengths = torch.tensor([3, 3, 100, 100, 100, 100, 100, 100])
    found = []
    for order in (torch.arange(8), torch.arange(7, -1, -1)):
        mask = torch.arange(100) < lengths[order, None]
        batch = RolloutBatch(mask=mask, rationale=mask, answer=~mask & False, group=torch.zeros(8).long(), ids=ids)
        prompts = torch.ones(8, 5, dtype=torch.long)
        made = trainer(tmp_path, "grpo()")
        made.model.train()
        found.append(made.scorer._rows_that_fit(Rows(prompts, prompts, batch)))
    assert found[0] == found[1] < 1000


def test_gradients_and_moments_not_there_yet_are_left_room():
    model = nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    assert estimate_optimizer_bytes(model, optimizer) == 3 * 400
    model(torch.ones(1, 10)).sum().backward()
    assert estimate_optimizer_bytes(model, optimizer) == 2 * 400
    optimizer.step()
    assert estimate_optimizer_bytes(model, optimizer) == 0


# --- what a run would reach


def sizes(folder, objective="garl(q=0.75)", **changes):
    made = trainer(folder, objective, **changes)
    found = estimate_memory(made)
    assert not made.optimizer
    return found


def test_weights_gradients_and_moments_are_those_of_the_model(tmp_path):
    found = sizes(tmp_path)
    update = found.phases["update"]
    weights = sum(4 * p.numel() for p in trainer(tmp_path).model.parameters())
    assert (update["weights"], update["gradients"], update["moments"]) == (weights, weights, 2 * weights)
    assert "gradients" not in found.phases["sampling"]
    assert found.peak == sum(found.phases[found.phase].values())


def test_activations_are_those_of_tokens_that_one_pass_computes(tmp_path):
    made = trainer(tmp_path, max_completion_length=40, answer_budget=8)
    found = estimate_memory(made)
    activations = found.phases["update"]["activations"]
    rows = _rows(made, 32, None)  # 8 rows in 2 groups
    made.model.train()
    held = made.scorer.bytes_per_token(rows)
    prompts = sorted(map(len, made.train_dataset["prompt_ids"]))[-2:]
    longest = 32 + len(made.format.close_ids) + max(map(len, made.train_dataset["answer_ids"]))
    assert activations / held == pytest.approx(sum(prompts) + 8 * (longest - 1))


def test_rows_are_cut_as_the_run_would_cut_them(tmp_path, monkeypatch):
    whole = sizes(tmp_path)
    monkeypatch.setattr(training, "get_free_bytes", lambda device: 2e5)
    cut = sizes(tmp_path)
    assert whole.rows_at_once == whole.rows == cut.rows == 8
    assert cut.rows_at_once < 8
    assert cut.phases["update"]["activations"] < whole.phases["update"]["activations"]
    assert cut.least <= cut.peak < whole.peak
    by_hand = sizes(tmp_path, rows_per_forward=cut.rows_at_once)
    assert by_hand.phases["update"]["activations"] == pytest.approx(cut.phases["update"]["activations"])


def test_a_copied_reference_and_two_tails_are_counted(tmp_path):
    plain = sizes(tmp_path)
    found = sizes(tmp_path, "garl(q=0.75) | kl_to_reference(0.1)")
    assert found.phases["update"]["reference"] == found.phases["update"]["weights"]
    assert plain.phases["update"]["reference"] == 0
    assert sizes(tmp_path, "garl(q=0.75) | kl_to_reference(0.1)").rows % plain.rows == 0


def test_checkpointing_trades_activations_for_a_second_pass(tmp_path):
    sizes_of = [sizes(tmp_path, gradient_checkpointing=on).phases["update"] for on in (False, True)]
    assert sizes_of[1]["activations"] < sizes_of[0]["activations"] / 2
    assert sizes_of[1]["layer"] > sizes_of[0]["layer"]
    made = trainer(tmp_path, gradient_checkpointing=True)
    estimate_memory(made)
    assert not made.model.is_gradient_checkpointing  # the run turns it on when it begins


def test_kept_keys_are_counted_beside_checkpointed_layers(tmp_path):
    kept = [
        sizes(tmp_path, objective, gradient_checkpointing=on, **more).phases["update"]["prompts"]
        for objective, on, more in (
            ("paft(q=0.75)", True, {}),
            ("paft(q=0.75)", False, {}),
            ("garl(q=0.75)", True, {}),
            ("paft(q=0.75)", True, {"rows_per_forward": 4}),
        )
    ]
    made = trainer(tmp_path)
    config, prompts = made.model.config, sorted(map(len, made.train_dataset["prompt_ids"]))[-2:]
    key = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert kept == [2 * key * sum(prompts), 0, 0, 0]


def test_the_largest_part_of_the_largest_phase_has_its_remedy(tmp_path):
    found = MemoryEstimate({"sampling": {"cache": 5.0}, "update": {"weights": 1.0, "activations": 3.0}}, 4, 4, 2.0, 4.5)
    assert (found.phase, found.part, found.peak, found.fits) == ("sampling", "cache", 5.0, False)
    assert found.as_dict()["advice"] == ADVICE["cache"]
    assert {part for parts in sizes(tmp_path).phases.values() for part in parts} <= ADVICE.keys()
