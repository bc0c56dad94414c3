"""The teachers of a run on TRL: the models and prompts that it was given, loaded, and checked before any compute."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from qredit.core.field_names import REFERENCE, REFERENCE_LOGP, list_state_teachers
from qredit.data.encoding import PROMPT_IDS
from qredit.engine.base_probability import BASE
from qredit.engine.hinted import Hinted, Ids, PolicyTeacher
from qredit.engine.model_limits import get_context_length
from qredit.engine.named_model import NamedModel
from qredit.engine.prompt_teacher import Hint
from qredit.engine.reference_model import ReferenceModel
from qredit.engine.sampling import strip_id_columns
from qredit.engine.teacher import Teacher, check_heads
from qredit.rollouts.format import Prompt
from qredit.shared_prefix.support import unwrap_peft
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error

__all__ = ["Hint", "TeacherSpec", "teachers_of"]

TeacherSpec: TypeAlias = str | PreTrainedModel | Hint | Teacher


def teachers_of(trainer: Any, given: Mapping[str, TeacherSpec], needs: Collection[str]) -> dict[str, Teacher]:
    """Each teacher by its name, the reference among them where it is needed.

    Args:
        trainer: a `QreditTrainer` whose model stands where it is trained and whose data sets are encoded.
        given: by name, as the trainer was given them.
        needs: the batch fields that are read.

    Raises:
        QreditError: a model that cannot be loaded, has other token ids or is the policy; other prompts that are too
            long or do not depend on the prompt alone.
    """
    policy = trainer.model
    teachers = {name: _teacher(trainer, name, one) for name, one in given.items()}
    if {REFERENCE_LOGP, BASE} & set(needs) or REFERENCE in list_state_teachers(needs):
        teachers[REFERENCE] = ReferenceModel(policy)
    check_heads(needs, teachers, policy)
    return teachers


def _teacher(trainer: Any, name: str, given: TeacherSpec) -> Teacher:
    if isinstance(given, Hint):
        inner: Teacher = PolicyTeacher() if given.model is None else _teacher(trainer, name, given.model)
        longest = get_context_length(trainer.model if inner.model is None else inner.model)
        return Hinted(inner, _other_prompts(trainer, name, given.prompt, longest), trainer._tokenizer.pad_token_id)
    if not isinstance(given, str | PreTrainedModel):
        return given
    model = _loaded(given, name, trainer.model) if isinstance(given, str) else given
    if unwrap_peft(model) is unwrap_peft(trainer.model):
        raise QreditError(f"teachers: '{name}' is the model that is trained; give a Hint, or another model")
    _check_ids(model, given, name, trainer._tokenizer)
    return NamedModel(model.to(trainer.model.device), name)  # type: ignore[arg-type]


def _loaded(path: str, name: str, policy: PreTrainedModel) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=policy.dtype)
    except Exception as error:  # its files are the user's: the libraries below stumble over them in their own ways
        raise QreditError(
            f"teachers: the model '{path}' of '{name}' cannot be loaded: {summarize_error(error)}"
        ) from None
    return model


def _check_ids(
    model: PreTrainedModel, given: str | PreTrainedModel, name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse a model whose token ids are others than those of the run.

    A path's tokenizer is compared token by token. Of a loaded model the number of its embeddings alone is known.
    """
    rows, ids = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values(), default=-1) + 1
    if rows < ids:
        raise QreditError(
            f"teachers: the vocabularies of '{name}' and of the run differ: '{name}' has embeddings of {rows} tokens, "
            f"the run's tokenizer ids up to {ids - 1}"
        )
    if not isinstance(given, str):
        return
    try:
        tokens = AutoTokenizer.from_pretrained(given)
        if not tokens("text", add_special_tokens=False)["input_ids"]:  # what transformers makes of a folder without one
            raise ValueError("its vocabulary is empty")
    except Exception as error:  # as above
        raise QreditError(
            f"teachers: no tokenizer for '{name}' in '{given}' ({summarize_error(error)}), so that its token ids "
            "cannot be compared; save it beside the model, or give the model loaded"
        ) from None
    own = tokens.get_vocab()
    other = sorted(token for token, id in tokenizer.get_vocab().items() if own.get(token) != id)
    if other:
        raise QreditError(
            f"teachers: the vocabularies of '{name}' and of the run differ: {len(other)} tokens have another id or "
            f"none in '{given}', first {other[0]!r}"
        )


def _other_prompts(
    trainer: Any, name: str, prompt: Callable[[Mapping[str, Any]], Prompt], context: int | None
) -> dict[Ids, Ids]:
    """ids of each row's prompt → ids of the other one."""
    found: dict[Ids, Ids] = {}
    completion = int(trainer.args.max_completion_length) + len(trainer.format.close_ids)
    most = None if context is None else context - completion
    for row in _rows(trainer.train_dataset, trainer.eval_dataset):
        ids = tuple(trainer.format.prompt_ids(prompt(strip_id_columns(row)), **trainer.chat_template_kwargs))
        if most is not None and len(ids) > most:
            raise QreditError(
                f"teachers: a prompt of '{name}' has {len(ids)} tokens, and {most} are left by a context of {context}"
            )
        if found.setdefault(tuple(row[PROMPT_IDS]), ids) != ids:
            raise QreditError(f"teachers: '{name}' has two prompts for rows of one prompt, {row['prompt']!r:.60}")
    return found


def _rows(training: Any, evaluation: Any) -> Iterable[Mapping[str, Any]]:
    yield from training
    for dataset in evaluation.values() if isinstance(evaluation, dict) else [evaluation]:
        yield from dataset or ()
