"""The trainer on TRL: the same gradient however a step is cut, and everything TRL's users expect still works."""

import json
import math
import shutil
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers.trainer
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, TrainerCallback

from qredit import Objective, QreditError, on_span
from qredit.core.batch import concatenate
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.importance import sequence_truncate, token_truncate
from qredit.core.objective import Credited
from qredit.core.schedule import linear
from qredit.credit.group import center_by_group, scale_by_batch_std
from qredit.credit.reward import reward
from qredit.credit.running import subtract_running_mean
from qredit.engine.checkpoint import find_damage
from qredit.objectives import garl, paft
from qredit.penalties.entropy import entropy_bonus
from qredit.rollouts.trajectory import make_one_turn
from qredit.trl import QreditConfig, QreditTrainer
from qredit.trl.generation_metrics import collect_length_stats, compute_length_metrics
from tests.support.marks import e2e
from tests.support.rounding import gradient_bound
from tests.support.runs import first_step_gradients, length_reward, questions, relative_difference, settings, trainer
from tests.support.tiny import chat_tokenizer, model, tokenizer

BATCH_STD = Objective(on_span("sampled", reward() | center_by_group() | scale_by_batch_std()))
KINDS = ["garl(q=0.75)", e2e("paft(q=0.5)"), "grpo()", e2e("dapo()"), BATCH_STD]
"""One of a likelihood, one that draws, a mean over rows, a mean over tokens, a statistic of the step."""
OBJECTIVES = [*KINDS, *map(e2e, ("dr_grpo(length=10)", "rloo()", "maxrl()", "delta()"))]


def test_lengths_that_are_logged_add_up_and_keep_to_the_budget():
    """A closing that was forced has no part in the budget; one that was sampled has."""
    forced = make_one_turn((1,), (5,) * 12, (0.0,) * 12, 4, 9, forced=True, ended=False)
    sampled = make_one_turn((1,), (5,) * 6, (0.0,) * 6, 2, 4, forced=False, ended=True)
    found = compute_length_metrics(collect_length_stats([forced, sampled]))  # budget: 4 of thinking, 3 of the answer
    assert (found["completions/max_length"], found["completions/min_length"]) == (7, 6)
    assert (found["rationale/mean_length"], found["response/mean_length"]) == (3, 2.5)
    assert found["completions/mean_length"] == 6.5 == 3 + 2.5 + 2 / 2  # the second row's closing was sampled
    assert float(collect_length_stats([forced, sampled])[:, -1].sum()) == 18  # every token counts as seen


@pytest.mark.parametrize(("length", "answer"), [(256, 128), (1024, 128), (64, 32), (9, 4)])
def test_an_answer_budget_that_nobody_gave_fits_the_completion(tmp_path, length, answer):
    args = QreditConfig(str(tmp_path), max_completion_length=length, num_generations=2, use_cpu=True, report_to=[])
    assert (args.answer_budget, args.budget.thinking) == (answer, length - answer)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_pieces_have_the_gradient_of_one_large_batch(tmp_path, objective):
    """Micro-batches of whole groups, and chunks of rows that are no group."""
    large = {"per_device_train_batch_size": 16, "reward_funcs": length_reward}
    whole = first_step_gradients(trainer(tmp_path, objective, **large))
    for cut in ({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}, {"rows_per_forward": 3}):
        assert (
            relative_difference(first_step_gradients(trainer(tmp_path, objective, **large | cut)), whole)
            < gradient_bound()
        )


@pytest.mark.e2e
def test_single_rows_have_the_gradient_of_the_whole_group(tmp_path):
    whole = trainer(tmp_path, "garl(q=0.75)", reward_funcs=length_reward)
    cut = trainer(tmp_path, "garl(q=0.75)", rows_per_forward=1, reward_funcs=length_reward)
    assert relative_difference(first_step_gradients(cut), first_step_gradients(whole)) < gradient_bound()


