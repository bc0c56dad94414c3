"""Rules of drawing in training: plain draws stay what they are, groups whole, a resumed run the unbroken one."""

import json
import math

import pytest
import torch

from qredit.cli import main
from qredit.engine.untold import is_untold
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError
from tests.support.marks import e2e
from tests.support.paths import ROOT
from tests.support.runs import length_reward, questions, trainer

HOT = "hold_entropy(target=5.7, most=1.0, share=1.0)"
RUNS = {"hold_entropy": ("aepo()", HOT), "branch_at_entropy": ("dapo()", "branch_at_entropy(first=2, branches=1)")}
READS = {"read_on": ("rmt(weight=0.2, peak=1.0, budget=4.0, next_token=0.1)", "read_on()")}


def made(folder, rule, **changes):
    objective, drawing = (RUNS | READS)[rule]
    data = questions(continuation=["two and two"] * 16)
    return trainer(folder, objective, data, reward_funcs=length_reward, **({"drawing": drawing} | changes))


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def draw_one(run):
    """The rollouts of the first generation."""
    run.prompts.next_generation()
    rows = run.prompts.rows(run.prompts.share(run.prompts.asked), run.rollouts_per_prompt)
    return run.rule_sampler.sampled(rows, 0, run.rollouts_per_prompt), rows


@pytest.mark.parametrize("rule", RUNS)
def test_each_prompt_has_its_rollouts_again_and_again(rule, tmp_path):
    run = made(tmp_path, rule)
    (drawn, _), rows = draw_one(run)
    assert [one.example["prompt"] for one in drawn] == [row["prompt"] for row in rows]
    assert [one.group for one in drawn] == [n // 4 for n in range(8)]
    again, _ = run.rule_sampler.sampled(rows, 0, 4)
    assert [one.ids for one in again] == [one.ids for one in drawn]
    later, _ = run.rule_sampler.sampled(rows, 1, 4)
    assert [one.ids for one in later] != [one.ids for one in drawn]


@pytest.mark.parametrize("rule", RUNS)
def test_micro_batches_change_no_draw(rule, tmp_path):
    (whole, _), _ = draw_one(made(tmp_path, rule))
    cut = made(tmp_path, rule, per_device_train_batch_size=4, gradient_accumulation_steps=2, steps_per_generation=2)
    (parts, _), _ = draw_one(cut)
    assert [(one.ids, one.reinforced) for one in parts] == [(one.ids, one.reinforced) for one in whole]


def test_plain_rollouts_are_those_of_a_run_without_a_rule(tmp_path):
    run = made(tmp_path, "hold_entropy")
    (drawn, told), rows = draw_one(run)
    plain = run.rollout_sampler.sampled(rows, 0, 4)
    assert 0 < told["drawing/rows"] < 8
    assert [one.reinforced for one in drawn].count(True) == told["drawing/rows"]
    for one, other in zip(drawn, plain, strict=True):
        assert one.reinforced or (one.ids, one.reward) == (other.ids, other.reward)
        assert one.reinforced == math.isnan(one.reward) == is_untold(one)


def density_errors(run):
    """|sampler_logp - log p| of the sampled tokens of a first generation's rows, reinforced rows and others."""
    run.prompts.next_generation()
    run.model.train()
    rows = run._new_generation().microbatches[0].rows
    scored = run.scorer.score_batch_no_grad(run.model, rows)
    gap = torch.where(rows.batch.sampled, (rows.batch.sampler_logp - scored.logp).abs(), 0.0).amax(1)
    drawn = rows.batch.extra["reinforced"]
    assert bool(drawn.any())
    return float(gap[drawn].max()), float(gap[~drawn].max())


def test_densities_are_the_policys_where_steps_share_rollouts(tmp_path):
    assert max(density_errors(made(tmp_path, "hold_entropy", num_iterations=2))) < 1e-4


def test_an_untold_density_would_be_far_off(tmp_path, monkeypatch):
    monkeypatch.setattr("qredit.engine.collation.fill_untold_densities", lambda drawn, tails, rows, forward: rows)
    reinforced, plain = density_errors(made(tmp_path, "hold_entropy", num_iterations=2))
    assert reinforced > 1
    assert plain < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["hold_entropy", e2e("branch_at_entropy"), e2e("read_on")])
