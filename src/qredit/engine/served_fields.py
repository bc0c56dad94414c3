"""Whether an engine fills all that an objective reads."""

from collections.abc import Collection

from qredit.core.chain import field_kinds
from qredit.core.field_names import LOGP_PREFIX, STATE_PREFIXES
from qredit.core.objective import Objective
from qredit.utils.errors import QreditError


def check_served(objective: Objective, filled: Collection[str], told: Collection[str], engine: str) -> None:
    """Refuse an objective that an engine cannot serve.

    Args:
        objective: of the run.
        filled: kinds of batch fields that it fills.
        told: the fields of teachers that it has.
        engine: its name.

    Raises:
        QreditError: parts that do not go together (`Objective.check`); a proposal, which it does not draw from; a
            teacher that it has not; another field that it does not fill.
    """
    objective.check()
    needs = (objective.needs | objective.needs_off_policy) - set(told)
    if objective.proposal is not None:
        raise QreditError(f"{objective} draws from a proposal, which is not done on {engine}; train it on TRL")
    teachers = sorted(name for name in needs if name.startswith((LOGP_PREFIX, *STATE_PREFIXES)))
    if teachers:
        raise QreditError(
            f"{objective} compares with a teacher ({', '.join(teachers)}), and {engine} tells "
            f"{', '.join(sorted(told))} alone; train it on TRL"
        )
    missing = sorted(field_kinds(needs) - set(filled))
    if missing:
        raise QreditError(f"{objective} needs {', '.join(missing)}, which nothing fills on {engine}; train it on TRL")
