"""Golden tensors made from verl's own functions, for tests/objectives/test_against_verl.py: `make golden-verl`.

Runs where verl is installed and this package is not. Advantages and losses are verl's registered functions, called as
its `ppo_loss` calls them; gradients are autograd's through verl's loss. Everything is computed in float64 and written
with nine digits, so that running it again gives the same bytes.

verl ships no MaxRL. Its advantage (arXiv 2602.02710) is made here of verl's centred reward r - p̂ as
(r - p̂) / (p̂ + 1e-6), as in the authors' code (github.com/tajwarfahim/maxrl, compute_p_normalization_outcome_advantage).
"""

import json
import random
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl
from torch import Tensor
from verl.trainer.config import RolloutCorrectionConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.workers.config import ActorConfig, PolicyLossConfig

LENGTH = 8
GROUP_SIZES = (4, 2, 5, 3)
REWARDS = ((0.0, 0.25, 0.5, 1.0), (0.0, 1.0), (0.0, 0.0, 0.0, 1.0))  # graded, even, rare: what each batch draws from
FAR = 4.0  # log-ratios of one more batch, for the methods whose second clip is compared


@dataclass(frozen=True)
class Batch:
    """Rollouts of groups of several sizes, their rows mixed: what verl is given."""

    group: list[int]
    reward: list[float]
    mask: list[list[int]]
    log_prob: list[list[float]]
    old_log_prob: list[list[float]]


@dataclass(frozen=True)
class Method:
    """What a method is called in verl: an advantage estimator, a policy loss, an aggregation."""

    estimator: str
    loss_mode: str
    loss_agg_mode: str
    advantage_options: Mapping[str, Any] = field(default_factory=dict)
    actor_options: Mapping[str, Any] = field(default_factory=dict)
    policy_options: Mapping[str, Any] = field(default_factory=dict)


# REINFORCE with truncated importance weights; all other settings of this class are its defaults.
TRUNCATED = {"bypass_mode": True, "loss_type": "reinforce", "rollout_is": "token", "rollout_is_threshold": 2.0}
METHODS = {
    "grpo": Method("grpo", "vanilla", "seq-mean-token-mean", {"norm_adv_by_std_in_grpo": True}),
    "dr_grpo": Method(
        "grpo",
        "vanilla",
        "seq-mean-token-sum-norm",
        {"norm_adv_by_std_in_grpo": False},
        {"loss_scale_factor": LENGTH},
    ),
    "dapo": Method("grpo", "vanilla", "token-mean", {"norm_adv_by_std_in_grpo": True}, {"clip_ratio_high": 0.28}),
    "dapo_capped_at_10": Method(
        "grpo",
        "vanilla",
        "token-mean",
        {"norm_adv_by_std_in_grpo": True},
        {"clip_ratio_high": 0.28, "clip_ratio_c": 10.0},
    ),
    "rloo": Method("rloo", "bypass_mode", "seq-mean-token-sum"),
    "maxrl": Method("grpo", "bypass_mode", "seq-mean-token-sum", {"norm_adv_by_std_in_grpo": False}),
    "gspo": Method(
        "grpo",
        "gspo",
        "seq-mean-token-mean",
        {"norm_adv_by_std_in_grpo": True},
        {"clip_ratio_low": 0.05, "clip_ratio_high": 0.1},
    ),
    # no cap from below, and 1.5 from above
    "cispo": Method(
        "grpo",
        "cispo",
        "token-mean",
        {"norm_adv_by_std_in_grpo": True},
        {"clip_ratio_low": 1.0, "clip_ratio_high": 0.5},
    ),
    "reinforce_pp_baseline": Method("reinforce_plus_plus_baseline", "vanilla", "token-mean"),
    # a tenth of the tokens, and half the penalty of the scripts
    "kl_cov": Method(
        "grpo",
        "kl_cov",
        "token-mean",
        {"norm_adv_by_std_in_grpo": True},
        policy_options={"kl_cov_ratio": 0.1, "ppo_kl_coef": 0.5},
    ),
    # every eligible token, so that nothing is drawn
    "clip_cov": Method(
        "grpo",
        "clip_cov",
        "token-mean",
        {"norm_adv_by_std_in_grpo": True},
        {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28},
        {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.02, "clip_cov_ub": 0.3},
    ),
}


CAPPED = ("dapo", "dapo_capped_at_10", "dr_grpo")  # verl's second clip at 3 by default


