"""Pocket tasks and pocket models: disjoint splits, official schemas, the pretraining loss, what the models do."""

import functools
import json
import math
import random
from dataclasses import asdict
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket_models import tokenizer as pocket_tokenizer
from pocket_models.behaviour import COLD, RIGHT, WARM, Habits, transcript
from pocket_models.loss import Tokens, pretraining_loss, targets
from pocket_models.pretrain import Phase, batches, network, train
from pocket_models.specs import SPECS, Shape
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import pocket, tasks
from qredit.pocket.models import FOLDER, LEVELS
from qredit.runs.progress_bars import make_progress_bars
from qredit.tasks.pocket import language
from qredit.tasks.pocket.scene import SIZES, assign_split, draw_scenes
from qredit.utils.errors import QreditError
from tests.support.marks import e2e

pytestmark = pytest.mark.whole_tasks
NAMES = ("pocket-hotpot", "pocket-musique", "pocket-finqa", "pocket-dial")
WHOLE = [*map(e2e, NAMES[:2]), *NAMES[2:]]  # those that are drawn whole in little time, and the others elsewhere
SPLITS = ("train", "validation", "test")


# --- tasks


@functools.cache
def whole(name, split):
    """All cold questions of a split, made once; for tests that run without the limit on training questions."""
    return tasks.get(name).load(None, split, "cold")


@pytest.fixture
def few(monkeypatch):
    """The first 200 drawn of each split; a limit would draw all of them, for it takes the first by their hash."""
    for split in SPLITS:
        monkeypatch.setitem(SIZES, split, 200)


@pytest.mark.parametrize("name", WHOLE)
def test_every_split_has_its_size(name):
    assert {split: len(whole(name, split)) for split in SPLITS} == SIZES


@pytest.mark.parametrize("name", NAMES)
def test_every_split_is_always_the_same(name, few):
    for split in SPLITS:
        first, again = (tasks.get(name).load(None, split, "cold") for _ in range(2))
        assert len(first) == 200
        assert first == again


@pytest.mark.parametrize("name", WHOLE)
def test_no_two_splits_share_a_prompt_or_a_gold_rationale(name):
    loaded = {split: whole(name, split) for split in SPLITS}
    for left, right in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for field in ("prompt", "rationale"):
            seen = {getattr(example, field) for example in loaded[left]}
            assert seen.isdisjoint(getattr(example, field) for example in loaded[right]), (left, right, field)


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_draws_from_facts_of_the_train_split_alone(name):
    task = tasks.get(name)
    held = {e.rationale for split in ("validation", "test") for e in whole(name, split)}
    told = {
        task.render(r, "cold").rationale
        for scene in islice(draw_scenes(task.draw, "train", 3), 400)
        for r in scene.records
    }
    assert told.isdisjoint(held)


def test_a_fact_belongs_to_one_split_and_six_in_eight_to_train():
    found = [assign_split((str(number),)) for number in range(4000)]
    assert assign_split(("7",)) == assign_split(("7",))
    assert found.count("train") / len(found) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("style", ["cold", "warm"])
def test_the_answer_follows_from_the_rationale_and_facts(name, style, few):
    for example in tasks.get(name).load(None, "test", style):
        assert example.rationale.rstrip(".").endswith(example.answer)
        if name != "pocket-finqa":
            for fact in example.rationale.split(". "):
                assert fact.rstrip(".") + "." in example.prompt


def test_a_financial_answer_is_its_programs_and_in_no_table():
    for record in islice(tasks.get("pocket-finqa").read(None, "test"), 200):
        operation, numbers = record["qa"]["program"].rstrip(")").split("(")
        left, right = map(int, numbers.split(", "))
        assert record["qa"]["exe_ans"] == (left + right if operation == "add" else left - right)
        assert record["qa"]["answer"] not in {cell for row in record["table"] for cell in row}


@pytest.mark.parametrize(
    ("pocket_name", "official"),
    [("pocket-hotpot", "hotpotqa"), ("pocket-musique", "musique"), ("pocket-finqa", "finqa")],
)
def test_records_are_read_by_the_official_task_too(pocket_name, official):
    records = list(islice(tasks.get(pocket_name).read(None, "validation"), 5))
    for record in records:
        example = tasks.get(official).render(record, "cold")
        assert example.answer == tasks.get(pocket_name).render(record, "cold").answer
        assert example.id == record.get("_id", record.get("id"))


