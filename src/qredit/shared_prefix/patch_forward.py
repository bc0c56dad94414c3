"""Scoring a layout inside the model's own forward, so that wrappers (DDP, PEFT) see an ordinary call."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from qredit.core.field_names import HELLINGER_PREFIX, STATE_PREFIXES, TEMPERED_KL_PREFIX
from qredit.shared_prefix import attention  # noqa: F401  # registers itself with transformers
from qredit.shared_prefix.decode import DecodingCache
from qredit.shared_prefix.divergence import PLAIN, temper_by_distance
from qredit.shared_prefix.head import divergences, prediction_errors, score_tokens
from qredit.shared_prefix.layout import KeyRecorder, Layout, PackedContinuations, PackedRows, PaddedRows
from qredit.shared_prefix.support import unsupported_head_reason, unwrap_peft


@dataclass
class TokenScores(ModelOutput):  # type: ignore[misc]
    """What a layout's scored tokens were found to be.

    Attributes:
        logp: (S,).
        entropy: (S, K): of the whole distribution, then of its nuclei.
        hidden, error: what `ScoreRequest` asks for.
        divergence: (S, N): one column for each of its divergences.
    """

    logp: Float[Tensor, " S"] | None = None
    entropy: Float[Tensor, "S K"] | None = None
    hidden: Float[Tensor, "S E"] | None = None
    error: Float[Tensor, "S v"] | None = None
    divergence: Float[Tensor, "S N"] | None = None


@dataclass(frozen=True, eq=False)
class TeacherStates:
    """What the next-token distributions of another model are made of.

    Attributes:
        hidden: (B, T, E) its state that predicts each completion token.
        weight, bias: of its head.
    """

    hidden: Float[Tensor, "B T E"]
    weight: Float[Tensor, "V E"]
    bias: Float[Tensor, " V"] | None


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """What is told of every token beside its log-probability and entropy.

    Attributes:
        nuclei: probability masses whose nuclei's entropies are told, as `nucleus_entropy@MASS`.
        hidden: whether the state that predicts the token is told.
        among: token ids on which `prediction_error`, onehot(token) - p, is told; None is not at all.
        against: other models' states for the same batch, by name.
        divergences: names of fields that are told of the policy and one of these models, such as `kl@NAME`.
    """

    nuclei: tuple[float, ...] = ()
    hidden: bool = False
    among: Int[Tensor, " v"] | None = None
    against: Mapping[str, TeacherStates] = field(default_factory=dict)
    divergences: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, needs: Iterable[str], among: Int[Tensor, " v"] | None, against: Mapping[str, TeacherStates] | None = None
    ) -> "ScoreRequest":
        """What the names of batch fields ask for; `among` is used only if they do.

        Args:
            needs: names of batch fields.
            among: (v,) ids on which prediction errors are told.
            against: states of other models, by name.
        """
        names = sorted(needs)
        nuclei = (float(mass) for kind, _, mass in (name.partition("@") for name in names) if kind == NUCLEUS)
        far = tuple(name for name in names if name.startswith(STATE_PREFIXES)) if against else ()
        return cls(tuple(nuclei), HIDDEN in names, among if ERROR in names else None, against or {}, far)


NUCLEUS, HIDDEN, ERROR = "nucleus_entropy", "hidden", "prediction_error"
VECTOR_FIELDS = frozenset({HIDDEN, ERROR})


def install(model: PreTrainedModel) -> None:
    """Let `model(layout=…)` score tokens and `Decoder` decode; every other call is as before.

    The head runs inside forward: a backbone called past its wrapper would leave gradients unsynchronised without an
    error.
    """
    # forward itself is replaced because it is what wrappers call: DDP prepares its gradient exchange around it, PEFT
    # switches adapters in it.
    ordinary = model.forward

    @functools.wraps(type(model).forward)  # generate reads the signature
    def forward(
        *args: Any,
        layout: Layout | None = None,
        decoding: DecodingCache | None = None,
        temperature: float = 1.0,
        wanted: ScoreRequest = ScoreRequest(),
        choose: Callable[[TokenScores], PackedContinuations] | None = None,
        **kwargs: Any,
    ) -> Any:
        if decoding is not None:
            return _next_logits(model, layout, decoding, **kwargs)
        if choose is not None:
            assert isinstance(layout, PackedContinuations)
            return _scores_of_chosen(model, layout, temperature, wanted, choose)
        if layout is not None:
            return _scores(model, layout, temperature, wanted)
        return ordinary(*args, **kwargs)

    model.forward = forward


def enable_token_scoring(model: PreTrainedModel) -> bool:
    """Prepare a model, once, to score a layout's tokens through its own head; whether its head allows it."""
    base = unwrap_peft(model)
    if getattr(base, "scores_tokens", False):
        return True
    if unsupported_head_reason(base) is not None:
        return False
    install(base)
    base.scores_tokens = True
    return True


