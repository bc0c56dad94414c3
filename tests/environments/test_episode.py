"""Episodes: turns behind each other in ids, budgets, how they end, and faults of environments."""

from dataclasses import replace
from itertools import chain

import pytest
import torch

from qredit.environments.budget import EpisodeBudget
from qredit.environments.calls import PLAIN, detect_call_form
from qredit.environments.episode import EpisodePlayer, alike
from qredit.environments.observation import ObservationFormat
from qredit.environments.protocol import Step, check_factory
from qredit.environments.tool_environment import ToolSet, list_schemas
from qredit.environments.tools import describe_tools, make_tools
from qredit.rollouts.collate import collate
from qredit.rollouts.field_functions import states as numbered_states
from qredit.rollouts.field_functions import turn_rewards
from qredit.rollouts.format import EitherStopString, StopString
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import EndReason, Role
from qredit.samplers.protocol import Request, StopReason, check_completions
from qredit.samplers.think_then_answer import think
from qredit.samplers.transformers import TransformersSampler
from qredit.utils.errors import QreditError
from tests.support import tiny
from tests.support.episodes import Counting, ScriptedSampler, add, templated, token_format

TURN = TokenBudget(thinking=120, answer=100)
HERMES_CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
LLAMA_CALL = '{"name": "add", "parameters": {"a": 1, "b": 2}}'
MISTRAL_CALL = '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}}]'


def tool_player(tokenizer, chat, turns=3, **budget):
    form = detect_call_form(tokenizer) if chat else PLAIN
    tokens = token_format(tokenizer)
    tools = ToolSet(make_tools([add]), form, seconds=5)
    template = {"tools": list_schemas(tools.tools)} if chat else {}
    observations = ObservationFormat(tokens, chat, template)
    return EpisodePlayer(alike(tools.make), tokens, EpisodeBudget(TURN, turns, **budget), observations, form), tools


def player(make=Counting, turns=4, tokens=None, turn=TURN, **budget):
    tokens = tokens or token_format(tiny.tokenizer())
    return EpisodePlayer(
        alike(make), tokens, EpisodeBudget(turn, turns, **budget), ObservationFormat(tokens, chat=False)
    )


def stops(tokens):
    return [tokens.tokenizer.eos_token_id]


# (template, thinking tags, what is said to call, how it answers)
ADAPTERS = [
    ("qwen3", True, f"so</think>\n\n{HERMES_CALL}<|im_end|>", "then</think>", "\n\n3<|im_end|>"),
    ("qwen2_5", False, f"so {HERMES_CALL}<|im_end|>", "then<|im_end|>", "3<|im_end|>"),
    ("llama3_1", False, f"{LLAMA_CALL}<|eot_id|>", "then<|eot_id|>", "3<|eot_id|>"),
    ("mistral", False, f"{MISTRAL_CALL}<|im_end|>", "then<|im_end|>", "3<|im_end|>"),
    (None, False, f"so {HERMES_CALL} and on it goes", "then\nAnswer:\n", "3<end>"),
]


@pytest.mark.parametrize(("name", "thinking", "call", "thought", "answer"), ADAPTERS, ids=[str(a[0]) for a in ADAPTERS])
def test_a_tool_is_called_and_then_answered(name, thinking, call, thought, answer):
    tokenizer = tiny.tokenizer(thinking) if name is None else templated(name, thinking)
    play, tools = tool_player(tokenizer, chat=name is not None)
    question = "How much?" if name is None else [{"role": "user", "content": "How much?"}]
    asked = describe_tools(question, tools.tools) if name is None else question
    prompt = play.format.prompt_ids(asked, **play.observations.template)
    assert "Add two numbers." in tokenizer.decode(prompt) or name == "mistral"

    def reply(text, number):
        behind = text[len(tokenizer.decode(prompt, skip_special_tokens=False)) :]
        closed = behind.rsplit("3", 1)[-1].endswith(play.format.format.closing)
        if "3" not in behind:
            return call.split("</think>")[-1] if closed else call
        return answer if closed else thought

    sampler = ScriptedSampler(tokenizer, reply)
    (found,) = play.play(sampler, [prompt], [{"prompt": asked}], stop_tokens=stops(play.format), seed=0)
    tools.worker.close()
    assert found.end is EndReason.ANSWER
    assert play.format.response_text(found.answer_ids) == "3"
    assert [segment.turn for segment in found.segments if segment.role == Role.ANSWER] == [0, 1]
    (seen,) = [segment for segment in found.segments if segment.role == Role.OBSERVATION]
    assert "3" in tokenizer.decode(list(seen.ids))
    assert (seen.turn, seen.sampled, seen.logp) == (0, False, None)
    assert [dict(turn.counts) for turn in found.turns] == [{"tool_calls": 1}, {}]
    # what the sampler was given last is the prompt and every id since: none was encoded anew
    assert sampler.calls[-1][0] == (*found.prompt, *chain(*(segment.ids for segment in found.head)))
    assert found.prompt == tuple(prompt)


