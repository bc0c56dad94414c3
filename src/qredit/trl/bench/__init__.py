"""What a training step costs here and with TRL's own GRPOTrainer: the same model, data, lengths and rollouts."""
