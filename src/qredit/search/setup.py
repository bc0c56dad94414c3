"""From options to a search: the model, the questions, and who says what is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from qredit.checks.protocol import StepCheck
from qredit.engine.gold_reader import find_gold_reward
from qredit.rewards.judge.endpoint import show_prompt
from qredit.rewards.judge.steps import STEPS
from qredit.rewards.reward_spec import Reward, parse_rewards
from qredit.rollouts.format import TokenFormat
from qredit.runs.load import (
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
from qredit.samplers.vllm.choice import measure_longest
from qredit.search.grow import PromptSearch, SearchPlan, SearchTools, search_prompts
from qredit.search.rows import make_rows
from qredit.tasks.base import Example, Split
from qredit.utils.device import autocast
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed


@dataclass(frozen=True, eq=False)
class SearchSetup:
    """A model and what it is asked.

    Attributes:
        network: the policy.
        half: it computes in bf16.
        examples: those that fit the context.
        prompts: their ids, opening included.
        tools: what a search asks.
        notes: what has to be said about how the examples were read.
    """

    network: PreTrainedModel
    half: bool
    examples: Sequence[Example]
    prompts: Sequence[tuple[int, ...]]
    tools: SearchTools
    notes: Sequence[str]


def load_search(options: TrainOptions, split: Split, limit: int | None, ends: str, check: StepCheck) -> SearchSetup:
    """The model and the questions.

    Args:
        options: model, data and format.
        split: which examples.
        limit: how many at most, in hash order; None is all.
        ends: what ends a step, a name in `STEPS`.
        check: what says whether a step is right.

    Raises:
        QreditError: data, a reward or a model that cannot be used; no tokens to think.
    """
    vllm = parse_vllm(options)
    check_four_bit(options, lora=True)
    reward: Reward = parse_rewards(options.rewards)[0]
    if options.sampling_budget.thinking < 1:
        raise QreditError("a search needs tokens to think; raise max_completion_length, or lower answer_budget")
    path = find_weights(options)
    data = load_data(options, split, limit, find_gold_reward([reward.function]))
    reward.check(data.examples)
    tokens: TokenFormat = make_token_format(options, load_tokenizer(path), data.examples)
    network = load_model(path, options.device, quantization=make_quantization_config(options))
    examples = prepare_examples(data.examples, tokens, network, options, f"{options.task} {split}")
    prompts = [tuple(tokens.prompt_ids(one.prompt, **options.template)) for one in examples]
    longest = measure_longest(prompts, tokens, options.sampling_budget)
    tools = SearchTools(
        sampler=make_answer_sampler(network, tokens, vllm, longest, half=options.half),
        tokens=tokens,
        budget=options.sampling_budget,
        stop_tokens=get_stop_tokens(network, tokens.tokenizer),  # type: ignore[arg-type]
        number_steps=STEPS[ends],
        check=check,
        reward=reward,
    )
    return SearchSetup(network, options.half, examples, prompts, tools, data.notes)


def search_part(setup: SearchSetup, part: slice, plan: SearchPlan, seed: int) -> list[dict[str, Any]]:
    """The rows of some examples.

    Args:
        setup: model and examples.
        part: which examples.
        plan: how far each search goes.
        seed: all draws are a function of it, of the first of these examples, and of how many there are.
    """
    with autocast(setup.network.device, setup.half):
        found = search_prompts(
            setup.examples[part], setup.prompts[part], plan, setup.tools, derive_seed(seed, part.start)
        )
    return [row for one in found for row in list_rows(one)]


def check_parts(parts: Sequence[Sequence[Mapping[str, Any]]], setup: SearchSetup, size: int, file: Path) -> None:
    """Refuse parts that are done of other questions: the data was changed since.

    Args:
        parts: rows of each part.
        setup: model and examples.
        size: examples of a part.
        file: that holds the parts, for errors.

    Raises:
        QreditError: names the first row that is of none of these questions.
    """
    for number, part in enumerate(parts):
        asked = {(one.id, show_prompt(one.prompt)) for one in setup.examples[number * size : (number + 1) * size]}
        other = next((row for row in part if (row["id"], row["prompt"]) not in asked), None)
        if other is not None:
            raise QreditError(
                f"{file} is of a search of other questions, first '{other['id']}'; give another --output, or remove it "
                "to begin anew"
            )


def list_rows(search: PromptSearch) -> list[dict[str, Any]]:
    """The rows of a prompt."""
    return make_rows(search.example.id, show_prompt(search.example.prompt), search.root, search.found)
