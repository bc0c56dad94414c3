"""Write raw text as questions, for `qredit train --task jsonl`: which token comes next?

RMT (arXiv 2509.24375) trains on them. TEXT is a text file, or a folder of *.txt, and several may be given. Each row has
the text up to a place as its prompt, the token there as its answer, the model's entropy over it, its tier, easy, medium
or hard by two bounds on the entropy, and the text from there on. `--curriculum shift_tiers(…)` asks them from easy to
hard, `rmt(…)` is the objective, and `--drawing read_on()` adds the likelihood of the text (docs/data.md).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from qredit.cli.parser import Parser, add_options, build_options, select_fields
from qredit.cli.shared_options import split_sources
from qredit.runs.options import TrainOptions, check_minimums, option
from qredit.utils.atomic_files import check_new_file, write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars, to_json_line

SHARED = ("model", "seed", "cpu", "dtype")


@dataclass(frozen=True)
class TextOptions:
    """What of the texts is asked."""

    output: str = option("questions.jsonl", "file of the questions, a line for each")
    medium: float | None = option(None, "entropy from which a token is medium, nats; below it is easy")
    hard: float | None = option(None, "entropy from which it is hard, nats")
    questions: int = option(1000, "questions of each tier, at most")
    window: int | None = option(None, "tokens of a text that are read at once; default: 512, or the model's context")
    behind: int = option(32, "tokens of the text that a row holds from the one that is asked on, at most")
    least: int = option(16, "tokens of a prompt, at least")

    def __post_init__(self) -> None:
        check_minimums(self, {"questions": 1, "window": 2, "behind": 1, "least": 1})
        if self.medium is None or self.hard is None:
            raise QreditError("medium and hard are needed, the entropies in nats that part the tiers; none is known")
        if not 0 <= self.medium < self.hard:
            raise QreditError(f"medium must be at least 0 and less than hard, got {self.medium} and {self.hard}")
        if self.window is not None and self.least >= self.window:
            raise QreditError(f"least={self.least} leaves no token of window={self.window} to be asked")

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the medium tier."""
        assert self.medium is not None, "checked above"
        assert self.hard is not None, "checked above"
        return self.medium, self.hard


def add_arguments(parser: Parser) -> None:
    """The texts, the options of the command, then those it shares with training."""
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="text file in UTF-8, or folder of *.txt")
    add_options(parser, TextOptions, "questions")
    add_options(parser, select_fields(TrainOptions, SHARED), "model, as in `qredit train`")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Write the questions, and say how many each tier has.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    texts = given.pop("texts")
    own, shared = split_sources([("the command line", given)], TextOptions, SHARED)
    asked = build_options(TextOptions, own)
    options = build_options(TrainOptions, [("the command", {"task": "jsonl"}), *shared])
    file = Path(asked.output).expanduser()
    check_new_file(file, "the questions")
    from qredit.runs.load import find_weights, load_model, load_tokenizer
    from qredit.runs.progress_bars import make_progress_bars
    from qredit.runs.text_data import TIERS, check_window, choose_places, find_texts, list_places, read_text

    files = find_texts(texts)
    path = find_weights(options)
    tokenizer = load_tokenizer(path)
    read = {one: read_text(one, tokenizer) for one in files}
    model = load_model(path, options.device).eval()
    window = check_window(asked.window, model, tokenizer)
    places = []
    with make_progress_bars(progress) as bars:
        bar = bars.add_task("texts", total=len(files), note="")
        for number, (one, text) in enumerate(read.items(), 1):
            shape = {"window": window, "least": asked.least, "behind": asked.behind}
            places.append(list_places(text, f"{number}:{one.name}", model, tokenizer, **shape, half=options.half))
            bars.advance(bar)
    rows = choose_places(places, tokenizer, asked.bounds, asked.questions, options.seed)
    if not rows:
        raise QreditError(f"no text has a token behind {asked.least} others that can be asked; lower least")
    write_text_atomic(file, "".join(map(to_json_line, rows)))
    counts, total = Counter(row["tier"] for row in rows), sum(map(len, places))
    out.print(", ".join(f"{counts[tier]} {tier}" for tier in TIERS) + f", of {total} places")
    out.print(f"questions: {escape(escape_control_chars(str(file)))}", soft_wrap=True)
    return {"questions": str(file), "tiers": {tier: counts[tier] for tier in TIERS}, "places": total}
