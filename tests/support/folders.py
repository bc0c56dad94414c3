"""What a run reads and leaves on disk: tiny model folders, question files, options that make a run short."""

import json
from pathlib import Path

from tests.support.tiny import chat_tokenizer, model, tokenizer

SHORT = {
    "steps": 2,
    "m": 2,
    "prompts_per_step": 2,
    "max_completion_length": 8,
    "answer_budget": 3,
    "lr": 1e-2,
}


def model_folder(folder: Path, chat: bool = False, **changes) -> Path:
    """A tiny model of one layer and its tokenizer, loadable with from_pretrained."""
    model(**{"num_hidden_layers": 1} | changes).save_pretrained(folder)
    (chat_tokenizer() if chat else tokenizer()).save_pretrained(folder)
    return folder


def rows(count: int = 6, **columns) -> list[dict]:
    """Records of prompt and answer; `columns` rename or add, as functions of the row's number."""
    made = {"prompt": lambda n: f"What is {n}? ", "answer": str} | columns
    return [{name: value(n) for name, value in made.items() if value is not None} for n in range(count)]


def data_file(path: Path, records: list[dict] | None = None) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in (rows() if records is None else records)))
    return path


def flags(**options) -> list[str]:
    """The command line of some options; True is a bare flag."""
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
