"""TRL's environment_factory: the same prompts, results and rewards as TRL's own rollout, and refusals."""

import copy
from itertools import chain

import pytest
import trl
from datasets import Dataset
from trl import GRPOConfig

from qredit.environments.calls import HERMES
from qredit.rollouts.trajectory import Role
from qredit.trl import QreditTrainer
from qredit.trl.environment_factory import FactorySource, list_methods
from qredit.utils.errors import QreditError
from tests.support.episodes import Counting, ScriptedSampler, add, templated
from tests.support.runs import questions, settings, trainer
from tests.support.tiny import model

CALL = '<tool_call>{{"name": "{}", "arguments": {}}}</tool_call>'


class Counter:
    """Counts."""

    made = 0

    def __init__(self):
        Counter.made += 1

    def reset(self, begin=0, **row):
        self.total, self.row = begin, row
        return f"It stands at {begin}."

    def count(self, by: int) -> dict:
        """Count on.

        Args:
            by: how far.
        """
        if by < 0:
            raise ValueError("not backwards")
        self.total += by
        return {"total": self.total, "text": None}

    async def look(self) -> int:
        """Look at the counter."""
        return self.total

    def _hidden(self):
        pass

    @property
    def broken(self):
        raise RuntimeError("read")

    def get_reward(self) -> float:
        return self.total / 10


class Bell:
    """Rings."""

    def reset(self, **row):
        assert "environment" not in row

    def ring(self) -> str:
        """Ring it."""
        return "ding"

    async def get_reward(self) -> float:
        return 0.5


def qwen():
    """As Qwen 2.5 has it: turns end with the end of text, which TRL cuts its results at."""
    made = copy.deepcopy(templated("qwen2_5", thinking=False))
    made.eos_token = "<|im_end|>"
    return made


def rows(count=4, **columns):
    prompt = [
        [{"role": "system", "content": "Play."}, {"role": "user", "content": f"Game {n}. "}] for n in range(count)
    ]
    return Dataset.from_dict({"prompt": prompt, "answer": ["3"] * count, **columns})


def ours(folder, factory, data, reply, **changes):
    tokenizer = qwen()
    made = QreditTrainer(
        model(max_position_embeddings=2048, vocab_size=len(tokenizer)),
        changes.pop("objective", "grpo()"),
        settings(folder, max_completion_length=100, answer_budget=20, observation_budget=200, max_turns=2, **changes),
        data,
        processing_class=tokenizer,
        environment_factory=factory,
    )
    made.sampler = made.rollout_sampler.sampler = ScriptedSampler(tokenizer, reply)
    return made


def theirs(folder, factory, data, turns, monkeypatch):
    """TRL's own rollout of every row, twice each, with what the model says given."""
    tokenizer = qwen()
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    made = trl.GRPOTrainer(
        model(max_position_embeddings=2048, vocab_size=len(tokenizer)),
        args=GRPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=2 * len(data),
            num_generations=2,
            max_completion_length=1000,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=data,
        processing_class=tokenizer,
        environment_factory=factory,
    )
    said = iter(turns)

    def speak(prompt_ids, *rest, **more):
        text = next(said)
        return [tokenizer(text(ids), add_special_tokens=False)["input_ids"] for ids in prompt_ids], None

    made._generate_single_turn = speak
    found = made._generate_and_score_completions([row for row in data for _ in range(2)])
    return made, found


def played(made, data):
    prompts = made.train_dataset["prompt_ids"]
    examples = [{k: v for k, v in row.items() if not k.endswith("_ids")} for row in made.train_dataset]
    return made._play([one for one in examples for _ in range(2)], [ids for ids in prompts for _ in range(2)], 0)


