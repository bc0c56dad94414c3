"""Whole runs on verl: Ray, TransferQueue, FSDP2 on two gloo ranks, two rollout servers, with an unedited verl.

There are four: one that learns in another way in each step, on two nodes; and one from reward 0, unbroken, killed, and
gone on with. Each takes one to two minutes. Weights of every step are recorded.
"""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import pocket
from qredit.engine.stage_state import UPDATE_CADENCES
from qredit.objectives.parsing import parse
from qredit.report.collect import collect_runs
from qredit.rollouts.format import Format, TokenFormat
from qredit.runs.options import TrainOptions
from qredit.runs.verl_data import write_verl_data
from qredit.utils.seed import ANSWER_STREAM, derive_seed
from qredit.verl.settings import REFERENCE_LOGP
from tests.support import recorded_rows
from tests.support.recorded_rows import TWO_TAILS, M
from tests.support.toy_engine import ToyEngine
from tests.support.verl_cpu.environment import needs_verl

pytestmark = [needs_verl, pytest.mark.verl, pytest.mark.long]
MODEL = pocket.get_model_path("dial-6")
RATE = 0.01
PLAYED, PLAN_FILE = "played.json", "plan.json"
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_verl_data(TrainOptions(task="pocket-dial", subset="24"), folder)
    return folder


def run(folder, data, objective, kill_after=None, **changes):
    """The output of a run, its rollouts and the weights that both servers were given: [step][server].

    Args:
        folder: of the run.
        data: folder of its parquet files.
        objective: its text.
        kill_after: a step after whose checkpoint all of its processes are killed.
        **changes: of verl's options.
    """
    from tests.support.verl_cpu.tiny_run import start, write_config

    folder.mkdir(exist_ok=True)
    said = start(folder, write_config(folder, MODEL, data, objective, **changes), kill_after)
    lines = (folder / "rollouts.jsonl").read_text().splitlines()
    rollouts = [recorded_rows.from_text(text, group) for group, text in map(json.loads, lines)]
    steps = max(int(path.stem.split("-")[1]) for path in folder.glob("weights-*.pt"))
    weights = [[torch.load(folder / f"weights-{step}-{rank}.pt") for rank in (0, 1)] for step in range(steps + 1)]
    return said, rollouts, weights


def load_model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def read_metric(said, step, name):
    return float(re.search(rf"step:{step} - .*?{re.escape(name)}:([-+0-9.e]+|nan)", said).group(1))


def reference(objective, rollouts, weights, step, state=None, groups=2, epochs=1, rate=RATE):
    """What one process makes of these rollouts with these weights, by an objective's own formula.

    Args:
        objective: its text.
        rollouts: of one optimiser step's generation.
        weights: before the step.
        step: its number; what is drawn depends on it.
        state: of stateful stages, before the step.
        groups: of a mini-batch.
        epochs: how often the rollouts are learned from.
        rate: of learning.

    Returns:
        The mean loss and gradient norm of the updates, the weights behind them, and the state behind them.
    """
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    model = load_model()
    model.load_state_dict(weights)
    format = TokenFormat(Format.of(tokenizer), tokenizer)
    toy = ToyEngine(model, parse(objective), format, tokenizer, draw=None, reward=None, m=4, seed=0)
    plain, scorer = toy.objective.at(0.0), toy.scorer
    state = plain.init_state() if state is None else state
    rows = toy.collator.rows(rollouts, derive_seed(0, step - 1), None)
    if REFERENCE_LOGP in plain.needs:
        model.load_state_dict(load_model().state_dict())
        told = scorer.score_batch_no_grad(model, rows, False).logp
        model.load_state_dict(weights)
        rows = replace(rows, batch=replace(rows.batch, extra={**rows.batch.extra, REFERENCE_LOGP: told}))
    before = scorer.score_batch_no_grad(model, rows, False)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses, norms = [], []
    for update, part in enumerate([*rows.batch.group.unique().split(groups)] * epochs):
        chosen = torch.isin(rows.batch.group, part).nonzero()[:, 0]
        own = rows.select(chosen)
        if update:  # the weights have moved since the rows were sampled
            own = replace(own, batch=replace(own.batch, sampler_logp=before.logp[chosen]))
        scores = scorer.score(model, own)
        batch = scorer.attach_scores(own.batch, scores, update > 0)
        loss = plain.loss(scores["logp"], batch, state=state)
        optimizer.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        norms.append(float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()))
        optimizer.step()
    state = plain.update_state(state, plain.statistics(batch, state, UPDATE_CADENCES))
    return sum(losses) / len(losses), sum(norms) / len(norms), model.state_dict(), state


