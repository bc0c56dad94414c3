"""Train a process reward model on what `qredit search` wrote: `… process_reward_model.py ROWS MODEL FOLDER [EPOCHS]`.

MODEL is the folder or id of a language model; its head is replaced by one with the labels 0 bad and 1 good, which is
read where a step ends. `--field 'step_score=process_reward_model("FOLDER")'` then reads it in training. FOLDER must be
new.
"""

import json
import random
import sys
from pathlib import Path

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from qredit.rewards.judge.model import ProcessRewardModel

rows_file, path, folder, *rest = sys.argv[1:]
if Path(folder).exists():
    sys.exit(f"{folder} exists already; give a new folder")
rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
random.seed(0)
torch.manual_seed(0)
model = AutoModelForTokenClassification.from_pretrained(
    path, num_labels=2, id2label={0: "bad", 1: "good"}, dtype=torch.float32
)
tokenizer = AutoTokenizer.from_pretrained(path)
reader = ProcessRewardModel(model, tokenizer)  # how it will be asked: question and steps, a blank line behind each
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
for epoch in range(int(rest[0]) if rest else 3):
    random.shuffle(rows)
    total = 0.0
    for start in range(0, len(rows), 16):
        batch = rows[start : start + 16]
        loss = torch.zeros(())
        for row in batch:
            ids, ends = reader.lay_out(row["prompt"], row["completions"])
            logits = model(input_ids=torch.tensor([ids])).logits[0, ends]  # (steps, 2)
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(row["labels"]).long())
        (loss / len(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
    print(f"epoch {epoch + 1}: loss {total / len(rows):.3f} nats a step")
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
