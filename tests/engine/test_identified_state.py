"""A run's small state in a file that says whose it is."""

import pytest
import torch

from qredit.callbacks.auto_q import AutoQ
from qredit.engine.identified_state import read_state, write_state
from qredit.engine.stage_state import StageState
from qredit.objectives.parsing import parse
from qredit.utils.errors import QreditError

MODEL = {"model": "m", "tokenizer": "t"}


def test_each_part_finds_its_own_state(tmp_path):
    objective = parse("garl(q=auto())")
    stages, guide = StageState(objective), AutoQ(objective)
    stages.pending = {"a": {"n": 1.5}}
    facts = torch.tensor([-9.0, -8.0])
    guide.begin({"p_hat": facts, "largest": facts, "ess": facts.abs()}, 4)
    write_state(tmp_path, objective, MODEL, [stages, guide])
    again = StageState(objective), AutoQ(objective)
    kept = read_state(tmp_path, objective, MODEL)
    for part in again:
        part.load_state_dict(kept[part.name])
    assert again[0].state_dict() == stages.state_dict()
    assert again[1].state_dict() == guide.state_dict()
    assert again[1].now() == guide.now()


def test_a_run_of_another_kind_is_refused(tmp_path):
    objective = parse("grpo()")
    write_state(tmp_path, objective, MODEL, [])
    for other, model, told in (
        (parse("rloo()"), MODEL, r"was trained with grpo\(\), not with rloo\(\)"),
        (objective, MODEL | {"tokenizer": "u"}, r"was trained with another tokenizer \(t, not u\)"),
    ):
        with pytest.raises(QreditError, match=told):
            read_state(tmp_path, other, model)
    with pytest.raises(QreditError, match="is no checkpoint of qredit"):
        read_state(tmp_path / "none", objective, MODEL)
