"""A prompt with its gold answer shown: the template, chats, and rows that do not fit."""

import datasets
import pytest

from qredit.core.hint import fill_template, hint
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.hinted_prompt import show_answer
from qredit.rollouts.sampling_params import TokenBudget
from qredit.trl.dataset_encoding import encode_examples
from qredit.utils.errors import QreditError
from tests.support.tiny import chat_tokenizer, tokenizer


def fill(prompt: str, answer: str) -> str:
    return fill_template("{prompt} It is {answer}.", prompt, answer)


def test_a_template_is_filled_in_once():
    assert fill_template("{answer}: {prompt} {answer}", "{answer}?", "{prompt}") == "{prompt}: {answer}? {prompt}"


def test_answer_is_shown_in_a_text_and_in_the_last_user_message():
    assert show_answer("2+2?", "4", fill) == "2+2? It is 4."
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    shown = show_answer([*chat, {"role": "assistant", "content": "Well"}], "4", fill)
    assert [message["content"] for message in shown] == ["a", "b", "c It is 4.", "Well"]
    assert chat[2]["content"] == "c"
    with pytest.raises(QreditError, match="no user message"):
        show_answer(chat[1:2], "4", fill)
    with pytest.raises(QreditError, match="its content is None"):
        show_answer([{"role": "user", "content": None}], "4", fill)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"share": 1.0}, "less than 1, got 1.0"),
        ({"share": -0.1}, "at least 0"),
        ({"share": "half"}, "got 'half'"),
        ({"share": True}, "got True"),
        ({"share": 0.5, "template": "{prompt} Think."}, r"must hold \{answer\}, where the gold answer stands"),
        ({"share": 0.5, "template": "It is {answer}."}, r"must hold \{prompt\}"),
    ],
)
def test_a_share_or_template_that_cannot_be_used_is_refused(arguments, words):
    with pytest.raises(QreditError, match=words):
        hint(**arguments)


def test_each_source_has_two_rollouts_at_least():
    assert [hint(share).count(8) for share in (0.0, 0.25, 0.5, 0.75)] == [0, 2, 4, 6]
    assert hint(0.3).count(8) == 2
    for share, m in ((0.1, 8), (0.9, 8), (0.5, 3), (0.5, 2)):
        with pytest.raises(QreditError, match="two at least"):
            hint(share).count(m)
    assert hint(0.0).count(2) == 0


@pytest.mark.parametrize("chat", [False, True])
def test_hinted_prompts_are_encoded_beside_the_plain_ones(chat):
    tokens = (
        TokenFormat(Format.of(chat_tokenizer()), chat_tokenizer())
        if chat
        else TokenFormat(Format.of(tokenizer()), tokenizer())
    )
    prompts = [[{"role": "user", "content": text}] if chat else text for text in ("1?", "2?")]
    column = datasets.Dataset.from_dict({"prompt": prompts, "answer": ["1", "2"]})
    plain, _ = encode_examples(column, "answer", tokens, TokenBudget(8, 3), None, False, {}, "rows")
    both, _ = encode_examples(
        column, "answer", tokens, TokenBudget(8, 3), None, False, {}, "rows", "{prompt} It is {answer}."
    )
    assert "hinted_ids" not in plain.column_names
    assert both["prompt_ids"] == plain["prompt_ids"]
    assert both["hinted_ids"] == [
        tokens.prompt_ids(show_answer(prompt, answer, fill)) for prompt, answer in zip(prompts, ("1", "2"), strict=True)
    ]


def test_a_hint_that_does_not_fit_the_context_names_its_rows():
    tokens = TokenFormat(Format.of(tokenizer()), tokenizer())
    column = datasets.Dataset.from_dict({"prompt": ["1?", "1? " * 9], "answer": ["1", "2"]})
    plain, _ = encode_examples(column, "answer", tokens, TokenBudget(8, 3), None, False, {}, "rows")
    context = max(map(len, plain["prompt_ids"])) + 8 + 3 + len(tokens.close_ids)
    encode_examples(column, "answer", tokens, TokenBudget(8, 3), context, False, {}, "rows")
    template = "{prompt} It is {answer}."
    with pytest.raises(QreditError, match=r"rows: 1 of 2 prompts with the hint do not fit \(rows 1; longest"):
        encode_examples(column, "answer", tokens, TokenBudget(8, 3), context, False, {}, "rows", template)
    kept, dropped = encode_examples(column, "answer", tokens, TokenBudget(8, 3), context, True, {}, "rows", template)
    assert (len(kept), dropped) == (1, 1)
