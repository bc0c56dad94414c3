"""Branches behind unsure places: which places, what is taken over, what a branch is distributed as."""

import itertools
from dataclasses import replace

import pytest
import torch

from qredit.drawing import branch_at_entropy
from qredit.drawing.branch_at_entropy import begin_as, find_unsure_places
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.utils.errors import QreditError

WORDS = {0: "<pad>", 1: "well", 2: "so", 3: " a ", 4: "then", 5: "no", 9: "answer"}


class Words:
    """A tokenizer of whole words."""

    all_special_ids = (0,)

    @staticmethod
    def decode(ids):
        return "".join(WORDS[token] for token in ids)


def rollout(*ids, prompt=0):
    think = Segment(ids, Role.THINK, sampled=True, logp=(-1.0,) * len(ids))
    answer = Segment((9,), Role.ANSWER, sampled=True, logp=(-1.0,))
    return Trajectory((prompt,), (think, answer), EndReason.ANSWER)


def test_places_are_those_of_high_entropy_that_say_something():
    """Not the first, not a special token, not a letter, not the answer; earlier ones first where two are equal."""
    root = rollout(1, 2, 0, 3, 4, 5)
    entropy = [9.0, 0.5, 8.0, 7.0, 0.5, 0.1, 6.0]
    assert find_unsure_places(root, entropy, 20, Words) == [1, 4, 5]
    assert find_unsure_places(root, entropy, 2, Words) == [1, 4]
    assert find_unsure_places(rollout(1, 0, 3), entropy, 2, Words) == []
    assert find_unsure_places(rollout(), [1.0], 2, Words) == []


def test_a_beginning_is_context_alone():
    begun = begin_as(rollout(1, 2, 4), 2)
    assert begun.segments == (Segment((1, 2), Role.THINK, sampled=False),)
    assert begin_as(rollout(1, 2, 4), 0).segments == ()


class Tree:
    """Rationales of three tokens, of which the second is unsure; `go_on` notes where it began."""

    seed, tokenizer = 3, Words

    def __init__(self):
        self.told, self.begun, self.scored = {}, [], None

    def draw(self, rows, part=0, temperature=None):
        return [rollout(1, 2 if n % 2 else 5, 4, prompt=row) for n, row in enumerate(rows)]

    def measure_entropy(self, drawn):
        return [[0.1, 2.0, 0.2, 0.0] for _ in drawn]

    def go_on(self, beginnings, part):
        assert part == 1
        self.begun = beginnings
        return [
            replace(rollout(*one.ids, 5, prompt=one.prompt[0]), reward=float(n)) for n, one in enumerate(beginnings)
        ]

    def score(self, drawn, rows, m, apart=False):
        assert not apart
        self.scored = (list(rows), m)
        return list(drawn)

    def gather(self, values):
        return values

    def log(self, name, value):
        self.told[name] = value


def test_a_group_is_first_rollouts_then_their_branches():
    tree = Tree()
    found = branch_at_entropy(first=2, branches=3, top=1).draw([7, 8], 8, tree)
    assert [one.prompt[0] for one in found] == [7] * 8 + [8] * 8
    assert tree.scored == ([7] * 8 + [8] * 8, 8)
    assert [one.ids for one in tree.begun] == [(1,)] * 12
    assert [one.reward for one in found[2:8]] == [0, 1, 2, 3, 4, 5]
    assert [one.reward for one in found[10:]] == [6, 7, 8, 9, 10, 11]
    assert tree.told == {"drawing/kept": 1.0, "drawing/entropy": 2.0}


def test_a_place_is_drawn_uniformly_and_by_the_seed():
    rule, counts = branch_at_entropy(first=2, branches=1), torch.zeros(3)
    for seed in range(300):
        tree = Tree()
        tree.seed = seed
        rule.draw([0], 4, tree)
        for one in tree.begun:
            counts[len(one.ids)] += 1
        again = Tree()
        again.seed = seed
        rule.draw([0], 4, again)
        assert [one.ids for one in again.begun] == [one.ids for one in tree.begun]
    assert counts[0] == 0
    assert abs(float(counts[1]) - 300) < 4 * 300**0.5  # four standard deviations of 600 fair draws are 49


# --- by enumeration: rationales of two tokens, the second one unsure behind token 1 and sure behind token 2

FIRST, SECOND = {1: 0.3, 2: 0.7}, {1: {4: 0.5, 5: 0.5}, 2: {4: 1.0}}


def expected_branches():
    """P(tokens) of a branch: its rollout's first token, and the second drawn anew."""
    found = dict.fromkeys(itertools.product((1, 2), (4, 5)), 0.0)
    for a, b in found:
        chance = FIRST[a] * SECOND[a].get(b, 0.0)
        place = find_unsure_places(rollout(a, b), [0.6, 0.7 if a == 1 else 0.0, 0.0], 20, Words)
        assert place == [1]
        begun = begin_as(rollout(a, b), place[0]).ids
        for c, drawn in SECOND[a].items():
            found[(*begun, c)] += chance * drawn
    return found


def test_behind_one_place_a_branch_is_drawn_as_a_rollout():
    """With as many places as rollouts have, all of one length, its mean is the policy's: nothing is chosen by luck."""
    for (a, b), chance in expected_branches().items():
        assert chance == pytest.approx(FIRST[a] * SECOND[a].get(b, 0.0))


def test_places_chosen_by_what_was_drawn_bias_branches():
    """Token 3 says nothing, so a rollout with it has one place less: from another length on the law is not kept.

    Rationales (2, 3, 4) and (2, 4, 4) are equally likely. Behind the first only place 2 is left, so its letter stays in
    every branch; behind the second a place is 1 or 2, and the branch draws letter or word anew with 1/2 each.
    """
    share = 0.0
    for b in (3, 4):
        places = find_unsure_places(rollout(2, b, 4), [0.0, 0.7, 0.7, 0.0], 20, Words)
        for place in places:
            keeps = [b] if place == 2 else [3, 4]
            share += 0.5 / len(places) * keeps.count(3) / len(keeps)
    assert share == pytest.approx(0.5 + 0.25 * 0.5)


@pytest.mark.parametrize("name", ["first", "branches", "top"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(QreditError, match=f"branch_at_entropy: {name}"):
        branch_at_entropy(**{name: 0})


def test_groups_of_another_size_are_refused():
    branch_at_entropy().check_size(16)
    with pytest.raises(QreditError, match="draws 16 rollouts of a prompt"):
        branch_at_entropy().check_size(8)
