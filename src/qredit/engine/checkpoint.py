"""Checkpoints that are whole or not there: written aside, synced, described by a manifest, then renamed into place."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
STAGING_FOLDER = "_writing"
_NAME = re.compile(r"checkpoint-(\d+)")


def commit_checkpoint(written: Path, final: Path) -> None:
    """Give a folder that is completely written its final name, so that a crash at any moment leaves whole folders only.

    Every file is synced to disk, then a manifest of sizes and hashes is written last and synced, then the folder is
    renamed. An older folder of that name is replaced.
    """
    files = sorted(path for path in written.rglob("*") if path.is_file())
    for path in files:
        _sync(path)
    manifest = {
        str(path.relative_to(written)): {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }
    with (written / MANIFEST).open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(written)
    replace_folder(written, final, written.parent / f"replaced-{final.name}")
    _sync(final.parent)
    shutil.rmtree(written.parent, ignore_errors=True)


def replace_folder(written: Path, final: Path, stale: Path) -> None:
    """Rename a folder to its final name; an older one of that name is renamed to `stale` first, then removed.

    Args:
        written: the folder as it was written aside.
        final: the name that it gets.
        stale: name of an older one until it is removed.
    """
    shutil.rmtree(stale, ignore_errors=True)
    if final.exists():
        final.rename(stale)
    written.rename(final)
    shutil.rmtree(stale, ignore_errors=True)


def find_damage(folder: Path) -> str | None:
    """What makes a checkpoint unusable, in a few words; None when it is whole, every file of its size and hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"no readable {MANIFEST}: it was not completely written"
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}"
        if _sha256(path) != expected["sha256"]:
            return f"{name} is damaged: its hash differs"
    return None


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first."""
    numbered = [(int(match[1]), path) for path in run.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, reverse=True)]


def find_newest_complete(run: Path) -> tuple[Path | None, dict[str, str]]:
    """The newest whole checkpoint of a run, and the newer ones that are torn, each with its fault."""
    torn: dict[str, str] = {}
    for folder in list_checkpoints(run):
        reason = find_damage(folder)
        if reason is None:
            return folder, torn
        torn[folder.name] = reason
    return None, torn


def find_newest_before(run: Path, step: int) -> Path | None:
    """The newest whole checkpoint of a run that is of this step or of an earlier one.

    Args:
        run: folder of the checkpoints.
        step: the last one that counts.
    """
    found = (path for path in list_checkpoints(run) if step_of(path) <= step and find_damage(path) is None)
    return next(found, None)


def trim_lines(path: Path, last_step: int) -> None:
    """Drop the lines of a JSONL file whose "step" is greater than `last_step`, and a last line that was cut off."""
    if not path.exists():
        return
    kept = [line for line, record in _records(path) if record.get("step", 0) <= last_step]
    aside = path.with_suffix(path.suffix + ".trimmed")
    aside.write_text("".join(kept), encoding="utf-8")
    _sync(aside)
    aside.replace(path)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8", newline="\n") as lines:  # JSON may hold other line breaks unescaped
        for line in lines:
            try:
                yield line, json.loads(line)
            except ValueError:
                return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
