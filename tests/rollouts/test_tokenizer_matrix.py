"""Ends, seams, closings, prefills, system messages and control tokens, for tokenizers in well-known shapes."""

import json

import pytest
import torch
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from qredit import QreditError
from qredit.rollouts.answer_end import describe_end_conflict, describe_plain_prompts, describe_unended_answers
from qredit.rollouts.format import Format, StopString, TokenFormat, encode
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.tokenizer import get_control_tokens, vocabulary_size
from qredit.runs.load import load_tokenizer
from qredit.samplers.transformers import sample
from tests.support.shapes import SHAPES, byte_level, sentence_piece, tokenizer_of

ASKED = [{"role": "user", "content": "What is two?"}]
ANSWERS = ("Paris", "the cat", "12", "-3", "x = 4", "New York City", "12,500.5 %", "It's", "é")
shapes = pytest.mark.parametrize("name", SHAPES)
SENTENCE_PIECE = ("llama2", "llama2, Metaspace always", "mistral, SentencePiece", "gemma", "phi3")


def made(name: str, **strings) -> TokenFormat:
    return TokenFormat(Format.of(tokenizer_of(name), **strings), tokenizer_of(name))


def decoded(name: str, ids) -> str:
    return tokenizer_of(name).decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


# --- ends


@shapes
def test_an_answer_ends_as_a_turn_of_the_chat_template_does(name):
    tokens, shape = made(name), SHAPES[name]
    assert tokens.format.end == shape.end
    assert tokens.stop_ids == [tokenizer_of(name).convert_tokens_to_ids(shape.end.strip())]
    assert tokens.answer_ids("Paris")[-1:] == tokens.stop_ids
    assert (tokens.format.opening, tokens.format.closing, tokens.format.seam) == shape.layout


@shapes
def test_without_the_template_an_answer_ends_with_end_of_text(name):
    assert made(name, chat=False).format.end == tokenizer_of(name).eos_token


@shapes
def test_one_line_says_where_ends_disagree(name):
    tokens, shape = made(name), SHAPES[name]
    end, eos = tokens.stop_ids[0], tokenizer_of(name).eos_token_id
    notice = describe_end_conflict(tokens, [eos])
    assert (notice is not None) == (end != eos)
    if notice is not None:
        assert "\n" not in notice
        assert f"answers end with {shape.end!r} (from the chat template)" in notice
        assert f"the tokenizer's end-of-text is {tokenizer_of(name).eos_token!r}" in notice


def test_a_generation_config_that_stops_elsewhere_is_named():
    tokens = made("smollm2")
    start = tokenizer_of("smollm2").convert_tokens_to_ids("<|im_start|>")
    assert describe_end_conflict(tokens, []) is None
    assert "generation config stops at '<|im_start|>'" in str(describe_end_conflict(tokens, [start]))


def test_an_end_that_was_asked_for_as_text_is_no_disagreement():
    assert describe_end_conflict(made("smollm2", end="\n"), []) is None
    assert made("smollm2", end="\n").stop_ids == []


def test_many_answers_that_were_cut_off_are_said_with_the_end():
    assert describe_unended_answers(0.1, "<end>") is None
    assert "60 % of sampled answers did not end by themselves: is answer_end right?" in str(
        describe_unended_answers(0.6, "<e>")
    )


class Says(torch.nn.Module):
    """Stands for a model that writes given ids, whatever it has read."""

    device = torch.device("cpu")

    def __init__(self, ids, rows):
        super().__init__()
        self.ids, self.rows = ids, rows

    def generate(self, input_ids, attention_mask, generation_config, logits_processor, stopping_criteria):
        ids = input_ids
        for step in range(generation_config.max_new_tokens):
            scores = torch.full((len(ids), self.rows), -50.0)
            scores[:, self.ids[min(step, len(self.ids) - 1)]] = 50.0
            ids = torch.cat([ids, logits_processor(ids, scores).argmax(1, keepdim=True)], 1)
            if stopping_criteria(ids, None).all():
                break


def written(tokens: TokenFormat, ids, budget=TokenBudget(20, 30)):
    size = vocabulary_size(tokens.tokenizer)
    eos = tokens.tokenizer.eos_token_id
    (rollout,) = sample(Says(ids, size), [[5]], tokens, budget, stop_tokens=[eos], pad=0, seed=0)
    return rollout


@shapes
@pytest.mark.parametrize("answer", ["Paris", "12,500.5 %"])
def test_what_is_sampled_closes_and_ends_like_a_gold_answer(name, answer):
    tokens = made(name)
    start = encode(tokenizer_of(name), "a")
    gold = tokens.answer_ids(answer)
    rollout = written(tokens, [*start, *tokens.close_ids, *gold])
    assert (rollout.forced, rollout.dropped_end, rollout.ended) == (False, False, True)
    assert list(rollout.answer_ids) == gold
    assert list(rollout.ids[rollout.close_start : rollout.close_end]) == tokens.close_ids
    assert tokens.response_text(rollout.answer_ids) == answer


