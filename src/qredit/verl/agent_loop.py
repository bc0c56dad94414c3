"""The agent loop: thinking with a budget, closed by force if need be, answer and reward; golds appended as ids."""

import asyncio
import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import GenerationConfig
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from qredit.data.encoding import encode, encode_aliases
from qredit.data.rows import RowNames
from qredit.engine.judging import judge_rollout, list_rewards
from qredit.engine.rollout_bytes import to_bytes
from qredit.engine.sequences import list_sequences
from qredit.rollouts.collate import Tail, choose_tails
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.protocol import Completion, Request, check_completions
from qredit.samplers.think_then_answer import NOTHING_DRAWN, ThinkThenAnswer
from qredit.samplers.vllm.colocate import list_length_arguments
from qredit.samplers.vllm.drawn import DrawnCompletion
from qredit.samplers.vllm.engine import EngineOutput
from qredit.tasks.cells import drop_nulls
from qredit.tasks.verl_row import read_verl_row
from qredit.utils.seed import ANSWER_STREAM, EVALUATION_STREAM, derive_seed
from qredit.verl.settings import VerlSettings

ROLLOUT = "qredit_rollout"
"""The key of extra_fields under which a rollout travels, in the first of its rows."""
VALIDATES = "qredit_validates"
"""The column that rows of the validation files are given."""


class QreditAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Samples one rollout and gives a row for each tail, and for each right answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # None is the plain builder of prompts; ours are rendered by the format, as on TRL.
        super().__init__(*args, **{**kwargs, "hf_model_type": None})
        self.settings = VerlSettings.read(self.config.qredit)
        self.asked, self.tails = make_layout(
            self.settings,
            self.tokenizer,
            int(self.rollout_config.response_length),
            str(self.config.actor_rollout_ref.model.path),
        )
        self.format = self.asked.format
        self.template = dict(self.apply_chat_template_kwargs)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> list[Any]:
        """The rows of one rollout, that of the sampled answer last.

        Args:
            sampling_params: verl's, of the rollout or of the validation.
            **row: of the data, and verl's global_steps and session_id.
        """
        validates = bool(row.get(VALIDATES, False))
        info = row.get("extra_info") or {}
        example = read_verl_row(row, self.settings.alias_use.in_reward)
        prompt = self.settings.format.prompt_of(drop_nulls(row["raw_prompt"]), self.tokenizer)
        ids, golds = self._encode(prompt, example.gold, info)
        stream = EVALUATION_STREAM if validates else 0
        seed = derive_seed(
            self.settings.seed, stream, int(row["global_steps"]), int(row.get("index", 0)), int(row["session_id"])
        )
        drawn = await self._draw(ids, sampling_params, seed)
        given = list_rewards(self.settings.reward, str(row["data_source"]))
        # In a thread: a reward may wait for a process or a service, and other rollouts go on meanwhile.
        asked = replace(example, prompt=prompt)
        reward, each = await asyncio.to_thread(judge_rollout, self.format, asked, drawn, given)
        whole = replace(drawn, golds=golds, reward=reward)
        rows = list_sequences(whole, ("response",) if validates else self.tails)
        packed = to_bytes(whole, int(row.get("index", 0)))
        score = 0.0 if math.isnan(reward) else reward
        return [
            AgentLoopOutput(
                prompt_ids=ids,
                response_ids=list(one.ids),
                response_mask=[int(sampled) for sampled in one.sampled],
                response_logprobs=list(one.logp),
                reward_score=score,
                num_turns=2,
                metrics=AgentLoopMetrics(),
                extra_fields={
                    "reward_extra_info": each,
                    "min_global_steps": self._version,
                    "max_global_steps": self._version,
                    **({ROLLOUT: packed} if number == 0 else {}),
                },
            )
            for number, one in enumerate(rows)
        ]

    def _encode(
        self, prompt: Any, answer: str, info: Mapping[str, Any]
    ) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
        """The ids of a prompt and of its right answers."""
        names = RowNames.of([info.get("id", "?")], 1, "data")
        found = encode([prompt], [answer], names, self.format, self.template)
        aliases = list(info.get("aliases") or ()) if self.settings.alias_use.in_likelihood else []
        others = encode_aliases([aliases], found.answer_ids, names, self.format)
        return found.prompt_ids[0], tuple(map(tuple, (found.answer_ids[0], *others[0])))

    async def _draw(self, prompt: Sequence[int], sampling_params: Mapping[str, Any], seed: int) -> Trajectory:
        asked = self.asked
        thinking = await self._complete(asked.thinking_request(prompt), sampling_params, seed)
        head = asked.close(thinking)
        request = asked.answer_request(prompt, head)
        answer = await self._complete(request, sampling_params, derive_seed(seed, ANSWER_STREAM))
        return asked.join(prompt, head, thinking, answer)

    async def _complete(self, request: Request | None, sampling_params: Mapping[str, Any], seed: int) -> Completion:
        """What the rollout servers draw for a request; the ids decide where it ends."""
        if request is None:
            return NOTHING_DRAWN
        drawn = DrawnCompletion(request, seed)
        while drawn.stop is None:
            row = drawn.remainder()
            told = await self.server_manager.generate(
                request_id=f"{seed:x}",
                prompt_ids=list(row.prompt_ids),
                sampling_params={**sampling_params, **list_length_arguments(row), "logprobs": True},
            )
            self._version = int(told.extra_fields.get("global_steps") or 0)
            drawn = drawn.extend(EngineOutput(tuple(told.token_ids), tuple(told.log_probs or ())))
        return check_completions([request], [drawn.completion()])[0]


@functools.lru_cache(maxsize=8)
def make_layout(
    settings: VerlSettings, tokenizer: Any, response_length: int, model: str
) -> tuple[ThinkThenAnswer, tuple[Tail, ...]]:
    """How rollouts are asked for, and what rows end in: worked out once, as verl makes an agent loop for each rollout.

    Args:
        settings: of the run.
        tokenizer: of the model.
        response_length: verl's.
        model: folder or id, for the tokens that end a text by its own settings.
    """
    tokens = settings.format.make(tokenizer)
    ends = {tokenizer.eos_token_id}
    with contextlib.suppress(OSError, ValueError):  # a model need not have such settings
        own = GenerationConfig.from_pretrained(model).eos_token_id
        ends |= set(own if isinstance(own, list) else [own])
    asked = ThinkThenAnswer(tokens, settings.make_budget(response_length, tokens), tuple(sorted(ends - {None})))
    return asked, choose_tails(settings.make_objective().needs)
