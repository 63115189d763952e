"""The usual search for fixed points, as a baseline: Adam on the mean q of all starts (Golub & Sussillo 2018).

The tolerances and the rules for outliers and for points that are one are FixedPointFinder's defaults.
"""

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vwm.analysis.dynamics import System
from vwm.analysis.root_search import FixedPoints, gather, q_of

TOLERANCE = 1e-12  # of q; what ends above it counts as not converged
_SAME = 1e-3


def adam_on_q(
    system: System,
    starts: Tensor,
    inputs: Tensor,
    group: Tensor,
    dt: float,
    *,
    learning_rate: float,
    max_iterations: int,
    outlier_distance_scale: float = 10.0,
) -> FixedPoints:
    """The fixed points that Adam finds from these starts; arguments and result as in `find_fixed_points`."""
    states = starts.clone().requires_grad_()
    optimizer = torch.optim.Adam([states], lr=learning_rate)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.95, patience=5)
    for _ in range(max_iterations):
        q = q_of(system, states, inputs, dt)
        if bool((q < TOLERANCE).all()):
            break
        mean = q.mean()
        optimizer.zero_grad()
        mean.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.nn.utils.clip_grad_norm_([states], 1.0)
        optimizer.step()
        scheduler.step(mean.detach())
    ends = states.detach()
    with torch.no_grad():
        is_root = q_of(system, ends, inputs, dt) < TOLERANCE
    return gather(system, starts, ends, inputs, group, dt, is_root, _SAME, outlier_distance_scale)
