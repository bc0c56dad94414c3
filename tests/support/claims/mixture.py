"""What is claimed of GARL and PAFT where some rationales come from the policy shown the gold answer."""

from decimal import Decimal

from qredit.core.chain import per_span
from qredit.core.hint import hint
from qredit.core.importance import mixture_weight
from qredit.core.objective import Objective
from qredit.credit.likelihood import amplified_likelihood, subtract_mixture_baseline
from qredit.objectives import garl, paft
from qredit.testing.laws import MixtureClaims, StageSubject, Subject

HALF = hint(share=0.5)
COMMITMENTS = (0.0, 0.5, 0.75, 1.0)


def mixture_plug_in(q: float, normalize: bool = False) -> Objective:
    """GARL without its baseline: a_m on both spans."""
    source = amplified_likelihood(q, normalize, mixture_weight())
    return Objective(per_span(rationale=source, answer=source), proposal=HALF)


def mixture_weights(q: float):
    """c_m and a_m of GARL with a proposal, from the formula, row by row, in decimal arithmetic."""

    def weights(w, p, r, drawn):
        w, p, r = ([Decimal(value) for value in values] for values in (w, p, r))
        m, commitment = len(w), Decimal(q)
        share = Decimal(sum(drawn)) / m
        u = [own / ((1 - share) * own + share * other) for own, other in zip(p, r, strict=True)]
        uw = [weight * own for weight, own in zip(u, w, strict=True)]
        mean = sum(uw) / m
        amplified = [value / mean**commitment for value in uw]

        def part(without, source):
            rows = [row for row in range(m) if drawn[row] == source and row not in without]
            return (share if source else 1 - share) * sum(uw[row] for row in rows) / len(rows)

        def baseline(row):
            others = [other for other in range(m) if drawn[other] != drawn[row]]
            means = [part({row, other}, False) + part({row, other}, True) for other in others]
            return sum(value ** (1 - commitment) for value in means) / len(others)

        centred = [a - u[row] * baseline(row) for row, a in enumerate(amplified)]
        return [float(c) for c in centred], [float(a) for a in amplified]

    return weights


BATTERY = (
    *(
        Subject(
            garl(q, normalize=False, proposal=HALF),
            mixture=MixtureClaims(q, plain=mixture_plug_in(q), weights=mixture_weights(q)),
        )
        for q in COMMITMENTS
    ),
    *(
        Subject(paft(q, normalize=False, proposal=HALF), mixture=MixtureClaims(plug_in=mixture_plug_in(q)))
        for q in (0.0, 0.75)
    ),
    Subject(garl(0.75, proposal=HALF), equals=((garl(0.75, normalize=False, proposal=HALF), lambda m: m**-0.75),)),
)
STAGES = (StageSubject(subtract_mixture_baseline(0.5)),)