def test_group_statistics_taken_over_chunks_would_be_seen(tmp_path, monkeypatch):
    """The mutant of the tests above: coefficients evaluated chunk by chunk move the gradient."""
    whole = first_step_gradients(trainer(tmp_path))

    def chunk_by_chunk(objective, batch, state):
        parts = [objective.evaluate(batch.select(chunk)) for chunk in torch.arange(len(batch.mask)).split(3)]
        return Credited(torch.cat([part.value for part in parts]))

    monkeypatch.setattr("qredit.engine.step.evaluate_objective", chunk_by_chunk)
    mutant = trainer(tmp_path, rows_per_forward=3)
    assert relative_difference(first_step_gradients(mutant), whole) > 1e-2


@pytest.mark.e2e
def test_a_mixed_objective_learns_from_both_tails_as_from_each(tmp_path):
    """garl + 0.5·reward on two-tailed rows has the sum of the two gradients: rollouts are counted once."""
    source = garl(0.5).source
    scored = on_span("sampled", reward() | center_by_group())
    both = trainer(tmp_path, Objective(source + 0.5 * scored), reward_funcs=length_reward)
    assert both.tails == ("answer", "response")
    first = first_step_gradients(trainer(tmp_path, Objective(source), reward_funcs=length_reward))
    second = first_step_gradients(trainer(tmp_path, Objective(0.5 * scored), reward_funcs=length_reward))
    total = {name: first[name] + second[name] for name in first}
    assert relative_difference(first_step_gradients(both), total) < gradient_bound()


def test_gradient_is_objectives_own_on_the_recorded_rollouts(tmp_path):
    made = trainer(tmp_path)
    gradients = first_step_gradients(made)
    rows = made._generation.microbatches[0].rows
    network = model()
    ids = torch.cat([rows.prompt_ids, rows.batch.ids], 1)
    mask = torch.cat([rows.prompt_mask, rows.batch.mask.long()], 1)
    width = rows.batch.mask.shape[1]
    logits = network(ids, attention_mask=mask).logits[:, -width - 1 : -1]
    logp = logits.log_softmax(-1).gather(-1, rows.batch.ids[..., None])[..., 0]
    batch = made.scorer.attach_scores(rows.batch, {"logp": logp, "entropy": None})
    assert torch.allclose(batch.answer_logp, (logp.detach().double() * batch.answer).sum(1))
    garl(0.75).loss(logp, batch).backward()
    own = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert relative_difference(gradients, own) < gradient_bound()


def test_a_run_repeats_bit_for_bit_and_depends_on_its_seed(tmp_path):
    def weights(seed):
        made = trainer(tmp_path, seed=seed)
        made.train()
        return torch.cat([p.detach().flatten() for p in made.model.parameters()])

    first = weights(7)
    torch.manual_seed(99)
    assert torch.equal(weights(7), first)
    assert not torch.equal(weights(8), first)


def test_later_updates_on_a_generation_are_off_policy(tmp_path):
    made = trainer(tmp_path, steps_per_generation=2, num_iterations=2, max_steps=4)
    seen = []
    scored = made.scorer.attach_scores

    def watch(batch, *given):
        result = scored(batch, *given)
        seen.append(result.sampler_logp is not None)
        return result

    made.scorer.attach_scores = watch
    made.train()
    assert seen == [False, True, True, True]


@pytest.mark.parametrize("objective", [garl(0.5), e2e(paft(0.5)), e2e(garl(0.5, ratio=token_truncate(2.0)))], ids=str)
def test_off_policy_coefficients_are_those_of_rationales_ratio(tmp_path, objective):
    """The credit sees log-probabilities of whole rationales, also where the draw would need the answers alone."""
    made = trainer(tmp_path, objective, steps_per_generation=2, num_iterations=2, max_steps=4, learning_rate=1e-2)
    seen = []
    scored = made.scorer.attach_scores

    def watch(batch, *given):
        result = scored(batch, *given)
        if len(result.mask) > 4 and result.sampler_logp is not None:
            seen.append(result)
        return result

    made.scorer.attach_scores = watch
    made.train()
    assert seen
    for batch in seen:
        drawn = batch.rationale & batch.sampled
        ratio = sequence_truncate(math.inf).log(batch, "test").exp()
        plain = torch.where(drawn, (batch.logp - batch.sampler_logp).double(), 0.0).sum(1).exp()
        assert bool(batch.logp[drawn].isfinite().all())
        assert bool((batch.logp[drawn] < 0).all())
        assert ratio.tolist() == pytest.approx(plain.tolist())
    assert max(float((one.logp - one.sampler_logp)[one.rationale].abs().max()) for one in seen) > 1e-3


