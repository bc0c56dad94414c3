"""Choosing the subcommand; what every subcommand shares: --json, --quiet, errors in one line with exit status 2."""

import contextlib
import importlib
import io
import itertools
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from qredit.cli.signals import StopState, interrupt_on_sigterm
from qredit.runs.library_logging import silence_libraries
from qredit.utils.atomic_files import DISK_FULL_ERRNOS
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.extras import require_extras, require_one_extra
from qredit.utils.sanitize import to_one_line

COMMANDS: Mapping[str, str] = {
    "demo": "see GRPO stall and GARL escape, on this machine, in minutes",
    "train": "train a model from questions and answers",
    "sft": "fine-tune on the answers themselves, or on rationales and answers; train goes on from it",
    "dpo": "train on preferences: a run's right rollouts against its wrong ones",
    "intervene": "rows for sft: the first wrong step of wrong rollouts, replaced by the model that sees a solution",
    "probe": "before a run: is this model too cold for GRPO, which estimator, q and M",
    "value": "the value of each training example from a forward pass: which answers may be wrong",
    "search": "search trees of reasoning steps: labelled steps to train a process reward model on",
    "eval": "sample answers and score them: p@1, p@k, maj@k, with intervals",
    "compare": "train with several objectives on equal rollouts: one table, one figure",
    "report": "show runs on one HTML page: curves, words, and the credit of every token",
    "objectives": "list the objectives and the stages they are made of",
    "tasks": "list the tasks",
    "verl": "train on verl: one node with many GPUs, or several nodes",
    "text-data": "write raw text as questions: which token comes next, with the model's entropy there",
    "subgoal-data": "write questions as subgoals: what is left behind the first steps, or sub-questions",
    "verl-data": "write a task's examples as the parquet files that verl reads",
    "bench": "time a training step beside TRL's own",
    "lab": "measure theorems behind the objectives: escape, optimum, noise, bias, saturation, escort, coverage, cliff, "
    "best_of_n",
}
NEEDS: Mapping[str, Sequence[str]] = {
    "demo": ("trl", "report"),
    "train": ("trl",),
    "sft": ("trl",),
    "dpo": ("trl",),
    "intervene": ("trl",),
    "probe": ("trl",),
    "value": ("trl",),
    "text-data": ("trl",),
    "subgoal-data": ("trl",),
    "search": ("trl",),
    "eval": ("trl",),
    "compare": ("trl", "report"),
    "verl": ("verl",),
    "bench": ("trl",),
    "lab": ("report",),
}
"""The extras without which a command does not start; what else it reads, such as a reward, may need more."""
NEEDS_ONE_OF: Mapping[str, Sequence[str]] = {"verl-data": ("trl", "verl")}
"""Extras of which any one lets a command start: engines do not share an environment."""
SHARED_FLAGS = ("--json", "--quiet")
FAILED, USAGE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status.

    2: something given cannot be used, said in one line. 1: an error of our own, with its traceback. 130: interrupted;
    143: ended by SIGTERM, as orderly.
    """
    words = _move_flags_behind_command(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know every character of a text
    with interrupt_on_sigterm() as stopped:
        try:
            status = _main(words, stopped)
            _flush()
        except SystemExit:  # argparse, after the help of a command
            _flush()
            raise
        except OSError as error:
            _leave_output()
            return _report_unwritable(error)
        return status


def _main(words: Sequence[str], stopped: StopState) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())  # noqa: T201
        return 0
    if words[0] in ("-V", "--version"):
        print(importlib.import_module("qredit").__version__)  # noqa: T201
        return 0
    as_json = "--json" in words
    with _everything_on_stderr() if as_json else contextlib.nullcontext():
        status, result = _run(words, as_json, stopped)
    if as_json:
        print(json.dumps(result, default=str))  # noqa: T201
    return status


def _flush() -> None:
    """Write out what is still held back, while what cannot be written can still be told."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _leave_output() -> None:
    """Write nothing more: Python flushes once more as it ends, and would fail again."""
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_unwritable(error: OSError) -> int:
    """Say in one line what cannot be written; nothing where who reads it has seen enough. The exit status."""
    if not isinstance(error, BrokenPipeError):
        line = to_one_line(f"cannot write {error.filename or 'the output'}: {error.strerror}")
        print(f"qredit: {line}", file=sys.stderr)  # noqa: T201
    return FAILED


def _move_flags_behind_command(argv: Sequence[str]) -> list[str]:
    """The words, flags that every subcommand takes moved behind it: `qredit --json tasks` is `qredit tasks --json`."""
    shared = list(itertools.takewhile(lambda word: word in SHARED_FLAGS, argv))
    rest = list(argv[len(shared) :])
    return [rest[0], *shared, *rest[1:]] if rest else []


@contextlib.contextmanager
def _everything_on_stderr() -> Iterator[None]:
    """Send to standard error what would go to standard output: also what libraries and child processes print."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # there is no standard output or error of the process
        kept = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _run(words: Sequence[str], as_json: bool, stopped: StopState) -> tuple[int, Any]:
    try:
        return 0, _command(words, as_json)
    except QreditError as error:
        line = to_one_line(str(error))
        print(f"qredit: {line}", file=sys.stderr)  # noqa: T201
        return USAGE, {"error": line}
    except KeyboardInterrupt as interrupt:
        print("; ".join([f"qredit: {stopped.word}", *map(to_one_line, interrupt.args)]), file=sys.stderr)  # noqa: T201
        return stopped.status, {"error": stopped.word}
    except Exception as error:
        if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS):
            raise
        traceback.print_exc()
        return FAILED, {"error": to_one_line(f"{type(error).__name__}: {error}")}


def _command(words: Sequence[str], as_json: bool) -> Any:
    name, *rest = words
    if name not in COMMANDS:
        raise unknown_name_error("subcommand", name, COMMANDS)
    from rich.console import Console  # here, for the help above needs none of it

    from qredit.cli.parser import Parser, read_arguments

    silence_libraries()
    module: ModuleType = importlib.import_module(f"qredit.cli.{name.replace('-', '_')}_command")
    parser = Parser(prog=f"qredit {name}", description=module.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object, everything else to standard error")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    module.add_arguments(parser)
    given = read_arguments(parser, rest)
    quiet = given.pop("quiet")
    given.pop("json")
    require_extras(f"qredit {name}", *NEEDS.get(name, ()))
    require_one_extra(f"qredit {name}", *NEEDS_ONE_OF.get(name, ()))
    out = Console(file=sys.stdout, quiet=as_json, highlight=False, emoji=False)
    progress = Console(file=sys.stderr, quiet=quiet, highlight=False, emoji=False)
    return module.run(given, out, progress)


def _help() -> str:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: qredit COMMAND [--help] [options]\n\n"
        "Train reasoning models from answers alone.\n\n"
        f"commands:\n{listed}\n\n"
        "Every command takes --json (one JSON object on standard output) and --quiet."
    )
