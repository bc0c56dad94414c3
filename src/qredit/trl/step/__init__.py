"""What a training step is made of: rollouts, their rows, forward passes, the loss, what a whole step shares."""
