"""Rules by which prompts are chosen, one per file, for `--curriculum RULE(…)`.

A file of this folder is a rule: it defines one `Curriculum`, named as the file. `parsing` and `protocol` are none.
"""

from collections.abc import Mapping

from qredit.curricula.protocol import Curriculum, CurriculumData
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[Curriculum]] = collect_namesakes(__name__, __path__, ("parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.curricula import tiers` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Curriculum", "CurriculumData", *REGISTRY]
