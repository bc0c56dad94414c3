"""Which prompts come next: samplers, what they observe, and when; on one process, on two, and after a resume."""

import json
import shutil
import threading

import pytest
import torch
from transformers import TrainerCallback

from qredit import QreditError
from qredit.data.prompt_sampler import GroupStatistics
from qredit.data.shuffled import ShuffledPrompts
from qredit.data.statistics import summarize_groups, summarize_rewards
from qredit.data.uniform import UniformPrompts
from qredit.engine.checkpoint import MANIFEST
from qredit.engine.collective import SingleProcess
from qredit.engine.prompts import Prompts
from qredit.engine.run_state import STATE_FILE
from qredit.utils.seed import derive_seed
from tests.support.batches import likelihood_batch, reward_batch
from tests.support.marks import e2e
from tests.support.runs import length_reward, questions, trainer
from tests.support.tiny import model

ROWS = [{"prompt": str(number)} for number in range(12)]


class Hardest:
    """A curriculum: the prompts whose reward was lowest when they were last seen; those never seen come first."""

    name = "hardest"

    def __init__(self, prompts):
        self.rewards = [-1.0] * prompts
        self.log = []

    def next(self, n):
        chosen = sorted(range(len(self.rewards)), key=self.rewards.__getitem__)[:n]
        self.log.append(("next", chosen))
        return chosen

    def observe(self, groups):
        self.log.append(("observe", list(groups)))
        for group in groups:
            self.rewards[group.example] = group.reward

    def state_dict(self):
        return {"rewards": list(self.rewards)}

    def load_state_dict(self, state):
        self.rewards = list(state["rewards"])


def calls(sampler):
    return [what for what, _ in sampler.log]


def given(sampler):
    return [chosen for what, chosen in sampler.log if what == "next"]


def observed(sampler):
    return [groups for what, groups in sampler.log if what == "observe"]


# --- samplers


def permutation(prompts, *seeds):
    return torch.randperm(prompts, generator=torch.Generator().manual_seed(derive_seed(*seeds))).tolist()


def test_the_plain_order_is_a_permutation_of_seed_and_epoch():
    order = ShuffledPrompts(9, seed=3)
    epochs = [[order.next(4), order.next(4)] for _ in range(3)]
    for epoch, (first, second) in enumerate(epochs):
        assert first + second == permutation(9, 3, epoch)[:8]
    assert ShuffledPrompts(9, seed=4).next(4) != epochs[0][0]


def test_without_shuffling_prompts_come_as_they_stand():
    order = ShuffledPrompts(5, seed=3, shuffle=False)
    assert [order.next(2) for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]


def test_more_different_prompts_than_there_are_are_refused():
    with pytest.raises(QreditError, match="4 different prompts are asked for, but the data set has 3"):
        ShuffledPrompts(3, seed=0).next(4)


def test_further_prompts_are_those_each_process_drew_itself():
    """By the seeds of the run, the generation, the round and the process, as in versions before there were samplers."""
    further = UniformPrompts(50, seeds=(7, 2), shares=2)
    for attempt in (1, 2):
        drawn = further.next(6)
        for rank in (0, 1):
            generator = torch.Generator().manual_seed(derive_seed(7, 2, attempt, rank))
            assert drawn[3 * rank :][:3] == torch.randint(50, (3,), generator=generator).tolist()


@pytest.mark.parametrize(
    "made",
    [lambda: ShuffledPrompts(9, seed=3), lambda: UniformPrompts(9, seeds=(3,)), lambda: Hardest(9)],
    ids=["shuffled", "uniform", "curriculum"],
)
def test_a_sampler_goes_on_from_its_state(made):
    whole, stopped = made(), made()

    def one_generation(sampler):
        drawn = sampler.next(4)
        sampler.observe([summarize_rewards(index, [index % 5 / 4]) for index in drawn])
        return drawn

    for _ in range(3):
        assert one_generation(whole) == one_generation(stopped)
    again = made()
    again.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert [one_generation(again) for _ in range(4)] == [one_generation(whole) for _ in range(4)]


# --- statistics


