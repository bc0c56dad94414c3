"""What `make results-real` runs, fixed before it ran: tasks, arms, learning rates, prompts, and what counts as better.

The model is SmolLM2-135M-Instruct. The questions are put to it bare: nothing says how to answer. A method is handed the
gold answers alone. One hop: which country a city lies in, by three such facts, and the answer is the country. Pair: the
same question, and the answer is city and country, which makes the model colder.

Rule: an arm beats another where the 95 % interval of the paired difference of p@1, over questions and seeds, excludes 0
on both tasks. Everything else is a tie.

Seen before, all with GARL .75 at 3e-5 unless said otherwise, one seed each:

- two hops, ten steps with completions of 40 tokens: completions were cut to 26 tokens and the questions asked of an arm
  to 32, because of what they cost.
- what the untrained model does with some wordings: not one right answer, so examples in turns of the chat were added.
- two hops, ten steps, last three: 2, 29 and 27 % of rollouts right at 1e-5, 3e-5 and 1e-4; log-prob 3, 21 and 23 %;
  GRPO after the best wording at 3e-5 (eight steps): 28 %.
- 33 steps on two hops stay near 1/3, which naming any of the three countries gives. On one hop, with the same six
  facts, they pass it: 48 % of the rollouts of steps 26 to 40. At 20 steps 31 % (3e-5) and 29 % (1e-4). So one hop,
  where there is something to win, became the first task and two hops the second, and three hops were dropped. The
  facts about people and a half of the rationale's tokens were taken from it, because of what they cost. The sweep got
  20 steps at two rates.
- the sweep's own runs of GARL on these shorter questions: at 1e-4 88, 97 and 100 % in steps 15 to 17, then 69, 78 and
  53 %; at 3e-5 35 % at the end. So arms got 24 steps: where an arm is after as many tells methods apart, later many
  would be near 100 %.
- GARL 0, seed 0, on one hop: it escapes from p̂ = 1e-6, slower than GARL .75. On two hops with "city, country" as the
  answer p̂ is 1e-12.5. In six steps GARL 0 does not move there, q = .5 to 1 and log-prob come to 1e-4. So "pair" took
  the place of two hops as the second task before any arm was run on either.
- the sweep's GRPO after the best wording: at 3e-5 91, 91, 100, 84, 100, 62, 91 and 84 % in steps 13 to 20, ahead of
  GARL from the bare question. So GARL .75 after that wording became an arm, too: a better prompt is open to all.
"""

from dataclasses import dataclass

SEEDS = (0, 1, 2)
STEPS = 24
PROMPTS, ROLLOUTS = 4, 8
COMPLETION = {"one-hop": 18, "pair": 24}  # tokens of rationale and answer together
ANSWER = {"one-hop": 6, "pair": 12}  # those of them kept for the answer
HELD_QUESTIONS, HELD_SAMPLES = 32, 16

RATES = (3e-5, 1e-4)  # in order of preference among equals
RATE_SEED, RATE_STEPS = 100, 20

FLAT_ROLLOUTS = 384  # an arm that learns from rewards alone ends after as many without one success
FLAT_STEPS = FLAT_ROLLOUTS // (PROMPTS * ROLLOUTS)

FLIPPED = 0.3  # share of training golds that are another name of the same context, in part B

ALONE = {"one-hop": "Answer with the name alone.", "pair": "Answer with city and country alone."}
FEW_SHOT = {
    "one-hop": (
        "Ana lives in Rome.\nBo lives in Oslo.\nRome lies in Italy.\nOslo lies in Norway.\n"
        "Which country does Bo live in?\nBo lives in Oslo. Oslo lies in Norway.\nNorway"
    ),
    "pair": (
        "Rome lies in Italy.\nOslo lies in Norway.\nWhich country does Oslo lie in?\nOslo lies in Norway.\nOslo, Norway"
    ),
}


@dataclass(frozen=True)
class Wording:
    """How questions are put to the model, for arms that may choose it.

    Attributes:
        system: a system message.
        instruction: what follows each question.
        turns: that many of `EXAMPLES` come first, as turns of the chat.
    """

    system: str | None = None
    instruction: str | None = None
    turns: int = 0


def list_wordings(task: str) -> dict[str, Wording]:
    """Those that are tried."""
    alone = ALONE[task]
    return {
        "alone": Wording(instruction=alone),
        "steps": Wording(instruction=f"Think step by step. Then {alone[0].lower()}{alone[1:]}"),
        "terse-alone": Wording("You answer with one word and nothing else.", alone),
        "few-shot-alone": Wording(f"Here is an example.\n{FEW_SHOT[task]}", alone),
        "turns": Wording(turns=3),
        "turns-alone": Wording(turns=2, instruction=alone),
    }


EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    # task: questions, and answers in the form that a rollout has: facts, the text that ends thinking, the name
    "one-hop": (
        (
            "Bado lies in Neru.\nKumi lies in Sota.\nWife lies in Lago.\nWhich country does Bado lie in?",
            "Bado lies in Neru.\nAnswer:\nNeru",
        ),
        (
            "Goki lies in Tavu.\nPilo lies in Zuwo.\nJufe lies in Keba.\nWhich country does Jufe lie in?",
            "Jufe lies in Keba.\nAnswer:\nKeba",
        ),
        (
            "Vago lies in Peti.\nRudo lies in Hewu.\nLuda lies in Boke.\nWhich country does Rudo lie in?",
            "Rudo lies in Hewu.\nAnswer:\nHewu",
        ),
    ),
    "pair": (
        (
            "Bado lies in Neru.\nKumi lies in Sota.\nWife lies in Lago.\nWhich country does Bado lie in?",
            "Bado lies in Neru.\nAnswer:\nBado, Neru",
        ),
        (
            "Goki lies in Tavu.\nPilo lies in Zuwo.\nJufe lies in Keba.\nWhich country does Jufe lie in?",
            "Jufe lies in Keba.\nAnswer:\nJufe, Keba",
        ),
        (
            "Vago lies in Peti.\nRudo lies in Hewu.\nLuda lies in Boke.\nWhich country does Rudo lie in?",
            "Rudo lies in Hewu.\nAnswer:\nRudo, Hewu",
        ),
    ),
}
CHOOSING_QUESTIONS, CHOOSING_SAMPLES = 24, 8  # training questions that the wording is chosen on, samples of each


@dataclass(frozen=True)
class Arm:
    """One method as it is put to the model.

    Attributes:
        name: in tables.
        objective: as `qredit compare` takes it. Steps of fine-tuning come on top of the arm's rollouts.
        rewarded: nothing but rewards teaches it, and its prompt may have no success: then its weights stay as they are,
            bit for bit, and it ends early.
        worded: the prompt is the best of `list_wordings`, chosen on training questions.
        rate_of: the arm of `SWEPT` whose learning rate it takes.
        reward: what its rollouts are rewarded for; None for the right answer alone.
        field: of batch fields and their makers, as the option of training.
    """

    name: str
    objective: str
    rewarded: bool = False
    worded: bool = False
    rate_of: str = "GARL .75"
    reward: str | None = None
    field: tuple[str, ...] = ()


# In the order in which they are run: each seed of the first six on both tasks; the next five on the first task; those
# with wrong golds; the five on the second; the others last, seed by seed. After seven arms of seed 0, q = 0 was added
# (p̂ begins near 1e-6, where a pocket model escapes with it), and rivals were moved before relatives of GARL. Wrong
# golds came before the five's second task once seed 0 of those was known: who memorises is the question still open.
LEADING = 6, 11
ARMS = (
    Arm("GRPO", "grpo()", rewarded=True, rate_of="best prompt, GRPO"),
    Arm("GARL .75", "garl(q=0.75)"),
    Arm("GARL 0", "garl(q=0.0)"),
    Arm("log-prob", "logprob()", rate_of="log-prob"),
    Arm("best prompt, GRPO", "grpo()", worded=True, rate_of="best prompt, GRPO"),
    Arm("SFT on answers, GRPO", "sft(steps=15, lr=3e-5) then grpo()", rate_of="best prompt, GRPO"),
    Arm("JEPO", "jepo()", rate_of="log-prob"),
    Arm("PAFT .75", "paft(q=0.75)"),
    Arm("GARL auto", "garl(q=auto())"),
    Arm("answers alone", "sft_answer()"),
    Arm("best prompt, GARL .75", "garl(q=0.75)", worded=True),
    Arm("GARL 1", "garl(q=1.0)"),
    Arm("GARL .5", "garl(q=0.5)"),
    Arm("VeriFree", "verifree()"),
    Arm("GARL .75, half behind a hint", "garl(q=0.75, proposal=hint(share=0.5))"),
    Arm(
        "best prompt, format reward, GRPO",
        "grpo()",
        worded=True,
        rate_of="best prompt, GRPO",
        reward="exact_match, 0.1 * format",
    ),
    Arm("OPSD", "opsd()"),
    Arm("RLPR", "rlpr()", rate_of="best prompt, GRPO"),
)
SWEPT = ("GARL .75", "log-prob", "best prompt, GRPO")  # whose rate is chosen by a sweep of its own; others inherit
TASKS = ("one-hop", "pair")
SECOND_TASK_ARMS = (  # in the order in which they are run
    "GRPO",
    "GARL 0",
    "GARL .75",
    "log-prob",
    "best prompt, GRPO",
    "SFT on answers, GRPO",
    "GARL auto",
    "JEPO",
    "PAFT .75",
    "best prompt, GARL .75",
)
NOISY_ARMS = ("log-prob", "JEPO", "GARL .5", "GARL .75", "GARL 1", "GARL auto")

# Part C: the questions of two hops, the answers of other lengths. GARL 0, .5 and auto were added after GARL 0 was seen
# to escape from 1e-6 with short answers: longer ones make a real model as cold as one likes.
LENGTHS = {"name": 8, "chain": 32, "facts": 80}  # what is asked for: its budget in tokens
LENGTH_STEPS = {"name": 6, "chain": 4, "facts": 4}  # those of the longer ones cut from 6 before their first run
LENGTH_THOUGHT, LENGTH_SEED = 24, 0
LENGTH_ARMS = (
    Arm("GARL 0", "garl(q=0.0)"),
    Arm("GARL .5", "garl(q=0.5)"),
    Arm("GARL .75", "garl(q=0.75)"),
    Arm("GARL auto", "garl(q=auto())"),
    Arm("GARL 1", "garl(q=1.0)"),
    Arm("GARL .75, tempered", "garl(q=0.75, temper=0.1)"),
    Arm("log-prob", "logprob()", rate_of="log-prob"),
    Arm("geometric mean", "geometric_mean(pathwise=True)", rate_of="log-prob"),
)
