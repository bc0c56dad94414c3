"""The value of training examples by forward passes alone: whether their answers pull where held-out answers do."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from qredit.credit.token_gradient import NEEDS, TokenGradients
from qredit.data.demonstrations import Demonstration, encode_demonstrations, leave_out_long
from qredit.data.rows import RowNames
from qredit.engine.model_limits import get_context_length
from qredit.probe.measure import score_fields
from qredit.rollouts.collate import collate
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.runs.load import apply_chat_format, check_single_answer, find_weights, load_data, load_model, load_tokenizer
from qredit.runs.options import TrainOptions
from qredit.runs.quantization import make_quantization_config
from qredit.runs.train import make_token_format
from qredit.shared_prefix.patch_forward import ScoreRequest
from qredit.tasks.base import Example, Split

READER = "qredit value"


@dataclass(frozen=True, eq=False)
class ValueSetup:
    """A model, and the examples that are compared by it.

    Attributes:
        network: the model.
        pad: id of the padding token.
        examples: of training, as they were read; those that do not fit the model's context are left out.
        rows: the same as token ids: a prompt, thinking closed at once, and the answer that is learned.
        held: the held-out ones, in the same form.
        left_out: how many did not fit.
        notes: what has to be said about how the data were read.
    """

    network: PreTrainedModel
    pad: int
    examples: Sequence[Example]
    rows: Sequence[Trajectory]
    held: Sequence[Trajectory]
    left_out: int
    notes: Sequence[str] = ()


def load_examples_to_value(options: TrainOptions, limit: int | None, held: int, split: Split) -> ValueSetup:
    """The model, training examples and held-out ones.

    Args:
        options: model, data and format.
        limit: training examples at most, in hash order; None is all.
        held: held-out examples at most.
        split: which the held-out ones are of.

    Raises:
        QreditError: data or a model that cannot be used; answers that do not join at the seam; examples that do not
            fit the context, unless `skip_long`.
    """
    check_single_answer(options, READER)
    path = find_weights(options)
    needed = f"{READER} reads its likelihood"
    data = load_data(options, "train", limit, needed)
    compared = load_data(options, split, held, needed)
    tokenizer = load_tokenizer(path)
    tokens = make_token_format(options, tokenizer, data.examples)
    encoded = [_encode(found.examples, tokens, options, name) for found, name in ((data, "train"), (compared, split))]
    network = load_model(path, options.device, quantization=make_quantization_config(options))
    context = get_context_length(network)
    fitting = [leave_out_long(shown, rows, context, options.skip_long) for shown, rows in encoded]
    kept = set(map(id, fitting[0]))
    close = len(tokens.close_ids)
    return ValueSetup(
        network=network,
        pad=int(tokenizer.pad_token_id or 0),
        examples=[example for example, one in zip(data.examples, encoded[0][0], strict=True) if id(one) in kept],
        rows=[make_answer_row(one, close) for one in fitting[0]],
        held=[make_answer_row(one, close) for one in fitting[1]],
        left_out=sum(len(shown) for shown, _ in encoded) - sum(map(len, fitting)),
        notes=(*data.notes, *compared.notes),
    )


def _encode(
    examples: Sequence[Example], tokens: TokenFormat, options: TrainOptions, name: str
) -> tuple[list[Demonstration], RowNames]:
    rows = RowNames.of([example.id for example in examples], len(examples), f"{options.task} {name}")
    prompts: list[Any] = apply_chat_format(examples, tokens.tokenizer, options.chat)  # type: ignore[arg-type]
    answers = [example.gold for example in examples]
    return encode_demonstrations(prompts, answers, [""] * len(examples), rows, tokens, options.template), rows


def make_answer_row(shown: Demonstration, close: int) -> Trajectory:
    """A demonstration without a rationale as a row whose answer is read.

    Args:
        shown: prompt and completion.
        close: how many tokens of the completion close thinking; they are read and do not count.
    """
    closing, answer = shown.completion_ids[:close], shown.completion_ids[close:]
    return Trajectory(
        prompt=shown.prompt_ids,
        segments=(Segment(closing, Role.CLOSE, sampled=False), Segment((), Role.ANSWER, sampled=True)),
        end=EndReason.ANSWER,
        golds=(answer,),
    )


def value_examples(
    setup: ValueSetup, rows_per_batch: int, advance: Callable[[int], None] = lambda done: None
) -> list[float]:
    """For-Value: the inner product of each training answer's head gradient with the mean one of held-out answers.

        φ(x) = Σ_k e_k h_kᵀ over the tokens of the answer,   e_k = onehot(y_k) - p_k,   h_k the state that predicts y_k
        value(x) = ⟨φ(x), mean over held-out x' of φ(x')⟩

    φ is the gradient of the answer's log-likelihood in the head's weight. So the value is, to first order, by how much
    a small step on x raises the mean log-likelihood of held-out answers, were the head alone trained. One forward pass
    for each example; no gradient is computed. e is read on the token ids that occur anywhere in the examples, not
    renormalised.

    Source: arXiv 2508.10180 and its official code. Differences: all tokens of the answer and all of those ids count,
    while the code keeps the three largest coordinates of e at each position, and has an option for unlikely positions.

    Args:
        setup: model and examples.
        rows_per_batch: examples of a forward pass.
        advance: told how many more examples are done.
    """
    among = list_token_ids([*setup.rows, *setup.held])
    total: Tensor | None = None
    for tokens, owner in read_gradients(setup.network, setup.held, among, setup.pad, rows_per_batch):
        bank = tokens.bank(torch.ones(len(owner)))
        total = bank if total is None else total + bank
        advance(int(owner.unique().numel()))
    assert total is not None
    values: list[float] = []
    for tokens, owner in read_gradients(setup.network, setup.rows, among, setup.pad, rows_per_batch):
        count = min(rows_per_batch, len(setup.rows) - len(values))
        inner = tokens.inner(total / len(setup.held)).cpu()
        values += torch.zeros(count, dtype=torch.float64).index_add(0, owner.cpu(), inner).tolist()
        advance(count)
    return values


def list_token_ids(rows: Sequence[Trajectory]) -> Int[Tensor, " v"]:
    """The token ids of prompts and answers, each once, in order."""
    return torch.tensor(sorted({token for row in rows for part in (row.prompt, *row.golds) for token in part}))


@torch.no_grad()
def read_gradients(
    network: PreTrainedModel, rows: Sequence[Trajectory], among: Int[Tensor, " v"], pad: int, rows_per_batch: int
) -> Iterator[tuple[TokenGradients, Int[Tensor, " N"]]]:
    """Head gradients of the answers' tokens, batch by batch, and the row of the batch that each token belongs to.

    Args:
        network: the model.
        rows: as `make_answer_row` makes them.
        among: ids on which prediction errors are read.
        pad: id of the padding token.
        rows_per_batch: rows of a forward pass.
    """
    device = network.device
    wanted = ScoreRequest.of(NEEDS, among.to(device))
    for start in range(0, len(rows), rows_per_batch):
        # A group is one prompt, which is computed once; here each row has its own.
        own = [replace(row, group=number) for number, row in enumerate(rows[start : start + rows_per_batch])]
        found = collate(own, ("answer",), pad, 0, device)
        counts = found.batch.answer
        fields = score_fields(network, found, READER, wanted, counts)
        batch = replace(found.batch, extra={name: fields[name] for name in NEEDS})
        yield TokenGradients.of(batch, counts, READER), counts.nonzero()[:, 0]
