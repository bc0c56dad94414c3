"""The tokenizer of the pocket models: one token per piece of the pocket language, one per byte of anything else."""

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from qredit.tasks.pocket.language import PIECES

PAD, END, OPENING, CLOSING = "<pad>", "<end>", "<think>", "</think>"
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_MAX_LENGTH = 512


def build(pieces: Sequence[str] = PIECES) -> Any:
    """A transformers tokenizer: fewest pieces, so that a name is its two syllables and a digit is one token.

    Nothing is added around a text, there is no chat template, and decoding gives back the text that was encoded. Text
    outside these pieces is spelt in UTF-8 bytes, which no pocket model was trained on.
    """
    specials = (PAD, END, OPENING, CLOSING)
    vocabulary = (*specials, *pieces, *_BYTES)
    core = Tokenizer(models.Unigram([(piece, -1.0) for piece in vocabulary], unk_id=0, byte_fallback=True))
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[OPENING, CLOSING],
        clean_up_tokenization_spaces=False,
        model_max_length=_MAX_LENGTH,
        padding_side="left",
    )
