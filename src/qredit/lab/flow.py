"""Gradient flow θ̇ = -∇loss(θ), integrated step by step, and when it first reaches a height."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PerStart = Callable[[Tensor], Tensor]
"""A function of parameters (N, D), one row for each start, that gives (N,)."""


@dataclass(frozen=True, eq=False)
class FlowPath:
    """Flow from N starts, S points each: time, at learning rate 1, and the logarithm of the height."""

    time: Float[Tensor, "S N"]
    log_height: Float[Tensor, "S N"]

    def first_time(self, height: float) -> Float[Tensor, " N"]:
        """When each flow first reaches `height`, by interpolation on the log scale; infinite where it never does."""
        above = self.log_height >= math.log(height)
        after = above.double().argmax(0)
        before = (after - 1).clamp(min=0)
        start = torch.arange(above.shape[1])
        low, high = self.log_height[before, start], self.log_height[after, start]
        share = torch.where(after > 0, (math.log(height) - low) / (high - low), 0.0)
        reached = torch.lerp(self.time[before, start], self.time[after, start], share)
        return torch.where(above.any(0), reached, math.inf)


def integrate_gradient_flow(
    loss: PerStart,
    log_height: PerStart,
    start: Float[Tensor, "N D"],
    until: float,
    step: float = 0.1,
    most: int = 5000,
) -> FlowPath:
    """Integrate θ̇ = -∇loss by the classical Runge-Kutta rule until every height is `until` or has stopped rising.

    The step in time is chosen for each start so that the logarithm of its height moves by about `step`: cold flows take
    as many steps as warm ones.

    Args:
        loss: per start, differentiable.
        log_height: per start, log of the quantity that is watched, differentiable.
        start: parameters to begin at.
        until: height at which a flow ends.
        step: by how much the log of a height moves in a step.
        most: steps at most.
    """
    theta, time = start, torch.zeros(len(start), dtype=start.dtype)
    times, heights = [], []
    for _ in range(most):
        height, uphill = _value_and_slope(log_height, theta)
        times.append(time)
        heights.append(height)
        velocity = _velocity(loss, theta)
        pace = (uphill * velocity).sum(1)
        moving = (height < math.log(until)) & (pace > 0)
        if not bool(moving.any()):
            break
        duration = torch.where(moving, step / pace, 0.0)
        theta = _runge_kutta(loss, theta, velocity, duration[:, None])
        time = time + duration
    return FlowPath(torch.stack(times), torch.stack(heights))


def _runge_kutta(loss: PerStart, theta: Tensor, first: Tensor, duration: Tensor) -> Tensor:
    second = _velocity(loss, theta + duration / 2 * first)
    third = _velocity(loss, theta + duration / 2 * second)
    fourth = _velocity(loss, theta + duration * third)
    return theta + duration / 6 * (first + 2 * second + 2 * third + fourth)


def _velocity(loss: PerStart, theta: Tensor) -> Tensor:
    return -_value_and_slope(loss, theta)[1]


def _value_and_slope(function: PerStart, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N,) and gradients (N, D); the starts do not meet, so one backward pass serves all of them."""
    point = theta.detach().requires_grad_()
    value = function(point)
    return value.detach(), torch.autograd.grad(value.sum(), point)[0]
