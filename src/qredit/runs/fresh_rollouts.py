"""Rollouts drawn anew for the training questions, scored by the rewards of a run."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from accelerate import PartialState
from accelerate.utils import gather_object
from rich.console import Console
from transformers import PreTrainedModel

from qredit.data.completions import CompletionGroup, group_by_prompt
from qredit.rewards.reward_spec import Reward, parse_rewards
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.trajectory import Trajectory
from qredit.runs.episodes import get_asked_template, make_player
from qredit.runs.load import get_stop_tokens
from qredit.runs.options import TrainOptions
from qredit.runs.progress_bars import make_progress_bars
from qredit.samplers.answers import make_response, sample_each
from qredit.samplers.transformers import make_sampler
from qredit.tasks.base import Example
from qredit.utils.seed import derive_seed

ROWS_PER_BATCH = 256  # rollouts that are drawn at once


def sample_groups(
    options: TrainOptions,
    model: PreTrainedModel,
    tokens: TokenFormat,
    questions: Sequence[Example],
    m: int,
    console: Console,
) -> list[CompletionGroup]:
    """m rollouts for each question, at temperature 1; every process draws its share and is given all.

    Args:
        options: of the run; draws are a function of its seed, of m and of the number of processes.
        model: as it was loaded; it is moved to the device that computes.
        tokens: the layout of a completion, as ids of its tokenizer.
        questions: as `prepare_examples` made them.
        m: rollouts of a prompt.
        console: where a bar is shown.

    Raises:
        QreditError: a reward function that fails.
    """
    state = PartialState()
    if model.device.type != options.device.type:  # one with 4-bit weights was loaded there, and cannot be moved
        model.to(options.device)
    own = questions[state.process_index :: state.num_processes]
    size = max(ROWS_PER_BATCH // m, 1)
    drawn: list[CompletionGroup] = []
    with make_progress_bars(console) as bars:
        bar = bars.add_task("rollouts", total=len(own), note="", visible=state.is_main_process)
        for batch, rollouts in _draw(options, model, tokens, own, m, size, state.process_index):
            drawn += group_by_prompt(_score(rollouts, batch, tokens, parse_rewards(options.rewards)))
            bars.advance(bar, len(batch))
    return list(gather_object(drawn))


def _draw(
    options: TrainOptions,
    model: PreTrainedModel,
    tokens: TokenFormat,
    examples: Sequence[Example],
    m: int,
    size: int,
    rank: int,
) -> Iterator[tuple[Sequence[Example], list[Trajectory]]]:
    """Examples, so many at once, each time with m rollouts of each."""
    told = [example.prompt for example in examples]
    template, player = get_asked_template(options, told), make_player(options, tokens, told)
    tokenizer = tokens.tokenizer
    sampler = make_sampler(model, int(tokenizer.pad_token_id), half=options.half)  # type: ignore[attr-defined]
    for start in range(0, len(examples), size):
        batch = examples[start : start + size]
        yield (
            batch,
            sample_each(
                sampler,
                tokens,
                options.sampling_budget,
                batch,
                [tokens.prompt_ids(example.prompt, **template) for example in batch],
                m,
                stop_tokens=get_stop_tokens(model, tokenizer),  # type: ignore[arg-type]
                seed=derive_seed(options.seed, rank, start),
                play=None if player is None else player.play,
            ),
        )


def _score(
    rollouts: Sequence[Trajectory], examples: Sequence[Example], tokens: TokenFormat, rewards: Sequence[Reward]
) -> list[Trajectory]:
    """The rollouts with the weighted sum of their rewards: NaN where none of these scored it.

    Args:
        rollouts: those of one example behind each other.
        examples: what they answer.
        tokens: the layout of a completion.
        rewards: of the run.
    """
    each = len(rollouts) // len(examples)
    responses = [make_response(tokens, examples[place // each], one) for place, one in enumerate(rollouts)]
    columns = [[None if value is None else one.weight * value for value in one(responses)] for one in rewards]
    given = [[value for value in row if value is not None] for row in zip(*columns, strict=True)]
    return [replace(one, reward=math.fsum(row) if row else math.nan) for one, row in zip(rollouts, given, strict=True)]