def check_weights_are_shared(weights):
    """Each server got its weights from a rank of its own: so those of the ranks are equal, too."""
    for one, other in weights:
        assert all(torch.equal(one[name], other[name]) for name in one)


def check_step(said, rollouts, weights, step, objective, state=None, lands=True, **changes):
    """One step of a run is what `reference` makes of its rollouts; returns the state behind it.

    Args:
        said, rollouts, weights: as `run` gives them.
        step: its number.
        objective: its text.
        state: of stateful stages, before the step.
        lands: whether the servers are given the weights behind it.
        **changes: for `reference`.
    """
    own = [one for one in rollouts if one.group // 2 == step - 1]
    loss, norm, after, state = reference(objective, own, weights[step - 1][0], step, state, **changes)
    assert read_metric(said, step, "actor/loss") == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert read_metric(said, step, "actor/grad_norm") == pytest.approx(norm, rel=1e-5)
    assert norm > 1e-3
    for name, value in after.items() if lands else ():
        torch.testing.assert_close(weights[step][0][name], value, rtol=1e-5, atol=1e-6)
    return state


def play(folder, rollouts):
    """Have the servers draw these rollouts in a run's first step, by the seeds of its requests."""
    end = AutoTokenizer.from_pretrained(MODEL).eos_token_id
    table = {}
    for number, one in enumerate(rollouts):
        seed = derive_seed(0, 0, 1, number // M, number % M)
        thought, closing, answer = one.segments
        ids, logp = [*thought.ids], [*thought.logp]
        if closing.sampled:
            ids, logp = [*ids, *closing.ids], [*logp, *closing.logp]
        elif one.dropped_ends:
            ids, logp = [*ids, end], [*logp, 0.0]
        table[str(seed)] = ids, logp
        table[str(derive_seed(seed, ANSWER_STREAM))] = answer.ids, answer.logp
    folder.mkdir(exist_ok=True)
    (folder / PLAYED).write_text(json.dumps(table))


def change_data(data, folder):
    """A copy of the data that begins with the questions that TRL was asked, and has aliases from ALIASED on."""
    shutil.copytree(data, folder)
    rows = pyarrow.parquet.read_table(folder / "train.parquet").to_pylist()
    for row, question in zip(rows, recorded_rows.read()["questions"], strict=False):
        row["prompt"][0]["content"] = question["prompt"]
        row["reward_model"]["ground_truth"] = question["answer"]
    golds = [row["reward_model"]["ground_truth"] for row in rows]
    for number, row in enumerate(rows[ALIASED:], start=ALIASED):
        others = dict.fromkeys(one for one in golds if one != golds[number])
        row["extra_info"]["aliases"] = list(others)[:2] if number % 2 else []
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    return folder


ALIASED = 16
AUTO = "garl(q=auto())"
STATEFUL = "on_span('sampled', reward() | subtract_running_mean(decay=0.5))"
PLAN = (
    {"objective": "garl(q=0.75)"},
    {"objective": "paft(q=0.5)"},
    {"objective": "grpo() | entropy_bonus(0.01)", "actor": {"ppo_mini_batch_size": 1}},
    {"objective": TWO_TAILS},
    {"objective": "reinforce_pp() | entropy_bonus(0.01)", "actor": {"ppo_epochs": 2}},
    {"objective": "garl(q=0.5)", "actor": {"ppo_epochs": 2}},  # scored anew before the second update
    {"objective": STATEFUL},
    {"objective": STATEFUL},
    # From question ALIASED on every second one has three right answers: its rows have several sequences.
    {"objective": "garl(q=0.75)", "fails": [[17, 1]]},
    {"objective": TWO_TAILS, "fails": [[18, session] for session in range(M)]},
    {"objective": AUTO},
    {"objective": AUTO},
    {"objective": "grpo() | kl_to_reference(0.5)"},  # to the model that the run began with
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory, data):
    """A run on two nodes whose steps are those of the plan; the first on rollouts that the TRL adapter sampled."""
    folder = tmp_path_factory.mktemp("planned")
    play(folder, recorded_rows.read_rollouts())
    (folder / PLAN_FILE).write_text(json.dumps(PLAN))
    return run(
        folder, change_data(data, folder / "data"), PLAN[0]["objective"],
        **{
            "qredit.reward": "tests.support.recorded_rows:reward_by_length",
            "trainer.nnodes": 2,
            "trainer.n_gpus_per_node": 1,
            "trainer.total_training_steps": len(PLAN),
        },
    )  # fmt: skip


def test_every_step_is_that_of_one_process(planned):
    said, rollouts, weights = planned
    check_weights_are_shared(weights)
    initial = load_model().state_dict()
    assert all(torch.equal(initial[name], value) for name, value in weights[0][0].items())
    state, before = None, None
    for step, own in enumerate(PLAN, start=1):
        actor, objective = own.get("actor", {}), own["objective"]
        if objective == AUTO:
            objective = f"garl(q={read_metric(said, step, ' q')})"
        state = check_step(
            said, rollouts, weights, step, objective,
            state=state if own["objective"] == before else None,
            groups=actor.get("ppo_mini_batch_size", 2), epochs=actor.get("ppo_epochs", 1),
        )  # fmt: skip
        before = own["objective"]


def test_the_first_step_is_what_trl_made_of_it(planned):
    said, rollouts, _ = planned
    assert [told(one) for one in rollouts[: 2 * M]] == [told(one) for one in recorded_rows.read_rollouts()]
    known = recorded_rows.read()["steps"][PLAN[0]["objective"]]
    assert read_metric(said, 1, "actor/loss") == pytest.approx(known["loss"], rel=1e-5)
    assert read_metric(said, 1, "actor/grad_norm") == pytest.approx(known["grad_norm"], rel=1e-5)


def test_failed_sessions_are_counted(planned):
    said, rollouts, _ = planned
    sizes = Counter(one.group for one in rollouts)
    assert [sizes[group] for group in range(20)] == [M] * 17 + [M - 1, M, 0]
    assert [read_metric(said, step, "groups/incomplete") for step in range(1, 14)] == [0.0] * 8 + [1.0] * 2 + [0.0] * 3
    aliased = [len(one.golds) for one in rollouts if ALIASED <= one.group < 20]  # of groups 16, 17 and 18
    assert aliased == [1] * M + [3] * (2 * M - 1)


def told(one):
    """A rollout without the engine's log-probabilities."""
    return one.group, one.prompt, one.ids, one.golds, one.reward


def read_states(folder, step):
    """What each rank kept of its weights and of its optimiser."""
    actor = folder / "checkpoints" / f"global_step_{step}" / "actor"
    names = [f"{kind}_world_size_2_rank_{rank}.pt" for kind in ("model", "optim") for rank in (0, 1)]
    return [list_tensors(torch.load(actor / name, weights_only=False)) for name in names]


def list_tensors(value, name=""):
    """The tensors and numbers of nested dictionaries and lists, by their place; of sharded ones this rank's part."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: one for place, held in items for key, one in list_tensors(held, f"{name}/{place}").items()}
    return {name: getattr(value, "_local_tensor", value)}


def check_states_are_equal(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        assert any(isinstance(value, torch.Tensor) and value.numel() for value in one.values())
        for name, value in one.items():
            equal = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            assert equal, name


STEPS = 6
COLD = {
    "actor_rollout_ref.actor.optim": {"optimizer": "AdamW", "lr": 1e-3},  # so that its moments matter
    "trainer.save_freq": 1,
    "trainer.resume_mode": "auto",
    "trainer.total_training_steps": STEPS,
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, data):
    """A run of garl(q=0.75) from reward 0, that validates before its first step; its folder, and what `run` gives."""
    folder = tmp_path_factory.mktemp("unbroken")
    validation = {
        "trainer.val_before_train": True,
        "trainer.validation_data_dir": str(folder / "dumps"),
        "data.val_max_samples": 4,
    }
    return folder, *run(folder, data, "garl(q=0.75)", **COLD, **validation)


def test_it_learns_where_no_rollout_was_right(unbroken):
    _, _, rollouts, weights = unbroken
    check_weights_are_shared(weights)
    rewards = [[one.reward for one in rollouts if one.group // 2 == step] for step in range(STEPS)]
    assert {len(one) for one in rewards} == {2 * M}
    assert rewards[0] == [0.0] * 2 * M
    assert sum(rewards[-2] + rewards[-1]) >= 4  # of 16


def test_answers_are_rewarded_without_the_gold_one(unbroken):
    folder, _, rollouts, _ = unbroken
    assert all((one.reward == 1.0) == (one.answer_ids == one.golds[0]) for one in rollouts)
    shown = [json.loads(line) for line in (folder / "dumps" / "0.jsonl").read_text().splitlines()]
    assert len(shown) == 4
    for one in shown:  # the model has not learned yet: only an appended gold answer would stand at the end
        assert not one["output"].rstrip().endswith(one["gts"])


def test_its_folder_is_one_that_is_reported(unbroken):
    folder, said, _, _ = unbroken
    (kept,) = collect_runs([folder / "checkpoints"])
    assert kept.metrics[0]["actor/loss"] == pytest.approx(read_metric(said, 1, "actor/loss"))
    assert [entry["step"] for entry in kept.credit] == [*range(1, STEPS + 1)]
    assert kept.credit[0]["responses"]
    assert kept.credit[0]["exact"]


def test_a_killed_run_goes_on_as_the_unbroken_one(tmp_path, data, unbroken):
    """Every process of the second run is killed once its second checkpoint is complete."""
    folder, _, rollouts, whole = unbroken
    _, before, _ = run(tmp_path, data, "garl(q=0.75)", kill_after=2, **COLD)
    cut = 2 * 2 * M
    assert [told(one) for one in before[:cut]] == [told(one) for one in rollouts[:cut]]
    (tmp_path / "rollouts.jsonl").unlink()
    _, again, parts = run(tmp_path, data, "garl(q=0.75)", **COLD)
    assert [told(one) for one in again] == [told(one) for one in rollouts[cut:]]
    for step in range(3, STEPS + 1):
        assert all(torch.equal(parts[step][0][name], value) for name, value in whole[step][0].items())
    check_states_are_equal(read_states(tmp_path, STEPS), read_states(folder, STEPS))
    (kept,) = collect_runs([tmp_path / "checkpoints"])
    assert [entry["step"] for entry in kept.metrics] == [*range(1, STEPS + 1)]


GOOD, BAD = [0.8] * 40, [0.0] * 40  # what the groups of a step are said to show
GUARDED = [{"objective": "garl(q=0.75)", "success": shown} for shown in (GOOD, GOOD, BAD, BAD, BAD, GOOD, GOOD)]
FALLEN = 5  # the step behind which a collapse is seen


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, data):
    """A run whose guard rolls back behind its fifth step, to the checkpoint of its first; stopped behind the sixth."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / PLAN_FILE).write_text(json.dumps(GUARDED))
    return folder, *run(folder, data, GUARDED[0]["objective"], **guard_changes(FALLEN + 1))


def guard_changes(steps):
    return {
        "qredit.guard": "roll_back",
        "trainer.save_freq": 1,
        "trainer.resume_mode": "auto",
        "trainer.total_training_steps": steps,
    }


def test_a_guarded_run_goes_back_and_on_at_half_the_rate(guarded):
    folder, said, rollouts, weights = guarded
    check_weights_are_shared(weights)
    assert all(torch.equal(weights[FALLEN][0][name], value) for name, value in weights[1][0].items())
    (told,) = map(json.loads, (folder / "checkpoints" / "decisions.jsonl").read_text().splitlines())
    assert told["step"] == FALLEN
    assert told["change"] == "on at 0.5 of the learning rate, with the weights of global_step_1"
    check_step(said, rollouts, weights, FALLEN, GUARDED[0]["objective"], lands=False)
    check_step(said, rollouts, weights, FALLEN + 1, GUARDED[0]["objective"], rate=RATE / 2)


def test_what_a_guard_did_outlives_a_resume(guarded, data):
    folder, *_ = guarded
    (folder / "rollouts.jsonl").unlink()
    said, rollouts, weights = run(folder, data, GUARDED[0]["objective"], **guard_changes(FALLEN + 2))
    check_step(said, rollouts, weights, FALLEN + 2, GUARDED[0]["objective"], rate=RATE / 2)
