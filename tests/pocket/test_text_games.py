"""The player of text games: its texts are what a run's tokens would be, and what it learns of them."""

import random

import pytest
import torch
from pocket_models.text_games import PROMPT, Expert, adopt, find_said, list_pieces, rename
from pocket_models.tokenizer import CLOSING, END, OPENING, build

from qredit.environments.observation import ObservationFormat
from qredit.environments.tools import append_text
from qredit.rollouts.format import Format, TokenFormat

READ = (
    "First, take the key7 in room12. Next, unlock K-box with key7.\n\n-= Room12 =-\nA key7.",
    "You pick up the key7.",
)
EXPERT = Expert(("take key7", "unlock K-box with key7"), READ)


@pytest.fixture(scope="module")
def tokenizer():
    return build(list_pieces([EXPERT.text]))


def test_a_text_is_what_an_episode_would_hold(tokenizer):
    tokens = TokenFormat(Format.of(tokenizer), tokenizer)
    written = ObservationFormat(tokens, chat=False)
    ids = list(tokens.prompt_ids(append_text(PROMPT, READ[0])))
    for command, read in zip(EXPERT.commands, (READ[1], None), strict=True):
        ids += tokenizer(f"{CLOSING}{command}{END}")["input_ids"]
        ids += written.encode(read, 99, ended=True).ids if read else ()
    assert tokenizer(EXPERT.text)["input_ids"] == ids


def test_names_are_exchanged_the_same_way_throughout():
    texts = {rename(random.Random(seed), EXPERT.text) for seed in range(20)}
    assert len(texts) == 20
    for text in texts:
        key = text.partition("take the key")[2][0]
        letter = text.partition("unlock ")[2][0]
        room = text.partition("in room")[2][:2]
        assert text.count(f"key{key}") == 6
        assert text.count(f"{letter}-box") == 2
        assert f"-= Room{room} =-" in text
        assert text.startswith(f"{PROMPT}\n\nFirst, ")


def test_a_number_is_one_token(tokenizer):
    assert tokenizer.tokenize("unlock Z-box with key42") == ["unlock", " Z", "-", "box", " with", " key", "42"]


def test_what_is_said_is_learned_and_what_is_read_is_not(tokenizer):
    ids = tokenizer([EXPERT.text], return_tensors="pt")["input_ids"]
    said = find_said(ids, tokenizer.convert_tokens_to_ids(OPENING), tokenizer.eos_token_id)
    assert tokenizer.decode(ids[said]) == "".join(f"{CLOSING}{command}{END}" for command in EXPERT.commands)


def test_a_model_keeps_the_tokens_that_it_knows(tokenizer):
    old, model = build(), adopt("dial-1", tokenizer)
    known = [text for text in tokenizer.get_vocab() if text in old.get_vocab()]
    weight = model.get_input_embeddings().weight
    assert {"3", OPENING, END} <= set(known)
    rows = adopt("dial-1", old).get_input_embeddings().weight
    for text in known:
        assert torch.equal(weight[tokenizer.get_vocab()[text]], rows[old.get_vocab()[text]])
    assert len(weight) == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
