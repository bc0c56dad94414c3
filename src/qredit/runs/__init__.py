"""A training run from options to a folder: what the command line and the experiments share."""
