"""What is used of a tokenizer, and text turned into the ids that it has inside a longer text."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

_ANCHORS = ("\n", "a", "0", ".", ")", "a\n")


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    eos_token: str | None
    eos_token_id: int | None
    chat_template: Any

    def __call__(self, text: Any, **kwargs: Any) -> Any: ...
    def __len__(self) -> int: ...
    def decode(self, token_ids: Any, **kwargs: Any) -> str: ...
    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]: ...
    def get_vocab(self) -> dict[str, int]: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """The largest id + 1: what a model needs rows for. `len(tokenizer)` counts tokens, and ids may have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def encode(tokenizer: Tokenizer, text: str, special: bool = False) -> list[int]:
    """Token ids of a text; `special` adds what the tokenizer puts around a whole sequence (such as a BOS token).

    Args:
        tokenizer: of the model.
        text: to be encoded.
        special: add what stands around a whole sequence.
    """
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def encode_all(tokenizer: Tokenizer, texts: Sequence[str], special: bool = False) -> list[list[int]]:
    """Token ids of several texts, each as by `encode`, in one call: ten times as fast as one call for each.

    Args:
        tokenizer: of the model.
        texts: to be encoded.
        special: add what stands around a whole sequence.
    """
    if not texts:
        return []
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=special)["input_ids"]]


def list_encodings_in_context(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """The ids that a text can have inside a longer one, the usual ones first; never none.

    SentencePiece tokenizers put a space before a text, and some do so after every control token. The text is therefore
    encoded behind an anchor, and the anchor's own ids are taken off; one that merges with the text is passed over.
    Tokenizers that treat the start of a text as any other place give the ids of the text alone.
    """
    alone, *encoded = encode_all(tokenizer, [text, *_ANCHORS, *(anchor + text for anchor in _ANCHORS)])
    anchors, wholes = encoded[: len(_ANCHORS)], encoded[len(_ANCHORS) :]
    found = [
        whole[len(before) :]
        for before, whole in zip(anchors, wholes, strict=True)
        if before and whole[: len(before)] == before
    ]
    ordered = [alone, *found] if alone in found or not found else found
    return [ids for number, ids in enumerate(ordered) if ids not in ordered[:number]]


def encode_in_context(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids that a text has inside a longer one, where nothing merges with it."""
    return list_encodings_in_context(tokenizer, text)[0]


def encode_prompts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of prompts that go through no chat template: what the tokenizer puts before a text, then the text.

    A beginning-of-text token that a text spells itself is not doubled. What the tokenizer would put behind a text,
    such as an end-of-text token, is left out: a prompt is to be continued.

    Args:
        tokenizer: of the model.
        texts: of the prompts.
    """
    bos = _bos(tokenizer)
    whole, plain = encode_all(tokenizer, texts, special=True), encode_all(tokenizer, texts)
    return [_without_end(ids, text_ids, bos) for ids, text_ids in zip(whole, plain, strict=True)]


def _without_end(whole: list[int], plain: list[int], bos: int | None) -> list[int]:
    """A whole sequence without what stands behind its text.

    Args:
        whole: ids of the text with what stands around it.
        plain: ids of the text alone.
        bos: the beginning-of-text token.
    """
    if not plain:
        return whole
    start = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), None)
    if start is None:
        return whole
    before = whole[:start]
    return plain if before and before[-1] == plain[0] == bos else before + plain


def get_control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """The tokens that are no text but structure: those that the tokenizer marks as special, with their ids."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {str(token): id for id, token in added.items() if token.special}
    named: Iterable[str] = getattr(tokenizer, "all_special_tokens", ())
    vocabulary = tokenizer.get_vocab()
    return marked | {text: vocabulary[text] for text in named if text in vocabulary}


def find_first_control_token(text: str, control: Iterable[str]) -> tuple[int, str] | None:
    """Where the first control token of a text stands, and which it is; the longest if several begin there."""
    found = [(text.index(token), -len(token), token) for token in control if token and token in text]
    return (min(found)[0], min(found)[2]) if found else None


def _bos(tokenizer: Tokenizer) -> int | None:
    return getattr(tokenizer, "bos_token_id", None)


def digest_vocabulary(tokenizer: Tokenizer) -> str:
    """What tells vocabularies apart: a hash of all tokens with their ids."""
    entries = sorted((id, token) for token, id in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]
