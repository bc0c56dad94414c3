"""pocket-dial: two hops over four facts; small and fast, with base models at every coldness."""

from qredit.tasks.pocket.hotpot import make_draw, render
from qredit.tasks.pocket.scene import make_pocket_task

POCKET_DIAL = make_pocket_task(
    name="pocket-dial",
    summary="generated: two hops over four facts, with base models from p0 = 1e-1 to 1e-12 (HotPotQA's schema)",
    draw=make_draw("pocket-dial", chains=2),
    render=render,
    metrics=("exact_match", "f1"),
)
