"""The reporting checklist: filled from what runs tell, with a hole wherever they are silent."""

import json
import struct
from pathlib import Path

import pytest
from rich.console import Console

from qredit.cli.main import main
from qredit.cli.report_command import format_checklist
from qredit.report.checklist import count_parameters, fill_checklist
from qredit.report.collect import RunData
from qredit.report.page import render_page

STEPS = (
    {"step": 1, "reward": 0.5, "rewards/exact_match/mean": 0.5, "completions/mean_length": 10.0, "step_time": 1800.0},
    {"step": 2, "reward": 0.5, "completions/mean_length": 20.0, "completions/min_length": 3.0, "step_time": 1800.0},
    {"step": 3, "reward": 0.5, "completions/max_length": 41.0},
)


def run(objective="grpo()", seed=0, metrics=STEPS, **changes):
    config = {"task": "jsonl", "model": "base", "objective": objective, "seed": seed, "steps": 3}
    record = {"objective": objective, "seed": seed, "train_prompts": 64, "machine": {"accelerator": None}}
    given = {"config": config | changes.pop("config", {}), "record": record | changes.pop("record", {}), **changes}
    return RunData(name=f"{objective}-{seed}", path=Path("nowhere"), metrics=metrics, **given)


def findings(*runs):
    return {item.number: item.finding for item in fill_checklist(runs)}


def test_the_list_has_ten_required_items_of_fourteen():
    items = fill_checklist([run()])
    assert [item.number for item in items] == list(range(1, 15))
    assert [item.number for item in items if not item.required] == [7, 10, 12, 14]


def test_an_empty_folder_is_all_holes_but_what_has_a_default():
    told = {number: found.told for number, found in findings(RunData(name="bare", path=Path("nowhere"))).items()}
    assert {number for number, text in told.items() if text} == set()


def test_a_method_beside_its_baseline_is_compared():
    runs = [run(objective, seed) for objective in ("grpo()", "gigpo()") for seed in (0, 1, 2)]
    found = findings(*runs)
    assert found[5].status == "told"
    assert "grpo() in grpo()-1" in found[5].told
    assert (found[6].told, found[6].missing) == ("all options are equal but the objective and the seed", "")
    assert found[7].status == "told"
    assert (found[10].told, found[10].missing) == ("3 seeds of each arm", "")
    assert "gigpo()-2: steps or turns (gigpo())" in found[3].told


def test_other_options_and_few_seeds_are_named():
    found = findings(run(), run("gigpo()", config={"lr": 1.0}))
    assert found[6].told == "options that differ: lr"
    assert found[7].status == found[10].status == "missing"
    other = findings(run(), run("gigpo()", config={"model": "larger"}))
    assert (other[5].status, other[5].missing) == ("partly", "a baseline on the same model: these have another one")


@pytest.mark.parametrize(
    ("objective", "family"),
    [
        ("turn_ppo()", "temporal difference or value"),
        ("capo()", "model-based"),
        ("igpo()", "information-theoretic"),
        ("maxrl()", "Monte Carlo"),
    ],
)
def test_the_family_follows_from_what_a_method_reads(objective, family):
    assert findings(run(objective))[4].told.startswith(family)


def test_an_objective_of_ones_own_is_no_registered_one():
    found = findings(run("my_module.mine()"))
    assert found[3].status == found[4].status == found[12].status == "missing"
    assert "my_module.mine()-0" in found[3].missing


def test_a_baseline_with_more_behind_it_is_none():
    assert findings(run("grpo() | my_stage()"), run("gigpo()"))[5].status == "missing"


def test_hours_are_sums_and_lengths_means_of_what_was_logged():
    found = findings(run(), run(seed=1))
    assert found[11].told == "2 hours of steps on CPUs, so 0 GPU-hours"
    assert (found[13].told, found[14].told) == ("15.0 tokens", "3 to 41 tokens")
    assert found[14].missing == "the median, which is not logged"
    assert findings(run(record={"machine": None}))[11].missing == "the machine"
    card = findings(run(record={"machine": {"accelerator": "H200"}}), run(seed=1, metrics=()))[11]
    assert (card.told, card.status) == ("1 hours of steps on H200", "partly")
    assert card.missing == "the time of grpo()-1, times the number of cards"


def test_hours_count_the_steps_between_entries_of_the_log():
    logged = ({"step": 10, "step_time": 180.0}, {"step": 20, "step_time": 540.0})
    assert findings(run(metrics=logged))[11].told == "2 hours of steps on CPUs, so 0 GPU-hours"


def test_parameters_are_counted_from_headers(tmp_path):
    def save(name, header):
        text = json.dumps(header).encode()
        (tmp_path / name).write_bytes(struct.pack("<Q", len(text)) + text)

    assert count_parameters(tmp_path) is None
    save("model-1.safetensors", {"__metadata__": {"format": "pt"}, "a": {"shape": [3, 4]}, "b": {"shape": []}})
    save("model-2.safetensors", {"c": {"shape": [5]}})
    save("adapter_model.safetensors", {"d": {"shape": [7]}})
    assert count_parameters(tmp_path) == 18
    (tmp_path / "model-2.safetensors").write_bytes(struct.pack("<Q", 10**12))
    assert count_parameters(tmp_path) is None
    (tmp_path / "model-2.safetensors").write_bytes(b"short")
    assert count_parameters(tmp_path) is None


def test_text_of_a_run_stays_text_in_table_and_page():
    hostile = run(config={"model": "\x1b[2J[red]<b>"})
    items = fill_checklist([hostile])
    console = Console(width=200, force_terminal=False)
    with console.capture() as shown:
        console.print(format_checklist(items))
    assert r"\x1b[2J[red]<b>" in shown.get()
    page = render_page([hostile], (), items)
    assert r"\x1b[2J[red]&lt;b&gt;" in page.partition('id="checklist"')[2]
    assert 'id="checklist"' not in render_page([hostile], ())


def test_the_command_tells_it_as_json(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("task: jsonl\nmodel: base\n")
    assert main(["report", str(tmp_path / "run"), "--checklist", "--json", "--output", str(tmp_path / "r.html")]) == 0
    told = json.loads(capsys.readouterr().out)["checklist"]
    assert [item["number"] for item in told] == list(range(1, 15))
    assert told[0] | {"missing": ""} == {
        "number": 1,
        "item": "base model: name, size, version",
        "required": True,
        "status": "partly",
        "told": "base",
        "missing": "",
    }
