"""Saved models stop where answers end: transformers and vLLM read the ids of it from generation_config.json."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import GenerationConfig, PreTrainedModel

from qredit.rollouts.answer_end import get_eos_token_ids
from qredit.rollouts.format import TokenFormat


def list_answer_stops(format: TokenFormat) -> list[int]:
    """The id that ends an answer, where it ends nothing else; none for an end that is mere text.

    A mere text may stand inside thinking as well, and transformers' `generate` would refuse to run without a tokenizer.

    Args:
        format: the layout of a completion, as ids of this tokenizer.
    """
    return [id for id in format.stop_ids if id not in format.close_ids]


@contextmanager
def ready_to_serve(model: PreTrainedModel, stops: Sequence[int]) -> Iterator[None]:
    """For as long as a model is saved: generation stops at these ids, too, and keeps the keys of earlier tokens.

    transformers' Trainer switches `use_cache` off, and a saved model would stay so.

    Args:
        model: without adapters.
        stops: ids that end a text.
    """
    config, cached = model.generation_config, getattr(model.config, "use_cache", True)
    model.generation_config = _stopping_at(config, get_eos_token_ids(model), stops)
    model.config.use_cache = True
    try:
        yield
    finally:
        model.generation_config, model.config.use_cache = config, cached


def _stopping_at(config: GenerationConfig | None, known: Sequence[int], stops: Sequence[int]) -> GenerationConfig:
    """A copy of the config with further ids that end a text; those that it has come first."""
    made = GenerationConfig() if config is None else GenerationConfig.from_dict(config.to_dict())
    ids = list(dict.fromkeys([*known, *stops]))
    if ids:
        made.eos_token_id = ids[0] if len(ids) == 1 else ids
    return made
