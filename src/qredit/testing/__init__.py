"""Tiny models whose every trajectory is listed, so that an estimator's exact mean and variance are known numbers."""
