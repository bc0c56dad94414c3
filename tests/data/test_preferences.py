"""Preference pairs: which two completions of a prompt make one, by hand; what is left out is counted."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from qredit.data.completions import Completion, CompletionGroup, group_by_prompt
from qredit.data.preferences import PairCounts, PreferencePair, describe_left_out, make_pairs
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory


def completion(name, reward):
    return Completion((name,), (True,), reward)


def group(prompt, **rewards):
    """A group whose completions are the letters a, b, …, as ids."""
    return CompletionGroup((prompt,), tuple(completion(ord(name), reward) for name, reward in rewards.items()))


def told(pairs):
    """Prompt, chosen and rejected of each, as they were named."""
    return [(one.prompt_ids[0], chr(one.chosen.ids[0]), chr(one.rejected.ids[0])) for one in pairs]


def test_the_widest_margins_of_each_prompt_are_taken_first():
    """By hand: of prompt 1 the margins are ac 1, ab .7, bc .3; of prompt 2 de .6."""
    groups = [group(1, a=1.0, b=0.3, c=0.0), group(2, d=0.6, e=0.0)]
    expected = [(1, "a", "c"), (1, "a", "b"), (1, "b", "c"), (2, "d", "e")]
    for count, kept in ((1, [0, 3]), (2, [0, 1, 3]), (3, [0, 1, 2, 3]), (9, [0, 1, 2, 3])):
        assert told(make_pairs(groups, count, 0.2, seed=0)[0]) == [expected[place] for place in kept]
    assert told(make_pairs(groups, 9, 0.65, seed=0)[0]) == expected[:2]


def test_a_margin_is_reached_within_rounding():
    assert 0.7 - 0.2 < 0.5
    assert told(make_pairs([group(1, a=0.7, b=0.2)], 1, 0.5, seed=0)[0]) == [(1, "a", "b")]
    assert make_pairs([group(1, a=0.7, b=0.201)], 1, 0.5, seed=0)[0] == []


@pytest.mark.parametrize("seed", range(8))
def test_equal_margins_spread_over_the_completions(seed):
    """Two right, three wrong, six pairs of one margin: three pairs hold each wrong one once and each right one."""
    made, _ = make_pairs([group(1, a=1, b=1, c=0, d=0, e=0)], 3, 0.5, seed)
    chosen, rejected = (Counter(pair[side] for pair in told(made)) for side in (1, 2))
    assert sorted(rejected.values()) == [1, 1, 1]
    assert sorted(chosen.values()) == [1, 2]


def test_what_is_taken_is_a_function_of_the_seed():
    """Sixteen pairs of one margin: eight seeds do not all take the same one, and each takes its own again."""
    wide = [group(1, a=1, b=1, c=1, d=1, e=0, f=0, g=0, h=0)]
    first = [told(make_pairs(wide, 1, 0.5, seed)[0]) for seed in range(8)]
    assert first == [told(make_pairs(wide, 1, 0.5, seed)[0]) for seed in range(8)]
    assert len({tuple(one) for one in first}) > 2


def test_what_is_left_out_is_counted():
    """By hand: prompt 1 all right, 2 all wrong, 3 too close, 4 one scored of two, 5 the same tokens twice, 6 a pair."""
    same = CompletionGroup((5,), (completion(1, 1.0), completion(1, 0.0)))
    groups = [
        *(group(1, a=1, b=1), group(2, a=0, b=0), group(3, a=0.4, b=0.1)),
        *(group(4, a=1, b=math.nan), same, group(6, a=1, b=0)),
    ]
    made, counts = make_pairs(groups, 2, 0.5, seed=0)
    assert told(made) == [(6, "a", "b")]
    assert counts == PairCounts(6, 12, unscored=1, all_equal=3, too_close=1, same_ids=1, pairs=1)
    assert describe_left_out(counts, 0.5) == [
        "3 of 6 prompts have one reward for all their rollouts and give no pair",
        "1 prompts have no two rollouts whose rewards differ by 0.5 and give no pair",
        "1 rollouts have no reward and stand in no pair",
        "1 pairs would hold the same tokens twice and are left out",
    ]


def test_groups_of_one_prompt_are_one_group():
    """A prompt that came in two epochs: its right rollout of the first is paired with the wrong one of the second."""
    made, counts = make_pairs([group(1, a=1), group(2, a=1), group(1, a=1, b=0), group(1, b=0)], 9, 0.5, seed=0)
    assert told(made) == [(1, "a", "b")]
    assert (counts.prompts, counts.completions) == (2, 3)


def test_marks_of_drawn_tokens_survive_a_file():
    drawn = Trajectory(
        prompt=(7, 8),
        segments=(
            Segment((1, 2), Role.THINK, sampled=True),
            Segment((3,), Role.CLOSE, sampled=False),
            Segment((4, 5), Role.ANSWER, sampled=True),
        ),
        end=EndReason.ANSWER,
        reward=1.0,
    )
    other = Trajectory((9,), (Segment((6,), Role.ANSWER, sampled=True),), EndReason.CAP)
    first, second = group_by_prompt([drawn, replace(other, end=EndReason.PRUNED), other])
    assert first == CompletionGroup((7, 8), (Completion((1, 2, 3, 4, 5), (True, True, False, True, True), 1.0),))
    record = first.as_record()
    assert record["completions"] == [{"ids": [1, 2, 3, 4, 5], "sampled": [[0, 2], [3, 5]], "reward": 1.0}]
    assert CompletionGroup.from_record(record) == first
    (alone,) = second.as_record()["completions"]
    assert alone["reward"] is None
    assert math.isnan(CompletionGroup.from_record(second.as_record()).completions[0].reward)
    pair = PreferencePair((7, 8), first.completions[0], completion(3, 0.0))
    assert PreferencePair.from_record(pair.as_record()) == pair
    assert pair.length == 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": [1, -1]}, "token ids must be"),
        ({"ids": [True, 2]}, "token ids must be"),
        ({"ids": "12"}, "token ids must be"),
        ({"sampled": [[0, 3]]}, "names tokens that are none of the 2"),
        ({"sampled": [[1, 0]]}, "names tokens that are none of the 2"),
        ({"sampled": [0, 1]}, r"must be a list of \[start, end\)"),
        ({"sampled": None}, r"must be a list of \[start, end\)"),
        ({"reward": "1"}, "reward must be a finite number or null"),
        ({"reward": math.inf}, "reward must be a finite number or null"),
    ],
)
def test_records_of_something_else_are_refused(changes, words):
    record = {"ids": [1, 2], "sampled": [[0, 2]], "reward": 0.5} | changes
    with pytest.raises(ValueError, match=words):
        Completion.from_record(record)
    with pytest.raises(ValueError, match=words):
        CompletionGroup.from_record({"prompt_ids": [1], "completions": [record]})
    with pytest.raises(ValueError, match=words):
        PreferencePair.from_record({"prompt_ids": [1], "chosen": record, "rejected": record})
