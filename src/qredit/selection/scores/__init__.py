"""Scores of samples, one per file, for `best_of(SCORE)` and `weighted_majority(SCORE)`.

A file of this folder is a score: it defines one `Score`, named as the file.
"""

from collections.abc import Mapping

from qredit.selection.protocol import Score
from qredit.utils.namesakes import collect_namesakes

SCORES: Mapping[str, type[Score]] = collect_namesakes(__name__, __path__)
globals().update(SCORES)  # importing a file put the module under its name; the name is the score

__all__ = ["SCORES", *SCORES]
