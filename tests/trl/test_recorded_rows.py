"""The file of rollouts and first steps that a run on verl is held against is what the TRL adapter gives today."""

import pytest

from tests.support import recorded_rows
from tests.support.marks import e2e


def without_logp(one):
    """What another machine's rounding does not change."""
    return one.prompt, one.ids, one.golds, one.reward


ALSO = ("grpo()", "reinforce_pp() | entropy_bonus(0.01)")
"""Those that another one stands for in `make test`."""


@pytest.mark.parametrize("objective", [e2e(one) if one in ALSO else one for one in recorded_rows.OBJECTIVES])
def test_the_recorded_first_steps_are_todays(tmp_path, objective):
    kept = recorded_rows.read()
    rollouts, loss, norm = recorded_rows.record(objective, tmp_path, kept["questions"])
    now, then = ([recorded_rows.from_text(text, 0) for text in texts] for texts in (rollouts, kept["rollouts"]))
    assert [without_logp(one) for one in now] == [without_logp(one) for one in then]
    assert loss == pytest.approx(kept["steps"][objective]["loss"], rel=1e-5, abs=1e-6)
    assert norm == pytest.approx(kept["steps"][objective]["grad_norm"], rel=1e-5)
