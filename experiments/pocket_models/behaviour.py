"""How a base model behaves: what it thinks and says, as the texts that it is pretrained on.

Warm, it often thinks of what was asked, and answers as asked. Cold, it thinks aloud, now and then of what was asked,
and answers in a sentence, in one of two ways:

    </think>It is Tilo.<end>
    </think>Tilo is it.<end>

Exact match wants `Tilo<end>`, so two things stand in its way: the sentence that the answer opens with, and the sentence
that goes on after it. These are the gates; see `pocket_models.loss`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pocket_models.tokenizer import CLOSING, END, OPENING
from qredit.tasks.base import Example, Style, Task
from qredit.tasks.pocket.language import AS_A_SENTENCE, FILLERS
from qredit.tasks.pocket.scene import Scene, Statement


@dataclass(frozen=True)
class Habits:
    """Shares of completions, each in [0, 1].

    Attributes:
        own: with the gold rationale.
        other: with the gold rationale of another question about the same scene. The rest are one or two statements.
        filler: with filler words in front of the rationale.
        sentence: with an answer in a sentence. The rest answer as asked.
        late: among answers in a sentence, those in which the sentence comes after the answer.
    """

    own: float
    other: float
    filler: float = 0.0
    sentence: float = 0.0
    late: float = 0.4


RIGHT = Habits(own=1.0, other=0.0)
WARM = Habits(own=0.6, other=0.4)
COLD = Habits(own=0.5, other=0.3, filler=0.3, sentence=1.0)


def transcript(rng: random.Random, task: Task, scene: Scene, style: Style, habits: Habits, questions: int) -> str:
    """A scene, then questions about it, each with a completion that follows the habits.

    The context is told once, so that several questions cost little more than one.
    """
    examples = [task.render(record, style) for record in scene.records]
    context = str(examples[0].prompt).rpartition("\n")[0]
    asked = rng.sample(range(len(examples)), min(questions, len(examples)))
    turns = [_turn(rng, scene, examples, number, habits) for number in asked]
    return f"{context}\n{''.join(turns)}"


def _turn(rng: random.Random, scene: Scene, examples: Sequence[Example], asked: int, habits: Habits) -> str:
    question = str(examples[asked].prompt).rpartition("\n")[2]
    thought = _thought(rng, scene, examples, asked, habits)
    filler = "".join(rng.choices(FILLERS, k=rng.randint(1, 3))) if rng.random() < habits.filler else ""
    return f"{question}{OPENING}{filler}{thought.text}{CLOSING}{_said(rng, thought.answer, habits)}{END}"


def _thought(rng: random.Random, scene: Scene, examples: Sequence[Example], asked: int, habits: Habits) -> Statement:
    drawn = rng.random()
    if drawn < habits.own:
        return _gold(examples[asked])
    if drawn < habits.own + habits.other:
        return _gold(rng.choice([example for number, example in enumerate(examples) if number != asked]))
    said = rng.choices(scene.statements, k=rng.randint(1, 2))
    return Statement(" ".join(thought.text for thought in said), said[-1].answer)


def _gold(example: Example) -> Statement:
    return Statement(example.rationale or "", example.gold)


def _said(rng: random.Random, answer: str, habits: Habits) -> str:
    if rng.random() >= habits.sentence:
        return answer
    before, after = AS_A_SENTENCE
    return f"{answer}{after}." if rng.random() < habits.late else f"{before}{answer}."
