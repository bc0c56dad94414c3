"""Models as others publish them: what cannot be loaded, saved or scored is said in one line before any compute."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

import qredit.runs.hub_access as hub
from qredit import QreditError
from qredit.cli import main
from qredit.runs.load import load_model, resolve_model_path
from qredit.runs.model_files import check_model_folder
from qredit.runs.warmup import choose_warmup_steps
from qredit.shared_prefix.check_padding import check_padding
from qredit.shared_prefix.share import share_prefix
from qredit.trl import QreditTrainer
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.marks import e2e
from tests.support.runs import questions, settings
from tests.support.tiny import model, tokenizer


@pytest.fixture
def folder(tmp_path):
    return model_folder(tmp_path / "model")


@pytest.fixture
def said(tmp_path, capsys):
    """Runs a command that must refuse its model in one line; returns the line."""

    def run(name, path, **options):
        data = data_file(tmp_path / "rows.jsonl")
        sizes = SHORT if name == "train" else {"max_completion_length": 8, "answer_budget": 3}
        chosen = {"task": "jsonl", "data": data, "model": path, **sizes} | options
        if name == "eval":
            chosen |= {"split": "train", "k": 2}
        if name == "train" and "dry_run" not in chosen:
            chosen["output"] = tmp_path / "run"
        capsys.readouterr()
        assert main([name, "--quiet", *flags(**chosen)]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1, line
        assert not (tmp_path / "run").exists()
        return line

    return run


def write(folder: Path, name: str, content) -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def config_of(folder: Path, **changes) -> Path:
    return write(folder, "config.json", json.loads((folder / "config.json").read_text()) | changes)


# --- what could not be saved again

UNSAVABLE = [
    {"do_sample": False, "temperature": 0.6, "eos_token_id": 1},
    {"top_k": 20},
    {"early_stopping": True, "eos_token_id": [1, 3]},
]


@pytest.mark.parametrize("settings", UNSAVABLE)
def test_a_generation_config_not_savable_is_mended_at_load(folder, settings):
    notes: list[str] = []
    loaded = load_model(str(write(folder, "generation_config.json", settings)), notes=notes)
    loaded.generation_config.save_pretrained(folder / "again")
    assert len(notes) == 1
    assert notes[0].startswith("the model's generation_config.json cannot be saved as it is (")
    if "eos_token_id" in settings:
        assert loaded.generation_config.eos_token_id == settings["eos_token_id"]


def test_a_generation_config_that_can_be_saved_stays(folder):
    notes: list[str] = []
    kept = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [1, 3]}
    loaded = load_model(str(write(folder, "generation_config.json", kept)), notes=notes)
    assert not notes
    assert {name: getattr(loaded.generation_config, name) for name in kept} == kept


@pytest.mark.e2e
@pytest.mark.parametrize("lora", [False, True])
def test_a_run_with_such_a_config_saves_resumes_and_merges(folder, tmp_path, capsys, lora):
    write(folder, "generation_config.json", UNSAVABLE[0])
    extra = {"lora": True, "lora_r": 4, "merge_lora": True} if lora else {}
    chosen = {"task": "jsonl", "data": data_file(tmp_path / "rows.jsonl"), "model": folder, "output": tmp_path / "run"}
    assert main(["train", *flags(**chosen, **SHORT, save_every=1, **extra)]) == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("generation_config.json cannot be saved as it is") == 1
    assert main(["train", "--quiet", "--resume", *flags(output=tmp_path / "run", steps=3)]) == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final").generation_config.eos_token_id in (1, [1])


def test_a_script_is_warned_and_its_model_mended(tmp_path, caplog):
    network = model()
    network.generation_config = GenerationConfig(do_sample=False, temperature=0.6, eos_token_id=1)
    QreditTrainer(network, "grpo()", settings(tmp_path), questions(), processing_class=tokenizer())
    assert "generation_config.json cannot be saved as it is" in caplog.text
    network.save_pretrained(tmp_path / "saved")


def test_a_tokenizer_not_savable_is_refused_before_a_step(tmp_path, monkeypatch):
    def broken(self, *args, **kwargs):
        raise ValueError("no file for it")

    monkeypatch.setattr(type(tokenizer()), "save_pretrained", broken)
    with pytest.raises(QreditError, match="the model's tokenizer cannot be saved, so no checkpoint could be: no file"):
        QreditTrainer(model(), "grpo()", settings(tmp_path), questions(), processing_class=tokenizer())


# --- what cannot be loaded


@pytest.mark.parametrize("text", ["{garbage", "[1]"])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_files_that_are_no_json_objects_are_named(folder, said, name, text):
    assert f"{folder / name} " in said("train", write(folder, name, text))


METHODS = ("gptq", "awq", "bitsandbytes", "torchao", "nonsense")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("command", ["train", "eval"])
def test_quantised_weights_are_refused_with_their_kind(folder, said, method, command):
    told = {"quant_method": method, "bits": 4, "group_size": 128}
    told |= {"load_in_4bit": True} if method == "bitsandbytes" else {}
    line = said(command, config_of(folder, quantization_config=told))
    assert "quantised" in line
    assert method in line


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="the package is there")
def test_the_package_that_quantised_weights_need_is_named(folder, said):
    told = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert "bitsandbytes: `pip install" in said("eval", config_of(folder, quantization_config=told))


def test_an_unknown_model_and_code_of_its_own_are_told_apart(folder, said):
    assert "transformers knows no model_type 'zzz'" in said("train", config_of(folder, model_type="zzz"))
    own = config_of(folder, model_type="zzz", auto_map={"AutoModelForCausalLM": "modeling_zzz.Z"})
    assert "brings code of its own (model_type 'zzz'), which is not run here" in said("train", own)


def test_shards_that_are_missing_are_named(folder, said):
    (folder / "model.safetensors").rename(folder / "model-00002-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    write(folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": names})
    assert "lacks 1 of its 2 files of weights, first model-00001-of-00002.safetensors" in said("eval", folder)
    assert "names no files of weights" in said("eval", write(folder, "model.safetensors.index.json", "{}"))


def test_a_folder_of_gguf_is_refused_with_the_way_out(folder, said):
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    (folder / "small-q8_0.gguf").write_bytes(b"GGUF")
    assert "GGUF weights only (small-q8_0.gguf)" in said("train", folder)
    assert "small-q8_0.gguf is a file, no model folder" in said("train", folder / "small-q8_0.gguf")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"not weights at all"])
def test_weights_in_a_pickle_that_is_none_are_refused(folder, said, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    assert f"cannot load model '{folder}'" in said("eval", folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_torn_tokenizer_is_refused(folder, said, name):
    text = (folder / name).read_text()
    assert f"no tokenizer for model '{folder}'" in said("eval", write(folder, name, text[: len(text) // 2]))


# --- ids beyond the model


@pytest.mark.parametrize("command", ["train", "eval", "probe"])
def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path, said, command):
    ids = max(tokenizer().get_vocab().values()) + 1
    folder = model_folder(tmp_path / "small", vocab_size=ids - 3)
    line = said(command, folder)
    assert f"ids go up to {ids - 1}, but the model has embeddings of {ids - 3} tokens" in line


def test_a_dry_run_refuses_it_too(tmp_path, said):
    ids = max(tokenizer().get_vocab().values()) + 1
    assert "ids go up to" in said("train", model_folder(tmp_path / "small", vocab_size=ids - 3), dry_run=True)


# --- padding

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 2}
GPT = {"vocab_size": 96, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4}
SHIFTED = {
    "XGLM": {
        "vocab_size": 96, "d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4,
        "max_position_embeddings": 128, "pad_token_id": 0,
    },
    "BioGpt": SMALL,
    "OpenAIGPT": GPT,
    "GPT2": GPT,
    "CTRL": {"vocab_size": 96, "n_positions": 128, "n_embd": 32, "dff": 64, "n_layer": 2, "n_head": 4},
    "Doge": GROUPED,
    "Llama4Text": GROUPED
    | {
        "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2, "attn_temperature_tuning": True,
        "floor_scale": 4, "attn_scale": 0.5, "no_rope_layers": [1, 0], "attention_chunk_size": 64,
    },
}  # fmt: skip
UNSHIFTED = {
    "OPT": {
        "vocab_size": 96, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "pad_token_id": 0, "word_embed_proj_dim": 32,
    },
    "Bloom": {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "MiniMax": GROUPED | {"num_local_experts": 2, "head_dim": 8},
    "Gemma2": GROUPED | {"head_dim": 8},
    "Qwen3": GROUPED | {"head_dim": 8},
    "Mamba": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}  # fmt: skip


def made(name, settings):
    """A random model of an architecture, with weights large enough that positions matter."""
    kind = getattr(transformers, f"{name}Config", None)
    if kind is None:
        pytest.skip(f"this transformers has no {name}")
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(kind(**settings))
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3)
    return network


@pytest.mark.parametrize("name", SHIFTED)
def test_models_whose_positions_count_the_padding_are_refused(name):
    network = made(name, SHIFTED[name])
    assert share_prefix(network) is not None
    with pytest.raises(QreditError, match=r"padded to the left would be scored wrongly by this .* nats behind 5"):
        check_padding(network, 100)


@pytest.mark.parametrize("name", UNSHIFTED)
def test_models_that_look_through_padding_are_taken(name):
    check_padding(made(name, UNSHIFTED[name]), 100)


def test_frequencies_that_change_with_length_end_there():
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 1e4}
    rope["original_max_position_embeddings"] = 64
    network = made("Phi3", GROUPED | {"original_max_position_embeddings": 64, "rope_parameters": rope})
    check_padding(network, 64)
    with pytest.raises(QreditError, match=r"\(longrope\) change with the longest row of a batch beyond 64 tokens"):
        check_padding(network, 65)


def test_such_a_model_is_not_trained(tmp_path):
    network = made("XGLM", SHIFTED["XGLM"] | {"vocab_size": 330})
    with pytest.raises(QreditError, match="padded to the left would be scored wrongly by this XGLM"):
        QreditTrainer(network, "grpo()", settings(tmp_path), questions(), processing_class=tokenizer())


# --- what the environment says


@pytest.mark.parametrize(
    ("variable", "value", "options"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", {"dtype": "float32"}),
        ("ACCELERATE_MIXED_PRECISION", "fp16", {}),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "7", {}),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", {}),
    ],
)
def test_environment_that_overrides_option_is_refused_by_name(folder, said, monkeypatch, variable, value, options):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    monkeypatch.setenv(variable, value)
    try:
        assert f"{variable}={value}" in said("train", folder, cpu=True, **options)
    finally:
        AcceleratorState._reset_state(True)


@pytest.mark.parametrize(("dtype", "type"), [e2e("float32", "float32"), ("bfloat16", "bfloat16")])
def test_the_record_says_what_was_computed_in(folder, tmp_path, dtype, type, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = data_file(tmp_path / "rows.jsonl")
    options = {"task": "jsonl", "data": data, "model": folder, "output": tmp_path / "run", "dtype": dtype, **SHORT}
    assert main(["train", "--quiet", *flags(**options)]) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["computed_in"] == type
    assert record["environment"]["OMP_NUM_THREADS"] == "1"


# --- paths and ids


@pytest.mark.e2e
def test_a_run_on_a_relative_model_goes_on_from_elsewhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_file(Path("rows.jsonl"))
    chosen = {"task": "jsonl", "data": "rows.jsonl", "model": "model", "output": "run", "lora": True, "lora_r": 4}
    assert main(["train", "--quiet", *flags(**chosen, **SHORT, save_every=1)]) == 0
    adapters = json.loads((tmp_path / "run" / "final" / "adapter_config.json").read_text())
    assert adapters["base_model_name_or_path"] == str(folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["eval", "--quiet", *flags(model=tmp_path / "run", split="train", k=2)]) == 0
    assert main(["train", "--quiet", "--resume", *flags(output=tmp_path / "run", steps=3)]) == 0


@pytest.mark.e2e
def test_adapters_whose_model_is_gone_name_it(folder, tmp_path, capsys):
    chosen = {"task": "jsonl", "data": data_file(tmp_path / "rows.jsonl"), "model": folder, "output": tmp_path / "run"}
    assert main(["train", "--quiet", *flags(**chosen, **SHORT, lora=True, lora_r=4)]) == 0
    folder.rename(tmp_path / "moved")
    capsys.readouterr()
    assert main(["eval", "--quiet", *flags(model=tmp_path / "run", split="train", k=2)]) == 2
    line = capsys.readouterr().err
    assert f"belong to the model {folder}, which is not there" in line
    with pytest.raises(QreditError, match="does not say which model"):
        check_model_folder(write(tmp_path / "run" / "final", "adapter_config.json", {}))


def test_an_id_that_cannot_be_reached_is_said_at_once(said, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Nowhere)
    hub.resolve_load_kwargs.cache_clear()
    line = said("train", "somebody/never-fetched")
    assert (
        "'somebody/never-fetched' is no folder here and was not fetched before, and the Hub cannot be reached" in line
    )
    assert Nowhere.asked == 1
    assert "no route" in line
    assert "model 'smolm2' (did you mean 'smollm2'?) is no folder here" in said("train", "smolm2")


class Nowhere:
    """A Hub that cannot be reached, and counts how often it was asked."""

    asked = 0

    def model_info(self, name, timeout):
        type(self).asked += 1
        raise ConnectionError("no route to it")


def test_a_fetched_model_is_loaded_without_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Nowhere)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda model, name: f"cache/{name}")
    hub.resolve_load_kwargs.cache_clear()
    assert hub.resolve_load_kwargs("somebody/fetched") == {"local_files_only": True}
    hub.resolve_load_kwargs.cache_clear()


def test_paths_are_absolute_and_ids_stay(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert resolve_model_path("model", "jsonl", None) == str(folder)
    assert resolve_model_path("somebody/something", "jsonl", None) == "somebody/something"


# --- the schedule and the card


@pytest.mark.parametrize(
    ("steps", "asked", "warmup"), [(100, None, 5), (20, None, 2), (9, None, 0), (9, 4, 4), (9, 0, 0)]
)
def test_the_warmup_is_a_tenth_of_the_run_at_most(steps, asked, warmup):
    assert choose_warmup_steps(steps, asked) == warmup


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup": 3}, [1 / 3, 2 / 3, 1, 1]),
        ({"warmup": 2, "lr_scheduler_type": "linear"}, [1 / 2, 1, 2 / 3, 1 / 3]),
    ],
)
def test_the_rate_rises_from_step_one_and_goes_on_resumed(folder, tmp_path, options, rates):
    base = {"task": "jsonl", "data": data_file(tmp_path / "rows.jsonl"), "model": folder, **SHORT, "lr": 0.01}
    base |= {"steps": 4, "save_every": 1, **options}
    assert main(["train", "--quiet", *flags(**base, output=tmp_path / "run")]) == 0

    def seen():
        return [e["learning_rate"] / 0.01 for e in lines(tmp_path / "run" / "metrics.jsonl") if "learning_rate" in e]

    assert seen() == pytest.approx(rates)
    for step in (3, 4):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    shutil.rmtree(tmp_path / "run" / "final")
    assert main(["train", "--quiet", "--resume", *flags(output=tmp_path / "run")]) == 0
    assert seen() == pytest.approx(rates)


def test_the_card_tells_what_the_model_is(folder, tmp_path):
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n")
    chosen = {"task": "jsonl", "data": data_file(tmp_path / "rows.jsonl"), "model": folder, "output": tmp_path / "run"}
    assert main(["train", "--quiet", *flags(**chosen, **SHORT, eval_every=1, eval_k=2, eval_questions=2)]) == 0
    card = (tmp_path / "run" / "final" / "README.md").read_text()
    said = (f"base model: `{folder}`", "data: jsonl", "objective: `garl(q=0.75)`", "the answer ends with `<end>`")
    for words in said:
        assert words in card
    assert "license: apache-2.0" in card
    assert "m@2, validation: " in card
    assert "None" not in card


def test_a_card_leaves_out_what_is_not_known(tmp_path):
    made = QreditTrainer(model(), "grpo()", settings(tmp_path), questions(), processing_class=tokenizer())
    made.create_model_card("mine")
    card = (tmp_path / "README.md").read_text()
    assert "license" not in card
    assert "None" not in card
    assert "Scores" not in card
