"""The right answer in the place of each turn: one packed pass has the likelihoods that separate passes have."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qredit.core.field_names import ANSWER_AFTER, ANSWER_AT
from qredit.engine.answer_at_turns import branch_answers, score_answer_at_turns, spread_over_turns
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.shared_prefix import attention
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.share import share_prefix
from tests.support.tiny import model

CLOSE, PAD, CPU = (90, 91), 0, torch.device("cpu")
GOLDS = ((11, 12, 13), (14, 15))


def episode(group, turns, golds=GOLDS[:1], end=EndReason.ANSWER, close=CLOSE):
    """An episode of so many turns; its tokens are a function of group and turns."""
    generator = torch.Generator().manual_seed(10 * group + turns)

    def tokens(count):
        return tuple(torch.randint(20, 80, (count,), generator=generator).tolist())

    segments = []
    for turn in range(turns):
        segments += [
            Segment(tokens(2 + turn), Role.THINK, True, turn=turn),
            Segment(close, Role.CLOSE, close is not CLOSE, turn=turn),
            Segment(tokens(2), Role.ANSWER, True, turn=turn),
            Segment(tokens(5), Role.OBSERVATION, False, turn=turn),
        ]
    prompt = tuple(range(30 + group, 34 + 2 * group))
    return Trajectory(prompt, tuple(segments[:-1]), end, golds=golds, group=group)


EPISODES = [
    episode(0, 3),
    episode(0, 1, GOLDS, close=(92,)),
    episode(0, 4, GOLDS),
    episode(1, 2, end=EndReason.ERROR),
    episode(1, 2, end=EndReason.BUDGET),
]


def forward_of(network, layout=pack, chunk=5):
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    assert share_prefix(base) is None
    return Forward(network, base, layout, lambda rows: torch.arange(len(rows.batch.mask)).split(chunk), 3.0)


@torch.no_grad()
def separately(network, one, k):
    """log p_k by one plain forward pass for each right answer, from the definition."""
    turns = one.segments[-1].turn + 1
    before = [token for s in one.segments if s.turn < k for token in s.ids]
    context = [*one.prompt, *([*before, *CLOSE] if k < turns else one.ids[: one.close_end])]
    found = []
    for gold in one.golds:
        logits = network(torch.tensor([[*context, *gold]])).logits[0, len(context) - 1 : -1].double()
        found.append(float(logits.log_softmax(-1).gather(1, torch.tensor(gold)[:, None]).mean()))
    return max(found)


def adapted(network):
    torch.manual_seed(3)
    made = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    made.gradient_checkpointing_enable({"use_reentrant": False})
    return made.train()


WAYS = {"packed": pack, "packed, in two passes": pack, "as on an accelerator": pack, "padded": pad_rows}


@pytest.mark.parametrize("adapters", [False, True], ids=["plain", "adapters, checkpointing"])
@pytest.mark.parametrize("way", WAYS)
def test_one_pass_has_the_likelihoods_of_separate_ones(way, adapters, monkeypatch):
    network = model(vocab_size=97).double()
    network = adapted(network) if adapters else network
    if way == "as on an accelerator":
        monkeypatch.setattr(attention, "attend_in_two_parts", attention.attend_to_copies)
    forward = forward_of(network, WAYS[way], chunk=2 if way.endswith("passes") else 5)
    found = score_answer_at_turns(EPISODES, CLOSE, PAD, forward, CPU)
    assert [len(one) for one in found] == [4, 2, 5, 3, 3]
    assert found[3].isnan().all(), "an error ended it"
    for one, told in zip(EPISODES, found, strict=True):
        for k, value in enumerate(told.tolist()):
            if one.end is not EndReason.ERROR:
                assert value == pytest.approx(separately(network, one, k), abs=1e-6)


def test_an_episode_stands_once_in_the_pass():
    rows = branch_answers(EPISODES[:1], CLOSE, PAD, CPU)
    stem, branch = EPISODES[0].close_end, len(CLOSE) + 3
    assert pack(rows).ids.numel() == len(EPISODES[0].prompt) + stem + 2 + 3 * (branch - 1)


def test_fields_stand_on_the_tokens_of_their_turn():
    chosen = [EPISODES[0], EPISODES[2]]
    told = [torch.tensor([-1.0, -2.0, -3.0, -4.0]), torch.tensor([-5.0, -6.0, -7.0, -8.0, -9.0])]
    rows = collate(chosen, ("answer", "response"), PAD, 0, CPU)
    fields = spread_over_turns(told, chosen, ("answer", "response"), rows)
    assert fields[ANSWER_AFTER].tolist() == [-4.0, -4.0, -9.0, -9.0]
    for row, first in enumerate((-1.0, -1.0, -5.0, -5.0)):
        there = rows.batch.mask[row]
        assert fields[ANSWER_AT][row][there].tolist() == (first - rows.batch.turn[row][there]).tolist()
