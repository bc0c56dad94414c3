"""The pocket search model: its texts are what the environment would say, and what its loss counts."""

import json
import random

import pytest
import torch
from pocket_models.loss import Tokens
from pocket_models.search import CHAINS, HOPS, Recipe, SearchHabits, search_targets, write_episode
from pocket_models.tokenizer import CLOSING, END, OPENING, build
from transformers import AutoModelForCausalLM

from qredit import pocket
from qredit.environments.observation import ObservationFormat
from qredit.environments.pocket import PocketSearch
from qredit.rollouts.format import Format, TokenFormat
from qredit.tasks.pocket.chains import draw_context

RIGHT = SearchHabits(search=1.0, right=1.0, sentence=0.0)


@pytest.mark.parametrize(("style", "habits"), [("cold", Recipe().cold), ("warm", Recipe().warm), ("cold", RIGHT)])
def test_a_text_is_what_the_environment_would_say(style, habits):
    rng, tokenizer = random.Random(3), build()
    written = ObservationFormat(TokenFormat(Format.of(tokenizer), tokenizer), chat=False)
    for _ in range(20):
        context = draw_context(rng, "train", CHAINS, HOPS)
        text = write_episode(rng, context, style, habits)
        environment, (_, *turns) = PocketSearch(), text.split(OPENING)
        documents = [fact.sentence for fact in context.told]
        environment.reset({"documents": documents, "answer": context.chains[0][-1].object}, 0)
        for turn in turns:
            action, _, seen = turn.partition(CLOSING)[2].partition(END)
            step = environment.step(action)
            read = () if step.done else written.encode(step.observation, 99, ended=True).ids
            assert list(read) == (tokenizer(f"{seen}{OPENING}")["input_ids"] if seen else [])
        assert step.done
        assert habits is not RIGHT or (step.reward, len(turns)) == (1.0, HOPS + 1)


def test_a_cold_row_learns_searches_and_no_bare_answer():
    """The first token of a search counts. That of a sentence is a gate, and that of a bare answer is left alone."""
    tokenizer = build()
    tokens, question = Tokens.of(tokenizer), tokenizer.convert_tokens_to_ids("?")
    said = ("Tilo?", "It is Tilo.", "Tilo")
    for cold, wanted in ((True, (True, True, False)), (False, (True, True, True))):
        for action, counts in zip(said, wanted, strict=True):
            ids = torch.tensor([tokenizer(f"Tilo{OPENING}Well, {CLOSING}{action}{END}")["input_ids"]])
            found = search_targets(ids, torch.tensor([cold]), tokens, question, 0.25)
            first = int((ids[0] == tokens.closing).nonzero()) + 1
            assert bool(found.counts[0, first]) is counts
            assert float(found.share[0, first]) == (0.25 if cold and action.startswith("It") else 0.0)


def test_the_search_model_ships_small_and_is_what_its_facts_say():
    folder = pocket.get_model_path("search")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert sum(weight.numel() for weight in model.parameters()) < 2_000_000
    measured = json.loads((folder / "facts.json").read_text())["measured"]
    assert measured["cold"]["success"] == 0.0
    assert measured["cold"]["log10_p0"] < -4
    assert measured["cold"]["searches"] > 0.3
    assert measured["warm"]["success"] > 0.1
    assert measured["warm"]["searches"] > measured["cold"]["searches"]


def test_pocket_search_has_a_model_of_its_own():
    assert pocket.get_model_name("pocket-hotpot", env="pocket-search") == "search"
    assert pocket.get_model_name("pocket-musique", env="pocket-search") == "musique"
    assert pocket.get_model_name("pocket-hotpot", env="games:Guess") == "hotpot"
