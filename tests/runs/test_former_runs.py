"""Runs that an earlier version began, stopped in the middle of a generation, are gone on with.

golden/former holds two run folders written by 03be89b on a CPU, one thread, with a checkpoint after step 3 of 4: two
steps use each generation, so that the last one learns from the rollouts that the checkpoint holds. They were made by

    qredit train --task pocket-dial --coldness 1 --cpu --seed 3 --steps 4 --warmup 1 --m 4 --prompts-per-step 2
        --num-iterations 2 --save-every 3 --output run, and
    full: --objective 'garl(q=auto())' --guard roll_back
    lora: --style warm --lora --lora-r 2 --objective "add(on_span('answer', amplified_likelihood(q=0.75)),
        on_span('sampled', reward() | subtract_running_mean(0.5)))"

Local paths in them were shortened. final.safetensors are the weights after step 4, by that version.
"""

import json
import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from qredit.cli.train_command import merge_options
from qredit.engine.run_state import load_state
from qredit.runs.train import train
from tests.support.marks import e2e
from tests.support.paths import GOLDEN

pytestmark = pytest.mark.whole_tasks
FORMER = GOLDEN / "former"
RENAMED = json.loads((FORMER.parent / "renamed.json").read_text())["metrics.jsonl"]
WITHIN = 1e-3
"""Of the length of the last step. Other kernels of one CPU were seen to change it by 7e-6; leaving out the rollouts of
the checkpoint by .2 (full) and .004 (lora), the moments of the optimiser by more than 1, the state of stages by .2
(lora)."""


@pytest.mark.parametrize("name", ["full", e2e("lora")])
def test_it_goes_on_to_weights_and_records_of_former_version(name, tmp_path):
    """A copy of a former run, gone on with, against what it was."""
    former, folder = FORMER / name, tmp_path / "run"
    shutil.copytree(former, folder)
    options = merge_options({}, None, folder)
    train(options, folder, Console(quiet=True), resume=True)
    check_weights(former, folder)
    check_records(former, folder)


def check_weights(former, folder):
    name = "model.safetensors" if former.name == "full" else "adapter_model.safetensors"
    start, then = load_file(former / "checkpoint-3" / name), load_file(former / "final.safetensors")
    now = load_file(folder / "final" / name)
    assert now.keys() == then.keys()
    step = torch.cat([(then[key] - start[key]).flatten() for key in then])
    off = torch.cat([(now[key] - then[key]).flatten() for key in then])
    assert float(step.norm()) > 0
    assert float(off.norm() / step.norm()) < WITHIN


def check_records(former, folder):
    before, after = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (former, folder)
    )
    assert [line["step"] for line in after] == [line["step"] for line in before]
    for old, new in zip(before, after, strict=True):
        assert {RENAMED.get(key, key) for key in old} <= new.keys()
    assert after[:3] == before[:3]
    assert len((folder / "credit.jsonl").read_text().splitlines()) == 4
    then, now = load_state(former / "checkpoint-3"), load_state(folder / "checkpoint-4")
    assert now.keys() == then.keys() | {"prompts"}
    if former.name == "full":
        assert (folder / "decisions.jsonl").read_text() == (former / "decisions.jsonl").read_text()
        for seen in (
            lambda state: state["guide"]["controller"]["recent"],
            lambda state: state["guard"]["watch"]["recent"],
        ):
            assert len(seen(now)) == 4
            assert seen(now)[:3] == seen(then)
