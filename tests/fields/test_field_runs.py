"""Every objective whose field a maker gives trains from the command line alone; what makers do inside a run."""

import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from qredit.cli import main
from qredit.cli.parser import build_options
from qredit.core.batch import RolloutBatch
from qredit.engine.collective import SingleProcess
from qredit.engine.critic import LinearCritic, OutcomeTarget, RewardToCome
from qredit.fields import behind_prompt, critic, planning_grams, truncated_answers
from qredit.objectives import bi_level_gae, poad, turn_ppo
from qredit.rollouts.collate import Rows, collate
from qredit.runs.compare import ComparisonSettings
from qredit.runs.options import TrainOptions
from qredit.samplers.transformers import TransformersSampler
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout
from tests.support.endpoint import said
from tests.support.episodes import Counting
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.marks import e2e
from tests.support.runs import first_step_gradients, length_reward, trainer
from tests.support.tiny import model

JUDGE = "'{url}', 'judge'"
RUNS = {  # the fields of each objective, and what is logged of them
    "hicra()": (["planning=planning_phrases(('a', 'e', 'the', 'o'))"], {"planning/share"}),
    "ma_rlhf()": (["macro=macros_by_length(2)", "value=critic(lr=0.01)"], {"critic/loss"}),
    "t_reg(strength=0.5)": (
        [
            f"logp@{side}=behind_prompt('{{{{prompt}}}} Be {how}: ')"
            for side, how in (("better", "right"), ("worse", "odd"))
        ],
        set(),
    ),
    "capo()": ([f"wrong_step=judge_wrong_steps({JUDGE})"], {"judge/wrong_steps", "judge/unreadable"}),
    "pure()": ([f"step_score=judge_step_scores({JUDGE})"], {"judge/unanswered"}),
    "pure(0.2)": (["step_score=check_step_scores(arithmetic())"], {"check/told", "check/wrong"}),
    "capo(1.0)": (["wrong_step=check_wrong_steps(arithmetic())"], {"check/told", "check/wrong"}),
    "pure_strict()": ([f"step_score=judge_step_scores({JUDGE})"], {"judge/unanswered"}),
    "tp_grpo(alpha=0.5)": ([f"unused_step=judge_unused_steps({JUDGE})"], {"judge/unreadable"}),
    "brpo(prior=(0.5, 0.5), length=8)": (
        ["budget=truncated_answers((1, 3), answers=2)"],
        {"budget/reward@1", "budget/reward@3"},
    ),
    "istar('prm')": (["logp@prm=implicit_prm(lr=0.01)"], {"implicit_prm/loss", "implicit_prm/terms"}),
    "t1(entropy=0.001)": (
        ["degenerate=degenerate_rollouts(gram=3, repeats=4, garbled=0.2)", "logp@ema=moving_average(rate=0.9)"],
        {"average_ema/distance", "degenerate/repeats", "degenerate/cut_off", "degenerate/garbled"},
    ),
    "empo()": ([f"cluster={__name__}:pairs"], set()),
}


# made as another one's: by a judge, by a learner, by a function
ALIKE = ("capo(1.0)", "pure()", "pure_strict()", "tp_grpo(alpha=0.5)", "istar('prm')", "empo()", "t1(entropy=0.001)")


def varied(completions, **columns):
    """A reward that differs within groups."""
    return [len(text) % 3 / 2 for text in completions]