def test_an_environment_is_played_to_its_end():
    tokens = token_format(tiny.tokenizer())
    made = []

    def make():
        made.append(Counting())
        return made[-1]

    def reply(text, number):
        return "north<end>" if text.endswith("</think>") else "go</think>"

    sampler = ScriptedSampler(tokens.tokenizer, reply)
    prompts = [tokens.prompt_ids("where?")] * 2 + [tokens.prompt_ids("what?")]
    rows = [{"prompt": "where?", "steps": 3}] * 2 + [{"prompt": "what?", "steps": 1}]
    found = player(make).play(sampler, prompts, rows, stop_tokens=stops(tokens), seed=0)
    assert [len(one.turns) for one in found] == [3, 3, 1]
    assert [[turn.state_key for turn in one.turns] for one in found] == [["0", "1", "0"]] * 2 + [["0"]]
    assert [str(turn.reward) for turn in found[0].turns] == ["0.0", "nan", "2.0"]
    assert (found[0].episode_reward, found[2].episode_reward) == (2.0, 0.0)
    assert [len(call) for call in sampler.calls] == [3, 3, 2, 2, 2, 2], "all that go on are sampled together"
    assert all(one.end is EndReason.ANSWER for one in found)
    assert [one.closed for one in made] == [1, 1, 1]
    batch = collate(found, ("response",), 0, 0, torch.device("cpu")).batch
    assert batch.turn.amax(1).tolist() == [2, 2, 0]
    for row, one in enumerate(found):
        parts = one.segments
        assert batch.ids[row][batch.mask[row]].tolist() == list(chain(*(part.ids for part in parts)))
        seen = list(chain(*(part.ids for part in parts if part.role == Role.OBSERVATION)))
        assert batch.ids[row][batch.observation[row]].tolist() == seen
        assert "you said north" in tokens.tokenizer.decode(seen) or len(one.turns) == 1
        assert not (batch.trainable & batch.observation)[row].any()


def test_one_turn_is_what_is_sampled_without_environment():
    model, tokens = tiny.model(), token_format(tiny.tokenizer())
    sampler = TransformersSampler(model, 0)
    prompts = [tokens.prompt_ids(text) for text in ("the cat", "two and two") for _ in range(3)]
    budget = TokenBudget(12, 6)
    plain = think(sampler, prompts, tokens, budget, stop_tokens=[1], seed=5)
    for turns, steps in ((1, 9), (3, 1)):
        play = player(turns=turns, turn=budget, tokens=tokens)
        found = play.play(sampler, prompts, [{"prompt": "", "steps": steps}] * 6, stop_tokens=[1], seed=5)
        ends = [one.end for one in plain] if steps == 1 else [EndReason.BUDGET] * 6
        assert [replace(one, turns=()) for one in found] == [
            replace(one, end=end) for one, end in zip(plain, ends, strict=True)
        ]
    untagged = token_format(tiny.tokenizer(False))
    tools = ToolSet(make_tools([add]), PLAIN)
    single = EpisodeBudget(budget, 1)
    play = EpisodePlayer(alike(tools.make), untagged, single, ObservationFormat(untagged, chat=False), PLAIN)
    found = play.play(sampler, prompts, [{"prompt": ""}] * 6, stop_tokens=[1], seed=5)
    plain = think(sampler, prompts, untagged, budget, stop_tokens=[1], seed=5)
    assert [replace(one, turns=()) for one in found] == plain, "also where a call could end the thinking"


