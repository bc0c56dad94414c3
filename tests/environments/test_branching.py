"""Episodes that branch: what rules decide, what branches share, and what each costs."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from random import Random

import pytest
import torch

from qredit.environments.branching import REGISTRY, balanced_turns, candidates, trees, unsure_turns
from qredit.environments.branching.candidates import compute_odds
from qredit.environments.branching.parsing import parse_branching
from qredit.environments.branching.protocol import Branch, Decision, PlayedEpisode, PlayedTurn
from qredit.environments.budget import EpisodeBudget
from qredit.environments.episode import EpisodePlayer, alike
from qredit.environments.observation import ObservationFormat
from qredit.environments.protocol import Step
from qredit.rollouts.collate import collate
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import EndReason, Role
from qredit.samplers.transformers import TransformersSampler
from qredit.utils.errors import QreditError
from tests.support import tiny
from tests.support.episodes import Counting, token_format

RULES = {
    **{name: f"{name}()" for name in REGISTRY},
    "balanced_turns": "balanced_turns(base=0.5, weight=0.2, threshold=0.4, slope=0.5)",
}
TURN = TokenBudget(thinking=6, answer=4)
NAN = math.nan


@dataclass
class CountingSampler:
    """A sampler, and how many tokens it drew."""

    inner: TransformersSampler
    drawn: int = 0
    requests: list = field(default_factory=list)

    def sync(self, model):
        pass

    def sample(self, requests, seed):
        found = self.inner.sample(requests, seed)
        self.drawn += sum(len(one.ids) for one in found)
        self.requests += requests
        return found


class Fickle(Counting):
    """Says something else each time."""

    said = 0

    def step(self, action):
        Fickle.said += 1
        return Step(f"again {Fickle.said}")


class Seeded(Counting):
    """Says its seed."""

    def reset(self, example, seed):
        self.seed = seed
        return super().reset(example, seed)

    def step(self, action):
        return replace(super().step(action), observation=f"seed {self.seed}")


class Failing(Counting):
    """Cannot be reset the third time."""

    made = 0

    def reset(self, example, seed):
        Failing.made += 1
        if Failing.made == 3:
            raise RuntimeError("lost")
        return super().reset(example, seed)


def play(rule, size, make=Counting, steps=3, seed=1, groups=1, sampler=None):
    tokens = token_format(tiny.tokenizer())
    player = EpisodePlayer(alike(make), tokens, EpisodeBudget(TURN, 4), ObservationFormat(tokens, chat=False))
    prompts = [tokens.prompt_ids(text) for text in ("where?", "what?")[:groups] for _ in range(size)]
    rows = [{"prompt": text, "steps": steps} for text in ("where?", "what?")[:groups] for _ in range(size)]
    sampler = sampler or TransformersSampler(tiny.model(), 0)
    return player.play(sampler, prompts, rows, stop_tokens=[1], seed=seed, branching=rule)


def before(one, turn):
    return [token for segment in one.segments if segment.turn < turn for token in segment.ids]


def episode(*rewards, branch=0, tree=0, new=True, ended=False, surprisals=None, failed=False):
    said = surprisals or [(1.0,)] * len(rewards)
    turns = tuple(PlayedTurn(tuple(own), reward) for own, reward in zip(said, rewards, strict=True))
    return PlayedEpisode(turns, branch, tree, new, ended, failed)


def sampled_tokens(one):
    return sum(len(segment.ids) for segment in one.segments if segment.sampled)


# --- rules


def test_trees_grow_from_each_node_alike():
    group = [
        episode(NAN, NAN, NAN, ended=True),
        episode(NAN, ended=True, tree=1),
        episode(NAN, NAN, NAN, branch=1, ended=True),
    ]
    drawn = Counter()
    for seed in range(300):
        decision = trees(nodes=2).decide(group, 4, Random(seed))
        assert len(decision.branches) == 4
        assert decision.branches[2:] == (Branch(1, 0),) * 2, "a tree of one turn has its prompt alone"
        drawn += Counter(decision.branches[:2])
    # the prompt, what stands before turns 1 and 2 of the root, and before turn 2 of its branch: each once
    assert set(drawn) == {Branch(0, 0), Branch(0, 1), Branch(0, 2), Branch(2, 2)}
    assert all(100 < count < 200 for count in drawn.values())
    assert trees().decide([episode(NAN), *group[1:]], 4, Random(0)) == Decision(), "whole episodes first"


def test_branches_of_trees_are_longer_than_rollouts():
    """The bias that the rule names, worked out: an episode goes on behind turn 0 with probability 1/2, for one turn."""
    long = Fraction(0)
    for turns in (1, 2):
        group = [episode(*[NAN] * turns, ended=True)]
        nodes = {branch for seed in range(50) for branch in trees(roots=1).decide(group, 2, Random(seed)).branches}
        for node in nodes:
            long += Fraction(1, 2) * Fraction(1, len(nodes)) * (Fraction(1, 2) if node.turn == 0 else 1)
    assert long == Fraction(5, 8)


def test_a_turn_less_sure_than_the_first_branches():
    rule = unsure_turns(weight=1.0, probability=0.5, tokens=2, copies=2)
    sure, unsure = [(2.0, 2.0), (1.4, 1.4, 9.0)], [(1.0, 1.0), (1.6, 1.6)]
    group = [
        episode(NAN, NAN, surprisals=sure),  # u + 0.6 ≤ 0.5: never
        episode(NAN, NAN, surprisals=unsure),  # u - 0.6 ≤ 0.5: always
        episode(NAN, NAN, surprisals=unsure, new=False),
        episode(NAN, NAN, surprisals=unsure, failed=True, ended=True),
        episode(NAN, surprisals=[(5.0,)]),  # a first turn has nothing before it
    ]
    for seed in range(20):
        assert rule.decide(group, 9, Random(seed)).branches == (Branch(1, 1),) * 2
        assert rule.decide(group, 1, Random(seed)).branches == (Branch(1, 1),)
    always = unsure_turns(weight=1.0, probability=1.0, tokens=2)
    assert all(always.decide(group[:1], 9, Random(seed)).branches == (Branch(0, 1),) for seed in range(20))
    half = [len(unsure_turns(weight=0.0).decide(group[:1], 9, Random(seed)).branches) for seed in range(400)]
    assert 150 < sum(half) < 250


def test_a_pilot_weighs_roots_against_branches():
    """The sheet's 16 rollouts: 8.40 and 7.60 where the tools leave the policy surer and less sure by 0.2; 9 and 8."""
    rule = balanced_turns(base=0.0, weight=0.0, threshold=1.0, slope=0.5, tokens=2)
    pilot = [(1.0, 1.0, 7.0), (0.7, 0.7), (0.9, 0.9, 7.0)]
    for said, roots in ((pilot, 9), ([pilot[0], (1.2,)], 8), (pilot[:1], 9), ([*pilot[:1], (-9e9,)], 16)):
        group = [episode(*[NAN] * len(said), surprisals=said)]
        assert rule.decide(group, 15, Random(0)) == Decision(), "it is played to its end first"
        over = [replace(group[0], ended=True)]
        assert rule.decide(over, 15, Random(0)).branches == (Branch(0, 0),) * (roots - 1)
    eager = balanced_turns(base=0.0, weight=1.0, threshold=-0.2, slope=0.5, tokens=2, copies=2)
    over = [episode(NAN, NAN, NAN, surprisals=pilot, ended=True)]
    assert eager.decide(over, 15, Random(0)).branches[8:] == (Branch(0, 2),) * 2, "its own unsure turns branch"
    assert len(eager.decide(over, 9, Random(0)).branches) == 7, "roots first, of ten: ⌊5.25⌋ + 1 with the pilot"
    lost = [replace(over[0], failed=True)]
    assert eager.decide(lost, 15, Random(0)).branches == (Branch(0, 0),) * 8


