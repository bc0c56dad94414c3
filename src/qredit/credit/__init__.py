"""Stages: one file for each kind of operation on the coefficient."""