def unpadded(ids, mask):
    return [[int(i) for i, m in zip(row, keep, strict=True) if m] for row, keep in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("several", [False, True], ids=["one", "by name"])
def test_rollouts_are_those_of_trl(tmp_path, monkeypatch, several):
    factory = {"count": Counter, "bell": Bell} if several else Counter
    data = rows(begin=[0, 1, 2, 3])
    if several:
        data = data.add_column("environment", ["count", "bell"] * 2)
    tokenizer = qwen()

    def call(text):
        asked = CALL.format("ring", "{}") if "Ring it." in text else CALL.format("count", '{"by": 3}')
        return f"so {asked}<|im_end|>"

    def reply(text, number):
        if "<tool_response>" not in text.rsplit("<|im_start|>user", 1)[-1]:
            return call(text)
        return "3<|im_end|>" if not text.endswith("assistant\n") else "then<|im_end|>"

    made = ours(tmp_path / "ours", factory, data, reply)
    found = played(made, data)
    trls, wanted = theirs(
        tmp_path / "trl",
        factory,
        data,
        [lambda ids: call(tokenizer.decode(ids)), lambda ids: "3<|im_end|>"],
        monkeypatch,
    )
    assert [list(one.prompt) for one in found] == unpadded(wanted["prompt_ids"], wanted["prompt_mask"])
    completions = unpadded(wanted["completion_ids"], wanted["completion_mask"])
    masks = unpadded(wanted["tool_mask"], wanted["completion_mask"])
    for one, ids, mask in zip(found, completions, masks, strict=True):
        (seen,) = [part for part in one.segments if part.role == Role.OBSERVATION]
        both = list(chain(*(part.ids for part in one.segments[: one.segments.index(seen) + 1])))
        assert both == ids[: len(both)], tokenizer.decode(both[38:])
        assert mask == [1] * (len(both) - len(seen.ids)) + [0] * len(seen.ids) + [1] * (len(ids) - len(both))
    assert made.reward_func_names == trls.reward_func_names == (["Counter", "Bell"] if several else ["Counter"])
    rewards = made._calculate_rewards(
        [{**row, "episode_reward": one.episode_reward} for row, one in zip(_twice(data), found, strict=True)],
        [row["prompt"] for row in _twice(data)],
        [[{"role": "assistant", "content": ""}]] * 8,
        [[1]] * 8,
    )
    logged = [trls._logs["rewards"][name] for name in trls.reward_func_names]
    assert str(rewards.T.tolist()) == str([list(map(float, column)) for column in logged])
    assert made.reward_weights.tolist() == trls.reward_weights.tolist()


def _twice(data):
    return [row for row in data for _ in range(2)]


def test_it_trains_and_objects_are_used_again(tmp_path):
    Counter.made, seen = 0, []

    def totals(completions, environments, **columns):
        seen.append([one.total for one in environments])
        return [float(len(text)) for text in completions]

    data = questions(begin=list(range(16)))
    made = trainer(
        tmp_path,
        "grpo()",
        data,
        environment_factory=Counter,
        tools=[add],
        reward_funcs=totals,
        reward_weights=[0.5],
        max_turns=2,
        max_steps=2,
        observation_budget=60,
        network=model(max_position_embeddings=1024),
    )
    text = made._tokenizer.decode(made.train_dataset[0]["prompt_ids"])
    assert "add(a: integer, b: integer): Add two numbers.\ncount(by: integer): Count on.\nlook(): Look" in text
    made.train()
    assert Counter.made == 8, "one for each rollout of a generation, and the next one takes them again"
    assert len(seen) == 2
    assert all(len(totals) == 8 and totals[:1] * 4 == totals[:4] for totals in seen)
    (micro,) = made._generation.microbatches
    assert all(micro.first[0].prompt[-2:] == one.prompt[-2:] for one in micro.first)
    entry = next(entry for entry in made.state.log_history if "rewards/Counter/mean" in entry)
    assert entry["reward"] == pytest.approx(0.5 * entry["rewards/totals/mean"] + entry["rewards/Counter/mean"])


def test_exceptions_of_methods_are_read_by_the_model():
    source = FactorySource.read(Counter, [add], seconds=5)
    (begin,) = source.hand_out(HERMES, [{}])
    episode = begin()
    assert episode.reset({"prompt": "x", "begin": 4}, 0).observation == "It stands at 4."
    assert episode.instance.row == {"prompt": "x"}
    said = [
        episode.step(CALL.format(name, arguments))
        for name, arguments in (
            *(("count", '{"by": 2}'), ("count", '{"by": -1}'), ("look", "{}"), ("add", '{"a": 1, "b": 2}')),
            *(("_hidden", "{}"), ("get_reward", "{}")),
        )
    ]
    source.worker.close()
    texts = [step.observation[0]["content"] for step in said]
    assert texts[:4] == ["{'total': 6, 'text': None}", "error: ValueError: not backwards", "6", "3"]
    assert all("there is no tool" in text for text in texts[4:])
    assert said[1].info == {"tool_calls": 1, "tool_errors": 1}
    assert episode.step("6").done
    assert episode.finish() == 0.6


class Mute:
    """Has no tool."""

    def reset(self, **row):
        pass


class Bare(Mute):
    def look(self, where):
        return where


class Strict(Counter):
    def reset(self, prompt):
        pass


class Endless(Counter):
    def reset(self, **row):
        return 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment_factory": object}, "object has no method reset\\(\\*\\*row\\)"),
        ({"environment_factory": Mute}, "Mute has no public method to be a tool"),
        ({"environment_factory": Bare}, "tool look has no docstring"),
        ({"environment_factory": 3}, "must be a class or a function, got int"),
        ({"environment_factory": {}}, "environment_factory holds no factory"),
        ({"environment_factory": lambda: 1 / 0}, "environment_factory <lambda> fails: ZeroDivisionError"),
        ({"environment_factory": Counter, "environment": Counting}, "give environment or environment_factory"),
        ({"environment_factory": Counter, "tools": [Counter.count]}, "two tools are called count"),
        ({"environment_factory": Strict}, "Strict.reset\\(self, prompt\\) does not take the columns of train_dataset"),
        ({"environment_factory": {"a": Counter}}, "several environments by name need chat messages"),
    ],
)
def test_factories_that_cannot_be_played_are_refused(tmp_path, changes, message):
    wide = model(max_position_embeddings=1024)
    with pytest.raises(QreditError, match=message) as found:
        trainer(tmp_path, network=wide, max_turns=2, observation_budget=60, **changes)
    assert "\n" not in str(found.value)


def test_rows_without_a_known_environment_are_refused():
    source = FactorySource.read({"count": Counter, "bell": Bell})
    with pytest.raises(QreditError, match="data has no column 'environment'"):
        source.check_rows(rows(2), "data")
    with pytest.raises(QreditError, match="data, row 1: unknown environment 'bel'; did you mean 'bell'"):
        source.check_rows(rows(2, environment=["bell", "bel"]), "data")


def test_a_reset_that_says_no_text_is_a_fault():
    source = FactorySource.read(Endless)
    (begin,) = source.hand_out(HERMES, [{}])
    with pytest.raises(TypeError, match="reset must return a text or None, got int"):
        begin().reset({}, 0)
    assert list_methods(Counter) == ["count", "get_reward", "look", "reset"]