def pairs(trajectories, tokenizer):
    """A field function of a user's: the first two rollouts of a group are one answer, the others none."""
    return [max(place % 4, 1) for place, _ in enumerate(trajectories)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def train(network, tmp_path, capsys):
    """Trains by the command line; returns the run folder."""
    data = data_file(tmp_path / "data.jsonl")

    def run(name, objective, *fields, **changes):
        chosen = {"task": "jsonl", "data": data, "model": network, "reward": f"{__name__}:varied", **SHORT, "m": 4}
        words = [word for text in fields for word in ("--field", text)]
        words += flags(**chosen | changes, objective=objective, output=tmp_path / name)
        assert main(["train", "--quiet", "--cpu", *words]) == 0
        return tmp_path / name

    return run


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("objective", [e2e(name) if name in ALIKE else name for name in RUNS])
def test_it_trains_from_one_command(objective, train, network, serve):
    endpoint = serve(lambda number, body: said("[1]" if number % 2 else "[]"))
    texts, logged = RUNS[objective]
    fields = [text.format(url=endpoint.url) for text in texts]
    run = train("run", objective, *fields, steps=1, save_every=0)
    before, after = weights(network), weights(run / "final")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert yaml.safe_load((run / "config.yaml").read_text())["field"] == fields
    assert logged <= lines(run / "metrics.jsonl")[0].keys()


def tell_turn(before, said, observed):
    """Numbers of a turn, as `turn_features` takes them: whether anything was found, and how much was said."""
    return [float(bool(observed)), len(said) / 100]


def turns():
    """Example turns for these."""
    return [("Who?", "search(Ann)", "Ann lives in Rome."), ("Who?", "Ann", "")]


FEATURES = f"turn_feature@0=turn_features('{__name__}:tell_turn', '{__name__}:turns')"
SEARCHED = {  # makers of turn rewards on the search agent, and what is logged of them
    "judge_turn_shares({judge}, share='of_sum')": ((), {"judge/unanswered", "judge/unreadable"}),
    "judge_potentials({judge}, goal='a town is named')": ((), {"judge/unanswered", "judge/unreadable"}),
    "redistributed_return(2, lr=0.01)": (
        (FEATURES,),
        {"redistributed_return/loss", "redistributed_return/variance"},
    ),
}


def search(tmp_path, name, *fields, **changes):
    """Trains a tiny search agent with these fields; returns its first model and the run folder."""
    network = tmp_path / "searching"
    if not network.exists():
        model_folder(network, max_position_embeddings=1024)
    chosen = {"task": "pocket-hotpot", "env": "pocket-search", "subset": 8, "max_turns": 2, "observation_budget": 100}
    words = [word for text in fields for word in ("--field", text)]
    given = {**SHORT, **chosen, "m": 4, "reward": f"{__name__}:varied", "objective": "mica()", **changes}
    assert main(["train", "--cpu", *flags(model=network, output=tmp_path / name, **given), *words]) == 0
    return network, tmp_path / name


@pytest.mark.slow
@pytest.mark.parametrize("maker", [e2e(name) if "potentials" in name else name for name in SEARCHED])
def test_a_search_agent_trains_by_made_turn_rewards(maker, tmp_path, serve, capsys):
    def answer(number, body):
        two = "of 2 turns" in str(body)
        if "far things are from a goal" in str(body):
            return said(f"[9, 4, {number % 9}]" if two else f"[9, {number % 9}]")
        return said("[3, 1]" if two else "[2]")

    endpoint = serve(answer)
    fields, logged = SEARCHED[maker]
    maker = maker.format(judge=JUDGE.format(url=endpoint.url))
    network, run = search(tmp_path, "run", f"turn_reward={maker}", *fields, save_every=0)
    before, after = weights(network), weights(run / "final")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    written = lines(run / "metrics.jsonl")
    assert logged <= {key for line in written for key in line}
    assert not any(line.get("judge/unreadable") for line in written)
    told = " ".join(capsys.readouterr().err.split())
    assert f"turn_reward is filled by {maker}, in the place of what the environment gives".replace(" ", "") in (
        told.replace(" ", "")
    )


def check_resumed(whole, key):
    """A run that lost its second step and its end goes on from its first, bit for bit."""
    cut = shutil.copytree(whole, whole.parent / "cut")
    for gone in ("final", "checkpoint-2"):
        shutil.rmtree(cut / gone)
    assert main(["train", "--quiet", "--resume", *flags(output=cut)]) == 0
    first, second = weights(whole / "final"), weights(cut / "final")
    assert all(torch.equal(first[name], second[name]) for name in first)
    told = [[line[key] for line in lines(run / "metrics.jsonl") if key in line] for run in (whole, cut)]
    assert told[0] == told[1]
    assert len(set(told[0])) == 2


@pytest.mark.e2e
def test_a_resumed_run_goes_on_with_its_regression(tmp_path):
    asked = ("turn_reward=redistributed_return(2, lr=0.01)", FEATURES)
    check_resumed(search(tmp_path, "whole", *asked, save_every=1)[1], "redistributed_return/loss")


@pytest.mark.e2e
def test_a_resumed_agent_goes_on_with_its_critic(tmp_path):
    asked = {"objective": "turn_ppo()", "save_every": 1}
    check_resumed(search(tmp_path, "whole", "value=critic(lr=0.1)", **asked)[1], "critic/loss")


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("objective", "fields", "key"),
    [
        ("ma_rlhf()", ("macro=macros_by_length(2)", "value=critic(lr=0.1)"), "critic/loss"),
        ("istar('prm')", ("logp@prm=implicit_prm(lr=0.01)",), "implicit_prm/loss"),
    ],
)
def test_a_resumed_run_goes_on_with_its_learner(objective, fields, key, train):
    check_resumed(train("whole", objective, *fields, save_every=1), key)


TAUGHT = "grpo() | kl_to_reference(0.1, teacher='a')"


