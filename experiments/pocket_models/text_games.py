"""The player of text games: a pocket model that was shown how TextWorld's own experts play.

    Play.

    First, take the thing6 from the box1. Next, … <think></think>take thing6 from box1<end>
    You take the thing6 from the box1.
    <think></think>…

Games have two rooms and two quests of at most two commands, each quest a point; what is told first names all of them in
their order. A few games are compiled, and what their experts do and read is recorded. Whenever an episode is shown its
numbers and the letters of its keys are exchanged for others: so the model learns to read names off, and not which
there are. It is stopped while it still mixes them up.
"""

import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM

from pocket_models import tokenizer as pocket_tokenizer
from pocket_models.tokenizer import CLOSING, END, OPENING
from qredit.environments.adapters.textworld import TextWorldGame, is_story, list_expert_commands
from qredit.pocket.models import get_model_path
from qredit.rollouts.tokenizer import vocabulary_size

PROMPT = "Play."
SEED = 0
ROOMS, OBJECTS, QUESTS, COMMANDS = 2, 3, 2, 2
BEST_SCORE = QUESTS
_PIECE = re.compile(r" ?[A-Za-z]+|\d+|.", re.DOTALL)
_NUMBERS = (*string.digits, *(f"{number:02}" for number in range(100)))
_LETTER = re.compile(r"\b[A-Z](?=-)")
_CONTEXT = 2048


@dataclass(frozen=True)
class Recipe:
    """How the player is made.

    Attributes:
        base: the pocket model that it begins as: one that reads digits off a table.
        steps, rows, learning_rate: of AdamW.
        reading: of the steps, the first ones, in which what is read is learned, too: it names things again and again.
    """

    base: str = "finqa"
    steps: int = 600
    rows: int = 8
    learning_rate: float = 1.5e-3
    reading: int = 250


@dataclass(frozen=True)
class Expert:
    """How a game is won: what is read first, then each command, and what is read after each but the last."""

    commands: tuple[str, ...]
    read: tuple[str, ...]

    @property
    def text(self) -> str:
        """The episode, as the text that a run's tokens would be."""
        text = f"{PROMPT}\n\n{self.read[0]}"
        for number, command in enumerate(self.commands):
            text += f"{OPENING}{CLOSING}{command}{END}"
            text += f"\n{self.read[number + 1]}\n" if number + 1 < len(self.read) else ""
        return text


def compile_game(seed: int, folder: Path) -> Path:
    """The game of a seed, made where it is not there yet: the same on every machine."""
    import textworld  # here: an extra

    path = folder / f"{seed}.z8"
    if not path.is_file() or not is_story(path.read_bytes()):
        options = textworld.GameOptions()
        options.seeds, options.path, options.force_recompile = seed, str(path), True
        options.nb_rooms, options.nb_objects, options.nb_parallel_quests = ROOMS, OBJECTS, QUESTS
        options.quest_length, options.grammar.theme = COMMANDS, "basic"
        textworld.make(options)
    return path


def record_expert(path: Path) -> Expert:
    """What TextWorld's expert does in a game, and reads."""
    game, commands = TextWorldGame(str(path)), list_expert_commands(str(path))
    read = [str(game.reset({}, SEED).observation)]
    read += [str(game.step(command).observation) for command in commands]
    game.close()
    return Expert(commands, tuple(read[:-1]))


def rename(rng: random.Random, text: str) -> str:
    """The text with its digits and the letters before a dash exchanged for others, each for the same one throughout."""
    digits, letters = list(string.digits), list(string.ascii_uppercase)
    rng.shuffle(digits)
    rng.shuffle(letters)
    other = dict(zip(string.ascii_uppercase, letters, strict=True))
    renumbered = text.translate(str.maketrans(string.digits, "".join(digits)))
    return _LETTER.sub(lambda found: other[found[0]], renumbered)


def list_pieces(texts: Sequence[str]) -> list[str]:
    """The tokens of the games: words with the space before them, numbers, the letters of keys, and marks."""
    words = {piece for text in texts for part in re.split("<[/a-z]+>", text) for piece in _PIECE.findall(part)}
    letters = {f"{space}{letter}" for space in ("", " ") for letter in string.ascii_uppercase}
    return sorted(words | letters | set(_NUMBERS))


def batches(experts: Sequence[Expert], tokenizer: Any, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids (B, L) of episodes, padded, and which are no padding; a function of `SEED`."""
    rng = random.Random(SEED)
    for _ in range(recipe.steps):
        texts = [rename(rng, rng.choice(experts).text) for _ in range(recipe.rows)]
        found = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        yield found["input_ids"], found["attention_mask"].bool()


def find_said(ids: Int[Tensor, "B L"], opening: int, end: int) -> Bool[Tensor, "B L"]:
    """The tokens that the player says: from behind the opening of a turn to its end."""
    before = torch.nn.functional.pad(ids[:, :-1], (1, 0))
    return (before == opening).cumsum(1) > (before == end).cumsum(1)


def lm_loss(
    model: Any, ids: Int[Tensor, "B L"], there: Bool[Tensor, "B L"], counts: Bool[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the tokens that count, in nats.

    Args:
        model: predicts them.
        ids: (B, L) of texts.
        there: (B, L) what is no padding.
        counts: (B, L) what is learned.
    """
    logp = model(input_ids=ids, attention_mask=there.long()).logits[:, :-1].log_softmax(-1)
    said = logp.gather(-1, ids[:, 1:, None])[..., 0]
    loss: Tensor = -said[counts[:, 1:]].mean()
    return loss


def adopt(base: str, tokenizer: Any) -> Any:
    """A pocket model with the tokens of another tokenizer: those of the same text are taken over, others are new."""
    old = pocket_tokenizer.build().get_vocab()
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(get_model_path(base), dtype=torch.float32)
    rows = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(vocabulary_size(tokenizer), mean_resizing=False)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        weight.normal_(std=float(rows.std()))
        for text, id in tokenizer.get_vocab().items():
            if text in old:
                weight[id] = rows[old[text]]
    model.config.max_position_embeddings = _CONTEXT
    for settings in (model.config, model.generation_config):
        settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return model


def make_player(folder: Path, games: Sequence[Path], recipe: Recipe) -> list[float]:
    """Train the player on the experts of some games and write it; the loss of each step.

    Args:
        folder: where model and tokenizer are written.
        games: files of compiled games.
        recipe: how.
    """
    experts = [record_expert(path) for path in games]
    tokenizer = pocket_tokenizer.build(list_pieces([one.text for one in experts]))
    opening = tokenizer.convert_tokens_to_ids(OPENING)
    model = adopt(recipe.base, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 40, 1.0) * (1 - step / recipe.steps)
    )
    losses = []
    for step, (ids, there) in enumerate(batches(experts, tokenizer, recipe)):
        said = there if step < recipe.reading else there & find_said(ids, opening, tokenizer.eos_token_id)
        loss = lm_loss(model, ids, there, said)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return losses
