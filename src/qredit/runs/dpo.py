"""A run of training on preferences: from rollouts to pairs, from pairs to a run folder with a final model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from qredit import tasks
from qredit.callbacks.metrics_file import MetricsWriter
from qredit.data.completions import CompletionGroup
from qredit.data.preferences import PreferencePair, describe_left_out, make_pairs
from qredit.engine.model_limits import get_context_length
from qredit.rewards.reward_spec import choose_eval_rewards, parse_rewards
from qredit.rollouts.format import TokenFormat
from qredit.runs.dpo_options import DpoOptions, PairOptions
from qredit.runs.folder import RunFolder
from qredit.runs.fresh_rollouts import sample_groups
from qredit.runs.lifecycle import TrainResult, run_to_the_end
from qredit.runs.load import load_examples, load_model, load_tokenizer, prepare_examples
from qredit.runs.offline import list_model_facts, make_offline_config
from qredit.runs.options import TrainOptions
from qredit.runs.pair_judge import parse_by, score_once
from qredit.runs.source_run import find_run_model, read_kept_rollouts, read_records
from qredit.runs.train import (
    load_trainable_model,
    make_lora_config,
    make_token_format,
    make_validation,
    reraise_as_qredit_error,
    resolve_trainable_model,
)
from qredit.runs.warmup import WarmupDpoTrainer, make_lr_schedule
from qredit.trl.dpo_config import DpoConfig
from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_json_line


@dataclass(frozen=True)
class FoundPairs:
    """The pairs of a run.

    Attributes:
        pairs: in order.
        facts: how they were made, for the record.
        notes: what has to be said of it.
    """

    pairs: Sequence[PreferencePair]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def train_on_preferences(options: DpoOptions, output: Path, console: Console, resume: bool = False) -> TrainResult:
    """Make the pairs and train on them; progress goes to `console`.

    Args:
        options: of the run.
        output: the run folder.
        console: where progress is shown.
        resume: go on from its newest whole checkpoint, with the pairs that it has.

    Raises:
        QreditError: anything that cannot be used, before any compute; a run folder in use, or another run's.
    """

    def build(folder: RunFolder) -> tuple[WarmupDpoTrainer, dict[str, Any]]:
        return build_dpo_trainer(options, folder, console, resume)

    return run_to_the_end(output, options.run, options.as_dict(), build, console, resume)


def build_dpo_trainer(
    options: DpoOptions, folder: RunFolder, console: Console, resume: bool
) -> tuple[WarmupDpoTrainer, dict[str, Any]]:
    """The trainer of a run, and what is worth recording about its pairs, which are written to pairs.jsonl.

    Args:
        options: of the run.
        folder: of the run.
        console: where progress is shown.
        resume: take the pairs that the folder holds.

    Raises:
        QreditError: anything that cannot be used; where pairs are made of kept rollouts, before the model is loaded.
    """
    run, asked = options.run, options.pairs
    judged = load_examples(run, "validation", run.eval_questions) if run.eval_every else ()
    rewards = choose_eval_rewards(parse_rewards(run.rewards), tasks.get(run.task).metrics, judged)
    path = resolve_trainable_model(run)
    schedule = make_lr_schedule(run.lr_schedule)
    losses = {"beta": asked.beta, "loss_type": asked.loss_types}
    args = make_offline_config(DpoConfig, run, options.learning_rate, folder.path, **losses)
    tokenizer = load_tokenizer(path)
    tokens = make_token_format(run, tokenizer)
    known = find_made_pairs(options, folder, path, tokenizer, resume)
    notes: list[str] = []
    model = load_trainable_model(run, path, notes)
    found = known or pair_up(
        sample_training_questions(run, model, tokens, asked.rollouts or 0, console),
        *(options, tokenizer, "the rollouts that were sampled"),
    )
    pairs = leave_out_unreadable(found.pairs, model, run.skip_long)
    check_enough_pairs(len(pairs), run.prompts_per_step)
    validation = make_validation(run, rewards, tokenizer, model, folder, guard=None)
    alone = run.lora or args.precompute_ref_log_probs  # without its adapters, or at its start, a model is the reference
    with reraise_as_qredit_error(ValueError, ImportError, NotImplementedError):
        trainer = WarmupDpoTrainer(
            model,
            args,
            pairs,
            tokens,
            run.sampling_budget,
            run.template,
            tokenizer,
            reference=None if alone else load_model(path),
            objective=options.label,
            chat=bool(tokenizer.chat_template) if run.chat is None else run.chat,
            callbacks=[MetricsWriter(folder.metrics), *filter(None, (validation,))],
            peft_config=make_lora_config(run),
        )
    trainer.use_optimizer(run.optimizer)
    trainer.lr_schedule = schedule
    trainer.remove_callback(PrinterCallback)
    if validation is not None:
        validation.run = trainer
    if trainer.is_world_process_zero() and not resume:
        write_text_atomic(folder.pairs, "".join(to_json_line(pair.as_record()) for pair in found.pairs))
    left = len(found.pairs) - len(pairs)
    facts = {
        "train_examples": len(pairs),
        "train_prompts": len(pairs),
        "unparseable_golds": 0,
        "answers_over_budget": 0,
        **found.facts,
        "data_notes": [*found.notes, *([f"{left} pairs do not fit the context and are left out"] if left else [])],
        **list_model_facts(trainer, model, path, notes),
    }
    return trainer, facts


def sample_training_questions(
    run: TrainOptions, model: PreTrainedModel, tokens: TokenFormat, m: int, console: Console
) -> list[CompletionGroup]:
    """m rollouts of each training question, as `sample_groups` draws them.

    Args:
        run: its options.
        model: as it was loaded.
        tokens: the layout of a completion.
        m: rollouts of a prompt.
        console: where a bar is shown.

    Raises:
        QreditError: as `load_data` and `prepare_examples`; a reward function that fails.
    """
    examples = load_examples(run, "train", run.get_subset_size())
    questions = prepare_examples(examples, tokens, model, run, f"{run.task} train")
    return sample_groups(run, model, tokens, questions, m, console)


def find_made_pairs(
    options: DpoOptions, folder: RunFolder, path: str, tokenizer: PreTrainedTokenizerBase, resume: bool
) -> FoundPairs | None:
    """The pairs that need no model: those of the run that is resumed, or of kept rollouts; None where there are none.

    Args:
        options: of the run.
        folder: of the run.
        path: of the model that is trained.
        tokenizer: its own.
        resume: the folder holds the pairs.

    Raises:
        QreditError: as `read_records`, `read_kept_rollouts`, `check_same_tokenizer` and `pair_up`.
    """
    if resume:
        return FoundPairs(read_records(folder.pairs, PreferencePair.from_record))
    if options.pairs.rollouts is not None:
        return None
    source = RunFolder(Path(str(options.pairs.run)).expanduser())
    groups = read_kept_rollouts(source)
    check_same_tokenizer(source, path, tokenizer)  # a judge is shown what the ids say
    return pair_up(groups, options, tokenizer, f"the rollouts that the run in {source.path} kept")


def pair_up(
    groups: Sequence[CompletionGroup], options: DpoOptions, tokenizer: PreTrainedTokenizerBase, where: str
) -> FoundPairs:
    """The pairs of some rollouts, by their rewards or by what a judge says of them.

    Args:
        groups: the rollouts.
        options: of the run.
        tokenizer: of their ids.
        where: what errors call the rollouts.

    Raises:
        QreditError: there is none; it says what became of the prompts. A judge that refuses, or answers nothing.
    """
    asked: PairOptions = options.pairs
    judged: dict[str, Any] = {}
    if asked.by is not None:
        groups, counted = score_once(parse_by(asked.by), groups, tokenizer)
        judged = {"judge": counted}
    pairs, counts = make_pairs(groups, asked.pairs_per_prompt, asked.margin, options.run.seed)
    told = describe_left_out(counts, asked.margin, "score" if judged else "reward")
    if not pairs:
        why = "; ".join(told) or "there are none"
        raise QreditError(f"no pair can be made of {where}: {why}")
    return FoundPairs(pairs, {"pairs": asdict(counts), **judged}, told)


def check_same_tokenizer(source: RunFolder, path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse ids of another vocabulary than the model's.

    Args:
        source: the run that kept the ids.
        path: of the model that is trained.
        tokenizer: its own.

    Raises:
        QreditError: the run's model has another vocabulary, or the run has no model to ask.
    """
    own = find_run_model(source)
    if own is None:
        raise QreditError(f"the run in {source.path} has neither a final model nor a whole checkpoint to read ids with")
    if str(own.resolve()) != path and load_tokenizer(str(own)).get_vocab() != tokenizer.get_vocab():
        raise QreditError(
            f"the ids of the rollouts that the run in {source.path} kept are not those of model '{path}', whose "
            "vocabulary differs; give rollouts to sample with it"
        )