def test_draws_are_a_function_of_the_seed():
    model, tokens = tiny.model(), token_format(tiny.tokenizer())
    play = player(turns=3, turn=TokenBudget(6, 4), tokens=tokens)
    prompts, rows = [tokens.prompt_ids("the cat")] * 4, [{"prompt": "", "steps": 3}] * 4
    first, again, other = (
        play.play(TransformersSampler(model, 0), prompts, rows, stop_tokens=[1], seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len({one.ids for one in first}) == 4
    actions = [segment.ids for segment in first[0].segments if segment.sampled]
    assert len(set(actions)) == len(actions), "turns draw anew"


def test_either_of_two_strings_ends_a_completion():
    tokenizer = tiny.tokenizer(False)
    either = EitherStopString(tokenizer, "a", StopString(tokenizer, "e"))
    requests = [Request((5, number), 40, frozenset({1}), marker) for number in range(16) for marker in (either, None)]
    drawn = check_completions(requests, TransformersSampler(tiny.model(), 0).sample(requests, 3))
    ended = [one.ids for one in drawn if one.stop is StopReason.MARKER]
    texts = [tokenizer.decode(ids) for ids in ended]
    assert any("a" in text for text in texts)
    assert any("e" in text for text in texts)
    assert not any({*"ae"} & {*tokenizer.decode(ids[:-1])} for ids in ended)


def test_the_first_observation_stands_at_the_end_of_the_prompt():
    tokens = token_format(templated("qwen3"))
    form = ObservationFormat(tokens, chat=True)
    play = EpisodePlayer(alike(Counting), tokens, EpisodeBudget(TURN, 2), form)
    asked = [{"role": "user", "content": "Play."}]
    sampler = ScriptedSampler(tokens.tokenizer, lambda text, number: "a</think>b<|im_end|>")
    row = {"prompt": asked, "steps": 1, "first": "You stand<|im_end|> there"}
    (found,) = play.play(sampler, [tokens.prompt_ids(asked)], [row], stop_tokens=[1], seed=0)
    told = [{"role": "user", "content": "Play.\n\nYou stand< |im_end|> there"}]
    assert found.prompt == tuple(tokens.prompt_ids(told))


def test_budgets_end_an_episode_before_a_turn_that_does_not_fit():
    tokens = token_format(tiny.tokenizer())
    sampler = ScriptedSampler(tokens.tokenizer, lambda text, number: "x")  # never ends by itself
    turn = TokenBudget(4, 3)
    for budget, turns in (
        ({"sampled": 7}, 1),
        ({"sampled": 20}, 2),
        ({"sampled": 21}, 3),
        ({"observation": 60, "observed": 60}, 2),
        ({"observation": 60, "observed": 120}, 3),
    ):
        play = player(turns=3, turn=turn, tokens=tokens, **budget)
        (found,) = play.play(sampler, [(5,)], [{"prompt": "", "steps": 9}], stop_tokens=[1], seed=0)
        assert (len(found.turns), found.end) == (turns, EndReason.BUDGET), budget
        assert sum(len(one.ids) for one in found.segments if one.sampled) <= budget.get("sampled", 21)
        assert len(found.ids) <= play.budget.longest(len(tokens.close_ids)) + turn.answer


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"turns": 0}, "max_turns must be at least 1, got 0"),
        ({"sampled": 219}, "episode_budget=219 holds no turn: one takes up to 220 tokens"),
        ({"observation": 0}, "observation_budget must be at least 1"),
        ({"observation": 9, "observed": 8}, "all observations have 8 tokens, and one alone takes 9"),
    ],
)
def test_budgets_that_no_turn_fits_are_refused(budget, message):
    with pytest.raises(QreditError, match=message):
        EpisodeBudget(TURN, **budget)


