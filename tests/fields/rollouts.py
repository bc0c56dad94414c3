"""Rollouts whose tokens are texts, for makers of fields."""

from dataclasses import replace

from qredit.rollouts.field_maker import FieldTools
from qredit.rollouts.trajectory import Role, Segment, make_one_turn


class Spoken:
    """A tokenizer whose ids are numbers of texts; the same text has the same id."""

    def __init__(self):
        self.texts = []

    def ids(self, *texts):
        self.texts += [text for text in dict.fromkeys(texts) if text not in self.texts]
        return tuple(map(self.texts.index, texts))

    def decode(self, ids, **options):
        return "".join(self.texts[i] for i in ids)


class Told(dict):
    """What makers log, by name."""

    def __call__(self, name, value):
        self[name] = value


def tools(speech, answer=None):
    """The tools of a maker, and what it logs."""
    told = Told()
    return FieldTools(speech, told, answer), told


def rollout(speech, rationale, response="", *, group=0, reward=1.0, prompt="What?", logp=None, answer="gold"):
    """A rollout that thinks in these tokens, is closed by force and says one."""
    thought, closing, said = speech.ids(*rationale), speech.ids("<close>"), speech.ids(response or "<nothing>")
    ids = (*thought, *closing, *said)
    made = make_one_turn((), ids, logp or (0.0,) * len(ids), len(thought), len(thought) + 1, forced=True, ended=True)
    example = {"prompt": prompt, "answer": answer}
    return replace(made, group=group, reward=reward, example=example, response=response)


def two_turns(speech):
    """An action, an observation, an action; three, two and two tokens."""
    parts = (
        (("a", "b", "c"), Role.ANSWER, True),
        (("d", "e"), Role.OBSERVATION, False),
        (("f", "g"), Role.ANSWER, True),
    )
    segments = tuple(Segment(speech.ids(*texts), role, sampled) for texts, role, sampled in parts)
    return replace(rollout(speech, ()), segments=segments)
