"""The gold answer's probability without a rationale: whose it is, and that it is worked out once for a prompt."""

from dataclasses import replace

import torch

from qredit import Objective, on_span
from qredit.engine.base_probability import drop_rationales
from qredit.rollouts.trajectory import make_one_turn
from tests.engine.test_fields import reads
from tests.support.runs import first_step_gradients, length_reward, trainer
from tests.support.tiny import model


def test_it_is_the_mean_right_after_an_empty_closed_rationale(tmp_path):
    source = reads("base_probability", ([],), ("answer_logp", "reward"))
    made = trainer(tmp_path, Objective(on_span("sampled", source)), reward_funcs=length_reward)
    first_step_gradients(made)
    batch, rows = source.seen[0][-1], made._generation.microbatches[0].rows
    found = batch.extra["base_probability"]
    assert len(found) == 2 * 8, "a row with the gold answer and one with the sampled one"
    network = model()
    for row in (0, 9):
        gold = rows.batch.ids[row - row % 2][rows.batch.answer[row - row % 2]]
        prompt = rows.prompt_ids[row][rows.prompt_mask[row].bool()]
        close = torch.tensor(made.format.close_ids)
        with torch.no_grad():
            logp = network(torch.cat([prompt, close, gold])[None]).logits[0].log_softmax(-1)
        of_gold = logp[len(prompt) + len(close) - 1 : -1].gather(1, gold[:, None])
        assert torch.allclose(found[row].float(), of_gold.exp().mean(), atol=1e-5)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    sampled = made._generation.microbatches[0].first
    again = made.collator.add_forward_fields(made.model_wrapped, rows.select(slice(8)), sampled).batch.extra[
        "base_probability"
    ]
    assert torch.allclose(again, found[:8], atol=1e-6), "of the model that the run began with"


def test_a_prompt_is_asked_once_with_its_right_answers():
    rollout = make_one_turn((1,), (5, 6), (-1.0, -1.0), 1, 2, forced=False, ended=True)
    golds = ((0, ((7,),)), (0, ((7,), (8,))), (1, ((8,),)), (2, ((7,),)))
    closed = drop_rationales([replace(rollout, group=group, golds=own) for group, own in golds], [3, 4])
    assert sorted(one.golds for one in closed) == [((7,),), ((7,), (8,)), ((8,),)]
    assert all(one.ids == (3, 4) and one.close_end == 2 for one in closed)
