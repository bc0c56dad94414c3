"""A tiny tokenizer and model for the tests: byte-level BPE with thinking tags, and a Qwen3 with random weights."""

from functools import lru_cache

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<pad>", "<end>", "<think>", "</think>"]
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% elif opened %}<think>\n{% endif %}{% endif %}"
)
QWEN_PATTERN = (  # of the Qwen2 and Qwen3 tokenizers' configuration
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = [
    "the cat lives in the house. What is two and two? four Answer:\nParis is big, London is bigger.",
    "one two three four five six seven eight nine ten 0 1 2 3 4 5 6 7 8 9 10 12 the cat the house",
]


@lru_cache
def tokenizer(thinking: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE, about 300 tokens; without `thinking` there are no thinking tags."""
    special = SPECIAL if thinking else SPECIAL[:2]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXT * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<pad>")


@lru_cache
def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained here behind Qwen's pre-tokenisation: NFC, its pattern, a digit at a time."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*TEXT, "one\n\n Paris and\n\n the cat\n\n"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<pad>")


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """The same with a chat template that has a thinking switch, and can open the thinking span itself."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer, eos_token="<end>", pad_token="<pad>", chat_template=CHAT
    )


def model(seed: int = 0, **changes) -> Qwen3ForCausalLM:
    """Two layers, about 60 thousand parameters, float32."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    return Qwen3ForCausalLM(Qwen3Config(**(settings | changes)))
