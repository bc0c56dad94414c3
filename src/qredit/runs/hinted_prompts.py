"""Prompts that show the gold answer, looked at before any model is loaded: a comparison refuses an arm at its start."""

from pathlib import Path

from transformers import AutoConfig

from qredit.engine.model_limits import read_context_length
from qredit.runs.load import (
    apply_chat_format,
    explain_gold_need,
    find_weights,
    load_examples,
    load_tokenizer,
    make_dataset,
)
from qredit.runs.options import TrainOptions
from qredit.runs.train import make_config, make_token_format
from qredit.trl.checks import choose_hint_template
from qredit.trl.dataset_encoding import encode_examples


def check_hinted_prompts(options: TrainOptions) -> None:
    """Refuse a run whose prompts do not fit the model's context once its objective shows them with the gold answer.

    Args:
        options: of the run. Episodes are left to the trainer, which knows what their tools say.

    Raises:
        QreditError: as `encode_examples`.
    """
    shown = choose_hint_template(options.make_objective())
    if shown is None or options.env or options.tools:
        return
    args, path = make_config(options, Path()), find_weights(options)
    tokenizer = load_tokenizer(path)
    examples = load_examples(options, "train", options.get_subset_size(), explain_gold_need(options))
    encode_examples(
        make_dataset(examples, apply_chat_format(examples, tokenizer, options.chat)),
        args.answer_column,
        make_token_format(options, tokenizer, examples),
        args.budget,
        read_context_length(AutoConfig.from_pretrained(path)),
        args.skip_long,
        args.chat_template_kwargs or {},
        "train_dataset",
        hint_template=shown,
    )
