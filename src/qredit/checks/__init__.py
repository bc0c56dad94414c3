"""Rules that say whether a step of a rationale is right, one per file, for `qredit search --check RULE(…)`.

A file of this folder is a rule: it defines one `StepCheck`, named as the file. `parsing` and `protocol` are none. The
makers `check_step_scores` and `check_wrong_steps` of fields take them, too.
"""

from collections.abc import Mapping

from qredit.checks.protocol import StepCheck
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[StepCheck]] = collect_namesakes(__name__, __path__, ("parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.checks import arithmetic` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "StepCheck", *REGISTRY]
