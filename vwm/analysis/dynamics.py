"""Systems dx/dt = v(x, input) whose fixed points are looked for: a network without noise, or any other."""

from typing import Protocol

import torch
from torch import Tensor

from vwm.model.network import Network
from vwm.model.recurrence import activation
from vwm.model.trajectory import saturation_of


class System(Protocol):
    """An autonomous flow, computed for many states at once."""

    def velocity(self, states: Tensor, inputs: Tensor) -> Tensor:
        """dx/dt of [states, N] under the constant inputs [states, K]."""

    def jacobian(self, states: Tensor, inputs: Tensor) -> Tensor:
        """∂v_i/∂x_j, [states, N, N]."""


class NetworkFlow:
    """The rates of a network without noise: dr/dt = (−r + φ(W_e r + d))/τ, Hz/ms, with the constant drive d = B·u."""

    def __init__(self, network: Network) -> None:
        """The flow in float64, on the network's device."""
        self._weights = (network.recurrent * network.sign).detach().double()
        self._tau = network.tau.double()
        saturation = saturation_of(network)
        self._saturation = None if saturation is None else saturation.double()

    def velocity(self, states: Tensor, inputs: Tensor) -> Tensor:
        """dr/dt, Hz/ms, [states, N], at the rates ``states`` under the drives ``inputs`` [states, N]."""
        value, _ = activation(states @ self._weights.T + inputs, self._saturation)
        return (value - states) / self._tau

    def jacobian(self, states: Tensor, inputs: Tensor) -> Tensor:
        """(φ'(x_i)·W_e,ij − δ_ij)/τ_i, 1/ms, [states, N, N]."""
        _, slope = activation(states @ self._weights.T + inputs, self._saturation)
        matrix = slope[:, :, None] * self._weights - torch.eye(len(self._tau)).to(self._weights)
        return matrix / self._tau[:, None]


@torch.no_grad()
def settle(system: System, states: Tensor, inputs: Tensor, dt: float, steps: int, still: float) -> Tensor:
    """Where the Euler map x ← x + dt·v(x) takes the states, [states, N].

    Args:
        system: whose flow it is.
        states: [states, N].
        inputs: [states, K], constant.
        dt: step, in the system's unit of time.
        steps: at most so many are taken.
        still: no more are taken when no coordinate moves further than this in one.
    """
    for _ in range(steps):
        change = dt * system.velocity(states, inputs)
        states = states + change
        if float(change.abs().max()) <= still:
            break
    return states
