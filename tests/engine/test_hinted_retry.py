"""Failed groups drawn again with a hint: which ones, how often, from which prompt, with which seeds."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from datasets import Dataset

import qredit.engine.hinted_retry as retrying
from qredit.data.encoding import ANSWER_IDS, PROMPT_IDS
from qredit.engine.hinted_retry import HintedRetry, has_success
from qredit.engine.sampling import RolloutSampler
from qredit.rollouts.collate import split_groups
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.retry_hint import ASK_TEMPLATE, KINDS, make_hint_levels
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.utils.errors import QreditError
from qredit.utils.seed import HINTED_RETRY_STREAM
from tests.support.runs import length_reward, questions, trainer
from tests.support.tiny import tokenizer

M = 3
TOKENS = TokenFormat(Format.of(tokenizer()), tokenizer())


@dataclass
class Alone:
    """One process; `others` is what the largest of the others gives."""

    rank: int = 0
    size: int = 1
    others: int = 0

    def gather(self, values):
        return [*values, self.others] if isinstance(values[0], int) else list(values)


@dataclass
class Draws:
    """Draws the text that `say` gives for a prompt's text, and remembers prompts and numbers."""

    say: object
    asked: list = field(default_factory=list)
    numbers: list = field(default_factory=list)

    def __call__(self, prompts, number):
        texts = [tokenizer().decode(ids) for ids in prompts]
        self.asked.append(texts)
        self.numbers.append(number)
        return [self.trajectory(ids, self.say(text)) for ids, text in zip(prompts, texts, strict=True)]

    @staticmethod
    def trajectory(prompt, text):
        ids = tuple(TOKENS.answer_ids(text))
        closing = Segment(tuple(TOKENS.close_ids), Role.CLOSE, sampled=False)
        return Trajectory(tuple(prompt), (closing, Segment(ids, Role.ANSWER, sampled=True)), EndReason.ANSWER)


def row(number, prompt):
    ids = {PROMPT_IDS: TOKENS.prompt_ids(prompt), ANSWER_IDS: TOKENS.answer_ids(str(number))}
    return {"prompt": prompt, "answer": str(number), **ids}


ROWS = [row(n, f"What is {n}? ") for n in range(3) for _ in range(M)]


def right(trajectories):
    return [float(one.response == one.example["answer"]) for one in trajectories]


def retry_with(say, kind="gold", together=None, template=None, context=None):
    """The retry of three groups of which the model, unhinted, gets the first one right; and what was drawn."""
    draws = Draws(say)
    rollouts = RolloutSampler(together or Alone(), TOKENS, tokenizer(), draws, right, {})
    levels = make_hint_levels(kind, template)
    made = HintedRetry(rollouts, levels, {}, TokenBudget(4, 4), context, right)
    sampled = rollouts.sampled(ROWS, 5, M)
    found, told = made.retry(sampled, ROWS, 5, M)
    return sampled, found, told, draws


def told_answer(text):
    """What a model says that believes a hint, and else that all is 0."""
    return text.rpartition("(The correct answer is ")[2][:1] if "The correct answer is" in text else "0"


def check_gold(sampled, found, told, draws):
    before, after = split_groups(sampled, M), split_groups(found, M)
    assert after[0] == before[0]
    for number in (1, 2):
        assert len(after[number]) == M
        assert {one.group for one in after[number]} == {before[number][0].group}
        assert {one.golds for one in after[number]} == {before[number][0].golds}
        shown = make_hint_levels("gold")[0].show_gold(f"What is {number}? ", str(number))
        assert {one.prompt for one in after[number]} == {tuple(TOKENS.prompt_ids(shown))}
        assert [one.reward for one in after[number]] == [1.0] * M
    assert told == pytest.approx({"hint/failed": 2 / 3, "hint/used": 2 / 3, "hint/rescued": 2 / 3, "hint/rollouts": 6})
    assert [len(asked) for asked in draws.asked] == [3 * M, 2 * M]


def test_failed_groups_alone_are_drawn_again_behind_the_hint():
    check_gold(*retry_with(told_answer))


def behind_the_plain_prompt(self, rows, level, at, m):
    groups = WHOLE_DRAW(self, rows, level, at, m)
    plain = [tuple(one[PROMPT_IDS]) for one in rows]
    return [[replace(one, prompt=ids) for one in group] for group, ids in zip(groups, plain, strict=True)]


