"""How rows lie in a forward pass: each prompt once for its group and no padding, or each row with its own copy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PackedGroup:
    """Where one group stands in the sequence.

    Attributes:
        start: its first token.
        prompt: tokens of its prompt.
        completions: tokens of each rollout's completion that stand in the sequence: all but its last, which predicts
            nothing. Of each of several right answers all but its last.
        visible: (M, W, S) what each token of a completion sees, of the S tokens of whole prompt and completion, W the
            longest of `completions`, where several right answers continue a rationale; None where it is all before it.
    """

    start: int
    prompt: int
    completions: tuple[int, ...]
    visible: Bool[Tensor, "M W S"] | None = field(default=None, compare=False)

    @property
    def shared(self) -> slice:
        """The prompt's tokens."""
        return slice(self.start, self.start + self.prompt)

    @property
    def own(self) -> slice:
        """The tokens of all completions."""
        return slice(self.start + self.prompt, self.end)

    @property
    def end(self) -> int:
        return self.start + self.prompt + sum(self.completions)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the S completion tokens of a (B, T) batch are scored in a forward pass.

    Attributes:
        ids: (1, N) or (B, L) the tokens of the forward pass, padding included.
        predictor: (S,) the place in the flattened forward pass whose output predicts each token: the token before it,
            and for the first of a row the prompt's last.
        target: (S,) the completion tokens.
        row, column: (S,) where each stands in the batch.
        shape: (B, T).
    """

    ids: Int[Tensor, "R N"]
    predictor: Int[Tensor, " S"]
    target: Int[Tensor, " S"]
    row: Int[Tensor, " S"]
    column: Int[Tensor, " S"]
    shape: tuple[int, int]

    def only(self, wanted: Bool[Tensor, "B T"]) -> Self:
        """The same forward pass, scored at these tokens alone."""
        kept = wanted[self.row, self.column]
        names = ("predictor", "target", "row", "column")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    def spread(self, scores: Tensor) -> Tensor:
        """(S, …) → (B, T, …), 0 where no token stands."""
        return scores.new_zeros(*self.shape, *scores.shape[1:]).index_put((self.row, self.column), scores)


@dataclass(frozen=True, eq=False)
class PackedRows(Layout):
    """Rows with their prompts shared: N tokens in one sequence.

    Attributes:
        positions: (1, N); those of every completion go on from its prompt's.
        groups: in the order of the sequence.
    """

    positions: Int[Tensor, "1 N"]
    groups: tuple[PackedGroup, ...]


KeysByLayer = dict[int, list[tuple[Tensor, Tensor]]]  # of each layer, key and value of every group, (1, K, P, D)


@dataclass(eq=False)
class KeyRecorder:
    """The pass that computes prompts, as attention sees it: what each layer's keys and values were.

    A checkpointed layer runs again in the backward pass, with the arguments of the first time, this recorder among
    them. Then it records nothing: the keys of the first time are the ones on the graph. Nor does it hold these any
    longer: the graph would hold itself, and never be freed.

    Attributes:
        groups: in the order of the sequence, without completions.
    """

    groups: tuple[PackedGroup, ...]
    _keys: KeysByLayer | None = field(default_factory=dict)

    def keep(self, layer: int, key: Float[Tensor, "1 K N D"], value: Float[Tensor, "1 K N D"]) -> None:
        """Remember the keys and values of a layer, while the pass goes on.

        Args:
            layer: number of the layer.
            key: (1, K, N, D), K heads of keys.
            value: (1, K, N, D).

        Raises:
            RuntimeError: they are there already.
        """
        if self._keys is None:
            return
        if layer in self._keys:
            raise RuntimeError(f"layer {layer} attends more than once")
        sizes = [group.prompt for group in self.groups]
        self._keys[layer] = list(zip(key.split(sizes, 2), value.split(sizes, 2), strict=True))

    def finish(self) -> KeysByLayer:
        """What was recorded; nothing is from now on."""
        assert self._keys is not None
        keys, self._keys = self._keys, None
        return keys


@dataclass(frozen=True, eq=False)
class CachedPrompts:
    """Prompts in one sequence, to be computed once for several packings that go on from them.

    Attributes:
        ids, positions: (1, N).
        groups: in the order of the sequence, without completions.
        place: of each group among them, by its number in the batch.
        keys: of each layer, the key and value of every group for each key head, once computed; on the graph.
    """

    ids: Int[Tensor, "1 N"]
    positions: Int[Tensor, "1 N"]
    groups: tuple[PackedGroup, ...]
    place: Mapping[int, int]
    keys: KeysByLayer = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PackedContinuations(PackedRows):
    """Rows that go on from prompts computed before, of which the last token alone stands here, to predict the first.

    Thus nothing is needed of the prompts but their keys and values: not even what their last layer does with them.

    Attributes:
        prompts: those that the groups go on from.
        members: the place of each group among them.
    """

    prompts: CachedPrompts
    members: tuple[int, ...]

    def prompt_keys(self, layer: int) -> list[tuple[Tensor, Tensor]]:
        """The keys and values of each group's prompt."""
        return [self.prompts.keys[layer][place] for place in self.members]


@dataclass(frozen=True, eq=False)
class PaddedRows(Layout):
    """Each row with its own copy of the prompt, padded: the ordinary forward pass, its head on scored places alone.

    Attributes:
        mask: (B, L).
    """

    mask: Int[Tensor, "B L"]
