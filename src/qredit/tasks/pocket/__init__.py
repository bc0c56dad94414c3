"""Pocket tasks: generated questions in the schemas of the official data sets, so that nothing is downloaded."""
