"""Entropy held by good rollouts of another temperature: which are drawn, which make room, and what that adds."""

import importlib
import itertools
import math
from dataclasses import dataclass, field, replace

import pytest
import torch

from qredit.drawing import hold_entropy
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.utils.errors import QreditError

holding = importlib.import_module("qredit.drawing.hold_entropy")  # the package's name is that of the rule
M = 2
ROWS = [{"number": number} for number in range(4)]
NAT = math.log(0.5)


def rollout(token, row, logp=NAT, length=2):
    segment = Segment((token,) * length, Role.ANSWER, sampled=True, logp=(logp,) * length)
    return Trajectory((row,), (segment,), EndReason.ANSWER)


@dataclass
class Draws:
    """Hands out tokens that are given, by part; a rollout of token t earns t, or what `earns` says."""

    parts: dict
    logp: float = NAT
    seed: int = 0
    tokenizer: object = None
    asked: list = field(default_factory=list)
    told: dict = field(default_factory=dict)
    others: tuple = ()

    def draw(self, rows, part=0, temperature=None):
        self.asked.append((part, temperature, [row["number"] for row in rows]))
        tokens = self.parts[part]
        assert len(tokens) == len(rows)
        drawn = [rollout(token, row["number"], self.logp) for token, row in zip(tokens, rows, strict=True)]
        return drawn if temperature is None else [replace(one, segments=blind(one)) for one in drawn]

    def score(self, drawn, rows, m, apart=False):
        self.asked.append(("apart" if apart else "scored", len(drawn)))
        first = 100 if apart else 7
        return [replace(one, reward=float(one.ids[0]), group=first + at // m) for at, one in enumerate(drawn)]

    def gather(self, values):
        return [*values, *self.others] if isinstance(values[0], tuple) else values

    def log(self, name, value):
        self.told[name] = value


def blind(one):
    return tuple(replace(segment, logp=None) for segment in one.segments)


def held(tools, target=0.5, **changes):
    rule = hold_entropy(target, **({"share": 0.5, "most": 1.0} | changes))
    return rule.draw(ROWS, M, tools)


PLAIN, AGAIN = (1, 0, 0, 1, 0, 0, 1, 1), (0, 1, 1, 0)


def check_replaced():
    """ln 2 nats are above a target of 0.5: cold, and half of the two good ones."""
    tools = Draws({0: PLAIN, 1: AGAIN})
    found = held(tools)
    assert tools.asked[0] == (0, None, [0, 0, 1, 1, 2, 2, 3, 3])
    assert tools.asked[2:] == [(1, 0.8, [0, 0, 1, 1]), ("apart", 4)]
    assert [one.reinforced for one in found] == [False, True] + [False] * 6
    assert [one.group for one in found] == [7, 7, 8, 8, 9, 9, 10, 10]
    assert [one.prompt for one in found] == [(n // M,) for n in range(8)]
    assert math.isnan(found[1].reward)
    assert found[1].ids == (1, 1)
    assert found[1].logp == (0.0, 0.0)
    assert [one.reward for place, one in enumerate(found) if place != 1] == [1, 0, 1, 0, 0, 1, 1]
    assert tools.told == pytest.approx(
        {"entropy/target": 0.5, "drawing/entropy": -NAT, "drawing/temperature": 0.8, "drawing/rows": 1}
    )
    below = Draws({0: PLAIN, 1: AGAIN})
    assert [one.reinforced for one in held(below, 0.7)] == [False, True, True, False] + [False] * 4
    assert below.told["drawing/temperature"] == 1.2
    exact = Draws({0: PLAIN, 1: AGAIN}, logp=-0.5)
    held(exact, 0.5)
    assert exact.told["drawing/temperature"] == 1.2


def test_good_rollouts_take_places_of_plain_ones():
    check_replaced()


def worst(drawn, m):
    return [place for place, one in enumerate(drawn) if one.reward == 0]


def of_the_other_sign(drawn, tools):
    return -ESTIMATE(drawn, tools)


def with_its_reward(plain, other, chosen):
    return [replace(one, reward=1.0) if one.reinforced else one for one in PUT_IN(plain, other, chosen)]


def in_its_own_group(plain, other, chosen):
    return [replace(one, group=100) if one.reinforced else one for one in PUT_IN(plain, other, chosen)]


ESTIMATE, PUT_IN = holding.estimate_entropy, holding.put_in
BROKEN = {
    "bad ones are kept": ("find_good", worst),
    "no threshold": ("LEAST_ADVANTAGE", -9.0),
    "the temperature of the other side": ("estimate_entropy", of_the_other_sign),
    "it is compared with its group": ("put_in", with_its_reward),
    "it is in another group": ("put_in", in_its_own_group),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_noticed(name, monkeypatch):
    monkeypatch.setattr(holding, *BROKEN[name])
    with pytest.raises(AssertionError):
        check_replaced()


def test_nothing_good_leaves_the_plain_rollouts():
    found = held(Draws({0: PLAIN, 1: (1, 1, 0, 0)}), 0.7)
    assert [one.ids[0] for one in found] == [*PLAIN]
    assert not any(one.reinforced for one in found)


@pytest.mark.parametrize(("most", "replaced"), [(0.124, 0), (0.125, 1), (0.25, 2), (1.0, 2)])
def test_most_is_a_share_of_all_rollouts(most, replaced):
    found = held(Draws({0: PLAIN, 1: AGAIN}), 0.7, most=most)
    assert sum(one.reinforced for one in found) == replaced
    assert len(found) == len(PLAIN)


def test_the_entropy_is_that_of_all_processes():
    tools = Draws({0: PLAIN, 1: AGAIN}, others=((160.0, 16),))
    held(tools)
    assert tools.told["drawing/entropy"] == pytest.approx((16 * -NAT + 160) / 32)


# --- by enumeration: one prompt, two rollouts of one token, the right ones 1 and 2


def worlds(temperature):
    """Every outcome of both draws with its probability; tokens 0, 1 and 2 have probabilities 0.2, 0.7 and 0.1."""
    plain = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    other = (plain.log() / temperature).softmax(0)
    for tokens in itertools.product(range(3), repeat=2 * M):
        chances = [plain[t] for t in tokens[:M]] + [other[t] for t in tokens[M:]]
        yield tokens, float(torch.stack(chances).prod())


def expected(temperature):
    """The mean number of each token among plain rollouts that stay, and among those put in."""
    stay, put = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for tokens, chance in worlds(temperature):
        tools = Draws({0: tokens[:M], 1: tokens[M:]})
        tools.score = lambda drawn, rows, m, apart=False: [replace(o, reward=float(o.ids[0] > 0)) for o in drawn]
        changes = {"low": temperature} if temperature < 1 else {"high": temperature}
        rule = hold_entropy(0.1 if temperature < 1 else 9.0, share=1.0, most=1.0, **changes)
        for one in rule.draw(ROWS[:1], M, tools):
            (put if one.reinforced else stay)[one.ids[0]] += chance
    return stay, put


def test_rollouts_that_stay_are_draws_of_the_policy():
    stay, _ = expected(1.2)
    torch.testing.assert_close(stay / stay.sum(), torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64))


def spare_the_best(plain, other, chosen):
    """A mutant: the plain rollouts that earned least make room."""
    worst_first = sorted(range(len(plain)), key=lambda place: plain[place].reward)
    moved = dict(zip(worst_first, chosen, strict=False))
    return [replace(other[moved[place]], reward=math.nan) if place in moved else one for place, one in enumerate(plain)]


def test_sparing_good_plain_rollouts_would_be_biased(monkeypatch):
    monkeypatch.setattr(holding, "put_in", spare_the_best)
    stay, _ = expected(1.2)
    assert abs(float((stay / stay.sum())[0]) - 0.2) > 0.01


def added_step(temperature):
    """The mean of Σ ∇log p over the rollouts put in, in the logits of the three tokens."""
    _, put = expected(temperature)
    policy = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    return put - put.sum() * policy


@pytest.mark.parametrize("temperature", [0.8, 1.2])
def test_what_is_added_is_the_formula_at_its_temperature(temperature):
    """Of two rollouts one is good where the other is wrong: 2 p_T(v) p_T(0) of each right v. Cold, 1 // 2 stay."""
    p, policy = (torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64) for _ in range(2))
    p = (p.log() / temperature).softmax(0)
    put = 2 * p[0] * p.index_fill(0, torch.tensor([0]), 0.0) * (temperature > 1)
    torch.testing.assert_close(added_step(temperature), put - put.sum() * policy)


def entropy_slope(step):
    """How the entropy moves along a step of the logits: -Σ p (log p + H) step."""
    p = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    return float(-(p * (p.log() - (p * p.log()).sum()) * step).sum())


def test_hot_rollouts_raise_entropy_more_than_cold_ones():
    """Per rollout put in: at temperature T its token is v with p_T(v) / Σ over the right ones."""

    def of(temperature):
        policy = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
        p = (policy.log() / temperature).softmax(0).index_fill(0, torch.tensor([0]), 0.0)
        return entropy_slope(p / p.sum() - policy)

    assert of(1.2) > of(1.0) > of(0.8)
    torch.testing.assert_close(entropy_slope(added_step(1.2)) / float(expected(1.2)[1].sum()), of(1.2))


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"target": 0.0}, "target must be more than 0 nats, got 0.0"),
        ({"target": "half"}, "target must be more than 0 nats, got 'half'"),
        ({"target": 0.5, "low": 1.0}, "0 < low < 1 < high, got low=1.0, high=1.2"),
        ({"target": 0.5, "share": 0.0}, "share must lie in (0, 1], got 0.0"),
        ({"target": 0.5, "most": 1.5}, "most must lie in (0, 1], got 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, said):
    with pytest.raises(QreditError) as refused:
        hold_entropy(**arguments)
    assert said in str(refused.value)


def test_a_target_that_no_distribution_has_is_refused():
    hold_entropy(math.log(300) - 1e-6).check_vocabulary(300)
    with pytest.raises(QreditError, match=r"not below log V = 5.704"):
        hold_entropy(math.log(300)).check_vocabulary(300)