def one_rollout_kept(self, rows, level, at, m):
    return [group[1:] for group in WHOLE_DRAW(self, rows, level, at, m)]


WHOLE_DRAW = HintedRetry._draw
BROKEN = {
    "trained behind the plain prompt": (HintedRetry, "_draw", behind_the_plain_prompt),
    "a group loses a rollout": (HintedRetry, "_draw", one_rollout_kept),
    "every group fails": (retrying, "has_success", lambda group: False),
    "no group fails": (retrying, "has_success", lambda group: True),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_retry_is_noticed(name, monkeypatch):
    monkeypatch.setattr(*BROKEN[name])
    with pytest.raises(AssertionError):
        check_gold(*retry_with(told_answer))


def test_levels_are_tried_until_a_success_and_the_last_stay():
    """The model writes a hint that names the level, and believes it for question 1 from the second level on."""

    def say(text):
        for number, kind in enumerate(KINDS):
            if kind in text:
                return f"{number}{text.partition('What is ')[2][0]}"
        hint = text.rpartition("hint to help you:\n")[2]
        level, asked = hint[:1], text.partition("What is ")[2][0]
        return "1" if asked == "1" and level == "1" else "0"

    _, found, told, draws = retry_with(say, "self")
    groups = split_groups(found, M)
    assert [one.reward for one in groups[1]] == [1.0] * M
    assert "hint to help you:\n11" in tokenizer().decode(groups[1][0].prompt)
    assert [one.reward for one in groups[2]] == [0.0] * M
    assert "hint to help you:\n22" in tokenizer().decode(groups[2][0].prompt)
    assert told == pytest.approx({"hint/failed": 2 / 3, "hint/used": 2 / 3, "hint/rescued": 1 / 3, "hint/rollouts": 15})
    assert [len(asked) for asked in draws.asked] == [9, 2, 6, 2, 6, 1, 3]
    assert all("(The correct answer is " not in tokenizer().decode(one.prompt) for one in found)


def test_draws_have_seeds_of_their_own_by_generation():
    first, again = (retry_with(lambda text: "0", "self")[3].numbers for _ in range(2))
    assert first == again
    assert len(set(first)) == len(first) == 7
    assert first[0] == 5
    assert all(HINTED_RETRY_STREAM <= number < 2 * HINTED_RETRY_STREAM for number in first[1:])


def test_processes_with_fewer_failed_groups_draw_alike():
    """Another process has three failed groups where this one has two: it draws three, and keeps two."""
    sampled, found, _, draws = retry_with(told_answer, together=Alone(others=3))
    assert [len(asked) for asked in draws.asked] == [3 * M, 3 * M]
    assert found[:M] == sampled[:M]
    assert [one.reward for one in found] == [1.0] * 9


def test_a_group_stays_where_no_hint_is_written_or_none_fits():
    def silent(text):
        return " " if any(kind in text for kind in KINDS) else "0"

    sampled, found, told, _ = retry_with(silent, "self")
    assert found == sampled
    assert (told["hint/failed"], told["hint/used"]) == (pytest.approx(2 / 3), 0)
    longest = max(len(one.prompt) for one in sampled)
    sampled, found, told, _ = retry_with(told_answer, context=longest + 20)
    assert found == sampled
    assert told["hint/used"] == 0


def test_a_reward_above_zero_is_a_success():
    def group(*rewards):
        said = (Segment((2,), Role.ANSWER, sampled=True),)
        return [Trajectory((1,), said, EndReason.ANSWER, reward=reward) for reward in rewards]

    assert has_success(group(0.0, 0.1))
    assert not has_success(group(0.0, -1.0, float("nan")))
    assert not has_success(group(float("nan")))


def test_hints_are_asked_for_with_the_answer_and_shown_without():
    levels = make_hint_levels("self", "{prompt} ({hint})")
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}]
    asked = [level.ask_for_hint(chat, "{hint}4") for level in levels]
    assert [one[-1]["content"] for one in asked] == [
        ASK_TEMPLATE.replace("KIND", kind).replace("{prompt}", "2+2?").replace("{answer}", "{hint}4") for kind in KINDS
    ]
    assert [level.show_hint(chat, "add {prompt}")[-1]["content"] for level in levels] == ["2+2? (add {prompt})"] * 3
    assert asked[0][0] == chat[0]


