"""Saved models are asked as their card says, and answer by plain `generate` as an evaluation does."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from qredit import pocket, tasks
from qredit.cli import main
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.trl.answer_stops import list_answer_stops, ready_to_serve
from qredit.trl.usage import Usage, make_snippet, render_usage
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.marks import e2e
from tests.support.tiny import chat_tokenizer, tokenizer
from tests.support.vllm_engines import needs_vllm, wide_model

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
PROMPT = [5, 9, 17, 30, 8]


# --- the lines of the card


def asked(folder, question):
    """Thinking and answer by the Python of a model card, run as it stands but for folder and question."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert code.count('place = "."') == code.count('question = "…"') == 1
    code = code.replace('place = "."', f"place = {str(folder)!r}").replace('"…"', repr(question))
    found: dict = {}
    exec(code, found)
    return found["thinking"], found["answer"]


@pytest.mark.e2e
@pytest.mark.parametrize("form", ["plain", "chat"])
def test_the_cards_lines_answer_as_an_evaluation(tmp_path, form):
    source = pocket.get_model_path("hotpot")
    if form == "chat":
        source = shutil.copytree(source, tmp_path / "model")
        (source / "chat_template.jinja").write_text(TEMPLATE)
    examples = tasks.get("pocket-hotpot").load(None, "test", "warm")[:6]
    records = [{"id": one.id, "prompt": one.prompt, "answer": one.answer} for one in examples]
    chosen = {"task": "jsonl", "data": data_file(tmp_path / "rows.jsonl", records), "model": source, **SHORT}
    chosen |= {"steps": 1, "lr": 1e-4, "max_completion_length": 40, "answer_budget": 8}
    run, said = tmp_path / "run", tmp_path / "said.jsonl"
    assert main(["train", "--quiet", *flags(**chosen, output=run)]) == 0
    assert main(["eval", "--quiet", *flags(model=run, temperature=0, split="train", samples=said)]) == 0
    questions = {one.id: one.prompt for one in examples}
    sampled = [one for one in lines(said) if not one["forced"] and one["ended"]]
    assert len(sampled) >= 3
    for one in sampled:
        assert asked(run / "final", questions[one["id"]]) == (one["rationales"][0], one["predictions"][0])


def test_the_card_says_where_every_part_begins():
    usage = Usage("<think>\n", "\n`x`</think>", "\n\n", "<|im_end|>", 30, 10, 4, chat=True, template={"on": True})
    told = render_usage(usage)
    ends = "behind `\\n\\n` and ends with `<|im_end|>`"
    for words in ("ends with `<think>\\n`", "behind 30 tokens", ends, "within 10"):
        assert words in told
    assert told.count("```") == 2
    code = make_snippet(usage)
    for words in ("+ '<think>\\n'", "add_generation_prompt=True, on=True", "add_special_tokens=False", "=44,"):
        assert words in code


@pytest.mark.parametrize("switches", [{}, {"opened": True}], ids=str)
def test_an_opening_that_the_template_writes_is_not_added(switches):
    format = TokenFormat(Format("<think>\n", "</think>", "", "<end>"), chat_tokenizer())
    usage = Usage.of(format, TokenBudget(20, 4), True, switches)
    assert usage.added == ("" if switches else "<think>\n")
    assert Usage.of(format, TokenBudget(20, 4), False, {}).added == "<think>\n"


# --- where generation stops


@pytest.mark.parametrize(
    ("closing", "end", "stops"),
    [("\nAnswer:\n", "</think>", [3]), ("\nAnswer:\n", "\n", []), ("</think>", "</think>", [])],
)
def test_an_end_stops_generation_if_it_ends_nothing_else(closing, end, stops):
    assert list_answer_stops(TokenFormat(Format("", closing, "", end), tokenizer())) == stops


def generated(network, **more):
    ids = network.generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, **more)
    return ids[0, len(PROMPT) :].tolist()


def test_a_saved_model_stops_there_and_the_one_in_use_does_not(tmp_path):
    network = wide_model()
    network.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0, repetition_penalty=1.5)
    network.config.use_cache = False
    whole = generated(network, repetition_penalty=1.0)
    stop = whole[5]
    with ready_to_serve(network, [stop]):
        network.save_pretrained(tmp_path)
    assert generated(network, repetition_penalty=1.0) == whole
    assert network.config.use_cache is False
    saved = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert generated(saved, repetition_penalty=1.0) == whole[: whole.index(stop) + 1]
    assert saved.generation_config.eos_token_id == [1, stop]
    assert saved.generation_config.repetition_penalty == 1.5
    assert saved.config.use_cache


@pytest.mark.parametrize("more", [{}, e2e({"lora": True, "lora_r": 2, "merge_lora": True})], ids=str)
def test_what_a_run_leaves_stops_where_its_answers_end(tmp_path, more):
    chosen = {"task": "jsonl", "data": data_file(tmp_path / "rows.jsonl"), "model": model_folder(tmp_path / "model")}
    chosen |= {"answer_end": "<pad>", "output": tmp_path / "run"}
    assert main(["train", "--quiet", *flags(**chosen, **SHORT, **more, save_every=1)]) == 0
    for name in ("final",) if more else ("final", "checkpoint-1"):
        told = json.loads((tmp_path / "run" / name / "generation_config.json").read_text())
        assert told["eos_token_id"] == [1, 0]


@needs_vllm
@pytest.mark.vllm
def test_vllm_loads_a_merged_model_and_stops_where_it_says(tmp_path):
    from peft import LoraConfig, get_peft_model
    from vllm import LLM, SamplingParams

    from qredit.samplers.vllm.colocate import _CPU_VARIABLES, _STARTED

    with pytest.MonkeyPatch.context() as patch:
        for name, value in _CPU_VARIABLES.items():
            patch.setenv(name, value)
        adapted = get_peft_model(wide_model(), LoraConfig(target_modules="all-linear", init_lora_weights=False, r=2))
        network = adapted.merge_and_unload()
        whole = generated(network)
        stop = whole[5]
        with ready_to_serve(network, [stop]):
            network.save_pretrained(tmp_path)
        tokenizer().save_pretrained(tmp_path)
        saved = AutoModelForCausalLM.from_pretrained(tmp_path)
        engine = LLM(model=str(tmp_path), dtype="float32", max_model_len=64, enforce_eager=True)
        _STARTED.append(engine)  # forgotten, it would end what other tests' engines share
        (answered,) = engine.generate([{"prompt_token_ids": PROMPT}], SamplingParams(temperature=0, max_tokens=12))
        assert list(answered.outputs[0].token_ids) == generated(saved) == whole[: whole.index(stop) + 1]
