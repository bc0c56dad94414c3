"""Metrics in other places: what reaches TensorBoard, what is refused before compute, that text breaks no logger."""

import importlib.util
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qredit.runs.train as training
from qredit import QreditError
from qredit.callbacks.metrics_file import MetricsWriter
from qredit.cli import main
from qredit.runs.folder import RunFolder
from qredit.runs.loggers import parse_report_to
from qredit.trl import QreditTrainer
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.runs import trainer

MISSING = [name for name in ("wandb", "trackio") if importlib.util.find_spec(name) is None]


def events(folder):
    """What the one event file below a folder holds."""
    (path,) = folder.rglob("events.out.tfevents*")
    found = EventAccumulator(str(path))
    found.Reload()
    return found


@pytest.mark.e2e
def test_every_number_of_metrics_jsonl_is_scalar_in_tensorboard(tmp_path, capsys):
    chosen = {
        "task": "pocket-hotpot",
        "style": "warm",
        "steps": 2,
        "m": 4,
        "prompts_per_step": 2,
        "output": tmp_path / "run",
    }
    chosen |= {"eval_every": 2, "eval_questions": 2, "eval_k": 2, "report_to": "tensorboard"}
    assert main(["train", "--quiet", "--cpu", *flags(**chosen)]) == 0, capsys.readouterr().err
    found = events(tmp_path / "run")
    for name in (
        *(
            "reward",
            "p_hat/log10_q10",
            "p_hat/log10_q50",
            "p_hat/log10_q90",
            "q",
            "effective_reward/max",
            "weights/ess",
        ),
        *("time/sample", "time/score", "time/update", "entropy", "completions/mean_length"),
    ):
        assert [event.step for event in found.Scalars(f"train/{name}")] == [1, 2], name
    kept = lines(RunFolder(tmp_path / "run").metrics)
    assert {"validation/m@2", "validation/p@1"} <= {name for entry in kept for name in entry}
    for entry in kept:
        for name, value in entry.items():
            if name != "step" and value is not None:
                at = {event.step: event.value for event in found.Scalars(f"train/{name}")}
                assert at[entry["step"]] == pytest.approx(value, rel=1e-5), name


def test_values_not_finite_and_text_break_no_logger(tmp_path, monkeypatch):
    logged, extra = QreditTrainer.log, {"decision": "q held", "none": None, "cold": -math.inf}
    monkeypatch.setattr(QreditTrainer, "log", lambda self, logs, *rest: logged(self, {**logs, **extra}, *rest))
    kept = MetricsWriter(tmp_path / "metrics.jsonl")
    trainer(tmp_path, report_to=["tensorboard"], max_steps=1, callbacks=[kept]).train()
    found = events(tmp_path)
    assert "train/none" not in found.Tags()["scalars"]
    assert found.Scalars("train/cold")[0].value == -math.inf
    (text,) = found.Tensors("train/decision/text_summary")[:1]
    assert text.tensor_proto.string_val == [b"q held"]
    first = lines(tmp_path / "metrics.jsonl")[0]
    assert (first["decision"], first["none"], first["cold"]) == ("q held", None, None)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, []),
        ("none", []),
        ([], []),
        ("tensorboard", ["tensorboard"]),
        (["tensorboard"], ["tensorboard"]),
        (" tensorboard, tensorboard", ["tensorboard", "tensorboard"]),
    ],
)
def test_services_are_a_list_or_text_with_commas(given, named):
    assert parse_report_to(given) == named


def test_all_services_are_those_installed():
    assert "tensorboard" in parse_report_to("all")
    assert not set(MISSING) & set(parse_report_to("all"))


def test_nothing_is_reported_unless_it_is_asked_for(tmp_path):
    options = training.TrainOptions(cpu=True)
    assert training.make_config(options, tmp_path).report_to == []


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("way", ["flag", "yaml"])
def test_a_service_not_installed_is_refused_before_compute(name, way, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "load_model", None)
    chosen = {
        "task": "jsonl",
        "data": data_file(tmp_path / "data.jsonl"),
        "model": model_folder(tmp_path / "model"),
        **SHORT,
    }
    (tmp_path / "options.yaml").write_text(f"report_to: [tensorboard, {name}]\n")
    words = {"report_to": f"tensorboard,{name}"} if way == "flag" else {"config": tmp_path / "options.yaml"}
    capsys.readouterr()  # the bar of a model that was saved
    assert main(["train", *flags(**chosen, **words, output=tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("qredit: report_to: ")
    assert f"pip install {name}" in said
    assert not (tmp_path / "run").exists()


def test_a_service_that_fails_otherwise_is_refused_in_one_line(monkeypatch):
    def broken(names):
        return [lambda: (_ for _ in ()).throw(RuntimeError("no key is set\nsee the manual"))]

    monkeypatch.setattr("qredit.runs.loggers.get_reporting_integration_callbacks", broken)
    with pytest.raises(QreditError, match="^report_to: no key is set$"):
        parse_report_to("wandb")
