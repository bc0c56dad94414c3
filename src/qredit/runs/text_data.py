"""Raw text as questions: which token comes next, of each place of a text with the model's entropy there."""

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qredit.engine.model_limits import get_context_length
from qredit.rewards.judge.steps import decode_pieces
from qredit.rollouts.tokenizer import encode, encode_prompts, find_first_control_token, get_control_tokens
from qredit.tasks.normal_forms import find_unreadable
from qredit.utils.device import autocast
from qredit.utils.errors import QreditError

TIERS = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Place:
    """A token of a text that can be asked for.

    Attributes:
        id: names file and place.
        context: ids of the text before it, from the beginning of its window on.
        token: its text, without white space around it.
        entropy: of the model's distribution over the token there, nats.
        behind: ids of the text from the token on.
    """

    id: str
    context: tuple[int, ...]
    token: str
    entropy: float
    behind: tuple[int, ...]


@dataclass(frozen=True)
class TextPlaces(Dataset[Place]):
    """The tokens of a text that can be asked for, in its order, kept in some twenty bytes each.

    Attributes:
        name: of the file.
        ids: of the whole text.
        window: tokens that are read at once; a question's context begins where its window does.
        behind: tokens of the text that a row keeps from the one that is asked on, at most.
        numbers: which of the ids can be asked for.
        entropies: at each of these, float32, as they are computed.
        tokens: the text of each; equal ones are one object.
    """

    name: str
    ids: Sequence[int]
    window: int
    behind: int
    numbers: Sequence[int]
    entropies: Sequence[float]
    tokens: Sequence[str]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Place:
        number = self.numbers[index]
        start = number - number % self.window
        context = tuple(self.ids[start:number])
        after = tuple(self.ids[number : min(number + self.behind, start + self.window)])
        return Place(f"{self.name}:{number}", context, self.tokens[index], self.entropies[index], after)


def find_texts(paths: Sequence[str]) -> list[Path]:
    """The text files that are named, and those of folders that are: *.txt in them, by name.

    Raises:
        QreditError: there is no such file, or a folder without one.
    """
    found: list[Path] = []
    for path in (Path(name).expanduser() for name in paths):
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files:
            raise QreditError(f"no .txt file in {path}")
        if not files[0].is_file():
            raise QreditError(f"no text file {path}")
        found += files
    return found


def read_text(file: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """A text, as it is.

    Args:
        file: in UTF-8.
        tokenizer: of the model.

    Raises:
        QreditError: it cannot be read, is no UTF-8, or spells a control token.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")  # a mark that only says so is no part of the text
    except (OSError, UnicodeDecodeError) as error:
        raise QreditError(f"cannot read {file} as a text in UTF-8: {error}") from None
    if bad := find_unreadable(text):
        raise QreditError(f"{file} holds {bad}")
    control = find_first_control_token(text, get_control_tokens(tokenizer))
    if control is not None:
        raise QreditError(f"{file} spells the control token {control[1]!r} at character {control[0]}; take it out")
    return text


def name_tier(entropy: float, bounds: tuple[float, float]) -> str:
    """easy below the first bound, hard from the second on, medium between them.

    Args:
        entropy: nats.
        bounds: of the medium tier, nats.
    """
    return TIERS[sum(entropy >= bound for bound in bounds)]


def list_places(
    text: str,
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    window: int,
    least: int,
    behind: int,
    half: bool,
) -> TextPlaces:
    """The tokens of a text that can be asked for, those of mere white space or of half a character left out.

    Args:
        text: of a file.
        name: of the file.
        model: whose entropy is taken, in one forward pass for each window.
        tokenizer: its own.
        window: as `TextPlaces` has it.
        least: tokens of a context.
        behind: as `TextPlaces` has it.
        half: compute in bf16.
    """
    ids, before = array("i", encode(tokenizer, text)), find_start(tokenizer)
    numbers, entropies, tokens = array("i"), array("f"), list[str]()
    for start in range(0, len(ids), window):
        part = ids[start : start + window].tolist()
        if len(part) <= least:
            continue
        measured, pieces = measure_entropies(model, [*before, *part], half), decode_pieces(part, tokenizer)
        for at in range(least, len(part)):
            token = pieces[at].strip()
            if token and "\N{REPLACEMENT CHARACTER}" not in token and pieces[at - 1]:
                numbers.append(start + at)
                entropies.append(measured[len(before) + at - 1])
                tokens.append(sys.intern(token))
    return TextPlaces(name, ids, window, behind, numbers, entropies, tokens)


def find_start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a prompt that is mere text, such as a beginning-of-text token."""
    return encode_prompts(tokenizer, ["a"])[0][: -len(encode(tokenizer, "a"))]


@torch.no_grad()
def measure_entropies(model: PreTrainedModel, ids: Sequence[int], half: bool) -> list[float]:
    """The entropy of the distribution over what follows each token, in nats.

    Args:
        model: in evaluation mode.
        ids: of a text.
        half: compute in bf16.
    """
    with autocast(model.device, half):
        logits = model(torch.tensor([list(ids)], device=model.device)).logits[0]
    logp = logits.float().log_softmax(-1)
    found: list[float] = (-(logp.exp() * logp).sum(-1)).tolist()
    return found


def choose_places(
    texts: Sequence[TextPlaces],
    tokenizer: PreTrainedTokenizerBase,
    bounds: tuple[float, float],
    most: int,
    seed: int,
) -> list[dict[str, Any]]:
    """So many questions of each tier, drawn uniformly from its places, as rows in the order of the texts.

    A place is left out whose context, as a text, has other ids than in the whole text, for the prompt would be another,
    or is mere white space, which is no prompt.

    Args:
        texts: with their places.
        tokenizer: of the model.
        bounds: of the medium tier, nats.
        most: questions of a tier.
        seed: the draw is a function of it.
    """
    places: ConcatDataset[Place] = ConcatDataset(texts)
    order = array("q", range(len(places)))
    Random(seed).shuffle(order)
    counts = dict.fromkeys(TIERS, 0)
    rows: dict[int, dict[str, Any]] = {}
    for number in order:
        one = places[number]
        tier = name_tier(one.entropy, bounds)
        if counts[tier] == most:
            continue
        prompt = str(tokenizer.decode(list(one.context), clean_up_tokenization_spaces=False))
        if not prompt.strip() or tuple(encode(tokenizer, prompt)) != one.context:
            continue
        counts[tier] += 1
        after = str(tokenizer.decode(list(one.behind), clean_up_tokenization_spaces=False))
        rows[number] = {
            "id": one.id,
            "prompt": prompt,
            "answer": one.token,
            "tier": tier,
            "entropy": one.entropy,
            "continuation": after.rstrip("\N{REPLACEMENT CHARACTER}"),
        }
    return [rows[number] for number in sorted(rows)]


def check_window(window: int | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The window, where the model's context holds it; without one the model's context, at most 512 tokens.

    Args:
        window: as asked.
        model: that reads it.
        tokenizer: its own, which may put a token before each window.

    Raises:
        QreditError: the model's context is shorter.
    """
    context = get_context_length(model)
    most = None if context is None else context - len(find_start(tokenizer))
    if window is None:
        return min(512, most or 512)
    if most is not None and window > most:
        raise QreditError(f"window={window} is more than the {most} tokens of a text that the model's context holds")
    return window
