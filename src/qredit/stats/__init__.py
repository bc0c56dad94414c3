"""Statistics of groups, tokens and segments, and intervals; nothing of training."""
