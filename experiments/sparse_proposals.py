"""Success on rationales that the prior hardly ever draws: every q alone, and with rationales drawn behind a hint.

    python experiments/sparse_proposals.py     the tables in docs/theory.md; about fifteen minutes on one core

First by enumeration: the expected amplification of GARL over ∇ℓ_0 in the lab's sparse policy, with half of the
rationales from a proposal. Then by training a policy of one prompt. A rationale is a code of digits, drawn digit by
digit. The gold answer has likelihood 0.9 after the right code and e^-30 after any other: nothing is graded. The skill
to answer is fixed, so that it cannot be learned without the code. Behind the hint the same parameters draw, with a
constant added to the right digits' logits. In two kinds of hint the policy that knows the answer also writes further
digits in another style than it has without.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qredit.control.diagnostics import collect_proposal_stats
from qredit.core.batch import RolloutBatch
from qredit.core.field_names import HINTED_LOGP
from qredit.core.hint import hint
from qredit.core.importance import mixture_weight
from qredit.core.objective import Objective
from qredit.core.tsallis import amplification
from qredit.lab.policies import HIT_LIKELIHOOD, make_policy, make_sparse_policy
from qredit.objectives import garl, paft
from qredit.testing.moments import Proposal, exact_moments
from qredit.testing.policy import EnumerablePolicy

P, M, HALF = 1e-5, 32, hint(share=0.5)
SYMBOLS, MISS = 10, -30.0
GROUPS, ROLLOUTS, STEPS, LEARNING_RATE, SEEDS = 4, 16, 400, 0.05, range(5)
ESCAPED = 0.5


# --- by enumeration


def expected_amplification(objective: Objective, policy: EnumerablePolicy, proposal: Proposal | None) -> float:
    """⟨E ĝ, ∇ℓ_0⟩ / |∇ℓ_0|²."""
    target = policy.loss_gradient(0.0)
    return float(exact_moments(objective, policy, M, proposal=proposal).mean @ target / target.square().sum())


def print_amplification() -> None:
    """GARL's amplification with and without proposals that draw the right rationale with these probabilities."""
    policy = make_sparse_policy(P)
    shares = (0.5, 0.1, 0.01)
    print(f"| q | P^-q at P = {P:g} | plain, M = {M} |" + "".join(f" r(z*) = {r:g} |" for r in shares))  # noqa: T201
    print("|---|---|---|" + "---|" * len(shares))  # noqa: T201
    for q in (0.25, 0.5, 0.75, 1.0):
        plain = expected_amplification(garl(q, normalize=False), policy, None)
        cells = []
        for r in shares:
            likelihoods = torch.tensor([math.log(HIT_LIKELIHOOD), -700.0], dtype=torch.float64)
            hinted = make_policy(torch.tensor([r, 1 - r], dtype=torch.float64), likelihoods)
            mixed = garl(q, normalize=False, proposal=HALF)
            cells.append(f"{expected_amplification(mixed, policy, Proposal(hinted, M // 2)):.3g}")
        print(f"| {q:g} | {amplification(P, q):.3g} | {plain:.3g} | " + " | ".join(cells) + " |")  # noqa: T201


# --- by training


@dataclass(frozen=True)
class HintKind:
    """How the policy that is shown the answer draws.

    Attributes:
        digit: chance of each right digit behind the hint, at the start.
        style: further digits that it writes otherwise than without the hint.
    """

    digit: float
    style: int = 0


HINTS: Mapping[str, HintKind] = {
    "sharp: each digit right with 0.9": HintKind(0.9),
    "vague: each digit right with 0.3": HintKind(0.3),
    "sharp, with 4 digits in another style": HintKind(0.9, style=4),
    "sharp, with 20 digits in another style": HintKind(0.9, style=20),
}


@dataclass(frozen=True, eq=False)
class Lock:
    """A policy of codes: independent digits, the right one of each is 0.

    Attributes:
        digits: of the code.
        hint: how it draws behind the hint.
    """

    digits: int
    hint: HintKind

    @property
    def length(self) -> int:
        """Digits of a rationale."""
        return self.digits + self.hint.style

    def start(self) -> Float[Tensor, "L V"]:
        """Logits: even over the code, and 0.92 on one symbol of the style."""
        theta = torch.zeros(self.length, SYMBOLS, dtype=torch.float64)
        theta[self.digits :, 0] = 4.6
        return theta

    def tilt(self) -> Float[Tensor, "L V"]:
        """What the hint adds to the logits."""
        added = torch.zeros(self.length, SYMBOLS, dtype=torch.float64)
        added[: self.digits, 0] = math.log(self.hint.digit / (1 - self.hint.digit) * (SYMBOLS - 1))
        added[self.digits :, 1] = 9.0
        return added

    def success(self, theta: Float[Tensor, "L V"]) -> float:
        """P = 0.9 · the chance of the right code without the hint."""
        return HIT_LIKELIHOOD * math.exp(float(theta[: self.digits].log_softmax(1)[:, 0].sum()))


