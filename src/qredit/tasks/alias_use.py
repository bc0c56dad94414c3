"""What the right answers beside the gold one count for: the reward, the likelihood, or both."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from qredit.tasks.base import Example
from qredit.utils.errors import unknown_name_error


class AliasUse(StrEnum):
    """What aliases count for.

    REWARD: a sampled answer that is an alias is right; the likelihood is that of the gold answer alone.
    LIKELIHOOD: the likelihood is that of any right answer; rewards know the gold answer alone.
    BOTH: either.
    """

    REWARD = "reward"
    LIKELIHOOD = "likelihood"
    BOTH = "both"

    @classmethod
    def parse(cls, text: str) -> "AliasUse":
        """The value of an option.

        Raises:
            QreditError: another text; the choices are named.
        """
        if text not in list(cls):
            raise unknown_name_error("value of aliases", str(text), cls)
        return cls(text)

    @property
    def in_reward(self) -> bool:
        """Whether rewards see aliases."""
        return self is not AliasUse.LIKELIHOOD

    @property
    def in_likelihood(self) -> bool:
        """Whether the likelihood does."""
        return self is not AliasUse.REWARD


def keep_rewarded(examples: Sequence[Example], use: AliasUse) -> list[Example]:
    """The examples as rewards see them: without aliases where those do not count for rewards."""
    return list(examples) if use.in_reward else [replace(example, aliases=()) for example in examples]
