"""Whether rationales drawn with the gold answer in the prompt would teach what plain ones do not.

Where neither rewards nor likelihoods tell a group's plain rationales apart, groups are drawn again, half of each behind
the prompt that shows the gold answer. All rows are scored behind the plain prompt. What counts is u·w: the likelihood
of the gold answer, weighed by how probable the rationale is without the hint (`core.importance.mixture_weight`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.control.controller import MIN_LOG10_SIGNAL
from qredit.control.signal_level import smallest_sufficient_q
from qredit.core.field_names import HINTED_LOGP
from qredit.core.hint import fill_template, hint
from qredit.core.importance import mixture_weight
from qredit.core.right_answers import join_answers
from qredit.data.rows import find_too_long
from qredit.engine.hinted import replace_prompts
from qredit.probe.measure import ProbeSetup, score_rows
from qredit.rollouts.collate import collate
from qredit.rollouts.hinted_prompt import show_answer
from qredit.runs.load import get_stop_tokens
from qredit.samplers.protocol import Sampler
from qredit.samplers.think_then_answer import think
from qredit.stats.nearest_rank import lower_median
from qredit.stats.weights import log_mean_exp
from qredit.utils.device import autocast
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed

SHARE = 0.5
MIN_LEAD = math.log(2.0)
"""By how much, in nats, the best hinted u·w must exceed the best plain one for a group to be called taught by it."""
MIN_TAUGHT = 0.25
"""Share of groups that hinted rationales must teach before proposals are advised: two of the eight groups of a step."""


@dataclass(frozen=True, eq=False)
class ProposalMeasurement:
    """N examples with M rollouts each, the last k of them drawn behind the hint; nats.

    Attributes:
        log_w: log-likelihood of the right answers after each rationale, behind the plain prompt.
        log_u: weight of each rationale under the mixture of both prompts.
        hinted: k.
        long: how many examples were left out because their hinted prompt does not fit the context.
    """

    log_w: Float[Tensor, "N M"]
    log_u: Float[Tensor, "N M"]
    hinted: int
    long: int = 0


@dataclass(frozen=True)
class ProposalVerdict:
    """What hinted rationales are worth.

    Attributes:
        taught: share of groups whose best hinted u·w is at least twice the best plain one.
        likelier: the same of w alone: whether the hint leads to rationales that make the answer likely.
        share: of Σ u·w that hinted rows carry, median over groups.
        log10_u: of hinted rows, median.
        log10_p_hat: of mean u·w, median over groups.
        q: the smallest at which the median group's effective reward is what `q: auto` keeps.
    """

    examples: int
    m: int
    hinted: int
    taught: float
    likelier: float
    share: float
    log10_u: float
    log10_p_hat: float
    q: float

    @property
    def helps(self) -> bool:
        """Whether enough groups are taught by them."""
        return self.taught >= MIN_TAUGHT


def measure_proposal(
    subject: ProbeSetup, m: int, seed: int, template: str, rows_per_batch: int = 256
) -> ProposalMeasurement:
    """Sample m rollouts of every example, half of them behind the hint, and score all behind both prompts.

    Args:
        subject: the model and its examples.
        m: rollouts of an example, at least 4.
        seed: the draws are a function of it, of m and of `rows_per_batch`.
        template: how a prompt is shown with its answer.
        rows_per_batch: rollouts sampled and scored at once.

    Raises:
        QreditError: fewer than four rollouts, or no example whose hinted prompt fits the context.
    """
    drawn = hint(SHARE, template)
    k, shown = drawn.count(m), _encode_fitting(subject, template)
    kept = list(shown)
    if not kept:
        raise QreditError(f"none of {len(subject.examples)} prompts fits the context with the hint {template!r}")
    size = max(rows_per_batch // m, 1)
    sampler = subject.make_sampler([*shown.values(), *subject.encode_prompts()])
    parts = [
        _part(subject, sampler, {n: shown[n] for n in kept[start : start + size]}, m, k, derive_seed(seed, start, 1))
        for start in range(0, len(kept), size)
    ]
    log_w, log_u = (torch.cat(tables) for tables in zip(*parts, strict=True))
    return ProposalMeasurement(log_w, log_u, k, len(subject.examples) - len(kept))


def judge_proposal(measured: ProposalMeasurement) -> ProposalVerdict:
    """What the measured weights say."""
    log_w, log_u, k = measured.log_w.double(), measured.log_u.double(), measured.hinted
    log_uw = torch.where(log_w == -torch.inf, log_w, log_w + log_u)
    plain, hinted = log_uw[:, :-k], log_uw[:, -k:]
    carried = (hinted.logsumexp(1) - log_uw.logsumexp(1)).exp()
    means, largest = log_mean_exp(log_uw) / math.log(10), log_uw.amax(1) / math.log(10)
    return ProposalVerdict(
        examples=len(log_w),
        m=log_w.shape[1],
        hinted=k,
        taught=_lead_share(plain, hinted),
        likelier=_lead_share(log_w[:, :-k], log_w[:, -k:]),
        share=lower_median(carried[~carried.isnan()]),
        log10_u=lower_median(log_u[:, -k:].flatten()) / math.log(10),
        log10_p_hat=lower_median(means),
        q=smallest_sufficient_q(largest.tolist(), means.tolist(), log_w.shape[1], MIN_LOG10_SIGNAL),
    )


def _lead_share(plain: Float[Tensor, "N A"], hinted: Float[Tensor, "N K"]) -> float:
    """Share of groups whose best hinted value is ahead of the best plain one."""
    best, other = hinted.amax(1), plain.amax(1)
    return float(((best > -torch.inf) & (best >= other + MIN_LEAD)).double().mean())


def _hinted_ids(subject: ProbeSetup, number: int, template: str) -> tuple[int, ...]:
    example = subject.examples[number]
    shown = show_answer(example.prompt, example.gold, lambda text, answer: fill_template(template, text, answer))
    return tuple(subject.tokens.prompt_ids(shown, **subject.template))


def _encode_fitting(subject: ProbeSetup, template: str) -> dict[int, tuple[int, ...]]:
    """The ids of the hinted prompts that fit the context, by the number of their example."""
    context = getattr(subject.network.config.get_text_config(), "max_position_embeddings", None)
    prompts = [_hinted_ids(subject, number, template) for number in range(len(subject.examples))]
    kept = [max(subject.budget.answer, *map(len, golds)) for golds in subject.golds]
    long = set(find_too_long(prompts, kept, subject.tokens, subject.budget, context))
    return {number: ids for number, ids in enumerate(prompts) if number not in long}


def _part(
    subject: ProbeSetup, sampler: Sampler, hinted: Mapping[int, tuple[int, ...]], m: int, k: int, seed: int
) -> tuple[Float[Tensor, "N M"], Float[Tensor, "N M"]]:
    """log w and log u of some examples, whose hinted prompts are given by their numbers."""
    numbers, shown = list(hinted), list(hinted.values())
    pad = int(subject.tokens.tokenizer.pad_token_id)  # type: ignore[attr-defined]
    stops = get_stop_tokens(subject.network, subject.tokens.tokenizer)  # type: ignore[arg-type]
    plain = [tuple(subject.tokens.prompt_ids(subject.examples[n].prompt, **subject.template)) for n in numbers]
    places = [(index, place >= m - k) for index in range(len(numbers)) for place in range(m)]
    with autocast(subject.network.device, subject.half):
        asked = [shown[index] if behind else plain[index] for index, behind in places]
        rollouts = think(sampler, asked, subject.tokens, subject.budget, stop_tokens=stops, seed=seed)
        rows = collate(
            [
                replace(
                    one,
                    prompt=plain[index],
                    hinted=shown[index],
                    proposal=behind,
                    group=index,
                    golds=subject.golds[numbers[index]],
                )
                for one, (index, behind) in zip(rollouts, places, strict=True)
            ],
            ("answer",),
            pad,
            seed,
            subject.network.device,
        )
        logp = score_rows(subject.network, rows)
        hinted_logp = score_rows(subject.network, replace_prompts(rows, [shown[index] for index, _ in places], pad))
    batch = replace(rows.batch, logp=logp, sampler_logp=None, extra={HINTED_LOGP: hinted_logp})
    log_w, _ = join_answers(logp, batch.answer, batch.alias)
    log_u = mixture_weight().log(batch, "probe")
    return log_w.view(-1, m).cpu(), log_u.view(-1, m).cpu()
