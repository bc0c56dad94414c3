"""Short training runs on tiny models, for the trainer's tests."""

from datasets import Dataset
from torch.distributed.tensor import DTensor

from qredit.trl import QreditConfig, QreditTrainer
from tests.support.tiny import model, tokenizer


def questions(count=16, answer="answer", **columns) -> Dataset:
    rows = {"prompt": [f"What is {i}? " for i in range(count)], answer: [str(i) for i in range(count)]}
    return Dataset.from_dict(rows | columns)


def settings(folder, **changes) -> QreditConfig:
    """Two prompts × four rollouts per micro-batch, one micro-batch per step, on the CPU."""
    chosen = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 10,
        "answer_budget": 3,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 7,
    }
    return QreditConfig(**(chosen | changes))


def trainer(folder, objective="garl(q=0.75)", data=None, network=None, **changes) -> QreditTrainer:
    taken = ("reward_funcs", "eval_dataset", "callbacks", "peft_config", "fields", "teachers", "learners", "prompts")
    taken += ("tools", "environment", "environment_factory")
    extra = {name: changes.pop(name) for name in taken if name in changes}
    return QreditTrainer(
        network if network is not None else model(),
        objective,
        settings(folder, **changes),
        data if data is not None else questions(),
        processing_class=tokenizer(),
        **extra,
    )


def length_reward(completions, **columns):
    """A reward that differs within groups, so that reward objectives have something to learn."""
    return [len(text) % 5 / 4 for text in completions]


def first_step_gradients(made: QreditTrainer) -> dict:
    """The gradients that the first optimiser step would use."""
    seen = {}

    def keep(network):
        seen.update({n: whole(p.grad).clone() for n, p in network.named_parameters() if p.grad is not None})
        raise StopIteration

    made._clip_grad_norm = keep
    try:
        made.train()
    except StopIteration:
        return seen
    raise AssertionError("no optimiser step was reached")


def whole(tensor):
    """A tensor that FSDP2 sharded, put together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def relative_difference(left: dict, right: dict) -> float:
    """The largest ‖Δg‖/‖g‖ over tensors."""
    assert left.keys() == right.keys()
    assert any(float(g.norm()) > 0 for g in left.values())
    return max(float((left[n] - right[n]).norm() / right[n].norm().clamp(min=1e-12)) for n in left)
