"""Learners: models beside the policy fill batch fields, learn once a step, and are checkpointed with it."""

import json
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import QreditError, pocket, tasks
from qredit.engine.checkpoint import MANIFEST
from qredit.engine.learner import Learners
from qredit.objectives.parsing import parse
from qredit.trl import QreditTrainer
from tests.support.critic import OBJECTIVE, Critic
from tests.support.runs import length_reward, questions, settings, trainer
from tests.support.tiny import model, tokenizer
from tests.support.toy_engine import ToyEngine

WIDTH = 32  # of the tiny model's states


def made(folder, critic, **changes):
    chosen = {"reward_funcs": length_reward, "data": questions(8), "learners": [critic]}
    return trainer(folder, OBJECTIVE, **(chosen | changes))


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def losses(run):
    return [line["critic/loss"] for line in run.state.log_history if "critic/loss" in line]


def test_it_fills_a_generation_once_and_learns_once_a_step(tmp_path):
    """Two micro-batches a step, two steps on each generation: fields made once, by the weights before both steps."""
    critic = Critic(WIDTH)
    seen = []
    cut = {"gradient_accumulation_steps": 2, "steps_per_generation": 2, "num_iterations": 2, "max_steps": 4}
    run = made(tmp_path, critic, per_device_train_batch_size=4, **cut)
    run.recorder = SimpleNamespace(observe=lambda step, learned: seen.append(learned))
    run.train()
    assert critic.filled == 4
    assert [len(rows) for rows in critic.learned] == [2, 2, 2, 2]
    values = [torch.cat([one.batch.extra["value"].flatten() for one in rows]) for rows in critic.learned]
    assert torch.equal(values[0], values[1])
    assert set(values[0].tolist()) == {2.0}  # what it was made with; nothing is padded
    assert torch.equal(values[2], values[3])
    assert len(set(values[2].tolist())) > 2
    for learned, one in zip(seen, [one for rows in critic.learned for one in rows], strict=True):
        assert torch.equal(learned.batch.logp, one.batch.logp)
    assert [bool(learned.logged) for learned in seen] == [False, True] * 4


def test_what_is_kept_of_a_step_holds_no_graph(tmp_path):
    """Of an objective whose coefficients come from the pass that is differentiated."""
    critic, seen = Critic(WIDTH), []
    run = trainer(tmp_path, "garl(q=0.75) | tests.support.critic.less_value()", learners=[critic], max_steps=1)
    run.recorder = SimpleNamespace(observe=lambda step, learned: seen.append(learned.batch.entropy.requires_grad))
    run.train()
    assert seen == [True]
    kept = critic.learned[0][0].batch
    assert not any(getattr(kept, name).requires_grad for name in ("entropy", "logp", "answer_logp"))
    assert not any(value.requires_grad for value in kept.extra.values())


def test_the_policy_learns_by_what_it_filled(tmp_path):
    """Its values are credited: another learner's rate changes the policy from the second step on, not before."""
    runs = [made(tmp_path / str(rate), Critic(WIDTH, rate), max_steps=2) for rate in (0.0, 0.5)]
    moved = []
    for run in runs:
        steps = moved.append([]) or moved[-1]
        run._clip_grad_norm = lambda network, steps=steps: steps.append(
            torch.cat([p.grad.flatten().clone() for p in network.parameters()])
        )
        run.train()
    (still, still_then), (other, other_then) = moved
    assert torch.equal(still, other)
    assert float((still_then - other_then).norm() / still_then.norm()) > 0.05


