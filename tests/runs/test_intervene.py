"""qredit intervene: which rollouts are corrected, what is kept of them, and that fine-tuning imitates that alone."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from qredit.cli.main import main
from qredit.data.completions import Completion, CompletionGroup
from qredit.data.corrections import Correction, tells_answer
from qredit.data.demonstrations import Demonstration
from qredit.pocket.models import get_model_name, get_model_path
from qredit.rewards.reward_spec import parse_rewards
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.tokenizer import digest_vocabulary
from qredit.runs.folder import RunFolder
from qredit.runs.intervening import check_done
from qredit.runs.interventions import (
    JudgeProposer,
    OwnProposer,
    Reply,
    Setting,
    correct_rollouts,
    find_wrong_rollouts,
)
from qredit.runs.load import load_data
from qredit.runs.row_file import RowFile
from qredit.runs.source_run import read_records
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError
from tests.samplers.test_decoding import END, FORM, Scripted
from tests.support.endpoint import said
from tests.support.folders import SHORT, data_file, flags, lines, model_folder, rows
from tests.support.tiny import tokenizer

(CLOSE,) = FORM.close_ids
BLANK = tuple(tokenizer()("\n\n").input_ids)


def ids(text):
    """The ids of its letters, one by one: what was sampled need not be how a text is encoded."""
    return tuple(id for letter in text for id in tokenizer()(letter).input_ids)


def completion(thought, answer, reward=0.0):
    made = (*ids(thought), CLOSE, *ids(answer), END)
    return Completion(made, (True,) * len(made), reward)


PROMPT = tuple(tokenizer()("What is 7? ").input_ids)
EXAMPLE = Example("What is 7? ", "seven", id="a", aliases=("7",))
THOUGHT = "the cat\n\ntwo and one\n\nten"
GROUP = CompletionGroup(
    PROMPT, (completion("it is", "seven", 1.0), completion(THOUGHT, "ten"), completion(THOUGHT, "ten"))
)


def setting(sampler, thinking=60, steps="blank_lines"):
    (reward,) = parse_rewards("exact_match")
    return Setting(sampler, FORM, TokenBudget(thinking, 8), [END], reward, {}, steps, seed=3)


def wrong(asked, per_prompt=5, **changes):
    groups, solutions = changes.get("groups", [GROUP]), changes.get("solutions", {"a": "six and one"})
    return find_wrong_rollouts(groups, [EXAMPLE], solutions, asked, per_prompt)


# --- which rollouts


def test_wrong_rollouts_are_found_in_the_order_of_their_steps():
    """Each once, whatever its kept reward; the scorer decides. Steps are cut where their ids are."""
    (one,) = wrong(setting(None))
    assert one.steps == ("the cat", "two and one", "ten")
    assert (one.rationale_ids, one.response, one.prompt_ids) == (ids(THOUGHT), "ten", PROMPT)
    assert [one.before(step) for step in range(3)] == [(), ids("the cat\n\n"), ids("the cat\n\ntwo and one\n\n")]
    _, about = one.ask_where()
    for told in ("What is 7?", "six and one", "Answer: seven", '<step number="2">\ntwo and one', "ten"):
        assert told in about


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"solutions": {"a": ""}}, 0),
        ({"groups": [CompletionGroup((9, 9), GROUP.completions)]}, 0),
        (
            {"groups": [CompletionGroup(PROMPT, (completion("", "ten"), Completion(ids("no"), (True,) * 2, 0.0)))]},
            0,
        ),
        ({"groups": [CompletionGroup(PROMPT, tuple(completion(f"a{n}", "ten") for n in range(9)))]}, 5),
    ],
)
def test_rollouts_that_cannot_be_corrected_are_left_out(changes, count):
    assert len(wrong(setting(None), **changes)) == count


# --- what is kept


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("so it is Seven.", True),
        ("seventy", False),
        ("we need 7", True),
        ("17 and 70", False),
        ("New York, then", True),
        ("new, york", True),
        ("york new", False),
        ("√ is", True),
        ("so 1000 of them", True),
        ("so 1,000 of them", True),
        ("1,0000", False),
    ],
)
def test_a_step_tells_an_answer_as_whole_words(text, tells):
    assert tells_answer(text, ("seven", "7", "New York", "√", "", "1,000")) is tells


def replies(*texts):
    left = list(texts)
    return JudgeProposer(lambda questions: [left.pop(0) for _ in questions])


RIGHT, WRONG = (*ids("seven"), END), (*ids("ten"), END)


def corrected(proposer, *scripts, thinking=60, tries=2, most=20):
    asked = setting(Scripted(*scripts), thinking)
    batches = correct_rollouts(wrong(asked), proposer, asked, most, tries)
    return asked.sampler, [made for batch in batches for made in batch]


def test_the_new_step_takes_the_place_of_the_first_wrong_one():
    """Kept is the beginning as it was sampled and the new step with its blank line; continuations begin behind it."""
    thoughts = [(*ids("so"), CLOSE)] * 2
    sampler, (made,) = corrected(replies("I think [2]", " six and one "), *thoughts, WRONG, RIGHT)
    new = tuple(tokenizer()("six and one").input_ids)
    assert isinstance(made, Correction)
    assert made.completion_ids == (*ids("the cat\n\n"), *new, *BLANK)
    assert (made.step, made.text, made.right, made.tried) == (1, "six and one", 1, 2)
    requests, _ = sampler.calls[0]
    assert [one.prompt_ids for one in requests] == [(*PROMPT, *made.completion_ids)] * 2
    assert [one.max_tokens for one in requests] == [60 - len(made.completion_ids)] * 2
    record = made.as_record()
    assert (record["wrong"], record["instead"], record["step"], record["steps"]) == ("two and one", "six and one", 2, 3)


@pytest.mark.parametrize(
    ("said", "options", "reason"),
    [
        (["step 2"], {}, "unlocated"),
        (["[4]"], {}, "unlocated"),
        (["[0]"], {}, "unlocated"),
        (["[1, 2]"], {}, "unlocated"),
        ([None], {}, "unheard"),
        (["[2]", None], {}, "unheard"),
        (["[2]", " \n"], {}, "unreadable"),
        (["[2]", "a</think>b"], {}, "unreadable"),
        (["[2]", "the cat the cat"], {"most": len(tokenizer()("the cat the cat").input_ids)}, "too_long"),
        (["[2]", "so seven it is"], {}, "leaked"),
        (["[2]", "six and one"], {"thinking": 12}, "no_room"),
    ],
)
def test_why_a_rollout_gives_no_row(said, options, reason):
    assert corrected(replies(*said), **options)[1] == [reason]


def test_a_step_from_which_no_continuation_is_right_is_not_kept():
    thoughts = [(*ids("so"), CLOSE)] * 2
    assert corrected(replies("[3]", "six and one"), *thoughts, WRONG, WRONG)[1] == ["never_right"]


def test_what_the_model_itself_wrote_is_not_encoded_anew():
    """It thinks, then replies; white space around the reply and its end are left out, and its ids stay."""
    written = (*BLANK, *ids("six and one"), *ids(" "), END)
    thought = (*ids("hm"), CLOSE)
    sampler = Scripted(thought, (*ids("[2]"), END), thought, written, thought, thought, RIGHT, RIGHT)
    asked = setting(sampler)
    ((made,),) = correct_rollouts(wrong(asked), OwnProposer(asked, chat=False, most=20), asked, 20, 2)
    assert made.completion_ids == (*ids("the cat\n\n"), *ids("six and one"), *BLANK)
    assert ids("six and one") != tuple(tokenizer()("six and one").input_ids)
    assert len({seed for _, seed in sampler.calls}) == len(sampler.calls)


def test_the_model_is_not_asked_what_it_cannot_read():
    """A question that spells a control token, as a rollout may, and one that its context does not hold."""
    asked = setting(Scripted((*ids("hm"), CLOSE), (*ids("[2]"), END)))
    own = OwnProposer(asked, chat=False, most=20, context=60 + 20 + 40)
    first, *others = own.ask([("Which?", "a b"), ("Which?", "a<end>b"), ("Which?", "two " * 40)], seed=0)
    assert (first.text, others) == ("[2]", [None, None])
    assert own.ask([("Which?", "a</think>b")], seed=0) == [None]


def test_a_reply_that_does_not_end_is_too_long():
    class Cut:
        def __init__(self):
            self.given = [Reply("[2]"), Reply("six", ids("six"), ended=False)]

        def ask(self, questions, seed):
            return [self.given.pop(0)]

    assert corrected(Cut())[1] == ["too_long"]


# --- the commands


@pytest.fixture
def source(tmp_path):
    """Leaves the folder of a run that kept these groups, or none, with a model and questions."""

    def leave(groups, folder, data=None, **config):
        run = RunFolder(tmp_path / "first")
        run.path.mkdir()
        shutil.copytree(folder, run.final)
        own = {"objective": "grpo()", "model": str(folder), "data": data and str(data), **SHORT, **config}
        run.config.write_text(yaml.safe_dump({name: value for name, value in own.items() if value is not None}))
        if groups is not None:
            records = [{"step": 1} | one.as_record() for one in groups]
            run.rollouts.write_text("".join(json.dumps(one) + "\n" for one in records))
        return run

    return leave


def says_new(completions, rationale, **columns):
    """A reward for what a tiny model never learned to say by itself."""
    return [float("six and one" in text) for text in rationale]


def test_rows_of_a_run_are_imitated_and_nothing_behind_them(source, serve, tmp_path, capsys):
    """From kept rollouts by a judge's word to a step of fine-tuning, whose loss counts beginning and new step alone."""
    network = model_folder(tmp_path / "tiny")
    data = data_file(tmp_path / "asked.jsonl", rows(2, solved=lambda n: f"it is {n}" if n else None))
    groups = [
        CompletionGroup(tuple(tokenizer()(f"What is {n}? <think>").input_ids), (completion(THOUGHT, "ten"),))
        for n in range(2)
    ]
    reward = "tests.runs.test_intervene:says_new"
    run = source(groups, network, data, task="jsonl", reward=reward, max_completion_length=70)
    endpoint = serve(lambda n, body: said("[2]" if "JSON" in body["messages"][0]["content"] else "six and one"))
    given = {"run": run.path, "by": f"endpoint('{endpoint.url}', 'judge')", "continuations": 2, "step_tokens": 30}
    rows_file = tmp_path / "corrections.jsonl"
    command = ["intervene", "--json", "--quiet", *flags(output=rows_file, solution_column="solved", **given)]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = lines(rows_file)  # the other question has no solution
    assert (told["kept"], told["wrong_rollouts"], row["right"]) == (1, 1, 2)
    assert row["prompt_ids"] == list(groups[1].prompt_ids)
    assert row["completion_ids"] == [*ids("the cat\n\n"), *tokenizer()("six and one").input_ids, *BLANK]
    tuned = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / "shown", "steps": 1}
    shown = flags(**tuned, prompts_per_step=1, completions=rows_file, lr=1e-3)
    assert main(["sft", "--json", "--quiet", *shown]) == 0
    capsys.readouterr()
    (loss,) = [line["loss"] for line in lines(RunFolder(tmp_path / "shown").metrics) if "loss" in line]
    model = AutoModelForCausalLM.from_pretrained(network, dtype=torch.float32)
    whole = torch.tensor([[*row["prompt_ids"], *row["completion_ids"]]])
    logp = model(whole).logits[0, :-1].log_softmax(-1).gather(1, whole[0, 1:, None])[len(row["prompt_ids"]) - 1 :, 0]
    assert loss == pytest.approx(-logp.mean().item(), abs=1e-5)
    assert main(command) == 2
    assert "exists already" in json.loads(capsys.readouterr().out)["error"]


