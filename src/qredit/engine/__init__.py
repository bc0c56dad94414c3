"""One optimiser step without an engine: rollouts, rows, scores, credit, loss, metrics; checkpoints."""