def test_branches_in_a_row_are_penalised():
    """base 0.5, penalty 0.3: 0.5, 0.35 and 0.2 over a threshold of 0.3, so every third turn does not branch."""
    rule = balanced_turns(base=0.5, weight=1.0, threshold=0.3, slope=1.0, penalty=0.3)
    even = episode(*[NAN] * 7)
    assert rule.list_branching(even) == [1, 2, 4, 5]
    sure = episode(NAN, NAN, NAN, surprisals=[(1.0,), (0.7,), (1.9,)])
    assert rule.list_branching(sure) == [2], "0.5 - 0.3 is not above 0.3"
    group = [episode(NAN, ended=True), even, episode(*[NAN] * 3), replace(sure, new=False), episode(NAN)]
    assert rule.decide(group, 9, Random(0)).branches == (Branch(2, 2),), "the seventh turn of the first is the third"
    assert rule.decide([*group, replace(group[2], failed=True)], 9, Random(0)).branches == (Branch(2, 2),)


def test_the_odds_of_candidates_are_the_papers():
    odds = compute_odds([2, 1, 0, 1.05, -2], 0.7)
    assert [one / sum(odds) for one in odds] == pytest.approx([0.506, 0.198, 0.077, 0.207, 0.012], abs=1e-3)
    assert compute_odds([1, 3, 3], 0) == [0, 1, 0]
    assert compute_odds([1, 1], 0.7) == [1, 1]