def make_batch(
    lock: Lock, z: Int[Tensor, "B L"], drawn: Tensor, logps: Sequence[Float[Tensor, "B L"]], seed: int
) -> RolloutBatch:
    """Rows of a code and the gold answer.

    Args:
        z: digits.
        drawn: (B,) rows of the proposal.
        logps: of each digit without and with the hint.
    """
    hit = (z[:, : lock.digits] == 0).all(1)
    log_w = torch.where(hit, math.log(HIT_LIKELIHOOD), MISS).double()
    answer = torch.zeros(len(z), lock.length + 1, dtype=torch.bool)
    answer[:, -1] = True
    plain, hinted = (torch.cat([logp, log_w[:, None]], 1) for logp in logps)
    return RolloutBatch(
        mask=torch.ones_like(answer),
        rationale=~answer,
        sampled=~answer,
        answer=answer,
        group=torch.arange(len(z)) // ROLLOUTS,
        proposal=drawn,
        answer_logp=log_w,
        logp=plain.detach(),
        seed=seed,
        extra={HINTED_LOGP: hinted.detach()},
    )


def train(objective: Objective, lock: Lock, seed: int) -> tuple[int | None, float, float]:
    """The step at which P reaches one half, P at the end, and hinted rows' share of Σ u·w in the first ten steps."""
    generator = torch.Generator().manual_seed(seed)
    theta = lock.start().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=LEARNING_RATE)
    k = 0 if objective.proposal is None else objective.proposal.count(ROLLOUTS)
    drawn = (torch.arange(GROUPS * ROLLOUTS) % ROLLOUTS) >= ROLLOUTS - k
    columns = torch.arange(lock.length)
    shares: list[float] = []
    for step in range(STEPS):
        tables = [table.log_softmax(1) for table in (theta, theta + lock.tilt())]
        z = torch.empty(len(drawn), lock.length, dtype=torch.long)
        for rows, table in zip((~drawn, drawn), tables, strict=True):
            if bool(rows.any()):
                draws = torch.multinomial(table.detach().exp(), int(rows.sum()), replacement=True, generator=generator)
                z[rows] = draws.T
        logps = [table[columns, z] for table in tables]
        batch = make_batch(lock, z, drawn, logps, seed * STEPS + step)
        if step < 10 and k:
            shares += collect_proposal_stats(batch, mixture_weight())["proposal_share"].tolist()
        logp = torch.cat([logps[0], batch.logp[:, -1:]], 1)  # type: ignore[index]
        optimizer.zero_grad()
        objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if lock.success(theta.detach()) >= ESCAPED:
            return step + 1, lock.success(theta.detach()), statistics.fmean(shares) if shares else math.nan
    return None, lock.success(theta.detach()), statistics.fmean(shares) if shares else math.nan


def methods() -> Mapping[str, Objective]:
    """The arms; the last one takes hinted rows as if the plain prompt had drawn them."""
    plain = {f"garl(q={q:g})": garl(q) for q in (0.0, 0.75, 1.0)} | {"paft(q=0.75)": paft(0.75)}
    mixed = {f"garl(q={q:g}, proposal)": garl(q, proposal=HALF) for q in (0.0, 0.5, 0.75, 1.0)}
    return {
        **plain,
        **mixed,
        "paft(q=0.75, proposal)": paft(0.75, proposal=HALF),
        "garl(q=0.75), u = 1": replace(garl(0.75), proposal=HALF),
    }


def describe(results: Sequence[tuple[int | None, float, float]]) -> str:
    """Steps to escape over the seeds, or the largest P reached."""
    steps = [step for step, _, _ in results if step is not None]
    share = statistics.fmean(share for _, _, share in results)
    told = "" if math.isnan(share) else f" ({share:.1%})"
    if len(steps) < len(results):
        best = max(p for _, p, _ in results)
        return f"{len(steps)} of {len(results)}, P ≤ {best:.1g}{told}"
    return f"{statistics.median(steps):.0f} [{min(steps)}, {max(steps)}]{told}"


def print_training() -> None:
    """Steps to P = 0.5, for every kind of hint and two coldnesses."""
    for name, kind in HINTS.items():
        print(f"\nHint {name}\n")  # noqa: T201
        print("| method | P = 9e-5 | P = 9e-7 |\n|---|---|---|")  # noqa: T201
        for method, objective in methods().items():
            if objective.proposal is None and kind is not HINTS["sharp: each digit right with 0.9"]:
                continue  # nothing is drawn behind the hint: as above
            cells = [describe([train(objective, Lock(digits, kind), seed) for seed in SEEDS]) for digits in (4, 6)]
            print(f"| `{method}` | {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_amplification()
    print_training()
