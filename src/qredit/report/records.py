"""Records of credit.jsonl as the viewer shows them: checked, made safe to show, and beside them other objectives."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from qredit.core.batch import SPANS, RolloutBatch
from qredit.core.chain import Scope
from qredit.core.objective import Objective
from qredit.objectives.parsing import parse
from qredit.report.collect import RunData
from qredit.utils.errors import QreditError
from qredit.utils.run_lengths import run_length_encode

COMPARED_OBJECTIVES = ("grpo()", "maxrl()", "garl(q=0.0)", "garl(q=0.75)", "garl(q=1.0)", "paft(q=0.75)")

_HINTED = "some of these rationales were drawn with the gold answer in the prompt, which it would not have drawn"

Record = dict[str, Any]


def prepare_records(run: RunData, beside: Sequence[str] = COMPARED_OBJECTIVES) -> list[Record]:
    """The records of a run that are whole, each with what other objectives make of the same rollouts.

    Raises:
        QreditError: an objective that cannot be read.
    """
    for text in beside:
        _parsed(text)
    found = []
    for entry in run.credit:
        try:
            found.append(_record(entry, beside, run.steps))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError):
            continue
    return found


def _record(entry: Mapping[str, Any], beside: Sequence[str], steps: int) -> Record:
    texts = {str(int(number)): str(text) for number, text in entry["texts"].items()}
    record: Record = {
        "step": int(entry["step"]),
        "objective": str(entry["objective"]),
        "prompt": str(entry["prompt"]),
        "gold": None if entry.get("gold") is None else str(entry["gold"]),
        "aliases": [str(text) for text in entry.get("aliases") or []],
        "likely": bool(entry["likely"]),
        "exact": bool(entry["exact"]),
        "stages": [str(stage) for stage in entry["stages"]],
        "texts": texts,
        "rollouts": [_rollout(one, len(entry["stages"]), texts, entry) for one in entry["rollouts"]],
    }
    if not record["rollouts"]:
        raise ValueError("a record without rollouts")
    if any(one["hinted"] for one in record["rollouts"]):
        return record | {"beside": [{"name": text, "why": _HINTED} for text in beside]}
    batch = make_batch(entry, record["rollouts"])
    progress = min(record["step"] / max(steps, 1), 1.0)
    return record | {"beside": [_compute_other_credit(text, batch, progress) for text in beside]}


def _rollout(one: Mapping[str, Any], stages: int, texts: Mapping[str, str], entry: Mapping[str, Any]) -> Record:
    ids = [int(number) for number in one["ids"]]
    values = [[[_number(value), int(count)] for value, count in stage] for stage in one["values"]]
    spans = {name: [[int(a), int(b)] for a, b in one["spans"].get(name, [])] for name in SPANS}
    share = [[float(value), int(count)] for value, count in one.get("share") or [[1.0, len(ids)]]]
    turns = [[int(turn), int(count)] for turn, count in one.get("turns") or [[0, len(ids)]]]
    counts = {sum(int(pair[1]) for pair in stage) for stage in (*one["values"], share, turns)}
    edges = [edge for runs in spans.values() for span in runs for edge in span]
    if len(values) != stages or counts - {len(ids)} or any(str(number) not in texts for number in ids):
        raise ValueError("a record whose parts do not fit")
    if any(not 0 <= edge <= len(ids) for edge in edges):
        raise ValueError("a span outside its row")
    responses, place = entry.get("responses") or [], int(one.get("rollout", -1))
    cut = one.get("cut")
    return {
        "tail": "answer" if one["tail"] == "answer" else "response",
        "rollout": place,
        "reward": _number(one["reward"]),
        "log_w": _number(one["log_w"]),
        "hinted": bool(one.get("hinted", False)),
        "credit_sum": _number(one["credit_sum"]),
        "cut": None if cut is None else [int(cut[0]), int(cut[1])],
        "ids": ids,
        "spans": spans,
        "values": values,
        "share": share,
        "turns": turns,
        "response": str(responses[place]) if 0 <= place < len(responses) else None,
    }


def make_batch(entry: Mapping[str, Any], rollouts: Sequence[Record]) -> RolloutBatch:
    """The recorded rows as a batch: ids, spans, rewards and likelihoods, one group."""
    width = max(len(one["ids"]) for one in rollouts)

    def span(name: str) -> Tensor:
        marked = torch.zeros(len(rollouts), width, dtype=torch.bool)
        for row, one in enumerate(rollouts):
            for start, end in one["spans"][name]:
                marked[row, start:end] = True
        return marked

    def spread(name: str, filled: Tensor) -> Tensor:
        for row, one in enumerate(rollouts):
            filled[row, : len(one["ids"])] = torch.tensor([value for value, count in one[name] for _ in range(count)])
        return filled

    lengths = torch.tensor([len(one["ids"]) for one in rollouts])
    ids = torch.zeros(len(rollouts), width, dtype=torch.long)
    for row, one in enumerate(rollouts):
        ids[row, : len(one["ids"])] = torch.tensor(one["ids"])
    numbers = [one["rollout"] for one in rollouts]
    share = spread("share", torch.ones(len(rollouts), width, dtype=torch.float64))
    turn = spread("turns", torch.zeros(len(rollouts), width, dtype=torch.long))
    spans: dict[str, Any] = {name: span(name) for name in SPANS}
    return RolloutBatch(
        mask=torch.arange(width)[None] < lengths[:, None],
        ids=ids,
        **spans,
        group=torch.full((len(rollouts),), int(entry.get("group", 0))),
        rollout=torch.tensor(numbers) if len(set(numbers)) < len(numbers) else None,
        answer_share=share if bool((share != 1).any()) else None,
        turn=turn if bool((turn > 0).any()) else None,
        seed=None if entry.get("seed") is None else int(entry["seed"]),
        reward=_column([one["reward"] for one in rollouts], math.nan),
        answer_logp=_column([one["log_w"] for one in rollouts], -math.inf) if entry["likely"] else None,
    )


def _column(values: Sequence[float | None], unknown: float) -> Tensor:
    return torch.tensor([unknown if value is None else value for value in values], dtype=torch.float64)


def _compute_other_credit(text: str, batch: RolloutBatch, progress: float) -> Record:
    """What another objective gives these rows, or why it can give nothing."""
    objective = _parsed(text)
    missing = sorted(objective.needs - set(batch.present))
    if missing:
        return {"name": text, "why": f"it needs {', '.join(missing)}, which this run did not record"}
    if objective.scope >= Scope.BATCH:
        return {"name": text, "why": "its statistics run over a whole optimiser step, and one group is recorded"}
    try:
        credit = objective.at(progress).credit(batch)
    except QreditError as error:
        return {"name": text, "why": str(error)}
    rows = zip(credit.tolist(), batch.mask.sum(1).tolist(), strict=True)
    return {"name": text, "values": [run_length_encode(values[:length]) for values, length in rows]}


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


@cache
def _parsed(text: str) -> Objective:
    return parse(text)
