"""Models, tokenizers and examples, loaded or refused with one clear line."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from qredit import pocket, tasks
from qredit.core.field_names import ANSWER_FIELDS
from qredit.data.rows import RowNames, find_too_long
from qredit.engine.gold_reader import find_gold_reader
from qredit.engine.model_limits import check_vocabulary, get_context_length
from qredit.engine.savable import repair_generation_config
from qredit.environments.names import adapt_task
from qredit.rewards.reward_spec import collect_columns, parse_rewards
from qredit.rollouts.field_maker import FieldMaker
from qredit.rollouts.format import TokenFormat
from qredit.runs.episodes import get_whole_budget, tell_tools
from qredit.runs.hub_access import resolve_load_kwargs
from qredit.runs.model_files import check_base_model, check_model_folder, get_quantization_method
from qredit.runs.options import POCKET, TrainOptions
from qredit.runs.smollm2 import SMOLLM2, smollm2_path
from qredit.tasks.alias_use import keep_rewarded
from qredit.tasks.base import NEEDED, Example, ExamplesWithNotes, Split, Task
from qredit.tasks.few_shot import read_few_shot
from qredit.tasks.files import find_single_file
from qredit.tasks.jsonl import make_jsonl_task
from qredit.tasks.normal_forms import normalize_prompt
from qredit.tasks.prompt_text import add_instructions
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error


def find_weights(options: TrainOptions, model: str | None = None) -> str:
    """Where the weights of a run are, or those of another model on its task; see `resolve_model_path`.

    Args:
        options: of the run.
        model: in the place of the run's own.
    """
    return resolve_model_path(options.model if model is None else model, options.task, options.coldness, options.env)


def resolve_model_path(model: str, task: str, coldness: int | None, env: str | None = None) -> str:
    """Where the weights are: the pocket model's folder, that of `smollm2` in the cache, another on disk, or a model id.

    A folder is given as an absolute path, since runs are moved.

    Args:
        model: as it was given.
        task: name of the task, whose own model pocket is.
        coldness: which pocket-dial model.
        env: name of the environment, some of which have a pocket model of their own.

    Raises:
        QreditError: a folder that no model can be loaded from, a path that does not exist, a task that has no pocket
            model, a run.
    """
    if model == POCKET:
        return str(pocket.get_model_path(pocket.get_model_name(task, coldness, env)))
    folder = Path(model).expanduser()
    if model == SMOLLM2 and not folder.exists():
        return str(smollm2_path())
    if folder.is_dir():
        if (folder / "config.yaml").is_file() and not (folder / "config.json").exists():
            raise QreditError(_explain_run_folder(folder))
        check_model_folder(folder)
        return str(folder.resolve())
    beside_runs = "/" in model and any(folder.parent.glob("*/config.yaml"))
    if folder.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1 or beside_runs:
        raise QreditError(f"{folder} is a file, no model folder" if folder.is_file() else f"no model folder {folder}")
    return model


def _explain_run_folder(folder: Path) -> str:
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
    how = resolve_load_kwargs(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False, **how)
    except Exception as error:  # its files are the user's: the libraries below stumble over them in their own ways
        raise QreditError(f"no tokenizer for model '{path}': {_format_error(error)}") from None
    if not tokenizer("text", add_special_tokens=False)["input_ids"]:
        # transformers makes an empty one for a folder without tokenizer files
        raise QreditError(f"no tokenizer for model '{path}': its vocabulary is empty")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise QreditError(f"the tokenizer of model '{path}' has neither a padding nor an end-of-text token")
    return tokenizer


def load_model(
    path: str,
    device: torch.device | None = None,
    notes: list[str] | None = None,
    quantization: BitsAndBytesConfig | None = None,
) -> PreTrainedModel:
    """The model with float32 weights, on the CPU if no device is given.

    Of quantised weights the others (embeddings, norms, head) have the type that products are computed in, and all lie
    where they were quantised: on the accelerator, if there is one.

    A generation_config that could not be saved again is mended.

    Args:
        path: folder or model id.
        device: None is the CPU.
        notes: is told what was mended.
        quantization: how weights of linear layers are held; None is as they are.

    Raises:
        QreditError: it cannot be loaded, its files lack some of the weights, or it is to be quantised and is already.
    """
    how = resolve_load_kwargs(path)
    if is_adapter(path):
        check_base_model(Path(path))
    dtype = torch.float32
    if quantization is not None:
        if already := _describe_quantization(path):
            raise QreditError(f"model '{path}' cannot be held in four bits: {already}leave load_in_4bit out")
        dtype = quantization.bnb_4bit_compute_dtype
        how = {**how, "quantization_config": quantization} | ({} if device is None else {"device_map": {"": device}})
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, output_loading_info=True, trust_remote_code=False, **how
        )
    except Exception as error:  # as above
        raise QreditError(f"cannot load model '{path}': {_describe_quantization(path)}{_format_error(error)}") from None
    method = get_quantization_method(model.config)
    if method is not None and getattr(model, "hf_quantizer", None) is None:
        raise QreditError(f"the weights of model '{path}' are quantised ({method}), which transformers does not know")
    missing = sorted(found["missing_keys"])
    if missing:
        raise QreditError(f"model '{path}' lacks {len(missing)} of its weights, first '{missing[0]}'")
    mended = repair_generation_config(model)
    if mended is not None and notes is not None:
        notes.append(mended)
    return model if device is None or quantization is not None else model.to(device)


def _format_error(error: Exception) -> str:
    """What a library says of a file in one line, with its type where that is no error of input."""
    said = summarize_error(error)
    return said if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: {said}"


def _describe_quantization(path: str) -> str:
    """The beginning of an error for a quantised model, by its config alone."""
    with contextlib.suppress(Exception):
        method = get_quantization_method(
            AutoConfig.from_pretrained(path, trust_remote_code=False, **resolve_load_kwargs(path))
        )
        return "" if method is None else f"its weights are quantised ({method}); "
    return ""


def check_trainable(model: PreTrainedModel, path: str, lora: bool) -> None:
    """Refuse quantised weights where nothing could be trained.

    Args:
        model: as it was loaded.
        path: for the error.
        lora: adapters are trained.

    Raises:
        QreditError: names the kind of quantisation, and what can be trained instead.
    """
    method = get_quantization_method(model.config)
    if method is None:
        return
    able = getattr(getattr(model, "hf_quantizer", None), "is_trainable", False)
    if not lora or not able:
        helps = "give lora, or the model that it was made from" if able else "give the model that it was made from"
        raise QreditError(f"the weights of model '{path}' are quantised ({method}) and cannot be trained; {helps}")


def get_stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a text, by the model's own settings and the tokenizer's."""
    own = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    return sorted(ids)