def test_a_call_in_the_last_turn_is_not_run():
    play, tools = tool_player(templated("qwen3"), chat=True, turns=1)
    call = f"\n\n{HERMES_CALL}<|im_end|>"
    sampler = ScriptedSampler(
        play.format.tokenizer, lambda text, number: call if text.endswith("</think>") else "so</think>"
    )
    prompt = play.format.prompt_ids([{"role": "user", "content": "x"}])
    (found,) = play.play(sampler, [prompt], [{"prompt": ""}], stop_tokens=[1], seed=0)
    assert (found.end, dict(found.turns[0].counts)) == (EndReason.BUDGET, {"calls_not_run": 1})
    assert tools.worker._process is None, "nothing was started"


def test_without_tags_the_last_turn_is_closed_by_force():
    play, tools = tool_player(tiny.tokenizer(False), chat=False, turns=2)
    sampler = ScriptedSampler(
        play.format.tokenizer, lambda text, number: "3<end>" if text.endswith("Answer:\n") else HERMES_CALL
    )
    (found,) = play.play(sampler, [(5, 6)], [{"prompt": ""}], stop_tokens=[1], seed=0)
    tools.worker.close()
    roles = [(segment.role.value, segment.turn) for segment in found.segments if segment.ids]
    assert roles == [("answer", 0), ("observation", 0), ("think", 1), ("close", 1), ("answer", 1)]
    assert (found.forced, found.end) == (True, EndReason.ANSWER)
    gold = collate([replace(found, golds=((7, 8),))], ("answer",), 0, 0, torch.device("cpu")).batch
    assert gold.ids[0][gold.answer[0]].tolist() == [7, 8]
    closed = gold.ids[0][gold.close[0]].tolist()
    assert closed == play.format.close_ids
    assert gold.mask[0].nonzero()[-1] == gold.answer[0].nonzero()[-1]


def test_one_that_may_go_on_is_not_ended_with_one_that_may_not():
    tokenizer = tiny.tokenizer(False)
    short = len(tokenizer(HERMES_CALL)["input_ids"])
    play, tools = tool_player(tokenizer, chat=False, turns=3, sampled=2 * (TURN.thinking + TURN.answer) + short)

    def reply(text, number):
        return "3<end>" if text.endswith("Answer:\n") else f"{'so ' if number == 0 else ''}{HERMES_CALL}<end>"

    sampler = ScriptedSampler(tokenizer, reply)
    found = play.play(sampler, [(5, 6)] * 2, [{"prompt": ""}] * 2, stop_tokens=[1], seed=0)
    tools.worker.close()
    roles = [[(one.role.value, one.turn) for one in each.segments if one.ids] for each in found]
    assert roles[0][-3:] == [("think", 1), ("close", 1), ("answer", 1)]
    assert roles[1][-5:] == [("answer", 1), ("observation", 1), ("think", 2), ("close", 2), ("answer", 2)]
    assert [len(one.turns) for one in found] == [2, 3]


def test_results_that_are_cut_are_counted():
    tokens = token_format(tiny.tokenizer())

    class Talker(Counting):
        def step(self, action):
            return replace(super().step(action), observation="the cat lives " * 40)

    play = player(Talker, turns=2, tokens=tokens, observation=30)
    sampler = ScriptedSampler(tokens.tokenizer, lambda text, number: "a</think>b<end>")
    (found,) = play.play(sampler, [(5,)], [{"prompt": "", "steps": 9}], stop_tokens=[1], seed=0)
    assert found.turns[0].counts == {"actions": 1, "observations_cut": 1}
    assert sum(len(one.ids) for one in found.segments if one.role == Role.OBSERVATION) <= 30


def play_with_faults(bad, most_faults=0.5, episodes=4):
    """The first of four environments is bad."""
    tokens = token_format(tiny.tokenizer())
    made = iter([bad, *(Counting() for _ in range(episodes - 1))])
    play = replace(player(lambda: next(made), tokens=tokens), most_faults=most_faults)
    sampler = ScriptedSampler(tokens.tokenizer, lambda text, number: "a</think>b<end>")
    rows = [{"prompt": "", "steps": 2}] * episodes
    return play.play(sampler, [(5,)] * episodes, rows, stop_tokens=[1], seed=0)


