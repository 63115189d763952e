"""Zeros of a flow from many starts at once: Levenberg-Marquardt with the analytic Jacobian, ended by Newton's method.

Everywhere q = ½|dt·v(x)|²: half the squared distance that the Euler map moves a state in one step, as in Golub &
Sussillo (2018), FixedPointFinder. It is 0 at a fixed point of the flow, which is one of the map too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vwm.analysis.dynamics import System

ROOT = 1e-20  # a root has q below this times 1 + |x|²: rounding leaves about 1e-28
_SAME = 1e-6  # roots closer than this times 1 + max|x| are one
_MATRIX_BYTES = 64 * 2**20  # of the Jacobians that are held at once
_PATIENCE, _STALLED = 20, 0.9  # a search is given up when q stays above this share of itself over so many iterations


@dataclass(frozen=True)
class FixedPoints:
    """What a search found; S starts, P different points.

    Attributes:
        points: [P, N], ordered by group and then by q.
        group: [P], the number of the input under which a point is one.
        inputs: [P, K], that input.
        q: [P].
        eigenvalues: [P, N] complex, of the flow's Jacobian, per unit of time, the largest real part first.
        is_outlier: [P], far from all starts: see `outliers`.
        reached: [S], the point that the search from a start ended in, −1 for none.
        slow: [number, N], where the other searches ended: minima of q that are no roots, or a search not finished.
        slow_q: [number].
        dt: step of the Euler map.
    """

    points: Tensor
    group: Tensor
    inputs: Tensor
    q: Tensor
    eigenvalues: Tensor
    is_outlier: Tensor
    reached: Tensor
    slow: Tensor
    slow_q: Tensor
    dt: float

    @property
    def unstable_modes(self) -> Tensor:
        """[P] eigenvalues of the flow with a positive real part."""
        return (self.eigenvalues.real > 0).sum(1)

    @property
    def multipliers(self) -> Tensor:
        """[P, N] eigenvalues 1 + dt·λ of the Euler map."""
        return 1 + self.dt * self.eigenvalues

    @property
    def unstable_modes_of_map(self) -> Tensor:
        """[P] multipliers outside the unit circle; a fast oscillation can be stable in the flow and not in the map."""
        return (self.multipliers.abs() > 1).sum(1)


def q_of(system: System, states: Tensor, inputs: Tensor, dt: float) -> Tensor:
    """q, [states]."""
    return 0.5 * (dt * system.velocity(states, inputs)).square().sum(1)


@torch.no_grad()
def find_fixed_points(
    system: System,
    starts: Tensor,
    inputs: Tensor,
    group: Tensor,
    dt: float,
    *,
    max_iterations: int = 200,
    outlier_distance_scale: float = 10.0,
) -> FixedPoints:
    """The fixed points that the starts lead to.

    Args:
        system: the flow.
        starts: [S, N], float64.
        inputs: [S, K], the constant input of each.
        group: [S] whole numbers; starts of one group have the same input, and share their points.
        dt: step of the Euler map, in the system's unit of time.
        max_iterations: of each search.
        outlier_distance_scale: see `outliers`.
    """
    at_once = max(1, _MATRIX_BYTES // (8 * starts.shape[1] ** 2))
    ends = torch.cat(
        [
            _levenberg_marquardt(
                system, starts[first : first + at_once], inputs[first : first + at_once], dt, max_iterations
            )
            for first in range(0, len(starts), at_once)
        ]
    )
    is_root = q_of(system, ends, inputs, dt) <= ROOT * (1 + ends.square().sum(1))
    return gather(system, starts, ends, inputs, group, dt, is_root, _SAME, outlier_distance_scale)


def _levenberg_marquardt(system: System, states: Tensor, inputs: Tensor, dt: float, max_iterations: int) -> Tensor:
    """Where the searches end, [starts, N].

    A step solves (JᵀJ + μ) δ = −Jᵀv; the damping μ follows the ratio of the gain to the gain foretold (Nielsen 1999,
    Damping parameter in Marquardt's method). At a root μ goes to 0 and the step becomes Newton's.
    """
    ends = states.clone()
    active = torch.arange(
        len(states), device=states.device
    )  # the searches that go on; all that follows is about them alone
    velocity = system.velocity(ends, inputs)
    damping = torch.full_like(velocity[:, 0], -1.0)  # set from the first Jacobian
    growth = torch.full_like(damping, 2.0)
    earlier = torch.full_like(damping, torch.inf)
    for iteration in range(max_iterations):
        x, u = ends[active], inputs[active]
        jacobian = system.jacobian(x, u)
        gradient = (velocity[:, None, :] @ jacobian)[:, 0]
        normal = jacobian.transpose(1, 2) @ jacobian
        diagonal = normal.diagonal(dim1=1, dim2=2)
        damping = torch.where(damping < 0, 1e-3 * diagonal.amax(1), damping)
        diagonal += damping[:, None]
        step = -torch.linalg.solve_ex(normal, gradient)[0]
        size = velocity.square().sum(1)
        tried = system.velocity(x + step, u)
        foretold = (step * (damping[:, None] * step - gradient)).sum(1)
        gain = size - tried.square().sum(1)
        accepted = gain > 0  # False for a step that is not finite
        ratio = torch.where(accepted, gain / foretold.clamp_min(1e-300), 0)
        ends[active[accepted]] += step[accepted]
        velocity = torch.where(accepted[:, None], tried, velocity)
        damping *= torch.where(accepted, (1 - (2 * ratio - 1) ** 3).clamp(1 / 3, 2), growth)
        growth = torch.where(accepted, 2.0, 2 * growth)

        size = velocity.square().sum(1)
        # Below the rounding of v itself nothing is gained; until then even a root is improved further.
        goes_on = (0.5 * dt**2 * size > 1e-8 * ROOT * (1 + ends[active].square().sum(1))) & (growth < 1e9)
        if iteration % _PATIENCE == _PATIENCE - 1:
            goes_on &= size < _STALLED * earlier
            earlier = size.clone()
        if not goes_on.any():
            break
        active, velocity, damping, growth, earlier = (
            values[goes_on] for values in (active, velocity, damping, growth, earlier)
        )
    return ends


@torch.no_grad()
def gather(
    system: System,
    starts: Tensor,
    ends: Tensor,
    inputs: Tensor,
    group: Tensor,
    dt: float,
    is_root: Tensor,
    same: float,
    outlier_distance_scale: float,
) -> FixedPoints:
    """Merge the ends of searches that are roots, and describe each point; the arguments are as above.

    Args:
        ends: [S, N], where the searches ended.
        is_root: [S] bool, those that found a fixed point.
        same: of one group, ends closer than this times 1 + max|x| in every coordinate are one point, and the one with
            the smallest q stands for them.
    """
    q = q_of(system, ends, inputs, dt)
    reached = torch.full((len(starts),), -1, device=starts.device)
    chosen: list[int] = []
    roots = is_root.nonzero()[:, 0]
    for number in sorted(set(group[roots].tolist())):
        rest = roots[group[roots] == number]
        rest = rest[q[rest].argsort()]
        while len(rest):
            first = ends[rest[0]]
            near = (ends[rest] - first).abs().amax(1) <= same * (1 + first.abs().max())
            reached[rest[near]] = len(chosen)
            chosen.append(int(rest[0]))
            rest = rest[~near]
    index = torch.tensor(chosen, dtype=torch.long, device=starts.device)
    points = ends[index]
    eigenvalues = torch.linalg.eigvals(system.jacobian(points, inputs[index]))
    order = eigenvalues.real.argsort(dim=1, descending=True)
    return FixedPoints(
        points=points,
        group=group[index],
        inputs=inputs[index],
        q=q[index],
        eigenvalues=eigenvalues.gather(1, order),
        is_outlier=outliers(points, starts, outlier_distance_scale),
        reached=reached,
        slow=ends[~is_root],
        slow_q=q[~is_root],
        dt=dt,
    )


def outliers(points: Tensor, starts: Tensor, scale: float) -> Tensor:
    """FixedPointFinder's rule: further from the starts' centroid than ``scale`` times their mean distance, [P] bool."""
    centroid = starts.mean(0)
    usual = torch.linalg.vector_norm(starts - centroid, dim=1).mean()
    is_far: Tensor = torch.linalg.vector_norm(points - centroid, dim=1) > scale * usual
    return is_far
