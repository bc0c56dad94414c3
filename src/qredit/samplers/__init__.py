"""Where completions come from: samplers, and questions answered by them."""
