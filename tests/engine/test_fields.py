"""Batch fields: who fills each of them, and that what stands in them is what their name says."""

from dataclasses import dataclass, replace

import pytest
import torch
from peft import LoraConfig

from qredit import Objective, QreditError, on_span
from qredit.core.chain import Coefficient, Source, When
from qredit.core.penalty import Penalty
from qredit.engine.attention_maps import choose_middle_layers
from qredit.fields import same_answers
from qredit.rollouts.collate import collate
from qredit.rollouts.field_functions import (
    clusters,
    difficulty_tags,
    make_field_tensor,
    make_step_scorer,
    reasoning_steps,
)
from qredit.rollouts.trajectory import EndReason, Trajectory, make_one_turn
from qredit.stats import attention_roles
from tests.support.marks import e2e
from tests.support.rounding import gradient_bound
from tests.support.runs import first_step_gradients, length_reward, relative_difference, trainer
from tests.support.tiny import model, tokenizer


@dataclass(frozen=True)
class reads(Source):
    """1 on every token; keeps the batch it was given."""

    name: str
    seen: tuple[list, ...] = ([],)
    also: tuple[str, ...] = ()

    @property
    def needs(self):
        return frozenset({self.name, *self.also})

    @property
    def when(self):
        return When.UPDATE

    def __call__(self, batch):
        batch.require(self.name, str(self))
        self.seen[0].append(batch)
        return Coefficient(torch.ones(len(batch.mask), 1, dtype=torch.float64))


@dataclass(frozen=True)
class nucleus_bonus(Penalty):
    """Minus the mean entropy of a nucleus."""

    needs = frozenset({"nucleus_entropy@0.8"})

    def weight(self, coefficient, batch):
        return -batch.sampled.double()

    def term(self, logp, batch):
        return batch.require("nucleus_entropy@0.8", str(self))

    def denominator(self, batch, coefficient=None):
        return float(batch.sampled.sum())


def stepped(tmp_path, name, also=(), **changes):
    """A trainer after the gradient of its first step, and the batch that its objective saw."""
    source = reads(name, ([],), also)
    made = trainer(tmp_path, Objective(on_span("sampled", source)), reward_funcs=length_reward, **changes)
    first_step_gradients(made)
    return made, source.seen[0][-1]


@pytest.mark.parametrize("changes", [{}, e2e({"shared_prefix": False}), e2e({"rows_per_forward": 3})], ids=str)
def test_the_reference_is_the_model_that_the_run_began_with(tmp_path, changes):
    made, batch = stepped(tmp_path, "logp@reference", **changes)
    reference = batch.extra["logp@reference"]
    assert torch.allclose(reference, batch.logp, atol=1e-5)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    rows = made.collator.add_forward_fields(made.model_wrapped, made._generation.microbatches[0].rows)
    assert torch.allclose(rows.batch.extra["logp@reference"], reference, atol=1e-6)
    assert not torch.allclose(made.scorer.score(made.model, rows)["logp"], reference, atol=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rows_per_forward": 3},
        e2e({"shared_prefix": False}),
        {"peft_config": LoraConfig(r=2, target_modules=["q_proj"])},
    ],
    ids=["whole", "chunks", "repeated", "adapters"],
)
def test_divergence_from_reference_runs_over_whole_vocabulary(tmp_path, changes):
    made, batch = stepped(tmp_path, "kl@reference", **changes)
    assert torch.allclose(batch.extra["kl@reference"], torch.zeros(batch.mask.shape), atol=1e-5)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise))
    rows = made._generation.microbatches[0].rows
    found = made.scorer.score(made.model, rows)["kl@reference"]
    row = 1
    prompt = rows.prompt_ids[row][rows.prompt_mask[row].bool()]
    ids = torch.cat([prompt, rows.batch.ids[row][rows.batch.mask[row]]])[None]
    with torch.no_grad():
        before, after = (
            network(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            for network in (model(), made.accelerator.unwrap_model(made.model))
        )
    expected = (after.exp() * (after - before)).sum(-1)
    assert float(expected.max()) > 1e-3
    assert torch.allclose(found[row, : len(expected)], expected, atol=1e-4)


def test_a_model_with_adapters_is_its_own_reference(tmp_path):
    adapters = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    made, batch = stepped(tmp_path, "logp@reference", peft_config=adapters)
    assert made.scorer.teachers["reference"].model is None
    with made.model.disable_adapter():
        expected = made.scorer.score(made.model, made._generation.microbatches[0].rows)["logp"]
    assert torch.allclose(batch.extra["logp@reference"], expected, atol=1e-6)
    assert not torch.allclose(batch.extra["logp@reference"], batch.logp, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, e2e({"shared_prefix": False}), e2e({"rows_per_forward": 3})], ids=str)
