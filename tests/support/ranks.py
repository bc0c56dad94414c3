"""Ranks of a run on gloo, for test_two_ranks.py: the gradients of every case, on recorded rollouts.

Run in a process of its own: everything is imported once, then every rank is a fork. A fork of the process that runs
tests may wait for ever for a lock that one of its threads held.

    python -m tests.support.ranks FOLDER PORT_OF_A_TOY_SERVER
"""

import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.state import DistributedType, PartialState
from peft import LoraConfig

from qredit.callbacks.collapse_guard import CollapseGuard
from qredit.rollouts.trajectory import Trajectory, make_one_turn
from qredit.shared_prefix.packing import pack
from qredit.trl import QreditConfig, QreditTrainer
from tests.support import critic
from tests.support.ports import free_port
from tests.support.runs import first_step_gradients, questions, settings, whole
from tests.support.tiny import model, tokenizer
from tests.support.vllm_engines import wide_model

PROMPTS, M = 4, 4
CASES = (
    ("garl(q=0.75)", "plain"),
    ("garl(q=0.75)", "chunks"),
    ("garl(q=0.75)", "hopeless"),
    ("garl(q=0.75)", "aliases"),
    ("garl(q=auto())", "plain"),
    ("paft(q=0.5)", "plain"),
    ("dapo()", "plain"),
    ("grpo()", "one-empty"),
    ("on_span('sampled', reward() | center_by_group() | scale_by_batch_std())", "plain"),
    (critic.OBJECTIVE, "learner"),
    ("garl(q=0.75)", "lora"),
    ("garl(q=0.75)", "hopeless-chunks"),
    ("garl(q=0.75)", "past-ddp"),
)
SHARDED_CASES = tuple(case for case in CASES if case[1] in ("plain", "hopeless-chunks", "one-empty", "learner", "lora"))
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Qwen3DecoderLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


def recorded(prompts: list[list[int]]) -> list[Trajectory]:
    """A fixed rollout for each row: a function of its prompt and of its place among the rows of that prompt."""
    seen: dict[tuple[int, ...], int] = {}
    rollouts = []
    for prompt in map(tuple, prompts):
        place = seen[prompt] = seen.get(prompt, -1) + 1
        generator = torch.Generator().manual_seed(sum(prompt) * 100 + place)
        length = 2 + place % 3
        thought = torch.randint(5, 200, (length,), generator=generator).tolist()
        answer = torch.randint(5, 200, (2,), generator=generator).tolist()
        ids = (*thought, 3, *answer)
        rollouts.append(
            make_one_turn(prompt, ids, (-1.0,) * len(ids), length, length + 1, forced=place % 2 == 0, ended=True)
        )
    return rollouts


def rewards(case: str):
    """Rewards that differ within groups; in the case "one-empty", only those of the first two prompts do."""

    def score(prompts, completions, **columns):
        empty = [case == "one-empty" and int(p.split()[2].strip("? ")) >= PROMPTS // 2 for p in prompts]
        return [0.0 if nothing else len(text) % 4 / 3 for nothing, text in zip(empty, completions, strict=True)]

    return score


def case_gradients(out: Path, objective: str, case: str, world: int) -> dict:
    args = settings(
        out / "run", per_device_train_batch_size=PROMPTS * M // world, num_generations=M, shuffle_dataset=False,
        rows_per_forward=3 if case.endswith("chunks") else None,
    )  # fmt: skip
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if sharded:
        pretend_accelerator(args)
    aliases = {"aliases": [["no"], [], [], []]} if case == "aliases" else {}  # of the first rank's prompts alone
    learners = [critic.Critic(32)] if case == "learner" else []
    adapters = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False) if case == "lora" else None
    torch.manual_seed(0)  # the adapters' weights
    made = QreditTrainer(
        model(), objective, args, questions(PROMPTS, **aliases), reward_funcs=rewards(case),
        processing_class=tokenizer(), learners=learners, peft_config=adapters,
    )  # fmt: skip
    made.rollout_sampler.draw = lambda prompts, number: recorded(prompts)
    if case.startswith("hopeless"):
        made.scorer.attach_scores = without_likelihood_in_half(made.scorer.attach_scores)
    if case == "past-ddp":
        score = made.scorer.score
        made.scorer.score = lambda network, rows: score(made.accelerator.unwrap_model(network), rows)
    gradients = {name.removeprefix("module."): g for name, g in first_step_gradients(made).items()}
    moved = {f"{name} of the learner": p.detach() for one in learners for name, p in one.head.named_parameters()}
    assert made.layout is pack, "the prompts were not shared"
    assert (made.accelerator.distributed_type == DistributedType.FSDP) is sharded
    return gradients | moved


