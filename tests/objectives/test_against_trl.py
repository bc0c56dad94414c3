"""Group objectives against TRL's trainers: from rewards, through accumulation, to the gradient.

Completions and rewards are planted; advantages, masks, old log-probabilities and counts are made by TRL's own
`_generate_and_score_completions`, micro-batches by its own shuffle and split, the loss by its `_compute_loss`. Then the
weights move, so that ratios leave the trust region, and loss and gradient of one step are compared.

TRL 1.16 ships no MaxRL and no loss with truncated ratios for RLOO. Its CISPO loss is that surrogate: with the number of
rollouts in place of the number of tokens it is held against `rloo()` and `maxrl()`, on advantages written out from
TRL's centred rewards. TRL's RLOO itself clips the ratio of a whole sequence, so gradients agree on policy, and off it
where a completion is one token long.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from qredit import RolloutBatch
from qredit.core.surrogate import score_function
from qredit.objectives import dapo, rloo
from qredit.penalties.entropy import entropy_bonus
from qredit.penalties.reference import kl_to_reference, kl_to_reference_k1, kl_to_reference_k2
from tests.support.against import CAP, LENGTH, METHODS, MUTANTS, WIDTHS, disagreement, objectives
from tests.support.tiny import model, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
PROMPTS, M = ("What is two?", "one two three", "the cat"), 8
ROWS = len(PROMPTS) * M
END = 1
SEEDS = range(3)
MISTAKES = [key for key in MUTANTS if key[0] in METHODS]
SETTINGS = MappingProxyType(
    {
        "grpo": {"loss_type": "grpo", "scale_rewards": "group", "mask_truncated_completions": True},
        "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
        "dapo": {"loss_type": "dapo", "scale_rewards": "group", "epsilon_high": 0.28, "delta": 3.0},
        "rloo": {"loss_type": "cispo", "scale_rewards": "none", "epsilon_high": 2.0},
        "maxrl": {"loss_type": "cispo", "scale_rewards": "none", "epsilon_high": 2.0},
        "penalised": {
            "loss_type": "dapo",
            "scale_rewards": "group",
            "delta": 3.0,
            "entropy_coef": 0.05,
            "use_bias_correction_kl": False,
        },
        "cispo": {"loss_type": "cispo", "scale_rewards": "group", "epsilon_high": CAP},
        "gspo": {
            "loss_type": "grpo",
            "scale_rewards": "group",
            "importance_sampling_level": "sequence",
            "epsilon": WIDTHS[0],
            "epsilon_high": WIDTHS[1],
        },
    }
)


@dataclass(frozen=True)
class Plan:
    """What is planted: completions, which of their tokens the policy drew, and rewards; None = not scored."""

    completions: list[list[int]]
    drawn: list[list[int]]
    rewards: list[float | None]


def draw_plan(seed, longest=LENGTH, unscored=True):
    """Ragged completions with holes, two in three of them ended; in the first group one row is not scored."""
    torch.manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (ROWS,)).tolist()
    completions = [torch.randint(5, 200, (n,)).tolist() for n in lengths]
    completions = [[*ids[:-1], END] if row % 3 else ids for row, ids in enumerate(completions)]
    drawn = [[1, *(torch.rand(n - 1) < 0.85).int().tolist()] for n in lengths]
    rewards = (torch.randint(5, (ROWS,)) / 4).tolist()
    return Plan(completions, drawn, [None, *rewards[1:]] if unscored else rewards)


def common(tmp_path, accumulation):
    return {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": ROWS // accumulation,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation,
        "num_generations": M,
        "max_completion_length": LENGTH,
        "beta": 0.0,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "max_steps": 2,
        "use_cpu": True,
    }


def prepared(trainer, accumulation):
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = accumulation
    return trainer


def grpo_trainer(tmp_path, plan, accumulation, off_policy, **settings):
    """TRL's; off policy it keeps the log-probabilities of the sampler, as it does when a generation is used twice."""
    args = GRPOConfig(**(common(tmp_path, accumulation) | settings), num_iterations=1 + off_policy)

    def planted(prompts, trainer):
        ids = trainer.processing_class(text=prompts)["input_ids"]
        return {"prompt_ids": ids, "completion_ids": plan.completions, "logprobs": None, "env_mask": plan.drawn}

    trainer = GRPOTrainer(
        model(), reward_funcs=lambda completions, **_: plan.rewards, args=args, processing_class=tokenizer(),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}), rollout_func=planted,
    )  # fmt: skip
    return prepared(trainer, accumulation)