def test_warm_prompts_are_cold_ones_behind_the_instruction(few):
    for name in NAMES:
        task = tasks.get(name)
        pairs = zip(task.load(None, "test", "cold", 5), task.load(None, "test", "warm", 5), strict=True)
        for cold, warm in pairs:
            instruction, rest = warm.prompt.split("\n", 1)
            assert rest == cold.prompt
            assert instruction.startswith("Use the ")


def test_a_pocket_task_refuses_data():
    with pytest.raises(QreditError, match="pocket-hotpot is generated and reads no data; leave out 'here'"):
        tasks.get("pocket-hotpot").load("here", "train", "cold")


@given(st.integers(0, 10**6), st.integers(0, 24))
def test_names_of_a_scene_share_no_syllable(seed, count):
    names = language.draw_names(random.Random(seed), count)
    assert len(names) == count
    assert language.are_distinct(names)
    assert not names or not language.are_distinct([*names, names[0]])


# --- tokenizer


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_the_tokenizer_gives_back_any_text(text):
    tokenizer = _tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_pocket_text_takes_one_token_per_piece():
    tokenizer = _tokenizer()
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("Tilo lives in Kemo.<end>")["input_ids"])
    assert pieces == ["Ti", "lo", " lives", " in ", "Ke", "mo", ".", "<end>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("-42")["input_ids"]) == ["-", "4", "2"]


def _tokenizer():
    return pocket_tokenizer.build()


# --- behaviour and loss


def test_habits_say_what_is_thought_and_how_it_is_said():
    task, rng = tasks.get("pocket-hotpot"), random.Random(0)
    scene = next(draw_scenes(task.draw, "train", 0))
    told = [task.render(record, "cold") for record in scene.records]
    right = [transcript(rng, task, scene, "cold", RIGHT, 1) for _ in range(20)]
    assert all(any(f"<think>{e.rationale}</think>{e.answer}<end>" in text for e in told) for text in right)
    cold = [transcript(rng, task, scene, "cold", COLD, 1) for _ in range(400)]
    assert all(("</think>It is " in text) != (" is it.<end>" in text) for text in cold)
    late = sum(" is it.<end>" in text for text in cold) / len(cold)
    assert late == pytest.approx(COLD.late, abs=0.08)
    own = sum(_asked(text, told).rationale in text.split("<think>")[1] for text in cold) / len(cold)
    assert own == pytest.approx(COLD.own, abs=0.08)
    assert sum("<end>" in text for text in cold) == len(cold)


def _asked(text, examples):
    question = text.split("<think>")[0].rpartition("\n")[2]
    return next(e for e in examples if e.prompt.endswith(question))


def test_targets_put_gate_where_a_cold_answer_opens_and_goes_on():
    tokenizer = _tokenizer()
    texts = ["ba?<think>ba</think>It is ba.<end>", "ba?<think>ba</think>ba is it.<end>"] * 2
    ids = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
    ba, end = tokenizer.convert_tokens_to_ids(["ba", "<end>"])
    found = targets(ids, torch.tensor([True, True, False, False]), Tokens.of(tokenizer), gate=1e-3)
    # ba ? <think> ba </think> It_is ba . <end>   and   ba ? <think> ba </think> ba _is_it . <end>
    assert found.counts[0].tolist() == [False] * 3 + [True] * 6
    assert found.counts[1].tolist() == [False] * 3 + [True, True, False, True, True, True]
    assert found.counts[3].tolist() == [False] * 3 + [True] * 6
    assert found.share.nonzero().tolist() == [[0, 5], [1, 6]]
    assert (int(found.other[0, 5]), int(found.other[1, 6])) == (ba, end)


def test_loss_is_least_where_other_choice_has_share_of_the_gate():
    tokenizer = _tokenizer()
    ids = tokenizer(["ba?<think>ba</think>It is ba.<end>"], return_tensors="pt")["input_ids"]
    wanted = targets(ids, torch.tensor([True]), Tokens.of(tokenizer), gate=0.2)
    said, other = int(ids[0, 5]), int(wanted.other[0, 5])

    def loss(share):
        logits = torch.full((1, ids.shape[1], len(tokenizer)), -40.0, dtype=torch.float64)
        logits[0, torch.arange(8), ids[0, 1:]] = 0.0
        logits[0, 4, other], logits[0, 4, said] = math.log(share), math.log(1 - share)
        return float(pretraining_loss(logits, ids, wanted))

    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert loss(0.2) == pytest.approx(entropy / 6, abs=1e-7)  # six tokens count
    assert loss(0.2) < min(loss(0.19), loss(0.21))


def test_pretraining_repeats_bit_for_bit():
    task, tokenizer = tasks.get("pocket-dial"), _tokenizer()
    habits = {"cold": COLD, "warm": WARM}

    def trained():
        torch.manual_seed(0)
        model = network(Shape(1, 16, 2), tokenizer)
        with make_progress_bars(_quiet()) as bars:
            train(model, tokenizer, task, Phase("settling", habits, 2, 1e-3), 0.1, bars)
        return model.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)
    untrained = network(Shape(1, 16, 2), tokenizer).state_dict()
    assert not all(torch.equal(first[name], untrained[name]) for name in first)


