"""Whether what lies beside the weights can be saved, asked before the first step and not at the first checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from qredit.shared_prefix.support import unwrap_peft
from qredit.utils.atomic_files import is_disk_full
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error, to_one_line

_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("penalty_alpha",),
)
_BEAMS = ("early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty", "constraints")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def repair_generation_config(model: PreTrainedModel) -> str | None:
    """Leave out of a model's generation_config what transformers refuses to save; in words what was left out, or None.

    Settings that generation would ignore (of sampling where it does not sample, of beams where there are none) are
    dropped. Where that is not enough, only the ids of tokens stay. Nothing of it changes what is sampled here.
    """
    before = model.generation_config
    if before is None or (fault := _fault(before)) is None:
        return None
    model.generation_config = mended = _without_ignored(before)
    if _fault(mended) is not None:
        model.generation_config = mended = GenerationConfig(**{name: getattr(before, name, None) for name in _IDS})
    dropped = sorted(set(_given(before)) - set(_given(mended)))
    return (
        f"the model's generation_config.json cannot be saved as it is ({fault}); saved models leave out "
        f"{', '.join(dropped)}"
    )


def _fault(config: GenerationConfig) -> str | None:
    """Why a generation_config cannot be saved, on one line."""
    try:
        config.validate(strict=True)
    except Exception as error:  # whatever its checks stumble over
        lines = [line for line in str(error).splitlines() if line.strip()]
        return to_one_line((lines[1] if len(lines) > 1 else summarize_error(error)).strip(" -"))
    return None


def _without_ignored(config: GenerationConfig) -> GenerationConfig:
    sampling = () if config.do_sample else _SAMPLING
    dropped = (*sampling, *(_BEAMS if (config.num_beams or 1) == 1 else ()))
    return GenerationConfig(**{name: value for name, value in _given(config).items() if name not in dropped})


def _given(config: GenerationConfig) -> Mapping[str, Any]:
    return {name: value for name, value in config.to_diff_dict().items() if value is not None}


def check_savable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save what goes beside the weights into a folder that is thrown away.

    Raises:
        QreditError: what cannot be saved, which every checkpoint would stumble over.
    """
    base = unwrap_peft(model)
    parts: Mapping[str, Callable[[Path], Any] | None] = {
        "config": base.config.save_pretrained,
        "generation_config": base.generation_config and base.generation_config.save_pretrained,
        "tokenizer": tokenizer.save_pretrained,
    }
    with TemporaryDirectory() as folder:
        for name, save in parts.items():
            try:
                if save is not None:
                    save(Path(folder))
            except Exception as error:  # whatever a library makes of a user's file
                if is_disk_full(error):  # checkpoints go to another disk, which speaks for itself
                    return
                raise QreditError(
                    f"the model's {name} cannot be saved, so no checkpoint could be: {summarize_error(error)}"
                ) from None
