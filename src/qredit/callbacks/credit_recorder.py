"""What a run's tokens were credited with, step by step, written down for the credit viewer of `qredit report`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qredit.callbacks.metrics_file import JsonLinesCallback
from qredit.core.batch import SPANS, RolloutBatch
from qredit.core.chain import Scope
from qredit.core.objective import trace
from qredit.engine.step import ScoredMicrobatch
from qredit.utils.atomic_files import append_text
from qredit.utils.run_lengths import list_stretches, round_significant, run_length_encode
from qredit.utils.sanitize import to_json_line

MAX_RECORDS = 200  # at most, over a run
MAX_TOKENS = 4096  # of a record, over all its rows
_LEAST_PER_ROW = 64
_PROMPT = 4000  # characters


class CreditRecorder(JsonLinesCallback):
    """Appends the coefficients of the first group's tokens, stage by stage, to a file such as credit.jsonl.

    Give it to the trainer as a callback. It writes on the main process, at every `every`-th step or, in a long run, at
    a multiple of it, so that there are at most 200 records. It reads what was computed and changes nothing.
    """

    def __init__(self, path: Path, every: int, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(path)
        self.every, self.texts = every, TokenTexts(tokenizer)
        self._spacing, self._done = 0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            self._spacing = choose_interval(state.max_steps, self.every)
            self._done = state.global_step

    def observe(self, step: int, learned: ScoredMicrobatch) -> None:
        """Record the first micro-batch of a step, if it is that step's turn."""
        if not self._spacing or step <= self._done or step % self._spacing:
            return
        self._done = step
        append_text(self.path, to_json_line({"step": step} | make_record(learned, self.texts)))


def choose_interval(steps: int, every: int) -> int:
    """Steps between records: a multiple of `every` that leaves at most 200 of them."""
    return every * max(math.ceil(steps / every / MAX_RECORDS), 1)


class TokenTexts:
    """The text of each token by itself; every id is decoded once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def of(self, ids: Sequence[int]) -> dict[str, str]:
        """Text by id, the ids as JSON writes keys."""
        unknown = sorted(set(ids) - self._known.keys())
        pieces = self.tokenizer.convert_ids_to_tokens(unknown)
        for number, piece in zip(unknown, pieces, strict=True):
            text = str(self.tokenizer.decode([number]))
            leads = str(piece).startswith("▁") and not text.startswith(" ")  # a lone word piece is decoded without
            self._known[number] = f" {text}" if leads else text
        return {str(number): self._known[number] for number in sorted(set(ids))}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids in a row."""
        return str(self.tokenizer.decode(list(ids)))