def test_a_short_part_is_the_last_one(tmp_path):
    """Three rollouts in parts of two, and the run has kept a fourth since: the third would be taken for it."""
    rollouts = [replace(wrong(setting(None))[0], prompt_ids=(n,)) for n in range(4)]
    file = RowFile(tmp_path / "rows.jsonl", {})
    results = [
        {"prompt_ids": [n], "rationale_ids": list(rollouts[n].rationale_ids), "reason": "leaked"} for n in range(4)
    ]
    file.parts = [results[:2], results[2:3]]
    check_done(file, rollouts[:3], 2)
    file.parts = [results[:2]]
    check_done(file, rollouts, 2)
    for parts in ([results[:2], results[2:3]], [results[:2], []], [results[2:]]):
        file.parts = parts
        with pytest.raises(QreditError, match=r"rows.jsonl.partial is of other rollouts"):
            check_done(file, rollouts, 2)


@pytest.mark.parametrize(
    "text", ["[1, 2]\n", "5\n", "null\n", "{}\n{}\n", '{}\n{"rows": 5}\n', '{}\n{"rows": ["a"]}\n', "{}\n[]\n"]
)
def test_parts_that_are_none_are_refused(text, tmp_path):
    file = RowFile(tmp_path / "rows.jsonl", {"seed": 0})
    file.partial.write_text(text)
    for act in (file.check_free, file.open):
        with pytest.raises(QreditError, match="cannot be gone on from"):
            act()