def load_examples(
    options: TrainOptions, split: Split, limit: int | None = None, needed: str | None = NEEDED
) -> list[Example]:
    """The examples of `load_data`, without its notes.

    Args:
        options: of the run.
        split: train, validation or test.
        limit: how many at most; None is all.
        needed: as in `load_data`.
    """
    return load_data(options, split, limit, needed).examples


def load_data(
    options: TrainOptions, split: Split, limit: int | None = None, needed: str | None = NEEDED
) -> ExamplesWithNotes:
    """The examples of a split of the run's task, and what has to be said about how they were read.

    A single file has no splits. Its first `held_out` examples, in the order of the hash of their id, are kept for
    validation, and no row that asks the same is trained on.

    Args:
        options: of the run.
        split: train, validation or test.
        limit: how many at most; None is all.
        needed: why every example must have an answer, for errors (`explain_gold_need`); None where none need have one.

    Raises:
        QreditError: as `Task.loaded`; holding them out leaves nothing to train on; `hold_out` for data with
            splits.
    """
    return load_data_of_task(get_task(options, needed), options, split, limit)


def load_data_of_task(task: Task, options: TrainOptions, split: Split, limit: int | None = None) -> ExamplesWithNotes:
    """What `load_data` gives, read by another form of the run's task, such as one that keeps more of each record.

    Args:
        task: in the place of the run's own.
        options: of the run.
        split: train, validation or test.
        limit: how many at most; None is all.

    Raises:
        QreditError: as `load_data`.
    """
    if options.hold_out and not is_single_file(options):
        raise QreditError(f"hold_out is for a single file; {options.data or options.task} has splits of its own")
    if split != "test" and options.held_out and is_single_file(options):
        everything = task.loaded(options.data, "train", options.style)
        held, rest = _split_validation(everything.examples, options.held_out)
        if not rest:
            name = "hold_out" if options.hold_out else "eval_questions"
            raise QreditError(
                f"{options.data} has {len(everything.examples)} examples, and {name}={options.held_out} "
                "of them are held out for validation; lower it, or give a folder with train and validation files"
            )
        lost = len(everything.examples) - len(held) - len(rest)
        notes = [f"{lost} rows ask what is held out for validation and are left out"] if lost else []
        found = ExamplesWithNotes((held if split == "validation" else rest)[:limit], (*everything.notes, *notes))
    else:
        found = task.loaded(options.data, split, options.style, limit)
    shots = [] if options.few_shot is None else read_few_shot(options.few_shot)
    asked = [add_instructions(one, options.system_prompt, options.instruction, shots) for one in found.examples]
    return ExamplesWithNotes(asked, found.notes)


