"""qredit dpo: which tokens the loss counts, that ids stay as they were sampled, that runs resume, what is refused."""

import json
import math
import re
import shutil
from dataclasses import fields

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM
from trl import DPOConfig

from qredit.callbacks.metrics_file import MetricsWriter
from qredit.cli.main import main
from qredit.data.completions import Completion, CompletionGroup
from qredit.data.preferences import PreferencePair
from qredit.engine.making import GenerationMaker
from qredit.report.collect import collect_runs
from qredit.report.curves import make_panels
from qredit.report.sentences import describe_run
from qredit.runs.dpo_options import LOSS_TYPES, SHARED_WITH_TRAIN, PairOptions
from qredit.runs.folder import RunFolder
from qredit.runs.options import TrainOptions
from qredit.trl.dpo_config import F_DIVERGENCES
from qredit.trl.dpo_trainer import PairCollator, make_dpo_dataset
from tests.support.endpoint import said
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.tiny import tokenizer

CLOSE = 3  # the id of </think>, here forced


def completion(text, reward, forced=False):
    """Rationale, closing and answer, the same text twice, in ids of its letters, which no text encodes to."""
    ids = [id for letter in text for id in tokenizer()(letter).input_ids]
    return Completion((*ids, CLOSE, *ids, 1), (*[True] * len(ids), not forced, *[True] * len(ids), True), reward)


def group(number, *completions):
    return CompletionGroup(tuple(tokenizer()(f"What is {number}? ").input_ids), completions)