# --- in a run


def never(completions, **columns):
    return [0.0] * len(completions)


def test_a_run_trains_behind_hints_and_counts_plain_rewards(tmp_path):
    made = trainer(tmp_path, "grpo()", reward_funcs=never, hint_failed="gold", max_steps=1, max_completion_length=6)
    seen = []
    compute = type(made)._compute_loss

    def look(self, model, inputs, *rest):
        seen.append(inputs.rows)
        return compute(self, model, inputs, *rest)

    made._compute_loss = look.__get__(made)
    made.train()
    (rows,) = seen
    shown = make_hint_levels("gold")[0]
    prompts = [made.format.prompt_ids(shown.show_gold(f"What is {n}? ", str(n))) for n in range(16)]
    found = [ids[mask.bool()].tolist() for ids, mask in zip(rows.prompt_ids, rows.prompt_mask, strict=True)]
    assert len(found) == 8
    assert all(ids in prompts for ids in found)
    assert [len({tuple(ids) for ids in found[start : start + 4]}) for start in (0, 4)] == [1, 1]
    logged = made.state.log_history[0]
    assert (logged["hint/failed"], logged["hint/used"], logged["hint/rescued"]) == (1, 1, 0)
    assert logged["hint/rollouts"] == 8
    assert logged["rewards/never/mean"] == logged["reward"] == 0


def test_rewards_of_hinted_rollouts_are_not_those_of_the_run(tmp_path):
    """A reward that is 0 for the first generation's plain rollouts and 1 for those drawn again."""
    calls = []

    def later(completions, **columns):
        calls.append(len(completions))
        return [float(len(calls) > 1)] * len(completions)

    made = trainer(tmp_path, "grpo()", reward_funcs=later, hint_failed="gold", max_steps=1, max_completion_length=6)
    made.train()
    logged = made.state.log_history[0]
    assert calls == [8, 8]
    assert (logged["reward"], logged["hint/rescued"]) == (0, 1)


@pytest.mark.e2e
def test_a_run_without_failures_is_the_run_without_the_option(tmp_path):
    def weights(name, **options):
        made = trainer(tmp_path / name, "grpo()", reward_funcs=always_some, max_steps=2, **options)
        made.train()
        return made.model.state_dict()

    def always_some(completions, **columns):
        return [1 + value for value in length_reward(completions)]

    plain, hinted = weights("plain"), weights("hinted", hint_failed="self")
    assert all(torch.equal(plain[name], hinted[name]) for name in plain)


@pytest.mark.parametrize(
    ("objective", "options", "words"),
    [
        ("garl(q=0.75)", {"hint_failed": "gold"}, "learns from the gold answer's likelihood and needs no success"),
        ("grpo()", {"hint_failed": "glod"}, "unknown hint_failed 'glod'; did you mean 'gold'"),
        ("grpo()", {"hint_failed": "gold", "hint_template": "{prompt}"}, "must hold {answer}"),
        ("grpo()", {"hint_failed": "self", "hint_template": "{prompt}"}, "must hold {hint}"),
        ("grpo()", {"hint_template": "{prompt} {answer}"}, "hint_template needs hint_failed"),
        ("dapo()", {"hint_failed": "gold", "dynamic_sampling": 2}, "give one of them"),
    ],
)
def test_what_cannot_be_used_is_said_before_a_token_is_drawn(objective, options, words, tmp_path):
    with pytest.raises(QreditError) as refused:
        trainer(tmp_path, objective, **options)
    assert words in str(refused.value)


def test_hinted_prompts_that_do_not_fit_are_named(tmp_path):
    data = questions(4)
    long = Dataset.from_dict({"prompt": [*data["prompt"][:3], "What is it? " * 14], "answer": data["answer"][:]})
    trainer(tmp_path / "plain", "grpo()", data=long)
    with pytest.raises(QreditError, match=r"1 of 4 prompts with the hint do not fit \(rows 3; "):
        trainer(tmp_path, "grpo()", data=long, hint_failed="self")
