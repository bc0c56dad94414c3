"""Curricula: what each asks, and the laws that all of them keep, seen to fail on broken ones."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from qredit.cli.main import main
from qredit.curricula import REGISTRY, mix_easier, phases, shift_tiers, success_band, tiers
from qredit.curricula._draws import Pool, count_share, draw_weighted
from qredit.curricula._tier_pools import TieredPrompts
from qredit.curricula.mix_easier import MixedPrompts
from qredit.curricula.parsing import parse_curriculum
from qredit.curricula.protocol import CurriculumData
from qredit.curricula.success_band import SuccessBandPrompts
from qredit.data.prompt_sampler import GroupStatistics
from qredit.data.statistics import summarize_rewards
from qredit.engine.run_state import STATE_FILE
from qredit.runs.curriculum import prepare_curriculum
from qredit.runs.example_filter import hash_example
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError
from tests.support.folders import SHORT, flags, model_folder
from tests.support.runs import length_reward, questions, trainer
from tests.support.tiny import model

PROMPTS, CALLED, GENERATIONS = 24, 4, 12
DATA = CurriculumData(
    prompts=PROMPTS,
    columns={
        "difficulty": [index % 3 for index in range(PROMPTS)],
        "tier": [("easy", "middle", "hard")[index % 3] for index in range(PROMPTS)],
    },
    per_generation=CALLED,
    generations=GENERATIONS,
    seed=5,
)
RULES = {
    "success_band": success_band(0.2, 0.8, unknown=0.5),
    "phases": phases("difficulty", limits=(0, 1), carried=0.3, least=0.1),
    "tiers": tiers(("easy", "middle", "hard"), weights=(1, 2, 3)),
    "shift_tiers": shift_tiers(("easy", "middle", "hard"), first=(0.8, 0.2, 0.0), last=(0.2, 0.3, 0.5)),
    "mix_easier": mix_easier(0.3),
}


def made(name, **changes):
    return RULES[name].make(replace(DATA, **changes))


def generation(sampler, n=CALLED):
    """One generation, whose rewards are a function of the prompt and of nothing else."""
    chosen = sampler.next(n)
    sampler.observe([summarize_rewards(index, [index % 5 / 4]) for index in chosen])
    return chosen


# --- laws


def check_conservation(make):
    """As many as are asked for, each a row, all different; whatever was asked for before."""
    sampler = make()
    for n in (CALLED, 1, 7, CALLED, 3, CALLED, 6):
        chosen = generation(sampler, n)
        assert len(chosen) == len(set(chosen)) == n
        assert all(type(index) is int and 0 <= index < PROMPTS for index in chosen)


def check_determinism(make):
    """Two processes ask alike, and another seed asks otherwise."""
    one, other, further = make(), make(), make(seed=6)
    asked = [generation(one) for _ in range(GENERATIONS)]
    assert asked == [generation(other) for _ in range(GENERATIONS)]
    assert asked != [generation(further) for _ in range(GENERATIONS)]


def check_resume(make):
    """From every state, through JSON, a fresh sampler goes on as the unbroken one does."""
    whole, states, asked = make(), [], []
    for _ in range(GENERATIONS):
        states.append(json.dumps(whole.state_dict()))
        asked.append(generation(whole))
    for place, state in enumerate(states):
        again = make()
        again.load_state_dict(json.loads(state))
        assert [generation(again) for _ in range(GENERATIONS - place)] == asked[place:]


LAWS = (check_conservation, check_determinism, check_resume)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", RULES)
def test_laws_of_curricula_hold(name, law):
    again = ("tiers", "shift_tiers", "mix_easier")  # their prompts come again where a part is small
    if law is check_conservation and name in again:
        big = {"prompts": PROMPTS * 9, "columns": {key: list(value) * 9 for key, value in DATA.columns.items()}}
        sampler = made(name, **big)
        assert all(len(set(generation(sampler))) == CALLED for _ in range(GENERATIONS))
    else:
        law(lambda **changes: made(name, **changes))


class Drops(SuccessBandPrompts):
    def next(self, n):
        return super().next(n)[: max(n - 1, 1)]


class Repeats(SuccessBandPrompts):
    def next(self, n):
        return super().next(1) * n


class Forgets(MixedPrompts):
    def state_dict(self):
        return super().state_dict() | {"given": 0}


class Stays(TieredPrompts):
    def load_state_dict(self, state):
        super().load_state_dict(state | {"observed": 0})


class Seedless(SuccessBandPrompts):
    def __init__(self, rule, prompts, seed):
        super().__init__(rule, prompts, 0)


def band(kind):
    return lambda seed=DATA.seed: kind(RULES["success_band"], PROMPTS, seed)


def forgetful(seed=DATA.seed):
    return Forgets(RULES["mix_easier"], range(12), range(12, 24), seed)


def stuck(seed=DATA.seed):
    parts = [range(8), range(8, 16), range(16, 24)]
    return Stays("tiers", parts, replace(DATA, seed=seed), RULES["tiers"].weigh)


@pytest.mark.parametrize(
    ("law", "mutant"),
    [
        (check_conservation, band(Drops)),
        (check_conservation, band(Repeats)),
        (check_determinism, band(Seedless)),
        (check_resume, forgetful),
        (check_resume, stuck),
    ],
)
def test_laws_of_curricula_fail_on_broken_ones(law, mutant):
    with pytest.raises(AssertionError):
        law(mutant)


def test_every_rule_has_its_laws():
    assert set(RULES) == set(REGISTRY)


# --- draws


def test_of_all_prompts_so_far_exactly_the_share_counts():
    for share in (0.3, 0.29, 0.5, 1.0, 0.1):
        given, counted = 0, 0
        for n in (4, 1, 7, 8, 80):
            counted += count_share(given, n, share)
            given += n
            assert counted == int(round(share * 100) * given // 100)


def test_a_pool_visits_all_before_any_comes_again():
    pool = Pool([3, 5, 8, 9], seed=1)
    assert sorted(pool.next(2) + pool.next(2)) == [3, 5, 8, 9]
    found = Counter(pool.next(9))
    assert set(found) == {3, 5, 8, 9}
    assert sorted(found.values()) == [2, 2, 2, 3]


def test_weighted_draws_come_as_often_as_their_weights():
    """First draws ∝ w; second ones by what is left: P(1 then 2) = 1/6 · 2/5, and so on."""
    draws = [tuple(draw_weighted([1, 2, 3], [1, 2, 3], 2, seed)) for seed in range(6000)]
    found = Counter(draws)
    for (one, two), times in found.items():
        chance = one / 6 * two / (6 - one)
        assert abs(times / 6000 - chance) < 5 * (chance * (1 - chance) / 6000) ** 0.5
    assert len(found) == 6


# --- rules


def observed(sampler, **rewards):
    groups = [GroupStatistics(int(name[1:]), reward, False) for name, reward in rewards.items()]
    sampler.observe(groups)


def test_a_band_asks_unknown_prompts_first_then_those_inside():
    sampler = success_band(0.2, 0.8).make(replace(DATA, prompts=6))
    assert sorted(sampler.next(4) + sampler.next(2)) == [0, 1, 2, 3, 4, 5]
    observed(sampler, p0=0.0, p1=0.5, p2=1.0, p3=0.25, p4=0.9, p5=None)
    assert sampler.next(1) == [5]  # scored by nobody: as unknown as before
    observed(sampler, p5=0.1)
    assert sorted(sampler.next(4)) == [1, 3, 4, 5]  # the band, and what lies 0.1 from it


def test_a_band_asks_what_it_asked_least():
    """Inside the band all are alike, whether they lie in its middle or at its end."""
    sampler = success_band(0.2, 0.8).make(replace(DATA, prompts=8, per_generation=2))
    sampler.next(8)
    observed(sampler, **{f"p{index}": (0.5, 0.2)[index % 2] for index in range(8)})
    for _ in range(3):
        assert sorted(sampler.next(2) + sampler.next(2) + sampler.next(2) + sampler.next(2)) == list(range(8))


def test_running_success_follows_by_its_rate():
    sampler = success_band(0.2, 0.8, rate=0.25).make(replace(DATA, prompts=4))
    for reward in (1.0, 0.0, 1.0):
        observed(sampler, p2=reward)
    assert sampler.success == [None, None, 1.0 * 0.75 + 0.25 * 0.25, None]


def test_a_part_of_each_call_may_stay_for_unknown_prompts():
    sampler = success_band(0.2, 0.8, unknown=0.5).make(DATA)
    generation(sampler, 12)
    assert sum(index in known(sampler) for index in sampler.next(4)) == 2


def known(sampler):
    return {index for index, success in enumerate(sampler.success) if success is not None}


def test_phases_follow_each_other_and_carry_over_what_was_hard():
    """⌊N · 0.3⌋ of N prompts from earlier phases, of which a prompt is drawn ∝ 1/max(r, least)."""
    sampler = made("phases")
    asked = [generation(sampler) for _ in range(GENERATIONS)]
    levels = [[index % 3 for index in chosen] for chosen in asked]
    assert levels[:4] == [[0] * 4] * 4
    assert [sum(level < 1 for level in one) for one in levels[4:8]] == [1, 1, 1, 1]
    assert [sum(level < 2 for level in one) for one in levels[8:]] == [2, 1, 1, 1]
    counts = Counter(index for seed in range(400) for index in carried(seed))
    assert set(counts) == {0, 3, 6}
    # weights 1/0.1, 1/0.5 and 1/1 of 13, within four standard deviations
    for index, weight in ((0, 10), (3, 2), (6, 1)):
        chance = weight / 13
        assert abs(counts[index] / 400 - chance) < 4 * (chance * (1 - chance) / 400) ** 0.5


def carried(seed):
    rule = phases("difficulty", limits=(0,), carried=0.25, least=0.1)
    sampler = rule.make(replace(DATA, seed=seed, generations=2))
    observed(sampler, p0=0.0, p3=0.5, p6=1.0, p9=None)
    return [index for index in sampler.next(CALLED) if index % 3 == 0]


def test_prompts_never_scored_are_not_carried_over():
    sampler = made("phases", generations=3)
    sampler.observe([])
    assert {index % 3 for index in sampler.next(8)} == {1}


def test_tiers_open_as_tarot_says_and_weigh_as_asked():
    four = tiers(("basic", "intermediate", "complex", "edge"))
    assert four.shares == (0, 0.2, 0.4, 0.6)
    names = [four.order[index % 4] for index in range(40)]
    data = replace(DATA, prompts=40, columns={"tier": names}, generations=10)
    sampler = four.make(data)
    opened = []
    for _ in range(10):
        opened.append(sum(map(bool, sampler.weigh(sampler.observed / sampler.generations))))
        generation(sampler)
    assert opened == [1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    sampler = replace(four, weights=(0.35, 0.35, 0.15, 0.15), begins=(0, 0.1, 0.2, 0.3)).make(data)
    sampler.observed = 10
    found = Counter(names[index] for index in sampler.next(4000))
    for name, chance in zip(four.order, (0.35, 0.35, 0.15, 0.15), strict=True):
        assert abs(found[name] / 4000 - chance) < 4 * (chance * (1 - chance) / 4000) ** 0.5


def test_probabilities_of_tiers_move_between_two_shares():
    """Along a straight line from 0.3 to 0.7 of the run; what is drawn follows them, and no other tier."""
    rule = shift_tiers(("easy", "middle", "hard"), first=(1.0, 0.0, 0.0), last=(0.2, 0.3, 0.5))
    for progress, expected in ((0, (1, 0, 0)), (0.3, (1, 0, 0)), (0.5, (0.6, 0.15, 0.25)), (0.7, (0.2, 0.3, 0.5))):
        assert rule.weigh(progress) == pytest.approx(expected)
    assert rule.weigh(1.0) == pytest.approx((0.2, 0.3, 0.5))
    sampler = rule.make(DATA)
    assert {index % 3 for index in sampler.next(40)} == {0}
    sampler.observed = GENERATIONS // 2
    found = Counter(index % 3 for index in sampler.next(4000))
    for tier, chance in enumerate((0.6, 0.15, 0.25)):
        assert abs(found[tier] / 4000 - chance) < 4 * (chance * (1 - chance) / 4000) ** 0.5


def test_easier_prompts_are_exactly_their_share():
    sampler, easier = made("mix_easier"), 0
    for count in range(1, 30):
        easier += sum(index % 3 < 2 for index in sampler.next(3))
        assert easier == 3 * count * 3 // 10
    turned = mix_easier(0.5, target=0.5, harder="smaller").make(
        replace(DATA, columns={"difficulty": [0.0, 0.5, 0.75, 1.0] * 6})
    )
    chosen = [index % 4 for index in turned.next(24)]
    assert sum(level in (2, 3) for level in chosen) == 12  # 0.75 and 1.0 are easier than 0.5


# --- refusals


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tier('easy')", "unknown curriculum 'tier'; did you mean 'tiers'"),
        ("tiers('easy')", r"order must name different tiers, as \('easy', 'hard'\), got 'easy'"),
        ("tiers(('a', 'b'), weights=(1, 0))", "weights must be 2 numbers above 0"),
        ("tiers(('a', 'b'), begins=(0, 1))", "begins must be 2 shares of the run that rise from 0 to below 1"),
        ("shift_tiers(('a', 'b'), (1, 0))", "missing 1 required"),
        ("shift_tiers(('a', 'a'), (1, 0), (0, 1))", "shift_tiers: order must name different tiers"),
        ("shift_tiers(('a', 'b'), (1, 0, 0), (0, 1))", "first must be 2 probabilities that add up to 1"),
        ("shift_tiers(('a', 'b'), (1, 0), (0.5, 0.4))", "last must be 2 probabilities that add up to 1"),
        ("shift_tiers(('a', 'b'), (1.5, -0.5), (0, 1))", "first must be 2 probabilities"),
        ("shift_tiers(('a', 'b'), (1, 0), (0, 1), begin=0.7, end=0.3)", "begin must be less than end, got 0.7 and"),
        ("success_band(0.8, 0.2)", "low must be at most high, got 0.8 and 0.2"),
        ("success_band(0.2, 0.8, rate=0)", "rate must be more than 0 and at most 1, got 0"),
        ("phases('length', (3, 2), 0.1, 0.1)", "limits must be numbers from easy to hard"),
        ("phases('length', (1, 2))", "carried"),
        ("phases('length', (1,), 0.1, 0)", "least must be more than 0"),
        ("mix_easier(1)", "share must be less than 1"),
        ("mix_easier(0.5, harder='more')", "harder must be 'larger' or 'smaller', got 'more'"),
        ("collections.Counter()", "Counter has no columns, make"),
    ],
)
def test_a_text_that_is_no_curriculum_is_refused(text, said):
    with pytest.raises(QreditError, match=said):
        parse_curriculum(text)


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        (tiers(("easy", "hard")), {}, "unknown tier of row 1 'middle'"),
        (tiers(("easy", "middle", "hard", "edge")), {}, "no row is of tier 'edge'"),
        (tiers(("easy",), by="level"), {}, "tiers reads column 'level', which the data lacks; there are: difficulty"),
        (shift_tiers(("easy", "hard"), (1, 0), (0, 1)), {}, "unknown tier of row 1 'middle'"),
        (mix_easier(0.5, by="probe.success"), {}, "mix_easier reads probe.success, a number of a probe's file; give"),
        (mix_easier(0.5, by="tier"), {}, "column 'tier' must hold numbers; row 0 has 'easy'"),
        (mix_easier(0.5, target=0), {}, "no row is easier; 'difficulty' is to be at least 0"),
        (mix_easier(0.5, target=9), {}, "no row is as hard; 'difficulty' is to be at least 9"),
        (mix_easier(0.5), {"columns": {"difficulty": [1, None] * 12}}, "12 of 24 rows have no difficulty"),
        (phases("difficulty", (0, 5), 0.1, 0.1), {}, "phase 3 has 0 of 24 prompts, fewer than the 4 of a step"),
        (tiers(("easy", "middle", "hard")), {"per_generation": 9}, "tier 'easy', alone at first, has 8 of 24 prompts"),
        (success_band(0, 1), {"prompts": 3}, "the data has 3 of 3 prompts, fewer than the 4 of a step"),
    ],
)
def test_rows_that_a_curriculum_cannot_ask_are_refused(rule, changes, said):
    with pytest.raises(QreditError, match=said):
        rule.make(replace(DATA, **changes))


# --- of a run


def examples():
    return [Example(f"What is {n}?", str(n), id=str(n)) for n in range(8)]


def probe_file(path, count=8):
    rows = [{"id": one.id, "hash": hash_example(one), "success": n / 8} for n, one in enumerate(examples()[:count])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_numbers_of_a_probe_are_columns(tmp_path):
    rule = "mix_easier(0.5, by='probe.success', target=0.25, harder='smaller')"
    options = TrainOptions(curriculum=rule, probe=probe_file(tmp_path / "probe.jsonl"))
    found, rows = prepare_curriculum(options, examples())
    assert found == parse_curriculum(rule)
    assert [row.columns["probe.success"] for row in rows] == [n / 8 for n in range(8)]
    few = replace(options, probe=probe_file(tmp_path / "few.jsonl", 6))
    with pytest.raises(
        QreditError, match=r"2 of 8 rows have no probe.success; probe them, or leave them out with keep"
    ):
        prepare_curriculum(few, examples())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"curriculum": "mix_easier(0.5)", "probe": "FILE"}, "probe needs keep, or a curriculum that reads probe"),
        ({"curriculum": "mix_easier(0.5, by='probe.success')"}, None),
        ({"curriculum": "mix_easer(0.5)"}, "unknown curriculum 'mix_easer'"),
    ],
)
def test_options_of_a_curriculum_are_looked_at_first(changes, said):
    if said is None:
        with pytest.raises(QreditError, match="reads probe.success, a number of a probe's file; give probe"):
            prepare_curriculum(TrainOptions(**changes), examples())
        return
    with pytest.raises(QreditError, match=said):
        TrainOptions(**changes)


@pytest.mark.e2e
@pytest.mark.parametrize("name", RULES)
def test_a_run_by_a_curriculum_resumes_bit_for_bit(tmp_path, name):
    data = questions(PROMPTS, **DATA.columns)
    saving = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "data": data, "prompts": RULES[name]}
    saving |= {"per_device_train_batch_size": 16, "reward_funcs": length_reward, "objective": "grpo()"}
    whole = trainer(tmp_path / "whole", **saving)
    whole.train()
    again = trainer(tmp_path / "again", network=model(seed=3), **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert again.prompts.state_dict() == whole.prompts.state_dict()
    assert whole.prompts.sampler.name == name
    assert getattr(whole.prompts.sampler, "generations", 6) == 6
    for now, then in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(now, then)


@pytest.mark.e2e
def test_the_command_asks_by_a_curriculum(tmp_path, capsys):
    task = "path-star(degree=2, length=4, nodes=10, size=40, easier=[(2, 2)])"
    given = {"task": task, "model": model_folder(tmp_path / "model"), "objective": "grpo", **SHORT}
    given |= {"output": tmp_path / "run", "curriculum": "mix_easier(0.5)", "prompts_per_step": 4, "steps": 2}
    assert main(["train", "--quiet", *flags(**given)]) == 0
    state = json.loads((tmp_path / "run" / "checkpoint-2" / STATE_FILE).read_text())
    assert state["prompts"]["sampler"]["mix_easier"]["given"] == 8
    easier = [index >= 40 for index in state["prompts"]["used"]]
    assert len(easier) == 4
    capsys.readouterr()
    given |= {"output": tmp_path / "other", "curriculum": "mix_easier(0.5, by='length')"}
    assert main(["train", "--quiet", *flags(**given)]) == 2
    said = capsys.readouterr().err
    assert "mix_easier reads column 'length', which the data lacks; there are: difficulty" in said
    assert not (tmp_path / "other").exists()
