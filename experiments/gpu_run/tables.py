"""A run as Markdown: machine and checks, a row for each phase, the goals, and where an update's time goes."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpu_run.goals import list_goals

Found = Mapping[str, Any]
GIB = 2**30


def describe_run(results: Found) -> str:
    """All of it.

    Args:
        results: as `Results` writes them.
    """
    sections = results["sections"]
    parts = [machine(results), *checks(sections), pair_table(sections), goal_table(sections), profile_table(sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine(results: Found) -> str:
    """Card, versions, date, and the rates that were measured."""
    own = results["installed"]
    versions = ", ".join(f"{name} {own[name]}" for name in ("torch", "trl", "transformers"))
    rates = results["sections"].get("matmul", {})
    shown = [f"{rates[name] / 1e12:,.4g} TFLOP/s in {name}" for name in ("bf16", "float32", "tf32") if name in rates]
    lines = [f"{results['card']}, {results['date']}, {versions}, CUDA {results['cuda']}."]
    if results["toy"]:
        lines.append("Toy sizes on the CPU: that the run works is all that these numbers show.")
    if results["outside"]:
        lines.append(f"Not the versions of pyproject.toml: {', '.join(results['outside'])}.")
    if shown:
        lines.append(f"A {rates['size']} × {rates['size']} product: {', '.join(shown)}.")
    return "\n".join(lines)


def checks(sections: Mapping[str, Found]) -> list[str]:
    """What the checks found, and what was skipped or failed."""
    lines = []
    distances = sections.get("gradients", {}).get("distances")
    if distances:
        shown = ", ".join(f"{name} {value:.2g}" for name, value in distances.items())
        lines.append(
            f"- Gradients, of the norm of ordinary rows' in float32: {shown}. {verdict(sections['gradients'])}."
        )
    steps = sections.get("pocket", {})
    if "answer/nll_per_token" in steps:
        likely = steps["answer/nll_per_token"]
        lines.append(
            f"- {len(likely)} GARL steps on a pocket task in {steps['computed_in']}: nats a token of the gold answers "
            f"{likely[0]:.2f} → {likely[-1]:.2f}. {verdict(steps)}."
        )
    for name, found in sections.items():
        if found.get("not_shared") is not None:
            lines.append(f"- {name}: prompts were NOT computed once ({found['not_shared']}).")
        lines += [f"- {name}: {why} ({found[why]})." for why in ("skipped", "error") if why in found]
    return ["\n".join(lines)] if lines else []


def verdict(found: Found) -> str:
    """In words."""
    return {True: "Passed", False: "FAILED", None: "Not finished"}[found.get("passed")]


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; empty without lines."""
    body = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *body]) if body else ""


def pair_table(sections: Mapping[str, Found]) -> str:
    """One line for each size, weights, phase and objective."""
    columns = ["prompt/completion/M, weights", "phase", "objective", "× TRL", "rounds", "seconds", "TRL's seconds"]
    columns += ["useful tokens/s", "of peak", "GiB of an update", "TRL's GiB"]
    return markdown(
        columns, [line(name, found, row) for name, found in sections.items() for row in found.get("rows", ())]
    )


def line(name: str, found: Found, row: Found) -> list[str]:
    """The cells of a row."""
    peaks = found.get("peaks", {}) if (row["phase"], row["objective"]) == ("update", "garl") else {}
    memory = [f"{peaks[arm] / GIB:.1f}" if arm in peaks else "" for arm in ("qredit", "trl")]
    ratio = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    share = "" if row["roofline"] is None else f"{100 * row['roofline']:.0f} %"
    seconds = [f"{row[which]:.3g}" for which in ("seconds", "their_seconds")]
    tokens = f"{row['tokens_per_second']:,.0f}"
    return [name, row["phase"], row["objective"], ratio, str(row["rounds"]), *seconds, tokens, share, *memory]


def goal_table(sections: Mapping[str, Found]) -> str:
    """The goals beside what was reached."""
    goals = list_goals(sections)
    return markdown(
        ("goal", "at least", "reached", ""),
        [(g.what, number(g.wanted), number(g.reached), "yes" if g.met else "**no**") for g in goals],
    )


def number(value: float) -> str:
    """Tokens a second as whole numbers, ratios with two digits behind the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def profile_table(sections: Mapping[str, Found]) -> str:
    """The kernels of our update that take most, and the update with float32 products in TF32."""
    found = sections.get("profile", {})
    kernels = found.get("kernels", ())
    lines = [(f"`{k['name'].replace('|', '/')}`", f"{1000 * k['seconds']:.1f}", str(k["calls"])) for k in kernels]
    text = markdown((f"kernel, GARL's update at {found.get('size')}", "ms", "calls"), lines)
    if "seconds_in_tf32" not in found:
        return text
    usual, tf32 = (statistics.median(found[name]) for name in ("seconds", "seconds_in_tf32"))
    gap = f"log-probabilities within {found['logp_gap_in_tf32']:.1g} nats"
    return f"{text}\n\nThe same update with float32 products in TF32: {tf32:.3g} s instead of {usual:.3g} s, {gap}."
