"""Training over turns: one turn is today's run, rows of several turns, refusals, and what is logged."""

from dataclasses import replace

import pytest
import torch

from qredit.environments import Step
from qredit.rollouts.trajectory import EndReason
from qredit.utils.errors import QreditError
from tests.support.episodes import Counting, add
from tests.support.marks import e2e
from tests.support.runs import first_step_gradients, length_reward, questions, relative_difference, trainer
from tests.support.tiny import model

SMALL = {"observation_budget": 40}  # the tiny model reads 256 tokens


class Silent:
    """Says nothing, and is over when something was said."""

    def reset(self, example, seed):
        return Step()

    def step(self, action):
        return Step(done=True)


class Faulty(Counting):
    """Every fourth one fails."""

    made = 0

    def __init__(self):
        super().__init__()
        Faulty.made += 1
        self.faults = {1: RuntimeError("lost")} if Faulty.made % 4 == 0 else {}


@pytest.mark.parametrize("objective", ["garl(q=0.75)", e2e("grpo()")])
def test_one_turn_has_todays_gradients_bit_for_bit(tmp_path, objective):
    plain = first_step_gradients(trainer(tmp_path, objective, reward_funcs=length_reward))
    made = trainer(tmp_path, objective, reward_funcs=length_reward, environment=Silent, max_turns=2, **SMALL)
    played = first_step_gradients(made)
    assert plain.keys() == played.keys()
    assert all(torch.equal(plain[name], played[name]) for name in plain)


@pytest.mark.parametrize("objective", ["garl(q=0.75)", e2e("paft(q=0.5)"), "grpo()"])
def test_it_trains_over_turns(tmp_path, objective):
    data = questions(steps=[3] * 16)
    made = trainer(tmp_path, objective, data, environment=Counting, max_turns=3, max_steps=2, **SMALL)
    made.train()
    (micro,) = made._generation.microbatches
    batch = micro.rows.batch
    assert batch.turn[batch.mask].unique().tolist() == [0, 1, 2]
    assert batch.observation.any(1).all()
    assert not (batch.trainable & batch.observation).any()
    for row, one in enumerate(micro.first):
        ids = batch.ids[row][batch.mask[row]].tolist()
        assert ids[: len(one.ids) - len(one.answer_ids)] == list(one.ids[: one.close_end])
        assert micro.rows.prompt_ids[row][micro.rows.prompt_mask[row].bool()].tolist() == list(one.prompt)
        if objective != "grpo()":
            assert tuple(ids[one.close_end :]) == one.golds[0], "the gold answer stands behind the last closing"
            assert tuple(ids[: one.close_end][-len(made.format.close_ids) :]) == tuple(made.format.close_ids)
    entry = next(entry for entry in made.state.log_history if "episode/turns" in entry)
    assert (entry["episode/turns"], entry["episode/actions"], entry["episode/ended/error"]) == (3.0, 3.0, 0.0)
    assert entry["episode/observed"] > 10
    assert entry["episode/reward"] == entry["reward"] == 2.0, "the environment's own rewards, summed over the turns"


def test_without_answers_rewards_alone_give_todays_gradients(tmp_path):
    """Answers that nobody reads change nothing, and their column need not be there."""
    data = questions(steps=[3] * 16)
    settings = {"environment": Counting, "max_turns": 3, **SMALL}
    told, bare = (trainer(tmp_path, "grpo()", one, **settings) for one in (data, data.remove_columns("answer")))
    assert "answer" not in bare.train_dataset.column_names
    wanted, found = first_step_gradients(told), first_step_gradients(bare)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def judged_by_answer(completions, answer, **columns):
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("objective", "reward", "reader"),
    [
        ("garl(q=0.75)", None, r"'answer'.*: objective garl\(q=0.75\) reads its likelihood"),
        ("igpo()", None, r"'answer'.*: objective igpo\(.*\) reads its likelihood"),
        ("grpo()", judged_by_answer, "'answer'.*: reward judged_by_answer judges by it"),
    ],
)
def test_who_reads_answers_is_named_where_there_are_none(tmp_path, objective, reward, reader):
    data = questions(steps=[3] * 16).remove_columns("answer")
    with pytest.raises(QreditError, match=reader):
        trainer(tmp_path, objective, data, environment=Counting, reward_funcs=reward, **SMALL)


@pytest.mark.parametrize("shared", [True, e2e(False)], ids=["packed", "padded"])
def test_beliefs_are_those_of_the_policy_that_sampled(tmp_path, shared):
    data, objective = questions(steps=[3] * 16), "a2tgpo()"
    made = trainer(
        tmp_path, objective, data, environment=Counting, max_turns=3, max_steps=1, shared_prefix=shared, **SMALL
    )
    made.train()
    (micro,) = made._generation.microbatches
    batch, network, close = micro.rows.batch, model(), made.format.close_ids
    for row, one in enumerate(micro.first):
        for turn in range(3):
            before = [token for segment in one.segments if segment.turn < turn for token in segment.ids]
            ids = torch.tensor([[*one.prompt, *before, *close, *one.golds[0]]])
            with torch.no_grad():
                logp = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            found = batch.extra["answer_logp_at"][row][batch.turn[row].eq(turn) & batch.sampled[row]]
            assert torch.allclose(found, logp[-len(one.golds[0]) :].mean().double(), atol=1e-5)
    entry = next(entry for entry in made.state.log_history if "belief/first" in entry)
    assert entry["belief/last"] == pytest.approx(float(batch.extra["answer_logp_after"].exp().mean()))