def test_a_generation_serves_micro_batches_by_whole_groups(tmp_path):
    made = trainer(tmp_path, gradient_accumulation_steps=2, max_steps=2)
    made.train()
    for micro in made._generation.microbatches:
        groups = micro.rows.batch.group.view(2, 4)
        assert (groups == groups[:, :1]).all()
    first, second = (m.rows.batch.group for m in made._generation.microbatches)
    assert not set(first.tolist()) & set(second.tolist())


@pytest.mark.e2e
def test_the_entropy_bonus_reaches_the_gradient(tmp_path):
    plain = Objective(garl(0.5).source)
    bonus = Objective(garl(0.5).source, penalties=(entropy_bonus(0.5),))
    assert (
        relative_difference(
            first_step_gradients(trainer(tmp_path, bonus)), first_step_gradients(trainer(tmp_path, plain))
        )
        > 1e-2
    )
    cut = trainer(tmp_path, bonus, rows_per_forward=3)
    assert (
        relative_difference(first_step_gradients(cut), first_step_gradients(trainer(tmp_path, bonus)))
        < gradient_bound()
    )


def test_state_moves_once_a_step_from_all_its_micro_batches(tmp_path):
    objective = Objective(on_span("sampled", reward() | subtract_running_mean(0.5)))
    made = trainer(tmp_path, objective, gradient_accumulation_steps=2, max_steps=2, reward_funcs=length_reward)
    made.train()
    (state,) = made.stages.state.values()
    rewards = [entry["reward"] for entry in made.state.log_history if "reward" in entry]
    assert state["steps"] == 2
    assert state["mean"] == pytest.approx(0.5 * rewards[0] + 0.5 * rewards[1], rel=1e-5)


@pytest.mark.e2e
def test_state_behind_a_steps_statistic_ignores_its_cutting(tmp_path):
    objective = Objective(on_span("sampled", reward() | scale_by_batch_std() | subtract_running_mean(0.5)))

    def mean(rows, accumulated):
        made = trainer(
            tmp_path,
            objective,
            reward_funcs=length_reward,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
        )
        made.train()
        return next(iter(made.stages.state.values()))["mean"]

    assert mean(16, 1) == pytest.approx(mean(4, 4), rel=1e-6)


def test_a_generations_coefficients_are_the_samplers(tmp_path):
    made = trainer(
        tmp_path, "delta()", reward_funcs=length_reward, steps_per_generation=2, num_iterations=2, max_steps=4,
        learning_rate=1e-1, per_device_train_batch_size=8,
    )  # fmt: skip
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.train()
    kept = made._generation.microbatches
    assert len(kept) == 2

    def credited():
        batches = [made.scorer.score_batch_no_grad(made.model, micro.rows) for micro in kept]
        return made.objective.evaluate(concatenate(batches)).value

    moved = credited()
    made.model.load_state_dict(before)
    expected = credited()
    values = [micro.credited.value for micro in kept]
    found = torch.cat([torch.nn.functional.pad(value, (0, expected.shape[1] - value.shape[1])) for value in values])
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(moved, expected, atol=1e-3)


@pytest.mark.e2e
def test_state_behind_a_generations_statistic_moves_once(tmp_path):
    source = reward() | _of_the_generation() | subtract_running_mean(0.5)
    made = trainer(
        tmp_path, Objective(on_span("sampled", source)), reward_funcs=length_reward, num_iterations=2, max_steps=4
    )
    made.train()
    (state,) = made.stages.state.values()
    assert state["steps"] == 2


def test_a_likelihood_fixed_for_several_steps_is_refused(tmp_path):
    objective = Objective(garl(0.5).source | _of_the_generation())
    with pytest.raises(QreditError, match="over the likelihood carry the ratio of each step.* Sample anew"):
        trainer(tmp_path, objective, num_iterations=2)
    trainer(tmp_path, objective)


