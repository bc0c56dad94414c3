"""What verl's workers differentiate has the loss, the gradients and the next weights of our own engine."""

import random
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import pocket, tasks
from qredit.engine.columns import find_places, gather_tokens, make_columns
from qredit.engine.scorer import Scorer
from qredit.engine.sequences import list_sequences
from qredit.objectives.parsing import parse
from qredit.rollouts.collate import choose_tails, collate
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.samplers.transformers import sample
from qredit.utils.seed import derive_seed
from tests.support import recorded_rows
from tests.support.rounding import gradient_bound
from tests.support.toy_engine import ToyEngine
from tests.support.verl_cpu.environment import needs_verl

pytestmark = [needs_verl, pytest.mark.verl]
M, PROMPTS, WORKERS = 4, 2, 2


@pytest.fixture(scope="module")
def setup():
    """A pocket model, its tokenizer and format, and rollouts of two questions."""
    folder = pocket.get_model_path("dial-2")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    format = TokenFormat(Format.of(tokenizer), tokenizer)
    examples = tasks.get("pocket-dial").load(None, "train", "cold", PROMPTS)
    prompts = [format.prompt_ids(one.prompt) for one in examples for _ in range(M)]
    drawn = sample(
        model,
        prompts,
        format,
        TokenBudget(12, 6),
        stop_tokens=[tokenizer.eos_token_id],
        pad=tokenizer.pad_token_id,
        seed=3,
    )
    golds = [tuple(format.answer_ids(one.answer)) for one in examples for _ in range(M)]
    rollouts = [
        replace(one, golds=(gold,), group=number // M, reward=float(len(one.ids) % 3 == 0))
        for number, (one, gold) in enumerate(zip(drawn, golds, strict=True))
    ]
    return model, tokenizer, format, rollouts


def ours(setup, text, update):
    """Loss, gradients and weights of our own engine."""
    model, tokenizer, format, rollouts = setup
    toy = ToyEngine(deepcopy(model), parse(text), format, tokenizer, draw=None, reward=None, m=M, prompts=PROMPTS)
    toy.optimizer = torch.optim.SGD(toy.model.parameters(), lr=0.1)
    list(toy.learn(rollouts, update=update))
    return toy


def nested_logp(model, sequences, prompts):
    """log p of each next token, and entropies, ragged over prompt and response, as verl's engine tells them."""
    found = {"log_probs": [], "entropy": []}
    for prompt, one in zip(prompts, sequences, strict=True):
        ids = torch.tensor([[*prompt, *one.ids]])
        logp = model(ids).logits[0].log_softmax(-1)
        found["log_probs"].append(logp.gather(1, ids[0].roll(-1)[:, None])[:, 0])
        found["entropy"].append(-(logp.exp() * logp).sum(-1))
    return {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in found.items()}


def theirs(setup, text, seed=7):
    """The model with the gradients of verl's workers: two, each with two micro-batches of rows cut at random.

    Args:
        setup: model, tokenizer, format and rollouts.
        text: of the objective.
        seed: of stages that draw.

    Returns:
        The model, and the loss, averaged over workers as verl does.
    """
    from tensordict import TensorDict
    from verl.utils import tensordict_utils
    from verl.workers.utils.padding import no_padding_2_padding, response_from_nested

    from qredit.verl.worker_loss import DENOMINATORS, OBJECTIVE, PROGRESS, compute_loss

    model, tokenizer, _, rollouts = setup
    model, objective = deepcopy(model), parse(text).at(0.0)
    tails = choose_tails(objective.needs)
    rows = collate(rollouts, tails, tokenizer.pad_token_id, derive_seed(seed, 0), torch.device("cpu"))
    places, sequences = find_places(rows.batch), [s for one in rollouts for s in list_sequences(one, tails)]
    prompts = [one.prompt for one in rollouts for _ in list_sequences(one, tails)]
    responses = [torch.tensor(one.ids) for one in sequences]
    with torch.no_grad():
        told = nested_logp(model, sequences, prompts)
    mask = torch.nested.as_nested_tensor([torch.ones(len(one)) for one in responses], layout=torch.jagged)
    scores = {
        name: gather_tokens(places, list(response_from_nested(told[key], mask).unbind()), rows)
        for name, key in (("logp", "log_probs"), ("entropy", "entropy"))
    }
    scorer = Scorer(objective.needs, tails, 1.0, None, lambda: None, torch.device("cpu"), lambda: 0.0)
    batch = scorer.attach_scores(rows.batch, scores)
    credited = objective.evaluate(batch, objective.init_state())
    needs = frozenset().union(*(penalty.needs for penalty in objective.penalties))
    columns = make_columns(batch, credited, places, needs)
    order, total = random.Random(1).sample(range(len(places)), len(places)), 0.0
    for piece in (order[start::4] for start in range(4)):

        def ragged(values, piece=piece):
            return torch.nested.as_nested_tensor([values[one] for one in piece], layout=torch.jagged)

        data = TensorDict(
            {
                "prompts": ragged([torch.tensor(one) for one in prompts]),
                "responses": ragged(responses),
                **{name: ragged(values) for name, values in columns.items()},
            },
            batch_size=len(piece),
        )
        tensordict_utils.assign_non_tensor(
            data,
            **{
                OBJECTIVE: text,
                PROGRESS: 0.0,
                DENOMINATORS: objective.denominators(batch, credited),
                "dp_size": WORKERS,
            },
        )
        output = nested_logp(model, [sequences[one] for one in piece], [prompts[one] for one in piece])
        assert no_padding_2_padding(output["log_probs"], data).shape[0] == len(piece)
        loss, metrics = compute_loss(output if needs & {"entropy"} else {"log_probs": output["log_probs"]}, data)
        (loss / WORKERS).backward()  # verl averages gradients over workers
        total += float(loss.detach()) / WORKERS
        assert metrics == {}
    return model, total


@pytest.mark.parametrize(
    "text", ["garl(q=0.75)", "paft(q=0.5)", "grpo()", "kl_cov()", "grpo() | entropy_bonus(0.01)", "reinforce_pp()"]
)
def test_workers_have_the_gradients_and_weights_of_our_engine(setup, text):
    model, _ = theirs(setup, text)
    ours_grad = {name: p.grad for name, p in ours(setup, text, False).model.named_parameters() if p.grad is not None}
    theirs_grad = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert max(float(one.abs().max()) for one in ours_grad.values()) > 0
    apart = [float((theirs_grad[name] - one).norm() / one.norm().clamp(min=1e-12)) for name, one in ours_grad.items()]
    assert max(apart) < gradient_bound(torch.float32)
    stepped = ours(setup, text, True).model.state_dict()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, stepped[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("text", recorded_rows.OBJECTIVES)
def test_workers_have_the_loss_that_trl_had(text):
    """On rollouts that the TRL adapter sampled, with the loss and the gradient norm that it had."""
    folder = pocket.get_model_path(recorded_rows.MODEL)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model, loss = theirs((network, tokenizer, None, recorded_rows.read_rollouts()), text, seed=0)
    known = recorded_rows.read()["steps"][text]
    norm = float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
    assert loss == pytest.approx(known["loss"], rel=1e-5, abs=1e-6)
    assert norm == pytest.approx(known["grad_norm"], rel=1e-5)
