"""Rules of the learning rate that transformers has no name for, one per file, for `--lr-schedule RULE(…)`.

A file of this folder is a rule: it defines one `LrSchedule`, named as the file. `parsing` and `protocol` are none.
"""

from collections.abc import Mapping

from qredit.engine.lr_schedules.protocol import LrSchedule
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[LrSchedule]] = collect_namesakes(__name__, __path__, ("parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.engine.lr_schedules import rex` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "LrSchedule", *REGISTRY]