def score(
    model: nn.Module, layout: Layout, temperature: float = 1.0, wanted: ScoreRequest = ScoreRequest()
) -> dict[str, Float[Tensor, "B T *more"]]:
    """`logp` and `entropy` of each completion token, and what else is wanted; 0 where no token stands.

    Through the wrapped model. Log-probability and entropies are differentiable.

    Args:
        model: in its wrappers (DDP, PEFT), so that their hooks run.
        layout: how the rows lie in this pass.
        temperature: logits are divided by it.
        wanted: what is told of each token beside its log-probability and entropy.
    """
    return _fields_by_name(model(layout=layout, temperature=temperature, wanted=wanted), layout, wanted)


def score_selected(
    model: nn.Module,
    layout: PackedContinuations,
    choose: Callable[[dict[str, Tensor]], PackedContinuations],
    temperature: float = 1.0,
    wanted: ScoreRequest = ScoreRequest(),
) -> dict[str, Float[Tensor, "B T *more"]]:
    """`score` of rows that are chosen by the scores of all rows; the prompts of both are computed once.

    All of it happens in one call of the wrapped model, because DistributedDataParallel supports one forward pass for
    each backward pass.

    Args:
        model: in its wrappers (DDP, PEFT), so that their hooks run.
        layout: all rows.
        choose: receives their scores, without gradient; returns the layout of some of the rows, on the same prompts.
        temperature: logits are divided by it.
        wanted: what is told of each token beside its log-probability and entropy.
    """
    chosen: list[PackedContinuations] = []

    def see(found: TokenScores) -> PackedContinuations:
        chosen.append(choose(_fields_by_name(found, layout, wanted)))
        return chosen[0]

    found = model(layout=layout, temperature=temperature, wanted=wanted, choose=see)
    return _fields_by_name(found, chosen[0], wanted)


def _fields_by_name(found: TokenScores, layout: Layout, wanted: ScoreRequest) -> dict[str, Tensor]:
    """By the names of batch fields, in their places."""
    assert found.logp is not None
    assert found.entropy is not None
    told = {"logp": found.logp, "entropy": found.entropy[:, 0]}
    told |= {f"{NUCLEUS}@{mass:g}": found.entropy[:, n] for n, mass in enumerate(wanted.nuclei, start=1)}
    if found.divergence is not None:
        told |= {name: found.divergence[:, n] for n, name in enumerate(wanted.divergences)}
    more = ((HIDDEN, found.hidden), (ERROR, found.error))
    told |= {name: value for name, value in more if value is not None}
    return {name: layout.spread(value) for name, value in told.items()}


Embed = Callable[[Int[Tensor, "B N"]], Float[Tensor, "B N E"]]


def _hidden(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, embed: Embed | None = None, **more: Any
) -> Float[Tensor, "B N E"]:
    tokens = {"input_ids": ids} if embed is None else {"inputs_embeds": embed(ids)}
    found: Tensor = model.base_model(
        **tokens,
        position_ids=positions,
        attention_mask=ids.new_zeros(1, 1, 1, 1),  # four dimensions: taken as it is, and read by nothing
        use_cache=False,
        **more,
    ).last_hidden_state
    return found


def _next_logits(
    model: PreTrainedModel,
    prompts: Layout | None,
    decoding: DecodingCache,
    input_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    **unused: Any,
) -> Float[Tensor, "B V"]:
    """Logits of the token after each prompt, or after each row's newest token."""
    if isinstance(prompts, PackedRows):
        hidden = _hidden(model, prompts.ids, prompts.positions, shared_prefix=prompts, decoding=decoding)
        hidden = hidden[0, prompts.predictor]
    else:
        assert input_ids is not None
        assert position_ids is not None
        hidden = _hidden(model, input_ids, position_ids, decoding=decoding)[:, -1]
    logits: Tensor = model.get_output_embeddings()(hidden)
    return logits.float()


