"""Rewards of sampled rollouts by TRL's reward functions, and TRL's metrics and tables filled with them."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.data_utils import is_conversational

from qredit.rollouts.trajectory import Trajectory
from qredit.trl.generation_metrics import (
    collect_episode_counts,
    collect_length_stats,
    compute_episode_metrics,
    compute_length_metrics,
    compute_reward_metrics,
)


class TrlTrainer(Protocol):
    """What of TRL's trainer rewards come from and go to."""

    model: Any
    accelerator: Accelerator
    state: Any
    reward_weights: Tensor
    reward_func_names: Sequence[str]
    _tokenizer: PreTrainedTokenizerBase
    _metrics: dict[str, dict[str, list[float]]]
    _logs: dict[str, Any]
    _pending_extra_logs: dict[str, list[Any]]
    _pending_metrics: dict[str, list[float]]

    @property
    def rollouts_per_prompt(self) -> int: ...

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], ids: list[list[int]]
    ) -> Tensor: ...


class RewardCalculator:
    """Calls the reward functions of a trainer and logs as TRL does."""

    def __init__(self, tables: TrlTrainer) -> None:
        self.tables = tables

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[float]:
        """The weighted reward of each, NaN where no function scored it; TRL's metrics and tables are filled."""
        prompts, completions, per_function, total = self._rewards(trajectories)
        self._log(trajectories, prompts, completions, per_function, total)
        return self._own(total, len(trajectories))

    def score(self, trajectories: Sequence[Trajectory]) -> list[float]:
        """The same for rollouts that were drawn with a hint: their rewards say nothing of the model and are not logged.

        Their tokens count.
        """
        *_, total = self._rewards(trajectories)
        of = self.tables
        of._pending_extra_logs.clear()
        of._pending_metrics.clear()
        read = torch.tensor(
            float(sum(len(one.prompt) + len(one.ids) for one in trajectories)), device=of.accelerator.device
        )
        of.state.num_input_tokens_seen += int(of.accelerator.reduce(read, "sum"))
        return self._own(total, len(trajectories))

    def _rewards(self, trajectories: Sequence[Trajectory]) -> tuple[list[Any], list[Any], Tensor, Tensor]:
        """Prompts and completions of this process; rewards by function, and their weighted sum, of all processes."""
        of = self.tables
        prompts = [one.example["prompt"] for one in trajectories]
        texts = of._tokenizer.batch_decode([one.ids for one in trajectories], skip_special_tokens=True)
        chat = is_conversational({"prompt": prompts[0]})
        completions = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
        columns = [{**one.example, "response": one.response, "rationale": one.rationale} for one in trajectories]
        if any(one.turns for one in trajectories):
            columns = [{**row, **_tell_episode(one)} for row, one in zip(columns, trajectories, strict=True)]
        per_function = of._calculate_rewards(columns, prompts, completions, [list(one.ids) for one in trajectories])
        total = (per_function * of.reward_weights.to(per_function.device)).nansum(1)
        total[per_function.isnan().all(1)] = torch.nan
        return prompts, completions, per_function, total

    def _own(self, total: Tensor, count: int) -> list[float]:
        """This process's part."""
        first = self.tables.accelerator.process_index * count
        return [float(value) for value in total[first : first + count]]

    def _log(
        self,
        trajectories: Sequence[Trajectory],
        prompts: Sequence[Any],
        completions: Sequence[Any],
        per_function: Tensor,
        total: Tensor,
    ) -> None:
        of, m = self.tables, self.tables.rollouts_per_prompt
        mode, device = "train" if of.model.training else "eval", of.accelerator.device
        plain = _mask_hinted(trajectories, per_function), _mask_hinted(trajectories, total)
        facts = of.accelerator.gather(collect_length_stats(trajectories).to(device)).cpu()
        found = {
            **compute_reward_metrics(of.reward_func_names, *plain, m),
            **compute_length_metrics(facts),
            **compute_episode_metrics(gather_object(collect_episode_counts(trajectories))),
        }
        for name, value in found.items():
            of._metrics[mode][name].append(value)
        if mode == "train":
            read = torch.tensor(float(sum(len(one.prompt) for one in trajectories)), device=device)
            of.state.num_input_tokens_seen += int(of.accelerator.reduce(read, "sum") + facts[:, -1].sum())
        of._metrics[mode]["num_tokens"] = [of.state.num_input_tokens_seen]
        of._logs["prompt"].extend(gather_object(list(prompts)))
        of._logs["completion"].extend(gather_object(list(completions)))
        for name, column in zip(of.reward_func_names, per_function.T, strict=True):
            of._logs["rewards"][name].extend(column.tolist())
        groups = total.view(-1, m)
        of._logs["advantages"].extend((groups - groups.nanmean(1, keepdim=True)).flatten().tolist())
        self._log_what_rewards_logged(mode, len(prompts))

    def _log_what_rewards_logged(self, mode: str, rows: int) -> None:
        """Columns and numbers that reward functions logged through TRL's log_extra and log_metric."""
        of = self.tables
        for column in sorted(set(gather_object(list(of._pending_extra_logs)))):
            of._logs["extra"][column].extend(gather_object(of._pending_extra_logs.get(column, [None] * rows)))
        of._pending_extra_logs.clear()
        for name in sorted(set(gather_object(list(of._pending_metrics)))):
            values = [v for part in gather_object([of._pending_metrics.get(name, [])]) for v in part]
            of._metrics[mode][name].append(sum(values) / len(values))
        of._pending_metrics.clear()


def _tell_episode(one: Trajectory) -> dict[str, Any]:
    """What reward functions are told of an episode: what its environment gave, and the counts of each turn."""
    earned = one.episode_reward
    return {
        "episode_reward": None if math.isnan(earned) else earned,
        "turn_counts": [turn.counts for turn in one.turns],
    }


def _mask_hinted(trajectories: Sequence[Trajectory], rewards: Tensor) -> Tensor:
    """The rewards of all processes, NaN where the gold answer was shown: such answers say nothing of the model.

    Args:
        trajectories: those of this process.
        rewards: (N,) or (N, F) of all processes.
    """
    shown = gather_object([one.proposal for one in trajectories])
    if not any(shown):
        return rewards
    masked = rewards.clone()
    masked[torch.tensor(shown, device=rewards.device)] = torch.nan
    return masked
