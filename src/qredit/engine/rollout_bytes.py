"""A rollout on its way from an agent loop to the driver, as bytes.

    length of the facts | facts, JSON | ids: prompt, segments, golds, int32 | log-probabilities of segments, float32

Tokens are copied and never read one by one: a step may have a hundred million of them, and one process takes them in.
"""

import json
import struct
import sys
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import Any

from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory

_LENGTH = struct.Struct("<q")
_IDS, _LOGP = "i", "f"  # four bytes each, as `array` calls them


def to_bytes(trajectory: Trajectory, index: int) -> bytes:
    """A rollout without its row of the data.

    Args:
        trajectory: with golds and reward.
        index: of its prompt in the data.
    """
    segments = trajectory.segments
    told: dict[str, Any] = {
        "index": index,
        "prompt": len(trajectory.prompt),
        "segments": [(str(one.role), one.sampled, len(one.ids), one.logp is not None) for one in segments],
        "golds": [len(gold) for gold in trajectory.golds],
        "end": str(trajectory.end),
        "dropped_ends": trajectory.dropped_ends,
        "reward": trajectory.reward,  # Python's JSON knows NaN
    }
    facts = json.dumps(told).encode()
    ids = array(_IDS, chain(trajectory.prompt, *(one.ids for one in segments), *trajectory.golds))
    logp = array(_LOGP, chain.from_iterable(one.logp or () for one in segments))
    return b"".join((_LENGTH.pack(len(facts)), facts, _swap(ids).tobytes(), _swap(logp).tobytes()))


def from_bytes(data: bytes) -> tuple[int, Trajectory]:
    """The index and the rollout that `to_bytes` was given; its segments hold arrays, in the place of tuples."""
    (length,) = _LENGTH.unpack_from(data)
    told = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    lengths = [told["prompt"], *(count for _, _, count, _ in told["segments"]), *told["golds"]]
    start = _LENGTH.size + length
    ids = _cut(_read(_IDS, data[start : start + 4 * sum(lengths)]), lengths)
    logp = _read(_LOGP, data[start + 4 * sum(lengths) :])
    of_segments = _cut(logp, [count if known else 0 for _, _, count, known in told["segments"]])
    prompt = tuple(next(ids))
    return told["index"], Trajectory(
        prompt=prompt,
        segments=tuple(
            Segment(next(ids), Role(role), sampled, values if known else None)
            for (role, sampled, _, known), values in zip(told["segments"], of_segments, strict=True)
        ),
        golds=tuple(map(tuple, ids)),
        end=EndReason(told["end"]),
        dropped_ends=told["dropped_ends"],
        reward=told["reward"],
    )


def _read(kind: str, data: bytes) -> "array[Any]":
    found: array[Any] = array(kind)
    found.frombytes(data)
    return _swap(found)


def _swap(values: "array[Any]") -> "array[Any]":
    """From this machine's order of bytes to that of most, or back."""
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _cut(values: "array[Any]", lengths: list[int]) -> Iterator["array[Any]"]:
    start = 0
    for length in lengths:
        yield values[start : start + length]
        start += length
