"""A prompt computed once for its group has the log-probabilities and gradients of the ordinary forward pass."""

import copy
import gc
import logging
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DiffLlamaConfig,
    DogeConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from qredit import QreditError, RolloutBatch
from qredit.core.objective import Credited
from qredit.rollouts.collate import Rows
from qredit.shared_prefix import attention, head, packing, patch_forward, share
from qredit.shared_prefix.attention import attend_in_two_parts, attend_to_copies
from qredit.shared_prefix.decode import Decoder, has_shared_prefix
from qredit.shared_prefix.head import divergences, score_tokens
from qredit.shared_prefix.layout import KeyRecorder, PackedGroup
from qredit.shared_prefix.packing import pack, pack_continuations, pack_prompts, pad_rows
from qredit.shared_prefix.patch_forward import ScoreRequest, enable_token_scoring, score, score_selected
from qredit.shared_prefix.share import share_prefix
from qredit.shared_prefix.support import unsupported_reason
from qredit.shared_prefix.verify import verify
from qredit.trl import model_setup as prepare
from qredit.trl import trainer as trainer_module
from tests.support.marks import e2e
from tests.support.rounding import gradient_bound
from tests.support.runs import first_step_gradients, length_reward, relative_difference, settings, trainer
from tests.support.tiny import model

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
COMPRESSED = SHAPE | {
    "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8, "first_k_dense_replace": 3,
}  # fmt: skip
CONFIGS = {
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "qwen3 tied": Qwen3Config(**SHAPE, tie_word_embeddings=True),
    "llama": LlamaConfig(**SHAPE),
    "llama one key per query": LlamaConfig(**(SHAPE | {"num_key_value_heads": 4})),
    "gemma": GemmaConfig(**SHAPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
}


def network(config, **changes):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32, **changes)


