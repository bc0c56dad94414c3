"""What an agent loop of verl hands on: rows that end in gold answers, and rewards of what was sampled alone."""

import asyncio
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from qredit import pocket
from qredit.engine.rollout_bytes import from_bytes
from qredit.rollouts.format import Format, TokenFormat
from tests.support.recorded_rows import TWO_TAILS
from tests.support.verl_cpu.environment import needs_verl

pytestmark = [needs_verl, pytest.mark.verl]
MODEL = pocket.get_model_path("dial-6")
GOLD, OTHER = "Dewa", "Soso"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


class Servers:
    """Draw what they are told: a rationale that is closed by force, then an answer."""

    def __init__(self, *drawn):
        self.drawn = list(drawn)

    async def generate(self, request_id, prompt_ids, sampling_params):
        ids = self.drawn.pop(0)[: sampling_params["max_tokens"]]
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields={"global_steps": 3})


def draw(tokenizer, answer, objective, validates=False, aliases=()):
    """The rows of a rollout with this sampled answer, as ids, and the format's ids of a right answer."""
    from omegaconf import OmegaConf

    from qredit.verl.agent_loop import VALIDATES, QreditAgentLoop

    tokens = TokenFormat(Format.of(tokenizer), tokenizer)
    length = 12 + len(tokens.close_ids)
    config = OmegaConf.create(
        {
            "qredit": {"objective": objective, "answer_budget": 8},
            "actor_rollout_ref": {
                "rollout": {"response_length": length},
                "model": {"path": str(MODEL)},
            },
        }
    )
    row = {
        "raw_prompt": [{"role": "user", "content": "Dewa lies in Soso.\nWhich country does Dewa live in?"}],
        "reward_model": {"ground_truth": GOLD},
        "extra_info": {"id": "a", "index": 5, "aliases": list(aliases)},
        "data_source": "pocket-dial",
        "index": 5,
        "session_id": 1,
        "global_steps": 4,
        VALIDATES: validates,
    }
    rationale = tokenizer.encode("Soso lies in Dewa", add_special_tokens=False)[:4]

    async def run():
        loop = QreditAgentLoop(
            SimpleNamespace(config=config), Servers(rationale, answer), tokenizer, None, None,
            SimpleNamespace(config=OmegaConf.create({})),
        )  # fmt: skip
        return await loop.run({"temperature": 1.0}, **row)

    return asyncio.run(run()), list(tokens.answer_ids(GOLD)), len(rationale) + len(tokens.close_ids)


def answers(tokenizer):
    """What may be sampled as an answer, by whether it is right."""
    tokens = TokenFormat(Format.of(tokenizer), tokenizer)
    gold, other = list(tokens.answer_ids(GOLD)), list(tokens.answer_ids(OTHER))
    return {
        "right": (gold, 1.0),
        "wrong": (other, 0.0),
        "empty": (gold[-1:], 0.0),
        "begun": (gold[:-2] + other[-1:], 0.0),  # with the gold answer behind it, it would be right
        "cut": (other[:-1] * 8, 0.0),
    }


@pytest.mark.parametrize("objective", ["garl(q=0.75)", TWO_TAILS])
@pytest.mark.parametrize("kind", ["right", "wrong", "empty", "begun", "cut"])
def test_a_gold_answer_never_makes_a_wrong_one_right(tokenizer, objective, kind):
    answer, reward = answers(tokenizer)[kind]
    rows, gold, head = draw(tokenizer, answer, objective)
    assert [one.reward_score for one in rows] == [reward] * (1 + (objective == TWO_TAILS))
    assert rows[0].response_ids[head:] == gold  # though it stands there
    assert from_bytes(rows[0].extra_fields["qredit_rollout"])[1].reward == reward
    assert {value for one in rows for value in one.extra_fields["reward_extra_info"].values()} == {reward}


@pytest.mark.parametrize("kind", ["right", "wrong", "cut"])
def test_what_is_validated_is_what_was_sampled(tokenizer, kind):
    answer, reward = answers(tokenizer)[kind]
    (row,), _, head = draw(tokenizer, answer, "garl(q=0.75)", validates=True, aliases=[OTHER + " Dewa"])
    assert row.response_ids[head:] == answer[:8]
    assert row.reward_score == reward
    assert row.response_mask == [1] * 4 + [0] * (head - 4) + [1] * len(answer[:8])


def test_each_right_answer_has_a_row(tokenizer):
    answer, _ = answers(tokenizer)["wrong"]
    rows, gold, head = draw(tokenizer, answer, "garl(q=0.75)", aliases=[OTHER])
    assert [one.response_ids[head:] for one in rows] == [gold, answer]
    assert [one.reward_score for one in rows] == [1.0, 1.0]  # as the alias counts in the reward, too
    assert ["qredit_rollout" in one.extra_fields for one in rows] == [True, False]
