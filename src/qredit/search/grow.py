"""The search itself: rounds of selecting, drawing, checking and backing up, over several prompts together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

from qredit.checks.protocol import StepCase, StepCheck, Verdict, check_cases
from qredit.rewards.judge.endpoint import show_prompt
from qredit.rewards.judge.steps import decode_pieces
from qredit.rewards.reward_spec import Reward
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.answers import make_response
from qredit.samplers.protocol import Sampler
from qredit.samplers.think_then_answer import begin_thinking, go_on_thinking
from qredit.search.rows import CheckedStep, Rationale
from qredit.search.tree import EXPLORATION, Node, back_up, select_leaf, value_simulation
from qredit.tasks.base import Example
from qredit.utils.seed import derive_seed

StepNumbers = Callable[[Sequence[int], Any], list[int]]
"""(ids of a rationale, tokenizer) → the number of the step of each token, from 0."""


@dataclass(frozen=True)
class SearchPlan:
    """How far a search goes.

    Attributes:
        rounds: expansions of a prompt, at most.
        children: rationales that are drawn behind a node when it is expanded.
        wanted: right rationales that are looked for, and wrong ones; with both the search of a prompt ends.
        exploration: the weight of what was visited little; see `rate_child`.
    """

    rounds: int = 8
    children: int = 3
    wanted: int = 3
    exploration: float = EXPLORATION


@dataclass(frozen=True)
class SearchTools:
    """What a search asks.

    Attributes:
        sampler: the policy.
        tokens: the layout of a completion, as ids of its tokenizer.
        budget: the most tokens of a rationale and of an answer.
        stop_tokens: ids that end a text.
        number_steps: what ends a step.
        check: what says whether a step is right.
        reward: 1 or more is a right answer.
    """

    sampler: Sampler
    tokens: TokenFormat
    budget: TokenBudget
    stop_tokens: Sequence[int]
    number_steps: StepNumbers
    check: StepCheck
    reward: Reward


@dataclass(eq=False)
class PromptSearch:
    """The search of one prompt.

    Attributes:
        example: that is asked.
        prompt: its ids, opening included.
        root: of the tree.
        found: rationales, in the order in which they were drawn; those without a step, or whose answer nothing scored,
            are left out.
    """

    example: Example
    prompt: tuple[int, ...]
    root: Node = field(default_factory=Node)
    found: list[Rationale] = field(default_factory=list)

    def count(self, right: bool) -> int:
        """How many of the rationales have right answers, or wrong ones."""
        return sum(one.right is right for one in self.found)

    def sign(self, wanted: int) -> int:
        """1 while right rationales are looked for, then -1: the sign of values in UCT."""
        return 1 if self.count(True) < wanted else -1

    def goes_on(self, wanted: int) -> bool:
        """Whether something is still looked for, and something can be grown."""
        return self.root.is_open and min(self.count(True), self.count(False)) < wanted


def search_prompts(
    examples: Sequence[Example], prompts: Sequence[Sequence[int]], plan: SearchPlan, tools: SearchTools, seed: int
) -> list[PromptSearch]:
    """Grow a tree for each prompt.

    A round selects a node of each tree by UCT and draws `children` rationales behind it, to their answers. The first
    step of each becomes a child of the node, and the steps behind that are its simulation: drawn together they are
    distributed as if they were drawn one after the other. A rationale that ends at the node itself is a simulation of
    that, without steps. Then every new step is checked, every answer scored, and values are backed up, one after the
    other.

    Args:
        examples: the questions.
        prompts: their ids, opening included.
        plan: how far it goes.
        tools: what it asks.
        seed: all draws are a function of it and of the prompts.
    """
    searches = [PromptSearch(one, tuple(ids)) for one, ids in zip(examples, prompts, strict=True)]
    for round_ in range(plan.rounds):
        going = [one for one in searches if one.goes_on(plan.wanted)]
        if not going:
            break
        grow(going, plan, tools, derive_seed(seed, round_))
    return searches


def grow(searches: Sequence[PromptSearch], plan: SearchPlan, tools: SearchTools, seed: int) -> None:
    """One round.

    Args:
        searches: that go on.
        plan: how far they go.
        tools: what they ask.
        seed: all draws are a function of it.
    """
    leaves = [(one, select_leaf(one.root, plan.exploration, one.sign(plan.wanted))) for one in searches]
    starts = [(one, leaf) for one, leaf in leaves for _ in range(plan.children)]
    rollouts = go_on_thinking(
        tools.sampler,
        [begin_thinking(one.prompt, leaf.prefix) for one, leaf in starts],
        tools.tokens,
        tools.budget,
        stop_tokens=tools.stop_tokens,
        seed=seed,
    )
    parts = [split_behind(one, leaf, tools) for one, (_, leaf) in zip(rollouts, starts, strict=True)]
    verdicts = _check_steps(starts, parts, tools)
    responses = [
        make_response(tools.tokens, one.example, rollout) for (one, _), rollout in zip(starts, rollouts, strict=True)
    ]
    scores = tools.reward(responses)
    for (search, leaf), own, told, response, score in zip(starts, parts, verdicts, responses, scores, strict=True):
        if score is None:
            continue  # neither right nor wrong
        right = score >= 1
        steps = [CheckedStep(ids, text, one) for (ids, text), one in zip(own, told, strict=True)]
        start = _add_child(leaf, steps[0], tools.budget) if steps else leaf
        back_up(start, value_simulation([step.verdict for step in steps[1:]], right))
        whole = (*(CheckedStep(node.ids, node.text, node.verdict) for node in start.path), *steps[1:])
        if whole:
            search.found.append(Rationale(whole, response.rationale, response.answer, right))
    for _, leaf in leaves:
        leaf.expanded = True


def split_behind(rollout: Trajectory, node: Node, tools: SearchTools) -> list[tuple[tuple[int, ...], str]]:
    """The steps behind a node: token ids and text of each.

    White space that was drawn first belongs to the step that follows it; white space alone is no step. Where no step
    ended before what was drawn first, that is a step of its own up to its end.

    Args:
        rollout: that goes on from the node.
        node: whose steps it begins with.
        tools: tells where steps end.
    """
    ids, start = rollout.rationale_ids, len(node.prefix)
    tokenizer = tools.tokens.tokenizer
    pieces = decode_pieces(ids, tokenizer)
    numbers = tools.number_steps(ids, tokenizer)
    parts = [list(places) for _, places in groupby(range(start, len(ids)), key=numbers.__getitem__)]
    if len(parts) > 1 and not any(pieces[place].strip() for place in parts[0]):
        parts[:2] = [parts[0] + parts[1]]
    found = [(tuple(ids[at] for at in own), "".join(pieces[at] for at in own).strip()) for own in parts]
    return [(step, text) for step, text in found if text]


def _check_steps(
    starts: Sequence[tuple[PromptSearch, Node]],
    parts: Sequence[Sequence[tuple[tuple[int, ...], str]]],
    tools: SearchTools,
) -> list[list[Verdict]]:
    """The verdict on each step, all asked for together."""
    cases = []
    for (search, leaf), own in zip(starts, parts, strict=True):
        question, texts = show_prompt(search.example.prompt), [*(node.text for node in leaf.path), *(t for _, t in own)]
        places = range(len(texts) - len(own), len(texts))
        cases.append([StepCase(question, tuple(texts[:n]), texts[n], search.example.answer) for n in places])
    told = iter(check_cases(tools.check, list(chain.from_iterable(cases))))
    return [[next(told) for _ in own] for own in cases]


def _add_child(node: Node, step: CheckedStep, budget: TokenBudget) -> Node:
    """The child that a step is, a new one if need be.

    Args:
        node: that the step stands behind.
        step: as it was drawn.
        budget: a rationale that fills it is not gone on from.
    """
    can_grow = len(node.prefix) + len(step.ids) < budget.thinking
    return node.children.setdefault(step.ids, Node(step.ids, step.text, node, step.verdict, can_grow))