def load_held_out(options: TrainOptions) -> list[Example]:
    """What a model of the run is judged by, as far as it lies beside the training data.

    That is what validation is drawn from, where rows are held out for it, and the validation and test files of a
    folder. Generated tasks share no question between their splits.

    Args:
        options: of the run.

    Raises:
        QreditError: as `load_data`, of the rows that the run validates by.
    """
    found = load_examples(options, "validation", needed=None) if options.eval_every or options.held_out else []
    if options.data is None or is_single_file(options) or not Path(options.data).expanduser().is_dir():
        return found
    beside: tuple[Split, ...] = ("test",) if found else ("validation", "test")
    for split in beside:
        with contextlib.suppress(QreditError):  # it is not there, or cannot be read: the run reads none of it
            found += load_examples(options, split, needed=None)
    return found


def explain_gold_need(options: TrainOptions) -> str | None:
    """Why every example of a run must have an answer, for errors; None where the run reads none.

    Raises:
        QreditError: as `parse_rewards`, `make_objective` and `make_fields`.
    """
    for name, maker in options.make_fields().items():
        if isinstance(maker, FieldMaker) and maker.reads_gold:
            return f"field {name} shows it"
    rewards = [reward.function for reward in parse_rewards(options.rewards)]
    return find_gold_reader(options.make_objective(), rewards, options.training.get("hint_failed"))


def get_task(options: TrainOptions, needed: str | None = NEEDED) -> Task:
    """The run's task, with the passages and for the environment that the options choose; of own rows, their columns.

    Args:
        options: of the run.
        needed: as in `load_data`.
    """
    if options.task == "jsonl":
        return make_jsonl_task(options.answer_column, options.prompt_column, options.aliases_column, needed)
    return adapt_task(options.env, tasks.get(options.task).show_passages(options.passages))


def check_objective_of_task(options: TrainOptions) -> None:
    """Refuse an objective that reads the likelihood of an answer where an example may have several right ones.

    Raises:
        QreditError: as `check_single_answer`.
    """
    objective = options.make_objective()
    if ANSWER_FIELDS & objective.needs:
        check_single_answer(options, f"objective {objective}")


def check_single_answer(options: TrainOptions, reader: str) -> None:
    """Refuse to read the likelihood of an answer where an example may have several right ones.

    Args:
        reader: what reads it, such as "the probe".

    Raises:
        QreditError: the run's task has no single right answer.
    """
    task = get_task(options)
    if not task.single_answer:
        raise QreditError(
            f"{reader} reads the likelihood of the one right answer, and {task.name} may accept several; train on its "
            "reward, for example by --objective grpo"
        )


