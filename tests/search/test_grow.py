"""Rounds of a search: what is asked of the sampler, what becomes of it, and when a prompt is done."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from qredit.checks import StepCheck, arithmetic
from qredit.probe.steps import STEPS
from qredit.rewards.reward_spec import parse_rewards
from qredit.rollouts.sampling_params import TokenBudget
from qredit.search.grow import SearchPlan, SearchTools, search_prompts, split_behind
from qredit.search.tree import Node
from qredit.tasks.base import Example
from tests.support.episodes import ScriptedSampler, token_format
from tests.support.tiny import tokenizer

FIRST = ("1 + 1 = 2. ", "1 + 1 = 3. ")
EXAMPLES = [Example("What? ", "4", str(n)) for n in range(2)]


class Recorder(StepCheck):
    """`arithmetic`, and what it was asked."""

    def __init__(self):
        self.cases = []

    def check(self, cases):
        self.cases += cases
        return arithmetic().check(cases)


def speak(before, number):
    """A first step that is right or wrong, then one that says so, a closing, an answer; the right one first."""
    thought = before.partition("<think>")[2]
    if "</think>" in thought:
        return f" {'4' if FIRST[0].strip() in thought else '5'}<end>"
    if not thought.strip():
        return FIRST[number % 2] + "2 * 2 = 4.</think>"
    return " 2 + 2 = 4.</think>"


@pytest.fixture
def tools():
    words = token_format(tokenizer())
    return SearchTools(
        sampler=ScriptedSampler(tokenizer(), speak),
        tokens=words,
        budget=TokenBudget(thinking=60, answer=8),
        stop_tokens=[tokenizer().eos_token_id],
        number_steps=STEPS["sentences"],
        check=Recorder(),
        reward=parse_rewards("exact_match")[0],
    )


def search(tools, examples=EXAMPLES, seed=0, **plan):
    prompts = [tools.tokens.prompt_ids(one.prompt) for one in examples]
    return search_prompts(examples, prompts, SearchPlan(**{"children": 2, "wanted": 9} | plan), tools, seed)


def test_two_rounds_by_hand(tools):
    one, other = search(tools, rounds=2)
    right, wrong = one.root.children.values()
    (below,) = right.children.values()
    assert [node.text for node in (right, wrong, below)] == ["1 + 1 = 2.", "1 + 1 = 3.", "2 + 2 = 4."]
    # Round 1, each with the step 2 * 2 = 4 behind it: V = 1 + F. Round 2 below the right one, twice V = F.
    assert [node.value for node in (right, wrong, below)] == pytest.approx([2 + 0.9 * 2, 0.0, 2.0])
    assert one.root.value == pytest.approx(0.9 * 2 + 0.81 * 2)
    assert [node.visits for node in (one.root, right, wrong, below)] == [4, 2, 0, 0]
    assert (right.verdict, wrong.verdict, below.verdict) == (True, False, True)
    assert [(tuple(step.text for step in found.steps), found.right) for found in one.found] == [
        (("1 + 1 = 2.", "2 * 2 = 4."), True),
        (("1 + 1 = 3.", "2 * 2 = 4."), False),
        *[(("1 + 1 = 2.", "2 + 2 = 4."), True)] * 2,
    ]
    assert {found.answer.strip() for found in one.found} == {"4", "5"}
    assert other.root.value == one.root.value


def test_drawing_goes_on_from_the_tokens_of_the_steps(tools):
    one, _ = search(tools, rounds=3)
    prompt = tuple(tools.tokens.prompt_ids("What? "))
    thinking = tools.sampler.calls[::2]  # every other call asks for answers
    right = next(iter(one.root.children.values()))
    below = next(iter(right.children.values()))
    assert thinking == [[prompt] * 4, [(*prompt, *right.ids)] * 4, [(*prompt, *right.ids, *below.ids)] * 4]


def test_white_space_alone_is_no_step(tools):
    sampler = ScriptedSampler(tokenizer(), lambda before, number: speak(before, number).replace("2 * 2 = 4.", ""))
    (one,) = search(replace(tools, sampler=sampler), EXAMPLES[:1], rounds=1)
    assert [len(found.steps) for found in one.found] == [1, 1]


def test_a_step_that_goes_on_ends_where_it_ends(tools):
    """Behind a node without a blank line at its end: more of it, then a step; or a blank line, then a step."""

    def split(before, drawn):
        node = Node(tuple(tokenizer()(before).input_ids), before, Node())
        ids = (*node.ids, *tokenizer()(drawn).input_ids)
        rollout = SimpleNamespace(rationale_ids=ids)
        steps = split_behind(rollout, node, replace(tools, number_steps=STEPS["blank_lines"]))
        assert [id for step, _ in steps for id in step] == list(ids[len(node.ids) :])
        return [text for _, text in steps]

    assert split("the cat", " lives\n\nin the house\n\nsix") == ["lives", "in the house", "six"]
    assert split("the cat", "\n\nlives\n\nsix") == split("the cat\n\n", "lives\n\nsix") == ["lives", "six"]


def test_what_nothing_scored_is_neither_right_nor_wrong(tools):
    (one,) = search(replace(tools, reward=lambda responses: [None] * len(responses)), EXAMPLES[:1], rounds=3)
    assert (one.found, one.root.value, one.root.children) == ([], 0.0, {})


def test_every_round_draws_by_a_seed_of_its_own(tools):
    seeds = []

    class Seeded(ScriptedSampler):
        def sample(self, requests, seed):
            seeds.append(seed)
            return super().sample(requests, seed)

    sampler = Seeded(tokenizer(), speak)
    search(replace(tools, sampler=sampler), rounds=3)
    assert len(set(seeds)) == len(seeds) == 6


def test_a_step_is_checked_behind_those_before_it(tools):
    search(tools, EXAMPLES[:1], rounds=2)
    told = [(case.question, case.before, case.step, case.answer) for case in tools.check.cases]
    assert told[:2] == [("What? ", (), "1 + 1 = 2.", "4"), ("What? ", ("1 + 1 = 2.",), "2 * 2 = 4.", "4")]
    assert told[-1] == ("What? ", ("1 + 1 = 2.",), "2 + 2 = 4.", "4")


def test_it_ends_with_as_many_right_and_wrong_as_wanted(tools):
    (one,) = search(tools, EXAMPLES[:1], rounds=9, wanted=1)
    assert [found.right for found in one.found] == [True, False]


def test_wrong_ones_are_looked_for_once_right_ones_are_there(tools):
    (one,) = search(tools, EXAMPLES[:1], rounds=2, wanted=2)
    assert [found.right for found in one.found] == [True, False, True, True]
    (one,) = search(tools, EXAMPLES[:1], rounds=3, wanted=2, exploration=0.0)
    assert [found.right for found in one.found][4:] == [False, False]


def test_where_nothing_can_grow_a_search_ends(tools):
    sampler = ScriptedSampler(tokenizer(), lambda before, number: "</think>" if "</think>" not in before else "4<end>")
    (one,) = search(replace(tools, sampler=sampler), EXAMPLES[:1], rounds=9)
    assert (len(sampler.calls), one.found, one.root.value) == (2, [], 2.0)  # thinking and answers of one round


def test_a_step_that_fills_the_budget_is_not_gone_on_from(tools):
    width = len(tokenizer()(FIRST[0].strip())["input_ids"])
    (one,) = search(replace(tools, budget=TokenBudget(thinking=width, answer=8)), EXAMPLES[:1], rounds=9)
    assert [node.can_grow for node in one.root.children.values()] == [False, False]
    assert len(tools.sampler.calls) == 2
