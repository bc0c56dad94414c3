"""`logp@NAME` and `kl@NAME`: another model's view of the same completions."""

from dataclasses import dataclass
from typing import ClassVar

from qredit.core.field_names import LOGP_PREFIX, STATE_PREFIXES
from qredit.fields._kinds import TeacherMaker
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class teacher_model(TeacherMaker):
    """`logp@NAME` (B, T): log-probability of each completion token under another model, in nats, a constant.

    Divergences over the whole vocabulary, such as `kl@NAME`, are told by the same model. It is held in memory beside
    the policy, and runs once over every generation. Given for one field of NAME, it tells all of them.

    Args:
        path: folder or id of the model, as `--model` takes it. Its token ids must be the policy's.
    """

    path: str
    fills: ClassVar[tuple[str, ...]] = (LOGP_PREFIX, *(prefix.removesuffix("@") for prefix in STATE_PREFIXES))

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise QreditError(f"path of teacher_model must be the folder or id of a model, got {self.path!r}")

    def make_teacher(self) -> str:
        return self.path
