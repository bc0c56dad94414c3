"""Makers that ask a judge: what it is shown, what its words become, and what is counted when they cannot be read."""

import math
from dataclasses import replace

import pytest
import torch

from qredit.fields import (
    judge_potentials,
    judge_same_answers,
    judge_step_scores,
    judge_turn_shares,
    judge_unused_steps,
    judge_wrong_steps,
    process_reward_model,
    same_answers,
)
from qredit.rewards.judge.endpoint import EndpointJudge, parse_numbers, parse_step_list, parse_yes_or_no
from qredit.rollouts.trajectory import Role, Segment
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout, tools
from tests.support.endpoint import said

THOUGHT = ("one", "\n\n", "two", "\n\n", "three")  # steps of 2, 2 and 1 tokens


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A judge that is tried twice, without a pause."""
    monkeypatch.setattr(EndpointJudge, "__init__", patient(EndpointJudge.__init__))


def patient(made):
    return lambda self, *given, **named: made(self, *given, **{"tries": 2, "pause": 0.01, "seconds": 5.0, **named})


def asked_of(body):
    return body["messages"][-1]["content"]


def test_tokens_of_wrong_steps_are_marked(serve):
    speech = Spoken()
    endpoint = serve(lambda number, body: said("[1, 3]" if "first" in asked_of(body) else "none\n[]"))
    given, told = tools(speech)
    rollouts = [rollout(speech, THOUGHT, "first"), rollout(speech, THOUGHT, "second"), rollout(speech, ())]
    found = judge_wrong_steps(endpoint.url, "judge").make(rollouts, given)
    assert found == {"wrong_step": [[True, True, False, False, True], [False] * 5, []]}
    assert told == {"judge/unanswered": 0.0, "judge/unreadable": 0.0, "judge/wrong_steps": pytest.approx(2 / 3)}
    assert len(endpoint.seen) == 2  # a rollout without steps is not asked about
    assert all(text in asked_of(endpoint.seen[0][0]) for text in ("What?", "The right answer:\ngold", "two"))


@pytest.mark.parametrize(("vote", "steps"), [("intersection", "x.."), ("majority", "xx."), ("union", "xxx")])
def test_critiques_are_voted_on(serve, vote, steps):
    speech = Spoken()
    replies = ["[1]", "[1, 2]", "[2, 1, 3]", "no list"]  # the last says nothing: three vote
    endpoint = serve(lambda number, body: said(replies[number - 1]))
    given, told = tools(speech)
    maker = judge_wrong_steps(endpoint.url, "judge", critiques=4, temperature=1.0, vote=vote)
    (found,) = maker.make([rollout(speech, THOUGHT)], given)["wrong_step"]
    assert "".join("x" if found[place] else "." for place in (1, 3, 4)) == steps
    assert told["judge/unreadable"] == 0.25
    assert endpoint.seen[0][0]["temperature"] == 1.0


def test_scores_are_shares_of_critiques(serve):
    speech = Spoken()
    replies = ["[1]", "[1, 2]", "[1]", "[]"]
    endpoint = serve(lambda number, body: said(replies[number - 1]))
    maker = judge_step_scores(endpoint.url, "judge", critiques=4, temperature=1.0, show_answer=False)
    found = maker.make([rollout(speech, THOUGHT)], tools(speech)[0])
    assert found == {"step_score": [[0, -0.5, 0, 0.5, 1.0]]}
    assert "right answer" not in asked_of(endpoint.seen[0][0])


def test_a_rollout_that_is_not_judged_has_no_scores(serve):
    speech = Spoken()
    endpoint = serve(
        lambda number, body: (
            (503, "busy") if "lost" in asked_of(body) else said("[9]" if "odd" in asked_of(body) else "[]")
        )
    )
    given, told = tools(speech)
    asked = [rollout(speech, THOUGHT, text) for text in ("lost", "odd", "fine", "fine")]
    found = judge_step_scores(endpoint.url, "judge").make(asked, given)["step_score"]
    assert found == [[0.0] * 5, [0.0] * 5, [0, 1.0, 0, 1.0, 1.0], [0, 1.0, 0, 1.0, 1.0]]
    assert told == {"judge/unanswered": 0.25, "judge/unreadable": 0.25}


@pytest.mark.parametrize(("status", "words"), [(503, "did not answer in 2 tries"), (401, "refused: status 401")])
def test_an_endpoint_that_answers_nothing_ends_the_run(serve, status, words):
    speech = Spoken()
    endpoint = serve(lambda number, body: (status, ""))
    with pytest.raises(QreditError, match=words):
        judge_wrong_steps(endpoint.url, "judge").make([rollout(speech, THOUGHT)], tools(speech)[0])


def test_right_and_wrong_rollouts_are_asked_other_things(serve):
    speech = Spoken()
    endpoint = serve(lambda number, body: said("[1]" if "takes back" in body["messages"][0]["content"] else "[2, 3]"))
    asked = [rollout(speech, THOUGHT, "ours", reward=reward) for reward in (1.0, -1.0, float("nan"))]
    found = judge_unused_steps(endpoint.url, "judge").make(asked, tools(speech)[0])["unused_step"]
    assert found == [[True, True, False, False, False], [False, False, True, True, True], [False] * 5]
    assert len(endpoint.seen) == 2  # not of the rollout without a reward
    assert all("Final answer of the solution:\nours" in asked_of(body) for body, _ in endpoint.seen)


@pytest.mark.parametrize(
    ("reply", "steps"),
    [("[2] or [1, 3]", {0, 2}), ("[]", set()), ("[4]", None), ("[0]", None), ("all fine", None), ("[1.5]", None)],
)
def test_a_list_with_a_number_of_no_step_cannot_be_read(reply, steps):
    assert parse_step_list(reply, 3) == steps


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("Yes.", True), ("yes, but no", False), ("**no**", False), ("", None), ("yes indeed", None), ("y" * 300, None)],
)
def test_the_last_word_is_the_verdict(reply, verdict):
    assert parse_yes_or_no(reply) is verdict


def test_answers_that_mean_the_same_are_a_cluster(serve):
    speech = Spoken()
    same = {("two", "2"), ("two", "II"), ("three", "II")}  # the first leader of two wins

    def answer(number, body):
        text = asked_of(body)
        return said(
            "yes" if any(f"answer:\n{a}\n" in text and text.endswith(f"answer:\n{b}") for a, b in same) else "no"
        )

    endpoint = serve(answer)
    given, told = tools(speech)
    texts = [(0, "two"), (0, "2"), (0, "three"), (0, "II"), (0, " TWO "), (0, ""), (1, "2"), (1, "two")]
    asked = [rollout(speech, (), text, group=group) for group, text in texts]
    found = judge_same_answers(endpoint.url, "judge").make(asked, given)["cluster"]
    first, second, third = found[0], found[2], found[6]
    assert found == [first, first, second, first, first, -1, third, found[7]]
    assert len({first, second, third, found[7], -1}) == 5  # "2" then "two" is not a pair that the judge knows
    assert len(endpoint.seen) == 1 + 1 + 2 + 1  # "2"; "three"; "II" against two leaders; the other group's "two"
    assert told == {"judge/unanswered": 0.0, "judge/unreadable": 0.0}


def test_answers_a_judge_does_not_join_stay_apart(serve):
    speech = Spoken()
    endpoint = serve(lambda number, body: said("perhaps") if number == 1 else said("no"))
    given, told = tools(speech)
    asked = [rollout(speech, (), text) for text in ("a", "b", "c")]
    assert len(set(judge_same_answers(endpoint.url, "judge").make(asked, given)["cluster"])) == 3
    assert told["judge/unreadable"] == pytest.approx(1 / 3)


def test_a_scorer_says_which_answers_are_one():
    speech = Spoken()
    texts = ["The cat", "cat!", "dog", "", "a dog"]
    asked = [rollout(speech, (), text, group=0) for text in texts]
    assert same_answers().make(asked, tools(speech)[0]) == {"cluster": [0, 0, 1, -1, 1]}
    assert same_answers("exact_match").make(asked, tools(speech)[0]) == {"cluster": [0, 1, 2, -1, 3]}
    numbers = [rollout(speech, (), text, group=group) for group, text in ((0, "1,000"), (0, "1000"), (1, "1000"))]
    assert same_answers("numeric").make(numbers, tools(speech)[0]) == {"cluster": [0, 0, 0]}


class Scores:
    """A process reward model that says how long a step is."""

    def score(self, question, steps):
        self.question = question
        return [len(step) / 10 for step in steps]


def test_a_reward_model_scores_steps_at_their_ends(monkeypatch):
    speech, scores = Spoken(), Scores()
    loaded = []
    monkeypatch.setattr(
        "qredit.rewards.judge.model.ProcessRewardModel.load", lambda *given: loaded.append(given) or scores
    )
    maker = process_reward_model("path")
    assert loaded == []
    chat = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Hm."}]
    for _ in range(2):
        found = maker.make([rollout(speech, THOUGHT, prompt=chat)], tools(speech)[0])
    assert found == {"step_score": [[0, 0.3, 0, 0.3, 0.5]]}
    assert loaded == [("path", "\n\n", 8192)]
    assert scores.question == "What?\n\nHm."
    assert torch.is_grad_enabled()


EPISODE = (("look", "here"), ("it is", "there"), ("so it is",), ("done",))
"""Thinking and action, what was seen, thinking and answer."""


def episode(speech, reward=1.0):
    """Two turns of which the first is answered: of tokens 2 + 2 and 1 + 1."""
    parts = (
        (EPISODE[0], Role.THINK, 0),
        (EPISODE[1], Role.OBSERVATION, 0),
        (EPISODE[2], Role.THINK, 1),
        (EPISODE[3], Role.ANSWER, 1),
    )
    segments = tuple(
        Segment(speech.ids(*texts), role, role != Role.OBSERVATION, turn=turn) for texts, role, turn in parts
    )
    return replace(rollout(speech, (), reward=reward), segments=segments)


@pytest.mark.parametrize(
    ("share", "reward", "reply", "turns"),
    [
        ("of_most", 8.0, "[3, 1]", (8.0, 8 / 3)),  # the sheet's 8 and 2.67
        ("of_sum", 8.0, "[3, 1]", (6.0, 2.0)),
        ("of_sum", 8.0, "all in vain: [0, 0]", (0.0, 0.0)),
        ("of_most", -1.0, "[0, 3] no, [2, 0]", (-2 / 3, 0.0)),
    ],
)
def test_a_judge_hands_the_reward_to_turns(serve, share, reward, reply, turns):
    speech = Spoken()
    endpoint = serve(lambda number, body: said(reply))
    given, told = tools(speech)
    maker = judge_turn_shares(endpoint.url, "judge", share=share)
    (found,) = maker.make([episode(speech, reward)], given)["turn_reward"]
    assert found == pytest.approx([turns[0]] * 4 + [turns[1]] * 2)
    assert told == {"judge/unanswered": 0.0, "judge/unreadable": 0.0}


def test_an_episode_is_shown_turn_by_turn(serve):
    speech = Spoken()
    endpoint = serve(lambda number, body: said("[1, 1]"))
    judge_turn_shares(endpoint.url, "judge").make([episode(speech, 0.5)], tools(speech)[0])
    shown = asked_of(endpoint.seen[0][0])
    assert shown == (
        "Question:\nWhat?\n\nThe right answer:\ngold\n\nReward of the episode: 0.5\n\nEpisode of 2 turns:\n\n"
        '<turn number="1">\n<said>\nlookhere\n</said>\n<answered>\nit isthere\n</answered>\n</turn>\n\n'
        '<turn number="2">\n<said>\nso it isdone\n</said>\n</turn>'
    )
    judge_turn_shares(endpoint.url, "judge", show_answer=False).make([episode(speech)], tools(speech)[0])
    assert "gold" not in asked_of(endpoint.seen[1][0])


def test_turns_that_nobody_judged_have_no_reward(serve):
    """Not answered, not readable; nothing to hand out, and nothing scored: of the last two nobody is asked."""
    speech, rewards = Spoken(), (1.0, 2.0, 3.0, 0.0, float("nan"))
    replies = {"1": (503, "busy"), "2": said("[1, 4]"), "3": said("[3, 0]")}
    endpoint = serve(lambda number, body: replies[asked_of(body).split("Reward of the episode: ")[1][0]])
    given, told = tools(speech)
    found = judge_turn_shares(endpoint.url, "judge").make([episode(speech, reward) for reward in rewards], given)
    first = [values[0] for values in found["turn_reward"]]
    assert torch.equal(torch.tensor(first).isnan(), torch.tensor([True, True, False, False, True]))
    assert (first[2], first[3]) == (3.0, 0.0)
    assert told == {"judge/unanswered": pytest.approx(1 / 3), "judge/unreadable": pytest.approx(1 / 3)}


def test_turns_are_paid_for_what_they_took_off_a_distance(serve):
    """The sheet's 10, 7, 8, 2: 3, -1 and 6. Of four rollouts one is not answered, one not readable, one not scored."""
    speech = Spoken()
    given, told = tools(speech)
    one = episode(speech)
    three = replace(one, segments=(*one.segments, Segment(speech.ids("x"), Role.ANSWER, True, turn=2)))
    rollouts = [three, *(replace(one, example={"prompt": name, "answer": "gold"}) for name in ("lost", "odd"))]
    replies = {"What": said("so [10, 7, 8, 2]"), "lost": (503, "busy"), "odd": said("[10, 7]")}
    endpoint = serve(lambda number, body: replies[asked_of(body).split("Question:\n")[1].split("?")[0].split("\n")[0]])
    maker = judge_potentials(endpoint.url, "judge", goal="nobody is sad")
    found = maker.make([*rollouts, episode(speech, float("nan"))], given)["turn_reward"]
    assert found[0] == [3.0] * 4 + [-1.0] * 2 + [6.0]
    assert all(math.isnan(value) for values in found[1:] for value in values)
    assert told == {"judge/unanswered": pytest.approx(1 / 3), "judge/unreadable": pytest.approx(1 / 3)}
    assert len({asked_of(body) for body, _ in endpoint.seen}) == 3, "nobody asks of what was not scored"
    assert "The goal is: nobody is sad. " in endpoint.seen[0][0]["messages"][0]["content"]
    shown = next(asked_of(body) for body, _ in endpoint.seen if "Episode of 3 turns" in asked_of(body))
    assert shown.startswith("Question:\nWhat?\n\nThe right answer:\ngold\n\nEpisode of 3 turns:\n\n<turn number")
    with pytest.raises(QreditError, match="goal of judge_potentials must be a text, got ' '"):
        judge_potentials("http://x", "judge", goal=" ")


@pytest.mark.parametrize(
    ("reply", "numbers"), [("[0, 3]", [0, 3]), ("[0, 4]", None), ("[1]", None), ("[1, 2, 3]", None), ("none", None)]
)
def test_a_list_of_another_length_cannot_be_read(reply, numbers):
    assert parse_numbers(reply, 2, 3) == numbers
    assert parse_numbers("none", 0, 3) is None
