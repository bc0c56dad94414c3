"""path-star: find the one path from the centre of a star-shaped graph to the end of one of its arms.

A star graph of degree d and path length ℓ has d arms, each of ℓ nodes with the centre counted. Its edges come in any
order, and every arm begins at the centre. So the first step is a guess among d, unless the path is thought of from its
end.

Introduced by Bachmann and Nagarajan, arXiv 2403.06963. In arXiv 2510.03971 Dr. GRPO, VinePPO, progress rewards and
best-of-N training stay at zero on it where the base model never succeeds. Shape, number of nodes and warm prompt follow
the authors' code (github.com/rl4reasoning/rl-baselines). Graphs, seeds and splits are ours.
"""

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from qredit.tasks.base import Example, Record, Split, Style
from qredit.tasks.pocket.scene import (
    SIZES,
    PocketTask,
    Scene,
    SceneDraw,
    Statement,
    assign_split,
    draw_scenes,
    make_record_id,
    refuse_source,
)
from qredit.tasks.task_call import TaskCall
from qredit.utils.errors import QreditError, check_count

NAME = "path-star"
_TRIES = 10_000
_INSTRUCTION = (
    "Given a bi-directional graph in the form of space separated edges, output a path from source node to the "
    "destination node in the form of comma separated integers. Please reason step by step, then give the path alone."
)


def make_path_star_task(
    degree: int = 3,
    length: int = 3,
    nodes: int = 300,
    size: int = SIZES["train"],
    seed: int = 0,
    easier: Sequence[Sequence[int]] = (),
) -> PocketTask:
    """The task over star graphs of one shape. A record holds the graph, source, destination and path, as in the paper.

    "cold" prompts are the edges, then "source,destination=". "warm" prompts are the paper's, but ask for a plain answer
    and not for one in a box.

    Args:
        degree: d, the number of arms, at least 2.
        length: ℓ, the nodes of a path, both of its ends counted, at least 2.
        nodes: the numbers 0 … nodes - 1 that a graph's nodes are drawn from, without repetition.
        size: graphs of the train split; validation has `SIZES["validation"]` and test `SIZES["test"]`.
        seed: of the graphs; no two splits share one, whatever it is.
        easier: shapes of easier graphs, each (degree, length). The train split has as many graphs of each as of the
            task's own, and all of them have the column `difficulty`: the number of edges of the graph. The other splits
            have graphs of the task's own shape alone.

    Raises:
        QreditError: an argument that is no whole number or too small, fewer nodes than a graph has, or an easier shape
            that has no fewer edges.
    """
    given = {"degree": degree, "length": length, "nodes": nodes, "size": size, "seed": seed}
    for name, value in given.items():
        least = {"degree": 2, "length": 2, "size": 1, "seed": 0}.get(name, 1)
        check_count(f"{NAME}: {name}", value, least)
    if nodes < 1 + degree * (length - 1):
        raise QreditError(
            f"{NAME}: {degree} arms of {length} nodes need {1 + degree * (length - 1)} nodes, and nodes is {nodes}"
        )
    shapes = check_easier(easier, degree * (length - 1))
    defaults = {"degree": None, "length": None, "nodes": 300, "size": SIZES["train"], "seed": 0}
    told: dict[str, Any] = {name: value for name, value in given.items() if value != defaults[name]}
    draw = make_draw(degree, length, nodes)
    sizes = {**SIZES, "train": size}

    def read(source: str | None, split: Split) -> Iterable[Record]:
        refuse_source(NAME, source)
        for arms, nodes_of_arm in ((degree, length), *(shapes if split == "train" else ())):
            drawn = draw_scenes(make_draw(arms, nodes_of_arm, nodes), split, seed)
            for _, scene in zip(range(sizes[split]), drawn, strict=False):
                record = scene.records[0]  # the arms are drawn alike, and their edges stand in any order
                yield {**record, "difficulty": arms * (nodes_of_arm - 1)} if shapes else record

    return PocketTask(
        name=TaskCall(NAME, arguments=told | ({"easier": shapes} if shapes else {})).text,
        summary=f"generated: the path to the end of one arm of a star graph, {degree} arms of {length} nodes",
        read=read,
        render=render,
        metrics=("exact_match",),
        sizes=sizes,
        draw=draw,
    )


