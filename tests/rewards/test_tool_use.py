"""SPEAR's reward for using tools: what an episode gets in a step, how it is written, where it is refused."""

from types import SimpleNamespace

import pytest
import torch

from qredit.rewards import Response, parse_rewards, tool_use
from qredit.rewards.reward_spec import check_one_turn
from qredit.runs.options import TrainOptions
from qredit.samplers.answers import make_response
from qredit.tasks import Example
from qredit.utils.errors import QreditError
from qredit.verl.settings import VerlSettings
from tests.support.episodes import Counting
from tests.support.runs import length_reward, questions, trainer

CALLED, MALFORMED = {"tool_calls": 3.0}, {"malformed_calls": 1.0}
RULE = "tool_use(steps=4, each=0.25, counted='actions')"


def test_it_fades_along_half_a_cosine():
    rule = tool_use(steps=200)
    assert [rule.factor(step) for step in (0, 100, 200, 201, 400)] == pytest.approx([1, 0.5, 0, 0, 0], abs=1e-12)
    assert [rule.score([CALLED] * 12, step) for step in (100, 200, None)] == pytest.approx([0.5, 0, 1], abs=1e-12)


def test_turns_with_calls_that_were_run_count_once():
    rule = tool_use(steps=200)
    assert rule.score([CALLED, MALFORMED, CALLED, {}], None) == pytest.approx(0.2)
    assert rule.score([CALLED, MALFORMED, CALLED, {}], 100) == pytest.approx(0.1)
    assert tool_use(200, each=0.5, most=0.75).score([CALLED] * 2, None) == 0.75
    assert tool_use(200, counted="malformed_calls").score([CALLED, MALFORMED], None) == pytest.approx(0.1)


def test_steps_are_those_of_the_run_from_one():
    """The trainer's state counts steps that are done; outside of a trainer nothing fades."""
    (reward,) = parse_rewards("tool_use(steps=200)")
    given = {"completions": ["a", "b"], "turn_counts": [[CALLED], []]}
    assert reward.function(**given, trainer_state=SimpleNamespace(global_step=99)) == pytest.approx([0.05, 0])
    told = Response("?", "a", (1,), "", "a", Example("?", None), turn_counts=[CALLED])
    assert reward([told]) == pytest.approx([0.1])
    with pytest.raises(QreditError, match="reward 'tool_use' counts turns of episodes"):
        reward.function(completions=["a"])


def test_it_is_written_beside_other_rewards():
    given = parse_rewards(f"environment, 0.5 * {RULE}, tool_use(steps=9), format")
    assert [(one.name, one.weight) for one in given] == [
        ("environment", 1.0), ("tool_use", 0.5), ("tool_use(steps=9)", 1.0), ("format", 1.0),
    ]  # fmt: skip
    assert given[1].unparseable([Example("?", " ")]) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tool_use", "reward 'tool_use': missing a required argument: 'steps'; it takes steps, each, most, counted"),
        ("tool_use(step=2)", "it takes steps, each, most, counted"),
        ("tool_use(steps=0)", "tool_use: steps must be a whole number, at least 1, got 0"),
        ("tool_use(steps=2, each=-1)", "tool_use: each must be a number between"),
        ("tool_use(steps=2, most=0)", "tool_use: most must be a number between"),
        ("tool_use(steps=2, counted='')", "tool_use: counted must be the name of a count, got ''"),
        ("tool_usse(steps=2)", "unknown reward with arguments 'tool_usse'; did you mean 'tool_use'"),
        ("numeric(share=2)", "unknown reward with arguments 'numeric'"),
        ("tool_use(steps=f())", "not constants by name"),
        ("tool_uze", "unknown reward 'tool_uze'; did you mean 'tool_use'"),
    ],
)
def test_what_cannot_be_paid_for_is_refused(text, told):
    with pytest.raises(QreditError) as raised:
        parse_rewards(text)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("reward", ["environment", f"numeric, {RULE}"])
def test_rollouts_of_one_turn_refuse_rewards_of_episodes(reward):
    told = r"reward '.*' is of episodes with tools or an environment, and here are none"
    with pytest.raises(QreditError, match=told):
        TrainOptions(reward=reward)
    with pytest.raises(QreditError, match=told):
        VerlSettings(objective="grpo()", reward=reward)
    assert TrainOptions(reward=reward, env="pocket-search").rewards == reward
    check_one_turn("numeric, 0.1 * format")


def test_a_rollout_tells_its_counts():
    format = SimpleNamespace(text=str, response_text=str)
    counts = [SimpleNamespace(counts=CALLED), SimpleNamespace(counts={})]
    rollout = SimpleNamespace(ids=(), close_start=0, answer_ids=(), episode_reward=1.0, turns=counts)
    assert make_response(format, Example("?", None), rollout).turn_counts == [CALLED, {}]


def run(folder, resume=None, **changes):
    """A trainer whose episodes have three turns, all of which act."""
    functions = [length_reward, *(one.function for one in parse_rewards(RULE))]
    made = trainer(
        folder, "grpo()", questions(steps=[3] * 16), environment=Counting, reward_funcs=functions,
        max_turns=3, observation_budget=40, **changes,
    )  # fmt: skip
    made.train(resume_from_checkpoint=resume)
    return made, [entry for entry in made.state.log_history if "reward" in entry]


def test_a_run_is_paid_for_turns(tmp_path):
    _, (entry,) = run(tmp_path, max_steps=1)
    assert entry["rewards/tool_use/mean"] == pytest.approx(0.75 * (1 + 2**0.5 / 2) / 2)
    assert entry["reward"] == pytest.approx(entry["rewards/length_reward/mean"] + entry["rewards/tool_use/mean"])


@pytest.mark.e2e
def test_a_run_with_replay_pays_less_in_each_step_and_resumes(tmp_path):
    replay = "spear(buffer=2, baseline=8, steps=4, low=0.001, high=40)"
    saved = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "replay": replay}
    whole, logged = run(tmp_path / "whole", **saved)
    factors = [(1 + 2**0.5 / 2) / 2, 0.5, (1 - 2**0.5 / 2) / 2, 0.0, 0.0]
    assert [entry["rewards/tool_use/mean"] for entry in logged] == pytest.approx([0.75 * one for one in factors])
    assert sum(entry["replay/rows"] for entry in logged) > 0
    again, repeated = run(tmp_path / "again", str(tmp_path / "whole" / "checkpoint-2"), **saved)
    assert [entry["reward"] for entry in repeated] == [entry["reward"] for entry in logged]
    assert all(map(torch.equal, again.model.parameters(), whole.model.parameters()))