@shapes
def test_a_closing_that_is_forced_is_the_one_that_is_sampled(name):
    tokens = made(name)
    thought = encode(tokenizer_of(name), "the cat")
    rollout = written(
        tokens, [*thought, *thought, *thought, *tokens.answer_ids("Paris")], TokenBudget(len(thought), 30)
    )
    assert rollout.forced
    assert list(rollout.ids[rollout.close_start : rollout.close_end]) == tokens.close_ids
    assert decoded(name, rollout.ids[: rollout.close_end]) == "the cat" + tokens.format.closing
    assert StopString(tokenizer_of(name), tokens.format.closing).length([*thought, *tokens.close_ids]) == len(
        tokens.close_ids
    )


# --- seams


@shapes
@pytest.mark.parametrize("seam", [None, "", "\n", " "])
def test_closing_and_answer_are_their_ids_behind_a_rationale(name, seam):
    tokens = made(name, seam=seam)
    for answer in ANSWERS:
        ids = tokens.close_ids + tokens.answer_ids(answer)
        text = tokens.format.closing + tokens.format.seam + answer + tokens.format.end
        whole = encode(tokenizer_of(name), "so it is 4;" + text)
        assert whole[-len(ids) :] == ids, answer
        assert decoded(name, whole[: -len(ids)]) == "so it is 4;", answer
        assert tokens.response_text(tokens.answer_ids(answer)).strip() == answer


@pytest.mark.parametrize("name", SENTENCE_PIECE)
@pytest.mark.parametrize("closing", ["\nAnswer:\n", "Answer:", " the:", "####"])
def test_behind_sentence_piece_no_closing_has_a_stray_space(name, closing):
    tokens = made(name, closing=closing)
    stray = tokenizer_of(name).convert_tokens_to_ids("▁")
    assert tokens.close_ids[0] != stray
    assert decoded(name, [*encode(tokenizer_of(name), "cat"), *tokens.close_ids]) == "cat" + closing
    for answer in ANSWERS:
        assert tokens.answer_ids(answer)
    found = StopString(tokenizer_of(name), closing).length([*encode(tokenizer_of(name), "cat"), *tokens.close_ids])
    assert found == len(tokens.close_ids)


def test_a_closing_that_the_tokenizer_cannot_write_is_refused():
    lower = sentence_piece(["<s>", "</s>"], None, "never", eos_token="</s>")
    lower.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    with pytest.raises(QreditError, match=r"turns '\\nAnswer:\\n' into '\\nanswer:\\n'; set thinking_closing"):
        TokenFormat(Format.of(lower), lower)


# --- prompts


@shapes
def test_a_prompt_is_chat_template_and_the_opening_with_one_bos(name):
    tokens, shape, tokenizer = made(name), SHAPES[name], tokenizer_of(name)
    text = tokens.format.render(ASKED, tokenizer)
    plain = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    assert text in (plain, plain + shape.layout[0])
    assert text.endswith(shape.layout[0])
    assert text.count(shape.layout[0]) == 1 or not shape.layout[0]
    ids = tokens.prompt_ids(ASKED)
    assert ids == encode(tokenizer, text)
    if shape.bos:
        bos = tokenizer.convert_tokens_to_ids(shape.bos)
        assert ids.count(bos) == 1 == ids[:1].count(bos)


@shapes
def test_a_plain_text_begins_with_bos_once_and_ends_with_itself(name):
    tokens, shape, tokenizer = made(name, opening=""), SHAPES[name], tokenizer_of(name)
    bos = [tokenizer.convert_tokens_to_ids(shape.bos)] if shape.bos else []
    ids = tokens.prompt_ids("What is two?")
    assert ids == bos + encode(tokenizer, "What is two?")
    if shape.bos:
        assert tokens.prompt_ids(shape.bos + "What is two?").count(bos[0]) == 1


@pytest.mark.parametrize("bos", [None, "<s>"])
def test_an_end_of_text_that_tokenizer_appends_is_not_in_prompt(bos):
    tokenizer = byte_level(["<s>", "</s>"], None, bos=bos, appended="</s>", eos_token="</s>")
    tokens = TokenFormat(Format.of(tokenizer), tokenizer)
    assert tokenizer("What is two?")["input_ids"][-1] == tokenizer.eos_token_id
    ids = tokens.prompt_ids("What is two?")
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "What is two?"
    assert tokens.answer_ids("Paris").count(tokenizer.eos_token_id) == 1


@shapes
@pytest.mark.parametrize("said", ["Let us see: ", "Let us see:", "two "])
def test_a_last_message_of_an_assistant_is_gone_on_with(name, said):
    tokens, tokenizer = made(name), tokenizer_of(name)
    text = tokens.format.render([*ASKED, {"role": "assistant", "content": said}], tokenizer)
    assert text.endswith(said)
    assert text.count("What is two?") == 1
    assert not text.removesuffix(said).rstrip().endswith(tokens.format.closing.strip())
    started = tokens.format.render(ASKED, tokenizer)
    assert text.startswith(started.rstrip())
    with_tag = tokens.format.render(
        [*ASKED, {"role": "assistant", "content": SHAPES[name].layout[0] + said}], tokenizer
    )
    assert with_tag == text


