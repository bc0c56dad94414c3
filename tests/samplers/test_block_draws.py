"""Draws from given probabilities: as often as they say, never where they are 0, each row on its own noise."""

import pytest
import torch

from qredit.samplers.logits_processor import choose_block_width, draw_in_blocks

DRAWS = 200_000


def exponentials(vocabulary: int, seed: int = 0) -> torch.Tensor:
    width = choose_block_width(vocabulary)
    noise = torch.empty(DRAWS, -(-vocabulary // width) + width)
    return noise.exponential_(generator=torch.Generator().manual_seed(seed))


# 16 tokens stand in four blocks of four, 21 in three of eight of which the last is not full
@pytest.mark.parametrize("vocabulary", [2, 16, 21])
def test_tokens_come_as_often_as_their_probability(vocabulary):
    weights = torch.rand(vocabulary, generator=torch.Generator().manual_seed(1)) ** 4
    weights[vocabulary // 3] = 0
    probs = weights / weights.sum()
    drawn = draw_in_blocks(probs.expand(DRAWS, -1), exponentials(vocabulary))
    share = torch.bincount(drawn, minlength=vocabulary) / DRAWS
    assert share[vocabulary // 3] == 0
    assert ((share - probs).abs() <= 5 * (probs * (1 - probs) / DRAWS).sqrt()).all()


def test_a_block_without_probability_is_never_drawn():
    probs = torch.zeros(16)
    probs[5] = 1
    assert (draw_in_blocks(probs.expand(DRAWS, -1), exponentials(16)) == 5).all()


def test_a_block_and_the_token_in_it_are_independent():
    """Given the block, its tokens come as their probabilities there say, however the block won."""
    probs = torch.full((16,), 1 / 16)
    drawn = draw_in_blocks(probs.expand(DRAWS, -1), exponentials(16))
    table = torch.bincount(drawn, minlength=16).view(4, 4) / DRAWS
    assert (table - 1 / 16).abs().max() <= 5 * (1 / 16 / DRAWS) ** 0.5


@pytest.mark.parametrize("vocabulary", [1, 2, 100, 49_152, 151_936])
def test_noise_is_about_two_square_roots(vocabulary):
    width = choose_block_width(vocabulary)
    blocks = -(-vocabulary // width)
    assert vocabulary <= blocks * width
    assert blocks + width <= 3 * vocabulary**0.5 + 1