@dataclass(frozen=True)
class _of_the_generation(Credit):
    """c as it is, said to have statistics over a generation."""

    scope = Scope.GENERATION

    def __call__(self, coefficient, batch):
        return coefficient


def test_a_weight_that_does_not_see_the_whole_step_is_refused(tmp_path):
    with pytest.raises(QreditError, match="returns a weight; its scope must be BATCH"):
        trainer(tmp_path, Objective(_halved_weight()), reward_funcs=length_reward).train()


@dataclass(frozen=True)
class _halved_weight(Source):
    needs = frozenset({"reward"})

    def __call__(self, batch):
        half = torch.full(batch.mask.shape, 0.5)
        return Coefficient(batch.reward[:, None].expand(batch.mask.shape), weight=half)


def test_a_model_with_learned_absolute_positions_is_refused(tmp_path):
    network = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer()), n_embd=16, n_layer=1, n_head=2))
    torch.nn.init.normal_(network.transformer.wpe.weight)
    with pytest.raises(QreditError, match="padded to the left would be scored wrongly by this GPT2LMHeadModel"):
        trainer(tmp_path, network=network)


def test_a_schedule_follows_the_run(tmp_path):
    made = trainer(tmp_path, garl(linear(1.0, 0.0)), max_steps=4)
    made.train()
    assert [entry["q"] for entry in made.state.log_history if "q" in entry] == [1.0, 0.75, 0.5, 0.25]


