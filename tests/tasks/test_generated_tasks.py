"""Tasks generated from arguments: how they are written, path-star graphs, puzzles of reasoning-gym."""

import json
import sys
from itertools import islice, pairwise

import pytest

from qredit.cli import main
from qredit.rewards.reward_spec import Response, parse_rewards
from qredit.runs.load import check_objective_of_task
from qredit.runs.options import TrainOptions
from qredit.tasks import FAMILIES, get, reasoning_gym
from qredit.tasks.path_star import render
from qredit.tasks.pocket.scene import draw_scenes
from qredit.tasks.task_call import TaskCall, parse_task_call
from qredit.utils import extras
from qredit.utils.errors import QreditError
from tests.support.folders import flags

SMALL = "path-star(degree=3, length=4, nodes=12, size=200)"
OTHER_SEED = SMALL.replace("size", "seed=1, size")


# --- how they are written


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("path-star", TaskCall("path-star")),
        ("path-star()", TaskCall("path-star")),
        (" path-star ( degree = 5 ,length=3)", TaskCall("path-star", None, {"degree": 5, "length": 3})),
        ("reasoning-gym:ab(length=[1, 2], kind='x')", TaskCall("reasoning-gym", "ab", {"length": [1, 2], "kind": "x"})),
    ],
)
def test_a_task_is_a_name_a_member_and_constants(text, call):
    assert parse_task_call(text) == call
    assert parse_task_call(call.text) == call


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path-star(", "cannot be read; write NAME"),
        ("path-star(5)", "arguments are given by name"),
        ("path-star(**{})", "arguments are given by name"),
        ("path-star(degree=__import__('os'))", "not constants by name"),
        ("path-star(degree=3)(length=4)", "not constants by name"),
        ("path-star(degre=3)", "unknown argument of path-star 'degre'; did you mean 'degree'"),
        ("path-star(degree=1)", "degree must be a whole number, at least 2, got 1"),
        ("path-star(degree=True)", "degree must be a whole number"),
        ("path-star(degree='3')", "degree must be a whole number, at least 2, got '3'"),
        ("path-star(length=1)", "length must be a whole number, at least 2"),
        ("path-star(degree=10, length=10, nodes=90)", "10 arms of 10 nodes need 91 nodes, and nodes is 90"),
        ("path-star(easier=3)", r"easier must list shapes as \(degree, length\), such as \[\(2, 3\)\], got 3"),
        ("path-star(easier=[(1, 3)])", "degree of an easier shape must be a whole number, at least 2, got 1"),
        ("path-star(easier=[(3, 3)])", r"must differ and have fewer than 6 edges; \(3, 3\) has 6"),
        ("path-star:small", "is written path-star"),
        ("pathstar", "unknown task 'pathstar'; did you mean 'path-star'"),
        ("reasoning-gym", "is written reasoning-gym:NAME"),
        ("gsm8k(size=3)", "task gsm8k takes no arguments"),
    ],
)
def test_a_task_that_cannot_be_made_says_why_in_one_line(text, words):
    with pytest.raises(QreditError, match=words) as caught:
        TrainOptions(task=text)
    assert "\n" not in str(caught.value)