def _scores(
    model: PreTrainedModel, layout: Layout, temperature: float, wanted: ScoreRequest, embed: Embed | None = None
) -> TokenScores:
    if isinstance(layout, PackedRows):
        hidden = _hidden(model, layout.ids, layout.positions, embed, shared_prefix=layout)
    else:
        assert isinstance(layout, PaddedRows)
        hidden = model.base_model(input_ids=layout.ids, attention_mask=layout.mask, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    # The head computes in float32 also under autocast: a log-probability of bf16 is off by hundredths of a nat, and an
    # answer's likelihood sums many of them.
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = hidden.flatten(0, 1)[layout.predictor]
        of_tokens = (hidden, head.weight, head.bias, layout.target)
        logp, entropy = score_tokens(*of_tokens, temperature, wanted.nuclei)
        error = None if wanted.among is None else prediction_errors(*of_tokens, wanted.among, temperature)
        far = _tell_divergences(of_tokens, layout, wanted, temperature)
        divergence = torch.stack(far, 1) if far else None
    return TokenScores(logp, entropy, hidden.detach().float() if wanted.hidden else None, error, divergence)


def _tell_divergences(
    of_tokens: tuple[Tensor, Tensor, Tensor | None, Tensor], layout: Layout, wanted: ScoreRequest, temperature: float
) -> list[Float[Tensor, " S"]]:
    """Each wanted divergence. Distances are constants, and one from a teacher serves all fields that rest on it."""

    def tell(teacher: str, **how: Any) -> Float[Tensor, " S"]:
        states = wanted.against[teacher]
        other = (states.hidden[layout.row, layout.column], states.weight, states.bias)
        return divergences(*of_tokens[:3], other, temperature, **how)

    kinds = {name: name.partition("@")[::2] for name in wanted.divergences}
    near = (HELLINGER_PREFIX, TEMPERED_KL_PREFIX)
    apart = sorted({rest.partition("@")[0] for kind, rest in kinds.values() if f"{kind}@" in near})
    with torch.no_grad():
        distance = {teacher: tell(teacher, kind=PLAIN[HELLINGER_PREFIX]) for teacher in apart}
    found = []
    for kind, rest in kinds.values():
        teacher, _, hardness = rest.partition("@")
        if hardness:
            own = temper_by_distance(distance[teacher], layout.row, float(hardness))
            found.append(tell(teacher, own_temperature=own))
        else:
            is_distance = f"{kind}@" == HELLINGER_PREFIX
            found.append(distance[teacher] if is_distance else tell(teacher, kind=PLAIN[f"{kind}@"]))
    return found


def _scores_of_chosen(
    model: PreTrainedModel,
    layout: PackedContinuations,
    temperature: float,
    wanted: ScoreRequest,
    choose: Callable[[TokenScores], PackedContinuations],
) -> TokenScores:
    prompts = layout.prompts
    # 1. The prompts, with gradient. Each layer's keys and values are kept on the graph.
    embed = _embedded_once(model, torch.cat([prompts.ids, layout.ids], 1))
    recorder = KeyRecorder(prompts.groups)
    # before the part without gradient: autocast keeps the first cast of a weight, which must be on the graph
    with _last_mlp_at(model, prompts.ids, layout.predictor[:0]), _last_layer_runs_once(model):
        _hidden(model, prompts.ids, prompts.positions, embed, shared_prefix=recorder)
    prompts.keys.update(recorder.finish())
    # 2. All completions on them, without gradient. Their scores say which rows are to be learned from.
    with torch.no_grad():
        with _last_mlp_at(model, layout.ids, layout.predictor.unique()):
            found = _scores(model, layout, temperature, wanted, embed)
        with torch.autocast(layout.ids.device.type, enabled=False):
            chosen = choose(found)
    # 3. The chosen completions on the same keys and values, with gradient, which so reaches the prompts once.
    return _scores(model, chosen, temperature, wanted, embed)


def _embedded_once(model: PreTrainedModel, ids: Int[Tensor, "1 N"]) -> Embed:
    """The embedding of tokens among these, looked up once: its gradient, as large as the whole table, is made once."""
    known = ids.unique()
    rows = model.get_input_embeddings()(known[None])[0]
    return lambda some: nn.functional.embedding(torch.searchsorted(known, some), rows)


@contextmanager
def _last_mlp_at(model: PreTrainedModel, ids: Int[Tensor, "1 N"], places: Int[Tensor, " R"]) -> Iterator[None]:
    """The feed-forward part of the last layer on these tokens alone, where those of others are not read."""
    layers = getattr(model.base_model, "layers", None)
    mlp = None if layers is None else getattr(layers[-1], "mlp", None)
    if mlp is None:  # a model that is built otherwise computes it on all tokens: slower, and the same
        yield
        return

    def narrow(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return given[0][:, places], *given[1:]

    def widen(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out.new_zeros(*ids.shape, out.shape[2]).index_copy(1, places, out)

    with mlp.register_forward_pre_hook(narrow), mlp.register_forward_hook(widen):
        yield


@contextmanager
def _last_layer_runs_once(model: PreTrainedModel) -> Iterator[None]:
    """The last layer without gradient checkpointing: it would run again in the backward pass, when its hooks are gone.

    Its feed-forward part computes no token here, so it holds little.
    """
    layers = getattr(model.base_model, "layers", None)
    last = None if layers is None else layers[-1]
    if last is None or not getattr(last, "gradient_checkpointing", False):
        yield
        return
    last.gradient_checkpointing = False
    try:
        yield
    finally:
        last.gradient_checkpointing = True