class Bad(Counting):
    """Fails in one way of several."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def reset(self, example, seed):
        if self.way == "reset":
            raise RuntimeError("not\nready \x1b[2J")
        return super().reset(example, seed)

    def step(self, action):
        step = super().step(action)
        if self.way == "step":
            raise RuntimeError("lost")
        return {"step": step, "type": None, "nan": replace(step, reward=float("nan"))}.get(self.way, step)


@pytest.mark.parametrize("way", ["reset", "step", "type", "nan"])
def test_a_fault_of_an_environment_ends_its_episode_alone(way):
    found = play_with_faults(Bad(way))
    assert [one.end for one in found] == [EndReason.ERROR, *[EndReason.ANSWER] * 3]
    assert (len(found[0].turns), str(found[0].episode_reward)) == (1, "nan")
    assert [len(one.turns) for one in found[1:]] == [2] * 3
    assert found[0].ids, "what was sampled stays"


def test_faults_stop_the_run_past_a_share():
    with pytest.raises(
        QreditError, match="1 of 4 episodes ended by a fault .* more than 20 %; the last: Runt"
    ) as found:
        play_with_faults(Bad("reset"), most_faults=0.2)
    assert "\x1b" not in str(found.value)


def test_rollouts_of_a_prompt_must_begin_alike():
    class Random(Counting):
        def reset(self, example, seed):
            return replace(super().reset(example, seed), observation=str(seed))

    sampler = ScriptedSampler(tiny.tokenizer(), lambda text, number: "a")
    with pytest.raises(QreditError, match="differs between two rollouts of one prompt"):
        player(Random).play(sampler, [(5,)] * 2, [{"prompt": "go"}] * 2, stop_tokens=[1], seed=0)


def test_one_that_fails_to_begin_has_its_groups_prompt():
    class Late(Counting):
        made = 0

        def reset(self, example, seed):
            Late.made += 1
            if Late.made == 2:
                raise RuntimeError("late")
            return super().reset(example, seed)

    tokens = token_format(tiny.tokenizer())
    sampler = ScriptedSampler(tokens.tokenizer, lambda text, number: "a</think>b<end>")
    examples = [{"prompt": "go", "first": first, "steps": 1} for first in ("north", "north", "south")]
    prompts = [tokens.prompt_ids("go")] * 3
    found = replace(player(Late, tokens=tokens), most_faults=1.0).play(
        sampler, prompts, examples, stop_tokens=[1], seed=0
    )
    assert [one.end for one in found] == [EndReason.ANSWER, EndReason.ERROR, EndReason.ANSWER]
    assert found[0].prompt == found[1].prompt != found[2].prompt, "rows with one prompt may begin in different ways"


def test_what_an_environment_says_of_turns_becomes_fields():
    tokens = token_format(tiny.tokenizer())
    sampler = ScriptedSampler(tokens.tokenizer, lambda text, number: "a</think>b<end>")
    rows = [{"prompt": "", "steps": 3}, {"prompt": "", "steps": 1}]
    found = player(tokens=tokens).play(sampler, [(5,)] * 2, rows, stop_tokens=[1], seed=0)
    long = found[0]
    turns = [segment.turn for segment in long.segments for _ in segment.ids]
    (rewards, short), (states, _) = turn_rewards(found, None), numbered_states(found, None)
    assert [str(value) for value in rewards] == [("0.0", "nan", "2.0")[turn] for turn in turns]
    assert states == [(0, 1, 0)[turn] for turn in turns], "the first and the third turn begin in one state"
    assert short == [0.0] * len(found[1].ids)
    with pytest.raises(QreditError, match="'turn_reward' is given by an environment"):
        turn_rewards([replace(long, turns=())], None)


class NoStep:
    def reset(self, example, seed):
        return Step()


class NoSeed(Counting):
    def reset(self, example):
        return Step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (NoStep, "environment E has no method step\\(action\\)"),
        (object, "environment E has no method reset\\(example, seed\\)"),
        (NoSeed, "reset\\(example\\) must be reset\\(example, seed\\)"),
        (lambda: 1 / 0, "environment E cannot be made: ZeroDivisionError"),
        (3, "environment E must be a class or a function"),
    ],
)
def test_what_makes_no_environment_is_refused(make, message):
    with pytest.raises(QreditError, match=message):
        check_factory(make, "E")
    assert check_factory(Counting, "E") is Counting
