"""Search over the documents of a question, hop by hop, and an answer at the end."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qredit.environments.protocol import Step
from qredit.environments.retrieval import find_documents
from qredit.rewards.text import exact_match
from qredit.tasks.pocket.search import COLUMN
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_one_line

SHOWN = 3
_CALL = re.compile(r"search\s*\((.*)\)\s*\.?", re.IGNORECASE | re.DOTALL)
_QUOTES = "\"'` \n"


@dataclass
class PocketSearch:
    """Each turn is a search or the answer.

    A search is written `search(Tilo)`, or as a question: `Tilo?`. The `SHOWN` best documents are then read, one per
    line. Anything else is the answer: its reward is 1 where it is right and 0 where it is not. A search has the reward
    0. Two states are equal where the same documents have been read.

    `Step.info` counts searches, and empty_searches, which found nothing.
    """

    documents: tuple[str, ...] = ()
    golds: tuple[str, ...] = ()
    read: set[int] = field(default_factory=set)

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Nothing is said before the question.

        Raises:
            QreditError: a row without documents.
        """
        documents = example.get(COLUMN)
        if not documents:
            raise QreditError(f"the row has no column {COLUMN} to search in")
        self.documents = tuple(documents)
        self.golds = (example["answer"], *(example.get("aliases") or ()))
        self.read = set()
        return Step(state_key=self._state)

    def step(self, action: str) -> Step:
        """What is found, or whether the answer is right."""
        query = find_query(action)
        if query is None:
            return Step(reward=exact_match(action, self.golds), done=True, state_key=self._state)
        found = find_documents(query, self.documents, SHOWN)
        self.read.update(found)
        said = "\n".join(self.documents[place] for place in found)
        return Step(
            said or f"Nothing is found for '{to_one_line(query)[:60]}'.",
            reward=0.0,
            state_key=self._state,
            info={"searches": 1, "empty_searches": int(not found)},
        )

    def close(self) -> None:
        """Nothing is held."""

    @property
    def _state(self) -> str:
        return " ".join(["read", *map(str, sorted(self.read))])


def find_query(action: str) -> str | None:
    """What an action searches for; None where it is an answer."""
    said = action.strip()
    call = _CALL.fullmatch(said)
    if call is not None:
        return call[1].strip(_QUOTES)
    return said.removesuffix("?") if said.endswith("?") else None
