"""Rules by which rollouts are learned from again, one per file, for `--replay RULE(…)`.

A file of this folder is a rule: it defines one `ReplayRule`, named as the file. `kept_credit`, `memory`, `parsing`,
`protocol`, `rows` and `steps` are none.
"""

from collections.abc import Mapping

from qredit.engine.replay.protocol import ReplayRule
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[ReplayRule]] = collect_namesakes(
    __name__, __path__, ("kept_credit", "memory", "parsing", "protocol", "rows", "steps")
)
# Importing a file put the module under its name; `from qredit.engine.replay import spear` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "ReplayRule", *REGISTRY]