def ragged_rows(groups=3, m=4, width=9, left=True, vocabulary=97):
    """Groups with prompts of several lengths, completions of 1 … width tokens, rows of a group not neighbours."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, width + 1, (groups * m,), generator=generator)
    lengths[0], lengths[1] = 1, width
    group = torch.arange(groups).repeat(m)
    prompts = [torch.randint(vocabulary, (size,), generator=generator) for size in (7, 4, 11)[:groups]]
    longest = max(map(len, prompts))
    prompt_ids, prompt_mask = torch.zeros(2, groups * m, longest, dtype=torch.long)
    for row, number in enumerate(group.tolist()):
        size = len(prompts[number])
        where = slice(longest - size, longest) if left else slice(0, size)
        prompt_ids[row, where], prompt_mask[row, where] = prompts[number], 1
    mask = torch.arange(width) < lengths[:, None]
    ids = torch.randint(vocabulary, mask.shape, generator=generator)
    nothing = torch.zeros_like(mask)
    return Rows(prompt_ids, prompt_mask, RolloutBatch(mask=mask, rationale=mask, answer=nothing, group=group, ids=ids))


def ordinary(made, rows):
    """log-probability and entropy from the logits of every row, prompt repeated."""
    ids = torch.cat([rows.prompt_ids, rows.batch.ids], 1)
    mask = torch.cat([rows.prompt_mask, rows.batch.mask.long()], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    width = rows.prompt_ids.shape[1]
    logits = made(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, width - 1 : -1]
    log_p = logits.log_softmax(-1)
    logp = log_p.gather(-1, rows.batch.ids[..., None])[..., 0]
    return logp * rows.batch.mask, -(log_p.exp() * log_p).sum(-1) * rows.batch.mask


def scored(made, layout):
    """log-probability and entropy of our own forward pass."""
    told = score(made, layout)
    return told["logp"], told["entropy"]


def gradients(made, found):
    """Gradients of a random weighting of log-probabilities and entropies."""
    logp, entropy = found
    weight = torch.randn(2, *logp.shape, generator=torch.Generator().manual_seed(2))
    made.zero_grad()
    ((weight[0] * logp) + (weight[1] * entropy)).sum().backward()
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def compare(made, rows, base=None):
    """Largest relative gradient difference, the packed path against the ordinary one."""
    expected_scores = ordinary(made, rows)
    expected = gradients(made, expected_scores)
    share_prefix(base or made)
    found_scores = scored(made, pack(rows))
    for found, wanted in zip(found_scores, expected_scores, strict=True):
        assert torch.allclose(found, wanted, atol=2e-5)
    return relative_difference(gradients(made, found_scores), expected)


# --- equality


@pytest.mark.parametrize("attend", [attend_in_two_parts, attend_to_copies], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_is_that_of_the_ordinary_path(name, attend, monkeypatch):
    monkeypatch.setattr(attention, "attend_in_two_parts", attend)
    assert compare(network(CONFIGS[name]), ragged_rows()) < gradient_bound()


def checkpointed(made, **more):
    """The network in training mode, each of its layers run again in the backward pass."""
    made.train()
    made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False} | more)
    return made


def test_with_gradient_checkpointing():
    assert compare(checkpointed(network(CONFIGS["qwen3"])), ragged_rows()) < gradient_bound()


def test_with_lora_adapters():
    base = network(CONFIGS["qwen3"])
    made = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    assert compare(made, ragged_rows(), base) < gradient_bound()


SEEDS = range(10)


def seeded(seed, dtype):
    """A network of that seed, its weights drawn in float32 whatever the dtype, and rows with tokens of that seed."""
    torch.manual_seed(seed)
    made, rows = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["qwen3"]), dtype=torch.float32), ragged_rows()
    rows.batch.ids.copy_(torch.randint(97, rows.batch.ids.shape))
    return made.to(dtype), rows


def errors(dtype):
    """Relative errors of gradients against float64, one for each seed: the ordinary path's, then the packed one's."""
    found = []
    for seed in SEEDS:
        exact, rows = seeded(seed, torch.float64)
        reference = gradients(exact, ordinary(exact, rows))
        made, _ = seeded(seed, dtype)
        plain = gradients(made, ordinary(made, rows))
        share_prefix(made)
        packed = gradients(made, scored(made, pack(rows)))
        found.append([relative_difference({n: g.double() for n, g in p.items()}, reference) for p in (plain, packed)])
    return torch.tensor(found).T


@pytest.mark.parametrize("dtype", [e2e(torch.float32), torch.bfloat16], ids=str)
def test_rounding_is_a_few_epsilon(dtype):
    """Each error is within half the bound between two paths; over the seeds, packing adds none of its own."""
    plain, packed = errors(dtype)
    assert float(plain.max()) < gradient_bound(dtype) / 2
    assert float(packed.max()) < gradient_bound(dtype) / 2
    assert float(packed.square().mean().sqrt()) < 1.5 * float(plain.square().mean().sqrt())


def test_packing_that_rounds_more_than_it_must_is_caught(monkeypatch):
    """The mutant: the states that the packed forward hands to the head hold one bit of fraction, bfloat16 holds 7."""
    monkeypatch.setitem(globals(), "SEEDS", range(4))
    right = patch_forward.score_tokens
    monkeypatch.setattr(patch_forward, "score_tokens", lambda hidden, *rest: right(_coarse(hidden), *rest))
    with pytest.raises(AssertionError):
        test_rounding_is_a_few_epsilon(torch.bfloat16)


def _coarse(value):
    step = 2.0 ** (value.detach().abs().clamp(min=1e-6).log2().floor() - 1)
    return value + ((value.detach() / step).round() * step - value.detach())


def test_prompts_may_be_padded_on_either_side():
    made = network(CONFIGS["qwen3"])
    share_prefix(made)
    left, right = (scored(made, pack(ragged_rows(left=side)))[0] for side in (True, False))
    assert torch.equal(left, right)


def test_a_part_of_a_group_scores_as_in_the_whole():
    made, rows = network(CONFIGS["llama"]), ragged_rows()
    share_prefix(made)
    some = torch.tensor([5, 0, 7])
    assert torch.allclose(scored(made, pack(rows.select(some)))[0], scored(made, pack(rows))[0][some], atol=1e-5)


def test_every_other_call_is_as_before():
    made, rows = network(CONFIGS["qwen3"]), ragged_rows()
    before = ordinary(made, rows)[0]
    sampled = made.generate(rows.prompt_ids, attention_mask=rows.prompt_mask, do_sample=False, max_new_tokens=5)
    share_prefix(made)
    assert torch.equal(ordinary(made, rows)[0], before)
    again = made.generate(rows.prompt_ids, attention_mask=rows.prompt_mask, do_sample=False, max_new_tokens=5)
    assert torch.equal(again, sampled)


def test_a_saved_model_does_not_remember_the_attention(tmp_path):
    made = network(CONFIGS["qwen3"])
    share_prefix(made)
    made.save_pretrained(tmp_path)
    assert attention.ATTENTION_NAME not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_with_their_own_prompts_score_the_same(name):
    """The layout for models that cannot share: the ordinary forward, the head on scored places alone."""
    made, rows = network(CONFIGS[name]), ragged_rows()
    expected = gradients(made, ordinary(made, rows))
    assert enable_token_scoring(made)
    assert relative_difference(gradients(made, scored(made, pad_rows(rows))), expected) < gradient_bound()


# --- rows that are chosen by the scores of all, prompts computed once for both

CHOSEN = torch.tensor([5, 0, 7, 3, 9])  # of two of the three groups, in no order


def chosen(made, rows, which=CHOSEN, only=None):
    """What is told of all rows without gradient, and of the chosen ones with it."""
    prompts, seen = pack_prompts(rows), []

    def choose(told):
        seen.append(told)
        return pack_continuations(prompts, rows.select(which))

    layout = pack_continuations(prompts, rows)
    told = score_selected(made, layout if only is None else layout.only(only), choose)
    return seen[0], (told["logp"], told["entropy"])


def compare_chosen(made, rows, base=None):
    """Largest relative gradient difference, the chosen rows on kept prompts against their own packing."""
    share_prefix(base or made)
    whole, part = scored(made, pack(rows)), scored(made, pack(rows.select(CHOSEN)))
    expected = gradients(made, part)
    told, found = chosen(made, rows)
    assert not told["logp"].requires_grad
    for one, other in zip((told["logp"], told["entropy"], *found), (*whole, *part), strict=True):
        assert torch.allclose(one, other, atol=2e-5)
    return relative_difference(gradients(made, found), expected)


@pytest.mark.parametrize("attend", [attend_in_two_parts, attend_to_copies], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", CONFIGS)
def test_chosen_rows_on_kept_prompts_have_their_own_gradient(name, attend, monkeypatch):
    monkeypatch.setattr(attention, "attend_in_two_parts", attend)
    assert compare_chosen(network(CONFIGS[name]), ragged_rows()) < gradient_bound()


def test_chosen_rows_with_lora_adapters():
    base = network(CONFIGS["qwen3"])
    made = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    assert compare_chosen(made, ragged_rows(), base) < gradient_bound()


def test_chosen_rows_under_autocast_have_their_own_gradient():
    made, rows = network(CONFIGS["qwen3"]), ragged_rows()
    share_prefix(made)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(made, scored(made, pack(rows.select(CHOSEN))))
        found = gradients(made, chosen(made, rows)[1])
    assert relative_difference(found, expected) < gradient_bound(torch.bfloat16)


@pytest.mark.parametrize("name", CONFIGS)
def test_chosen_rows_of_checkpointed_layers_have_their_gradient(name):
    assert compare_chosen(checkpointed(network(CONFIGS[name])), ragged_rows()) < gradient_bound()


def test_checkpointed_layers_on_copied_keys_have_the_gradient(monkeypatch):
    monkeypatch.setattr(attention, "attend_in_two_parts", attend_to_copies)
    assert compare_chosen(checkpointed(network(CONFIGS["qwen3"])), ragged_rows()) < gradient_bound()


def test_checkpointed_adapters_under_autocast_have_the_gradient():
    base, rows = checkpointed(network(CONFIGS["qwen3"])), ragged_rows()
    made = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    share_prefix(base)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(made, scored(made, pack(rows.select(CHOSEN))))
        found = gradients(made, chosen(made, rows)[1])
    assert relative_difference(found, expected) < gradient_bound(torch.bfloat16)


def test_layers_run_again_but_for_the_last_one_on_prompts():
    made, rows = checkpointed(network(CONFIGS["qwen3"])), ragged_rows()
    share_prefix(made)
    runs = [[] for _ in made.model.layers]
    for layer, seen in zip(made.model.layers, runs, strict=True):
        layer.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0].shape[1]))
    gradients(made, chosen(made, rows)[1])
    prompts, _, drawn = runs[0][:3]
    assert [seen[3:] for seen in runs] == [[drawn, prompts], [drawn, prompts], [drawn]]
    assert all(layer.gradient_checkpointing for layer in made.model.layers)


def test_a_graph_that_is_never_run_backward_is_freed():
    """Layers that run again hold their arguments: keys among these would hold the graph, and the graph them."""
    made, rows = checkpointed(network(CONFIGS["qwen3"])), ragged_rows()
    share_prefix(made)
    prompts = pack_prompts(rows)
    layout = pack_continuations(prompts, rows)
    told = score_selected(made, layout, lambda told: layout)
    key = weakref.ref(prompts.keys[0][0][0])
    assert key() is not None
    del told, layout, prompts
    gc.collect()
    assert key() is None


def test_what_is_told_of_a_few_tokens_is_what_is_told_of_all():
    made, rows = network(CONFIGS["qwen3"]), ragged_rows()
    share_prefix(made)
    only = rows.batch.mask & (torch.arange(rows.batch.mask.shape[1]) % 3 == 0)
    few, all_of_them = chosen(made, rows, only=only)[0], chosen(made, rows)[0]
    assert torch.allclose(few["logp"], all_of_them["logp"] * only, atol=1e-6)


def test_keys_that_are_not_on_the_graph_are_caught(monkeypatch):
    keep = KeyRecorder.keep
    monkeypatch.setattr(KeyRecorder, "keep", lambda own, layer, *line: keep(own, layer, *(x.detach() for x in line)))
    assert compare_chosen(network(CONFIGS["qwen3"]), ragged_rows()) > 1e-2


def test_a_feed_forward_part_at_the_wrong_tokens_is_caught(monkeypatch):
    at = patch_forward._last_mlp_at
    monkeypatch.setattr(patch_forward, "_last_mlp_at", lambda made, ids, places: at(made, ids, places[:-1]))
    with pytest.raises(AssertionError):
        compare_chosen(network(CONFIGS["qwen3"]), ragged_rows())


# --- mutants of the two laws above


def test_parts_not_weighted_by_their_normaliser_are_caught(monkeypatch):
    monkeypatch.setattr(share, "find_mismatch", lambda model: None)
    monkeypatch.setattr(torch.Tensor, "lerp_", lambda own, prompt, weight: own.add_(prompt).div_(2))
    with pytest.raises(AssertionError):
        compare(network(CONFIGS["qwen3"]), ragged_rows())


def test_positions_that_do_not_restart_after_prompt_are_caught(monkeypatch):
    monkeypatch.setitem(globals(), "pack", lambda rows: _with_running_positions(packing.pack(rows)))
    with pytest.raises(AssertionError):
        compare(network(CONFIGS["qwen3"]), ragged_rows())


def _with_running_positions(made):
    made.positions.copy_(torch.arange(made.ids.shape[1])[None])
    return made


def test_completions_that_see_each_other_are_caught(monkeypatch):
    monkeypatch.setattr(share, "find_mismatch", lambda model: None)

    def one_row(line, lengths, fill=0.0):
        return line

    monkeypatch.setattr(attention, "_rows_of", one_row)
    monkeypatch.setattr(attention, "_in_line", lambda rows, lengths: rows)
    with pytest.raises(AssertionError):
        compare(network(CONFIGS["qwen3"]), ragged_rows())


# --- the layout, by hand


def test_two_rollouts_of_one_prompt_by_hand():
    """Prompt 5 6; completions 7 8 9 and 1 2: the last token of each predicts nothing and stands nowhere."""
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    batch = RolloutBatch(
        mask=mask,
        rationale=mask,
        answer=torch.zeros_like(mask),
        group=torch.tensor([4, 4]),
        ids=torch.tensor([[7, 8, 9], [1, 2, 0]]),
    )
    made = pack(Rows(torch.tensor([[0, 5, 6]] * 2), torch.tensor([[0, 1, 1]] * 2), batch))
    assert made.ids.tolist() == [[5, 6, 7, 8, 1]]
    assert made.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert made.groups == (PackedGroup(start=0, prompt=2, completions=(2, 1)),)
    assert made.predictor.tolist() == [1, 2, 3, 1, 4]
    assert made.target.tolist() == [7, 8, 9, 1, 2]
    assert made.spread(torch.arange(1.0, 6.0)).tolist() == [[1, 2, 3], [4, 5, 0]]


def test_rows_of_one_group_with_different_prompts_are_refused():
    rows = ragged_rows()
    rows.prompt_ids[0, -1] += 1
    with pytest.raises(QreditError, match="group 0 holds rows of different prompts"):
        pack(rows)


# --- the head


def entropy_of(log_p):
    return -(log_p.exp() * log_p.clamp(min=-1e30)).sum(1)


def nucleus_entropy(log_p, mass):
    """Row by row: the most probable tokens whose sum stays within the mass, renormalised."""
    found = []
    for row in log_p:
        kept, total = [], 0.0
        for token in row.argsort(descending=True).tolist():
            total += float(row[token].detach().exp())
            if total > mass:
                break
            kept.append(token)
        found.append(entropy_of(row[kept].log_softmax(0)[None])[0] if kept else 0 * row.sum())
    return torch.stack(found)


@pytest.mark.parametrize("nuclei", [(), (0.8, 0.3)], ids=str)
@pytest.mark.parametrize("most", [1 << 24, 200])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("biased", [True, False])
def test_the_head_is_log_softmax_and_its_entropies(most, temperature, biased, nuclei, monkeypatch):
    monkeypatch.setitem(head.MAX_LOGITS, "cpu", most)
    torch.manual_seed(0)
    hidden = torch.randn(11, 8, dtype=torch.float64).float().requires_grad_()
    weight, bias = torch.randn(50, 8).requires_grad_(), torch.randn(50).requires_grad_() if biased else None
    target, slopes = torch.randint(50, (11,)), torch.randn(2 + len(nuclei), 11)
    inputs = [t for t in (hidden, weight, bias) if t is not None]
    log_p = ((hidden @ weight.T + (0 if bias is None else bias)) / temperature).log_softmax(1)
    expected = [log_p.gather(1, target[:, None])[:, 0], entropy_of(log_p)]
    expected += [nucleus_entropy(log_p, mass) for mass in nuclei]
    logp, entropies = score_tokens(hidden, weight, bias, target, temperature, nuclei)
    found = [logp, *entropies.T]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    own = torch.autograd.grad(sum((s * f).sum() for s, f in zip(slopes, found, strict=True)), inputs)
    right = torch.autograd.grad(sum((s * f).sum() for s, f in zip(slopes, expected, strict=True)), inputs)
    for one, other in zip(own, right, strict=True):
        assert float((one - other).norm() / other.norm()) < gradient_bound()


def test_a_nucleus_leaves_out_the_token_that_crosses_its_mass():
    share = torch.tensor([[0.5, 0.25, 0.15, 0.06, 0.04], [0.9, 0.04, 0.03, 0.02, 0.01]])
    assert head.nucleus_mask(share, 0.8).tolist() == [[True, True, False, False, False], [False] * 5]


def test_prediction_errors_and_states_give_the_heads_gradient():
    made = network(CONFIGS["qwen3"])
    share_prefix(made)
    rows = ragged_rows()
    among = torch.arange(97)
    told = score(made, pack(rows), wanted=ScoreRequest(hidden=True, among=among))
    few = score(made, pack(rows), wanted=ScoreRequest(hidden=True, among=among[5:20]))
    row, column = 2, 1
    made.zero_grad()
    told["logp"][row, column].backward()
    outer = told["prediction_error"][row, column][:, None] * told["hidden"][row, column]
    assert torch.allclose(made.lm_head.weight.grad, outer, atol=1e-5)
    assert torch.equal(few["prediction_error"], told["prediction_error"][..., 5:20])


def test_divergence_from_another_model_is_the_whole_sum():
    generator = torch.Generator().manual_seed(0)
    hidden, other = (torch.randn(70, width, generator=generator) for width in (8, 6))
    weight, bias, of_other = (torch.randn(*shape, generator=generator) for shape in ((41, 8), (41,), (41, 6)))
    leaves = [value.clone().requires_grad_() for value in (hidden, weight, bias)]

    def plain(hidden, weight, bias):
        log_p = ((hidden @ weight.T + bias) / 0.7).log_softmax(1)
        log_q = (other @ of_other.T / 0.7).log_softmax(1)
        return (log_p.exp() * (log_p - log_q)).sum(1)

    found = divergences(*leaves, (other, of_other, None), 0.7)
    assert torch.allclose(found, plain(hidden, weight, bias), atol=1e-4)
    upstream = torch.randn(70, generator=generator)
    again = [value.clone().requires_grad_() for value in (hidden, weight, bias)]
    expected = torch.autograd.grad((plain(*again) * upstream).sum(), again)
    for one, right in zip(torch.autograd.grad((found * upstream).sum(), leaves), expected, strict=True):
        assert torch.allclose(one, right, rtol=1e-3, atol=1e-3 * float(right.abs().max()))


# --- what it serves


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MistralConfig(**SHAPE, sliding_window=8), "sliding window of 8"),
        (Gemma3TextConfig(**SHAPE), "sliding_attention layers"),
        (Gemma2Config(**SHAPE), "sliding_attention layers"),
        (GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4), "positions are not rotary"),
        (Qwen3Config(**SHAPE, attention_dropout=0.1), "dropout"),
        (LlamaConfig(**SHAPE, attn_implementation="eager"), "eager"),
        (LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), "dynamic"),
        (DeepseekV3Config(**COMPRESSED), "kv_lora_rank=8"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_a_model_it_cannot_serve_is_told_why(config, words):
    assert words in unsupported_reason(network(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_it_serves(name):
    made = network(CONFIGS[name])
    assert unsupported_reason(made) is None
    assert share_prefix(made) is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (DiffLlamaConfig(**SHAPE), "layer 0 attends more than once"),
        (DogeConfig(**SHAPE, bos_token_id=1, eos_token_id=1), "attention mask of its own"),
    ],
    ids=["diffllama", "doge"],
)
def test_a_model_that_a_trial_finds_out_is_not_served(config, words):
    made = network(config)
    rows = ragged_rows()
    expected = ordinary(made.eval(), rows)
    assert unsupported_reason(made) is None
    assert words in share_prefix(made)
    assert words in share_prefix(made)
    assert not has_shared_prefix(made)
    assert torch.allclose(ordinary(made, rows)[0], expected[0], atol=1e-6)


@pytest.mark.parametrize("way", ["packed", "kept", "decoded"])
def test_the_trial_finds_a_wrong_way(way, monkeypatch):
    if way == "decoded":
        monkeypatch.setattr(Decoder, "step", _one_further(Decoder.step))
    else:
        name = "pack" if way == "packed" else "pack_continuations"
        monkeypatch.setattr(share, name, _later_completions(getattr(share, name)))
    assert "differ by" in share_prefix(network(CONFIGS["qwen3"], attn_implementation="sdpa"))


def _one_further(step):
    def further(decoder, tokens):
        decoder.starts = decoder.starts + 1
        return step(decoder, tokens)

    return further


def _later_completions(make):
    def later(*args):
        made = make(*args)
        made.positions[:, -3:] += 4
        return made

    return later


def test_a_trial_leaves_the_model_as_it_was():
    made = network(CONFIGS["qwen3"]).train()
    before, state = {name: value.clone() for name, value in made.state_dict().items()}, torch.get_rng_state()
    share_prefix(made)
    assert made.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_a_scaled_head_is_not_served():
    made = network(CONFIGS["llama"])
    made.config.final_logit_softcapping = 30.0
    assert "final_logit_softcapping=30.0" in unsupported_reason(made)


# --- in the trainer


@pytest.mark.parametrize("objective", ["garl(q=0.75)", *map(e2e, ("paft(q=0.75)", "grpo()", "dapo()"))])
def test_a_run_has_gradients_of_one_that_repeats_its_prompts(tmp_path, objective):
    packed = trainer(tmp_path, objective, reward_funcs=length_reward)
    plain = trainer(tmp_path, objective, reward_funcs=length_reward, shared_prefix=False)
    assert (packed.layout, plain.layout) == (pack, pad_rows)
    assert relative_difference(first_step_gradients(packed), first_step_gradients(plain)) < gradient_bound()


def test_a_run_falls_back_with_one_notice(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger=prepare.__name__):
        made = trainer(tmp_path, network=model(layer_types=["full_attention", "sliding_attention"], sliding_window=4,
                                               use_sliding_window=True))  # fmt: skip
    notices = [record.message for record in caplog.records if "once for each rollout" in record.message]
    (notice,) = notices
    assert notice.endswith("once for each rollout, not once for each group: it has sliding_attention layers")
    assert made.layout is pad_rows
    made.train()


def test_the_temperature_reaches_the_head(tmp_path):
    packed, plain = (
        trainer(tmp_path, "grpo()", reward_funcs=length_reward, temperature=0.7, shared_prefix=shared)
        for shared in (True, False)
    )
    assert relative_difference(first_step_gradients(packed), first_step_gradients(plain)) < gradient_bound()


def test_only_rows_that_carry_a_coefficient_are_differentiated(tmp_path):
    made = trainer(tmp_path, "paft(q=0.75)", rows_per_forward=8)
    made.scorer.caches_prompts = False
    seen = []
    scored = made.scorer.score

    def watch(network, rows, only=None):
        seen.append((torch.is_grad_enabled(), len(rows.batch.mask), only is None))
        return scored(network, rows, only)

    made.scorer.score = watch
    first_step_gradients(made)
    made.scorer.score = scored
    drawn = int(Credited(_credit_of(made)).learning.sum())
    assert seen == [(False, 8, False), (True, drawn, True)]
    assert drawn < 8


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2}], ids=str)
def test_a_draw_computes_its_prompts_once_with_same_gradient(tmp_path, changes):
    """Against scoring first and a second forward pass; the prompts' tokens are counted."""
    kept, again = (trainer(tmp_path, "paft(q=0.75, resamples=1)", **changes) for _ in range(2))
    again.scorer.caches_prompts = False
    tokens = {}
    for made in (kept, again):
        counted = tokens[made] = []
        made.model.model.layers[0].register_forward_hook(_count_into(counted))
    assert relative_difference(first_step_gradients(kept), first_step_gradients(again)) < gradient_bound()
    assert kept.scorer.caches_prompts
    prompts, whole, drawn = tokens[kept][-3:]
    assert [whole + prompts - 2, drawn + prompts - 2] == tokens[again][-2:]  # two groups, whose last tokens stand anew


