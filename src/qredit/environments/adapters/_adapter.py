"""What an adapter is: how environments of another package are found by name, and how an object of its is played."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qredit.environments.protocol import Environment, EnvironmentFactory
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class Adapter:
    """Environments of one package. A module that defines one is imported without that package.

    Attributes:
        name: stands before the colon in --env; the extra that installs the package has it, too.
        find: makes the factory of what stands behind the colon, a name that is looked up before compute.
        kind: module and name of the package's own class of environments; None where it has none.
        wrap: makes an environment of an object of that class.
    """

    name: str
    find: Callable[[str], EnvironmentFactory]
    kind: tuple[str, str] | None = None
    wrap: Callable[[Any], Environment] = field(default=lambda made: made, repr=False)

    def fits(self, kind: type) -> bool:
        """Whether objects of a class are this package's. What was never imported has no objects."""
        if self.kind is None:
            return False
        own = getattr(sys.modules.get(self.kind[0]), self.kind[1], None)
        return isinstance(own, type) and issubclass(kind, own)


def choose_seed(example: Mapping[str, Any]) -> int:
    """The seed that a row begins with: its column `seed`, or else a number made of its prompt.

    The rollouts of a prompt begin alike, so it is never an episode's own.

    Raises:
        QreditError: a seed that is no whole number from 0 up.
    """
    given = example.get("seed")
    if given is None:
        text = json.dumps(example.get("prompt"), sort_keys=True, default=str)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise QreditError(f"the column seed holds whole numbers from 0 up, got {given!r}")
    return given