def test_a_group_shows_its_mean_reward_and_if_rewards_are_equal():
    batch = reward_batch([0.0, 1.0, 1.0, 1.0, torch.nan, torch.nan], group=[12, 12, 14, 14, 13, 13])
    assert dict(summarize_groups(batch, examples=[30, 31, 32])) == {
        0: GroupStatistics(30, reward=0.5, all_equal=False),
        1: GroupStatistics(31, reward=None, all_equal=True),
        2: GroupStatistics(32, reward=1.0, all_equal=True),
    }


def test_groups_that_are_left_out_show_their_rewards():
    assert summarize_rewards(3, [0.0, torch.nan, 1.0]) == GroupStatistics(3, 0.5, all_equal=False, learned=False)
    assert summarize_rewards(3, [1.0, torch.nan, 1.0]) == GroupStatistics(3, 1.0, all_equal=True, learned=False)
    assert summarize_rewards(3, [torch.nan]) == GroupStatistics(3, None, all_equal=True, learned=False)


def test_likelihood_is_mean_of_the_gold_answers_log_likelihoods():
    batch = likelihood_batch([-1.0, -4.0, -2.0, -torch.inf], group=[0, 0, 1, 1])
    found = dict(summarize_groups(batch, examples=[5, 6]))
    assert [found[place].answer_logp for place in (0, 1)] == [-2.5, -torch.inf]
    assert [found[place].reward for place in (0, 1)] == [None, None]


# --- processes


class Threads:
    """A collective of threads that stand for processes."""

    def __init__(self, rank, size, parts, barrier):
        self.rank, self.size, self.parts, self.barrier = rank, size, parts, barrier

    def gather(self, values):
        self.parts[self.rank] = values
        self.barrier.wait()
        whole = [value for part in self.parts for value in part]
        self.barrier.wait()
        return whole


def on_threads(size, work):
    """What `work` returns on each of as many processes; an error of one of them is raised."""
    parts, barrier, found = [None] * size, threading.Barrier(size, timeout=30), [None] * size

    def one(rank):
        try:
            found[rank] = work(Threads(rank, size, parts, barrier))
        except Exception as error:
            found[rank] = error

    started = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    for error in found:
        if isinstance(error, Exception):
            raise error
    return found


def reward_of(index, number):
    return (index * 5 + number) % 7 / 6


def one_generation(prompts, number, microbatches):
    """As an engine goes about it: this process's prompts, then its micro-batches, whose groups it numbers."""
    prompts.next_generation()
    own = prompts.share(prompts.asked)
    each, total = len(own) // microbatches, len(prompts.asked)
    for place in range(microbatches):
        part = range(place * each, (place + 1) * each)
        group = [number * total + prompts.collective.rank * len(own) + at for at in part for _ in range(2)]
        rewards = [reward_of(own[at], number) for at in part for _ in range(2)]
        prompts.observe(reward_batch(rewards, group=group), complete=True, last=place == microbatches - 1)
    return own


def curriculum_on(collective, microbatches=1, generations=5):
    sampler = Hardest(len(ROWS))
    prompts = Prompts(ROWS, sampler, collective, per_generation=4)
    return [one_generation(prompts, number, microbatches) for number in range(generations)], sampler


@pytest.mark.parametrize("microbatches", [1, 2])
def test_two_processes_ask_and_observe_what_one_does(microbatches):
    alone, sampler = curriculum_on(SingleProcess())
    (first, left), (second, right) = on_threads(2, lambda together: curriculum_on(together, microbatches))
    assert [one + other for one, other in zip(first, second, strict=True)] == alone
    assert left.log == right.log == sampler.log
    assert calls(left) == ["next", "observe"] * 5


def test_a_curriculum_follows_what_it_observed():
    shares, _ = curriculum_on(SingleProcess())
    assert sorted(index for own in shares[:3] for index in own) == list(range(12))
    seen = {index: reward_of(index, number) for number, own in enumerate(shares[:3]) for index in own}
    assert shares[3] == sorted(seen, key=seen.__getitem__)[:4]


