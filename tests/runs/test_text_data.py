"""qredit text-data: which tokens of a text are asked, with which entropy, and that a run learns from them."""

import json
import sys

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from qredit.cli.main import main
from qredit.runs.text_data import TextPlaces, check_window, choose_places, list_places, name_tier, read_text
from qredit.utils.errors import QreditError
from tests.support.folders import SHORT, flags, lines, model_folder
from tests.support.tiny import model, tokenizer

TEXT = "the cat lives in the house. What is two and two? four\n\nParis is big, and London is bigger than Paris é."


def places(network, text=TEXT, **changes):
    shape = {"window": 16, "least": 3, "behind": 4, "half": False} | changes
    return list_places(text, "1:book.txt", network, tokenizer(), **shape)


def test_every_token_is_asked_behind_its_windows_beginning():
    network = model().eval()
    ids = tokenizer()(TEXT).input_ids
    found = {one.id: one for one in places(network)}
    for number, token in enumerate(ids):
        one, text = found.get(f"1:book.txt:{number}"), tokenizer().decode([token]).strip()
        half = "\N{REPLACEMENT CHARACTER}" in text
        if number % 16 < 3 or not text or half:
            assert one is None
        else:
            assert (one.token, one.context) == (text, tuple(ids[number - number % 16 : number]))
            assert one.behind == tuple(ids[number : min(number + 4, number - number % 16 + 16)])
    assert len(found) > len(ids) / 2


def test_the_entropy_is_that_over_the_token_that_is_asked():
    network = model().eval()
    for one in list(places(network))[::7]:
        with torch.no_grad():
            logp = network(torch.tensor([one.context])).logits[0, -1].log_softmax(-1)
        assert one.entropy == pytest.approx(-(logp.exp() * logp).sum().item(), abs=1e-4)


def test_tiers_are_parted_by_entropy_and_drawn_uniformly():
    assert [name_tier(value, (0.5, 2.0)) for value in (0.0, 0.49, 0.5, 1.99, 2.0, 9.0)] == [
        "easy", "easy", "medium", "medium", "hard", "hard",
    ]  # fmt: skip
    found = places(model().eval())
    half = sorted(one.entropy for one in found)[len(found) // 2]
    rows = choose_places([found], tokenizer(), (half, 1e9), 5, seed=1)
    assert [row["tier"] for row in rows].count("easy") == [row["tier"] for row in rows].count("medium") == 5
    order = [one.id for one in found]
    assert [order.index(row["id"]) for row in rows] == sorted(order.index(row["id"]) for row in rows)
    assert rows == choose_places([found], tokenizer(), (half, 1e9), 5, seed=1)
    assert rows != choose_places([found], tokenizer(), (half, 1e9), 5, seed=2)
    known = {one.id: one for one in found}
    for row in rows:
        assert tuple(tokenizer()(row["prompt"]).input_ids) == known[row["id"]].context
        assert row["answer"] == known[row["id"]].token
        assert row["continuation"].startswith(tokenizer().decode(known[row["id"]].behind[:1]))


def test_a_context_that_reads_otherwise_as_a_text_is_left_out():
    found = places(model().eval())
    letters = [id for letter in tokenizer().decode(list(found[0].context)) for id in tokenizer()(letter).input_ids]
    blank = tokenizer()("\n\n\n").input_ids
    for ids in (letters, blank):
        odd = TextPlaces("odd", [*ids, 1], 100, 4, [len(ids)], [0.0], ["x"])
        assert odd[0].context == tuple(ids)
        assert choose_places([odd], tokenizer(), (1.0, 2.0), 5, seed=1) == []


def test_a_window_leaves_room_for_what_stands_before_it():
    """A context of 16 tokens holds a beginning-of-text token and 15 of a text."""
    begins = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer().backend_tokenizer.to_str()))
    begins.backend_tokenizer.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    network = model(max_position_embeddings=16)
    assert (check_window(None, network, tokenizer()), check_window(None, network, begins)) == (16, 15)
    assert check_window(15, network, begins) == 15
    with pytest.raises(QreditError, match="window=16 is more than the 15 tokens of a text"):
        check_window(16, network, begins)


def test_a_mark_of_utf_8_is_no_text(text):
    (text / "marked.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert read_text(text / "marked.txt", tokenizer()) == "hello"


def test_a_text_is_kept_in_few_bytes_a_token():
    found = places(model().eval(), TEXT * 8)
    kept = (found.ids, found.numbers, found.entropies, found.tokens)
    assert sum(map(sys.getsizeof, kept)) < 32 * len(found.ids)
    assert len(set(map(id, found.tokens))) == len(set(found.tokens)) < len(found)


@pytest.fixture
def text(tmp_path):
    (tmp_path / "texts").mkdir()
    for name in ("a", "b"):
        (tmp_path / "texts" / f"{name}.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "texts"


def test_a_run_learns_from_a_text(text, tmp_path, capsys):
    """From text files to a training run with the objective and the curriculum of RMT."""
    network, file = model_folder(tmp_path / "tiny"), tmp_path / "questions.jsonl"
    given = {"output": file, "medium": 1.0, "hard": 1e9, "questions": 4, "window": 24, "model": network, "least": 3}
    assert main(["text-data", "--json", str(text), *flags(**given)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tiers"] == {"easy": 0, "medium": 4, "hard": 0}
    assert {row["id"][:2] for row in lines(file)} <= {"1:", "2:"}
    shared = {"task": "jsonl", "data": file, "model": network, "output": tmp_path / "run", "cpu": True, **SHORT}
    shared |= {"m": 3, "drawing": "read_on()"}
    objective, curriculum = (
        "rmt(weight=0.3, peak=1.0, next_token=0.1)",
        "shift_tiers(('medium',), first=(1,), last=(1,))",
    )
    assert main(["train", "--json", "--quiet", *flags(**shared, objective=objective, curriculum=curriculum)]) == 0
    steps = [line for line in lines(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"medium": None}, "medium and hard are needed"),
        ({"medium": 2.0}, "medium must be at least 0 and less than hard, got 2.0 and 2.0"),
        ({"questions": 0}, "questions must be at least 1, got 0"),
        ({"window": 16}, "least=16 leaves no token of window=16 to be asked"),
        ({"texts": "nowhere.txt"}, "no text file nowhere.txt"),
        ({"texts": "."}, "no .txt file in ."),
        ({"written": "a<end>b"}, "spells the control token '<end>' at character 1"),
        ({"written": b"\xff"}, "as a text in UTF-8"),
        ({"output": "gone/questions.jsonl"}, "for the questions"),
    ],
)
def test_what_cannot_be_used_is_said_before_the_model_runs(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qredit.runs.load.load_model", None)
    (tmp_path / "book").write_bytes(b"")
    written = options.get("written", TEXT)
    (tmp_path / "book").write_bytes(written if isinstance(written, bytes) else written.encode())
    given = {"model": model_folder(tmp_path / "tiny"), "medium": 1.0, "hard": 2.0} | options
    texts = given.pop("texts", "book")
    given = {name: value for name, value in given.items() if name != "written" and value is not None}
    assert main(["text-data", "--json", texts, *flags(**given)]) == 2
    assert words in json.loads(capsys.readouterr().out)["error"]