@pytest.mark.parametrize(
    ("words", "said_of_it"),
    [
        (["--objective", "hicra()"], "give --field planning=planning_grams(…)"),
        (["--objective", "hicra()", "--field", "planning=planing_grams()"], "did you mean 'planning_grams'"),
        (["--objective", "grpo()", "--field", "planning=planning_grams()"], "nothing reads 'planning'"),
        (["--objective", "capo()", "--field", "wrong_step=judge_wrong_steps()"], "'url' and 'model'"),
        (["--objective", TAUGHT, "--field", "logp@a=teacher_model('./none')"], "teachers: 'a': no model folder none"),
    ],
)
def test_what_cannot_be_made_is_said_before_a_run(words, said_of_it, tmp_path, capsys):
    assert main(["train", *words, "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said_of_it in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"planning": "planning_grams(shortest=2)"},
        ["planning=planning_grams(shortest=2)"],
        "planning=planning_grams(shortest=2)",
    ],
    ids=["mapping", "list", "text"],
)
def test_a_recipe_gives_fields_as_a_list_or_by_name(given):
    made = build_options(TrainOptions, [("a file", {"objective": "hicra()", "field": given})])
    assert made.make_fields() == {"planning": planning_grams(shortest=2)}
    again = build_options(TrainOptions, [("a file", yaml.safe_load(yaml.safe_dump(made.as_dict())))])
    assert again == made


def test_each_run_of_a_comparison_has_the_fields_it_reads():
    fields = ("planning=planning_grams()",)
    settings = ComparisonSettings(fields=fields)
    assert settings.options("hicra()", 0).field == fields
    assert settings.options("grpo", 0).field == ()


# --- inside a run


def test_the_other_prompt_stands_before_the_same_ids(tmp_path):
    made = trainer(
        tmp_path,
        "t_reg(strength=1)",
        reward_funcs=length_reward,
        teachers={
            "better": behind_prompt("{prompt} It is {answer}. ").make_teacher(),
            "worse": behind_prompt("{prompt}").make_teacher(),
        },
    )
    first_step_gradients(made)
    batch = made._generation.microbatches[0].rows.batch
    row = made.train_dataset[made.prompts.share(made.prompts.asked)[0]]
    ids = batch.ids[0][batch.mask[0]].tolist()
    for name, prompt in (("better", f"{row['prompt']} It is {row['answer']}. "), ("worse", row["prompt"])):
        before = made.format.prompt_ids(prompt)
        with torch.no_grad():
            logits = model()(input_ids=torch.tensor([[*before, *ids]])).logits[0, len(before) - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(ids)), ids]
        assert torch.allclose(batch.extra[f"logp@{name}"][0, : len(ids)], expected, atol=1e-4)


def test_answers_are_drawn_behind_cut_and_closed_thinking(tmp_path, monkeypatch):
    asked, plain = [], TransformersSampler.sample

    def sample(self, requests, seed):
        asked.append([request.prompt_ids for request in requests])
        return plain(self, requests, seed)

    monkeypatch.setattr(TransformersSampler, "sample", sample)

    def fields_of(folder):
        made = trainer(
            folder,
            "brpo(prior=(0.5, 0.5), length=8)",
            reward_funcs=length_reward,
            fields={"budget": truncated_answers((1, 4), answers=2)},
        )
        first_step_gradients(made)
        return made, made._generation.microbatches[0].rows

    made, rows = fields_of(tmp_path / "one")
    prompt = rows.prompt_ids[0][rows.prompt_mask[0].bool()].tolist()
    thought = rows.batch.ids[0][rows.batch.rationale[0]].tolist()
    closing = made.format.close_ids
    assert len(thought) >= 4
    assert asked[0][:4] == [(*prompt, *thought[:cut], *closing) for cut in (1, 1, 4, 4)]
    assert len(asked[0]) == 8 * 2 * 2
    assert len(made._metrics["train"]["rewards/length_reward/mean"]) == 1  # of the rollouts alone
    _, again = fields_of(tmp_path / "two")
    for name in ("budget", "budget_reward@0", "budget_reward@1"):
        assert torch.equal(rows.batch.extra[name], again.batch.extra[name])


class States:
    """A forward pass that tells these states."""

    model = None

    def __init__(self, states):
        self.states = states

    def scores(self, network, rows, wanted):
        return {"hidden": self.states}


