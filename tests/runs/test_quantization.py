"""4-bit weights under adapters: what is refused, and runs with them where bitsandbytes is installed."""

import json
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from qredit import QreditError
from qredit.cli import main
from qredit.runs.load import load_model
from qredit.runs.options import TrainOptions
from qredit.runs.quantization import make_quantization_config
from qredit.runs.train import check_precision, list_shared_arguments
from qredit.trl.memory_estimate import count_parameters, count_weight_bytes
from qredit.utils import extras
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.tiny import model

WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # blocks of 64 numbers share a scale
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
FOUR_BIT = {"load_in_4bit": True, "lora": True, "lora_r": 4}


@pytest.fixture
def chosen(tmp_path):
    data = data_file(tmp_path / "rows.jsonl")
    return {"task": "jsonl", "data": data, "model": model_folder(tmp_path / "model", **WIDE)}


ABSENT = "load_in_4bit needs bitsandbytes, not installed here; install with: pip install 'qredit[quantization]'"
BESIDE = {"use_vllm": "true", "vllm_mode": "server"}


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("train", {"load_in_4bit": True}, "load_in_4bit needs lora"),
        ("sft", {"load_in_4bit": True}, "load_in_4bit needs lora"),
        ("train", FOUR_BIT | BESIDE, "load_in_4bit with use_vllm is not supported"),
        ("train", {"lora": True, "bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type needs load_in_4bit"),
        ("train", {"optim": "paged_adamw_8bit"}, "optim=paged_adamw_8bit needs bitsandbytes, not installed here"),
        ("sft", {"optim": "adamw_bnb_8bit"}, "optim=adamw_bnb_8bit needs bitsandbytes, not installed here"),
        ("train", {"fp16": "true", "dtype": "bfloat16"}, "fp16 and dtype=bfloat16 are two precisions"),
        ("eval", {"use_bnb_nested_quant": True}, "use_bnb_nested_quant needs load_in_4bit"),
        *((name, FOUR_BIT, ABSENT) for name in ("train", "sft")),
        *((name, {"load_in_4bit": True}, ABSENT) for name in ("eval", "probe")),
    ],
)
def test_refusals_come_before_a_model(tmp_path, chosen, monkeypatch, capsys, command, options, said):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "bitsandbytes" else find_spec(name))
    monkeypatch.setattr("qredit.runs.load.AutoModelForCausalLM", None)
    more = {"output": tmp_path / "run", "steps": 1} if command in ("train", "sft") else {}
    assert main([command, "--quiet", *flags(**chosen, **options, **more)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_products_are_computed_in_the_type_of_the_run():
    made = make_quantization_config(TrainOptions(lora=True, load_in_4bit=True, dtype="bfloat16"))
    assert made is not None
    assert (made.bnb_4bit_quant_type, made.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)
    plain = make_quantization_config(TrainOptions(load_in_4bit=True, dtype="float32", bnb_4bit_quant_type="fp4"))
    assert plain is not None
    assert (plain.bnb_4bit_quant_type, plain.bnb_4bit_compute_dtype) == ("fp4", torch.float32)
    assert make_quantization_config(TrainOptions()) is None


def test_a_card_that_imitates_bf16_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainOptions, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(QreditError, match="this card has no bf16; give --fp16 true, or --dtype float32"):
        check_precision(TrainOptions())
    check_precision(TrainOptions(dtype="float32"))
    check_precision(TrainOptions(training={"fp16": True}))


@pytest.mark.e2e
def test_fp16_takes_the_place_of_bf16(tmp_path, chosen, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(TrainOptions, "half", True)  # as on an accelerator
        told = [list_shared_arguments(TrainOptions(training=more), 1e-4, tmp_path)[0] for more in ({}, {"fp16": True})]
    assert [one["bf16"] for one in told] == [True, False]
    words = flags(**chosen, **SHORT, fp16="true", output=tmp_path / "run")
    assert main(["train", "--quiet", *words]) == 0
    assert json.loads((tmp_path / "run" / "record.json").read_text())["computed_in"] == "float16"


def test_a_model_is_not_quantised_twice(chosen, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("qredit.runs.quantization.require_extras", lambda *names: None)
    config = chosen["model"] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    words = flags(**chosen, **FOUR_BIT, **SHORT, output=tmp_path / "run")
    assert main(["train", "--quiet", *words]) == 2
    assert "cannot be held in four bits: its weights are quantised (gptq); leave" in capsys.readouterr().err


def test_weights_that_are_not_quantised_are_counted_as_they_are():
    network = model()
    count = sum(p.numel() for p in network.parameters())
    assert (count_parameters(network), count_weight_bytes(network)) == (count, 4 * count)


@needs_bitsandbytes
@pytest.mark.parametrize("nested", [False, True])
def test_four_bit_weights_and_their_scales_are_counted(chosen, nested):
    asked = TrainOptions(load_in_4bit=True, dtype="float32", use_bnb_nested_quant=nested)
    whole, packed = (load_model(str(chosen["model"]), quantization=q) for q in (None, make_quantization_config(asked)))
    assert count_parameters(packed) == count_parameters(whole)
    linear = sum(p.numel() for name, p in whole.named_parameters() if "layers" in name and p.dim() == 2)
    rest = 4 * (count_parameters(whole) - linear)
    scales = linear // 64 * (1 if nested else 4)
    assert linear / 2 + scales + rest <= count_weight_bytes(packed) <= linear / 2 + scales + rest + 512


def logits(network):
    with torch.no_grad():
        return network(torch.arange(5, 40)[None]).logits


@needs_bitsandbytes
def test_a_run_on_four_bits_is_evaluated_resumed_and_merged(tmp_path, chosen, capsys):
    sizes = SHORT | {"steps": 2}
    for name, more in (("adapters", {"save_every": 1}), ("merged", {"merge_lora": True, "save_every": 0})):
        assert main(["train", "--quiet", *flags(**chosen, **FOUR_BIT, **sizes, **more, output=tmp_path / name)]) == 0
    final = tmp_path / "adapters" / "final"
    exact = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    trained = AutoModelForCausalLM.from_pretrained(final, quantization_config=exact, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / "final")
    assert "quantization_config" not in (tmp_path / "merged" / "final" / "config.json").read_text()
    assert torch.allclose(logits(trained), logits(merged), atol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(final, dtype=torch.float32)
    assert not torch.allclose(logits(plain), logits(merged), atol=1e-3)
    said = []
    for name in ("adapters", "merged"):
        file = tmp_path / f"{name}.jsonl"
        assert main(["eval", "--quiet", *flags(model=tmp_path / name, split="train", temperature=0, samples=file)]) == 0
        said.append([one["rationales"] for one in lines(file)])
    assert said[0] == said[1]
    assert main(["train", "--quiet", "--resume", *flags(output=tmp_path / "adapters", steps=3)]) == 0


@needs_bitsandbytes
def test_adapters_on_four_bits_learn_in_float32(tmp_path, chosen):
    assert main(["train", "--quiet", *flags(**chosen, **FOUR_BIT, **SHORT, output=tmp_path / "run")]) == 0
    learned = load_file(tmp_path / "run" / "final" / "adapter_model.safetensors")
    assert {value.dtype for value in learned.values()} == {torch.float32}
    assert any((value != value.bfloat16()).any() for value in learned.values())


@needs_bitsandbytes
def test_an_optimiser_of_eight_bits_resumes_as_if_never_stopped(tmp_path, chosen):
    sizes = SHORT | {"optim": "adamw_8bit", "save_every": 1}
    assert main(["train", "--quiet", *flags(**chosen, **(sizes | {"steps": 3}), output=tmp_path / "whole")]) == 0
    assert main(["train", "--quiet", *flags(**chosen, **sizes, output=tmp_path / "cut")]) == 0
    assert main(["train", "--quiet", "--resume", *flags(output=tmp_path / "cut", steps=3)]) == 0
    whole, cut = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    state = torch.load(tmp_path / "whole" / "checkpoint-3" / "optimizer.pt", weights_only=False)["state"]
    kept = [one["__bnb_optimizer_quant_state__"]["state1"].dtype for one in state.values()]
    assert torch.uint8 in kept


@needs_bitsandbytes
@pytest.mark.parametrize("objective", ["garl(q=0.75)", "paft(q=0.5)"])
def test_a_dry_run_knows_four_bits(chosen, capsys, objective):
    told = {}
    for name, more in (("plain", {"lora": True, "lora_r": 4}), ("packed", FOUR_BIT)):
        words = flags(**chosen, **SHORT, **more, objective=objective, dry_run=True)
        assert main(["train", "--json", "--quiet", *words]) == 0
        told[name] = json.loads(capsys.readouterr().out)
    assert told["plain"]["parameters"] == told["packed"]["parameters"]
