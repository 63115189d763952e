"""Adam, and the schedule of its step size: torch's arithmetic without torch.optim.Optimizer.

Making one of torch's optimisers loads torch's compiler with it: 150 MB for each process of a sweep, and on a CPU for
nothing, since what was compiled before is loaded without a compiler.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

ENOUGH = 1 - 1e-4
"""A loss has fallen where it is below so much of the best one."""

SMALLEST = 1e-8
"""A step size is not halved where half of it would not be above."""


class Adam:
    """Adam (Kingma & Ba 2015) with torch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, no weight decay.

    Attributes:
        learning_rate: the step size now.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        """Before the first step; the parameters are on one device."""
        self.learning_rate = learning_rate
        self._parameters = list(parameters)
        # On a GPU it is one that can be recorded in a graph, which counts its steps there.
        self._on_gpu = self._parameters[0].is_cuda
        where = self._parameters[0].device if self._on_gpu else None
        self._steps = [torch.zeros((), dtype=torch.float32, device=where) for _ in self._parameters]
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]  # of the gradient
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: Tensor | None = None, skip: Tensor | None = None) -> None:
        """Change the parameters by the gradients that they have.

        Args:
            learning_rate: the step size to read when a graph is replayed; if None, the one of now.
            skip: one number on the GPU, 1 where everything is to stay as it is.
        """
        step_size: Tensor | float = self.learning_rate if learning_rate is None else learning_rate
        if learning_rate is None and self._on_gpu:
            # Rounded as a graph reads it, since not all versions of torch round it themselves.
            step_size = torch.tensor(self.learning_rate, dtype=torch.float32).item()
        gradients = [parameter.grad for parameter in self._parameters]
        assert all(gradient is not None for gradient in gradients), "every parameter takes part in every trial"
        adam(
            self._parameters,  # type: ignore[arg-type]
            gradients,  # type: ignore[arg-type]
            self._means,
            self._squares,
            [],
            self._steps,
            foreach=False,
            fused=self._on_gpu,
            capturable=self._on_gpu,
            found_inf=skip,  # the name that torch.amp gave it
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=step_size,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The state, arranged as that of torch.optim.Adam."""
        state = zip(self._steps, self._means, self._squares, strict=True)
        return {
            "state": {
                index: {"step": step, "exp_avg": mean, "exp_avg_sq": square}
                for index, (step, mean, square) in enumerate(state)
            },
            "param_groups": [{"lr": self.learning_rate, "params": list(range(len(self._parameters)))}],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state that this or torch.optim.Adam gave, whatever device it comes from."""
        self.learning_rate = state["param_groups"][0]["lr"]
        for index, kept in state["state"].items():
            self._steps[index].copy_(kept["step"])
            self._means[index].copy_(kept["exp_avg"])
            self._squares[index].copy_(kept["exp_avg_sq"])


class Plateau:
    """Halves a step size when the loss has not fallen for some iterations, as torch's ReduceLROnPlateau does it.

    Fallen means by a ten-thousandth of the best loss so far; a step size of 2e-8 stays as it is.
    """

    def __init__(self, patience: int) -> None:
        """Before the first loss; the step size is halved when it has not fallen for more than ``patience`` losses."""
        self.patience = patience
        self.best = math.inf
        self.bad = 0  # losses since the best

    def step_size(self, loss: float, now: float) -> float:
        """The step size after an iteration with this loss, where it was ``now``."""
        self.best, self.bad = (loss, 0) if loss < self.best * ENOUGH else (self.best, self.bad + 1)
        if self.bad <= self.patience:
            return now
        self.bad = 0
        return now / 2 if now / 2 > SMALLEST else now

    def state_dict(self) -> dict[str, Any]:
        """What the next step size depends on, by torch's names."""
        return {"best": self.best, "num_bad_epochs": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state that this or ReduceLROnPlateau gave."""
        self.best, self.bad = state["best"], state["num_bad_epochs"]
