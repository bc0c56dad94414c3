"""`qredit verl` says in one line what it cannot use, before Ray starts."""

from importlib.util import find_spec

import pytest

from qredit.cli import main
from qredit.engine.identified_state import FILE, write_state
from qredit.objectives.parsing import parse
from qredit.runs.options import TrainOptions
from qredit.runs.verl_data import write_verl_data
from qredit.utils.errors import QreditError
from qredit.verl import launch
from qredit.verl.checkpoint import MARKER, describe_own, find_newest_before
from qredit.verl.launch import configure, quote
from tests.support.folders import data_file, model_folder, rows
from tests.support.verl_cpu.environment import needs_verl


@pytest.fixture
def config(tmp_path):
    """A file of a run on a tiny model."""
    pytest.importorskip("omegaconf")
    from tests.support.verl_cpu.tiny_run import write_config

    data = tmp_path / "data"
    options = TrainOptions(task="jsonl", data=str(data_file(tmp_path / "own.jsonl", rows(8))), hold_out=2)
    write_verl_data(options, data)
    return write_config(tmp_path, model_folder(tmp_path / "model"), data, "grpo()")


@needs_verl
@pytest.mark.verl
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["qredit.objective=grop()"], "did you mean 'grpo'"),
        (["+qredit.objektive=1"], "unknown key of qredit 'objektive'; did you mean 'objective'?"),
        (["trainer.total_epoch=2"], "total_epoch"),
        (["actor_rollout_ref.actor.use_kl_loss=true"], "actor_rollout_ref.actor.use_kl_loss=True must be False"),
        (
            ["actor_rollout_ref.actor.use_dynamic_bsz=false"],
            "actor_rollout_ref.actor.use_dynamic_bsz must be true",
        ),
        (
            ["actor_rollout_ref.rollout.n=1"],
            "rollout.n, the rollouts of a prompt, must be at least 2",
        ),
        (["data.train_batch_size=3"], "ppo_mini_batch_size=2 must divide the data.train_batch_size=3"),
        (["data.train_files=[none.parquet]"], "no data file none.parquet"),
        (["data.max_prompt_length=2"], "prompts are longer than data.max_prompt_length=2"),
        (["data.max_response_length=4"], "data.max_response_length=4 is less than"),
        (["qredit.objective=delta()"], "delta() needs hidden, which nothing fills on verl; train it on TRL"),
        (["qredit.objective=opsd()"], "opsd() draws from a proposal, which is not done on verl"),
        (["+qredit.guard=rollback"], "unknown value of qredit.guard 'rollback'; did you mean 'roll_back'"),
        (["+qredit.guard=paft", "trainer.save_freq=1"], "guard=paft takes over from GARL, such as garl(q=0.75)"),
        (["+qredit.guard=stop"], "trainer.save_freq must be at least 1: qredit.guard goes back to earlier checkpoints"),
        (
            ["+qredit.guard=stop", "trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=2"],
            "trainer.max_actor_ckpt_to_keep must be null",
        ),
        (
            ["+qredit.guard=stop", "trainer.save_freq=1", "actor_rollout_ref.actor.checkpoint.save_contents=[model]"],
            "actor_rollout_ref.actor.checkpoint.save_contents must be model, optimizer and extra",
        ),
        (
            ["trainer.resume_mode=resume_path", "trainer.resume_from_path=/none/global_step_3"],
            "is no checkpoint of qredit",
        ),
        (["actor_rollout_ref.model.path=/none"], "no tokenizer for model '/none'"),
    ],
)
def test_what_cannot_be_used_gets_one_line(config, capsys, monkeypatch, overrides, told):
    import ray

    monkeypatch.setattr(ray, "init", lambda *a, **k: pytest.fail("Ray was started"))
    assert main(["verl", str(config), *overrides]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("qredit: ")
    assert told in said


@needs_verl
@pytest.mark.verl
@pytest.mark.parametrize(
    ("objective", "change", "told"),
    [
        ("garl(q=0.5)", {}, "was trained with garl(q=0.5), not with grpo()"),
        ("grpo()", {"model": "vocab_size 7"}, "was trained with another model (vocab_size 7, not model_type qwen3"),
        ("grpo()", {"tokenizer": "0" * 16}, "was trained with another tokenizer (0000000000000000, not "),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(config, capsys, tmp_path, objective, change, told):
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    checkpoints, model = tmp_path / "checkpoints", OmegaConf.create({"path": str(tmp_path / "model")})
    own = describe_own(model, AutoTokenizer.from_pretrained(model.path))
    write_state(checkpoints / "global_step_3", parse(objective), own | change, [])
    (checkpoints / MARKER).write_text("3")
    assert main(["verl", str(config), "trainer.resume_mode=auto"]) == 2
    assert told in capsys.readouterr().err


@needs_verl
@pytest.mark.verl
@pytest.mark.parametrize(("objective", "starts"), [("grpo() | kl_to_reference(0.04)", True), ("grpo()", False)])
def test_a_reference_worker_is_started_where_it_is_read(config, objective, starts):
    made, _ = configure(str(config), [f"qredit.objective={objective}"])
    assert made.actor_rollout_ref.actor.use_kl_loss == starts
    assert made.actor_rollout_ref.actor.entropy_coeff == 0


def test_another_verl_is_refused(monkeypatch):
    monkeypatch.setattr(launch, "version", lambda name: "0.9.2")
    with pytest.raises(QreditError, match=r"qredit verl needs verl 0\.9\.1, and 0\.9\.2 is installed"):
        launch.check_environment()


def test_trl_beside_verl_is_refused(monkeypatch):
    monkeypatch.setattr(launch, "version", lambda name: launch.VERSION)
    monkeypatch.setattr(launch, "find_spec", {"trl": object()}.get)
    with pytest.raises(QreditError, match="verl does not start where this TRL is installed"):
        launch.check_environment()
    monkeypatch.setattr(launch, "find_spec", {}.get)
    launch.check_environment()


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed")
def test_an_environment_without_verl_gets_one_line(capsys):
    assert main(["verl", "none.yaml"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "needs verl" in said
    assert "qredit[verl]" in said


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    """Ours is written first and the data's place last; steps are numbers, not texts."""
    for step, files in {2: (FILE, "data.pt"), 9: (FILE, "data.pt"), 10: (FILE, "data.pt"), 11: (FILE,)}.items():
        folder = tmp_path / f"global_step_{step}"
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    found = [find_newest_before(tmp_path, step) for step in (1, 5, 9, 10, 12)]
    assert [one and one.name for one in found] == [
        None,
        "global_step_2",
        "global_step_9",
        "global_step_10",
        "global_step_10",
    ]


def test_an_objective_needs_no_quotes_on_the_command_line():
    assert quote("+qredit.objective=nover(a='b')") == "+qredit.objective='nover(a=\\'b\\')'"
    assert quote("qredit.objective='grpo()'") == "qredit.objective='grpo()'"
    assert quote("trainer.nnodes=2") == "trainer.nnodes=2"
