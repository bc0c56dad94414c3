"""Train a model from questions and answers: `python examples/basic.py [STEPS]`."""

import sys

from datasets import Dataset

from qredit import pocket, tasks
from qredit.trl import QreditConfig, QreditTrainer

examples = tasks.get("pocket-hotpot").load(None, "train", "cold")  # or your own questions and answers
data = Dataset.from_dict({"prompt": [e.prompt for e in examples], "answer": [e.answer for e in examples]})
args = QreditConfig(
    output_dir="runs/basic",
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 80,
    per_device_train_batch_size=128,  # rollouts per step: 8 questions, 16 rollouts of each
    num_generations=16,
    max_completion_length=40,  # tokens of rationale and answer together
    answer_budget=8,  # of these, tokens kept for the answer
    learning_rate=3e-4,
    logging_steps=5,
)
trainer = QreditTrainer(str(pocket.get_model_path("hotpot")), "garl(q=0.75)", args, train_dataset=data)
trainer.train()
trainer.save_model("runs/basic/final")
