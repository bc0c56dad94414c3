"""What a trainer that has no callbacks of ours writes of its steps, as `qredit report` reads it."""

import json
import math

import pytest

from qredit.callbacks.step_records import StepRecords
from qredit.engine.gathered_rows import credit_now
from qredit.engine.stage_state import StageState
from qredit.engine.step import ScoredMicrobatch
from qredit.objectives.parsing import parse
from qredit.report.collect import collect_runs
from qredit.report.write import write_report
from tests.engine.test_gathered_rows import gathered
from tests.support.tiny import tokenizer

OBJECTIVE = parse("garl(q=0.75)")


@pytest.fixture(scope="module")
def learned():
    drawn = gathered(OBJECTIVE)
    credited = credit_now(OBJECTIVE, drawn, StageState(OBJECTIVE))
    return ScoredMicrobatch(OBJECTIVE, drawn.rows, drawn.batch, credited, {}, drawn.first)


def begun(folder, step=0):
    records = StepRecords(folder, tokenizer(), steps=3)
    records.begin(step)
    return records


def write(records, steps, learned):
    for step in steps:
        records.write(step, {"reward": step / 10, "grad_norm": math.nan, "name": "left out"}, learned)


def test_a_report_is_made_of_them(tmp_path, learned):
    write(begun(tmp_path / "run"), (1, 2, 3), learned)
    (run,) = collect_runs([tmp_path / "run"])
    assert run.series("reward") == ([1, 2, 3], [0.1, 0.2, 0.3])
    assert run.metrics[0]["grad_norm"] is None
    assert "name" not in run.metrics[0]
    assert [one["step"] for one in run.credit] == [1, 2, 3]
    assert len(run.credit[0]["rollouts"]) == len(run.credit[0]["responses"]) == 3
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
    assert "garl(q=0.75)" in page


def test_a_run_that_goes_on_drops_what_its_weights_do_not_know(tmp_path, learned):
    write(begun(tmp_path), (1, 2, 3), learned)
    write(begun(tmp_path, step=1), (2,), learned)
    for name in ("metrics.jsonl", "credit.jsonl"):
        assert [json.loads(line)["step"] for line in (tmp_path / name).read_text().splitlines()] == [1, 2]


def test_a_run_that_begins_anew_keeps_former_files(tmp_path, learned):
    write(begun(tmp_path), (1, 2), learned)
    write(begun(tmp_path), (1,), learned)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert len((tmp_path / "metrics.jsonl.previous").read_text().splitlines()) == 2


def test_each_decision_is_written_once(tmp_path, learned):
    """A trainer hands all decisions on at every step; a run that goes on has those of its checkpoint."""
    made = [{"step": step, "change": "garl(q=0.5)", "reason": "told"} for step in (0, 2, 3)]
    records = begun(tmp_path)
    for step in (1, 2, 3):
        records.write(step, {}, learned, [one for one in made if one["step"] <= step])
    again = begun(tmp_path, step=2)
    again.write(3, {}, learned, made[:2])
    kept = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert kept == made[:2]
