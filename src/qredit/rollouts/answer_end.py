"""What has to be said of the end of answers: where its sources disagree, and where answers do not come to it."""

from collections.abc import Iterable, Mapping
from typing import Any

from qredit.rollouts.chat_template import find_end_of_turn
from qredit.rollouts.format import TokenFormat, is_chat

LARGE_SHARE = 0.25


def describe_end_conflict(
    tokens: TokenFormat, stops: Iterable[int], template: Mapping[str, Any] | None = None
) -> str | None:
    """One line where format, tokenizer, the model's generation config and the chat template end texts differently.

    Args:
        tokens: the layout of a completion, as ids of this tokenizer.
        stops: the ids that the model's generation config stops at; none where it names none.
        template: switches of the chat template.
    """
    tokenizer, form, stops = tokens.tokenizer, tokens.format, list(stops)
    end, others = tokens.end_ids[-1:], []
    turns = find_end_of_turn(tokenizer, template or {}) if tokenizer.chat_template else None
    if turns is not None and turns != form.end:
        others.append(f"a turn of its chat template, which is not used for the end, ends with {turns!r}")
    if not tokens.stop_ids and form.end_from == "answer_end":
        return None  # a textual end that was asked for: no end-of-text is expected to be it
    if tokenizer.eos_token_id not in end:
        others.append(f"the tokenizer's end-of-text is {tokenizer.eos_token!r}")
    if stops and not set(end) & set(stops):
        names = " or ".join(repr(tokenizer.decode([id])) for id in stops)
        others.append(f"the model's generation config stops at {names}")
    if not others:
        return None
    return f"answers end with {form.end!r} (from {form.end_from}); {'; '.join(others)}; set answer_end if it is wrong"


def describe_plain_prompts(tokens: TokenFormat, prompts: Iterable[Any]) -> str | None:
    """One line where a tokenizer has a chat template and prompts are plain texts, which do not go through it."""
    if not tokens.tokenizer.chat_template or is_chat(prompts, tokens.tokenizer):
        return None
    return (
        "the prompts are plain texts and do not go through the tokenizer's chat template; to ask the model in a chat, "
        'give lists of messages: [{"role": "user", "content": …}]'
    )


def describe_unended_answers(share: float, end: str) -> str | None:
    """One line where a large share of sampled answers was cut off at the answer budget."""
    if not share >= LARGE_SHARE:
        return None
    return f"{100 * share:.0f} % of sampled answers did not end by themselves: is answer_end right? It is {end!r}"


def get_eos_token_ids(model: Any) -> list[int]:
    """The ids that a model's generation config stops at."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if own is None else [own] if isinstance(own, int) else list(own)