def _split_validation(examples: Sequence[Example], count: int) -> tuple[list[Example], list[Example]]:
    """The first so many, and those of the others that ask something else."""
    held = list(examples[:count])
    asked = {normalize_prompt(example.prompt) for example in held}
    return held, [example for example in examples[count:] if normalize_prompt(example.prompt) not in asked]


def is_single_file(options: TrainOptions) -> bool:
    """Whether the data has no splits: one file or table, and not a folder of several or a data set on the Hub."""
    return options.data is not None and find_single_file(options.data, any_name=options.task == "jsonl") is not None


def apply_chat_format(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, chat: bool | None) -> list[Any]:
    """The prompts, texts put into a user message if the tokenizer has a chat template (or `chat` says so).

    Args:
        examples: questions with their reference answers.
        tokenizer: of the model.
        chat: True and False decide; None asks the tokenizer.

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


def prepare_examples(
    examples: Sequence[Example],
    tokens: TokenFormat,
    model: PreTrainedModel,
    options: TrainOptions,
    name: str,
) -> list[Example]:
    """The examples to be answered: their prompts as chat if need be, those that do not fit the context left out.

    Aliases stay only where they count for rewards.

    Args:
        examples: questions with their reference answers.
        tokens: the layout of a completion, as ids of this tokenizer.
        model: whose context must hold them.
        options: of the run.
        name: of the data, for errors.

    Raises:
        QreditError: a tokenizer with more ids than the model; prompts that do not fit, unless `skip_long`; none left.
    """
    check_vocabulary(model, tokens.tokenizer)  # type: ignore[arg-type]
    plain = apply_chat_format(examples, tokens.tokenizer, options.chat)  # type: ignore[arg-type]
    prompts, template = tell_tools(options, plain)
    wrapped = [replace(example, prompt=prompt) for example, prompt in zip(examples, prompts, strict=True)]
    rows = RowNames.of([example.id for example in examples], len(examples), name)
    budget = get_whole_budget(options, tokens)
    ids = rows.encode_prompts(tokens, prompts, template)
    context = get_context_length(model)
    long = find_too_long(ids, [budget.answer] * len(ids), tokens, budget, context)
    rows.check_long(long, ids, budget, context, options.skip_long)
    dropped = set(long)
    return keep_rewarded([one for row, one in enumerate(wrapped) if row not in dropped], options.alias_use)


def make_dataset(examples: Sequence[Example], prompts: Sequence[Any], further: bool = False) -> Dataset:
    """The columns that the trainer and the rewards read.

    Args:
        examples: questions with their reference answers.
        prompts: texts or chat messages.
        further: take the user's other columns along, for reward functions that read them.

    Raises:
        QreditError: messages whose further keys hold values of different kinds, which no column can; a further column
            that does.
    """
    others = collect_columns(examples) if further else {}
    for name, values in others.items():
        infer_column_type(name, values)
    columns = {
        "prompt": list(prompts),
        **({"answer": [one.answer for one in examples]} if any(one.right for one in examples) else {}),
        "aliases": [list(example.aliases) for example in examples],
        "id": [example.id for example in examples],
        **others,
    }
    with check_message_keys():
        return Dataset.from_dict(columns)


@contextlib.contextmanager
def check_message_keys() -> Iterator[None]:
    """What Arrow refuses of the prompts' messages, said in one line.

    Raises:
        QreditError: in place of Arrow's error.
    """
    try:
        yield
    except (pyarrow.ArrowException, TypeError, OverflowError) as error:
        raise QreditError(
            "the prompts' messages cannot be kept in one table; give each of their keys values of one kind, or leave "
            f"out those that the chat template does not need ({summarize_error(error)})"
        ) from None


def infer_column_type(name: str, values: Sequence[Any]) -> pyarrow.DataType:
    """The type that a column of the user's has in a table.

    Raises:
        QreditError: no table can hold it, said before it is blamed on the prompts.
    """
    try:
        return pyarrow.array(values).type
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise QreditError(
            f"column '{name}', which a reward function of yours may read, cannot be kept in a table; give its values "
            f"one kind, or remove it ({summarize_error(error)})"
        ) from None