def make_record(learned: ScoredMicrobatch, texts: TokenTexts) -> dict[str, Any]:
    """The first group of a micro-batch as plain data.

    `texts` maps token ids to text; `aliases`, where there are some, are their texts; `stages` names the entries of
    `qredit.core.objective.trace`, the last of which is the coefficient itself. For each row: `ids`, `spans` as [start,
    end) runs, `values`, for each stage runs of [coefficient, tokens], to four significant digits; `credit_sum`, the sum
    over all its tokens; `log_w` in nats, null where w is 0; with aliases `share`, runs of [posterior share, tokens];
    `hinted`, where its rationale was drawn with the gold answer in the prompt. Where a row is too long its middle is
    left out, and `cut` says [where, how many tokens]. Rows of several turns have `turns`, runs of [turn, tokens].
    `likely` is False where no likelihood was computed. `exact` is False where stages that look at the whole optimiser
    step were shown this micro-batch alone; the last one, 'credit', is exact even then.
    """
    batch = learned.batch
    rows = (batch.group == batch.group[0]).nonzero()[:, 0]
    shown, exact = _traced(learned, rows)
    few = batch.select(rows)
    assert few.ids is not None
    kept = [_kept(mask, max(MAX_TOKENS // len(rows), _LEAST_PER_ROW)) for mask in few.mask.cpu()]
    own_ids = [ids[columns].tolist() for ids, columns in zip(few.ids.cpu(), kept, strict=True)]
    width = int(learned.rows.prompt_mask[rows[0]].sum())
    return {
        "objective": str(learned.objective),
        "group": int(batch.group[0]),
        "seed": batch.seed,
        "prompt": texts.decode(learned.rows.prompt_ids[rows[0]].tolist()[-width:])[-_PROMPT:],
        "gold": texts.decode(learned.first[0].golds[0]) if learned.first and learned.first[0].golds else None,
        **_further_answers(learned, texts),
        "responses": [texts.decode(one.answer_ids) for one in learned.first],
        "texts": texts.of([number for ids in own_ids for number in ids]),
        "stages": list(shown),
        "likely": batch.answer_logp is not None,
        "exact": exact,
        "rollouts": [
            _row(few, shown, number, columns, ids)
            for number, (columns, ids) in enumerate(zip(kept, own_ids, strict=True))
        ],
    }


def _further_answers(learned: ScoredMicrobatch, texts: TokenTexts) -> dict[str, Any]:
    """The aliases of the group's gold answer as text, where it has some."""
    aliases = learned.first[0].golds[1:] if learned.first else ()
    return {"aliases": list(map(texts.decode, aliases))} if aliases else {}


def _traced(learned: ScoredMicrobatch, rows: Int[Tensor, " R"]) -> tuple[dict[str, Tensor], bool]:
    """The trace on these rows, on the CPU, and whether it is that of the whole optimiser step."""
    wide = learned.objective.scope >= Scope.BATCH
    with torch.no_grad():
        found = trace(learned.objective, learned.batch if wide else learned.batch.select(rows), learned.state)
    shown = {name: (value[rows] if wide else value).cpu() for name, value in found.items()}
    if learned.credited is None:
        return shown, not wide
    own = learned.credited.value[rows].cpu()
    exact = not wide or torch.allclose(shown["credit"], own, rtol=1e-4, atol=0.0)
    return shown | {"credit": own}, exact


def _kept(mask: Bool[Tensor, " T"], most: int) -> Int[Tensor, " K"]:
    """The columns that are recorded: all, or the first and the last of them."""
    columns = mask.nonzero()[:, 0]
    head = most // 2
    return columns if len(columns) <= most else torch.cat([columns[:head], columns[len(columns) - (most - head) :]])


def _row(
    batch: RolloutBatch, shown: Mapping[str, Tensor], number: int, columns: Int[Tensor, " K"], ids: list[int]
) -> dict[str, Any]:
    spans = {name: getattr(batch, name) for name in SPANS if getattr(batch, name) is not None}
    left_out = int(batch.mask[number].sum()) - len(ids)
    gold = bool(batch.has_answer[number])
    return {
        "tail": "answer" if gold else "response",
        "rollout": number if batch.rollout is None else int(batch.rollout[number]),
        "reward": None if batch.reward is None else round_significant(float(batch.reward[number])),
        "log_w": round_significant(float(batch.answer_logp[number]), 10)
        if gold and batch.answer_logp is not None
        else None,
        **({"hinted": True} if batch.proposal is not None and bool(batch.proposal[number]) else {}),
        "credit_sum": round_significant(float(shown["credit"][number].double().sum())),
        "cut": [len(ids) // 2, left_out] if left_out else None,
        "ids": ids,
        "spans": {name: list_stretches(span[number].cpu()[columns].tolist()) for name, span in spans.items()},
        "values": [run_length_encode(value[number][columns].tolist()) for value in shown.values()],
        **_shares(batch, number, columns),
        **_turns(batch, number, columns),
    }


def _shares(batch: RolloutBatch, number: int, columns: Int[Tensor, " K"]) -> dict[str, Any]:
    """The posterior shares of a row's right answers on its tokens, where it may have several."""
    share = batch.answer_share
    return {} if share is None else {"share": run_length_encode(share[number].cpu()[columns].tolist())}


def _turns(batch: RolloutBatch, number: int, columns: Int[Tensor, " K"]) -> dict[str, Any]:
    """The turns of a row's tokens, counted from 0, where it has several."""
    if batch.turn is None:
        return {}
    turns = batch.turn[number].cpu()[columns].tolist()
    return {"turns": run_length_encode(turns)} if len(set(turns)) > 1 else {}