def test_a_prefill_that_closes_thinking_is_refused():
    with pytest.raises(QreditError, match="closes thinking"):
        made("qwen3").prompt_ids([*ASKED, {"role": "assistant", "content": "<think>\nso\n</think>\n\nIt is"}])


@shapes
def test_a_system_message_is_in_prompt_or_refused_in_one_line(name):
    messages = [{"role": "system", "content": "Be brief."}, *ASKED]
    if SHAPES[name].system == "refused":
        with pytest.raises(QreditError, match="the chat template refuses the messages: System role not supported") as e:
            made(name).prompt_ids(messages)
        assert "\n" not in str(e.value)
    else:
        assert made(name).format.render(messages, tokenizer_of(name)).count("Be brief.") == 1


@pytest.mark.parametrize("messages", [[{"content": "a"}], [{"role": "user", "content": {"text": "a"}}, "b"], ["a"]])
def test_messages_no_template_reads_are_refused_in_one_line(messages):
    with pytest.raises(QreditError, match="the chat template refuses the messages") as refused:
        made("gemma").prompt_ids(messages)
    assert "\n" not in str(refused.value)


def test_plain_texts_beside_a_chat_template_are_said():
    assert "do not go through the tokenizer's chat template" in str(
        describe_plain_prompts(made("qwen2"), ["What is two?"])
    )
    assert describe_plain_prompts(made("qwen2"), [ASKED]) is None
    assert describe_plain_prompts(made("qwen2"), ["<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"]) is None


# --- golds and ids


@shapes
def test_a_gold_answer_that_spells_a_control_token_is_refused(name):
    tokens = made(name)
    for token in get_control_tokens(tokenizer_of(name)):
        with pytest.raises(QreditError, match="spells the control token"):
            tokens.answer_ids(f"a {token} b")


def test_a_gold_answer_that_holds_closing_or_end_is_refused():
    with pytest.raises(QreditError, match="'</think>', which ends thinking"):
        made("qwen3").answer_ids("a</think>b")
    with pytest.raises(QreditError, match=r"'\\n', which ends answers"):
        made("qwen2", end="\n").answer_ids("a\nb")


@shapes
def test_a_saved_tokenizer_has_something_to_pad_with(name, tmp_path):
    tokenizer_of(name).save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.pad_token_id is not None
    assert Format.of(loaded) == Format.of(tokenizer_of(name))


def sparse() -> PreTrainedTokenizerFast:
    """Thinking tags 60 ids beyond the other tokens, as where rows are reserved."""
    plain = byte_level(["<|endoftext|>"], None, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    core = json.loads(plain.backend_tokenizer.to_str())
    size = len(plain)
    for number, tag in enumerate(("<think>", "</think>")):
        core["added_tokens"].append(
            {**core["added_tokens"][0], "id": size + 60 + number, "content": tag, "special": False}
        )
        core["model"]["vocab"][tag] = size + 60 + number
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def test_a_sampled_closing_is_seen_where_ids_have_gaps():
    tokenizer = sparse()
    assert vocabulary_size(tokenizer) == tokenizer.convert_tokens_to_ids("</think>") + 1 > len(tokenizer)
    tokens = TokenFormat(Format.of(tokenizer), tokenizer)
    rollout = written(tokens, [*encode(tokenizer, "the cat"), *tokens.close_ids, *tokens.answer_ids("4")])
    assert (rollout.forced, rollout.ended) == (False, True)
    assert list(rollout.ids[rollout.close_start : rollout.close_end]) == tokens.close_ids


def test_rows_beyond_tokenizer_are_models_own_and_have_no_text():
    """They stay in the distribution: what is sampled and what is scored is one and the same model."""
    tokens, size = made("qwen3"), vocabulary_size(tokenizer_of("qwen3"))
    torch.manual_seed(0)
    network = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=size + 64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        network.lm_head.weight[size:] *= 20  # drawn more often than not
    prompt = tokens.prompt_ids(ASKED)
    rollouts = sample(network, [prompt] * 8, tokens, TokenBudget(8, 8), stop_tokens=[], pad=0, seed=0)
    unknown = [id for rollout in rollouts for id in rollout.ids if id >= size]
    assert unknown
    assert tokens.text(unknown) == ""
    for rollout in rollouts:
        ids = torch.tensor([prompt + list(rollout.ids)])
        with torch.no_grad():
            logp = network(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        own = logp.gather(1, ids[0, len(prompt) :, None])[:, 0]
        drawn = torch.tensor(rollout.logp) != 0
        assert torch.allclose(torch.tensor(rollout.logp)[drawn], own[drawn], atol=1e-4)