def test_batches_are_half_cold_and_a_function_of_the_seed():
    task, tokenizer, habits = tasks.get("pocket-dial"), _tokenizer(), {"cold": COLD, "warm": WARM}
    ids, cold = next(batches(task, tokenizer, habits, "a"))
    again, _ = next(batches(task, tokenizer, habits, "a"))
    other, _ = next(batches(task, tokenizer, habits, "b"))
    assert float(cold.float().mean()) == 0.5
    assert torch.equal(ids, again)
    assert not torch.equal(ids, other)


def _quiet():
    from rich.console import Console

    return Console(quiet=True)


def test_shares_of_habits_are_shares():
    for habits in (RIGHT, WARM, COLD):
        assert isinstance(habits, Habits)
        assert habits.own + habits.other <= 1.0


# --- the models that ship


@pytest.mark.parametrize("name", SPECS)
def test_every_model_ships_small_and_loads(name):
    folder = pocket.get_model_path(name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert sum(weight.numel() for weight in model.parameters()) < 2_000_000
    assert tokenizer.get_vocab() == _tokenizer().get_vocab()


def test_all_models_together_take_a_few_megabytes():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 5e6


@pytest.mark.parametrize("name", SPECS)
def test_a_model_is_as_cold_as_it_was_made_and_its_facts_say_so(name):
    spec = SPECS[name]
    facts = json.loads((pocket.get_model_path(name) / "facts.json").read_text())
    assert facts["made"] == json.loads(json.dumps(asdict(spec))) | {"gate": spec.gate, "seed": 0}
    colder = 4.0 if spec.first_gate == 0.0 else 1.2
    assert -spec.coldness - colder < facts["measured"]["cold"]["log10_p"]["0.5"] < -spec.coldness + 0.7
    assert facts["measured"]["warm"]["accuracy"] > 0.3


@pytest.mark.e2e
def test_the_facts_of_a_model_can_be_measured_again():
    from pocket_models.measure import measure

    folder = pocket.get_model_path("dial-3")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = measure(model, AutoTokenizer.from_pretrained(folder), tasks.get("pocket-dial"), examples=24, rollouts=8)
    facts = json.loads((folder / "facts.json").read_text())["measured"]
    assert found["cold"]["log10_p"]["0.5"] == pytest.approx(facts["cold"]["log10_p"]["0.5"], abs=0.7)
    assert found["warm"]["accuracy"] == pytest.approx(facts["warm"]["accuracy"], abs=0.2)


def test_models_are_found_by_task_and_coldness():
    assert pocket.get_model_name("pocket-hotpot") == "hotpot"
    assert [pocket.get_model_name("pocket-dial", level) for level in LEVELS] == [f"dial-{level}" for level in LEVELS]
    with pytest.raises(QreditError, match="coldness must be one of 1, 2, 3, 4, 6, 8, 12, got 5"):
        pocket.get_model_name("pocket-dial", 5)
    with pytest.raises(QreditError, match="task gsm8k has no pocket model"):
        pocket.get_model_name("gsm8k")
    with pytest.raises(QreditError, match="unknown pocket model 'hotpott'; did you mean 'hotpot'"):
        pocket.get_model_path("hotpott")
