"""What a model does on some training examples: M rationales each, the gold answer's likelihood after every one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from qredit.core.right_answers import join_answers
from qredit.environments.episode import EpisodePlayer
from qredit.rewards.reward_spec import Reward, parse_rewards
from qredit.rollouts.collate import Rows, collate
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.runs.episodes import get_asked_template, get_whole_budget, make_player
from qredit.runs.example_filter import HASH_KEY, hash_example
from qredit.runs.load import (
    check_single_answer,
    find_weights,
    get_stop_tokens,
    load_data,
    load_model,
    load_tokenizer,
    prepare_examples,
)
from qredit.runs.options import TrainOptions
from qredit.runs.quantization import check_four_bit, make_quantization_config
from qredit.runs.samplers import make_answer_sampler, parse_vllm
from qredit.runs.train import make_token_format
from qredit.samplers.answers import make_response, sample_each
from qredit.samplers.protocol import Sampler
from qredit.samplers.vllm.choice import measure_longest
from qredit.samplers.vllm.settings import VllmSettings
from qredit.shared_prefix.check_padding import check_padding
from qredit.shared_prefix.layout import Layout
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.patch_forward import ScoreRequest, enable_token_scoring, score
from qredit.shared_prefix.share import share_prefix
from qredit.stats.weights import effective_size, log_mean_exp
from qredit.tasks.alias_use import AliasUse
from qredit.tasks.base import Example
from qredit.utils.device import autocast
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed


@dataclass(frozen=True)
class ProbeSetup:
    """A model, how it is asked, what it is asked, and who judges.

    Attributes:
        reward: the first of the run, which says what is right.
        others: the further rewards of the run that have a weight.
        examples: those that can be scored, with the ids of their right answers in `golds`, the gold one first.
        misaligned: id and reason of each example with an answer that does not join at the seam.
        long: how many prompts did not fit the context.
        unparseable: how many of `examples` have a gold answer that the reward cannot read.
        data_notes: what has to be said about how they were read.
        vllm: how vLLM samples; None where the model itself does.
        player: plays episodes, where there are tools or an environment.
    """

    network: PreTrainedModel
    tokens: TokenFormat
    budget: TokenBudget
    template: Mapping[str, Any]
    half: bool
    reward: Reward
    examples: Sequence[Example]
    golds: Sequence[tuple[tuple[int, ...], ...]]
    misaligned: tuple[tuple[str, str], ...]
    long: int
    unparseable: int
    data_notes: tuple[str, ...] = ()
    vllm: VllmSettings | None = None
    others: Sequence[Reward] = ()
    player: EpisodePlayer | None = None

    def encode_prompts(self, chunk: slice = slice(None)) -> list[tuple[int, ...]]:
        """The ids of the prompts of some examples, of all by default."""
        return [tuple(self.tokens.prompt_ids(one.prompt, **self.template)) for one in self.examples[chunk]]

    def make_sampler(self, prompts: Sequence[Sequence[int]]) -> Sampler:
        """What draws rollouts of these prompts, at temperature 1."""
        longest = measure_longest(prompts, self.tokens, self.budget)
        if self.player is not None:
            longest += self.player.budget.longest(len(self.tokens.close_ids))
        return make_answer_sampler(self.network, self.tokens, self.vllm, longest, half=self.half)


@dataclass(frozen=True, eq=False)
class Measurement:
    """N examples with M rollouts each.

    Attributes:
        log_w: log-likelihood of the gold answer, or of any right one, after each rationale, end included, nats.
        right: `score` is 1 or more.
        forced: thinking was closed by force.
        ended: the sampled answer ended by itself.
        said: the sampled answers of each example, as text.
        score: the first reward of each sampled answer; 0 where it has none.
        total: the weighted sum of all rewards: what an objective of rewards sees.
    """

    log_w: Float[Tensor, "N M"]
    right: Bool[Tensor, "N M"]
    forced: Bool[Tensor, "N M"]
    ended: Bool[Tensor, "N M"]
    said: tuple[tuple[str, ...], ...] = ()
    score: Float[Tensor, "N M"] | None = None
    total: Float[Tensor, "N M"] | None = None


def load(options: TrainOptions, limit: int) -> ProbeSetup:
    """The model and the first `limit` training examples, in the order that a run with these options would see.

    Raises:
        QreditError: whatever would stop a run, except an answer that does not join at the seam: those are named and
            left out, unless none joins.
    """
    check_single_answer(options, "the probe")
    vllm = parse_vllm(options)
    check_four_bit(options, lora=True)
    rewards = parse_rewards(options.rewards)
    reward = rewards[0]
    path = find_weights(options)
    most = min(limit, options.get_subset_size() or limit)
    data = load_data(options, "train", most, "the probe reads its likelihood")
    found = data.examples
    for one in rewards:
        one.check(found)
    tokens = make_token_format(options, load_tokenizer(path), found)
    joined, apart = _split_by_alignment(found, tokens, options.alias_use)
    network = load_model(path, options.device, quantization=make_quantization_config(options))
    asked = prepare_examples([example for example, _ in joined], tokens, network, options, f"{options.task} train")
    prompts = [example.prompt for example in asked]
    template = get_asked_template(options, prompts)
    if share_prefix(network) is not None:
        whole = get_whole_budget(options, tokens)
        longest = max(len(tokens.prompt_ids(prompt, **template)) for prompt in prompts)
        check_padding(network, longest + whole.thinking + whole.answer)
    ids = {example.id: golds for example, golds in joined}
    return ProbeSetup(
        network=network,
        tokens=tokens,
        budget=options.sampling_budget,
        template=template,
        half=options.half,
        reward=reward,
        examples=asked,
        golds=[ids[example.id] for example in asked],
        misaligned=apart,
        long=len(joined) - len(asked),
        unparseable=len(reward.unparseable(asked)),
        data_notes=data.notes,
        vllm=vllm,
        others=[one for one in rewards[1:] if one.weight],
        player=make_player(options, tokens, prompts),
    )


def _split_by_alignment(
    examples: Sequence[Example], tokens: TokenFormat, use: AliasUse
) -> tuple[list[tuple[Example, tuple[tuple[int, ...], ...]]], tuple[tuple[str, str], ...]]:
    """The examples whose answers join at the seam, with the ids of these; the others' names, with the reason.

    Args:
        use: whether aliases are among the answers.
    """
    joined, apart = [], []
    for example in examples:
        try:
            answers = example.right if use.in_likelihood else (example.gold,)
            golds = dict.fromkeys(tuple(tokens.answer_ids(answer)) for answer in answers if answer.strip())
            joined.append((example, tuple(golds)))
        except QreditError as error:
            apart.append((example.id, str(error)))
    if not joined:
        raise QreditError(f"none of {len(examples)} answers joins at the seam; {apart[0][0]}: {apart[0][1]}")
    return joined, tuple(apart)


def measure(
    subject: ProbeSetup,
    m: int,
    seed: int,
    rows_per_batch: int = 256,
    done: Callable[[int], None] = lambda count: None,
    observe: Callable[[Sequence[Trajectory]], None] = lambda rollouts: None,
) -> Measurement:
    """Sample m rollouts of every example at temperature 1 and score its gold answer after each rationale.

    Args:
        subject: model, format and examples.
        m: rollouts per prompt.
        seed: the draws are a function of it, of m and of `rows_per_batch`.
        rows_per_batch: rollouts that are sampled at once.
        done: told the number of examples that are ready.
        observe: given the rollouts, example by example, with the ids of their right answers.
    """
    share_prefix(subject.network)
    size = max(rows_per_batch // m, 1)
    sampler = subject.make_sampler(subject.encode_prompts())
    parts, said = [], []
    for start in range(0, len(subject.examples), size):
        *tables, texts = _part(subject, sampler, slice(start, start + size), m, derive_seed(seed, start), observe)
        parts.append(tables)
        said += texts
        done(min(start + size, len(subject.examples)))
    log_w, forced, ended, score, total = (torch.cat(tables) for tables in zip(*parts, strict=True))
    return Measurement(log_w, score >= 1.0, forced, ended, tuple(said), score, total)


def make_prompt_rows(subject: ProbeSetup, measured: Measurement) -> list[dict[str, Any]]:
    """For each example its id, the hash of its content, and what was measured of it; log10 p̂ is None where p̂ is 0."""
    log10_p = log_mean_exp(measured.log_w.double()) / math.log(10)
    ess = effective_size(measured.log_w.double())
    return [
        {
            "id": example.id,
            HASH_KEY: hash_example(example),
            "log10_p_hat": value if math.isfinite(value := float(log10_p[row])) else None,
            "success": float(measured.right[row].double().mean()),
            "weight_ess": value if math.isfinite(value := float(ess[row])) else 0.0,
            "rollouts": measured.log_w.shape[1],
            "forced": float(measured.forced[row].double().mean()),
            "ended": float(measured.ended[row].double().mean()),
        }
        for row, example in enumerate(subject.examples)
    ]


def _part(
    subject: ProbeSetup,
    sampler: Sampler,
    chunk: slice,
    m: int,
    seed: int,
    observe: Callable[[Sequence[Trajectory]], None],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[tuple[str, ...]]]:
    """log w, forced, ended, the first reward, their weighted sum, and the answers of some examples.

    Args:
        subject: model, format and examples.
        sampler: what draws.
        chunk: which examples.
        m: rollouts of each.
        seed: all draws are a function of it.
        observe: given the rollouts.
    """
    examples, golds = subject.examples[chunk], subject.golds[chunk]
    prompts = subject.encode_prompts(chunk)
    pad = int(subject.tokens.tokenizer.pad_token_id)  # type: ignore[attr-defined]
    stops = get_stop_tokens(subject.network, subject.tokens.tokenizer)  # type: ignore[arg-type]
    play = None if subject.player is None else subject.player.play
    with autocast(subject.network.device, subject.half):
        rollouts = sample_each(
            sampler, subject.tokens, subject.budget, examples, prompts, m, stop_tokens=stops, seed=seed, play=play
        )
        items = [replace(one, group=number // m, golds=golds[number // m]) for number, one in enumerate(rollouts)]
        observe(items)
        log_w = _log_likelihood(subject.network, collate(items, ("answer",), pad, seed, subject.network.device))

    def table(values: Sequence[bool] | Sequence[float], dtype: torch.dtype = torch.bool) -> Tensor:
        return torch.tensor(values, dtype=dtype).view(len(examples), m)

    score, total = _score(subject, examples, rollouts)
    said = [subject.tokens.response_text(rollout.answer_ids) for rollout in rollouts]
    return (
        log_w.view(len(examples), m).cpu(),
        table([rollout.forced for rollout in rollouts]),
        table([rollout.ended for rollout in rollouts]),
        table(score, torch.float64),
        table(total, torch.float32),
        [tuple(said[row : row + m]) for row in range(0, len(said), m)],
    )


def _score(
    subject: ProbeSetup, examples: Sequence[Example], rollouts: Sequence[Trajectory]
) -> tuple[list[float], list[float]]:
    """The first reward of each answer, and the weighted sum of all; an answer that is not scored has 0, as in a run."""
    m = len(rollouts) // len(examples)
    asked = [example for example in examples for _ in range(m)]
    responses = [make_response(subject.tokens, one, rollout) for one, rollout in zip(asked, rollouts, strict=True)]
    score = [value or 0.0 for value in subject.reward(responses)]
    columns = [(subject.reward.weight, score)]
    columns += [(reward.weight, [value or 0.0 for value in reward(responses)]) for reward in subject.others]
    return score, [math.fsum(weight * of[row] for weight, of in columns) for row in range(len(score))]


def _log_likelihood(network: PreTrainedModel, rows: Rows) -> Float[Tensor, " B"]:
    """Per row, the log-likelihood of its right answers, float64, nats."""
    logp = score_rows(network, rows, rows.batch.answer)
    return join_answers(logp, rows.batch.answer, rows.batch.alias)[0]


def score_rows(
    network: PreTrainedModel, rows: Rows, only: Bool[Tensor, "B T"] | None = None, what: str = "logp"
) -> Float[Tensor, "B T"]:
    """Log-probability of each completion token in nats, in evaluation mode, or the entropy that it was drawn at.

    Args:
        network: the model.
        rows: prompts and completions.
        only: tokens that suffice.
        what: `logp` or `entropy`.

    Raises:
        QreditError: a head that cannot score tokens.
    """
    return score_fields(network, rows, "the probe", ScoreRequest(), only)[what]


@torch.no_grad()
def score_fields(
    network: PreTrainedModel, rows: Rows, reader: str, wanted: ScoreRequest, only: Bool[Tensor, "B T"] | None
) -> dict[str, Float[Tensor, "B T *more"]]:
    """What one forward pass in evaluation mode tells of completion tokens, by the names of batch fields.

    Args:
        network: the model.
        rows: prompts and completions.
        reader: who asks, for errors.
        wanted: what is told beside log-probability and entropy.
        only: tokens that suffice; None is all.

    Raises:
        QreditError: a head that cannot score tokens.
    """
    if not enable_token_scoring(network):
        raise QreditError(f"this model's head cannot score tokens, which {reader} needs")
    layout: Layout = pad_rows(rows) if share_prefix(network) else pack(rows)
    was_training = network.training
    network.eval()
    found = score(network, layout if only is None else layout.only(only), wanted=wanted)
    network.train(was_training)
    return found