def check_easier(shapes: Sequence[Sequence[int]], edges: int) -> tuple[tuple[int, int], ...]:
    """Shapes of easier graphs, each (degree, length).

    Args:
        shapes: as they were given.
        edges: those of the graphs that they are to be easier than.

    Raises:
        QreditError: something else than such pairs, a shape with as many edges, or one that is given twice.
    """
    found: list[tuple[int, int]] = []
    given: Any = shapes if isinstance(shapes, tuple | list) else [shapes]
    for shape in given:
        if not isinstance(shape, tuple | list) or len(shape) != 2:
            raise QreditError(f"{NAME}: easier must list shapes as (degree, length), such as [(2, 3)], got {shapes!r}")
        for name, value in zip(("degree", "length"), shape, strict=True):
            check_count(f"{NAME}: {name} of an easier shape", value, 2)
        degree, length = shape
        if degree * (length - 1) >= edges or (degree, length) in found:
            raise QreditError(
                f"{NAME}: easier shapes must differ and have fewer than {edges} edges; ({degree}, {length}) has "
                f"{degree * (length - 1)}"
            )
        found.append((degree, length))
    return tuple(found)


def make_draw(degree: int, length: int, nodes: int) -> SceneDraw:
    """Scenes of one graph each, with a question for the end of every arm.

    Args:
        degree: arms of the graph.
        length: nodes of an arm, the start counted.
        nodes: how many names of nodes there are.
    """

    def draw(rng: random.Random, split: Split) -> Scene:
        for _ in range(_TRIES):
            arms = _draw_arms(rng, degree, length, nodes)
            if assign_split(sorted(map(_told, arms))) == split:
                break
        else:
            raise QreditError(f"{NAME}: no graph of {degree} arms of {length} nodes is left for {split}; raise nodes")
        edges = [f"{one},{other}" for arm in arms for one, other in pairwise(arm)]
        rng.shuffle(edges)
        return Scene(
            records=tuple(_record(edges, arm) for arm in arms),
            statements=tuple(Statement(_think(arm), _told(arm)) for arm in arms),
        )

    return draw


def render(record: Record, style: Style) -> Example:
    """The graph and the question. The rationale is the path from its end, which is how it can be found.

    Args:
        record: id, graph (edges with | between them), source, destination and path, as in the paper's data; and
            difficulty, where there are easier graphs.
    """
    graph = record["graph"].replace("|", " ")  # spaces, as in the paper's prompts
    source, destination = record["source"], record["destination"]
    if style == "cold":
        prompt = f"{graph}\n{source},{destination}="
    else:
        prompt = (
            f"{_INSTRUCTION}\nFor this question the graph is {graph}\nThe source node is {source}\n"
            f"The destination node is {destination}"
        )
    path = record["path"].split(",")
    columns = {"difficulty": record["difficulty"]} if "difficulty" in record else {}
    return Example(prompt=prompt, answer=record["path"], id=record["id"], rationale=_think(path), columns=columns)


def _draw_arms(rng: random.Random, degree: int, length: int, nodes: int) -> list[list[int]]:
    """The paths from the centre to each end; the centre is their first node."""
    centre, *others = rng.sample(range(nodes), 1 + degree * (length - 1))
    steps = length - 1
    return [[centre, *others[arm * steps : (arm + 1) * steps]] for arm in range(degree)]


def _record(edges: Sequence[str], arm: Sequence[int]) -> dict[str, Any]:
    return {
        "id": make_record_id(NAME, (*edges, _told(arm))),
        "graph": "|".join(edges),
        "source": str(arm[0]),
        "destination": str(arm[-1]),
        "path": _told(arm),
    }


def _told(arm: Sequence[int]) -> str:
    return ",".join(map(str, arm))


def _think(arm: Sequence[int | str]) -> str:
    """The path from its end to the centre."""
    return ",".join(map(str, reversed(arm)))
