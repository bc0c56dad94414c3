"""From a prompt and a gold answer to the rows an objective learns from: format, sampling, collation."""
