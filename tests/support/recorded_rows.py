"""Rollouts that the TRL adapter sampled, and what it made of them: `python -m tests.support.recorded_rows`.

Two engines cannot share an environment. So TRL's loss and gradient norm of a first step are kept in a file, with the
rollouts that they are of, and a run on verl that is given the same rollouts must have the same.
"""

import json
import math
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import pocket, tasks
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from tests.support.paths import GOLDEN

FILE = GOLDEN / "trl_rows.json"
MODEL = "dial-6"
PROMPTS, M = 2, 4
COMPLETION, ANSWER = 40, 8  # tokens
TWO_TAILS = "add(on_span('answer', amplified_likelihood(q=0.75)), on_span('sampled', reward() | center_by_group()))"
OBJECTIVES = (
    "garl(q=0.75)",
    "paft(q=0.5)",
    "grpo()",
    "grpo() | entropy_bonus(0.01)",
    "reinforce_pp() | entropy_bonus(0.01)",
    TWO_TAILS,
)


def read():
    """What the file holds."""
    return json.loads(FILE.read_text())


def read_rollouts():
    """The rollouts of the file, in groups of M."""
    return [from_text(text, number // M) for number, text in enumerate(read()["rollouts"])]


def to_text(trajectory, index):
    """A rollout as JSON, without its row of the data.

    Args:
        trajectory: with golds and reward.
        index: of its prompt in the data.
    """
    told = {
        "index": index,
        "prompt": trajectory.prompt,
        "segments": [
            (str(one.role), one.sampled, list(one.ids), None if one.logp is None else list(one.logp))
            for one in trajectory.segments
        ],
        "end": str(trajectory.end),
        "dropped_ends": trajectory.dropped_ends,
        "golds": trajectory.golds,
        "reward": trajectory.reward,
    }
    return json.dumps(told)


def from_text(text, group):
    """The rollout that `to_text` wrote, as one of that group."""
    told = json.loads(text)
    return Trajectory(
        prompt=tuple(told["prompt"]),
        segments=tuple(
            Segment(tuple(ids), Role(role), sampled, None if logp is None else tuple(logp))
            for role, sampled, ids, logp in told["segments"]
        ),
        end=EndReason(told["end"]),
        dropped_ends=told["dropped_ends"],
        group=group,
        golds=tuple(map(tuple, told["golds"])),
        reward=told["reward"],
    )


def reward_by_length(completions, **columns):
    """A reward that differs within groups: this model is never right."""
    return [len(text) % 5 / 4 for text in completions]


def record(objective, folder, questions):
    """What the TRL adapter samples, and makes of it, in a first step.

    Args:
        objective: its text.
        folder: for what the trainer writes.
        questions: a prompt and an answer for each group.

    Returns:
        Its rollouts as text, its loss and the norm of its gradient.
    """
    from datasets import Dataset

    from qredit.trl import QreditTrainer
    from tests.support.runs import first_step_gradients, settings

    path = pocket.get_model_path(MODEL)
    made = QreditTrainer(
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        objective,
        settings(
            folder, seed=0, num_generations=M, per_device_train_batch_size=len(questions) * M,
            max_completion_length=COMPLETION, answer_budget=ANSWER, shuffle_dataset=False, bf16=False,
        ),
        Dataset.from_list(questions),
        processing_class=AutoTokenizer.from_pretrained(path, padding_side="left"),
        reward_funcs=reward_by_length,
    )  # fmt: skip
    losses, rollouts = [], []
    loss, sampled = made.compute_loss, made.rollout_sampler.sampled

    def keep_loss(*given, **named):
        losses.append(loss(*given, **named))
        return losses[-1]

    def keep_rollouts(*given, **named):
        rollouts.append(sampled(*given, **named))
        return rollouts[-1]

    made.compute_loss, made.rollout_sampler.sampled = keep_loss, keep_rollouts
    gradients = first_step_gradients(made)
    norm = math.sqrt(sum(float(one.double().square().sum()) for one in gradients.values()))
    places = {tuple(made.format.prompt_ids(one["prompt"])): index for index, one in enumerate(questions)}
    indices = [places[one.prompt] for one in rollouts[0]]
    assert indices == sorted(indices)  # stages that draw take the group's number for their seed
    texts = [to_text(one, index) for one, index in zip(rollouts[0], indices, strict=True)]
    return texts, float(losses[0].detach()), norm


def record_all():
    """The content of the file."""
    examples = tasks.get("pocket-dial").load(None, "train", "cold", PROMPTS)
    found = {"questions": [{"prompt": one.prompt, "answer": one.answer} for one in examples]}
    for objective in OBJECTIVES:
        with tempfile.TemporaryDirectory() as folder:
            rollouts, loss, norm = record(objective, folder, found["questions"])
        found.setdefault("rollouts", rollouts)
        assert rollouts == found["rollouts"]  # what is sampled does not depend on what is learned
        found.setdefault("steps", {})[objective] = {"loss": loss, "grad_norm": norm}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps(record_all(), indent=1) + "\n")