GROUPS = [group(n, completion(f"cat{n}", 1.0, forced=n % 2 == 0), completion("two", 0.0)) for n in range(4)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def data(tmp_path):
    return data_file(tmp_path / "asked.jsonl")


@pytest.fixture
def source(network, data, tmp_path):
    """Leaves the folder of a run that kept these groups, or none, and perhaps a model."""

    def leave(name="first", groups=GROUPS, model=network, **config):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        if model is not None:
            shutil.copytree(model, folder.final)
        own = {"objective": "grpo()", "task": "jsonl", "data": str(data), "model": str(network), **SHORT, **config}
        folder.config.write_text(yaml.safe_dump(own))
        if groups is not None:
            records = [{"step": 1} | one.as_record() for one in groups]
            folder.rollouts.write_text("".join(json.dumps(one) + "\n" for one in records))
        return folder

    return leave


@pytest.fixture
def dpo(tmp_path, capsys):
    """Trains on the pairs of a run into a folder of that name; returns the run folder and its JSON."""

    def run(source, name="run", status=0, **options):
        chosen = {"run": source.path, "output": tmp_path / name, "prompts_per_step": 4, "steps": 2, "lr": 1e-2}
        capsys.readouterr()
        assert main(["dpo", "--json", "--quiet", *flags(**chosen | options)]) == status
        return RunFolder(tmp_path / name), json.loads(capsys.readouterr().out)

    return run


def steps_of(run):
    return [line for line in lines(run.metrics) if "loss" in line]


def weights(run):
    return load_file(run.final / "model.safetensors")


def same(left, right):
    left, right = weights(left), weights(right)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# --- what is learned


def log_ratio(policy, reference, prompt, one):
    """Sum over the tokens that were drawn of log p - log p_ref, of one completion by itself."""
    ids = torch.tensor([[*prompt, *one.ids]])

    def drawn(model):
        logp = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
        return logp[torch.tensor(one.sampled)].sum()

    with torch.no_grad():
        before = drawn(reference)
    return drawn(policy) - before


def dpo_loss(policy, reference, groups, beta):
    """-mean log sigmoid(beta (h(chosen) - h(rejected))), arXiv 2305.18290, eq. 7, one completion at a time."""
    apart = [
        log_ratio(policy, reference, one.prompt_ids, one.completions[0])
        - log_ratio(policy, reference, one.prompt_ids, one.completions[1])
        for one in groups
    ]
    return -logsigmoid(beta * torch.stack(apart)).mean()


@pytest.mark.parametrize("at_once", [4, 2])
def test_two_steps_are_those_of_the_formula(source, dpo, network, at_once):
    """Two SGD steps on all pairs: the first loss is log 2, and forced closings are read and not counted."""
    more = {"optim": "sgd", "max_grad_norm": 0, "lr": 0.5, "warmup": 0, "beta": 0.3, "prompts_per_forward": at_once}
    run, _ = dpo(source(), **more)
    policy, reference = (AutoModelForCausalLM.from_pretrained(network, dtype=torch.float32) for _ in range(2))
    told = []
    for _ in range(2):
        loss = dpo_loss(policy, reference, GROUPS, 0.3)
        told.append(loss.item())
        policy.zero_grad()
        loss.backward()
        with torch.no_grad():
            for value in policy.parameters():
                value -= 0.5 * value.grad
    found = weights(run)
    assert all(torch.allclose(found[name], value, atol=2e-6) for name, value in policy.named_parameters())
    assert told[0] == pytest.approx(math.log(2), abs=1e-6)
    assert told[1] < math.log(2) - 0.05
    assert [line["loss"] for line in steps_of(run)] == pytest.approx(told, abs=1e-5)
    assert steps_of(run)[0]["rewards/accuracies"] == 0.0


def test_ids_reach_the_model_as_they_were_sampled(source, dpo, monkeypatch):
    """What the run kept, though a tokenizer makes other ids of its text; what is drawn counts, nothing is appended."""
    seen = []
    whole = PairCollator.torch_call
    monkeypatch.setattr(PairCollator, "torch_call", lambda self, rows: seen.append(rows) or whole(self, rows))
    run, _ = dpo(source(), steps=1)
    words = tokenizer()
    assert any(words(words.decode(one.ids)).input_ids != list(one.ids) for of in GROUPS for one in of.completions)
    (fed,) = seen
    chosen, rejected = ([of.completions[place] for of in GROUPS] for place in (0, 1))
    expected = [
        (list(of.prompt_ids), list(a.ids), list(b.ids)) for of, a, b in zip(GROUPS, chosen, rejected, strict=True)
    ]
    assert sorted((one["prompt_ids"], one["chosen_ids"], one["rejected_ids"]) for one in fed) == sorted(expected)
    assert [PreferencePair.from_record(line) for line in lines(run.pairs)] == [
        PreferencePair(of.prompt_ids, a, b) for of, a, b in zip(GROUPS, chosen, rejected, strict=True)
    ]


def test_a_batch_holds_the_chosen_above_the_rejected():
    """By hand: padding to the right; of the completions only what was drawn counts, of the prompts nothing."""
    pairs = [
        PreferencePair((7, 8), Completion((1, 3, 2), (True, False, True), 1.0), Completion((4,), (True,), 0.0)),
        PreferencePair((9,), Completion((5,), (True,), 1.0), Completion((6, 3), (True, False), 0.0)),
    ]
    batch = PairCollator(pad_token_id=0)(list(make_dpo_dataset(pairs)))
    assert batch["input_ids"].tolist() == [[7, 8, 1, 3, 2], [9, 5, 0, 0, 0], [7, 8, 4, 0, 0], [9, 6, 3, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]


def test_losses_are_named_as_trl_names_them():
    """Those of its field's help, and the divergences of its docstring: a new one, or one that goes, is seen here."""
    told = {field.name: field.metadata.get("help", "") for field in fields(DPOConfig)}
    assert tuple(re.findall(r"`'(\w+)'`", told["loss_type"].split("If multiple")[0])) == LOSS_TYPES
    listed = re.search(r"f_divergence_type \(.*?Possible values are: (.*?)Only", DPOConfig.__doc__, re.S)
    assert tuple(re.findall(r"`(\w+)`", listed[1])) == F_DIVERGENCES


@pytest.mark.e2e
@pytest.mark.parametrize("loss_type", [*LOSS_TYPES, "sigmoid, sft"])
def test_every_loss_of_trl_is_trained(source, dpo, loss_type):
    more = {"label_smoothing": 0.1} if loss_type in ("exo_pair", "robust") else {}
    run, told = dpo(source(), loss_type=loss_type, steps=1, **more)
    assert steps_of(run)[0]["grad_norm"] > 0
    assert told["objective"] == f"dpo(beta=0.1{'' if loss_type == 'sigmoid' else f', loss_type={loss_type!r}'})"


def test_weighted_losses_add_up(source, dpo):
    """SPECS (arXiv 2510.25801): L_DPO + λ NLL(chosen); the first step's is log 2 + λ NLL, by TRL's own weights."""
    first = source()
    losses = []
    for name, loss_type, more in (
        ("nll", "sft", {}),
        ("both", "sigmoid, sft", {"loss_weights": "[1.0, 2.0]"}),
    ):
        run, _ = dpo(first, name, loss_type=loss_type, steps=1, **more)
        losses.append(steps_of(run)[0]["loss"])
    assert losses[1] == pytest.approx(math.log(2) + 2 * losses[0], abs=1e-5)


def test_adapters_have_the_bare_model_for_reference(source, dpo, network):
    run, _ = dpo(source(), lora=True, merge_lora=True, lr=0.1, warmup=0, steps=3)
    told = [line["loss"] for line in steps_of(run)]
    assert told[0] == pytest.approx(math.log(2), abs=1e-6)
    assert told[2] < told[0] - 0.01
    before, after = load_file(network / "model.safetensors"), weights(run)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.e2e
def test_reference_may_be_computed_before(source, dpo):
    first = source()
    run, _ = dpo(first)
    other, _ = dpo(first, "before", precompute_ref_log_probs=True)
    assert all(torch.allclose(value, weights(other)[name], atol=1e-6) for name, value in weights(run).items())


# --- where pairs come from


@pytest.fixture
def train(data, network, tmp_path, capsys):
    def run(name, status=0, **options):
        chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / name, **SHORT}
        capsys.readouterr()
        given = chosen | {"objective": "grpo()", "keep_rollouts": True} | options
        assert main(["train", "--json", "--quiet", *flags(**given)]) == status
        return RunFolder(tmp_path / name)

    return run


def test_a_run_keeps_every_rollout_as_it_was_drawn(train, monkeypatch):
    """Ids, what was drawn, and rewards are those that the run learned from; a group is a line, all of a step's."""
    made = []
    whole = GenerationMaker.make

    def spy(self, model, drawn, *more):
        made.append(drawn)
        return whole(self, model, drawn, *more)

    monkeypatch.setattr(GenerationMaker, "make", spy)
    run = train("kept", m=4)
    kept = [(line["step"], CompletionGroup.from_record(line)) for line in lines(run.rollouts)]
    assert [step for step, _ in kept] == [1, 1, 2, 2]
    for drawn, groups in zip(made, (kept[:2], kept[2:]), strict=True):
        flat = [(of.prompt_ids, one) for _, of in groups for one in of.completions]
        assert [(tuple(one.prompt), one.ids, one.reward) for one in drawn] == [
            (prompt, one.ids, one.reward) for prompt, one in flat
        ]
        assert any(not all(one.sampled) for _, one in flat)  # closings are forced here
        for one, (_, twin) in zip(drawn, flat, strict=True):
            marks = [segment.sampled for segment in one.segments for _ in segment.ids]
            assert list(twin.sampled) == marks
    assert yaml.safe_load(run.config.read_text())["keep_rollouts"] is True


def interrupt(monkeypatch, step):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsWriter, "on_step_begin", on_step_begin)