def test_families_are_listed_with_how_they_are_written(capsys):
    assert main(["tasks", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["families"]
    assert [entry["written"] for entry in listed] == [family.written for family in FAMILIES.values()]
    assert main(["tasks"]) == 0
    shown = capsys.readouterr().out
    assert all(family.written in shown for family in FAMILIES.values())


# --- path-star


def edges_of(record):
    return [tuple(edge.split(",")) for edge in record["graph"].split("|")]


def test_a_star_has_its_arms_and_nodes_and_one_way():
    for record in get("path-star(degree=4, length=5, nodes=30, size=40)").read(None, "train"):
        edges = edges_of(record)
        following = {}
        for one, other in edges:
            following.setdefault(one, []).append(other)
        assert len(edges) == 4 * (5 - 1)
        assert len({node for edge in edges for node in edge}) == 1 + 4 * (5 - 1)
        assert len(following[record["source"]]) == 4
        assert all(len(others) == 1 for node, others in following.items() if node != record["source"])
        path = record["path"].split(",")
        assert (path[0], path[-1], len(path)) == (record["source"], record["destination"], 5)
        assert set(pairwise(path)) <= set(edges)
        assert record["destination"] not in following


def test_edges_come_in_any_order_and_every_arm_can_be_asked_for():
    """Of nine edges three begin at the centre, and three are on the way."""
    records = list(islice(get(SMALL).read(None, "train"), 200))
    first = [edges_of(record)[0] for record in records]
    at_centre = [edge[0] == record["source"] for edge, record in zip(first, records, strict=True)]
    on_the_way = [edge in set(pairwise(record["path"].split(","))) for edge, record in zip(first, records, strict=True)]
    for shares in (at_centre, on_the_way):
        assert sum(shares) / len(records) == pytest.approx(1 / 3, abs=0.1)
    scene = next(draw_scenes(get(SMALL).draw, "train", 0))
    assert len({record["destination"] for record in scene.records}) == 3


def test_graphs_are_a_function_of_the_seed_and_of_one_split():
    graphs = {}
    for split in ("train", "validation", "test"):
        records, again, other = (list(islice(get(text).read(None, split), 60)) for text in (SMALL, SMALL, OTHER_SEED))
        assert records == again
        graphs[split], others = ({frozenset(edges_of(record)) for record in found} for found in (records, other))
        assert graphs[split].isdisjoint(others)
    assert graphs["train"].isdisjoint(graphs["test"] | graphs["validation"])
    assert graphs["test"].isdisjoint(graphs["validation"])
    few = {split: islice(get("path-star(degree=2, length=2, nodes=4)").read(None, split), 40) for split in graphs}
    graphs = {split: {frozenset(edges_of(record)) for record in found} for split, found in few.items()}
    assert graphs["train"].isdisjoint(graphs["test"])


def test_a_prompt_is_the_graph_and_the_question():
    record = {"id": "i", "graph": "4,9|9,7|4,2", "source": "4", "destination": "7", "path": "4,9,7"}
    cold, warm = render(record, "cold"), render(record, "warm")
    assert (cold.prompt, cold.answer, cold.rationale) == ("4,9 9,7 4,2\n4,7=", "4,9,7", "7,9,4")
    assert warm.prompt.endswith("the graph is 4,9 9,7 4,2\nThe source node is 4\nThe destination node is 7")
    assert "comma separated integers" in warm.prompt


def test_easier_graphs_stand_beside_those_to_be_learned():
    """As many of each shape, in training alone, with the number of edges as difficulty; the others are as without."""
    task = get("path-star(degree=3, length=4, nodes=12, size=30, easier=[(2, 3), (3, 3)])")
    records = list(task.read(None, "train"))
    assert [record["difficulty"] for record in records] == [9] * 30 + [4] * 30 + [6] * 30
    assert all(len(edges_of(record)) == record["difficulty"] for record in records)
    plain = list(islice(get(SMALL).read(None, "train"), 30))
    assert [{name: one[name] for name in plain[0]} for one in records[:30]] == plain
    assert {one["difficulty"] for one in task.read(None, "validation")} == {9}
    assert task.render(records[-1], "cold").columns == {"difficulty": 6}
    assert task.render(plain[0], "cold").columns == {}
    assert "easier=((2, 3), (3, 3))" in task.name
    assert get(task.name).name == task.name


def test_too_few_graphs_for_a_split_and_data_are_refused(monkeypatch):
    monkeypatch.setattr("qredit.tasks.path_star.assign_split", lambda words: "train")
    with pytest.raises(QreditError, match="no graph of 3 arms of 4 nodes is left for test; raise nodes"):
        get(SMALL).load(None, "test", "cold")
    with pytest.raises(QreditError, match="path-star is generated and reads no data; leave out 'here'"):
        get("path-star").load("here", "train", "cold")


# --- reasoning-gym, by a stand-in with the package's interface


STAND_IN = {
    "__init__.py": "",
    "factory.py": """
from dataclasses import dataclass
from random import Random
from reasoning_gym.dataset import ProceduralDataset

@dataclass
class Config:
    least: int = 0
    seed: int = 0
    size: int = 500

    def validate(self):
        assert self.least >= 0, "least must not be negative"

class Sums(ProceduralDataset):
    def __getitem__(self, number):
        drawn = Random(self.config.seed + number).randint(self.config.least, 999)
        return {"question": f"{drawn} + 1 =", "answer": f" {drawn + 1} ", "metadata": {"number": number}}

class Paths(Sums):
    def score_answer(self, answer, entry):
        return {"left": 1.0, "right": 1.0, "": 0.5}.get(answer, eval("0.25"))

class Silent(Sums):
    def __getitem__(self, number):
        return {"question": "?", "answer": None, "metadata": {}}

DATASETS = {"sums": (Sums, Config), "paths": (Paths, Config), "silent": (Silent, Config)}
""",
    "dataset.py": """
class ProceduralDataset:
    def __init__(self, config):
        config.validate()
        self.config = config

    def score_answer(self, answer, entry):
        return 1.0 if answer == entry["answer"].strip() else 0.1 * (entry["answer"].strip() in answer)
""",
}


@pytest.fixture
def gym(tmp_path, monkeypatch):
    """A package reasoning_gym of three generators: one right answer, several, none stated."""
    (tmp_path / "reasoning_gym").mkdir()
    for name, text in STAND_IN.items():
        (tmp_path / "reasoning_gym" / name).write_text(text)
    for name in [name for name in sys.modules if name.split(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    for kept in (reasoning_gym._generator, reasoning_gym._entry):
        kept.cache_clear()
    yield
    for kept in (reasoning_gym._generator, reasoning_gym._entry):
        kept.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "reasoning_gym"]:
        del sys.modules[name]


@pytest.mark.usefixtures("gym")
def test_entries_are_examples_and_their_own_score_is_the_reward():
    task = get("reasoning-gym:sums(least=500, size=30)")
    train, test = (task.load(None, split, "cold") for split in ("train", "test"))
    assert (len(train), task.sizes["train"]) == (30, 30)
    assert {one.prompt for one in train}.isdisjoint(one.prompt for one in test)
    validation = {one.columns["entry"] for one in task.load(None, "validation", "cold")}
    assert validation.isdisjoint(one.columns["entry"] for one in (*train, *test))
    assert all(int(one.prompt.split()[0]) + 1 == int(one.answer) >= 501 for one in train)
    (reward,) = parse_rewards(task.reward)
    said = [(one, text) for one in test[:4] for text in (one.answer, f" {one.answer}\n", f"or {one.answer}", "no")]
    scores = reward([Response("p", "c", (), "", text, one) for one, text in said])
    assert scores == [1.0, 1.0, 0.1, 0.0] * 4


@pytest.mark.usefixtures("gym")
def test_a_likelihood_is_refused_with_several_right_answers():
    notes = get("reasoning-gym:paths").loaded(None, "validation", "cold").notes
    assert any("may accept several answers" in note for note in notes)
    assert any("by running it as Python" in note for note in notes)
    assert "several" not in str(get("reasoning-gym:sums(size=9)").loaded(None, "train", "cold").notes)
    for task, objective, refused in [("paths", "garl", True), ("paths", "grpo", False), ("sums", "garl", False)]:
        options = TrainOptions(task=f"reasoning-gym:{task}", objective=objective, model="m")
        if not refused:
            check_objective_of_task(options)
            continue
        with pytest.raises(
            QreditError, match=r"objective garl\(q=0.75\) reads the likelihood of the one right answer, and"
        ):
            check_objective_of_task(options)


@pytest.mark.usefixtures("gym")
def test_runs_and_probes_are_refused_before_a_model_is_sought(tmp_path, capsys):
    shared = flags(task="reasoning-gym:paths(size=9)", model="nobody/nothing")
    assert main(["train", *shared, "--output", str(tmp_path / "run")]) == 2
    assert "objective garl(q=0.75) reads the likelihood of the one right answer" in capsys.readouterr().err
    assert main(["probe", *shared]) == 2
    assert "the probe reads the likelihood of the one right answer" in capsys.readouterr().err
    assert main(["compare", "grpo()", "garl(q=0.5)", *shared, "--output", str(tmp_path / "compare")]) == 2
    assert "objective garl(q=0.5) reads" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("gym")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sum", "unknown generator of reasoning-gym 'sum'; did you mean 'sums'. Choices: paths, silent, sums"),
        ("sums(leest=1)", "unknown argument of reasoning-gym:sums 'leest'; did you mean 'least'"),
        ("sums(least=-1)", r"reasoning-gym:sums\(least=-1\): least must not be negative"),
        ("sums(size=0)", "size must be a whole number, at least 1, got 0"),
        ("sums(seed='a')", "seed must be a whole number, at least 0, got 'a'"),
    ],
)
def test_an_unknown_generator_or_knob_is_named_with_the_nearest(text, words):
    with pytest.raises(QreditError, match=words):
        TrainOptions(task=f"reasoning-gym:{text}")


@pytest.mark.usefixtures("gym")
def test_a_generator_that_states_no_answer_is_refused():
    with pytest.raises(QreditError, match="reasoning-gym:silent states no answer"):
        get("reasoning-gym:silent").load(None, "test", "cold")


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    words = (
        r"reasoning-gym:ab needs reasoning-gym, not installed here; install with: pip install 'qredit\[reasoning-gym\]'"
    )
    with pytest.raises(QreditError, match=words):
        TrainOptions(task="reasoning-gym:ab")


def test_generators_of_one_answer_exist_and_accept_it():
    factory = pytest.importorskip("reasoning_gym.factory")
    assert set(factory.DATASETS) >= reasoning_gym.ONE_ANSWER
    for name in ("chain_sum", "sudoku", "zebra_puzzles"):
        task = get(f"reasoning-gym:{name}(size=3)")
        (reward,) = parse_rewards(task.reward)
        assert task.single_answer
        assert (
            reward([Response("", "", (), "", one.answer, one) for one in task.load(None, "train", "cold")]) == [1.0] * 3
        )
    assert not get("reasoning-gym:countdown").single_answer
    assert get("reasoning-gym:leg_counting").single_answer
