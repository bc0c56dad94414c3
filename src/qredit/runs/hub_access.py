"""Whether a model id can be loaded: from the Hub, from what was fetched before, or not at all, said at once."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from qredit.runs.options import POCKET
from qredit.runs.smollm2 import SMOLLM2
from qredit.utils.errors import QreditError, find_nearest
from qredit.utils.sanitize import summarize_error

_OWN_NAMES = (POCKET, SMOLLM2)
_PATIENCE = 10.0  # seconds for the Hub's first answer


@lru_cache
def resolve_load_kwargs(model: str) -> dict[str, Any]:
    """How `from_pretrained` is to be called for a model: with nothing, or for local files alone where the Hub is away.

    One short question is asked first, for loading itself asks five times for every file, with growing pauses.

    Raises:
        QreditError: a model id that is neither on the Hub nor fetched before, or that asks for a licence first.
    """
    if Path(model).is_dir():
        return {}
    try:
        HfApi().model_info(model, timeout=_PATIENCE)
    except GatedRepoError:
        raise QreditError(
            f"model '{model}' is given out only to those who accepted its licence: do so on its page, then log in "
            "with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise QreditError(f"no model '{model}'{_suggest(model)}: no folder here and no public id on the Hub") from None
    except Exception as error:  # no network, a proxy, offline mode: whatever the client makes of it
        if _fetched(model):
            return {"local_files_only": True}
        raise QreditError(
            f"model '{model}'{_suggest(model)} is no folder here and was not fetched before, and the Hub cannot be "
            f"reached: {summarize_error(error)}"
        ) from None
    return {}


def _suggest(model: str) -> str:
    """The nearest of the names that are no ids, for an error."""
    nearest = find_nearest(model, _OWN_NAMES)
    return "" if nearest is None else f" (did you mean '{nearest}'?)"


def _fetched(model: str) -> bool:
    """Whether the cache holds a model's config, or that of its adapters."""
    return any(isinstance(_cached(model, name), str) for name in ("config.json", "adapter_config.json"))


def _cached(model: str, name: str) -> object:
    try:
        return try_to_load_from_cache(model, name)
    except ValueError:  # no possible id
        return None
