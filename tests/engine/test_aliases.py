"""Several right answers to a question: the likelihood is that of any of them, and a rationale counts once."""

import json
import math
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from peft import LoraConfig

from qredit import QreditError
from qredit.callbacks.credit_recorder import TokenTexts, make_record
from qredit.core import tsallis
from qredit.core.batch import concatenate
from qredit.core.chain import Source, on_span
from qredit.core.objective import Objective
from qredit.core.right_answers import join_answers, mean_of_best
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.reward import reward
from qredit.engine.step import ScoredMicrobatch
from qredit.objectives import garl, paft
from qredit.probe.measure import ProbeSetup, measure
from qredit.probe.measure import _split_by_alignment as split_by_alignment
from qredit.report.records import _record as read_record
from qredit.rewards.reward_spec import parse_rewards
from qredit.rollouts.collate import collate
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import make_one_turn
from qredit.shared_prefix import attention
from qredit.shared_prefix.packing import pack, pack_continuations, pack_prompts, pad_rows
from qredit.shared_prefix.patch_forward import score, score_selected
from qredit.shared_prefix.share import share_prefix
from qredit.tasks.alias_use import AliasUse, keep_rewarded
from qredit.tasks.base import Example
from qredit.testing import moments
from qredit.testing.laws.estimator import bias_coefficient
from qredit.testing.moments import exact_moments
from qredit.testing.policy import TabularPolicy
from qredit.testing.transformer import TransformerPolicy
from tests.support.marks import e2e
from tests.support.rounding import gradient_bound
from tests.support.runs import first_step_gradients, questions, relative_difference, trainer
from tests.support.tiny import model, tokenizer

TABLE = replace(TabularPolicy.random(seed=2, length=1), right=2)
TRANSFORMER = replace(TransformerPolicy.random(seed=3, length=1, answers=4), right=3)
QS = (0.0, 0.5, 0.75, 1.0)


# --- the estimators, by enumeration: P is the probability of any right answer


def has_the_bias_of_the_formula(q, policy=TABLE, method=garl):
    """E[ĝ] is ∇ℓ_q of P = Σ_z p(z) Σ_j p(y_j|z), up to the known bias of order 1/M; at q = 0 exactly, for every M."""
    estimator = method(q, normalize=False)
    if q == 0.0:
        for m in (2, 3):
            mean = exact_moments(estimator, policy, m).mean
            assert torch.allclose(mean, policy.loss_gradient(0.0), atol=1e-6)
        return
    formula = tsallis.estimator_bias(policy.prior, policy.log_w.exp(), policy.joint_score, q)
    found = bias_coefficient(estimator, policy, q)
    assert float((found - formula).norm()) < 0.02 * float(formula.norm())


def paft_is_garl_on_average(q, policy=TABLE):
    """E[PAFT] = E[GARL] at every M, with one draw as with M."""
    for m, draws in ((2, None), (3, 1), (4, 1)):
        mean = exact_moments(paft(q, draws, normalize=False), policy, m).mean
        assert torch.allclose(mean, exact_moments(garl(q, normalize=False), policy, m).mean, atol=1e-6)


def test_success_is_that_of_any_right_answer():
    chance = (TABLE.prior[:, None] * TABLE.answer_logp[:, :2].exp()).sum()
    assert TABLE.success == pytest.approx(float(chance))
    assert TABLE.success > replace(TABLE, right=1).success


@pytest.mark.parametrize("q", QS)
def test_garl_follows_the_loss_of_any_right_answer(q):
    has_the_bias_of_the_formula(q)


@pytest.mark.parametrize("q", QS)
def test_paft_is_garl_on_average_over_its_draws(q):
    paft_is_garl_on_average(q)


def test_parameters_that_answers_share_are_no_matter():
    has_the_bias_of_the_formula(0.0, TRANSFORMER)
    has_the_bias_of_the_formula(0.75, TRANSFORMER)


def test_a_reward_counts_any_right_answer_and_a_rollout_once():
    climbs = Objective(on_span("sampled", reward() | subtract_mean_of_others()))
    assert torch.allclose(exact_moments(climbs, TABLE, 3).mean, TABLE.loss_gradient(0.0), atol=1e-6)


def _each_alone(batch):
    """log p of each right answer."""
    return torch.where(batch.answer, batch.logp, 0.0)[:, 2:]


def _without_share(batch):
    return replace(batch, answer_share=None)


