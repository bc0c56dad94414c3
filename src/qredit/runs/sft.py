"""A run of supervised fine-tuning: from options to a run folder with a final model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from qredit import tasks
from qredit.callbacks.metrics_file import MetricsWriter
from qredit.data.demonstrations import Demonstration, encode_demonstrations, leave_out_long
from qredit.data.rows import RowNames
from qredit.engine.model_limits import get_context_length
from qredit.rewards.reward_spec import choose_eval_rewards, parse_rewards
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.tokenizer import digest_vocabulary, vocabulary_size
from qredit.runs.folder import RunFolder
from qredit.runs.lifecycle import TrainResult, run_to_the_end
from qredit.runs.load import apply_chat_format, load_data, load_examples, load_held_out, load_tokenizer
from qredit.runs.offline import list_model_facts, make_offline_config
from qredit.runs.sft_options import SHOWN, SftOptions
from qredit.runs.source_run import read_records
from qredit.runs.train import (
    load_trainable_model,
    make_lora_config,
    make_token_format,
    make_validation,
    reraise_as_qredit_error,
    resolve_trainable_model,
)
from qredit.runs.warmup import WarmupSftTrainer, make_lr_schedule
from qredit.tasks.base import Example
from qredit.tasks.overlap import count_overlap
from qredit.tasks.table import read_text_column
from qredit.trl.dataset_encoding import check_enough
from qredit.trl.sft_config import SftConfig
from qredit.utils.errors import QreditError


def finetune(options: SftOptions, output: Path, console: Console, resume: bool = False) -> TrainResult:
    """Run the fine-tuning; progress goes to `console`.

    Args:
        options: of the run.
        output: the run folder.
        console: where progress is shown.
        resume: go on from its newest whole checkpoint.

    Raises:
        QreditError: anything that cannot be used, before any compute; a run folder in use, or another run's.
    """
    return run_to_the_end(
        output, options.run, options.as_dict(), lambda folder: build_sft_trainer(options, folder), console, resume
    )


def build_sft_trainer(options: SftOptions, folder: RunFolder) -> tuple[WarmupSftTrainer, dict[str, Any]]:
    """The trainer of a run, and what is worth recording about its data.

    Raises:
        QreditError: anything that cannot be used.
    """
    run = options.run
    rewards = parse_rewards(run.rewards)
    path = resolve_trainable_model(run)
    schedule = make_lr_schedule(run.lr_schedule)
    args = make_offline_config(SftConfig, run, options.learning_rate, folder.path)
    tokenizer = load_tokenizer(path)
    data = (read_examples if options.shown.completions is None else read_completions)(options, tokenizer)
    notes: list[str] = []
    model = load_trainable_model(run, path, notes)
    shown = leave_out_long(data.encoded, data.rows, get_context_length(model), run.skip_long)
    check_enough(len(shown), run.prompts_per_step, data.rows.where)
    judged = choose_eval_rewards(rewards, tasks.get(run.task).metrics, data.judged)
    validation = make_validation(run, judged, tokenizer, model, folder, guard=None)
    with reraise_as_qredit_error(ValueError, ImportError):
        trainer = WarmupSftTrainer(
            model,
            args,
            shown,
            data.tokens,
            run.sampling_budget,
            run.template,
            tokenizer,
            objective=options.label,
            token_rule=options.token_rule,
            chat=data.chat,
            callbacks=[MetricsWriter(folder.metrics), *filter(None, (validation,))],
            peft_config=make_lora_config(run),
        )
    trainer.use_optimizer(run.optimizer)
    trainer.lr_schedule = schedule
    trainer.remove_callback(PrinterCallback)
    if validation is not None:
        validation.run = trainer
    facts = {
        "train_examples": len(data.encoded),
        "train_prompts": len(shown),
        "completion_tokens": sum(len(one.completion_ids) for one in shown),
        "unparseable_golds": len(rewards[0].unparseable(data.examples)),
        **data.facts,
        **list_model_facts(trainer, model, path, notes),
    }
    return trainer, facts


@dataclass(frozen=True)
class ShownData:
    """What a run shows, before any model is loaded.

    Attributes:
        encoded: a demonstration for each row.
        rows: their names, for errors.
        tokens: the layout of a completion, as ids of the model's tokenizer.
        chat: prompts go through the chat template.
        examples: the questions whose answers are shown; none where completions are given as ids.
        judged: examples by which the rewards of validations are chosen.
        facts: what else is worth recording.
    """

    encoded: Sequence[Demonstration]
    rows: RowNames
    tokens: TokenFormat
    chat: bool
    examples: Sequence[Example]
    judged: Sequence[Example]
    facts: Mapping[str, Any]


def read_examples(options: SftOptions, tokenizer: PreTrainedTokenizerBase) -> ShownData:
    """The answers of the run's data, with rationales where they are asked for.

    Args:
        options: of the run.
        tokenizer: of the model.

    Raises:
        QreditError: as `load_data`, `read_rationales` and `encode_demonstrations`.
    """
    run = options.run
    data = load_data(run, "train", run.get_subset_size(), SHOWN)
    rationales = read_rationales(options, data.examples)
    tokens = make_token_format(run, tokenizer, data.examples)
    rows = RowNames.of([example.id for example in data.examples], len(data.examples), f"{run.task} train")
    prompts = apply_chat_format(data.examples, tokenizer, run.chat)
    answers = [example.gold for example in data.examples]
    budget = run.budget[1]
    return ShownData(
        encode_demonstrations(prompts, answers, rationales, rows, tokens, run.template),
        rows,
        tokens,
        chat=any(not isinstance(prompt, str) for prompt in prompts),
        examples=data.examples,
        judged=data.examples,
        facts={
            "without_rationale": sum(not text for text in rationales) if options.shows_rationales else 0,
            "answers_over_budget": sum(len(tokens.answer_ids(answer)) > budget for answer in answers),
            "data_notes": list(data.notes),
            "overlap": asdict(count_overlap(data.examples, load_held_out(run))),
        },
    )


def read_completions(options: SftOptions, tokenizer: PreTrainedTokenizerBase) -> ShownData:
    """The completions of a file of token ids. Of the run's data only what validations ask is read.

    Args:
        options: of the run.
        tokenizer: of the model.

    Raises:
        QreditError: as `read_records`, a row of another vocabulary among them; no rows.
    """
    run, file = options.run, Path(str(options.shown.completions)).expanduser()
    vocabulary, size = digest_vocabulary(tokenizer), vocabulary_size(tokenizer)
    encoded = read_records(file, lambda record: Demonstration.from_record(record, vocabulary, size), finished=True)
    if not encoded:
        raise QreditError(f"{file} holds no rows")
    judged = load_examples(run, "validation", run.eval_questions) if run.eval_every else ()
    return ShownData(
        encoded,
        RowNames.of(None, len(encoded), str(file)),
        make_token_format(run, tokenizer),
        chat=bool(tokenizer.chat_template) if run.chat is None else run.chat,
        examples=(),
        judged=judged,
        facts={"without_rationale": 0, "answers_over_budget": 0, "data_notes": []},
    )


def read_rationales(options: SftOptions, examples: Sequence[Example]) -> list[str]:
    """The rationale that is shown with each example; an empty text where the answer alone is.

    Raises:
        QreditError: a column that is not there, with the nearest one; a value that is no text, with its row; a task
            that has no rationales.
    """
    column = options.shown.rationale_column
    if column is not None:
        return read_text_column(column, examples, str(options.run.data), "rationale column")
    if not options.shown.rationales:
        return [""] * len(examples)
    if not any(example.rationale for example in examples):
        raise QreditError(f"task {options.run.task} has no rationales; leave rationales out to show answers alone")
    return [example.rationale or "" for example in examples]