def test_a_critic_learns_rewards_from_states():
    speech = Spoken()
    rollouts = [rollout(speech, "a", "b", reward=1.0), rollout(speech, "a", "b", reward=float("nan"))]
    rows = collate(rollouts, ("response",), 0, 0, torch.device("cpu"))  # token, forced closing, answer
    states = torch.tensor([[[1.0, 0.0], [9.0, 9.0], [0.0, -1.0]]] * 2)
    critic = LinearCritic(lr=0.5)
    assert torch.equal(critic.fill(rows, States(states))["value"], torch.zeros(2, 3))
    assert critic.learn([rows], States(states), SingleProcess()) == {"loss": 1.0}
    # Adam's first step is lr in the direction of each gradient: w = (0.5, -0.5), b = 0.5
    assert torch.allclose(critic.fill(rows, States(states))["value"][0], torch.tensor([1.0, 0.5, 1.0]), atol=1e-5)
    other = LinearCritic(lr=0.5)
    other.load_state_dict(deepcopy(critic.state_dict()))  # as a file holds it
    for one in (critic, other):
        one.learn([rows], States(states), SingleProcess())
    assert torch.equal(critic.fill(rows, States(states))["value"], other.fill(rows, States(states))["value"])
    untouched = LinearCritic(lr=0.5)
    untouched.load_state_dict(LinearCritic(lr=0.5).state_dict())
    assert torch.equal(untouched.fill(rows, States(states))["value"], torch.zeros(2, 3))


def paid_turns():
    """Three rollouts of turns of 2, 2 and 1 tokens with an observation behind the first: paid, not scored, not paid."""
    nan = float("nan")
    turn, mask = torch.tensor([[0, 0, 0, 1, 1, 2]] * 3), torch.ones(3, 6, dtype=torch.bool)
    observation = torch.tensor([[False, False, True, False, False, False]] * 3)
    paid = torch.tensor([[1.0, 1.0, 1.0, nan, nan, 2.0]] * 2 + [[nan] * 6]).double()
    return RolloutBatch(
        mask=mask, rationale=mask & ~observation, answer=mask & False, observation=observation, turn=turn,
        group=torch.tensor([0, 0, 0]), reward=torch.tensor([3.0, nan, 1.0]).double(), extra={"turn_reward": paid},
    )  # fmt: skip


def test_a_critic_of_turns_is_fitted_to_what_is_still_to_come():
    """r = 1, none, 2: G = 1 + γ² 2, γ 2, 2, on the tokens that were sampled."""
    batch = paid_turns()
    for discount in (1.0, 0.5, 0.0):
        wanted, counts = RewardToCome(discount)(batch)
        first = 1 + discount**2 * 2
        assert wanted[0].tolist() == [first, first, 0.0, discount * 2, discount * 2, 2.0]
        assert counts.tolist() == [[True, True, False, True, True, True], [False] * 6, [False] * 6]
    wanted, counts = OutcomeTarget()(batch)
    assert wanted[0].tolist() == [3.0] * 6
    assert counts.tolist() == [
        [True, True, False, True, True, True],
        [False] * 6,
        [True, True, False, True, True, True],
    ]
    rows = Rows(torch.ones(3, 1).long(), torch.ones(3, 1).long(), batch)
    told = LinearCritic(0.5, RewardToCome(0.5)).learn([rows], States(torch.zeros(3, 6, 2)), SingleProcess())
    assert told == {"loss": pytest.approx((2 * 1.5**2 + 2 * 1.0 + 4.0) / 5)}


@pytest.mark.parametrize("rule", [turn_ppo(0.5, 0.7), bi_level_gae(0.5, trace_decay=0.7), poad(0.5, trace_decay=0.7)])
def test_a_critic_that_met_its_target_leaves_no_advantage(rule):
    batch = paid_turns().select(slice(0, 1))
    value, _ = RewardToCome(0.5)(batch)
    off = {"value": value + torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 0.0])}
    assert rule.credit(replace(batch, extra=batch.extra | off)).abs().max() > 0.1
    found = rule.credit(replace(batch, extra=batch.extra | {"value": value}))
    assert torch.allclose(found, torch.zeros(1, 6), atol=1e-6)


class Paid(Counting):
    """Pays 1 for each turn."""

    def step(self, action):
        return replace(super().step(action), reward=1.0)


def test_a_critic_of_turns_needs_an_environment(tmp_path):
    with pytest.raises(QreditError, match="a learner needs the batch field 'turn_reward', which an environment gives"):
        trainer(tmp_path, "ma_rlhf()", learners=[critic(discount=1.0).make_learner("value")])
    with pytest.raises(QreditError, match="discount"):
        critic(discount=1.5)


@pytest.mark.e2e
def test_turn_ppo_trains_with_a_critic_from_one_command(train):
    changes = {"env": f"{__name__}:Paid", "max_turns": 2, "observation_budget": 20, "steps": 2}
    run = train("run", "turn_ppo()", "value=critic(lr=0.1, discount=0.99)", **changes, save_every=0)
    assert all(line["critic/loss"] > 0 for line in lines(run / "metrics.jsonl") if "loss" in line)
