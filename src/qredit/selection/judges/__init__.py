"""Judges of samples, one per file, for `pairwise(JUDGE)`, `gen_select(JUDGE)` and `judge_score(JUDGE)`.

A file of this folder is a judge: it defines one `Judge`, named as the file. `protocol` and `games` are none.
"""

from collections.abc import Mapping

from qredit.selection.judges.protocol import Judge
from qredit.utils.namesakes import collect_namesakes

JUDGES: Mapping[str, type[Judge]] = collect_namesakes(__name__, __path__, ("protocol", "games"))

__all__ = ["JUDGES", "Judge"]