def _sum_of_logs(batch):
    return replace(batch, answer_logp=_each_alone(batch).sum(1))


def _second_twice(batch):
    twice = torch.cat([_each_alone(batch), _each_alone(batch)[:, 1:]], 1)
    return replace(batch, answer_logp=twice.logsumexp(1).clamp(max=0.0))


def _gold_alone(batch):
    return replace(batch, answer_logp=_each_alone(batch)[:, 0])


@dataclass(frozen=True)
class _row_for_each(Source):
    """Aliases as M·A rows, folded back: each with its own w in the group, the mean over all of them."""

    inner: Source
    needs = frozenset({"answer_logp"})

    def __call__(self, batch):
        answers = int(batch.alias.max()) + 1
        which = torch.arange(len(batch.mask)).repeat_interleave(answers)
        own = torch.arange(answers).repeat(len(batch.mask))
        rows = replace(batch.select(which), alias=None, answer_share=None)
        rows = replace(
            rows,
            answer=rows.answer & (batch.alias[which] == own[:, None]),
            answer_logp=_each_alone(batch).flatten(),
            sampled=rows.sampled & ~rows.answer,
        )
        found = self.inner(rows)
        value = found.spread(rows).view(len(batch.mask), answers, -1).sum(1) / answers
        return replace(found, value=value, keep=None, holds_ratio=None)


@pytest.mark.parametrize("change", [_without_share, _sum_of_logs, _second_twice, _gold_alone])
def test_an_estimator_gone_wrong_is_caught(change, monkeypatch):
    made = moments.make_group_batch
    monkeypatch.setattr(moments, "make_group_batch", lambda *given, **named: change(made(*given, **named)))
    for q in (0.0, 0.75):
        with pytest.raises(AssertionError):
            has_the_bias_of_the_formula(q)


def test_answers_as_rows_of_their_own_are_caught(monkeypatch):
    def with_rows_for_each(q, normalize):
        whole = garl(q, normalize)
        return replace(whole, source=_row_for_each(whole.source))

    made = moments.make_group_batch
    monkeypatch.setattr(moments, "make_group_batch", lambda *given, **named: _without_share(made(*given, **named)))
    for q in (0.0, 0.75):
        with pytest.raises(AssertionError):
            has_the_bias_of_the_formula(q, method=with_rows_for_each)


# --- one number for each row, and how tokens share it


def rows_of(seed=0, vocabulary=97):
    """Two prompts × two rationales; rows with three, one, two and three right answers, the last without a rationale."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count):
        return tuple(torch.randint(4, vocabulary, (count,), generator=generator).tolist())

    prompts, shape = (draw(5), draw(3)), ((4, (3, 2, 4)), (2, (3,)), (6, (1, 5)), (0, (2, 2, 1)))
    made = [
        replace(
            make_one_turn(
                prompts[row // 2], (*draw(size), *draw(1)), (-1.0,) * (size + 1), size, size, forced=False, ended=True
            ),
            golds=tuple(map(draw, lengths)),
            group=row // 2,
        )
        for row, (size, lengths) in enumerate(shape)
    ]
    return made, collate(made, ("answer",), 0, 0, torch.device("cpu"))


def test_a_rationale_is_one_row_with_its_answers_in_line():
    made, rows = rows_of()
    batch = rows.batch
    assert (len(batch.mask), batch.rollouts, batch.rollout) == (4, 4, None)
    for row, one in enumerate(made):
        for number, gold in enumerate(one.golds):
            here = batch.answer[row] & (batch.alias[row] == number)
            assert tuple(batch.ids[row][here].tolist()) == gold
    assert not batch.alias[~batch.answer].any()
    assert torch.equal(batch.counted, batch.trainable & (batch.alias == 0)), "denominators count one answer"


def test_an_answer_that_is_given_twice_counts_once():
    made, _ = rows_of()
    twice = replace(made[0], golds=(*made[0].golds, made[0].golds[1]))
    plain, doubled = (collate([one], ("answer",), 0, 0, torch.device("cpu")).batch for one in (made[0], twice))
    assert torch.equal(plain.ids, doubled.ids)
    one = replace(made[0], golds=(made[0].golds[0],) * 2)
    assert collate([one], ("answer",), 0, 0, torch.device("cpu")).batch.alias is None


def test_the_likelihood_is_of_the_sum_and_shares_are_posterior():
    logp = torch.tensor([[-9.0, -1.0, -2.0, -1.5], [-9.0, -4.0, -torch.inf, -torch.inf], [-1.0, -1.0, 0.0, 0.0]])
    answer = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]).bool()
    alias = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    log_w, share = join_answers(logp, answer, alias)
    p = torch.tensor([-3.0, -1.5], dtype=torch.float64).exp()
    assert float(log_w[0]) == pytest.approx(float(p.sum().log()))
    assert share[0].tolist() == pytest.approx([1.0, *[float(p[0] / p.sum())] * 2, float(p[1] / p.sum())])
    assert (float(log_w[1]), share[1].tolist()) == (-torch.inf, [1.0, 1.0, 0.5, 0.5])
    assert (float(log_w[2]), share[2].tolist()) == (0.0, [1.0] * 4)
    assert join_answers(logp, answer, None)[1] is None
    best = mean_of_best(logp.exp(), answer, alias)
    assert best.tolist() == pytest.approx([(math.exp(-1) + math.exp(-2)) / 2, 0.0, 0.0])


def test_batches_with_and_without_aliases_go_together():
    batches = [rows_of()[1].batch.select(rows) for rows in (slice(0, 2), slice(2, 4))]
    plain = replace(batches[1], alias=None)
    whole = concatenate([replace(batches[0], answer_share=torch.ones(batches[0].mask.shape)), plain])
    assert whole.alias[:2].any()
    assert not whole.alias[2:].any()
    assert bool((whole.answer_share[2:][whole.mask[2:]] == 1).all())


# --- forward passes: every answer continues the rationale, and none sees another


def of_each_answer(network, made):
    """log-probabilities of every row's tokens, each answer behind its own copy of prompt and rationale."""
    found = []
    for one in made:
        head, tokens = [*one.prompt, *one.ids[: one.close_end]], []
        for number, gold in enumerate(one.golds):
            ids = torch.tensor([[*head, *gold]])
            logp = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            tokens.append(logp[len(one.prompt) - 1 if number == 0 else len(head) - 1 :])
        found.append(torch.cat(tokens))
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)