@pytest.mark.e2e
def test_right_answers_of_a_belief_may_be_several(tmp_path):
    data = questions(steps=[2] * 16, aliases=[["a", "bc"]] * 16)
    played = {"environment": Counting, "max_turns": 2, "max_steps": 1, **SMALL}
    made = trainer(tmp_path, "igpo()", data, aliases="both", **played)
    made.train()
    (micro,) = made._generation.microbatches
    assert len(micro.first[0].golds) == 3
    assert not micro.rows.batch.answer.any(), "they are scored, and stand in no row"
    assert micro.rows.batch.extra["answer_logp_at"][micro.rows.batch.mask].isfinite().all()


@pytest.mark.e2e
def test_rows_of_several_turns_have_the_ordinary_gradient(tmp_path):
    data, played = questions(steps=[3] * 16), {"environment": Counting, "max_turns": 3, **SMALL}
    shared, plain = (
        first_step_gradients(trainer(tmp_path, "garl(q=0.75)", data, shared_prefix=shared, **played))
        for shared in (True, False)
    )
    assert relative_difference(shared, plain) < 1e-4


@pytest.mark.parametrize("objective", ["garl(q=0.75)", e2e("grpo()")])
def test_episodes_that_fail_carry_nothing(tmp_path, objective):
    Faulty.made = 1  # one was made to see whether it is an environment
    made = trainer(
        tmp_path, objective, questions(steps=[2] * 16), environment=Faulty, max_turns=2, max_steps=1, **SMALL
    )
    made.train()
    (micro,) = made._generation.microbatches
    failed = [one.end is EndReason.ERROR for one in micro.first]
    assert failed.count(True) == 1
    batch = micro.rows.batch
    row = failed.index(True)
    assert batch.reward[row].isnan()
    assert not batch.answer[row].any()
    scored = replace(batch, answer_logp=torch.zeros(len(batch.group)).double(), logp=torch.zeros(batch.mask.shape))
    assert not made.current_objective().credit(scored)[row].any()
    assert any(entry.get("episode/ended/error") == 0.25 for entry in made.state.log_history)


def test_tools_are_told_called_and_trained_over(tmp_path):
    wide = model(max_position_embeddings=512)
    made = trainer(tmp_path, "garl(q=0.75)", tools=[add], max_turns=2, max_steps=1, observation_budget=80, network=wide)
    text = made._tokenizer.decode(made.train_dataset[0]["prompt_ids"])
    assert "You may call these tools:\nadd(a: integer, b: integer): Add two numbers." in text
    made.train()
    assert any("episode/turns" in entry for entry in made.state.log_history)


@pytest.mark.parametrize(
    ("objective", "rule", "ended"),
    [
        ("tree_grpo()", "trees(roots=1, nodes=3)", 1.0),
        e2e("slate()", "candidates(k=2, temperature=0.5)", 0.5),
        e2e("agentic_aepo()", "balanced_turns(base=1, weight=0, threshold=0.5, slope=-9)", 1.0),
    ],
)
def test_it_trains_on_branches(tmp_path, objective, rule, ended):
    made = trainer(
        *(tmp_path, objective, questions(steps=[3] * 16)),
        **{"environment": Counting, "max_turns": 3, "max_steps": 2, "branching": rule, **SMALL},
        reward_funcs=length_reward,
    )
    made.train()
    (micro,) = made._generation.microbatches
    batch, branches = micro.rows.batch, [one.branch for one in micro.first]
    assert any(branches)
    if objective == "tree_grpo()":
        assert batch.extra["tree"].tolist() == [0] * 8, "each group is one tree"
    elif objective == "slate()":
        firsts = [int(batch.turn[row][batch.sampled[row]].min()) for row in range(len(branches))]
        assert firsts == branches, "a shared beginning gets no credit"
    entry = next(entry for entry in made.state.log_history if "episode/branched" in entry)
    assert 0 < entry["episode/branched"] <= entry["episode/shared_turns"]
    assert (entry["episode/ended/pruned"] == 0) == (ended == 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"branching": "trees()"}, "branching is read where there are tools or an environment"),
        ({"environment": Counting, "objective": "tree_grpo()"}, "'tree', which a rule of branching gives"),
        ({"environment": Counting, "objective": "grpo()", "branching": "trees()"}, "trees.* makes 6 rollouts"),
        ({"environment": Counting, "branching": "unsure_turns()"}, "as independent draws"),
        (
            {"environment": Counting, "objective": "grpo()", "branching": "candidates(k=2)"},
            "reads no rewards of turns; take one that does, such as slate",
        ),
        ({"max_turns": 2}, "max_turns is read where there are tools or an environment"),
        ({"tool_seconds": 3.0}, "tool_seconds is read where"),
        ({"objective": "igpo()"}, "needs the batch field 'answer_logp_at', which an environment gives"),
        ({"tools": [add], "environment": Counting}, "give tools or an environment"),
        ({"tools": [lambda a: a]}, "must be a function with a name"),
        ({"tools": [add], "tool_seconds": 0.0}, "tool_seconds must be more than 0"),
        ({"environment": object}, "environment object has no method reset"),
        ({"environment": Counting, "max_turns": 0}, "max_turns must be at least 1"),
        ({"environment": Counting, "episode_budget": 9}, "episode_budget=9 holds no turn: one takes up to 10 tokens"),
        ({"environment": Counting, "observation_budget": 2}, "observation_budget=2 holds no observation"),
        ({"environment": Counting, "objective": "garl(q=0.5, proposal=hint(share=0.5))"}, "draws behind the gold"),
        ({"environment": Counting, "objective": "grpo()", "hint_failed": "gold"}, "hint_failed samples"),
        ({"environment": Counting, "max_turns": 9}, "for turns and observations and 3 for the answer; lower max_turns"),
    ],
)
def test_what_cannot_be_played_is_refused(tmp_path, changes, message):
    with pytest.raises(QreditError, match=message) as found:
        trainer(tmp_path, **changes)
    assert "\n" not in str(found.value)
