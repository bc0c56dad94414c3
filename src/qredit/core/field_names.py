"""Names of batch fields that a teacher tells, that tell of right answers or of turns, and names of former versions.

    logp@NAME   log-probability of each completion token under the teacher NAME, (B, T), in nats
    kl@NAME     KL(policy ‖ NAME) over the whole vocabulary at each completion token, (B, T), in nats
    forward_kl@NAME   KL(NAME ‖ policy) there, in nats
    hellinger@NAME    how far the two lie apart there, 0 … 1, a constant
    tempered_kl@NAME@HARDNESS   T² · KL(policy ‖ NAME) with both at a temperature T of the token's own, in nats
    turn_feature@n   one of the numbers that tell of a turn, on its tokens, (B, T)

NAME is `reference`, the model that the run began with, `hint`, the policy shown the gold answer as the objective's
`proposal` says, or the name of another model or prompt that the run was given.
"""

import warnings
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from torch import Tensor

LOGP_PREFIX, KL_PREFIX = "logp@", "kl@"
TURN_FEATURE_PREFIX = "turn_feature@"
FORWARD_KL_PREFIX, HELLINGER_PREFIX, TEMPERED_KL_PREFIX = "forward_kl@", "hellinger@", "tempered_kl@"
STATE_PREFIXES = (KL_PREFIX, FORWARD_KL_PREFIX, HELLINGER_PREFIX, TEMPERED_KL_PREFIX)
"""Of fields over the whole vocabulary: they are told from a teacher's states and head, in the policy's own pass."""
DIVERGENCES = frozenset(prefix.removesuffix("@") for prefix in STATE_PREFIXES)
"""The kinds of these fields."""
REFERENCE, HINT = "reference", "hint"
REINFORCED = "reinforced"
"""(B,), rollouts that a rule of drawing drew in another way: they have no reward, and no density of their draw."""
HINTED_LOGP, REFERENCE_LOGP = f"{LOGP_PREFIX}{HINT}", f"{LOGP_PREFIX}{REFERENCE}"
ANSWER_AT, ANSWER_AFTER = "answer_logp_at", "answer_logp_after"
ANSWER_AT_TURNS = frozenset({ANSWER_AT, ANSWER_AFTER})
"""Of an episode: in the place of each turn, and behind the last."""
ANSWER_FIELDS = ANSWER_AT_TURNS | {"answer_logp"}
"""Fields that tell how likely right answers are."""
FORMER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "reference_logp": "logp@reference",
        "reference_kl": "kl@reference",
        "better_logp": "logp@better",
        "worse_logp": "logp@worse",
    }
)
"""Names of former versions, and what they are called now; they go with the next minor version."""


def field_kind(name: str) -> str:
    """What stands before the @ of a field's name; of `logp@NAME` with the @, since `logp` is the policy's own."""
    kind, at, _ = FORMER_NAMES.get(name, name).partition("@")
    return LOGP_PREFIX if kind + at == LOGP_PREFIX else kind


def list_teachers(needs: Iterable[str], told: str = LOGP_PREFIX) -> list[str]:
    """The names of the teachers that tell these fields, sorted.

    Args:
        told: LOGP_OF or KL_OF.
    """
    return sorted(name.removeprefix(told) for name in needs if name.startswith(told))


def list_state_teachers(needs: Iterable[str]) -> list[str]:
    """The names of the teachers whose states these fields are told from, sorted."""
    return sorted({one.partition("@")[0] for told in STATE_PREFIXES for one in list_teachers(needs, told)})


def resolve_field_name(name: str) -> str:
    """The name of a field in this version, with a DeprecationWarning where it was another."""
    now = FORMER_NAMES.get(name, name)
    if now != name:
        warnings.warn(
            f"the batch field '{name}' is now '{now}'; the old name will be removed", DeprecationWarning, stacklevel=3
        )
    return now


class FieldDict(dict[str, Tensor]):
    """Batch fields by name; former names find them, too."""

    def __missing__(self, name: str) -> Tensor:
        if name not in FORMER_NAMES:
            raise KeyError(name)
        return self[resolve_field_name(name)]
