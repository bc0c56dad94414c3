"""`logp@NAME` and `kl@NAME`: another model's view of the same completions."""

from dataclasses import dataclass
from typing import ClassVar

from qredit.fields._kinds import TeacherMaker
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class teacher_model(TeacherMaker):
    """`logp@NAME` (B, T): log-probability of each completion token under another model, in nats, a constant.

    Divergences over the whole vocabulary, such as `kl@NAME`, are told by the same model. It is held in memory beside
    the policy, and runs once over every generation. Given for one field of NAME, it tells all of them.

    Args:
        path: folder or id of the model, whose token ids must be the policy's.
    """

    path: str
    fills: ClassVar[tuple[str, ...]] = ("logp@", "kl", "forward_kl", "hellinger", "tempered_kl")

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise QreditError(f"path of teacher_model must be the folder or id of a model, got {self.path!r}")

    def make_teacher(self) -> str:
        return self.path