def test_one_candidate_is_gone_on_from():
    rule = candidates(k=3, temperature=0)
    group = [episode(0.0), episode(2.0), episode(NAN)]
    assert rule.decide(group, 5, Random(0)) == Decision((Branch(1, 1),) * 2, frozenset({0, 2}))
    over = [episode(0.0), episode(2.0, ended=True), episode(9.0, ended=True, failed=True)]
    assert rule.decide(over, 2, Random(0)) == Decision((Branch(1, 0),) * 2, frozenset({0})), "from the prompt again"
    lost = [episode(NAN, ended=True, failed=True)] * 3
    assert rule.decide(lost, 5, Random(0)) == Decision((Branch(0, 0),) * 3)


@pytest.mark.parametrize("rule", RULES.values())
def test_a_rule_reads_back_from_its_text(rule):
    made = parse_branching(rule)
    assert parse_branching(repr(made)) == made
    size = 6
    made.check_size(size)
    assert 1 <= made.count_roots(size) <= size


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trees(roots=0), "trees: roots must be a whole number, at least 1, got 0"),
        (lambda: trees().check_size(8), "makes 6 rollouts of a prompt"),
        (lambda: unsure_turns(share=0), "share must lie in"),
        (lambda: unsure_turns(probability=2), "probability must lie between 0 and 1, got 2"),
        (lambda: unsure_turns(weight=NAN), "weight must be a finite number"),
        (lambda: parse_branching("balanced_turns()"), "base"),
        (lambda: balanced_turns(NAN, 0, 0, 0), "balanced_turns: base must be a finite number"),
        (lambda: balanced_turns(0, 0, 0, 0, penalty=2), "penalty must lie between 0 and 1, got 2"),
        (lambda: balanced_turns(0, 0, 0, 0, copies=0), "balanced_turns: copies must be a whole number"),
        (lambda: candidates(k=1), "k must be a whole number, at least 2, got 1"),
        (lambda: candidates(temperature=-1), "temperature must be at least 0, got -1"),
        (lambda: candidates(k=5).check_size(4), "draws 5 candidates, and m, the rollouts per prompt, is 4"),
        (lambda: parse_branching("tres()"), "trees"),
        (lambda: parse_branching("tests.support.episodes.Counting()"), "makes no rule: Counting has no"),
    ],
)
def test_wrong_rules_are_refused(make, message):
    with pytest.raises(QreditError, match=message):
        make()


# --- episodes


@pytest.mark.parametrize("rule", [None, *RULES.values()])
def test_groups_are_whole_and_a_function_of_the_seed(rule):
    made = rule and parse_branching(rule)
    found = play(made, 6, groups=2)
    assert found == play(made, 6, groups=2)
    assert found != play(made, 6, groups=2, seed=2)
    assert [one.prompt for one in found] == [found[0].prompt] * 6 + [found[6].prompt] * 6
    assert all(one.tree == -1 for one in found) == (rule is None)
    for one in found:
        batch = collate([one], ("response",), 0, 0, torch.device("cpu")).batch
        assert batch.ids[0][batch.mask[0]].tolist() == list(one.ids)


