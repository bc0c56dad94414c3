"""Whether what a method gains where it was trained is gained elsewhere, too: SPECS's factor."""

from qredit.utils.errors import QreditError


def generalization_factor(gain_inside: float, gain_outside: float) -> float:
    """How much a gain on other tasks stands beside the gain on those that were trained on, the former weighing more.

        GF = 5 · G_in · G_out / (4 · G_in + G_out)

    The F_2 score of the two: a weighted harmonic mean, 0 where either is 0, and G where both are G.

    Args:
        gain_inside: success on the tasks that were trained on, less that of the model before; a share from 0 to 1.
        gain_outside: the same on other tasks.

    Returns:
        A share from 0 to 1.

    Raises:
        QreditError: a gain below 0, for which a harmonic mean says nothing, or above 1.

    Source: arXiv 2510.25801 (SPECS), known from others' notes.
    """
    for name, gain in (("gain_inside", gain_inside), ("gain_outside", gain_outside)):
        if not 0.0 <= gain <= 1.0:
            raise QreditError(f"{name} must be a share from 0 to 1, got {gain:g}")
    if gain_inside == 0.0 or gain_outside == 0.0:
        return 0.0
    return 5.0 * gain_inside * gain_outside / (4.0 * gain_inside + gain_outside)