def by_continuations(network, rows):
    layout = pack_continuations(pack_prompts(rows), rows)
    return score_selected(network, layout, lambda told: layout)["logp"]


def by_copies(network, rows):
    attention.attend_in_two_parts, kept = attention.attend_to_copies, attention.attend_in_two_parts
    try:
        return score(network, pack(rows))["logp"]
    finally:
        attention.attend_in_two_parts = kept


WAYS = {
    "packed": lambda network, rows: score(network, pack(rows))["logp"],
    "packed, as on an accelerator": by_copies,
    "packed behind kept prompts": by_continuations,
    "padded": lambda network, rows: score(network, pad_rows(rows))["logp"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_layout_scores_each_answer_behind_its_rationale(way):
    made, rows = rows_of()
    network = model(vocab_size=97)
    assert share_prefix(network) is None
    weight = torch.randn(rows.batch.mask.shape, generator=torch.Generator().manual_seed(1))

    def gradient(logp):
        network.zero_grad()
        (weight * logp).sum().backward()
        return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    wanted = of_each_answer(network, made)
    found = way(network, rows)
    assert torch.allclose(found, wanted, atol=2e-5)
    assert relative_difference(gradient(found), gradient(of_each_answer(network, made))) < gradient_bound()


def test_a_packing_where_answers_see_one_another_is_caught(monkeypatch):
    monkeypatch.setattr("qredit.shared_prefix.packing.make_visibility", lambda rows, prompt: None)
    with pytest.raises(AssertionError):
        test_every_layout_scores_each_answer_behind_its_rationale(WAYS["packed"])


def test_a_rationale_stands_once_in_a_packing():
    _, rows = rows_of()
    prompts, before, answers = 5 + 3, 4 + 2 + 6 + 0, (3 + 2 + 4) + 3 + (1 + 5) + (2 + 2 + 1)
    assert pack(rows).ids.numel() == prompts + before + answers - (3 + 1 + 2 + 3), "every last token predicts nothing"


# --- training

STEP_WIDE = "on_span('answer', amplified_likelihood(q=0.5) | scale_by_batch_std())"
# about as likely as the answer itself: what is far less likely would hide any mistake
ANSWERS = [["a", "bc", str(i)] if i % 2 else [] for i in range(16)]


def aliased(folder, objective="garl(q=0.75)", **changes):
    return trainer(folder, objective, data=changes.pop("data", questions(aliases=ANSWERS)), **changes)


def by_hand(made, q, network):
    """The gradient of GARL from its definition, on the rollouts that the trainer drew, answer by answer."""
    rows = made._generation.microbatches[0].rows
    loss, m = 0.0, 4
    for group in rows.batch.group.unique().tolist():
        own = (rows.batch.group == group).nonzero()[:, 0].tolist()
        log_z, log_w = [], []
        for row in own:
            prompt = rows.prompt_ids[row][rows.prompt_mask[row].bool()].tolist()
            batch = rows.batch
            before = batch.ids[row][batch.mask[row] & ~batch.answer[row]].tolist()
            each = []
            for number in range(4):
                gold = batch.ids[row][batch.answer[row] & (batch.alias[row] == number)].tolist()
                if not gold:
                    continue
                ids = torch.tensor([[*prompt, *before, *gold]])
                logp = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].double()
                each.append(logp[len(prompt) + len(before) - 1 :].sum())
            kept = (batch.rationale[row] & batch.sampled[row])[: len(before)]
            log_z.append(logp[len(prompt) - 1 :][: len(before)][kept].sum())
            log_w.append(torch.stack(each).logsumexp(0))
        w = torch.stack(log_w).detach().exp()
        a = w / w.mean() ** q / m**q
        others = (w.sum() - w) / (m - 1)
        c = a - others ** (1 - q) / m**q
        loss = loss - (c * torch.stack(log_z) + a * torch.stack(log_w)).sum()
    (loss / len(rows.batch.mask)).backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The gradients of a step in one packed pass, by objective, and the trainers that have them."""

    @cache
    def made(objective):
        one = aliased(tmp_path_factory.mktemp("whole"), objective)
        return first_step_gradients(one), one

    return made


def test_a_step_has_the_gradient_of_the_definition(whole):
    gradients, made = whole("garl(q=0.75)")
    rows = made._generation.microbatches[0].rows
    assert len(rows.batch.mask) == 8
    assert rows.batch.alias.max() == 2, "the third alias is the answer itself"
    assert relative_difference(gradients, by_hand(made, 0.75, model())) < gradient_bound()


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("garl(q=0.75)", {"rows_per_forward": 3}),
        e2e("garl(q=0.75)", {"gradient_checkpointing": True}),
        ("paft(q=0.5)", {"shared_prefix": False, "rows_per_forward": 3}),
        e2e("paft(q=0.5)", {"gradient_checkpointing": True}),
        (STEP_WIDE, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
    ],
    ids=str,
)
def test_however_rows_lie_the_gradient_is_the_same(tmp_path, whole, objective, changes):
    found = first_step_gradients(aliased(tmp_path, objective, **changes))
    assert relative_difference(found, whole(objective)[0]) < gradient_bound()


def test_the_engines_own_pass_has_the_same_gradient(tmp_path, whole):
    """A model whose head cannot score tokens: each answer is a row of its own in TRL's pass."""
    made = aliased(tmp_path)
    made.scorer.layout = None
    assert relative_difference(first_step_gradients(made), whole("garl(q=0.75)")[0]) < gradient_bound()


@pytest.mark.e2e
def test_adapters_learn_and_rollouts_are_used_again(tmp_path):
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    moved = {}
    for shared in (True, False):
        torch.manual_seed(0)
        made = aliased(tmp_path, peft_config=lora, shared_prefix=shared, num_iterations=2, max_steps=2)
        made.train()
        moved[shared] = {name: p.detach() for name, p in made.model.named_parameters() if p.requires_grad}
    assert relative_difference(moved[True], moved[False]) < 50 * gradient_bound()


@pytest.mark.e2e
def test_a_run_with_aliases_resumes_inside_a_generation(tmp_path):
    def run(step=None):
        made = aliased(tmp_path, save_strategy="steps", save_steps=1, max_steps=2, num_iterations=2)
        made.train(resume_from_checkpoint=None if step is None else str(tmp_path / f"checkpoint-{step}"))
        return torch.cat([p.detach().flatten() for p in made.model.parameters()])

    assert torch.equal(run(), run(1))


def test_a_record_holds_what_other_objectives_need(whole):
    """The report recomputes coefficients from it, shares included."""
    _, made = whole("garl(q=0.75)")
    rows = made._generation.microbatches[0].rows
    batch = made.scorer.score_batch_no_grad(made.model, rows)
    odd = int(batch.group[batch.alias.any(1).nonzero()[0, 0]])
    which = batch.group == odd
    learned = ScoredMicrobatch(made.objective, rows.select(which), batch.select(which))
    entry = json.loads(json.dumps(make_record(learned, TokenTexts(tokenizer()))))
    assert any(value < 1 for one in entry["rollouts"] for value, _ in one["share"])
    found = read_record({"step": 1} | entry, ("garl(q=0.75)",), 3)
    credit = made.objective.credit(batch.select(which))
    for row, values in enumerate(found["beside"][0]["values"]):
        told = [value for value, count in values for _ in range(count)]
        assert told == pytest.approx(credit[row][batch.mask[which][row]].tolist(), rel=2e-3)


# --- the probe


def test_the_probe_takes_the_likelihood_of_any_right_answer():
    network, tokens = model(), TokenFormat(Format.of(tokenizer()), tokenizer())
    share_prefix(network)
    asked = [Example("What is 3? ", "3", "a"), Example("What is 4? ", "4", "b")]
    answers = {text: tuple(tokens.answer_ids(text)) for text in ("3", "4", "a")}

    def log_w(*golds):
        setup = ProbeSetup(
            network, tokens, TokenBudget(4, 2), {}, False, parse_rewards("exact_match")[0], asked, golds, (), 0, 0
        )
        return measure(setup, 3, seed=0).log_w

    joined = log_w((answers["3"], answers["a"]), (answers["4"],))
    alone, other = log_w((answers["3"],), (answers["4"],)), log_w((answers["a"],), (answers["4"],))
    assert torch.allclose(joined[0], torch.logaddexp(alone[0], other[0]), atol=1e-4)
    assert torch.allclose(joined[1], alone[1], atol=1e-4)


def test_the_probe_asks_for_aliases_where_they_count():
    tokens = TokenFormat(Format.of(tokenizer()), tokenizer())
    asked = [Example("x", "3", "a", aliases=("three", "3", " "))]
    for use, count in ((AliasUse.BOTH, 2), (AliasUse.LIKELIHOOD, 2), (AliasUse.REWARD, 1)):
        ((_, golds),) = split_by_alignment(asked, tokens, use)[0]
        assert len(golds) == count
    assert [one.aliases for one in keep_rewarded(asked, AliasUse.LIKELIHOOD)] == [()]
    assert keep_rewarded(asked, AliasUse.BOTH) == asked


# --- what aliases count for


def seen_by_reward(folder, use):
    told = []

    def keep(completions, aliases=None, **columns):
        told.append(aliases)
        return [0.0] * len(completions)

    made = aliased(folder, reward_funcs=keep, aliases=use, max_steps=1)
    made.train()
    return told[0], made


@pytest.mark.parametrize(("use", "rewarded", "joined"), [
    ("reward", True, False), ("likelihood", False, True), ("both", True, True),
])  # fmt: skip
def test_aliases_count_for_what_they_are_said_to(tmp_path, use, rewarded, joined):
    told, made = seen_by_reward(tmp_path, use)
    assert (told is not None and any(told)) == rewarded
    assert (made._generation.microbatches[0].rows.batch.alias is not None) == joined


def test_an_objective_of_rewards_reads_no_ids_of_aliases(tmp_path):
    made = aliased(tmp_path, "grpo()", data=questions(aliases=[["</think>"]] * 16))
    assert "alias_ids" not in made.train_dataset.column_names


@pytest.mark.parametrize(
    ("aliases", "changes", "message"),
    [
        (["x</think>"], {}, r"train_dataset, row 0: alias 'x</think>' cannot count for the likelihood; mend or remove"),
        (
            ["seven " * 300],
            {},
            r"16 rows have an alias that does not fit .*rows 0, 1, 2, 3, 4, …; longest",
        ),
        ([], {"aliases": "all"}, r"unknown value of aliases 'all'; .*Choices: both, likelihood, reward"),
    ],
)
def test_bad_aliases_are_named(tmp_path, aliases, changes, message):
    with pytest.raises(QreditError, match=message):
        aliased(tmp_path, data=questions(aliases=[aliases] * 16), **changes)


def test_rows_with_a_long_alias_are_left_out_if_asked(tmp_path):
    data = questions(aliases=[["seven " * 300] if row < 2 else [] for row in range(16)])
    made = aliased(tmp_path, data=data, skip_long=True)
    assert len(made.train_dataset) == 14
    assert "alias_ids" not in made.train_dataset.column_names or not any(made.train_dataset["alias_ids"])
