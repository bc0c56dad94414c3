"""Questions answered by sampling: several answers to each, scored."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from qredit.evaluation.metrics import QuestionResult
from qredit.rewards.reward_spec import Response, Reward
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.protocol import Sampler
from qredit.samplers.think_then_answer import think
from qredit.tasks import Example
from qredit.utils.seed import derive_seed


class Play(Protocol):
    """Plays an episode for each prompt, as `environments.episode.EpisodePlayer.play` does."""

    def __call__(
        self,
        sampler: Sampler,
        prompts: Sequence[Sequence[int]],
        examples: Sequence[Mapping[str, Any]],
        *,
        stop_tokens: Sequence[int],
        seed: int,
    ) -> list[Trajectory]:
        """One trajectory per prompt, in their order.

        Args:
            sampler: what draws tokens.
            prompts: the ids of each prompt, opening included.
            examples: the row of each.
            stop_tokens: ids that end a text.
            seed: all draws are a function of it.
        """
        ...


def as_row(example: Example) -> dict[str, Any]:
    """An example as the row that a trainer would hold of it."""
    own = {"prompt": example.prompt, "aliases": list(example.aliases), "id": example.id}
    gold = {} if example.answer is None else {"answer": example.answer}
    return {**example.columns, **own, **gold}


def answer_all(
    sampler: Sampler,
    format: TokenFormat,
    examples: Sequence[Example],
    rewards: Sequence[Reward],
    budget: TokenBudget,
    k: int,
    *,
    seed: int,
    stop_tokens: Sequence[int],
    rows_per_batch: int = 256,
    template: Mapping[str, object] | None = None,
    play: Play | None = None,
) -> Iterator[QuestionResult]:
    """Sample k answers to every question and score them, yielding each question as it is done.

    Draws are a function of (seed, batch) and of the sampler; questions are taken in order, `rows_per_batch // k` at a
    time.

    Args:
        sampler: what draws tokens.
        format: the layout of a completion, as ids of this tokenizer.
        examples: questions with their reference answers.
        rewards: the first decides on success.
        budget: the most tokens of thinking and of answer.
        k: samples of a set: the k of p@k and m@k.
        seed: all draws are a function of it.
        stop_tokens: ids that end a text.
        rows_per_batch: rollouts that are sampled at once.
        template: switches of the chat template.
        play: plays an episode for each question, in the place of thinking and answering once.
    """
    size = max(rows_per_batch // k, 1)
    for start in range(0, len(examples), size):
        batch = examples[start : start + size]
        prompts = [format.prompt_ids(example.prompt, **(template or {})) for example in batch]
        at = derive_seed(seed, start)
        rollouts = sample_each(sampler, format, budget, batch, prompts, k, stop_tokens=stop_tokens, seed=at, play=play)
        for number, example in enumerate(batch):
            mine = rollouts[number * k : (number + 1) * k]
            responses = [make_response(format, example, rollout) for rollout in mine]
            yield QuestionResult(
                id=example.id,
                answer=example.answer,
                predictions=tuple(response.answer for response in responses),
                rationales=tuple(response.rationale for response in responses),
                scores={reward.name: tuple(reward(responses)) for reward in rewards},
                ended=sum(rollout.ended for rollout in mine),
                forced=sum(rollout.forced for rollout in mine),
                mean_logp=tuple(map(mean_logp, mine)),
                answer_logp=tuple(map(_answer_logp, mine)),
                tokens=sum(len(segment.ids) for rollout in mine for segment in rollout.segments if segment.sampled),
            )


def mean_logp(rollout: Trajectory) -> float | None:
    """The mean log-probability of the tokens that were sampled; None where none is known."""
    known = [logp for segment in rollout.segments if segment.sampled for logp in segment.logp or ()]
    return math.fsum(known) / len(known) if known else None


def _answer_logp(rollout: Trajectory) -> float | None:
    """The log-probability of the answer that it ended with; None where there is none, or none is known."""
    return math.fsum(rollout.answer.logp) if rollout.answer is not None and rollout.answer.logp else None


def sample_each(
    sampler: Sampler,
    format: TokenFormat,
    budget: TokenBudget,
    examples: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    k: int,
    *,
    stop_tokens: Sequence[int],
    seed: int,
    play: Play | None,
) -> list[Trajectory]:
    """k rollouts of each question, those of one question behind each other.

    Args:
        sampler: what draws tokens.
        format: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of thinking and of answer.
        examples: the questions.
        prompts: their ids, opening included.
        k: rollouts of each.
        stop_tokens: ids that end a text.
        seed: all draws are a function of it.
        play: plays an episode for each, in the place of thinking and answering once.
    """
    rows = [prompt for prompt in prompts for _ in range(k)]
    if play is None:
        return think(sampler, rows, format, budget, stop_tokens=stop_tokens, seed=seed)
    told = [as_row(example) for example in examples for _ in range(k)]
    return play(sampler, rows, told, stop_tokens=stop_tokens, seed=seed)


def make_response(format: TokenFormat, example: Example, rollout: Trajectory) -> Response:
    """A rollout as rewards read it, `example` being the question as it was asked.

    Args:
        format: the layout of a completion, as ids of this tokenizer.
        example: the question and its answers.
        rollout: as it was sampled.
    """
    return Response(
        prompt=example.prompt,
        completion=format.text(rollout.ids),
        ids=rollout.ids,
        rationale=format.text(rollout.ids[: rollout.close_start]),
        answer=format.response_text(rollout.answer_ids),
        example=example,
        episode_reward=None if math.isnan(rollout.episode_reward) else rollout.episode_reward,
        turn_counts=[turn.counts for turn in rollout.turns],
    )
