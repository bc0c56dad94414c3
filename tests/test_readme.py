"""What the README and the docs show is true: the tree, links, scripts."""

import re
import runpy
import sys

import pytest

from qredit.core.chain import Scope
from qredit.credit.reward import reward
from qredit.objectives.parsing import parse
from qredit.rewards.judge.model import ProcessRewardModel
from tests.support.batches import reward_batch
from tests.support.folders import data_file, model_folder
from tests.support.paths import ROOT
from tests.support.tree import PAGE, lines, page


def test_the_tree_names_every_file_with_its_purpose():
    assert PAGE.read_text() == page(), "run python -m tests.support.tree"


def test_every_file_has_a_purpose_of_its_own():
    purposes = [line[28:].strip() for line in lines()]
    assert all(purposes)
    assert len(set(purposes)) == len(purposes)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_links_lead_to_files(page):
    targets = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()) if not link.startswith("http")]
    assert [link for link in targets if not (page.parent / link).exists()] == []


@pytest.mark.e2e
@pytest.mark.engine
@pytest.mark.parametrize("script", ["basic.py", "loop.py"])
def test_an_example_runs(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "2"])
    runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    if script == "basic.py":
        assert (tmp_path / "runs/basic/final/model.safetensors").exists()
    else:
        assert "step   2" in capsys.readouterr().out


@pytest.mark.e2e
@pytest.mark.engine
def test_the_example_of_a_reward_model_makes_one(tmp_path, monkeypatch, capsys):
    rows = [{"prompt": "What? ", "completions": ["four", "so four"], "labels": [True, n % 2 == 0]} for n in range(4)]
    given = [data_file(tmp_path / "steps.jsonl", rows), model_folder(tmp_path / "model"), tmp_path / "prm", 2]
    monkeypatch.setattr(sys, "argv", ["process_reward_model.py", *map(str, given)])
    runpy.run_path(str(ROOT / "examples" / "process_reward_model.py"), run_name="__main__")
    assert "epoch 2: loss 0." in capsys.readouterr().out
    assert len(ProcessRewardModel.load(str(tmp_path / "prm")).score("What? ", ["four", "so four"])) == 2


def test_the_basic_example_is_short():
    assert len((ROOT / "examples" / "basic.py").read_text().splitlines()) <= 25


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.engine
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """All of it, in one session, with two steps of training in place of eighty."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks[0].strip().splitlines()) <= 12
    told = {}
    exec("".join(blocks).replace("max_steps=80", "max_steps=2"), told)
    assert told["trainer"].state.global_step == 2
    assert "amplified_likelihood" in capsys.readouterr().out


def test_the_method_of_contributing_keeps_the_laws():
    """Its test is run as it stands there; the same with the baseline's sign turned breaks a law."""
    block = re.search(r"^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)[1]
    told = {"__name__": "my_method"}
    exec(block, told)
    told["test_the_laws_hold"]()
    exec(block.replace("0.0, value - mean", "value, value + mean"), told)
    with pytest.raises(AssertionError):
        told["test_the_laws_hold"]()


def test_the_stage_of_the_architecture_page_works():
    """As it stands there, in a chain; it reads the reward and a mean over the group."""
    page = (ROOT / "docs" / "architecture.md").read_text().partition("**A stage** is")[2]
    told = {"__name__": "my_stages"}
    exec(re.search(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1], told)
    chain = reward() | told["drop_easy_groups"](limit=0.9)
    assert (chain.needs, chain.scope) == ({"reward"}, Scope.GROUP)
    found = chain(reward_batch([1.0, 1.0, 1.0, 0.0], group=[0, 0, 1, 1]))
    assert found.value[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]


def test_every_objective_that_the_readme_recommends_is_one():
    table = (ROOT / "README.md").read_text().partition("## Which objective when")[2].partition("```")[0]
    texts = [text.replace("\\|", "|") for text in re.findall(r"`([a-z_]+\(.*?\)(?: \\\| [a-z_]+\(.*?\))?)`", table)]
    assert len(texts) > 8
    for text in texts:
        parse(text)


def test_no_local_path_has_crept_in():
    texts = [
        p for folder in ("src", "docs", "examples", "experiments", "recipes") for p in (ROOT / folder).rglob("*.*")
    ]
    forbidden = re.compile(r"(?<![\w.])/(home|root|Users|tmp|private)/\w")
    shown = [p for p in texts if p.suffix in (".py", ".md", ".yaml", ".in") and forbidden.search(p.read_text())]
    assert shown == []