def test_lora_trains_adapters_only_and_saves_them(tmp_path):
    made = trainer(tmp_path, peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    made.train()
    moved = {n for n, p in made.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora" in name for name in moved)
    made.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.e2e
def test_gradient_checkpointing_has_the_same_gradient(tmp_path):
    plain = first_step_gradients(trainer(tmp_path))
    assert (
        relative_difference(first_step_gradients(trainer(tmp_path, gradient_checkpointing=True)), plain)
        < gradient_bound()
    )


@pytest.mark.e2e
def test_bf16_autocast_trains_float32_weights(tmp_path):
    made = trainer(tmp_path, bf16=True)
    made.train()
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in made.model.parameters())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused_for_full_fine_tuning(tmp_path, kind):
    with pytest.raises(QreditError, match=r"trainable weights are (b?float16)"):
        trainer(tmp_path, network=model().to(kind))
    trainer(tmp_path, network=model().to(torch.bfloat16), peft_config=LoraConfig(target_modules=["q_proj"]))


def test_half_precision_is_refused_where_the_trainer_loads(tmp_path):
    model().save_pretrained(tmp_path / "model")
    with pytest.raises(QreditError, match="trainable weights are bfloat16"):
        trainer(tmp_path / "run", network=str(tmp_path / "model"), model_init_kwargs={"dtype": "bfloat16"})


@pytest.mark.e2e
def test_callbacks_evaluation_and_tensorboard(tmp_path):
    steps = []

    class Count(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    made = trainer(
        tmp_path,
        callbacks=[Count()],
        eval_dataset=questions(4),
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=8,
        report_to=["tensorboard"],
    )
    made.train()
    assert steps == [1, 2, 3]
    evaluated = [entry for entry in made.state.log_history if "eval_reward" in entry]
    assert len(evaluated) == 2  # at step 2 and at the end
    assert {"eval_loss", "eval_rewards/exact_match/mean", "eval_p_hat/log10_q50"} <= evaluated[0].keys()
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_metrics_beside_trls(tmp_path):
    made = trainer(tmp_path, max_steps=1)
    made.train()
    logged = made.state.log_history[0]
    assert {
        "q", "p_hat/log10_q10", "p_hat/log10_q50", "p_hat/log10_q90", "effective_reward/max", "centred_weight/max",
        "weights/ess", "groups/no_success", "coefficient/underflow", "answer/nll_per_token", "rationale/mean_length",
        "rationale/forced", "time/sample", "time/score", "time/update", "reward", "reward_std", "frac_reward_zero_std",
        "completions/mean_length", "num_tokens", "step_time", "entropy",
    } <= logged.keys()  # fmt: skip
    assert 0 < logged["effective_reward/max"] <= 1
    assert 1 <= logged["weights/ess"] <= 4
    assert logged["groups/no_success"] == 1.0
    assert 0 < logged["entropy"] < math.log(len(tokenizer()))


@pytest.mark.e2e
def test_logged_entropy_does_not_depend_on_the_rows_per_forward(tmp_path):
    def entropy(**cut):
        made = trainer(tmp_path, max_steps=1, **cut)
        made.train()
        return made.state.log_history[0]["entropy"]

    assert entropy(rows_per_forward=3) == pytest.approx(entropy(), rel=1e-5)


@pytest.mark.e2e
def test_quantiles_run_over_the_groups_of_the_whole_step(tmp_path):
    def logged(rows, accumulated):
        made = trainer(tmp_path, per_device_train_batch_size=rows, gradient_accumulation_steps=accumulated, max_steps=1)
        made.train()
        return made.state.log_history[0]

    whole, cut = logged(16, 1), logged(4, 4)
    assert whole["p_hat/log10_q10"] < whole["p_hat/log10_q90"]
    for name in ("p_hat/log10_q10", "p_hat/log10_q50", "p_hat/log10_q90", "effective_reward/max", "weights/ess"):
        assert cut[name] == pytest.approx(whole[name], rel=1e-5), name


@pytest.mark.e2e
def test_completions_are_logged_as_trl_does(tmp_path):
    import pandas

    made = trainer(tmp_path, log_completions=True, max_steps=1)
    made.train()
    table = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert {"prompt", "completion", "exact_match", "advantage"} <= set(table.columns)
    assert len(table) == 8


def test_a_users_reward_gets_the_columns_and_what_was_sampled(tmp_path):
    calls = []

    def probe(prompts, completions, completion_ids, response, rationale, answer, level, log_metric, **kwargs):
        calls.append((response, rationale, answer, level, sorted(kwargs)))
        log_metric("probe_calls", 1.0)
        return [1.0] * len(prompts)

    made = trainer(tmp_path, "grpo()", questions(8, level=[3] * 8), max_steps=1, reward_funcs=probe)
    made.train()
    response, _, answer, level, others = calls[0]
    assert len(response) == len(answer) == 8
    assert level == [3] * 8
    assert not {"prompt_ids", "answer_ids"} & set(others)
    assert made.state.log_history[0]["probe_calls"] == 1.0
    assert made.state.log_history[0]["rewards/probe/mean"] == 1.0


def test_several_rewards_are_weighted_and_none_is_not_scored(tmp_path):
    def never(completions, **kwargs):
        return [None] * len(completions)

    def one(completions, **kwargs):
        return [1.0] * len(completions)

    made = trainer(tmp_path, "grpo()", reward_funcs=[one, never, one], reward_weights=[0.5, 1.0, 2.0], max_steps=1)
    made.train()
    assert made.state.log_history[0]["reward"] == 2.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_named_with_its_row(tmp_path, bad):
    def broken(completions, **kwargs):
        return [0.0, 0.0, bad] + [0.0] * (len(completions) - 3)

    with pytest.raises(QreditError, match=r"reward function 'broken' returned (nan|inf) for row 2"):
        trainer(tmp_path, "grpo()", reward_funcs=broken).train()


def test_aliases_count_for_the_reward(tmp_path):
    rows = questions(8, aliases=[["x"]] * 8)
    made = trainer(tmp_path, "grpo()", rows, max_steps=1)
    made._calculate_rewards = lambda inputs, *rest: torch.tensor([[float(row["aliases"] == ["x"])] for row in inputs])
    made.train()
    assert made.state.log_history[0]["reward"] == 1.0


def test_chat_prompts_go_through_the_template(tmp_path):
    rows = Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": f"What is {i}?"}] for i in range(8)], "answer": ["4"] * 8}
    )
    made = QreditTrainer(
        model(), "garl(q=0.5)", settings(tmp_path, max_steps=1), rows, processing_class=chat_tokenizer()
    )
    made.train()
    text = chat_tokenizer().decode(made.train_dataset[0]["prompt_ids"])
    assert text == "<|user|>What is 0?\n<|assistant|><think>\n"


@pytest.mark.e2e
def test_the_final_model_loads(tmp_path):
    made = trainer(tmp_path)
    made.train()
    made.save_model(str(tmp_path / "final"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "final", dtype=torch.float32)
    own = dict(made.model.named_parameters())
    assert all(torch.equal(p, own[name]) for name, p in loaded.named_parameters())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub is a local folder here: what would be uploaded is copied there."""
    folder = tmp_path / "hub"

    class Hub:
        def upload_folder(self, folder_path, path_in_repo="", **kwargs):
            shutil.copytree(folder_path, folder / path_in_repo, dirs_exist_ok=True)
            done = Future()
            done.set_result(None)
            return done

        def create_repo(self, repo_id, **kwargs):
            return type("Repo", (), {"repo_id": repo_id})()

    monkeypatch.setattr(transformers.trainer, "hf_api", lambda *a, **k: Hub(), raising=False)
    return folder


@pytest.mark.e2e
def test_a_push_sends_the_model_and_its_card(tmp_path, hub):
    made = trainer(tmp_path / "run", push_to_hub=False)
    made.train()
    made.hub_model_id = "somebody/something"
    made.push_to_hub()
    card = (hub / "README.md").read_text()
    assert "qredit" in card
    assert "2604.25907" in card
    assert (hub / "model.safetensors").exists()


@pytest.mark.e2e
def test_checkpoints_are_pushed_once_they_are_whole(tmp_path, hub):
    made = trainer(
        tmp_path / "run",
        push_to_hub=True,
        hub_model_id="somebody/something",
        hub_strategy="checkpoint",
        save_strategy="steps",
        save_steps=1,
        max_steps=2,
    )
    made.train()
    pushed = AutoModelForCausalLM.from_pretrained(hub)
    assert torch.equal(pushed.lm_head.weight, made.model.lm_head.weight)
    assert json.loads((hub / "last-checkpoint" / "trainer_state.json").read_text())["global_step"] == 2
    assert find_damage(hub / "last-checkpoint") is None


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(tmp_path):
    made = trainer(tmp_path, save_strategy="steps", save_steps=1, max_steps=4)
    compute = made._compute_loss

    def poisoned(network, inputs):
        loss = compute(network, inputs)
        return loss * float("nan") if made.state.global_step == 2 else loss

    made._compute_loss = poisoned
    with pytest.raises(QreditError, match="the loss is not finite .nan. in step 3"):
        made.train()
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2", dtype=torch.float32)
    assert all(torch.isfinite(p).all() for p in kept.parameters())


def test_gradients_not_finite_stop_the_run_before_weights_move(tmp_path):
    made = trainer(tmp_path)
    before = [p.detach().clone() for p in made.model.parameters()]
    made.model.get_output_embeddings().weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(QreditError, match="the gradient norm is not finite"):
        made.train()
    assert all(torch.equal(a, b) for a, b in zip(before, made.model.parameters(), strict=True))


# --- what is refused before any compute


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_generations": 1}, "num_generations is M, the rollouts per prompt, and must be at least 2, got 1"),
        ({"per_device_train_batch_size": 6}, "per_device_train_batch_size=6 would split a group.*such as 4 or 8"),
        ({"per_device_train_batch_size": 2}, "must be a multiple of 4, such as 4"),
        ({"loss_type": "grpo"}, "loss_type='grpo' belongs to the objective"),
        ({"beta": 0.1}, "beta=0.1 belongs to the objective"),
        ({"epsilon": 0.3}, r"epsilon=0.3 belongs to the objective: grpo\(epsilon_low=…\)"),
        ({"scale_rewards": "batch"}, "scale_by_batch_std"),
        ({"entropy_coef": 0.1}, "entropy_bonus"),
        ({"answer_budget": 0}, "answer_budget must be at least 1"),
        ({"max_completion_length": 2}, "max_completion_length=2 is less than answer_budget=3"),
        ({"rows_per_forward": 0}, "rows_per_forward must be at least 1"),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 2}, "do not line up"),
        ({"eval_strategy": "steps", "per_device_eval_batch_size": 6}, "per_device_eval_batch_size=6 would split"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, changes, words):
    with pytest.raises(QreditError, match=words):
        settings(tmp_path, **changes)


@pytest.mark.parametrize(
    ("objective", "changes", "words"),
    [
        ("garl(q=0.5)", {"temperature": 0.7}, "temperature=0.7 would draw them from another distribution"),
        ("paft(q=0.5)", {"top_p": 0.9, "top_k": 5}, "top_p=0.9, top_k=5"),
        ("dapo()", {"gradient_accumulation_steps": 4, "steps_per_generation": 2}, "must be at most 2"),
        (BATCH_STD, {"gradient_accumulation_steps": 2, "steps_per_generation": 1}, "must be a multiple of"),
        ("gral(q=0.5)", {}, "did you mean 'garl'"),
        (
            "garl(q=0.5)",
            {"temperature": 0.7, "biased_sampling": True, "num_iterations": 2},
            "scores at temperature 1, rationales are drawn at 0.7",
        ),
    ],
)
def test_objectives_that_do_not_fit_the_settings(tmp_path, objective, changes, words):
    with pytest.raises(QreditError, match=words):
        trainer(tmp_path, objective, **changes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rollout_func": print}, "rollout_func is not supported"),
        ({"quantization_config": object()}, "quantization_config has no effect on a model that is loaded already"),
    ],
)
def test_arguments_that_would_have_no_effect_are_refused(tmp_path, given, words):
    with pytest.raises(QreditError, match=words):
        QreditTrainer(model(), "grpo()", settings(tmp_path), questions(), processing_class=tokenizer(), **given)


def test_settings_for_loading_are_refused_with_a_loaded_model(tmp_path):
    with pytest.raises(QreditError, match="model_init_kwargs has no effect on a model that is loaded already"):
        trainer(tmp_path, model_init_kwargs={"attn_implementation": "eager"})


@pytest.mark.e2e
def test_tempered_sampling_is_allowed_to_grpo_and_by_request(tmp_path):
    trainer(tmp_path, "grpo()", temperature=0.7, max_steps=1).train()
    made = trainer(tmp_path, temperature=0.7, biased_sampling=True, max_steps=1)
    made.train()
    rows = made._generation.microbatches[0].rows
    logp = made.scorer.score(made.model, rows)["logp"]
    with torch.no_grad():
        ids = torch.cat([rows.prompt_ids, rows.batch.ids], 1)
        mask = torch.cat([rows.prompt_mask, rows.batch.mask.long()], 1)
        width = rows.batch.mask.shape[1]
        logits = made.model(ids, attention_mask=mask).logits[:, -width - 1 : -1]
    own = logits.log_softmax(-1).gather(-1, rows.batch.ids[..., None])[..., 0]
    assert torch.allclose(logp[rows.batch.answer], own[rows.batch.answer], atol=1e-5)


@pytest.mark.parametrize(
    ("data", "changes", "words"),
    [
        (questions(answer="solution"), {}, "unknown column of train_dataset 'answer'"),
        (questions(answer="anwser"), {}, "did you mean 'anwser'"),
        (questions(), {"answer_column": "solution"}, "unknown column of train_dataset 'solution'"),
        (Dataset.from_dict({"prompt": ["a", "b"], "answer": ["1", " "]}), {}, "row 1: the answer must be a non-empty"),
        (Dataset.from_dict({"prompt": ["a"] * 8, "answer": [None] * 8}), {}, "row 0: the answer must be a non-empty"),
        (questions(1), {}, "has 1 prompts, but one step needs 2 different ones"),
        (
            Dataset.from_dict({"prompt": ["a", "the cat " * 150, "b"], "answer": ["1"] * 3}),
            {},
            r"1 of 3 prompts do not fit \(rows 1; longest 3\d\d tokens\): the context of 256",
        ),
        (questions(), {"thinking_closing": " th", "answer_seam": "e\n"}, "row"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used(tmp_path, data, changes, words):
    with pytest.raises(QreditError, match=words):
        trainer(tmp_path, data=data, **changes)


def test_an_answer_that_does_not_join_is_refused_with_its_row(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a", "b"], "answer": ["Paris", "the"]})
    with pytest.raises(QreditError, match="train_dataset, row 1: answer 'the' does not join at the seam"):
        trainer(tmp_path, data=rows, thinking_closing="so ")


def test_long_prompts_can_be_dropped(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a", "the cat " * 150, "b"], "answer": ["1"] * 3})
    made = trainer(tmp_path, data=rows, skip_long=True)
    assert len(made.train_dataset) == 2


def test_answers_may_be_numbers_in_a_renamed_column(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a", "b"], "solution": [4, 12]})
    made = trainer(tmp_path, data=rows, answer_column="solution", max_steps=1)
    assert made.train_dataset["answer"] == ["4", "12"] or list(made.train_dataset["answer"]) == ["4", "12"]
    made.train()


def test_an_answer_may_be_one_assistant_message(tmp_path):
    data = questions()
    said = [[{"role": "assistant", "content": answer}] for answer in data["answer"]]
    made = trainer(tmp_path, data=data.remove_columns("answer").add_column("answer", said))
    assert made.train_dataset["answer"][:3] == ["0", "1", "2"]


def test_a_streaming_data_set_is_refused(tmp_path):
    with pytest.raises(QreditError, match=r"must be a datasets.Dataset"):
        trainer(tmp_path, data=questions().to_iterable_dataset())


def test_training_arguments_are_saved_and_read_back(tmp_path):
    made = trainer(tmp_path, save_strategy="steps", save_steps=3)
    made.train()
    state = json.loads((tmp_path / "checkpoint-3" / "qredit_state.json").read_text())
    assert state["objective"] == "garl(q=0.75)"
    assert "surrogate: log_likelihood" in state["expansion"]
    args = torch.load(tmp_path / "checkpoint-3" / "training_args.bin", weights_only=False)
    assert args.answer_budget == 3
    assert Path(args.output_dir) == tmp_path


# --- dynamic sampling


def only_even_prompts_vary(prompts, completions, **columns):
    """Rewards that differ within the groups of every other prompt, and are 0 in the rest."""
    seen = {}
    for number, prompt in enumerate(prompts):
        seen.setdefault(prompt, []).append(number)
    values = [0.0] * len(prompts)
    for prompt, rows in seen.items():
        for place, row in enumerate(rows):
            values[row] = float(place % 2) * (sum(map(ord, prompt)) % 3 == 0)
    return values


def dynamic(tmp_path, rounds, **changes):
    made = trainer(tmp_path, "dapo()", reward_funcs=only_even_prompts_vary, dynamic_sampling=rounds, **changes)
    first_step_gradients(made)
    return made


def flat_groups(made):
    reward = torch.cat([m.rows.batch.reward for m in made._generation.microbatches]).view(-1, 4)
    return int((reward == reward[:, :1]).all(1).sum())


@pytest.mark.e2e
def test_groups_of_equal_rewards_make_room_for_others(tmp_path):
    assert flat_groups(dynamic(tmp_path, 0)) > 0
    made = dynamic(tmp_path, 12)
    assert flat_groups(made) == 0
    batch = made._generation.microbatches[0].rows
    prompts = [tuple(row.tolist()) for row in batch.prompt_ids.view(-1, 4, batch.prompt_ids.shape[1])[:, 0]]
    assert len(batch.batch.group.unique()) == len(prompts)
    assert made._metrics["train"]["groups/replaced"][0] > 0
    again = dynamic(tmp_path, 12)._generation.microbatches[0].rows
    assert torch.equal(again.batch.ids, batch.batch.ids)


def test_what_the_rounds_do_not_find_stays(tmp_path):
    made = trainer(
        tmp_path, "dapo()", reward_funcs=lambda completions, **c: [0.0] * len(completions), dynamic_sampling=2
    )
    gradients = first_step_gradients(made)
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients.values())
    assert made._metrics["train"]["groups/replaced"] == [0.0]


def test_groups_that_carry_a_likelihood_are_never_replaced(tmp_path):
    with pytest.raises(QreditError, match="carry gradient all the same under garl"):
        trainer(tmp_path, dynamic_sampling=3)
    with pytest.raises(QreditError, match="dynamic_sampling is a number of rounds"):
        trainer(tmp_path, "dapo()", dynamic_sampling=-1)