@pytest.mark.e2e
def test_a_resumed_run_keeps_each_rollout_once(train, tmp_path, monkeypatch):
    whole = train("whole", steps=4)
    with monkeypatch.context() as patched:
        interrupt(patched, 3)
        cut = train("cut", status=130, steps=4, save_every=2)
    assert [line["step"] for line in lines(cut.rollouts)] == [1, 1, 2, 2, 3, 3]
    assert main(["train", "--quiet", "--resume", "--output", str(cut.path)]) == 0
    assert lines(cut.rollouts) == lines(whole.rollouts)


@pytest.mark.e2e
def test_branches_are_paired_by_their_own_tokens(train, dpo):
    """What candidates begin with was another's draw, is read and does not count. Who was pruned is not kept."""
    played = {"env": "tests.support.episodes:Counting", "max_turns": 2, "observation_budget": 40, "steps": 2, "m": 4}
    played |= {"objective": "slate()", "reward": f"{__name__}:is_even", "branching": "candidates(k=2)"}
    run = train("branched", **played)
    kept = [CompletionGroup.from_record(line) for line in lines(run.rollouts)]
    assert {len(one.completions) for one in kept} == {3}, "of four, one was not gone on from"
    shared = [one for group in kept for one in group.completions if not any(one.sampled[:4])]
    assert shared, "the beginning of a branch was drawn in another episode"
    assert all(any(one.sampled) for one in shared)
    made, told = dpo(run, steps=1, prompts_per_step=1)
    assert steps_of(made)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert told["pairs"]["completions"] <= 3 * told["pairs"]["prompts"] * 2
    assert main(["dpo", "--run", str(run.path), "--rollouts", "4", "--branching", "candidates(k=2)"]) == 2


