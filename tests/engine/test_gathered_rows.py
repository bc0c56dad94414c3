"""A step whose sequences lie in other processes: rows in one order, credit over all of them."""

from dataclasses import replace

import pytest
import torch

from qredit.engine.gathered_rows import credit_before, credit_now, gather_rollouts, iterate_updates
from qredit.engine.rollout_bytes import to_bytes
from qredit.engine.scorer import Scorer
from qredit.engine.sequences import list_sequences
from qredit.engine.stage_state import StageState
from qredit.objectives.parsing import parse
from qredit.rollouts.collate import choose_tails
from qredit.rollouts.trajectory import make_one_turn
from qredit.utils.errors import QreditError


def made(objective, names=("z", "a"), m=3):
    """Bytes and keys of rollouts of two prompts, whose keys stand the other way round than their places in the data."""
    packed, keys = {}, []
    for place, name in enumerate(names):
        for number in range(m):
            one = make_one_turn(
                (1, place + 2), range(10, 14 + number), [-0.5] * (4 + number), 2, 3, forced=False, ended=True
            )
            whole = replace(one, golds=((30, 31 + place),), reward=float(number == place))
            packed[f"{name}_{number}"] = to_bytes(whole, place)
            count = len(list_sequences(whole, choose_tails(objective.needs)))
            keys += [f"{name}_{number}_{sequence}" for sequence in range(count)]
    return packed, keys


def gathered(objective, shift=0.0, **changes):
    """Their rows, each token scored by its id."""
    packed, keys = made(objective, **changes)
    tails = choose_tails(objective.needs)
    found = gather_rollouts(dict(reversed(packed.items())), keys[::-1], tails, 0, first=5, seed=1)
    return found.attach(told(found, shift), scorer(objective))


def told(found, shift):
    values = {
        key: -place.read(found.rows.batch.ids).float() / 10 - shift
        for key, place in zip(found.keys, found.places, strict=True)
    }
    return {"logp": values, "entropy": {key: -value for key, value in values.items()}}


def scorer(objective):
    device = torch.device("cpu")
    return Scorer(objective.needs, choose_tails(objective.needs), 1.0, None, lambda: None, device, lambda: 0.0)


def test_rows_stand_as_their_prompts_do_in_the_data():
    found = gathered(parse("garl(q=0.75)"))
    assert found.batch.group.tolist() == [5, 5, 5, 6, 6, 6]
    assert [key[0] for key in found.keys] == ["z"] * 3 + ["a"] * 3
    assert found.rows.prompt_ids[:, -1].tolist() == [2, 2, 2, 3, 3, 3]
    assert [one.group for one in found.first] == [5, 5, 5]
    expected = torch.where(found.batch.mask, -found.batch.ids.float() / 10, 0.0)
    torch.testing.assert_close(found.batch.logp, expected)


def test_sequences_that_are_missing_are_counted():
    objective = parse("grpo()")
    packed, keys = made(objective)
    with pytest.raises(QreditError, match="rollouts of 6 sequences were sampled, and 5 sequences came"):
        gather_rollouts(packed, keys[1:], ("response",), 0, first=0, seed=0)


@pytest.mark.parametrize("text", ["garl(q=0.75)", "grpo()", "reinforce_pp()", "kl_cov()"])
def test_parts_of_whole_groups_are_credited_as_in_the_whole(text):
    """A part has its own groups' rows and keys; what looks at groups alone credits them as it does all rows."""
    objective = parse(text).at(0.0)
    found = gathered(objective)
    parts = found.split(1)
    assert [set(part.batch.group.tolist()) for part in parts] == [{5}, {6}]
    assert [key for part in parts for key in part.keys] == list(found.keys)
    stages = StageState(objective)
    whole = credit_now(objective, found, stages).value
    each = torch.cat([credit_now(objective, part, stages).value for part in parts])
    assert torch.equal(whole, each) == (text in ("garl(q=0.75)", "grpo()", "kl_cov()"))


@pytest.mark.parametrize(("text", "known"), [("garl(q=0.75)", False), ("grpo()", True), ("reinforce_pp()", False)])
def test_rewards_are_credited_before_the_first_update(text, known):
    objective = parse(text).at(0.0)
    found = gathered(objective)
    parts = found.split(1) * 2
    fixed = credit_before(objective, found, parts, StageState(objective))
    assert (fixed is not None) == known
    if fixed is not None:
        assert all(torch.equal(fixed[n].value, objective.evaluate(parts[n].batch).value) for n in range(4))


def test_later_updates_compare_with_the_weights_that_sampled():
    objective = parse("garl(q=0.75)")
    found = gathered(objective)
    assert found.batch.sampler_logp is None
    moved = found.attach(told(found, shift=0.25), scorer(objective), off_policy=True)
    torch.testing.assert_close(moved.batch.sampler_logp, found.batch.logp)
    there = found.batch.mask
    torch.testing.assert_close(moved.batch.logp[there], found.batch.logp[there] - 0.25)
    assert torch.equal(found.move_off_policy().batch.sampler_logp, found.batch.logp)


def test_groups_with_failed_sessions_are_counted():
    objective = parse("garl(q=0.75)")
    assert gathered(objective).count_complete(3) == 2
    packed, keys = made(objective)
    lost = {key: data for key, data in packed.items() if key != "z_1"}
    tails = choose_tails(objective.needs)
    short = gather_rollouts(lost, [key for key in keys if not key.startswith("z_1_")], tails, 0, first=0, seed=0)
    assert short.count_complete(3) == 1


@pytest.mark.parametrize(("text", "rescored"), [("garl(q=0.75)", [1, 2, 3]), ("grpo()", [])])
def test_later_updates_that_follow_the_policy_are_scored_anew(text, rescored):
    """Two mini-batches, twice: four updates."""
    objective = parse(text).at(0.0)
    found, asked = gathered(objective), []
    parts = found.split(1) * 2

    def rescore(number):
        asked.append(number)
        return told(parts[number], 0.25)

    taken = list(iterate_updates(objective, found, parts, StageState(objective), scorer(objective), rescore))
    assert asked == rescored
    assert [part.keys for part, _ in taken] == [part.keys for part in parts]
    there = parts[1].batch.mask
    moved = taken[1][0].batch.logp[there] - parts[1].batch.logp[there]
    assert torch.allclose(moved, torch.tensor(-0.25 if rescored else 0.0))
    assert torch.equal(taken[1][0].batch.sampler_logp, parts[1].batch.logp)
