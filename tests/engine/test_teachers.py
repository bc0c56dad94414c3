"""Teachers: who fills `logp@NAME` and `kl@NAME`, what is refused before a step, and names of former versions."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from peft import LoraConfig

from qredit import Objective, QreditError, on_span
from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Source, When
from qredit.engine.resume import deserialize_generation, serialize_generation
from qredit.objectives.parsing import parse
from qredit.penalties.fork import fork_kl_to_reference
from qredit.penalties.otsu_fork import otsu_fork_kl_to_reference
from qredit.penalties.reference import kl_to_reference
from qredit.trl import Hint
from tests.support.marks import e2e
from tests.support.runs import first_step_gradients, length_reward, questions, trainer
from tests.support.tiny import chat_tokenizer, model, tokenizer


@dataclass(frozen=True)
class reads(Source):
    """1 on every token; keeps the batch it was given."""

    names: tuple[str, ...]
    seen: tuple[list, ...] = ([],)

    @property
    def needs(self):
        return frozenset(self.names)

    @property
    def when(self):
        return When.UPDATE

    def __call__(self, batch):
        self.seen[0].append(batch)
        return Coefficient(torch.ones(len(batch.mask), 1, dtype=torch.float64))


def stepped(tmp_path, *names, **changes):
    """A trainer after the gradient of its first step, the rows of that step, and the batch that its objective saw."""
    source = reads(names, ([],))
    made = trainer(tmp_path, Objective(on_span("sampled", source)), reward_funcs=length_reward, **changes)
    first_step_gradients(made)
    return made, made._generation.microbatches[0].rows, source.seen[0][-1]


def told(network, prompt, completion):
    """log-probabilities (T, V) of the completion's positions, by an ordinary call."""
    ids = torch.tensor([*prompt, *completion])[None]
    with torch.no_grad():
        return network(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def own(rows, row):
    """The ids of a row's prompt and completion, without padding."""
    batch = rows.batch
    return rows.prompt_ids[row][rows.prompt_mask[row].bool()].tolist(), batch.ids[row][batch.mask[row]].tolist()


WAYS = pytest.mark.parametrize("changes", [{}, {"shared_prefix": False}, {"rows_per_forward": 3}], ids=str)


@WAYS
def test_a_second_model_tells_log_probabilities_and_divergence(tmp_path, changes):
    other = model(seed=5)
    further = ("forward_kl@other", "hellinger@other", "tempered_kl@other@0.5")
    made, rows, batch = stepped(tmp_path, "logp@other", "kl@other", *further, teachers={"other": other}, **changes)
    for row in (0, 5):
        prompt, completion = own(rows, row)
        theirs, ours = told(other, prompt, completion), told(made.model, prompt, completion)
        expected = theirs.gather(1, torch.tensor(completion)[:, None])[:, 0]
        assert torch.allclose(batch.extra["logp@other"][row, : len(completion)], expected, atol=1e-4)
        far = (ours.exp() * (ours - theirs)).sum(-1)
        assert float(far.min()) > 1e-3
        assert torch.allclose(batch.extra["kl@other"][row, : len(completion)], far, atol=1e-4)
        apart = ((ours / 2).exp() - (theirs / 2).exp()).square().sum(-1).div(2).sqrt()
        assert torch.allclose(batch.extra["hellinger@other"][row, : len(completion)], apart, atol=1e-3)
        at = torch.exp(-0.5 * torch.tanh((apart / apart.median()).log()))[:, None]
        ours_at, theirs_at = (ours / at).log_softmax(-1), (theirs / at).log_softmax(-1)
        expected = at[:, 0] ** 2 * (ours_at.exp() * (ours_at - theirs_at)).sum(-1)
        assert torch.allclose(batch.extra["tempered_kl@other@0.5"][row, : len(completion)], expected, atol=1e-3)
        back = (theirs.exp() * (theirs - ours)).sum(-1)
        assert torch.allclose(batch.extra["forward_kl@other"][row, : len(completion)], back, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in other.parameters())


@pytest.mark.parametrize("given", ["policy", e2e("other")])
@WAYS
def test_a_hint_stands_before_the_same_completion(tmp_path, changes, given):
    reader = None if given == "policy" else model(seed=5)
    hint = Hint(lambda row: f"It is {row['answer']}. {row['prompt']}", reader)
    made, rows, batch = stepped(tmp_path, "logp@hinted", teachers={"hinted": hint}, **changes)
    for row in (0, 5):
        prompt, completion = own(rows, row)
        text = tokenizer().decode(prompt)
        other = tokenizer()(f"It is {text.split()[2].strip('? ')}. {text}")["input_ids"]
        assert len(other) > len(prompt)
        expected = told(reader or made.model, other, completion).gather(1, torch.tensor(completion)[:, None])[:, 0]
        assert torch.allclose(batch.extra["logp@hinted"][row, : len(completion)], expected, atol=1e-4)
    assert not torch.allclose(batch.extra["logp@hinted"], batch.logp, atol=1e-2)


def test_a_policy_with_adapters_is_hinted_with_them(tmp_path):
    adapters = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    same = Hint(lambda row: row["prompt"])
    _, _, batch = stepped(tmp_path, "logp@same", "logp@reference", teachers={"same": same}, peft_config=adapters)
    assert torch.allclose(batch.extra["logp@same"], batch.logp, atol=1e-5)
    assert not torch.allclose(batch.extra["logp@reference"], batch.logp, atol=1e-3)


@pytest.mark.e2e
def test_distillation_from_a_second_model_moves_towards_it(tmp_path):
    """The gradient of a squared log-ratio to another model is not that to the reference, which is 0 at the start."""
    objective = "Objective(on_span('sampled', 0.0 * reward())) | kl_to_reference_k2(1.0, teacher='other')"
    made = trainer(tmp_path, objective, reward_funcs=length_reward, teachers={"other": model(seed=5)})
    moved = first_step_gradients(made)
    still = first_step_gradients(trainer(tmp_path, objective.replace("other", "reference"), reward_funcs=length_reward))
    assert max(float(g.norm()) for g in still.values()) < 1e-4 < max(float(g.norm()) for g in moved.values())


def test_a_teacher_that_is_not_there_is_named_with_the_choices(tmp_path):
    objective = "grpo() | kl_to_reference(0.1, teacher='coach')"
    with pytest.raises(QreditError, match="'logp@coach' is needed, but there is no teacher 'coach'; there is 'refer"):
        trainer(tmp_path, objective)
    with pytest.raises(QreditError, match="there is 'reference', 'couch'"):
        trainer(tmp_path, objective, teachers={"couch": model(seed=5)})
    with pytest.raises(QreditError, match="nothing reads 'logp@other'; leave 'other' out"):
        trainer(tmp_path, "grpo()", teachers={"other": model(seed=5)})
    with pytest.raises(QreditError, match="'reference' is the model that the run begins with"):
        trainer(tmp_path, "grpo() | kl_to_reference(0.1)", teachers={"reference": model(seed=5)})


def test_a_teacher_of_other_token_ids_is_refused(tmp_path):
    objective = "grpo() | kl_to_reference(0.1, teacher='other')"
    with pytest.raises(QreditError, match=r"the vocabularies of 'other' and of the run differ: 'other' has embeddings"):
        trainer(tmp_path, objective, teachers={"other": model(vocab_size=len(tokenizer()) - 1)})
    model(seed=5).save_pretrained(tmp_path / "other")
    with pytest.raises(QreditError, match="no tokenizer for 'other'"):
        trainer(tmp_path, objective, teachers={"other": str(tmp_path / "other")})
    tokenizer(thinking=False).save_pretrained(tmp_path / "other")
    with pytest.raises(QreditError, match=r"differ: \d+ tokens have another id or none in '.*', first"):
        trainer(tmp_path, objective, teachers={"other": str(tmp_path / "other")})
    chat_tokenizer().save_pretrained(tmp_path / "other")
    made = trainer(tmp_path, objective, teachers={"other": str(tmp_path / "other")})
    assert torch.equal(next(made.scorer.teachers["other"].model.parameters()), next(model(seed=5).parameters()))
    with pytest.raises(QreditError, match="cannot be loaded"):
        trainer(tmp_path, objective, teachers={"other": str(tmp_path / "nowhere")})


def test_what_a_teacher_cannot_tell_is_refused(tmp_path):
    network = model()
    with pytest.raises(QreditError, match="'other' is the model that is trained; give a Hint"):
        trainer(
            tmp_path, "grpo() | kl_to_reference(0.1, teacher='other')", network=network, teachers={"other": network}
        )
    whole = Objective(on_span("sampled", reads(("kl@other",))))
    with pytest.raises(QreditError, match=f"has {len(tokenizer()) + 8} rows, the policy's {len(tokenizer())}"):
        trainer(tmp_path, whole, teachers={"other": model(vocab_size=len(tokenizer()) + 8)})
    with pytest.raises(QreditError, match="no kl@NAME, for its head moves"):
        trainer(tmp_path, whole, teachers={"other": Hint(lambda row: row["prompt"])})


def test_a_hint_is_a_function_of_its_prompt_and_fits_context(tmp_path):
    objective = "grpo() | kl_to_reference(0.1, teacher='hinted')"
    twice = questions(8)
    twice = twice.remove_columns("prompt").add_column("prompt", ["What is it? "] * 8)
    with pytest.raises(QreditError, match="'hinted' has two prompts for rows of one prompt"):
        trainer(tmp_path, objective, data=twice, teachers={"hinted": Hint(lambda row: row["answer"])})
    with pytest.raises(QreditError, match=r"a prompt of 'hinted' has \d+ tokens, and \d+ are left by a context of 256"):
        trainer(tmp_path, objective, teachers={"hinted": Hint(lambda row: "cat " * 300)})


def test_a_maker_may_stand_for_a_teacher(tmp_path):
    """Under the field's name, and under the one of former versions."""
    per_token = lambda seen, tokenizer: [[-1.0] * len(one.ids) for one in seen]  # noqa: E731
    for name in ("logp@better", "better_logp"):
        made, _, batch = stepped(tmp_path, "logp@better", fields={name: per_token})
        assert torch.equal(batch.extra["logp@better"], -batch.mask.to(batch.extra["logp@better"].dtype))
        assert made.scorer.teachers == {}
    with pytest.raises(QreditError, match="the trainer fills 'logp@reference' itself"):
        stepped(tmp_path, "logp@reference", fields={"reference_logp": per_token})


# --- former names


def test_stages_that_name_fields_the_former_way_still_run(tmp_path):
    with pytest.warns(DeprecationWarning, match="'reference_logp' is now 'logp@reference'"):
        _, _, batch = stepped(tmp_path, "reference_logp")
    with pytest.warns(DeprecationWarning, match="the old name will be removed"):
        assert batch.require("reference_logp", "test") is batch.extra["logp@reference"]
    with pytest.warns(DeprecationWarning, match="the old name will be removed"):
        assert batch.extra["reference_logp"] is batch.extra["logp@reference"]
    with pytest.warns(DeprecationWarning, match="'reference_kl' is now 'kl@reference'"):
        renamed = dataclasses.replace(batch, extra={"reference_kl": batch.logp})
    assert list(renamed.extra) == ["kl@reference"]


def test_when_field_is_read_does_not_depend_on_its_former_name():
    assert reads(("reference_kl",)).needs != reads(("kl@reference",)).needs
    for names, when in (("reference_kl", "kl@reference"), When.UPDATE), (("reference_logp", "logp@x"), When.ROLLOUT):
        assert [Source.when.fget(reads((name,))) for name in names] == [when, when]


def test_rollouts_that_a_former_version_kept_are_taken_up(tmp_path):
    made, rows, batch = stepped(tmp_path, "logp@reference", "kl@reference")
    kept = serialize_generation(made._generation)
    hidden = rows.teacher_hidden["reference"]
    for micro in kept["microbatches"]:
        assert type(micro["batch"]["extra"]) is dict  # what torch.load takes with weights_only
        micro["reference_hidden"] = micro.pop("teacher_hidden")["reference"]
        micro["batch"]["extra"] = {"reference_logp": micro["batch"]["extra"]["logp@reference"]}
    taken = deserialize_generation(kept).microbatches[0].rows
    assert torch.equal(taken.teacher_hidden["reference"], hidden)
    assert torch.equal(taken.batch.extra["logp@reference"], batch.extra["logp@reference"])
    kept["microbatches"][0]["reference_hidden"] = None
    assert deserialize_generation(kept).microbatches[0].rows.teacher_hidden == {}


def test_penalties_print_as_before_and_parse_back():
    assert str(kl_to_reference(0.04)) == "kl_to_reference(strength=0.04)"
    assert str(fork_kl_to_reference(0.1, 0.3)) == "fork_kl_to_reference(strength=0.1, share=0.3)"
    assert str(otsu_fork_kl_to_reference(0.1)) == "otsu_fork_kl_to_reference(strength=0.1, bins=100)"
    for penalty in (kl_to_reference, fork_kl_to_reference, otsu_fork_kl_to_reference):
        made = penalty(0.1, teacher="coach")
        assert "teacher='coach'" in str(made)
        assert parse(f"grpo() | {made}").penalties == (made,)
        assert any(name.endswith("@coach") for name in made.needs)


def test_an_unknown_field_stays_unknown():
    batch = RolloutBatch(*(torch.zeros(1, 2, dtype=torch.bool),) * 3, group=torch.zeros(1, dtype=torch.long))
    with pytest.raises(KeyError, match="mood"):
        batch.extra["mood"]