def test_a_resumed_run_is_the_unbroken_one(rule, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "num_iterations": 2}
    whole = made(tmp_path / "whole", rule, **saved)
    whole.train()
    resumed = made(tmp_path / "whole", rule, **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    assert torch.equal(weights(whole), weights(resumed))


def count_words(text: str) -> str:
    """Count words.

    Args:
        text: some words.
    """
    return str(len(text.split()))


REFUSED = [
    ({"objective": "grpo()"}, "does not read it; take an objective that does, such as aepo()"),
    ({"drawing": None}, "needs the batch field 'reinforced', which a rule of drawing gives"),
    ({"drawing": "hold_entropy(target=99.0)"}, "not below log V"),
    ({"drawing": "hold_entrpy(target=0.5)"}, "hold_entropy"),
    ({"drawing": "linear(1, 0)"}, "rule of drawing"),
    ({"drawing": "fractions.Fraction(1)"}, "makes no rule: Fraction has no fills"),
    ({"temperature": 0.7}, "draws from the policy itself"),
    ({"dynamic_sampling": 1}, "dynamic_sampling draws groups again"),
    ({"hint_failed": "gold"}, "hint_failed draws groups again"),
    ({"drawing": "branch_at_entropy()", "objective": "dapo()"}, "draws 16 rollouts of a prompt"),
    (
        {"drawing": "branch_at_entropy(first=2, branches=1)", "objective": "garl(q=0.75)"},
        "takes the rollouts of a prompt as independent draws",
    ),
    ({"objective": "garl(q=0.75) | reinforce_drawn()"}, "puts in some that are no draws of the policy"),
    ({"objective": "logprob() | reinforce_drawn()", "drawing": "read_on()"}, "take an objective of rewards"),
    ({"tools": [count_words]}, "draws rollouts of one turn"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_does_not_go_with_a_rule_is_refused(changes, said, tmp_path):
    given = {"objective": "aepo()", "drawing": "hold_entropy(target=0.5)"} | changes
    with pytest.raises(QreditError) as refused:
        trainer(tmp_path, reward_funcs=length_reward, **given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_branch_learns_from_what_it_drew_alone(tmp_path):
    """Behind the same beginning, which is context: no sampled token, no density, no loss."""
    run = made(tmp_path, "branch_at_entropy", max_completion_length=16)
    (drawn, told), _ = draw_one(run)
    taken = []
    for place in (0, 4):
        for root, branch in zip(drawn[place : place + 2], drawn[place + 2 : place + 4], strict=True):
            kept = 0 if branch.segments[0].sampled else len(branch.segments[0].ids)
            taken.append(kept)
            assert branch.ids[:kept] == root.ids[:kept]
            assert branch.rationale_length <= 13
    assert sum(taken) / 4 == told["drawing/kept"] > 0
    rows = run.collator.rows(drawn, 0, None).batch
    for row, one in enumerate(drawn):
        context = [not segment.sampled for segment in one.segments for _ in segment.ids]
        assert (~rows.sampled[row])[: len(context)].tolist() == context
        assert not bool(rows.rationale[row][: len(context)][torch.tensor(context)].any())


POCKET = ("--task", "pocket-hotpot", "--style", "warm", "--steps", "2", "--m", "4", "--prompts-per-step", "2")


@pytest.mark.parametrize(
    ("objective", "drawing", "logged"),
    [
        e2e("aepo()", "hold_entropy(target=0.5, most=0.5)", "drawing/temperature"),
        e2e("dapo()", "branch_at_entropy(first=2, branches=1)", "drawing/kept"),
    ],
)
def test_one_command_trains_with_a_rule(objective, drawing, logged, tmp_path):
    words = [
        "train",
        "--quiet",
        *POCKET,
        "--objective",
        objective,
        "--drawing",
        drawing,
        "--output",
        str(tmp_path / "r"),
    ]
    assert main(words) == 0
    metrics = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert all(logged in line for line in metrics if "loss" in line)


@pytest.mark.e2e
def test_one_question_is_trained_on_in_every_step(tmp_path):
    recipe = str(ROOT / "recipes" / "one-shot.yaml")
    words = ["--steps", "3", "--m", "8", "--eval-every", "1", "--eval-questions", "2", "--eval-k", "2"]
    assert main(["train", "--quiet", "--config", recipe, *words, "--output", str(tmp_path / "r")]) == 0
    asked = [json.loads(line)["prompt"] for line in (tmp_path / "r" / "samples.jsonl").read_text().splitlines()]
    assert len(asked) == 3
    assert len(set(map(str, asked))) == 1
    assert len((tmp_path / "r" / "validation.jsonl").read_text().splitlines()) >= 3


def test_options_refuse_a_rule_before_anything_is_loaded():
    with pytest.raises(QreditError, match="leave env and tools out"):
        TrainOptions(drawing="hold_entropy(target=0.5)", tools="calculator")
    with pytest.raises(QreditError, match="did you mean 'hold_entropy'"):
        TrainOptions(drawing="hold_entropi(target=0.5)")
