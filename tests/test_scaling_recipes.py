"""accelerate reads the recipes for several cards, and each is what its name says."""

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.support.paths import ROOT

KINDS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
FOLDER = ROOT / "recipes" / "accelerate"


def test_there_is_one_for_each_kind():
    assert {path.stem for path in FOLDER.iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name):
    read = load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses unknown keys
    assert read.distributed_type == KINDS[name]
    assert name[-1] not in "23" or name[-1] in str(read.fsdp_config or read.deepspeed_config)
    assert f"recipes/accelerate/{name}.yaml" in (FOLDER / f"{name}.yaml").read_text().split("\n")[0]