def test_a_nucleus_penalty_has_one_gradient_on_every_path(tmp_path, changes):
    def gradients(penalties, **more):
        objective = Objective(on_span("sampled", reads("ids")), penalties=penalties)
        return first_step_gradients(trainer(tmp_path, objective, reward_funcs=length_reward, **more))

    with_it = gradients((nucleus_bonus(),))
    assert relative_difference(gradients((nucleus_bonus(),), **changes), with_it) < gradient_bound()
    assert relative_difference(gradients(()), with_it) > 1e-4


def test_states_and_prediction_errors_are_told_with_their_ids(tmp_path):
    made, batch = stepped(tmp_path, "prediction_error", rows_per_forward=3)
    vocabulary = made._generation.microbatches[0].rows.vocabulary
    assert set(vocabulary.tolist()) >= set(batch.ids[batch.mask].tolist())
    error = batch.extra["prediction_error"]
    own = (batch.ids[..., None] == vocabulary).nonzero()
    row, column, place = own[len(own) // 2]
    assert float(1 - error[row, column, place]) == pytest.approx(float(batch.logp[row, column].exp()), abs=1e-5)


def test_states_are_told_without_prediction_errors(tmp_path):
    _, batch = stepped(tmp_path, "hidden", rows_per_forward=3)
    assert batch.extra["hidden"].shape == (*batch.mask.shape, 32)
    assert "prediction_error" not in batch.extra


def test_attention_roles_are_those_of_the_row_alone(tmp_path):
    needed = ("attention_influence@11", "attention_influence@100")
    made, batch = stepped(tmp_path, "attention_locality", also=needed, max_completion_length=20)
    rows = made._generation.microbatches[0].rows
    network = model()
    network.set_attn_implementation("eager")
    row = 1
    prompt = rows.prompt_ids[row][rows.prompt_mask[row].bool()]
    ids = torch.cat([prompt, batch.ids[row][batch.mask[row]]])[None]
    told = network(ids, output_attentions=True).attentions
    maps = torch.cat([told[layer][0] for layer in choose_middle_layers(2)])
    local, far = attention_roles.average_local_and_global_heads(maps, len(prompt))
    width = int(batch.mask[row].sum())
    found = batch.extra["attention_locality"][row, :width]
    assert torch.allclose(found, attention_roles.locality(local)[len(prompt) :], atol=1e-5)
    for horizon in (11, 100):
        expected = attention_roles.influence(far, far=horizon)[len(prompt) :]
        assert torch.allclose(batch.extra[f"attention_influence@{horizon}"][row, :width], expected, atol=1e-5)
    assert made.model.config._attn_implementation != "eager"


def test_attention_roles_by_hand():
    near = torch.eye(4)[[0, 0, 1, 2]]  # each token looks one back
    far = torch.eye(4)[[0, 0, 0, 0]]  # each token looks at the first
    local, wide = attention_roles.average_local_and_global_heads(torch.stack([far, near]), start=0)
    assert torch.equal(local, near)
    assert torch.equal(wide, far)
    assert attention_roles.locality(far, window=2).tolist() == [0, 1, 2, 2]
    assert attention_roles.influence(far, near=1, far=2).tolist() == [1, 0, 0, 0]
    assert attention_roles.influence(far, near=10, far=50).tolist() == [0, 0, 0, 0]


def test_how_far_head_looks_back_is_said_by_rows_of_completion():
    far_in_the_prompt = torch.eye(6)[[0, 0, 0, 0, 3, 4]]
    far_in_the_completion = torch.eye(6)[[0, 0, 1, 2, 1, 1]]
    local, wide = attention_roles.average_local_and_global_heads(
        torch.stack([far_in_the_prompt, far_in_the_completion]), start=4
    )
    assert torch.equal(local, far_in_the_prompt)
    assert torch.equal(wide, far_in_the_completion)


def test_influence_is_looked_for_up_to_hundredth_token_later():
    late = torch.zeros(120, 120)
    late[100, 0] = 91.0
    assert attention_roles.influence(late)[0] == pytest.approx(1.0)
    assert attention_roles.influence(late, far=50)[0] == 0


@pytest.mark.parametrize(("count", "layers"), [(2, [0, 1]), (12, [4, 5, 6, 7]), (28, [9, 11, 14, 16, 18])])
def test_layers_lie_in_the_middle_third(count, layers):
    assert choose_middle_layers(count) == layers


def test_a_field_that_nobody_fills_is_named_before_any_work(tmp_path):
    objective = Objective(on_span("sampled", reads("mood")))
    with pytest.raises(QreditError, match="needs the batch field 'mood', which nothing here fills"):
        trainer(tmp_path, objective)
    with pytest.raises(QreditError, match="the trainer fills 'entropy' itself"):
        trainer(tmp_path, objective, fields={"mood": lambda seen, tokenizer: [0.0] * len(seen), "entropy": len})


@pytest.mark.parametrize("per_token", [False, True])
def test_a_users_field_reaches_the_objective(tmp_path, per_token):
    def mood(seen, tokenizer):
        assert all(one.rationale_length <= len(one.ids) for one in seen)
        return [[float(token) for token in one.ids] if per_token else float(one.ids[0]) for one in seen]

    _, batch = stepped(tmp_path, "mood", fields={"mood": mood})
    expected = torch.where(batch.mask, batch.ids, 0).double() if per_token else batch.ids[:, 0].double()
    assert torch.equal(batch.extra["mood"].double(), expected)


def sampled(ids, gold, values):
    rollout = make_one_turn((1,), ids, (0.0,) * len(ids), 2, 3, forced=False, ended=True)
    return replace(rollout, golds=(gold,), fields={"field": values})


def test_a_row_that_ends_in_gold_keeps_its_rationales_values():
    one, other = sampled((5, 6, 7, 8, 9), (4, 4, 4), [1, 2, 3, 4, 5]), sampled((5, 6, 7), (4,), [7, 8, 9])
    batch = collate([one, other], ("answer", "response"), 0, 0, torch.device("cpu")).batch
    assert batch.extra["field"].tolist() == [
        [1, 2, 3, -1, -1, -1],
        [1, 2, 3, 4, 5, -1],
        [7, 8, 9, -1, -1, -1],
        [7, 8, 9, -1, -1, -1],
    ]


def test_fields_take_their_kind_from_their_numbers():
    assert make_field_tensor("spans", [[True], [False, True]], [1, 2], 2).tolist() == [[True, False], [False, True]]
    assert make_field_tensor("scores", [[0.5], []], [1, 0], 2).tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert make_field_tensor("tags", [1, 2], [1, 2], 2).tolist() == [1, 2]
    with pytest.raises(QreditError, match="'both': some rollouts have one number"):
        make_field_tensor("both", [1.0, [1.0]], [1, 1], 1)


def seen(response, group=0, rationale="", end=EndReason.ANSWER):
    return Trajectory((), (), end, group=group, rationale=rationale, response=response)


def test_answers_of_one_text_are_a_cluster_of_their_group():
    told = [seen("Paris"), seen(" paris "), seen("Rome"), seen(""), seen("Paris", group=1)]
    found = clusters(told, None)
    assert found[0] == found[1] != found[2]
    assert found[3] == -1
    assert found[4] not in found[:4]


@pytest.mark.parametrize("compare", [lambda told: clusters(told, None), lambda told: same_answers().make(told, None)])
@pytest.mark.parametrize("end", [EndReason.BUDGET, EndReason.ERROR, EndReason.PRUNED])
def test_an_episode_without_an_answer_is_in_no_cluster(compare, end):
    """What it said last is no answer: two searches for the same words do not agree. An answer cut at its cap is one."""
    told = [seen("search(Ann)", end=end), seen("search(Ann)", end=end), seen("Ann", end=EndReason.CAP), seen("Ann")]
    found = compare(told)
    first, second, cut, whole = found if isinstance(found, list) else found["cluster"]
    assert (first, second) == (-1, -1)
    assert cut == whole >= 0


def test_a_tag_counts_where_the_completion_begins_with_it():
    told = [
        seen("x", rationale="[Easy] so"),
        seen("[hard]"),
        seen("x", rationale="I say [Easy]"),
        seen("[Easy]", rationale="x"),
    ]
    assert difficulty_tags(told, None) == [1, 2, 0, 0]


def test_a_judges_scores_stand_where_steps_of_the_rationale_end():
    text = tokenizer()("one two\n\nthree", add_special_tokens=False).input_ids
    closing = tokenizer()("\nAnswer:\n4", add_special_tokens=False).input_ids
    drawn = (0.0,) * len(text + closing)
    rollout = replace(
        make_one_turn((1,), text + closing, drawn, len(text), len(drawn), forced=True, ended=True),
        example={"prompt": "?"},
    )
    steps = reasoning_steps([rollout], tokenizer())[0]
    scores = make_step_scorer(lambda prompt, texts: [0.9, -0.8][: len(texts)])([rollout], tokenizer())[0]
    ends = [place for place, score in enumerate(scores) if score]
    assert [scores[place] for place in ends] == [0.9, -0.8]
    assert [steps[place] for place in ends] == [0, 1]
    assert ends[-1] == len(text) - 1