def _count_into(counted):
    return lambda module, args, output: counted.append(args[0].shape[1]) if module.training else None


def test_prompts_are_kept_where_layers_run_again_on_their_graph(tmp_path):
    plain = first_step_gradients(trainer(tmp_path, "paft(q=0.75)"))
    for detached in (False, True):
        made = trainer(
            tmp_path,
            "paft(q=0.75)",
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": detached},
        )
        assert relative_difference(first_step_gradients(made), plain) < gradient_bound()
        assert made.scorer.caches_prompts is not detached


@pytest.mark.parametrize("again", [False, True])
def test_keys_of_checkpointed_layers_stay_where_there_is_room(tmp_path, again):
    """Memory for the rows exactly: keys stand beside them only where layers hold no more than their input."""
    made = trainer(tmp_path, "paft(q=0.75)", gradient_checkpointing=again)
    expected = first_step_gradients(made)
    rows = made._generation.microbatches[0].rows
    assert made.scorer.fits_with_kept_prompts(rows)
    made.scorer._tokens_that_fit = made.scorer.tokens(rows)
    assert made.scorer.fits_with_kept_prompts(rows) is not again
    made.scorer.rows_per_forward = 8
    assert made.scorer.fits_with_kept_prompts(rows)
    full = trainer(tmp_path, "paft(q=0.75)", gradient_checkpointing=again)
    full.scorer.fits_with_kept_prompts = lambda rows: False
    full.scorer.can_cache_prompts = lambda: True
    full.model.forward = _without_choice(full.model.forward)
    assert relative_difference(first_step_gradients(full), expected) < gradient_bound()


