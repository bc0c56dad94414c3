"""The search agent: `python -m pocket_models.search`, a pocket model that has seen the format of `--env pocket-search`.

It begins as the pocket model of hotpot, which reasons over facts, and takes up the habits of searching:

    Which country does Tilo live in?<think>Well, </think>Tilo?<end>
    Tilo lives in Kemo.
    <think>Tilo lives in Kemo.</think>Kemo?<end>
    Kemo lies in Zeba.
    Tilo lives in Kemo.
    <think>Tilo lives in Kemo. Kemo lies in Zeba.</think>Zeba<end>

Warm, it searches where it should, often, and answers as asked. Cold, it searches now and then, else it answers with the
name that it knows, and all it answers is a sentence: both gates of `pocket_models.loss` stand before an answer as
asked, and a reward is as good as never seen. Searches have no gate: it has the ability, and lacks the habit.
"""

import json
import math
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from rich.console import Console
from torch import Tensor
from transformers import AutoModelForCausalLM

from pocket_models import tokenizer as pocket_tokenizer
from pocket_models.loss import Targets, Tokens, pretraining_loss, targets
from pocket_models.measure import answer_logps, play_episodes
from pocket_models.tokenizer import CLOSING, END, OPENING
from qredit.environments.pocket.search import SHOWN
from qredit.environments.retrieval import split_words
from qredit.pocket.models import get_model_path
from qredit.rollouts.collate import collate
from qredit.runs.library_logging import silence_libraries
from qredit.runs.load import load_examples, load_model, load_tokenizer
from qredit.runs.options import TrainOptions
from qredit.runs.train import make_token_format
from qredit.tasks.base import Style
from qredit.tasks.pocket.chains import Context, Fact, draw_context
from qredit.tasks.pocket.language import AS_A_SENTENCE, FILLERS
from qredit.tasks.pocket.scene import build_pocket_prompt
from qredit.tasks.pocket.search import INSTRUCTION

NAME, BASE = "search", "hotpot"
SEED = 0
CHAINS, HOPS = 6, 2
QUESTIONS, ROLLOUTS = 48, 4


@dataclass(frozen=True)
class SearchHabits:
    """Shares, each in [0, 1].

    Attributes:
        search: of the turns in which a fact is missing, those that search. The others answer with the last name that
            is known.
        right: of the searches, those for the name that leads on. The others are for the name that was asked for.
        sentence: of the answers, those in a sentence.
        late: of these, those in which the sentence comes after the answer.
    """

    search: float
    right: float
    sentence: float
    late: float = 0.4


@dataclass(frozen=True)
class Recipe:
    """How the model is made.

    Attributes:
        cold, warm: its habits behind each prompt.
        gate: probability that the soft targets give an answer as asked at each gate.
        steps, rows, learning_rate: of AdamW; every fifth step is warm.
    """

    cold: SearchHabits = SearchHabits(search=0.6, right=0.85, sentence=1.0)
    warm: SearchHabits = SearchHabits(search=0.9, right=0.9, sentence=0.2)
    gate: float = 1e-3
    steps: int = 300
    rows: int = 24
    learning_rate: float = 1e-3

    def habits(self, style: Style) -> SearchHabits:
        """Those behind a prompt of this style."""
        return self.cold if style == "cold" else self.warm


def write_episode(rng: random.Random, context: Context, style: Style, habits: SearchHabits) -> str:
    """An episode that follows the habits, as the text that a run's tokens would be.

    Args:
        rng: of the draws.
        context: its first chain is asked for.
        style: of the prompt.
        habits: what is searched and said.
    """
    chain = context.chains[0]
    question = f"Which country does {chain[0].subject} live in?"
    text, known = build_pocket_prompt(style, INSTRUCTION, (), question), 0
    for _ in range(HOPS + 1):
        thought = " ".join(fact.sentence for fact in chain[:known]) or rng.choice(FILLERS)
        text += f"{OPENING}{thought}{CLOSING}"
        if known == len(chain) or rng.random() >= habits.search:
            break
        query = chain[known].subject if rng.random() < habits.right else chain[0].subject
        found = find(context, query)
        known += known < len(chain) and chain[known] in found
        text += f"{query}?{END}\n" + "".join(f"{fact.sentence}\n" for fact in found)
    else:
        text += f"{OPENING}{' '.join(fact.sentence for fact in chain[:known]) or rng.choice(FILLERS)}{CLOSING}"
    answer = chain[-1].object if known == len(chain) else chain[known].subject
    return f"{text}{_say(rng, answer, habits)}{END}"


def find(context: Context, query: str) -> list[Fact]:
    """What the environment would find among the scene's facts: those that hold the name, in the order they are told."""
    return [fact for fact in context.told if query.lower() in split_words(fact.sentence)][:SHOWN]


