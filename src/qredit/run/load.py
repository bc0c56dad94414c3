"""Models, tokenizers and examples, loaded or refused with one clear line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from qredit import pocket, tasks
from qredit.errors import QreditError
from qredit.plain import first_line
from qredit.rollout.format import TokenFormat
from qredit.rollout.sample import Budget
from qredit.run.options import POCKET, TrainOptions
from qredit.tasks.base import Example, Split
from qredit.tasks.jsonl import jsonl
from qredit.trl.data import Rows, context_of, too_long

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def model_path(model: str, task: str, coldness: int | None) -> str:
    """Where the weights are: the pocket model's folder, a folder on disk, or a model id.

    Raises:
        QreditError: a folder without weights, a path that does not exist, a task that has no pocket model, a run.
    """
    if model == POCKET:
        return str(pocket.path(pocket.name_for(task, coldness)))
    folder = Path(model).expanduser()
    if folder.is_dir():
        if (folder / "config.yaml").is_file() and not (folder / "config.json").exists():
            raise QreditError(_of_run(folder))
        if not (folder / "config.json").exists() and not (folder / "adapter_config.json").exists():
            raise QreditError(f"model folder {folder} holds no config.json; is it a model?")
        if not any(list(folder.glob(pattern)) for pattern in _WEIGHTS):
            raise QreditError(f"model folder {folder} holds no weights ({' or '.join(_WEIGHTS)})")
        return str(folder)
    beside_runs = "/" in model and any(folder.parent.glob("*/config.yaml"))
    if folder.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1 or beside_runs:
        raise QreditError(f"no model folder {folder}")
    return model


def _of_run(folder: Path) -> str:
    if (folder / "final").is_dir():
        return f"{folder} is a run; its model is {folder / 'final'}"
    return f"the run in {folder} has no final model yet; go on with it: qredit train --resume --output {folder}"


def is_adapter(path: str) -> bool:
    """Whether a folder holds LoRA adapters without the model that they belong to."""
    return (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "config.json").is_file()


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padding to the left as sampling needs it.

    Raises:
        QreditError: there is none, or it cannot be reached, or it has no token to pad with.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    except (OSError, ValueError) as error:
        raise QreditError(f"no tokenizer for model '{path}': {first_line(error)}") from None
    if not tokenizer("text", add_special_tokens=False)["input_ids"]:
        # transformers makes an empty one for a folder without tokenizer files
        raise QreditError(f"no tokenizer for model '{path}': its vocabulary is empty")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise QreditError(f"the tokenizer of model '{path}' has neither a padding nor an end-of-text token")
    return tokenizer


def load_model(path: str, device: torch.device | None = None) -> PreTrainedModel:
    """The model with float32 weights, on the CPU if no device is given.

    Raises:
        QreditError: it cannot be loaded, or its files lack some of the weights.
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise QreditError(f"cannot load model '{path}': {first_line(error)}") from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise QreditError(f"model '{path}' lacks {len(missing)} of its weights, first '{missing[0]}'")
    return model if device is None else model.to(device)


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a text, by the model's own settings and the tokenizer's."""
    own = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    return sorted(ids)


def load_examples(options: TrainOptions, split: Split, limit: int | None = None) -> list[Example]:
    """The examples of a split of the run's task.

    A single file has no splits. Where the run validates, its first `eval_questions` examples, in the order of the hash
    of their id, are held out for that and not trained on.

    Raises:
        QreditError: as `Task.load`; holding them out leaves nothing to train on.
    """
    task = jsonl(options.answer_column) if options.task == "jsonl" else tasks.get(options.task)
    if split != "test" and options.eval_every and options.data and is_file(options.data):
        everything = task.load(options.data, "train", options.style)
        held, rest = everything[: options.eval_questions], everything[options.eval_questions :]
        if not rest:
            raise QreditError(
                f"{options.data} has {len(everything)} examples, and eval_questions={options.eval_questions} of them "
                "are held out for validation; lower it, or give a folder with train and validation files"
            )
        return (held if split == "validation" else rest)[:limit]
    return task.load(options.data, split, options.style, limit)


def is_file(data: str) -> bool:
    """Whether the data is one file, and not a folder or a data set on the Hub."""
    return Path(data).expanduser().is_file()


def as_chat(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, chat: bool | None) -> list[Any]:
    """The prompts, texts put into a user message if the tokenizer has a chat template (or `chat` says so).

    Raises:
        QreditError: `chat` is on and there is no template.
    """
    if chat and not tokenizer.chat_template:
        raise QreditError("chat is on, but the tokenizer has no chat template")
    wrap = bool(tokenizer.chat_template) if chat is None else chat
    return [
        [{"role": "user", "content": example.prompt}] if wrap and isinstance(example.prompt, str) else example.prompt
        for example in examples
    ]


def ready(
    examples: Sequence[Example],
    tokens: TokenFormat,
    model: PreTrainedModel,
    budget: Budget,
    *,
    chat: bool | None,
    skip_long: bool,
    template: Mapping[str, Any],
    name: str,
) -> list[Example]:
    """The examples to be answered: their prompts as chat if need be, those that do not fit the context left out.

    Raises:
        QreditError: prompts that do not fit, unless `skip_long`; none left.
    """
    prompts = as_chat(examples, tokens.tokenizer, chat)  # type: ignore[arg-type]
    wrapped = [replace(example, prompt=prompt) for example, prompt in zip(examples, prompts, strict=True)]
    rows = Rows.of([example.id for example in examples], len(examples), name)
    ids = [rows.of_prompt(row, tokens, prompt, template) for row, prompt in enumerate(prompts)]
    context = context_of(model)
    long = too_long(ids, [budget.answer] * len(ids), tokens, budget, context)
    rows.check_long(long, ids, budget, context, skip_long)
    dropped = set(long)
    return [example for row, example in enumerate(wrapped) if row not in dropped]


def as_dataset(examples: Sequence[Example], prompts: Sequence[Any]) -> Dataset:
    """The columns that the trainer and the rewards read."""
    return Dataset.from_dict(
        {
            "prompt": list(prompts),
            "answer": [example.answer for example in examples],
            "aliases": [list(example.aliases) for example in examples],
            "id": [example.id for example in examples],
        }
    )