def draw_batch(seed: int, rewards: tuple[float, ...], spread: float = 1.0) -> Batch:
    """Random rollouts. Ratios lie in (0.37, 2.72): beyond both clips, below verl's second one at 3.

    Every third lies between the two upper clips, 1.2 and 1.28. A `spread` of 4 draws the others up to a ratio of 54.
    """
    rng = random.Random(seed)
    group = [number for number, size in enumerate(GROUP_SIZES) for _ in range(size)]
    rng.shuffle(group)
    fixed = {0: rewards[0], 1: rewards[-1]}  # two groups of equal rewards
    lengths = [0, *(rng.randint(1, LENGTH) for _ in group[1:])]
    log_prob = [[round(-3 * rng.random() - 1, 4) for _ in range(LENGTH)] for _ in group]
    return Batch(
        group=group,
        reward=[fixed.get(number, rng.choice(rewards)) for number in group],
        mask=[[int(t < length and rng.random() < 0.85) for t in range(LENGTH)] for length in lengths],
        log_prob=log_prob,
        old_log_prob=[[round(value - draw_log_ratio(rng, spread), 4) for value in row] for row in log_prob],
    )


def draw_log_ratio(rng: random.Random, spread: float) -> float:
    """log of current / old."""
    return rng.uniform(0.19, 0.24) if rng.random() < 1 / 3 else rng.uniform(-spread, spread)


def advantage(method: Method, batch: Batch) -> Tensor:
    """verl's advantage, (B, T); the whole reward stands on the last position, as its reward managers put it."""
    mask = torch.tensor(batch.mask, dtype=torch.float64)
    rewards = torch.zeros_like(mask)
    rewards[:, -1] = torch.tensor(batch.reward, dtype=torch.float64)
    estimate = get_adv_estimator_fn(method.estimator)
    index = np.array(batch.group)
    advantage: Tensor = estimate(rewards, mask, index, **method.advantage_options)[0]
    return advantage


def maxrl_advantage(method: Method, batch: Batch) -> Tensor:
    """(r - p̂) / (p̂ + 1e-6), p̂ = r - (r - p̂) taken from verl's centred reward."""
    whole = Batch(**{**asdict(batch), "mask": [[1] * LENGTH for _ in batch.mask]})
    centred = advantage(method, whole)
    mean = torch.tensor(batch.reward, dtype=torch.float64)[:, None] - centred
    return centred / (mean + 1e-6) * torch.tensor(batch.mask)


def actor_config(method: Method, batch: Batch) -> ActorConfig:
    """verl's settings, with the counts of the global batch that its engines fill in."""
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=max(GROUP_SIZES),
        ppo_micro_batch_size_per_gpu=len(batch.group),
        loss_agg_mode=method.loss_agg_mode,
        policy_loss=PolicyLossConfig(
            loss_mode=method.loss_mode,
            rollout_correction=RolloutCorrectionConfig(**TRUNCATED),
            **method.policy_options,
        ),
        **method.actor_options,
    )
    config.global_batch_info.update(
        dp_size=1,
        batch_num_tokens=sum(map(sum, batch.mask)),
        global_batch_size=len(batch.group),
        loss_scale_factor=config.loss_scale_factor,
    )
    return config


def loss_and_gradient(method: Method, batch: Batch, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """verl's policy loss and its gradient with respect to the log-probabilities, (B, T)."""
    log_prob = torch.tensor(batch.log_prob, dtype=torch.float64, requires_grad=True)
    loss, _ = get_policy_loss_fn(method.loss_mode)(
        old_log_prob=torch.tensor(batch.old_log_prob, dtype=torch.float64),
        log_prob=log_prob,
        advantages=advantages,
        response_mask=torch.tensor(batch.mask, dtype=torch.bool),
        loss_agg_mode=method.loss_agg_mode,
        config=actor_config(method, batch),
    )
    return loss.detach(), torch.autograd.grad(loss, log_prob)[0]


def golden(name: str, number: int, batch: Batch) -> dict[str, Any]:
    """One method on one batch."""
    method = METHODS[name]
    advantages = (maxrl_advantage if name == "maxrl" else advantage)(method, batch)
    loss, gradient = loss_and_gradient(method, batch, advantages)
    return {
        "method": name,
        "batch": number,
        "advantage": digits(advantages.tolist()),
        "loss": digits(loss.item()),
        "gradient": digits(gradient.tolist()),
    }


def digits(value: Any) -> Any:
    """Numbers with nine significant digits, -0 as 0."""
    return [digits(part) for part in value] if isinstance(value, list) else float(f"{value:.9g}") + 0.0


def main(path: Path) -> None:
    """Write the golden file."""
    torch.set_num_threads(1)
    batches = [draw_batch(seed, rewards) for seed, rewards in enumerate(REWARDS)]
    cases = [golden(name, number, batch) for name in METHODS for number, batch in enumerate(batches)]
    far = draw_batch(len(batches), REWARDS[1], FAR)
    cases += [golden(name, len(batches), far) for name in CAPPED]
    content = {
        "command": "make golden-verl",
        "versions": {"verl": verl.__version__, "torch": torch.__version__.split("+")[0]},
        "length": LENGTH,
        "methods": {name: asdict(method) for name, method in METHODS.items()},
        "rollout_correction": TRUNCATED,
        "batches": [asdict(batch) for batch in (*batches, far)],
        "cases": cases,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