def leave_out_unreadable(
    pairs: Sequence[PreferencePair], model: PreTrainedModel, skip_long: bool
) -> list[PreferencePair]:
    """The pairs that fit the model's context.

    Args:
        pairs: all of them.
        model: that reads them.
        skip_long: leave the others out, instead of refusing them.

    Raises:
        QreditError: some do not fit and are not to be left out, or none fits; ids that are none of the model's.
    """
    size = model.get_input_embeddings().num_embeddings
    largest = max(
        (id for pair in pairs for ids in (pair.prompt_ids, pair.chosen.ids, pair.rejected.ids) for id in ids), default=0
    )
    if largest >= size:
        raise QreditError(f"the pairs hold the token id {largest}, and the model has {size} ids")
    context = get_context_length(model)
    fitting = [pair for pair in pairs if context is None or pair.length <= context]
    if len(fitting) < len(pairs) and not (skip_long and fitting):
        raise QreditError(
            f"{len(pairs) - len(fitting)} of {len(pairs)} pairs do not fit the context of {context} tokens (longest "
            f"{max(pair.length for pair in pairs)} tokens)" + ("; set skip_long to drop them" if fitting else "")
        )
    return fitting


def check_enough_pairs(pairs: int, per_step: int) -> None:
    """Refuse fewer pairs than one step learns from.

    Raises:
        QreditError: names what to change.
    """
    if pairs < per_step:
        raise QreditError(
            f"there are {pairs} pairs, but one step needs {per_step}; lower prompts_per_step, or raise "
            "pairs_per_prompt or rollouts"
        )
