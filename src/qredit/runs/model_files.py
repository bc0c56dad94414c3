"""A model folder checked file by file before anything of it is loaded, so that what is wrong is said by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from qredit.utils.errors import QreditError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_ADAPTERS = "adapter_config.json"


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that no model can be loaded from.

    Raises:
        QreditError: names the file that is missing, torn or of another kind, and what helps.
    """
    ggufs = sorted(path.name for path in folder.glob("*.gguf"))
    weights = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    if ggufs and not weights:
        raise QreditError(
            f"model folder {folder} holds GGUF weights only ({ggufs[0]}), which are not trained; save them as "
            f"safetensors first: AutoModelForCausalLM.from_pretrained(folder, gguf_file='{ggufs[0]}').save_pretrained"
        )
    config = read_json_object(folder / "config.json")
    if config is None and not (folder / _ADAPTERS).exists():
        raise QreditError(f"model folder {folder} holds no config.json; is it a model?")
    if not weights:
        raise QreditError(f"model folder {folder} holds no weights ({' or '.join(WEIGHTS)})")
    _check_shards(folder)
    read_json_object(folder / "generation_config.json")
    if config is not None:
        _check_kind(folder, config)
    else:
        check_base_model(folder)


def read_json_object(path: Path) -> Mapping[str, Any] | None:
    """The object in a JSON file; None where there is no such file.

    Raises:
        QreditError: it holds something else.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QreditError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise QreditError(f"{path} must hold a JSON object, it holds a {type(found).__name__}")
    return found


def _check_shards(folder: Path) -> None:
    """Every file that an index of shards names must be there, unless the weights are in one file beside it."""
    if (folder / "model.safetensors").exists() or (folder / "pytorch_model.bin").exists():
        return
    for name in _INDEXES:
        index = read_json_object(folder / name)
        if index is None:
            continue
        shards = index.get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise QreditError(f"{folder / name} names no files of weights (weight_map)")
        missing = sorted({str(shard) for shard in shards.values()} - {path.name for path in folder.iterdir()})
        if missing:
            raise QreditError(
                f"model folder {folder} lacks {len(missing)} of its {len(set(shards.values()))} files of weights, "
                f"first {missing[0]}; fetch them again"
            )
        return


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    """The kind of model must be one that transformers has code for; code in the folder is not run."""
    kind = config.get("model_type")
    if kind in CONFIG_MAPPING:
        return
    if config.get("auto_map"):
        raise QreditError(
            f"model folder {folder} brings code of its own (model_type {kind!r}), which is not run here; in a script, "
            "load it with trust_remote_code=True and give it to QreditTrainer"
        )
    raise QreditError(
        f"model folder {folder}: transformers knows no model_type {kind!r}; a newer one may: pip install -U "
        "transformers"
    )


def check_base_model(folder: Path) -> None:
    """The model that adapters belong to must be where they say.

    Raises:
        QreditError: names the adapters, the model and the file that says where it is.
    """
    base = (read_json_object(folder / _ADAPTERS) or {}).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise QreditError(f"{folder / _ADAPTERS} does not say which model they belong to (base_model_name_or_path)")
    path = Path(base).expanduser()
    local = path.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1
    if local and not path.is_dir():
        raise QreditError(
            f"the adapters in {folder} belong to the model {base}, which is not there; put it back, or write where it "
            f"is into {_ADAPTERS} (base_model_name_or_path)"
        )
    if path.is_dir():
        check_model_folder(path)


def get_quantization_method(config: Any) -> str | None:
    """How a model's weights are quantised, such as gptq; None where they are not."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    return str(getattr(method, "value", method) or "unknown")