@pytest.mark.e2e
@pytest.mark.whole_tasks
def test_it_learns_beside_a_pocket_model(tmp_path):
    folder = pocket.get_model_path("dial-2")
    own = AutoTokenizer.from_pretrained(folder, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    examples = tasks.get("pocket-dial").loaded(None, "train", "cold", 8).examples
    data = Dataset.from_dict({"prompt": [one.prompt for one in examples], "answer": [one.answer for one in examples]})
    critic = Critic(network.config.hidden_size)
    run = QreditTrainer(
        network,
        OBJECTIVE,
        settings(tmp_path, max_steps=10, max_completion_length=24, learning_rate=1e-4),
        data,
        processing_class=own,
        reward_funcs=length_reward,
        learners=[critic],
    )
    run.train()
    shown = losses(run)
    assert len(shown) == 10
    assert sum(shown[-3:]) < 0.5 * sum(shown[:3])


@pytest.mark.e2e
def test_it_learns_in_an_engine_without_trl(tmp_path):
    host = made(tmp_path, Critic(WIDTH))
    critic = Critic(WIDTH)
    toy = ToyEngine(
        model(),
        parse(OBJECTIVE),
        host.format,
        tokenizer(),
        draw=host.rollout_sampler.draw,
        reward=lambda text, row: len(text) % 5 / 4,
        learners=[critic],
        learning_rate=1e-4,
    )
    shown = [one["critic/loss"] for one in toy.train(host.train_dataset.to_list(), generations=20)]
    assert sum(shown[-3:]) < 0.5 * sum(shown[:3])


@pytest.mark.e2e
@pytest.mark.parametrize("step", [1, 2])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, step):
    """Step 1 lies in the middle of a generation."""
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4, "steps_per_generation": 2}
    whole, critic = made(tmp_path, Critic(WIDTH), **saved), Critic(WIDTH)
    whole.train()
    again = made(tmp_path, critic, network=model(seed=5), **saved)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    first = whole.learners.learners[0]
    assert torch.equal(weights(critic.head), weights(first.head))
    assert torch.equal(weights(again.model), weights(whole.model))
    assert losses(again) == losses(whole)
    assert float((weights(first.head) - weights(Critic(WIDTH).head)).norm()) > 0.1


@pytest.mark.e2e
def test_a_checkpoint_without_its_state_is_refused(tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    made(tmp_path, Critic(WIDTH), **saved).train()
    folder = tmp_path / "checkpoint-1"
    (folder / "learner_critic_0.pt").unlink()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["learner_critic_0.pt"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(QreditError, match="holds no state of the learner 'critic'"):
        made(tmp_path, Critic(WIDTH), **saved).train(resume_from_checkpoint=str(folder))


def test_a_run_back_at_a_checkpoint_takes_its_learners_along(tmp_path):
    critic = Critic(WIDTH)
    run = made(tmp_path, critic, save_strategy="steps", save_steps=1, max_steps=2)
    run.train()
    then = weights(critic.head)
    run.restore_weights(tmp_path / "checkpoint-1")
    assert not torch.equal(weights(critic.head), then)
    run.restore_weights(tmp_path / "checkpoint-2")
    assert torch.equal(weights(critic.head), then)


def changed(**attributes):
    critic = Critic(WIDTH)
    for name, value in attributes.items():
        setattr(critic, name, value)
    return critic


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learners": []}, "needs the batch field 'value', which nothing here fills"),
        (
            {"learners": [changed(fills=("mood",)), changed(name="other")]},
            r"nothing reads what 'critic' fills \(mood\)",
        ),
        ({"learners": [Critic(WIDTH), changed(name="other")]}, "'value' is filled by more than one"),
        (
            {"learners": [Critic(WIDTH), changed(fills=("mood",))]},
            "a word of its own as its name; got 'critic', 'critic'",
        ),
        ({"learners": [changed(name="../critic")]}, "a word of its own"),
        ({"learners": [changed(fills=("value", "entropy"))]}, "'entropy' is filled already"),
        ({"learners": [changed(needs=("entropy",))]}, "'critic' needs 'entropy', which is told only when the policy"),
        ({"learners": [changed(needs=("logp@coach",))]}, "'logp@coach' is needed, but there is no teacher 'coach'"),
        ({"fields": {"value": len}}, "'value' is filled already"),
    ],
)
def test_what_cannot_be_is_refused_before_a_step(tmp_path, given, message):
    with pytest.raises(QreditError, match=message):
        made(tmp_path, Critic(WIDTH), **given)


def test_it_reads_what_a_teacher_tells(tmp_path):
    critic = changed(needs=("logp@reference",))
    run = made(tmp_path, critic, max_steps=1)
    run.train()
    assert torch.allclose(
        critic.learned[0][0].batch.extra["logp@reference"], critic.learned[0][0].batch.logp, atol=1e-5
    )


def test_a_learner_that_leaves_a_field_out_is_named(tmp_path):
    run = made(tmp_path, changed(fills=("value", "spread")))
    with pytest.raises(QreditError, match="'critic' did not fill 'spread'"):
        run.train()


def test_without_learners_nothing_is_kept():
    none = Learners()
    none.observe(rows=None, batch=None)
    assert none.learn(forward=None, collective=None) == {}