def test_a_branch_shares_its_beginning_and_draws_the_rest():
    rule = trees(roots=2, nodes=3, rounds=2)
    found = play(rule, 14)
    assert [one.tree for one in found] == [0, 1, *[0] * 3, *[1] * 3, *[0] * 3, *[1] * 3]
    branched = [one for one in found if one.branch]
    assert branched
    for one in branched:
        like = [
            other
            for other in found
            if other is not one and other.tree == one.tree and before(other, one.branch) == before(one, one.branch)
        ]
        assert like, "another rollout of its tree went there"
        assert all(other.ids != one.ids for other in like), "and went on otherwise"
        assert len(one.turns) == 3, "its environment stood where the other's did"
        assert [str(turn.reward) for turn in one.turns] == ["0.0", "nan", "2.0"]
    assert {one.branch for one in found} == {0, 1, 2}


@pytest.mark.parametrize("rule", [trees(), unsure_turns(probability=1), candidates(k=3)])
def test_a_branch_costs_its_own_tokens_alone(rule):
    sampler = CountingSampler(TransformersSampler(tiny.model(), 0))
    found = play(rule, 6, sampler=sampler)
    own = sum(len(s.ids) for one in found for s in one.segments if s.logp is not None and s.turn >= one.branch)
    assert own == sampler.drawn
    trained = sum(map(sampled_tokens, found))
    assert (trained == own) == (not rule.trains_prefix)
    assert any(one.branch for one in found)


def test_what_candidates_share_is_context():
    found = play(candidates(k=3), 8)
    assert [one.end for one in found].count(EndReason.PRUNED) >= 4
    for one in found:
        assert all(segment.turn >= one.branch for segment in one.segments if segment.sampled)
        assert one.segments[-1].role == Role.ANSWER, "what nobody answers is no part of a rollout"
        assert (one.end is EndReason.PRUNED) == (not one.is_whole)
    batch = collate(found, ("response",), 0, 0, torch.device("cpu")).batch
    first = [int(batch.turn[row][batch.sampled[row]].min()) for row in range(8)]
    assert first == [one.branch for one in found]
    drawn = [s.ids for one in found for s in one.segments if s.sampled and s.role == Role.THINK]
    assert len(drawn) == len(set(drawn)), "no turn is learned from twice"


def test_what_is_left_begins_at_the_prompt():
    found = play(unsure_turns(share=0.2, probability=0, weight=0), 5)
    assert [one.branch for one in found] == [0] * 5
    assert [one.tree for one in found] == [0, 1, 2, 3, 4]
    assert len({one.ids for one in found}) == 5


def test_one_turn_cannot_branch():
    found = play(trees(), 6, steps=1)
    assert [one.branch for one in found] == [0] * 6
    assert [one.tree for one in found] == [0, 1, 0, 0, 1, 1]


def test_a_branch_has_the_luck_of_what_it_shares():
    found = play(trees(nodes=5), 12, make=Seeded)
    assert any(one.branch for one in found)
    said = [{s.ids for s in one.segments if s.role == Role.OBSERVATION} for one in found]
    assert all(len(own) == 1 for own in said), "one seed in the whole episode"
    assert len(set(map(frozenset, said))) > 2, "further roots have seeds of their own"


def test_an_environment_that_changes_its_word_is_refused():
    with pytest.raises(QreditError, match="environment Fickle says something else when the same actions are played"):
        play(trees(nodes=20), 42, make=Fickle)


def test_a_branch_that_cannot_be_reset_is_lost_alone():
    Failing.made = 0
    found = play(trees(roots=1, nodes=5), 6, make=Failing)
    assert [one.end for one in found].count(EndReason.ERROR) == 1
    assert len({one.prompt for one in found}) == 1


@dataclass(frozen=True)
class Wrong:
    """A rule that decides what there is not."""

    decision: Decision
    trains_prefix: bool = True

    def check_size(self, size):
        pass

    def count_roots(self, size):
        return 2

    def decide(self, group, free, rng):
        return self.decision


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (Decision((Branch(0, 0),) * 3), "named 3 branches, and 2 are free"),
        (Decision((Branch(2, 0),)), "which no episode of the group came to"),
        (Decision((Branch(0, 2),)), "which no episode of the group came to"),
        (Decision(pruned=frozenset({7})), "pruned episode 7 of 2"),
    ],
)
def test_a_rule_that_decides_wrongly_is_named(decision, message):
    with pytest.raises(QreditError, match=message):
        play(Wrong(decision), 4)
