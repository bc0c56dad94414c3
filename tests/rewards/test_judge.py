"""Judges of steps: where steps end in ids, a tiny process reward model, and an endpoint served in the test."""

import json
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pocket_models.tokenizer import build
from transformers import Qwen3Config, Qwen3ForTokenClassification

from qredit.rewards.judge import (
    EndpointJudge,
    JudgeCase,
    ProcessRewardModel,
    intersection,
    majority,
    mark_steps,
    number_steps,
    place_at_step_ends,
    split_step_texts,
    union,
)
from qredit.rewards.judge.endpoint import parse_wrong_steps
from qredit.rewards.judge.steps import decode_pieces
from qredit.utils.errors import QreditError
from tests.support.endpoint import said
from tests.support.tiny import model as tiny_model
from tests.support.tiny import tokenizer as tiny_tokenizer

TOKENIZERS = {"bytes": tiny_tokenizer(), "syllables": build()}


class Spoken:
    """A tokenizer whose tokens are the strings given."""

    def __init__(self, *tokens):
        self.tokens = tokens

    def decode(self, ids, **options):
        return "".join(self.tokens[i] for i in ids)


def spoken(*tokens):
    return list(range(len(tokens))), Spoken(*tokens)


# --- steps


def test_a_blank_line_ends_a_step_and_belongs_to_it():
    assert number_steps(*spoken("one", ".", "\n\n", "two", "\n", "still", "\n", "\n", "three")) == [
        0,
        0,
        0,
        1,
        1,
        1,
        1,
        1,
        2,
    ]


def test_white_space_between_line_breaks_makes_no_difference():
    assert number_steps(*spoken("a", "\n", "  ", "\n", "\n\n", " b")) == [0, 0, 0, 0, 0, 1]
    assert number_steps(*spoken("a", "\r\n\r\n", "b")) == [0, 0, 1]


def test_a_token_across_a_blank_line_belongs_to_the_step_before():
    assert number_steps(*spoken("a", ".\n\nb", "c")) == [0, 0, 1]


def test_white_space_before_the_first_word_is_no_step():
    assert number_steps(*spoken("\n\n", "\n\n", "a", "\n\n")) == [0, 0, 0, 0]
    assert number_steps([], Spoken()) == []
    assert split_step_texts([], Spoken()) == []