def rloo_trainer(tmp_path, plan, accumulation, **settings):
    args = RLOOConfig(**common(tmp_path, accumulation), **settings)
    trainer = RLOOTrainer(
        model(), reward_funcs=lambda completions, **_: plan.rewards, args=args, processing_class=tokenizer(),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
    )  # fmt: skip
    trainer._generate_single_turn = lambda *_: plan.completions
    return prepared(trainer, accumulation)


def generation(trainer):
    return trainer._generate_and_score_completions([{"prompt": prompt} for prompt in PROMPTS for _ in range(M)])


def move(network, scale=0.1):
    """Every weight by a little noise: ratios on both sides of the trust region."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += scale * torch.randn_like(parameter)


def gradient(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def trls(trainer, made, accumulation):
    """Loss and gradient of one step: TRL's shuffled micro-batches, each through its `_compute_loss`."""
    trainer.model.zero_grad()
    parts = split_tensor_dict(shuffle_sequence_dict(made), accumulation)
    losses = [trainer._compute_loss(trainer.model, part) for part in parts]
    torch.stack(losses).sum().backward()
    return float(sum(losses).detach()), gradient(trainer.model)


def rollouts(plan, made):
    mask = made["completion_mask"].bool()
    sampled = mask & made["tool_mask"].bool() if "tool_mask" in made else mask
    return RolloutBatch(
        mask=mask,
        rationale=sampled,
        answer=torch.zeros_like(mask),
        sampled=sampled,
        group=torch.arange(ROWS) // M,
        reward=torch.tensor([torch.nan if value is None else value for value in plan.rewards]),
        sampler_logp=made.get("old_per_token_logps"),
    )


def scores(trainer, made):
    """log-probability and entropy of every completion token, by TRL's own function."""
    ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    attended = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    width = made["completion_ids"].shape[1]
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, attended, width, compute_entropy=True)[:2]


def ours(objective, trainer, plan, made):
    """Loss and gradient of one step, on the log-probabilities that TRL's loss reads."""
    trainer.model.zero_grad()
    logp, entropy = scores(trainer, made)
    extra = {"logp@reference": made["ref_per_token_logps"]} if "ref_per_token_logps" in made else {}
    loss = objective.loss(logp, replace(rollouts(plan, made), entropy=entropy, extra=extra))
    loss.backward()
    return loss.item(), gradient(trainer.model)


def with_advantages_of(method, plan, made):
    """TRL's CISPO inputs for a method that divides by rollouts: its centred rewards, rescaled by the formula."""
    centred = made["advantages"]
    mean = torch.tensor(plan.rewards) - centred
    advantages = {"rloo": centred * M / (M - 1), "maxrl": centred / (mean + 1e-6)}[method]
    return made | {"advantages": advantages, "num_items_in_batch": torch.tensor(float(ROWS))}


def step(method, tmp_path, seed, accumulation, off_policy):
    """A trainer of TRL's whose weights may have moved since it made its inputs; what was planted; the inputs."""
    by_rollout = method in ("rloo", "maxrl")
    plan = draw_plan(seed, unscored=not by_rollout)
    trainer = grpo_trainer(tmp_path, plan, accumulation, off_policy, **SETTINGS[method])
    made = generation(trainer)
    if method == "penalised":  # TRL would load the reference from a path; it is the model before it moves
        trainer.beta, made["ref_per_token_logps"] = 0.2, scores(trainer, made)[0].detach()
    if off_policy:
        move(trainer.model)
    return trainer, plan, with_advantages_of(method, plan, made) if by_rollout else made