def test_a_run_that_was_not_asked_keeps_none(train):
    assert not train("plain", keep_rollouts=False, steps=1).rollouts.exists()


@pytest.mark.e2e
def test_fresh_rollouts_are_drawn_for_the_questions(source, dpo):
    """A reward of ours is 1 half of the time; the same seed draws the same rollouts and pairs, another seed others."""
    first = source(groups=None, reward="tests.runs.test_dpo:is_even")
    runs = [
        dpo(first, name, rollouts=6, steps=1, seed=seed, prompts_per_step=2, pairs_per_prompt=99)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    told = [lines(run.pairs) for run, _ in runs]
    assert told[0] == told[1]
    assert same(runs[0][0], runs[1][0])
    drawn = [{tuple(line[side]["ids"]) for line in pairs for side in ("chosen", "rejected")} for pairs in told]
    assert len(drawn[0] & drawn[2]) < len(drawn[0]) / 2
    assert runs[0][1]["pairs"]["prompts"] == 6
    words = tokenizer()
    asked = {f"What is {n}? <think>": n for n in range(6)}
    for line in told[0]:
        number = asked[words.decode(line["prompt_ids"])]
        for side, reward in (("chosen", 1.0), ("rejected", 0.0)):
            assert line[side]["reward"] == reward == float((sum(line[side]["ids"]) + number) % 2 == 0)


def test_a_judge_may_say_which_is_better(source, dpo, serve):
    """Against the reward: it likes what is wrong. A resumed run would read the pairs and ask nobody."""
    endpoint = serve(lambda number, body: said("[9]" if "two" in body["messages"][-1]["content"] else "[1]"))
    run, told = dpo(source(), steps=1, by=f"judge('{endpoint.url}', 'judge')")
    pairs, wrong = lines(run.pairs), tuple(completion("two", 0.0).ids)
    assert [tuple(pair["chosen"]["ids"]) for pair in pairs] == [wrong] * 4
    assert {(pair["chosen"]["reward"], pair["rejected"]["reward"]) for pair in pairs} == {(0.9, 0.1)}
    assert told["judge"] == {"asked": 8, "unanswered": 0, "unreadable": 0}
    assert len(endpoint.seen) == 8


def is_even(completion_ids, answer, **columns):
    """A reward that a model without skill gets half of the time: ids and answer add up to an even number."""
    return [float((sum(ids) + int(gold)) % 2 == 0) for ids, gold in zip(completion_ids, answer, strict=True)]


def test_subset_says_which_questions_are_asked(source, dpo):
    first = source(groups=None, reward="tests.runs.test_dpo:is_even")
    _, facts = dpo(first, rollouts=6, steps=1, subset=3, prompts_per_step=1)
    assert facts["pairs"]["prompts"] == 3


# --- runs go on


def test_a_resumed_run_ends_as_an_unbroken_one(source, dpo, monkeypatch, capsys):
    """Five steps of three of four pairs. The pairs are the folder's own: the run that they came from is gone."""
    first = source()
    options = {"steps": 5, "save_every": 2, "prompts_per_step": 3, "seed": 3}
    whole, _ = dpo(first, "whole", **options)
    with monkeypatch.context() as patched:
        interrupt(patched, 3)
        cut, _ = dpo(first, "cut", status=130, **options)
    first.rollouts.unlink()
    first.config.unlink()
    assert main(["dpo", "--quiet", "--resume", "--output", str(cut.path)]) == 0
    assert same(cut, whole)
    told = [
        [{name: value for name, value in line.items() if name != "time/update"} for line in steps_of(run)]
        for run in (cut, whole)
    ]
    assert told[0] == told[1]
    assert [line["step"] for line in told[0]] == [1, 2, 3, 4, 5]


def test_a_run_is_recorded_repeated_and_told(source, dpo, tmp_path):
    first = source(chat=False, eval_every=1, eval_questions=2)
    run, told = dpo(first, steps=12, save_every=0, beta=0.2)
    kept = yaml.safe_load(run.config.read_text())
    assert (kept["run"], kept["beta"], kept["margin"]) == (str(first.path), 0.2, 0.5)
    assert kept["model"] == str(first.final)
    assert {name: kept[name] for name in ("hold_out", "chat", "max_completion_length", "answer_budget")} == {
        "hold_out": 2, "chat": False, "max_completion_length": 8, "answer_budget": 3,
    }  # fmt: skip
    assert not {"objective", "m", "q"} & kept.keys()
    record = json.loads(run.record.read_text())
    assert record["objective"] == told["objective"] == "dpo(beta=0.2)"
    assert record["pairs"]["pairs"] == record["train_prompts"] == 4
    assert main(["dpo", "--quiet", "--config", str(run.config), "--output", str(tmp_path / "again")]) == 0
    assert same(run, RunFolder(tmp_path / "again"))
    data = collect_runs([run.path])[0]
    said = describe_run(data)
    assert said[0] == "dpo(beta=0.2) on jsonl (cold prompts): 12 steps of 4 pairs."
    assert said[1].startswith("Pairs whose chosen rollout gained more likelihood than the rejected one: ")
    assert said[1].endswith("(last 5).")
    assert not any("demonstrations" in sentence for sentence in said)
    titles = [panel.title for panel in make_panels([data])]
    assert "Chosen over rejected" in titles
    assert "Loss of the demonstrations" not in titles
    assert "preference pairs" in (run.final / "README.md").read_text()


@pytest.mark.e2e
def test_training_and_evaluation_go_on_from_it(source, dpo, data, tmp_path):
    run, _ = dpo(source(), eval_every=1, eval_questions=2, eval_k=2, hold_out=2)
    assert [line["step"] for line in lines(run.validation)] == [1, 2]
    chosen = {"task": "jsonl", "data": data, "model": run.final, "output": tmp_path / "next", **SHORT, "steps": 1}
    assert main(["train", "--quiet", *flags(**chosen)]) == 0
    assert main(["eval", "--quiet", "--model", str(run.path), "--data", str(data), "--k", "2", "--limit", "2"]) == 0
    assert main(["report", "--quiet", str(run.path), "--output", str(tmp_path / "page.html")]) == 0


@pytest.mark.e2e
def test_a_stopped_run_gives_its_newest_checkpoint(source, dpo, train):
    stopped = train("stopped", steps=2, save_every=1)
    shutil.rmtree(stopped.final)
    stopped.rollouts.write_text("".join(json.dumps({"step": 1} | one.as_record()) + "\n" for one in GROUPS))
    run, _ = dpo(stopped, steps=1)
    assert yaml.safe_load(run.config.read_text())["model"] == str(stopped.path / "checkpoint-2")


@pytest.mark.e2e
@pytest.mark.whole_tasks
def test_preferring_right_rollouts_raises_success(tmp_path, capsys):
    """A warm pocket model, 64 questions with 8 rollouts each: of held-out ones it answers more."""

    def call(*words):
        capsys.readouterr()
        assert main([words[0], "--json", "--quiet", *map(str, words[1:])]) == 0
        return json.loads(capsys.readouterr().out)

    first, run = tmp_path / "first", tmp_path / "run"
    sizes = flags(style="warm", objective="grpo()", steps=4, lr=1e-9, prompts_per_step=16, m=8, save_every=0)
    call("train", "--cpu", "--keep-rollouts", *sizes, "--output", first)
    told = call("dpo", "--run", first, "--steps", 12, "--save-every", 0, "--output", run)
    assert told["pairs"]["pairs"] > 40
    steps = steps_of(RunFolder(run))
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    preferred = [line["rewards/accuracies"] for line in steps]
    assert preferred[0] == 0.0
    assert sum(preferred[-4:]) / 4 > 0.7
    result = call("eval", "--model", run, "--against", first, "--k", 8, "--limit", 32)
    assert result["against"]["difference"]["p@1"]["value"] > 0.05


# --- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 1.5}, "no pair can be made of the rollouts that the run in "),
        ({"margin": 0}, "margin must be more than 0, got 0"),
        ({"beta": 0}, "beta must be more than 0, got 0"),
        ({"loss_type": "sigmoit"}, "unknown loss_type 'sigmoit'; did you mean 'sigmoid'?"),
        ({"loss_type": "exo_pair"}, "Label smoothing must be greater than 0.0"),
        ({"loss_weights": "[1.0, 2.0]"}, "`loss_weights` must have the same length as `loss_type`"),
        ({"f_divergence_type": "kl"}, "unknown f_divergence_type 'kl'"),
        ({"ld_alpha": 2}, "ld_alpha must lie between 0 and 1, got 2"),
        ({"rollouts": 1}, "rollouts must be at least 2, got 1"),
        ({"by": "judg('http://x', 'm')"}, "unknown judge of pairs 'judg'; did you mean 'judge'"),
        ({"pairs_per_prompt": 0}, "pairs_per_prompt must be at least 1, got 0"),
        ({"prompts_per_step": 9}, "there are 4 pairs, but one step needs 9; lower prompts_per_step"),
        ({"subset": 3}, "subset needs rollouts: those that the run in "),
        ({"reward": "format"}, "reward needs rollouts: those that the run in "),
        ({"m": 4}, "unknown flag '--m'"),
        ({"max_length": 4}, "unknown flag '--max-length'"),
        ({"sync_ref_model": True, "lora": True}, "You passed `sync_ref_model=True` while using a PEFT model"),
        ({"num_train_epochs": 2}, "num_train_epochs is called steps here"),
    ],
)
def test_what_cannot_be_used_is_said_before_any_step(options, words, source, dpo):
    run, told = dpo(source(), status=2, **options)
    assert words in told["error"]
    assert not run.path.exists()