def test_processes_that_would_ask_different_prompts_are_refused():
    def work(together):
        order = ShuffledPrompts(len(ROWS), seed=together.rank)
        Prompts(ROWS, order, together, per_generation=4).next_generation()

    with pytest.raises(QreditError, match="the prompts 'shuffled' differ between processes"):
        on_threads(2, work)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [([0, 1, 2], "gave 3 where 4 were asked for"), ([0, 1, 2, 12], "gave index 12; the data set has rows 0 to 11")],
)
def test_what_no_generation_can_ask_is_refused(chosen, said):
    sampler = Hardest(len(ROWS))
    sampler.next = lambda n: chosen
    with pytest.raises(QreditError, match=f"the prompts 'hardest' {said}"):
        Prompts(ROWS, sampler, SingleProcess(), per_generation=4).next_generation()


def test_a_stop_between_micro_batches_keeps_what_is_to_be_told():
    def stopped_at(at):
        prompts = Prompts(ROWS, Hardest(len(ROWS)), SingleProcess(), per_generation=4)
        prompts.next_generation()
        for place in range(4):
            if place == at:
                kept = json.loads(json.dumps(prompts.state_dict()))
                prompts = Prompts(ROWS, Hardest(len(ROWS)), SingleProcess(), per_generation=4)
                prompts.load_state_dict(kept)
            prompts.observe(
                reward_batch([place / 4, 1.0], group=[place, place]), complete=place % 2 == 1, last=place == 3
            )
        return observed(prompts.sampler)

    assert stopped_at(2) == stopped_at(None)
    assert [group.reward for group in stopped_at(2)[0]] == [0.5, 0.625, 0.75, 0.875]


# --- the trainer


def curriculum_run(folder, data=None, resume=None, network=None, objective="garl(q=0.75)", **changes):
    data = questions(8) if data is None else data
    sampler = Hardest(len(data))
    made = trainer(folder, objective, data, network, reward_funcs=length_reward, prompts=sampler, **changes)
    made.train(resume_from_checkpoint=resume)
    return made, sampler


