"""Rules that choose one of several sampled answers, one per file, for `qredit eval --select RULE(…)`.

A file of this folder is a rule: it defines one `Selection`, named as the file. `parsing`, `protocol` and `outcome` are
none. Scores and judges that rules take lie in the folders of these names.
"""

from collections.abc import Mapping

from qredit.selection.protocol import Selection
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[Selection]] = collect_namesakes(__name__, __path__, ("parsing", "protocol", "outcome"))
# Importing a file put the module under its name; `from qredit.selection import majority` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Selection", *REGISTRY]