def test_without_pairs_no_model_is_loaded(source, dpo, monkeypatch):
    """What became of the prompts is said in one line."""
    monkeypatch.setattr("qredit.runs.dpo.load_trainable_model", None)
    equal = [group(1, completion("two", 1.0), completion("cat", 1.0)), group(2, completion("two", 0.0))]
    _, told = dpo(source(groups=equal), status=2)
    assert told["error"].endswith(" kept: 2 of 2 prompts have one reward for all their rollouts and give no pair")


def test_a_judge_that_finds_all_alike_leaves_no_pair(source, dpo, serve, monkeypatch):
    monkeypatch.setattr("qredit.runs.dpo.load_trainable_model", None)
    endpoint = serve(lambda number, body: said("[5]"))
    _, told = dpo(source(), status=2, by=f"judge('{endpoint.url}', 'judge')")
    assert told["error"].endswith(" kept: 4 of 4 prompts have one score for all their rollouts and give no pair")


def test_runs_without_rollouts_or_model_are_refused(source, dpo, tmp_path, network, capsys):
    assert main(["dpo", "--steps", "2"]) == 2
    assert "run is needed: the folder of the run" in capsys.readouterr().err
    assert "no run in " in dpo(RunFolder(tmp_path / "nowhere"), status=2)[1]["error"]
    bare = source("bare", groups=None)
    assert "kept no rollouts: give rollouts, how many" in dpo(bare, status=2)[1]["error"]
    no_model = source("no-model", model=None)
    assert "has neither a final model nor a whole checkpoint; give model" in dpo(no_model, status=2)[1]["error"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1]", "line 1: a group has prompt_ids and completions"),
        ("{", "line 1: Expecting property name"),
        (json.dumps(group(1, completion("two", 1.0)).as_record()).replace("[[0", "[[-1"), "names tokens that are none"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(source, dpo, line, words):
    first = source()
    first.rollouts.write_text(line + "\n")
    assert words in dpo(first, status=2)[1]["error"]


def test_half_a_last_line_of_a_killed_run_is_left_out(source, dpo):
    first = source()
    first.rollouts.write_text(first.rollouts.read_text() + '{"step": 2, "prompt_i')
    assert dpo(first, steps=1)[1]["pairs"]["prompts"] == 4


def test_ids_of_another_vocabulary_are_refused(source, dpo, tmp_path):
    other = model_folder(tmp_path / "other")
    tokenizer(False).save_pretrained(other)
    _, told = dpo(source(), status=2, model=other)
    assert "whose vocabulary differs; give rollouts to sample with it" in told["error"]
    foreign = [CompletionGroup((9999,), GROUPS[0].completions)]
    _, told = dpo(source("foreign", groups=foreign), status=2, prompts_per_step=1)
    assert "the pairs hold the token id 9999, and the model has " in told["error"]


def test_what_does_not_fit_the_context_is_counted_or_left_out(source, dpo, tmp_path):
    short = model_folder(tmp_path / "short", max_position_embeddings=24)
    long = group(9, completion("the cat lives in the house", 1.0), completion("two", 0.0))
    first = source(groups=[*GROUPS, long], model=short)
    _, told = dpo(first, status=2)
    assert "1 of 5 pairs do not fit the context of 24 tokens (longest " in told["error"]
    run, told = dpo(first, skip_long=True)
    assert "1 pairs do not fit the context and are left out" in json.loads(run.record.read_text())["data_notes"]
    assert told["train_prompts"] == 4


def test_each_command_resumes_its_own_runs(source, dpo, capsys):
    run, _ = dpo(source(), steps=1)
    for other in ("train", "sft"):
        assert main([other, "--resume", "--output", str(run.path)]) == 2
        told = capsys.readouterr().err
        assert f"is one of `qredit dpo`; go on with it: qredit dpo --resume --output {run.path}" in told


def test_every_option_of_training_is_shared_or_of_rollouts():
    rollouts = {"objective", "q", "m", "rows_per_forward", "keep", "probe", "guard", "field", "coldness"}
    rollouts |= {"keep_rollouts", "training", "replay", "curriculum", "drawing", "shrink", "perturb"}
    rollouts |= {"branching"}
    assert {*SHARED_WITH_TRAIN} | rollouts == {field.name for field in fields(TrainOptions)}
    assert not {*SHARED_WITH_TRAIN} & (rollouts | {field.name for field in fields(PairOptions)})