@pytest.mark.e2e
def test_what_was_corrected_is_kept_where_a_run_is_ended(source, serve, tmp_path, capsys, monkeypatch):
    """The second of three rollouts ends it; the same command asks about the others alone, and its rows are the same."""
    monkeypatch.setattr("qredit.runs.interventions.ROWS_PER_BATCH", 1)
    network, asked = model_folder(tmp_path / "tiny"), []
    data = data_file(tmp_path / "asked.jsonl", rows(3, solved=lambda n: f"it is {n}"))
    prompts = [tuple(tokenizer()(f"What is {n}? <think>").input_ids) for n in range(3)]
    groups = [CompletionGroup(prompt, (completion(THOUGHT, "ten"),)) for prompt in prompts]
    reward = "tests.runs.test_intervene:says_new"
    run = source(groups, network, data, task="jsonl", reward=reward, max_completion_length=70)
    broken = False

    def reply(number, body):
        asked.append(body)
        if broken and len(asked) == 4:
            return 400, "no"
        return said("[2]" if "JSON" in body["messages"][0]["content"] else "six and one")

    endpoint = serve(reply)
    given = {"run": run.path, "by": f"endpoint('{endpoint.url}', 'judge')", "continuations": 1, "step_tokens": 40}

    def correct(output, **changes):
        named = flags(output=tmp_path / output, solution_column="solved", **given | changes)
        return main(["intervene", "--json", "--quiet", *named])

    assert correct("whole.jsonl") == 0
    assert len(asked) == 6
    broken, asked[:] = True, []
    assert correct("cut.jsonl") == 2
    assert not (tmp_path / "cut.jsonl").exists()
    capsys.readouterr()
    assert correct("cut.jsonl", step_tokens=50) == 2
    assert "was begun with step_tokens=40, not 50" in json.loads(capsys.readouterr().out)["error"]
    broken, kept = False, run.rollouts.read_text()
    run.rollouts.write_text("".join(reversed(kept.splitlines(True))))
    assert correct("cut.jsonl") == 2
    assert "cut.jsonl.partial is of other rollouts" in json.loads(capsys.readouterr().out)["error"]
    run.rollouts.write_text(kept)
    asked[:] = []
    assert correct("cut.jsonl") == 0
    assert len(asked) == 4
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "cut.jsonl.partial").exists()


