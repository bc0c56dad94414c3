"""The support of an answer: likelihoods by separate passes, whose answers are asked for, and a run with it."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from qredit.cli import main
from qredit.fields import answer_support, same_answers
from qredit.fields.parsing import parse_field
from qredit.rollouts.field_maker import FieldTools
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Told
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.tiny import tokenizer

CLOSE = (90, 91)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return str(model_folder(tmp_path_factory.mktemp("models") / "tiny"))


def episode(turns, said, response, group=0, end=EndReason.ANSWER):
    """An episode of so many turns that ends in an answer."""
    generator = torch.Generator().manual_seed(turns)
    segments = []
    for turn in range(turns):
        ids = torch.randint(20, 80, (7,), generator=generator).tolist()
        last = turn == turns - 1
        segments += [
            Segment(tuple(ids[:2]), Role.THINK, True, turn=turn),
            Segment((92,), Role.CLOSE, True, turn=turn),
            Segment(said if last else tuple(ids[2:4]), Role.ANSWER, True, turn=turn),
            Segment(tuple(ids[4:]), Role.OBSERVATION, False, turn=turn),
        ]
    return Trajectory((5, 6 + group), tuple(segments[:-1]), end, group=group, response=response, reward=1.0)


GROUP = [
    episode(2, (11, 12, 13), "four"),
    episode(1, (14, 15), "Four"),
    episode(3, (16,), "five"),
    episode(2, (21,), ""),
    episode(2, (17,), "four", end=EndReason.ERROR),
    episode(1, (18, 19), "five", group=1),
]


def tools():
    told = Told()
    return FieldTools(tokenizer(), told, None, CLOSE), told


@torch.no_grad()
def support(network, one, references):
    """log s_0 … log s_K by a plain pass for each place and reference, from the definition."""
    model = AutoModelForCausalLM.from_pretrained(network)
    turns = one.segments[-1].turn + 1
    found = []
    for k in range(turns + 1):
        before = [token for s in one.segments if s.turn < k for token in s.ids]
        context = [*one.prompt, *([*before, *CLOSE] if k < turns else one.ids[: one.close_end])]
        each = []
        for said in references:
            logits = model(torch.tensor([[*context, *said]])).logits[0, len(context) - 1 : -1].double()
            each.append(float(logits.log_softmax(-1).gather(1, torch.tensor(said)[:, None]).mean().exp()))
        found.append(math.log(sum(each) / len(each)))
    return found


def test_the_support_is_that_of_separate_passes(network):
    given, told = tools()
    made = answer_support(network).make(GROUP, given)
    assert made["cluster"] == same_answers().make(GROUP, given)["cluster"]
    references = {0: [(11, 12, 13), (14, 15)], 1: [(11, 12, 13), (14, 15)], 2: [(16,)], 5: [(18, 19)]}
    for place, one in enumerate(GROUP):
        before, after = made["support@before"][place], made["support@after"][place]
        assert len(before) == len(after) == len(one.ids)
        if place not in references:
            assert all(map(math.isnan, [*before, *after])), "no answer, or an error ended it"
            continue
        right = support(network, one, references[place])
        turns = [segment.turn for segment in one.segments for _ in segment.ids]
        assert before == pytest.approx([right[turn] for turn in turns], abs=1e-4)
        assert after == pytest.approx([right[turn + 1] for turn in turns], abs=1e-4)
    first = [support(network, GROUP[place], own)[0] for place, own in references.items()]
    last = [support(network, GROUP[place], own)[-1] for place, own in references.items()]
    assert told["support/first"] == pytest.approx(sum(first) / 4, abs=1e-4)
    assert told["support/last"] == pytest.approx(sum(last) / 4, abs=1e-4)


def test_no_more_references_are_asked_for_than_wanted(network):
    given, _ = tools()
    one = answer_support(network, references=1).make(GROUP[:2], given)["support@after"][1]
    assert one[-1] == pytest.approx(support(network, GROUP[1], [(11, 12, 13)])[1], abs=1e-4)
    nobody = answer_support("nowhere").make([replace(GROUP[3], group=9)], given)
    assert all(map(math.isnan, nobody["support@before"][0])), "nobody answered, so no model is loaded"


def test_its_text_names_how_answers_are_alike():
    name, made = parse_field("support@before=answer_support('FOLDER', alike=same_answers('numeric'))")
    assert made == answer_support("FOLDER", alike=same_answers("numeric"))
    assert made.list_fields(name) == {"support@before", "support@after", "cluster"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: answer_support(""), "path of answer_support"),
        (lambda: answer_support("x", references=0), "references must be a whole number"),
        (lambda: answer_support("x", alike=answer_support("y", alike=3)), "must be a maker of cluster"),
        (lambda: answer_support("x", device="cup"), "device of answer_support"),
        (lambda: answer_support("/nowhere/at/all").make(GROUP, tools()[0]), "no model at '/nowhere/at/all'"),
    ],
)
def test_what_cannot_be_used_is_refused(make, message):
    with pytest.raises(QreditError, match=message) as found:
        make()
    assert "\n" not in str(found.value)


def test_a_model_of_other_token_ids_is_refused(network):
    made = answer_support(network)
    object.__setattr__(made, "_vocabulary", {**tokenizer().get_vocab(), "the": 10_000})
    with pytest.raises(QreditError, match="1 tokens of the run have another id or none in"):
        made.make(GROUP, tools()[0])


@pytest.mark.e2e
def test_siop_trains_from_one_command(network, tmp_path, monkeypatch):
    plain, closings = answer_support.make, []
    monkeypatch.setattr(
        answer_support, "make", lambda self, *given: closings.append(given[1].close_ids) or plain(self, *given)
    )
    chosen = SHORT | {"task": "jsonl", "data": data_file(tmp_path / "data.jsonl"), "model": network, "m": 4, "steps": 1}
    chosen |= {
        "env": "tests.support.episodes:Counting",
        "max_turns": 2,
        "observation_budget": 20,
        "objective": "siop",
        "output": tmp_path / "run",
    }
    words = ["--field", f"support@before=answer_support('{network}')"]
    assert main(["train", "--quiet", "--cpu", *flags(**chosen), *words]) == 0
    told = lines(tmp_path / "run" / "metrics.jsonl")[0]
    assert told["support/first"] < 0
    assert told["support/last"] < 0
    assert [tokenizer().decode(ids) for ids in closings] == ["</think>"]
