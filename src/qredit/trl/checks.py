"""What is refused of an objective, its settings and its model before a token is sampled."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from qredit.control.diagnostics import find_likelihood_stage
from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope, field_kinds
from qredit.core.field_names import (
    ANSWER_AT_TURNS,
    ANSWER_FIELDS,
    DIVERGENCES,
    HINT,
    HINTED_LOGP,
    LOGP_PREFIX,
    REFERENCE,
    resolve_field_name,
)
from qredit.core.objective import Objective
from qredit.engine.attention_maps import INFLUENCE, LOCALITY
from qredit.engine.base_probability import BASE
from qredit.engine.learner import Learners
from qredit.engine.scorer import SAMPLER_ENTROPY
from qredit.engine.teacher import check_named
from qredit.environments.source import EpisodeSource
from qredit.fields.parsing import suggest_makers
from qredit.rollouts.field_functions import (
    BRANCHING_FIELDS,
    DRAWING_FIELDS,
    EPISODE_FIELDS,
    FIELD_FUNCTIONS,
    FieldFunction,
)
from qredit.rollouts.field_maker import RolloutMaker
from qredit.rollouts.retry_hint import make_hint_levels
from qredit.rollouts.sampling_params import SamplingParams
from qredit.shared_prefix.patch_forward import NUCLEUS, VECTOR_FIELDS
from qredit.trl.config import EPISODE_OPTIONS, QreditConfig
from qredit.trl.environment_factory import FactorySource
from qredit.utils.errors import QreditError

_CARRIED_BY_EQUAL_REWARDS = frozenset(
    {*ANSWER_FIELDS, "cluster", "step_score", "wrong_step", "difficulty_tag", "logp@better", "logp@worse"}
)


def check_sampling(objective: Objective, args: QreditConfig) -> None:
    """Refuse a changed sampling distribution where rationales must be draws of the model itself.

    Raises:
        QreditError: names the settings that change it; too few rollouts per prompt for an objective's proposal.
    """
    if "answer_logp" in objective.needs and args.draw.is_biased and not args.biased_sampling:
        plain = SamplingParams()
        changed = [f.name for f in fields(SamplingParams) if getattr(args.draw, f.name) != getattr(plain, f.name)]
        shown = ", ".join(f"{name}={getattr(args.draw, name)}" for name in changed)
        raise QreditError(
            f"{objective} takes rationales as draws of the model itself; {shown} would draw them from another "
            "distribution. Leave the defaults, or set biased_sampling to accept the bias"
        )
    if objective.proposal is not None:
        objective.proposal.count(args.num_generations)
    carried = sorted(_CARRIED_BY_EQUAL_REWARDS & objective.needs)
    if carried and args.dynamic_sampling:
        raise QreditError(
            f"dynamic_sampling={args.dynamic_sampling} would replace groups of equal rewards, which carry gradient all "
            f"the same under {objective}, by {', '.join(carried)}. Leave it at 0"
        )
    reused = args.steps_per_generation * args.num_iterations > args.gradient_accumulation_steps
    if "answer_logp" in objective.needs and args.temperature != 1.0 and reused:
        raise QreditError(
            f"{objective} scores at temperature 1, rationales are drawn at {args.temperature}: on rollouts that serve "
            "several steps their ratio would not be one of policies. Set temperature=1, or sample anew for every step"
        )


def choose_hint_template(objective: Objective) -> str | None:
    """How prompts are shown with their gold answers, where the objective draws or scores behind such prompts."""
    proposal = objective.proposal
    return proposal.template if proposal is not None and (proposal.share or HINTED_LOGP in objective.needs) else None


def check_hints(objective: Objective, args: QreditConfig) -> None:
    """Refuse hints for failed groups where nothing would come of them.

    Raises:
        QreditError: a template without the option; an unknown kind; dynamic sampling beside it; an objective that
            learns from the gold answer's likelihood, which a hint would tell.
    """
    if args.hint_failed is None:
        if args.hint_template is not None:
            raise QreditError("hint_template needs hint_failed: 'gold' or 'self'")
        return
    make_hint_levels(args.hint_failed, args.hint_template)
    if "answer_logp" in objective.needs:
        raise QreditError(
            f"hint_failed samples groups without a success again; {objective} learns from the gold answer's likelihood "
            "and needs no success. Leave hint_failed out, or take an objective of rewards such as grpo()"
        )
    if objective.proposal is not None:
        raise QreditError(f"{objective} draws behind the gold answer by itself; leave hint_failed out")
    if args.dynamic_sampling:
        raise QreditError(
            f"dynamic_sampling={args.dynamic_sampling} puts other groups in the place of failed ones, and "
            f"hint_failed={args.hint_failed!r} samples those again; give one of them"
        )


def check_episodes(
    objective: Objective,
    args: QreditConfig,
    episodes: EpisodeSource | None,
    given: Collection[str],
    learners: Learners,
) -> None:
    """Refuse settings of episodes without any, and what does not go together with them.

    Args:
        objective: of the run.
        args: of the trainer.
        episodes: tools or an environment; None where rollouts are one turn.
        given: batch fields that the user makes.
        learners: may need what an environment gives, too.

    Raises:
        QreditError: names the setting, the field, or the objective.
    """
    if episodes is None:
        for name, default in EPISODE_OPTIONS.items():
            if getattr(args, name) != default:
                raise QreditError(f"{name} is read where there are tools or an environment; give one of them")
        for name in sorted(((objective.needs | learners.needs) & {*EPISODE_FIELDS, *ANSWER_AT_TURNS}) - set(given)):
            reader = objective if name in objective.needs else "a learner"
            raise QreditError(
                f"{reader} needs the batch field '{name}', which an environment gives; give the trainer one "
                "(environment=…, --env)"
            )
        return
    check_branching(objective, args, episodes, given)
    if objective.proposal is not None:
        raise QreditError(
            f"{objective} draws behind the gold answer, and episodes are played behind plain prompts alone; leave the "
            "proposal out with tools or an environment"
        )
    if args.hint_failed is not None:
        raise QreditError("hint_failed samples rollouts of one turn again; leave it out with tools or an environment")


def check_branching(objective: Objective, args: QreditConfig, episodes: EpisodeSource, given: Collection[str]) -> None:
    """Refuse a rule of branching that the objective does not go with, and an objective that needs one.

    Args:
        objective: of the run.
        args: of the trainer.
        episodes: tools or an environment.
        given: batch fields that the user makes.

    Raises:
        QreditError: names the rule, the field, or the objective.
    """
    rule = args.branching_of_run
    if rule is None:
        for name in sorted((objective.needs & set(BRANCHING_FIELDS)) - set(given)):
            raise QreditError(
                f"{objective} needs the batch field '{name}', which a rule of branching gives; give one "
                "(branching, --branching), such as trees()"
            )
        return
    if isinstance(episodes, FactorySource):
        raise QreditError(f"branching plays episodes again, which environment_factory does not; leave {rule} out")
    if "answer_logp" in objective.needs and not args.biased_sampling:
        raise QreditError(
            f"{objective} takes the rollouts of a prompt as independent draws, and {rule} lets them share their "
            "beginnings. Leave branching out, or set biased_sampling to accept the bias"
        )
    if not rule.trains_prefix and "turn_reward" not in objective.needs:
        raise QreditError(
            f"{rule} leaves most episodes after the turn that it compares, and {objective} reads no rewards of turns; "
            "take one that does, such as slate()"
        )


def check_drawing(
    objective: Objective, args: QreditConfig, episodes: EpisodeSource | None, given: Collection[str]
) -> None:
    """Refuse a rule of drawing that the run does not go with, and an objective that needs one.

    Args:
        objective: of the run.
        args: of the trainer.
        episodes: tools or an environment; None where rollouts are one turn.
        given: batch fields that the user makes.

    Raises:
        QreditError: names the rule, the setting, the field, or the objective.
    """
    rule = args.drawing_of_run
    for name in sorted((objective.needs & set(DRAWING_FIELDS)) - set(given) - (set() if rule is None else rule.fills)):
        raise QreditError(
            f"{objective} needs the batch field '{name}', which a rule of drawing gives; give one (drawing, "
            "--drawing), such as hold_entropy(target=0.5)"
        )
    if rule is None:
        return
    if episodes is not None:
        raise QreditError(f"{rule} draws rollouts of one turn; leave drawing out with tools or an environment")
    if unread := sorted(rule.fills - objective.needs):
        raise QreditError(
            f"{rule} says by the batch field '{unread[0]}' which rollouts it drew, and {objective} does not read it; "
            "take an objective that does, such as aepo()"
        )
    if objective.proposal is not None:
        raise QreditError(f"{objective} draws behind the gold answer by itself; leave {rule} out")
    for name in ("dynamic_sampling", "hint_failed"):
        if getattr(args, name):
            raise QreditError(f"{name} draws groups again, and {rule} says how they are drawn; give one of them")
    if args.draw.is_biased:
        raise QreditError(
            f"{rule} draws from the policy itself; leave temperature, top_p, top_k, min_p and repetition_penalty at "
            f"their defaults, got {args.draw}"
        )
    if "answer_logp" in objective.needs and rule.fills:
        raise QreditError(
            f"{objective} reads the likelihood of the answer behind all rollouts of a prompt, and {rule} puts in some "
            "that are no draws of the policy; take an objective of rewards, such as aepo()"
        )
    if "answer_logp" in objective.needs and not (rule.independent or args.biased_sampling):
        raise QreditError(
            f"{objective} takes the rollouts of a prompt as independent draws, and {rule} lets them share their "
            "beginnings. Leave drawing out, or set biased_sampling to accept the bias"
        )


def check_replay(objective: Objective, args: QreditConfig) -> None:
    """Refuse to learn again from rollouts that are credited by more than their reward, or in several processes.

    Raises:
        QreditError: names the objective, or what runs several processes.
    """
    if args.replay_of_run is None:
        return
    if "answer_logp" in objective.needs or "reward" not in objective.needs:
        raise QreditError(
            f"replay takes objectives of rewards alone, and {objective} is none; take one such as grpo(), or leave "
            "replay out"
        )
    drawing = args.drawing_of_run
    if drawing is not None and drawing.fills:
        raise QreditError(
            f"replay learns again from rollouts with rewards, and {drawing} puts in some without any; give one of them"
        )
    if args.world_size > 1 or args.deepspeed or args.fsdp:
        raise QreditError("replay takes one process, without DeepSpeed and FSDP; leave replay out")


def resolve_field_functions(
    objective: Objective,
    given: Mapping[str, FieldFunction | RolloutMaker],
    teachers: Collection[str],
    learners: Learners,
) -> dict[str, FieldFunction | RolloutMaker]:
    """Who makes each batch field that objective and learners need and neither rollouts, passes nor learners hold.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        given: makers by the names of fields; one may stand for a teacher.
        teachers: names of those that the trainer was given; `reference` is always there.
        learners: fill fields, and need some.

    Raises:
        QreditError: nobody makes it, or a maker is given for a field that the trainer fills.
    """
    told = {f.name for f in fields(RolloutBatch)} | {
        NUCLEUS,
        *VECTOR_FIELDS,
        *DIVERGENCES,
        BASE,
        LOCALITY,
        INFLUENCE,
        SAMPLER_ENTROPY,
    }
    given = spread_makers(given)
    proposes = objective.proposal is not None
    told |= {f"{LOGP_PREFIX}{name}" for name in (REFERENCE, *teachers, *([HINT] if proposes else []))}
    for name in given:
        if name in told:
            raise QreditError(f"fields={{'{name}': …}}: the trainer fills '{name}' itself")
    for name in sorted(learners.fills):
        if name in told or field_kinds({name}) & told or name in given:
            raise QreditError(f"learners: the batch field '{name}' is filled already, by the trainer or a maker")
    learners.check_read(objective.needs)
    needs = objective.needs | learners.needs
    check_named(needs, teachers, filled={*given, *learners.fills}, proposes=proposes)
    told |= ANSWER_AT_TURNS - given.keys()  # a maker may stand for these
    wanted = sorted(name for name in needs - learners.fills if name not in told and not field_kinds({name}) & told)
    for name in wanted:
        if name not in given and name not in FIELD_FUNCTIONS:
            raise QreditError(
                f"{objective} needs the batch field '{name}', which nothing here fills; give {suggest_makers(name)} "
                f"(in Python QreditTrainer(fields={{'{name}': maker}}))"
            )
    return {name: given[name] if name in given else FIELD_FUNCTIONS[name] for name in wanted}


def spread_makers(given: Mapping[str, FieldFunction | RolloutMaker]) -> dict[str, FieldFunction | RolloutMaker]:
    """Who makes each field, makers of several under each of their names.

    Args:
        given: by one of the fields that each makes.

    Raises:
        QreditError: a maker of other fields, a field that two make.
    """
    found: dict[str, FieldFunction | RolloutMaker] = {}
    for former, maker in given.items():
        name = resolve_field_name(former)
        if isinstance(maker, RolloutMaker):
            maker.check_name(name)
        for one in maker.list_fields(name) if isinstance(maker, RolloutMaker) else (name,):
            if one in found:
                raise QreditError(f"fields: '{one}' is made by two of those that are given")
            found[one] = maker
    return found


def check_steps(objective: Objective, args: QreditConfig) -> None:
    """Refuse accumulation over several generations where an optimiser step must lie in one.

    Raises:
        QreditError: names the sizes and those that would do.
    """
    accumulated, made = args.gradient_accumulation_steps, args.steps_per_generation * args.num_iterations
    if accumulated > made and not objective.counts_rollouts:
        raise QreditError(
            f"{objective} divides by the tokens of a whole optimiser step, which must lie in one generation: "
            f"gradient_accumulation_steps={accumulated} must be at most {made} (steps_per_generation × num_iterations)"
        )
    if objective.scope == Scope.BATCH and args.steps_per_generation % accumulated:
        raise QreditError(
            f"{objective} has statistics over a whole optimiser step, which must lie in one generation: "
            f"steps_per_generation={args.steps_per_generation} must be a multiple of "
            f"gradient_accumulation_steps={accumulated}"
        )
    if objective.scope == Scope.GENERATION and find_likelihood_stage(objective) is not None and made > accumulated:
        raise QreditError(
            f"{objective} fixes its coefficients before the first of the {made // accumulated} steps that a generation "
            "serves, and those over the likelihood carry the ratio of each step in them. Sample anew for every step: "
            f"gradient_accumulation_steps={made}"
        )


def check_weights(model: nn.Module, peft_config: Any) -> None:
    """Refuse half-precision weights for full fine-tuning: at usual learning rates almost none of them would move.

    Raises:
        QreditError: names the type and how to load the model.
    """
    if peft_config is not None:
        return
    half = {p.dtype for p in model.parameters() if p.requires_grad} & {torch.bfloat16, torch.float16}
    if half:
        kind = str(half.pop()).removeprefix("torch.")
        raise QreditError(
            f"the model's trainable weights are {kind}; at small learning rates almost none of them would move. Load "
            "it with dtype=torch.float32 (bf16=True still computes in bf16), or give a peft_config"
        )