@pytest.mark.e2e
def test_a_pocket_model_that_corrects_nothing_says_so(source, tmp_path, capsys, monkeypatch):
    """Fresh rollouts of a pocket task, and the pocket model itself, which knows no instruction."""
    folder = get_model_path(get_model_name("pocket-dial"))
    run = source(None, folder, task="pocket-dial", style="cold", subset="2", max_completion_length=30)
    output, read = tmp_path / "corrections.jsonl", []
    monkeypatch.setattr("qredit.runs.load.load_data", lambda *args: read.append(load_data(*args)) or read[-1])
    given = flags(run=run.path, output=output, rollouts=2, continuations=2, step_tokens=4, steps="sentences", cpu=True)
    assert main(["intervene", *given]) == 0
    shown = capsys.readouterr().out
    assert "0 of 2 wrong rollouts give a row" in shown
    assert "2: no reply came: the question does not fit the model" in shown
    assert "no row was kept, so no file was written" in shown
    assert len(read) == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "endpiont('u', 'm')"}, "did you mean 'endpoint'"),
        ({"by": "local('smollm2')"}, "cut at max_tokens=64, and a step that was cut would be kept; give max_tokens"),
        ({"continuations": 0}, "continuations must be at least 1, got 0"),
        ({"steps": "lines"}, "steps must be blank_lines or sentences, got 'lines'"),
        ({"run": "nowhere"}, "no run in nowhere"),
        ({"solution_column": "sloved"}, "did you mean 'solved'"),
        ({}, "task jsonl has no solutions to be shown; name a column: solution_column"),
        ({"output": "nowhere/at/all.jsonl"}, "for the rows"),
        ({"solution_column": "solved"}, "kept no rollouts"),
    ],
)
def test_what_cannot_be_used_is_said_before_a_model_is_loaded(options, words, source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("qredit.runs.intervening.load_model", None)
    data = data_file(tmp_path / "asked.jsonl", rows(2, solved=lambda n: f"it is {n}"))
    run = source(None, model_folder(tmp_path / "tiny"), data, task="jsonl")
    given = {"run": run.path, "output": tmp_path / "out.jsonl"} | options
    assert main(["intervene", "--json", *flags(**given)]) == 2
    assert words in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([], "a row has prompt_ids, completion_ids and vocabulary"),
        ({"prompt_ids": [1], "completion_ids": []}, "a row has prompt_ids"),
        ({"prompt_ids": [], "completion_ids": [2], "vocabulary": "own"}, "a row has prompt_ids"),
        ({"prompt_ids": [1], "completion_ids": [9], "vocabulary": "own"}, "token id 9 is none of the vocabulary's"),
        ({"prompt_ids": [1], "completion_ids": [2], "vocabulary": "other"}, "of another vocabulary"),
        ({"prompt_ids": [1], "completion_ids": [-2], "vocabulary": "own"}, "whole numbers, none below 0"),
    ],
)
def test_rows_that_are_none_are_refused(record, words):
    with pytest.raises(ValueError, match=words):
        Demonstration.from_record(record, "own", 9)


