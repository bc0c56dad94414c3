"""Episodes of several turns: environments, tools, and what plays them over any sampler."""

from qredit.environments.protocol import Environment, Step

__all__ = ["Environment", "Step"]
