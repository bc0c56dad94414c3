"""GARL in the open: sampling, likelihood, credit and update without a trainer. `python examples/loop.py [STEPS]`.

Each step: sample M rationales for each question, append the gold answer to each as ids, score its likelihood, turn the
likelihoods into one coefficient per token, and take the gradient of Σ coefficient · log-probability.
"""

import itertools
import sys
from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import pocket, tasks
from qredit.objectives import garl
from qredit.rollouts.collate import collate
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.samplers.transformers import sample

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 80
QUESTIONS, M, BUDGET = 8, 16, TokenBudget(thinking=32, answer=8)

torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(pocket.get_model_path("hotpot"), dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(pocket.get_model_path("hotpot"))
format = TokenFormat(Format.of(tokenizer), tokenizer)
examples = itertools.cycle(tasks.get("pocket-hotpot").load(None, "train", "cold"))
objective = garl(q=0.75)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

for step in range(STEPS):
    asked = [example for example in itertools.islice(examples, QUESTIONS) for _ in range(M)]
    prompts = [tuple(format.prompt_ids(example.prompt)) for example in asked]
    rollouts = sample(
        model, prompts, format, BUDGET, stop_tokens=[tokenizer.eos_token_id], pad=tokenizer.pad_token_id, seed=step
    )
    right = [format.response_text(r.answer_ids) == e.answer for r, e in zip(rollouts, asked, strict=True)]
    rows = collate(
        [
            replace(rollout, group=row // M, golds=(tuple(format.answer_ids(example.answer)),), reward=float(ok))
            for row, (rollout, example, ok) in enumerate(zip(rollouts, asked, right, strict=True))
        ],
        tails=("answer",),  # prompt, rationale, closing, gold answer
        pad=tokenizer.pad_token_id,
        seed=step,
        device=model.device,
    )
    ids = torch.cat([rows.prompt_ids, rows.batch.ids], 1)
    mask = torch.cat([rows.prompt_mask, rows.batch.mask.long()], 1)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, rows.prompt_ids.shape[1] - 1 : -1]
    logp = logits.log_softmax(-1).gather(-1, rows.batch.ids[..., None])[..., 0]  # (B, T)

    answer_logp = (logp.detach().double() * rows.batch.answer).sum(1)  # log p(y* | x, z), nats
    batch = replace(rows.batch, logp=logp.detach(), answer_logp=answer_logp)
    coefficient = objective.credit(batch)  # (B, T)
    loss = -(coefficient * logp).sum() / len(coefficient)

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    likelihood = (answer_logp.view(QUESTIONS, M).logsumexp(1) - torch.tensor(M).log()).median() / torch.log(
        torch.tensor(10.0)
    )
    print(f"step {step + 1:3d}  right {sum(right) / len(right):6.1%}  median p̂ 1e{likelihood:.1f}")