def test_a_finished_file_may_end_without_a_line_break(tmp_path):
    file = tmp_path / "rows.jsonl"
    for text, finished, count in (("1\n2", True, 2), ("1\n2", False, 1), ("1\n2\n", True, 2), ("1\n \t", True, 1)):
        file.write_text(text)
        assert len(read_records(file, int, finished)) == count
    file.write_text("1\n{")
    with pytest.raises(QreditError, match="line 2"):
        read_records(file, int, finished=True)


def test_a_run_that_kept_an_empty_file_has_no_wrong_rollout(source, tmp_path, capsys):
    data = data_file(tmp_path / "asked.jsonl", rows(2, solved=lambda n: f"it is {n}"))
    run = source([], model_folder(tmp_path / "tiny"), data, task="jsonl")
    given = {"run": run.path, "output": tmp_path / "out.jsonl", "solution_column": "solved"}
    assert main(["intervene", "--json", "--quiet", *flags(**given)]) == 2
    assert "no rollout of a question with a solution is wrong" in json.loads(capsys.readouterr().out)["error"]


def test_a_digest_tells_vocabularies_apart():
    assert digest_vocabulary(tokenizer()) == digest_vocabulary(tokenizer())
    assert digest_vocabulary(tokenizer()) != digest_vocabulary(tokenizer(False))


def test_completions_leave_no_room_for_rationales(tmp_path, capsys):
    for name, value in (("rationale_column", "thought"), ("subset", 2)):
        given = flags(task="jsonl", data="x", completions="y", **{name: value})
        assert main(["sft", *given]) == 2
        assert f"completions says all that is shown; leave {name.split('_')[0]}" in capsys.readouterr().err
