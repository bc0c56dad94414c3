"""Runs as one self-contained HTML page: curves, words, and a viewer of the credit that every token was given."""
