"""The right answer behind each step of a rationale: one pass has the entropies that separate passes have."""

from dataclasses import replace

import pytest
import torch

from qredit.engine.answer_after_steps import StepTrack, score_answer_after_steps
from qredit.probe.steps import interpolate, summarize_tracks
from qredit.rewards.judge.steps import decode_pieces, join_step_texts, number_sentences
from qredit.rollouts.format import encode
from qredit.rollouts.trajectory import make_one_turn
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.patch_forward import score
from qredit.shared_prefix.share import share_prefix
from tests.support.tiny import model, tokenizer

CLOSE, PAD, CPU = (90, 91), 0, torch.device("cpu")
GOLD = (11, 12, 13)


def rollout(group, thought, closing, forced):
    ids, start, end = [*thought, *closing, 14, 1], len(thought), len(thought) + len(closing)
    made = make_one_turn((30, 31 + group), ids, [0.0] * len(ids), start, end, forced=forced, ended=True)
    return replace(made, golds=(GOLD, (15,)), group=group)


ROLLOUTS = [
    rollout(0, (20, 21, 22, 23, 24), CLOSE, True),
    rollout(0, (25, 26), (92,), False),
    rollout(1, (), CLOSE, True),
]
STEPS = [[0, 0, 1, 2, 2], [0, 0], []]


@torch.no_grad()
def entropies(network, ids, last):
    """Of the distributions that the last so many of these tokens were taken from."""
    logits = network(torch.tensor([ids])).logits[0, -last - 1 : -1].double()
    return torch.distributions.Categorical(logits=logits).entropy().tolist()


@pytest.mark.parametrize("layout", [pack, pad_rows])
@torch.no_grad()
def test_one_pass_has_the_entropies_of_separate_ones(layout):
    network = model(vocab_size=97).double()
    assert share_prefix(network) is None
    found = score_answer_after_steps(
        ROLLOUTS, STEPS, CLOSE, PAD, lambda rows, only: score(network, layout(rows).only(only))["entropy"], CPU
    )
    ends = [[0, 2, 3, 5], [0, 2], [0]]
    for one, own, track in zip(ROLLOUTS, ends, found, strict=True):
        assert len(track.entropies) == len(own)
        for end, told in zip(own, track.entropies, strict=True):
            closing = one.ids[one.close_start : one.close_end] if end == own[-1] else CLOSE
            separate = entropies(network, [*one.prompt, *one.rationale_ids[:end], *closing, *GOLD], len(GOLD))
            assert told == pytest.approx(sum(separate) / len(GOLD), abs=1e-6)
        firsts = [entropies(network, [*one.prompt, *one.rationale_ids[: start + 1]], 1)[0] for start in own[:-1]]
        assert track.first == pytest.approx(firsts, abs=1e-6)


def test_gains_of_the_worked_example_sum_to_its_utility():
    track = StepTrack((2.5, 2.1, 1.5, 0.8, 0.3), (0.1,) * 4)
    assert track.gains == pytest.approx((0.4, 0.6, 0.7, 0.5))
    assert track.utility == pytest.approx(2.2)
    assert StepTrack((2.5,), ()).utility == 0


def test_rationales_of_different_lengths_are_compared():
    assert [interpolate((4.0, 2.0, 1.0), place) for place in (0, 0.25, 0.5, 0.75, 1)] == [4, 3, 2, 1.5, 1]
    tracks = [StepTrack((4.0, 2.0, 1.0), (0.5, 0.1)), StepTrack((2.0, 3.0), (0.3,)), StepTrack((9.0,), ())]
    right, wrong = summarize_tracks([*tracks, StepTrack((1.0, 1.0), (0.2,))], [True, True, True, False])
    assert (right.name, right.rollouts, right.steps) == ("right", 2, 1.5)
    assert right.along == (3.0, 2.625, 2.25, 2.125, 2.0)
    assert (right.utility.value, right.falling) == (1.0, 2 / 3)
    assert right.first == pytest.approx((0.4, 0.1))
    assert (wrong.utility.value, wrong.falling) == (0.0, 0.0)


def test_a_sentence_ends_once_at_a_run_of_marks():
    words = tokenizer()
    ids = encode(words, "the cat.\n two? four")
    pieces = [words.decode([token]) for token in ids]
    numbers = number_sentences(ids, words)
    texts = ["".join(p for p, n in zip(pieces, numbers, strict=True) if n == number) for number in range(3)]
    assert texts == ["the cat.\n", " two?", " four"]


def test_a_decimal_point_ends_no_sentence():
    """Else 10 / 4 = 2 would be an equation that does not hold."""
    words = tokenizer()
    ids = encode(words, "10 / 4 = 2.5. the .5 cat 3.")
    assert join_step_texts(decode_pieces(ids, words), number_sentences(ids, words)) == [
        "10 / 4 = 2.5.",
        "the .5 cat 3.",
    ]