@pytest.mark.parametrize("name", TOKENIZERS)
def test_characters_of_several_tokens_are_cut_nowhere(name):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode("la ñandú 日本\n\n日 zwei 🙂\n\nthree", add_special_tokens=False)
    numbers = number_steps(ids, tokenizer)
    assert split_step_texts(ids, tokenizer) == ["la ñandú 日本", "日 zwei 🙂", "three"]
    assert numbers == sorted(numbers)
    for step, text in enumerate(split_step_texts(ids, tokenizer)):
        own = [i for i, number in zip(ids, numbers, strict=True) if number == step]
        assert tokenizer.decode(own).strip() == text


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.text(alphabet=st.sampled_from("ab é日🙂.\n "), max_size=30))
def test_pieces_join_to_text_and_ids_are_never_encoded_again(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert "".join(decode_pieces(ids, tokenizer)) == tokenizer.decode(ids)
    assert len(number_steps(ids, tokenizer)) == len(ids)


@given(st.lists(st.integers(4, 300), max_size=30))
def test_ids_that_spell_no_text_still_have_steps(ids):
    tokenizer = TOKENIZERS["bytes"]
    numbers = number_steps(ids, tokenizer)
    assert numbers == sorted(numbers)
    assert len(split_step_texts(ids, tokenizer)) == max(numbers, default=-1) + 1


def test_what_was_judged_goes_back_to_the_tokens():
    numbers = [-1, 0, 0, 1, 1, 1]
    assert place_at_step_ends(numbers, [0.5, -0.25]) == [0, 0, 0.5, 0, 0, -0.25]
    assert mark_steps(numbers, {1}) == [False, False, False, True, True, True]


# --- votes


def test_votes():
    critiques = [frozenset({1, 2}), frozenset({1}), frozenset({1, 3}), frozenset({1, 2})]
    assert intersection(critiques) == {1}
    assert majority(critiques) == {1, 2}  # two of four are enough
    assert union(critiques) == {1, 2, 3}
    for rule in (intersection, majority, union):
        assert rule([]) == frozenset()


# --- a process reward model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A token classifier with random weights, saved in a folder."""
    torch.manual_seed(0)
    config = Qwen3Config(**{**tiny_model().config.to_dict(), "num_labels": 2})
    folder = tmp_path_factory.mktemp("prm")
    Qwen3ForTokenClassification(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_scores_are_read_where_each_step_ends(classifier):
    judge = ProcessRewardModel.load(str(classifier))
    steps = ["two and two", "is four", "big"]
    scores = judge.score("What is two and two?", steps)
    tokenizer = tiny_tokenizer()
    for count in range(1, 4):
        text = "What is two and two?\n\n"
        ids = tokenizer.encode(text) + [i for s in steps[:count] for i in tokenizer.encode(s + "\n\n")]
        with torch.no_grad():
            chance = judge.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(0)
        assert scores[count - 1] == pytest.approx(float(chance[1] - chance[0]), abs=1e-5)
    assert len(set(scores)) == 3
    assert all(-1 <= score <= 1 for score in scores)


def test_no_steps_and_steps_beyond_the_limit_have_no_scores(classifier):
    judge = ProcessRewardModel.load(str(classifier), most_tokens=20)
    assert judge.score("two?", []) == []
    first, second = judge.score("two?", ["four", "one two three four five six seven eight nine"])
    assert first != 0.0
    assert second == 0.0
    assert judge.score("What is two and two? " * 9, ["four"]) == [0.0]


def test_a_causal_model_says_its_verdicts_as_tokens(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    judge = ProcessRewardModel.load_causal(str(tmp_path), good="a", bad="b")
    (score,) = judge.score("two?", ["four"])
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("two?\n\n") + tokenizer.encode("four\n\n")
    with torch.no_grad():
        logits = tiny_model()(input_ids=torch.tensor([ids])).logits[0, -1]
    pair = logits[[tokenizer.encode("a")[0], tokenizer.encode("b")[0]]].softmax(0)
    assert score == pytest.approx(float(pair[0] - pair[1]), abs=1e-5)
    with pytest.raises(QreditError, match="one token"):
        ProcessRewardModel.load_causal(str(tmp_path), good="zebra crossing", bad="b")


def test_what_is_no_process_reward_model_is_refused(tmp_path, classifier):
    with pytest.raises(QreditError, match="no process reward model"):
        ProcessRewardModel.load(str(tmp_path / "nowhere"))
    config = json.loads((classifier / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    config["label2id"] = {"a": 0, "b": 1, "c": 2}
    torch.manual_seed(0)
    Qwen3ForTokenClassification(Qwen3Config(**config)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(QreditError, match="2 labels"):
        ProcessRewardModel.load(str(tmp_path))


# --- an endpoint


def judge_of(endpoint, **changes):
    return EndpointJudge(endpoint.url, "judge", **{"pause": 0.01, "seconds": 5.0, **changes})


CASE = JudgeCase("What is 2+2?", ("2+2 is 5", "so 5", "done"), answer="4")


def test_the_judge_sees_question_steps_and_answer(serve):
    endpoint = serve(lambda number, body: said("Step 1 errs.\n[1, 3]"))
    assert judge_of(endpoint).wrong_steps([CASE]) == [[frozenset({0, 2})]]
    body, headers = endpoint.seen[0]
    shown = body["messages"][-1]["content"]
    assert all(text in shown for text in ("What is 2+2?", "2+2 is 5", "so 5", "The right answer:\n4"))
    assert body["model"] == "judge"
    assert "Authorization" not in headers


def test_several_critiques_are_asked_for_in_order(serve):
    endpoint = serve(lambda number, body: said("[2]" if "second" in body["messages"][-1]["content"] else "[1]"))
    cases = [CASE, JudgeCase("none", ()), JudgeCase("second", ("a", "b"))]
    first, none, second = judge_of(endpoint, critiques=3).wrong_steps(cases)
    assert (first, none, second) == ([frozenset({0})] * 3, [frozenset()] * 3, [frozenset({1})] * 3)
    assert len(endpoint.seen) == 6


@pytest.mark.parametrize(
    "answer",
    [
        said("all fine"),
        said("[1, two]"),
        said("[1.5]"),
        said("__import__('os').system('false')"),
        said("[" * 100_000),
        said("[99, 1000000]"),
        (200, "not json"),
        (200, "[" * 100_000),
        (200, json.dumps({"choices": []})),
        (200, json.dumps({"choices": [{"message": {"content": [1]}}]})),
        (200, json.dumps([1])),
        (200, b"\xff\xfe\xff"),
        (200, b"x" * 5000),
    ],
    ids=range(13),
)
def test_a_reply_that_cannot_be_read_calls_no_step_wrong(serve, answer):
    endpoint = serve(lambda number, body: answer)
    assert judge_of(endpoint, most_bytes=4000 if len(answer[1]) == 5000 else 10**6).wrong_steps([CASE]) == [
        [frozenset()]
    ]


def test_the_last_list_counts_and_numbers_of_no_step_do_not():
    assert parse_wrong_steps("Maybe [1]? No: [2, 7, 0]", 3) == {1}
    assert parse_wrong_steps("[3]\n[]", 3) == frozenset()
    assert parse_wrong_steps("[ 1 ,\n 2 ]", 3) == {0, 1}


def test_a_reply_longer_than_the_limit_is_not_read(serve):
    endpoint = serve(lambda number, body: said("[1]" + " " * 5000))
    assert judge_of(endpoint, most_bytes=1000).wrong_steps([CASE]) == [[frozenset()]]
    assert judge_of(endpoint).wrong_steps([CASE]) == [[frozenset({0})]]


def test_a_passing_failure_is_tried_again(serve):
    endpoint = serve(lambda number, body: (503, "busy") if number < 3 else said("[1]"))
    assert judge_of(endpoint, tries=3).wrong_steps([CASE]) == [[frozenset({0})]]


def test_a_reply_that_is_cut_on_its_way_is_asked_for_again(serve):
    whole = said("Steps 1 and 3 err. [1]\n[1, 3]")[1]
    endpoint = serve(lambda number, body: (200, whole[: 60 if number == 1 else None], len(whole)))
    assert judge_of(endpoint, tries=2).wrong_steps([CASE]) == [[frozenset({0, 2})]]
    assert len(endpoint.seen) == 2


def test_a_reply_that_is_always_cut_is_an_error(serve):
    whole = said("[1]")[1]
    endpoint = serve(lambda number, body: (200, whole, len(whole) + 1))
    with pytest.raises(QreditError, match=r"did not answer in 2 tries: IncompleteRead\("):
        judge_of(endpoint, tries=2).wrong_steps([CASE])


def test_a_lasting_failure_is_one_clear_line(serve):
    endpoint = serve(lambda number, body: (503, "busy"))
    with pytest.raises(QreditError, match=r"did not answer in 2 tries: status 503"):
        judge_of(endpoint, tries=2).wrong_steps([CASE])
    assert len(endpoint.seen) == 2


def test_a_lasting_failure_ends_the_questions_behind_it(serve):
    endpoint = serve(lambda number, body: (503, "busy"))
    with pytest.raises(QreditError, match="did not answer in 2 tries"):
        judge_of(endpoint, tries=2, at_once=2).wrong_steps([CASE] * 60)
    assert len(endpoint.seen) < 60


def test_a_refusal_is_not_tried_again(serve):
    endpoint = serve(lambda number, body: (401, "who?"))
    with pytest.raises(QreditError, match="refused: status 401"):
        judge_of(endpoint).wrong_steps([CASE])
    assert len(endpoint.seen) == 1


def test_a_silent_endpoint_runs_into_the_time_limit(serve):
    endpoint = serve(lambda number, body: time.sleep(1.0) or said("[1]"))
    with pytest.raises(QreditError, match="timed out"):
        judge_of(endpoint, seconds=0.1, tries=1).wrong_steps([CASE])


def test_no_more_requests_fly_than_are_allowed(serve):
    endpoint = serve(lambda number, body: time.sleep(0.05) or said("[1]"))
    judge_of(endpoint, at_once=2).wrong_steps([CASE] * 8)
    assert endpoint.most == 2


def test_the_key_goes_to_the_address_that_was_given_alone(serve, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "word")
    elsewhere = serve(lambda number, body: said("[1]"))
    endpoint = serve(lambda number, body: (302, elsewhere.url))
    judge = judge_of(endpoint, key_variable="JUDGE_KEY")
    with pytest.raises(QreditError, match="refused: status 302"):
        judge.wrong_steps([CASE])
    assert endpoint.seen[0][1]["Authorization"] == "Bearer word"
    assert elsewhere.seen == []
    assert "word" not in repr(judge)


@pytest.mark.parametrize(
    "changes", [{"url": "file:///etc/hostname"}, {"critiques": 0}, {"tries": 0}, {"at_once": 0}], ids=str
)
def test_a_judge_that_cannot_be_is_refused(changes):
    with pytest.raises(QreditError):
        EndpointJudge(**{"url": "http://localhost/", "model": "judge", **changes})