@pytest.mark.parametrize(("accumulation", "seed"), [(1, 0), *((3, seed) for seed in SEEDS)])
@pytest.mark.parametrize("off_policy", [False, True], ids=["on", "off"])
@pytest.mark.parametrize("method", [*METHODS, "penalised"])
def test_loss_and_gradient_are_trls(tmp_path, method, off_policy, accumulation, seed):
    if method == "penalised" and accumulation > 1:
        pytest.skip("TRL's entropy bonus is the mean of the micro-batches' means, ours is that of the step's tokens")
    trainer, plan, made = step(method, tmp_path, seed, accumulation, off_policy)
    known = {
        **objectives(epsilon_std=1e-4),
        "penalised": dapo(epsilon_high=0.2) | kl_to_reference(0.2) | entropy_bonus(0.05),
    }
    loss, slope = ours(known[method], trainer, plan, made)
    expected, expected_slope = trls(trainer, made, accumulation)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert disagreement(slope, expected_slope) < 1e-5
    assert float(expected_slope.norm()) > 1e-3


@pytest.mark.parametrize("mistake", [kl_to_reference_k1, kl_to_reference_k2], ids=lambda kind: kind.__name__)
def test_another_estimator_of_the_divergence_would_be_seen(tmp_path, mistake):
    trainer, plan, made = step("penalised", tmp_path, 0, 1, True)
    _, slope = ours(dapo(epsilon_high=0.2) | mistake(0.2) | entropy_bonus(0.05), trainer, plan, made)
    assert disagreement(slope, trls(trainer, made, 1)[1]) > 1e-3


@pytest.mark.parametrize(("method", "mistake"), MISTAKES, ids=[": ".join(key) for key in MISTAKES])
def test_a_mistake_would_be_seen(tmp_path, method, mistake):
    def difference(seed):
        trainer, plan, made = step(method, tmp_path, seed, accumulation=3, off_policy=True)
        _, slope = ours(MUTANTS[method, mistake], trainer, plan, made)
        return disagreement(slope, trls(trainer, made, 3)[1])

    assert any(difference(seed) > 0.01 for seed in SEEDS)


@pytest.mark.parametrize(("accumulation", "agree"), [(1, True), (3, False)])
def test_trls_bnpo_is_a_mean_over_micro_batch_ours_over_step(tmp_path, accumulation, agree):
    plan = draw_plan(seed=0)
    trainer = grpo_trainer(tmp_path, plan, accumulation, True, loss_type="bnpo", scale_rewards="group")
    made = generation(trainer)
    move(trainer.model)
    _, slope = ours(dapo(epsilon_high=0.2), trainer, plan, made)
    difference = disagreement(slope, trls(trainer, made, accumulation)[1])
    assert difference < 1e-5 if agree else difference > 0.01


@pytest.mark.parametrize("accumulation", [1, 3])
def test_rloo_has_the_gradient_of_trls_rloo_trainer_on_policy(tmp_path, accumulation):
    plan = draw_plan(seed=0)
    trainer = rloo_trainer(tmp_path, plan, accumulation)
    made = generation(trainer)
    _, expected = trls(trainer, made, accumulation)
    expected = expected / accumulation  # TRL leaves this division to the training loop
    _, slope = ours(rloo(), trainer, plan, made)
    _, mutant = ours(MUTANTS["rloo", "the rollout's own reward in its baseline"], trainer, plan, made)
    assert disagreement(slope, expected) < 1e-5
    assert disagreement(mutant, expected) > 0.01


def test_rloo_has_the_gradient_of_trls_rloo_off_policy(tmp_path):
    plan = draw_plan(seed=0, longest=1)
    trainer = rloo_trainer(tmp_path, plan, 1, epsilon=10.0)
    made = generation(trainer)
    move(trainer.model)
    made["old_per_token_logps"] = made["old_logps"][:, None]
    _, expected = trls(trainer, made, 1)
    _, slope = ours(replace(rloo(), surrogate=score_function(10.0)), trainer, plan, made)
    on_policy = made | {"old_per_token_logps": None}
    _, mutant = ours(rloo(), trainer, plan, on_policy)
    assert disagreement(slope, expected) < 1e-5
    assert disagreement(mutant, expected) > 0.01
