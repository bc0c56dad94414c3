"""`qredit verl` says in one line what it cannot use, before Ray starts."""

import pytest

from qredit.cli import main
from qredit.engine.identified_state import write_state
from qredit.objectives.parsing import parse
from qredit.runs.options import TrainOptions
from qredit.runs.verl_data import write_verl_data
from qredit.verl.checkpoint import MARKER, describe_own
from qredit.verl.launch import quote
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


def test_an_objective_needs_no_quotes_on_the_command_line():
    assert quote("+qredit.objective=nover(a='b')") == "+qredit.objective='nover(a=\\'b\\')'"
    assert quote("qredit.objective='grpo()'") == "qredit.objective='grpo()'"
    assert quote("trainer.nnodes=2") == "trainer.nnodes=2"
