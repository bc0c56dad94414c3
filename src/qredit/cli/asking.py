"""Options of data and format: what commands that ask a model questions share with training."""

from collections.abc import Mapping

from qredit.cli.options import Kinds, Parser, add_options, some_of
from qredit.runs.options import TrainOptions

SHARED = (
    "task", "data", "style", "prompt_column", "answer_column", "aliases_column", "system_prompt", "instruction",
    "coldness", "chat", "max_completion_length", "answer_budget", "thinking_opening", "thinking_closing", "answer_seam",
    "answer_end", "skip_long", "cpu", "dtype",
)  # fmt: skip
TEMPLATE: Mapping[str, Kinds] = {"chat_template_kwargs": (dict,)}


def add_shared(parser: Parser, *more: str) -> None:
    """A flag for each option of training that counts, and for `more` of them."""
    add_options(parser, some_of(TrainOptions, (*SHARED, *more)), "data and format, as in `qredit train`")
    parser.further = template_options


def template_options() -> Mapping[str, Kinds]:
    """What may be given beside the options of training where questions are only asked."""
    return TEMPLATE