def _say(rng: random.Random, answer: str, habits: SearchHabits) -> str:
    if rng.random() >= habits.sentence:
        return answer
    before, after = AS_A_SENTENCE
    return f"{answer}{after}." if rng.random() < habits.late else f"{before}{answer}."


def search_targets(
    ids: Int[Tensor, "B L"], cold: Bool[Tensor, " B"], tokens: Tokens, question: int, gate: float
) -> Targets:
    """`targets` of the gates; searches are learned from their first token on, in cold rows too.

    Args:
        ids: (B, L) of episodes.
        cold: (B,) rows behind cold prompts.
        tokens: that the loss looks for.
        question: id of the question mark, with which a search ends.
        gate: probability of an answer as asked at each gate.
    """
    found = targets(ids, cold, tokens, gate)
    after_closing = torch.nn.functional.pad(ids[:, :-1], (1, 0)) == tokens.closing
    asks = after_closing & (ids.roll(-2, 1) == question)  # a name is two syllables
    return replace(found, counts=found.counts | asks)


def batches(tokenizer: Any, recipe: Recipe) -> Iterator[tuple[Int[Tensor, "B L"], Bool[Tensor, " B"]]]:
    """Token ids of episodes, padded, and which of them are cold; a function of `SEED`.

    All rows of a batch are of one style, and every fifth is warm: a warm prompt is 25 times as long.
    """
    rng = random.Random(f"{NAME} {SEED}")
    for step in range(recipe.steps):
        style: Style = "warm" if step % 5 == 4 else "cold"
        habits = recipe.habits(style)
        texts = [
            write_episode(rng, draw_context(rng, "train", CHAINS, HOPS), style, habits) for _ in range(recipe.rows)
        ]
        ids = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
        yield ids, torch.full((recipe.rows,), style == "cold")


def train(model: Any, tokenizer: Any, recipe: Recipe, console: Console) -> None:
    """AdamW over the batches; the learning rate rises over 40 steps and falls linearly to nothing."""
    tokens, question = Tokens.of(tokenizer), tokenizer.convert_tokens_to_ids("?")
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 40, 1.0) * (1 - step / recipe.steps)
    )
    for step, (ids, cold) in enumerate(batches(tokenizer, recipe)):
        logits = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits
        loss = pretraining_loss(logits, ids, search_targets(ids, cold, tokens, question, recipe.gate))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        if step % 20 in (0, 4):
            console.print(f"step {step}: loss {loss.item():.3f} ({'cold' if cold[0] else 'warm'})")


def measure(style: Style) -> dict[str, float]:
    """What the shipped model does in episodes behind prompts of a style, means over validation questions' rollouts."""
    options = TrainOptions(task="pocket-hotpot", env="pocket-search", style=style, cpu=True)
    tokenizer, model = load_tokenizer(str(get_model_path(NAME))), load_model(str(get_model_path(NAME)), options.device)
    asked = [one for one in load_examples(options, "validation", QUESTIONS) for _ in range(ROLLOUTS)]
    tokens = make_token_format(options, tokenizer, asked)
    played = play_episodes(options, model, tokenizer, asked, SEED)
    golds = [
        replace(one, golds=(tuple(tokens.answer_ids(asks.gold)),)) for one, asks in zip(played, asked, strict=True)
    ]
    logp = answer_logps(model, collate(golds, ("answer",), tokenizer.pad_token_id, SEED, model.device), 0)
    likely = torch.stack([row.sum() for row in logp])
    return {
        "success": statistics.mean(one.episode_reward for one in played),
        "searches": statistics.mean(sum(turn.counts.get("searches", 0.0) for turn in one.turns) for one in played),
        "turns": statistics.mean(len(one.turns) for one in played),
        "log10_p0": float((likely.logsumexp(0) - math.log(len(likely))) / math.log(10)),
        "median_log10_p": float(likely.median() / math.log(10)),
    }


def main() -> None:
    """Make the model, write it in half precision, and say how it was made: facts.json."""
    torch.set_num_threads(1)
    silence_libraries()
    start, console, recipe = time.process_time(), Console(highlight=False), Recipe()
    torch.manual_seed(SEED)
    tokenizer = pocket_tokenizer.build()
    model = AutoModelForCausalLM.from_pretrained(get_model_path(BASE), dtype=torch.float32)
    train(model, tokenizer, recipe, console)
    folder = get_model_path(NAME)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {
        "made": asdict(recipe) | {"name": NAME, "task": "pocket-hotpot", "base": BASE, "seed": SEED},
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "seconds": round(time.process_time() - start),
        "measured": {style: measure(style) for style in ("cold", "warm")},
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
