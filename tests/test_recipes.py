"""The recipes: each one parses, says of every key where it comes from, and the published experiments are all there."""

import re
from pathlib import Path

import pytest
import yaml

from qredit import tasks
from qredit.cli import main
from qredit.cli.dpo_command import list_dpo_fields
from qredit.cli.parser import build_options, read_yaml
from qredit.cli.shared_options import split_sources
from qredit.cli.train_command import list_training_fields
from qredit.runs.dpo_options import SHARED_WITH_TRAIN, PairOptions
from qredit.runs.options import TrainOptions
from qredit.runs.train import make_config
from qredit.utils.errors import QreditError
from tests.support.folders import data_file, flags, model_folder
from tests.support.paths import ROOT

RECIPES = ROOT / "recipes"
PUBLISHED = [name for name, task in tasks.REGISTRY.items() if task.sizes and not name.startswith("pocket-")]
EXPECTED = {
    *(f"{task}-{style}.yaml" for task in PUBLISHED for style in ("cold", "warm")),
    *(f"pocket-{task}-{style}.yaml" for task in ("hotpot", "musique", "finqa") for style in ("cold", "warm")),
    "pocket-dial-cold.yaml",
    "first-run.yaml",
    "one-shot.yaml",
}
KEY = re.compile(r"[a-z_]+: \S.*?  +# (paper|ours|measured|estimated)(: \S.*)?")
NUMBER = re.compile(r"[a-z_]+: [\d.e-]+  +# (?!measured|paper|estimated)")
files = pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)


def unmarked(text: str) -> list[str]:
    """The lines below the first that are not a key, a value and where it comes from."""
    return [line for line in text.splitlines()[1:] if not KEY.fullmatch(line)]


def options(path: Path) -> TrainOptions:
    return build_options(TrainOptions, [(str(path), read_yaml(str(path)))], further=list_training_fields)


def test_there_is_one_for_each_published_experiment():
    assert {path.name for path in RECIPES.iterdir() if path.is_file()} == EXPECTED


@files
def test_it_says_what_it_is_and_how_it_is_run(path):
    first = path.read_text().splitlines()[0]
    data = "" if options(path).is_pocket else " --data PATH"
    assert first.startswith("# ")
    assert first.endswith(f"`qredit train --config recipes/{path.name}{data}`")


@files
def test_every_key_is_marked(path):
    assert unmarked(path.read_text()) == []


@files
def test_it_is_a_run_of_what_its_name_says(path, tmp_path):
    recipe = options(path)
    assert path.name in (f"{recipe.task}-{recipe.style}.yaml", "first-run.yaml", "one-shot.yaml")
    assert set(yaml.safe_load(path.read_text())) <= {*vars(recipe), *recipe.training}
    args = make_config(
        recipe, tmp_path
    )  # sizes that split a group, or settings that do not go together, are refused here
    step = args.per_device_train_batch_size * args.gradient_accumulation_steps
    assert (args.num_generations, step) == (recipe.m, recipe.m * recipe.prompts_per_step)


SPECS = sorted((RECIPES / "specs").glob("*.yaml"))
"""A first run, training on preferences, a run: each goes on from what the one before it left."""


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_a_stage_of_specs_can_be_read(path):
    command = "dpo" if path == SPECS[1] else "train"
    first, *_ = path.read_text().splitlines()
    assert first.endswith(f"`qredit {command} --config recipes/specs/{path.name} --output runs/specs-{path.name[0]}`")
    assert unmarked(path.read_text()) == []
    if command == "train":
        assert options(path).rewards == "exact_match, 0.5*format"
        return
    own, rest = split_sources([(str(path), read_yaml(str(path)))], PairOptions, SHARED_WITH_TRAIN)
    assert build_options(PairOptions, own).loss_types == ["sigmoid", "sft"]
    assert build_options(TrainOptions, rest, further=list_dpo_fields).training == {"loss_weights": [1.0, 1.0]}


def test_stages_of_specs_follow_each_other():
    first, second, third = (read_yaml(str(path)) for path in SPECS)
    assert first["keep_rollouts"] is True
    assert (second["run"], second["model"]) == ("runs/specs-1", first["model"])
    assert third["model"] == "runs/specs-2/final"


def test_every_number_of_the_first_run_says_if_it_was_measured():
    text = (RECIPES / "first-run.yaml").read_text()
    assert [line for line in text.splitlines() if NUMBER.match(line)] == []
    assert NUMBER.match("steps: 100   # ours")


def test_the_first_run_is_planned_with_another_model(tmp_path, capsys):
    """All but its model and lengths: the tiny model has no room for them."""
    questions = [{"question": f"What is {n}? ", "answer": f"So it is {n}.\n#### {n}"} for n in range(24)]
    data_file(tmp_path / "train.jsonl", questions)
    small = flags(
        model=model_folder(tmp_path / "model"), data=tmp_path, max_completion_length=8, answer_budget=3, cpu=True
    )
    assert main(["train", "--config", str(RECIPES / "first-run.yaml"), *small, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "23 examples, 4 groups of 8 rollouts per step" in planned


@pytest.mark.parametrize(("task", "total"), [("finqa", 4096), ("hotpotqa", 3072), ("musique", 2048)])
@pytest.mark.parametrize("style", ["cold", "warm"])
def test_the_published_numbers(task, total, style):
    recipe = options(RECIPES / f"{task}-{style}.yaml")
    assert (recipe.model, recipe.m, recipe.budget) == ("Qwen/Qwen3-0.6B", 32, (total, 128))
    assert recipe.get_subset_size() == tasks.get(task).sizes["train"]
    assert recipe.aliases == "reward", "the published likelihood knows one answer"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("  # paper", "", 1),
        lambda text: text.replace("# ours", "# mine", 1),
        lambda text: text.replace("# paper: ", "# paper ", 1),
        lambda text: text + "seed: 1\n",
    ],
    ids=["no mark", "another mark", "a reason without colon", "a line at the end"],
)
def test_a_line_without_a_mark_would_be_seen(change):
    text = (RECIPES / "finqa-cold.yaml").read_text()
    assert len(unmarked(change(text))) == 1


def test_a_key_that_does_not_exist_would_be_seen(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text((RECIPES / "finqa-cold.yaml").read_text().replace("answer_budget", "answer_bugdet"))
    with pytest.raises(QreditError, match="unknown key 'answer_bugdet'.*did you mean 'answer_budget'"):
        options(broken)