@pytest.mark.parametrize(
    ("changes", "generations"),
    [
        ({}, 4),
        e2e({"steps_per_generation": 2, "num_iterations": 2}, 1),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, 8),
        e2e({"gradient_accumulation_steps": 2, "steps_per_generation": 4}, 2),
        e2e({"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4}, 4),
    ],
    ids=str,
)
def test_a_generation_is_asked_for_after_all_before_it(tmp_path, changes, generations):
    """Whatever loaders fetch ahead, and however many generations an optimiser step spans."""
    made, sampler = curriculum_run(tmp_path, max_steps=4, **changes)
    assert calls(sampler) == ["next", "observe"] * generations
    for chosen, groups in zip(given(sampler), observed(sampler), strict=True):
        assert [group.example for group in groups] == chosen
        assert all(group.learned and group.answer_logp < 0 for group in groups)
    assert made.prompts.state_dict()["seen"] == []
    used = made._generation.microbatches[-1].rows
    assert len(given(sampler)[-1]) == 2 * made.args.steps_per_generation
    last = made.format.prompt_ids(f"What is {given(sampler)[-1][-1]}? ")
    assert used.prompt_ids[-1][used.prompt_mask[-1].bool()].tolist() == last


@pytest.mark.e2e
def test_rollouts_that_the_guard_dropped_are_sampled_anew(tmp_path):
    class Drop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                made._generation = None

    sampler = Hardest(16)
    changes = {"steps_per_generation": 2, "max_steps": 4}
    made = trainer(tmp_path, reward_funcs=length_reward, prompts=sampler, callbacks=[Drop()], **changes)
    made.train()
    assert calls(sampler) == ["next", "observe"] * 2
    assert [[group.example for group in groups] for groups in observed(sampler)] == given(sampler)


def test_what_is_observed_is_what_was_sampled(tmp_path):
    made, sampler = curriculum_run(tmp_path, objective="grpo()", max_steps=1)
    (groups,) = observed(sampler)
    reward = made._generation.microbatches[0].rows.batch.reward.view(2, 4)
    assert [group.reward for group in groups] == reward.mean(1).tolist()
    assert [group.all_equal for group in groups] == (reward == reward[:, :1]).all(1).tolist()
    assert {group.answer_logp for group in groups} == {None}


SAVING = {"max_steps": 6, "steps_per_generation": 2, "num_iterations": 2, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def curriculum(tmp_path_factory):
    """The run that resumed ones are compared with."""
    folder = tmp_path_factory.mktemp("curriculum")
    return folder, *curriculum_run(folder, save_total_limit=9, **SAVING)


@pytest.mark.parametrize("step", [e2e(1), e2e(2), e2e(4), 5])
def test_a_curriculum_goes_on_exactly_from_every_checkpoint(curriculum, tmp_path, step):
    """1 and 5 lie inside a first pass over a generation, 2 before its repeat, 4 between two generations."""
    folder, whole, sampler = curriculum
    again, later = curriculum_run(
        tmp_path, network=model(seed=5), resume=str(folder / f"checkpoint-{step}"), save_total_limit=9, **SAVING
    )
    assert later.rewards == sampler.rewards
    assert sampler.log[len(sampler.log) - len(later.log) :] == later.log
    for now, then in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(now, then)


def without_prompts(checkpoint):
    """The checkpoint as versions wrote it that kept no state of the prompts."""
    state = json.loads((checkpoint / STATE_FILE).read_text())
    del state["prompts"]
    (checkpoint / STATE_FILE).write_text(json.dumps(state))
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest[STATE_FILE]
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


PLAIN = SAVING | {"save_total_limit": 9, "num_iterations": 1, "max_steps": 6}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run whose prompts are asked in the data's order."""
    folder = tmp_path_factory.mktemp("plain")
    made = trainer(folder, data=questions(8), reward_funcs=length_reward, **PLAIN)
    made.train()
    return folder, made


@pytest.mark.e2e
@pytest.mark.parametrize("step", [3, 4, 5])
def test_checkpoint_of_a_former_version_goes_on_in_plain_order(plain, tmp_path, step):
    """4 ends the first epoch; 3 and 5 lie inside generations."""
    folder, made = plain
    shutil.copytree(folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    without_prompts(tmp_path / f"checkpoint-{step}")
    again = trainer(tmp_path, data=questions(8), reward_funcs=length_reward, network=model(seed=5), **PLAIN)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert again.prompts.state_dict() == made.prompts.state_dict()
    for now, then in zip(again.model.parameters(), made.model.parameters(), strict=True):
        assert torch.equal(now, then)
    with pytest.raises(QreditError, match="written with the prompts 'shuffled', not with 'hardest'"):
        curriculum_run(tmp_path, resume=str(tmp_path / f"checkpoint-{step}"), **SAVING)


@pytest.mark.e2e
def test_another_sampler_than_that_of_the_checkpoint_is_refused(tmp_path):
    settings = SAVING | {"max_steps": 1}
    curriculum_run(tmp_path, **settings)
    plain = trainer(tmp_path, data=questions(8), reward_funcs=length_reward, **settings)
    with pytest.raises(QreditError, match="written with the prompts 'hardest', not with 'shuffled'"):
        plain.train(resume_from_checkpoint=True)


def test_a_run_that_resumes_nothing_begins_with_its_sampler(tmp_path):
    made, sampler = curriculum_run(tmp_path, max_steps=2)
    before = list(sampler.log)
    made.train()
    assert given(sampler)[0] == sampler.log[len(before)][1] == [0, 1]


def some_prompts_vary(completions, prompts, **columns):
    """Rewards that differ within the groups of prompts with an even number, and are 0 in the others."""
    places = {}
    return [
        float(places.setdefault(text, []).append(0) or len(places[text]) % 2) * (int(text.split()[-1][:-1]) % 2 == 0)
        for text in prompts
    ]


def test_dynamic_sampling_asks_for_further_prompts_and_tells(tmp_path):
    data = questions(16)
    sampler = Hardest(len(data))
    made = trainer(
        tmp_path, "dapo()", data, reward_funcs=some_prompts_vary, prompts=sampler, dynamic_sampling=6, max_steps=2
    )
    made.train()
    (groups, *_), first = observed(sampler), calls(sampler).index("observe")
    assert first > 1
    learned, left_out = [g for g in groups if g.learned], [g for g in groups if not g.learned]
    assert groups == learned + left_out
    assert len(learned) == 2
    asked = [index for what, chosen in sampler.log[:first] for index in chosen]
    assert sorted(asked) == sorted(group.example for group in groups)
    for group in groups:
        assert group.all_equal == (group.example % 2 == 1)
    assert all(group.example % 2 == 0 for group in learned)