def without_likelihood_in_half(scored):
    """Only the first half of the prompts, the first rank's, keep an answer likelihood."""

    def changed(batch, *given):
        result = scored(batch, *given)
        result.answer_logp[batch.group >= PROMPTS // 2] = -torch.inf
        return result

    return changed


def pretend_accelerator(args: QreditConfig) -> None:
    """Have accelerate shard: on CPUs it leaves FSDP's variables unread, though FSDP2 works there."""
    assert args.device.type == "cpu"  # asking for it sets the state up
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU


def train_and_resume(out: Path, world: int, sharded: bool) -> None:
    """Four steps with a checkpoint between, in `out`/whole; on two ranks again from there, in `out`/resumed."""
    for name, resume in (("whole", None), ("resumed", out / "whole" / "checkpoint-2"))[:world]:
        args = settings(
            out / name, per_device_train_batch_size=PROMPTS * M // world, num_generations=M, shuffle_dataset=False,
            max_steps=4, save_strategy="steps", save_steps=2,
        )  # fmt: skip
        if sharded:
            pretend_accelerator(args)
        made = QreditTrainer(model(), "garl(q=0.75)", args, questions(PROMPTS), processing_class=tokenizer())
        made.rollout_sampler.draw = lambda prompts, number: recorded(prompts)
        made.train(resume_from_checkpoint=None if resume is None else str(resume))
        made.save_model(str(out / name / "final"))


def train_guided(out: Path, world: int) -> None:
    """A run that steers its q and is rolled back once, on likelihoods by script: its decisions and weights in `out`."""
    prompts = 2 * PROMPTS
    args = settings(
        out / str(world), per_device_train_batch_size=prompts * M // world, num_generations=M, shuffle_dataset=False,
        max_steps=24, save_strategy="steps", save_steps=2, lr_scheduler_type="constant",
    )  # fmt: skip
    guard = CollapseGuard("roll_back")
    made = QreditTrainer(
        model(), "garl(q=auto())", args, questions(prompts), processing_class=tokenizer(), callbacks=[guard]
    )
    made.rollout_sampler.draw = lambda prompts, number: recorded(prompts)
    made.scorer.attach_scores = with_scripted_likelihood(made)
    made.train()
    told = {
        "auto": made.auto_q.list_decisions(),
        "guard": guard.list_decisions(),
        "rates": [entry["learning_rate"] for entry in made.state.log_history if "learning_rate" in entry],
        "weights": {name.removeprefix("module."): p.detach() for name, p in made.model.named_parameters()},
    }
    torch.save(told, out / f"{world}-{made.accelerator.process_index}.pt")


def with_scripted_likelihood(made: QreditTrainer):
    """Cold for four steps, then warm, from step 14 on collapsed; rows, and so groups and ranks, differ a little."""
    scored = made.scorer.attach_scores

    def changed(batch, *given):
        result, step = scored(batch, *given), made.state.global_step
        level = -12.0 if step < 4 else -0.2 if step < 14 else -4.0
        result.answer_logp[:] = level - 0.03 * (batch.ids.sum(1) % 7)
        return result

    return changed


def train_with_server(out: Path, port: int, sharded: bool) -> None:
    """Two steps that a server samples, their log and final weights in `out`."""
    args = settings(
        out, per_device_train_batch_size=M, num_generations=M, max_completion_length=6, max_steps=2, use_vllm=True,
        vllm_mode="server", vllm_server_port=port, learning_rate=1e-2,
    )  # fmt: skip
    if sharded:
        pretend_accelerator(args)
    network = wide_model()
    network.config._name_or_path = "model"
    made = QreditTrainer(network, "garl(q=0.75)", args, questions(PROMPTS), processing_class=tokenizer())
    made.train()
    rows = made._generation.microbatches[0].rows.batch
    torch.save(
        {
            "log": made.state.log_history,
            "ids": rows.ids,
            "weights": {name: whole(value.detach()) for name, value in made.model.named_parameters()},
        },
        out.with_name(f"{out.name}-{made.accelerator.process_index}.pt"),
    )


def save_gradients(out: Path, served: int) -> None:
    """Those of every case, on this rank of the processes that the environment names; two have a server at a port."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    cases = SHARDED_CASES if sharded else CASES
    gradients = {f"{objective} {case}": case_gradients(out, objective, case, world) for objective, case in cases}
    torch.save(gradients, out / f"gradients-{'fsdp' if sharded else world}-{rank}.pt")
    if world > 1:
        train_with_server(out / ("served-fsdp" if sharded else "served"), served, sharded)
    if not sharded:
        (out / "guided").mkdir(exist_ok=True)
        train_guided(out / "guided", world)
    train_and_resume(out / ("fsdp" if sharded else "alone" if world == 1 else "ddp"), world, sharded)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def run_ranks(folder: Path, served: int, world: int, further: Mapping[str, str]) -> None:
    """That many ranks, each a fork; an error names what they left behind."""
    port = str(free_port())
    pids = [fork_rank(folder, served, rank, world, port, further) for rank in range(world)]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(statuses):
        sys.exit(f"{statuses}: " + "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("error-*"))))


def fork_rank(folder: Path, served: int, rank: int, world: int, port: str, further: Mapping[str, str]) -> int:
    """A process that runs one rank, and has imported everything already; its id."""
    pid = os.fork()
    if pid:
        return pid
    error = folder / f"error-{world}-{rank}"
    with error.open("w") as file:
        faulthandler.dump_traceback_later(270, file=file)
        signal.alarm(300)  # a rank that waits for the other must not wait for ever
        try:
            os.environ |= further
            if world > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
                os.environ |= {"LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            save_gradients(folder, served)
        except BaseException:
            traceback.print_exc(file=file)
            file.flush()
            os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for processes, environment in ((2, {}), (1, {}), (2, SHARDED)):
        run_ranks(Path(sys.argv[1]), int(sys.argv[2]), processes, environment)
