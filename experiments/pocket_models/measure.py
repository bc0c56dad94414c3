"""What a pocket model does on its task, measured: how cold it is, and how well it reasons when it is asked to.

p̂ of an example is the mean over its sampled rationales of the likelihood of the gold answer; p0 is the mean of p̂ over
examples: the probability of an exact match, though it be too small to be sampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.rollouts.collate import Rows, collate
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import SamplingParams
from qredit.rollouts.trajectory import Trajectory
from qredit.runs.episodes import make_player
from qredit.runs.options import POCKET, TrainOptions
from qredit.runs.train import make_token_format
from qredit.samplers.answers import as_row
from qredit.samplers.transformers import TransformersSampler, sample
from qredit.tasks.base import Example, Task

BUDGET = TrainOptions(model=POCKET).sampling_budget
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Draws:
    """Rollouts of some examples, with what they score.

    Attributes:
        right: (N, M) the sampled answer is the gold one.
        own: (N, M) the rationale holds the gold rationale: it is about what was asked.
        answer_logp: (N, M) log-likelihood of the gold answer after the rationale, in nats.
        tokens: per rollout, the log-likelihood of each token of the gold answer, its end included, in nats.
    """

    right: Float[Tensor, "N M"]
    own: Float[Tensor, "N M"]
    answer_logp: Float[Tensor, "N M"]
    tokens: Sequence[Float[Tensor, " A"]]

    @property
    def log10_p(self) -> Float[Tensor, " N"]:
        """log10 p̂ of each example."""
        mean = self.answer_logp.logsumexp(1) - math.log(self.answer_logp.shape[1])
        return mean / math.log(10)


def measure(
    model: Any, tokenizer: Any, task: Task, examples: int = 128, rollouts: int = 16, seed: int = 0
) -> dict[str, Any]:
    """The facts about a model in both styles, on the first `examples` validation examples; ready for JSON.

    Returns:
        accuracy: share of sampled answers that are the gold one (p@1).
        own: share of rationales that hold the gold rationale.
        p0: mean of p̂ over examples; log10_p: quantiles of log10 p̂ over examples.
        gates: given the gold rationale, mean log10-likelihood of the gold answer's first token, of all the tokens
            between (their sum), and of its end.
    """
    found: dict[str, Any] = {"examples": examples, "rollouts": rollouts, "seed": seed}
    for style in ("cold", "warm"):
        found[style] = _facts(draws(model, tokenizer, task.load(None, "validation", style, examples), rollouts, seed))
    return found


def draws(model: Any, tokenizer: Any, examples: Sequence[Example], rollouts: int, seed: int) -> Draws:
    """Sample `rollouts` completions of each example and score the gold answer after each rationale."""
    format = TokenFormat(Format.of(tokenizer), tokenizer)
    repeated = [(number, example) for number, example in enumerate(examples) for _ in range(rollouts)]
    prompts = [tuple(format.prompt_ids(example.prompt)) for _, example in repeated]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    sampled = sample(model, prompts, format, BUDGET, stop_tokens=[end], pad=pad, seed=seed)
    items = [
        replace(rollout, group=number, golds=(tuple(format.answer_ids(example.gold)),))
        for rollout, (number, example) in zip(sampled, repeated, strict=True)
    ]
    tokens = answer_logps(model, collate(items, ("answer",), pad, seed, model.device), pad)
    said = [format.response_text(rollout.answer_ids) for rollout in sampled]
    thought = [format.text(rollout.ids[: rollout.close_start]) for rollout in sampled]
    golds = [example for _, example in repeated]

    def table(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).view(len(examples), rollouts)

    return Draws(
        right=table([float(text == gold.answer) for text, gold in zip(said, golds, strict=True)]),
        own=table([float((gold.rationale or "") in text) for text, gold in zip(thought, golds, strict=True)]),
        answer_logp=table([float(row.sum()) for row in tokens]),
        tokens=tokens,
    )


def play_episodes(
    options: TrainOptions, model: Any, tokenizer: Any, asked: Sequence[Example], seed: int
) -> list[Trajectory]:
    """An episode for each example, as a run with these options would sample it.

    Args:
        options: of the run, with an environment or tools.
        model: a pocket model.
        tokenizer: the model's.
        asked: repeat an example to get several.
        seed: of the draws.
    """
    tokens, prompts = make_token_format(options, tokenizer, asked), [one.prompt for one in asked]
    player = make_player(options, tokens, prompts)
    assert player is not None
    sampler, end = TransformersSampler(model, tokenizer.pad_token_id, SamplingParams()), [tokenizer.eos_token_id]
    ids, rows = [tokens.prompt_ids(one) for one in prompts], [as_row(one) for one in asked]
    return player.play(sampler, ids, rows, stop_tokens=end, seed=seed)


@torch.no_grad()
def answer_logps(model: Any, rows: Rows, pad: int) -> list[Float[Tensor, " A"]]:
    """Per row, the log-likelihood of each token of its gold answer, float64, in nats."""
    completion: Tensor = rows.batch.require("ids", "the score of the answer")
    ids = torch.cat([rows.prompt_ids, completion], 1)
    mask = torch.cat([rows.prompt_mask, rows.batch.mask.long()], 1)
    width = rows.prompt_ids.shape[1]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, width - 1 : -1]
    logp = logits.double().log_softmax(-1).gather(-1, ids[:, width:, None])[..., 0]
    return [row[answer] for row, answer in zip(logp, rows.batch.answer, strict=True)]


def _facts(drawn: Draws) -> dict[str, Any]:
    log10_p = drawn.log10_p
    return {
        "accuracy": float(drawn.right.mean()),
        "own": float(drawn.own.mean()),
        "p0": float((10**log10_p).mean()),
        "log10_p": {f"{q:g}": float(log10_p.quantile(q)) for q in QUANTILES},
        "gates": _gates(drawn),
    }


def _gates(drawn: Draws) -> dict[str, float]:
    """Mean log10-likelihood of the answer's first token, the tokens between and its end, after gold rationales."""
    rows = [row for row, own in zip(drawn.tokens, drawn.own.flatten(), strict=True) if own]
    if not rows:
        return {}
    parts = torch.stack([torch.stack([row[0], row[1:-1].sum(), row[-1]]) for row in rows])
    return dict(zip(("first", "between", "end"), (parts.mean(0) / math.log(10)).tolist(), strict=True))