def _without_choice(forward):
    def run(*args, choose=None, **kwargs):
        assert choose is None
        return forward(*args, **kwargs)

    return run


def _credit_of(made):
    """PAFT's coefficients on the recorded rollouts at the first step's weights."""
    rows = made._generation.microbatches[0].rows
    with torch.no_grad():
        return made.objective.credit(made.scorer.score_batch_no_grad(made.model, rows))


def test_a_step_without_any_coefficient_still_runs_one_row(tmp_path):
    made = trainer(
        tmp_path, "grpo()", reward_funcs=lambda completions, **columns: [0.0] * len(completions), rows_per_forward=8
    )
    seen = []
    scored = made.scorer.score

    def watch(network, rows, only=None):
        seen.append((torch.is_grad_enabled(), len(rows.batch.mask), only is None))
        return scored(network, rows, only)

    made.scorer.score = watch
    gradients = first_step_gradients(made)
    assert seen == [(False, 8, True), (True, 1, True)]
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients.values())


def test_the_self_check_passes_and_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger=trainer_module.__name__):
        made = trainer(tmp_path, verify_prefix=True, max_steps=2)
        made.train()
    assert sum("shared prefix verified" in record.message for record in caplog.records) == 1


def test_the_self_check_does_not_mind_dropout_in_adapters():
    base = network(CONFIGS["qwen3"])
    made = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False, lora_dropout=0.5))
    made.train()
    share_prefix(made)
    assert verify(made, ragged_rows(), half=False) < gradient_bound()
    assert all(module.training for module in made.modules())


def test_the_self_check_refuses_a_wrong_attention(tmp_path, monkeypatch):
    monkeypatch.setattr(share, "find_mismatch", lambda model: None)
    monkeypatch.setattr(torch.Tensor, "lerp_", lambda own, prompt, weight: own.add_(prompt).div_(2))
    with pytest.raises(QreditError, match="differ by .* set shared_prefix to false"):
        trainer(tmp_path, verify_prefix=True).train()


def test_the_setting_is_on_by_default(tmp_path):
    assert settings(tmp_path).shared_prefix
