"""The fixed points of one phase of a trial: where the search starts, what it finds, where the flow itself goes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vwm.analysis.dynamics import NetworkFlow, settle
from vwm.analysis.root_search import FixedPoints, find_fixed_points, q_of
from vwm.behaviour.circular import FloatArray
from vwm.config import Configuration, FixedPointPhase, ModelParams
from vwm.model.network import Network
from vwm.model.task import Trials, draw_trials, equal_shares, input_code
from vwm.model.trajectory import estimates, rates_of_steps

_SETTLING_MS = 20_000.0
_STILL_HZ = 1e-9
_NEAR = 1e-3  # a settled state is at a point when no rate is further from it than this share of 1 + its largest rate

PHASES: dict[FixedPointPhase, str] = {
    "fpf_init": "blank",
    "fpf_stimuli": "stimulus",
    "fpf_delay": "delay",
    "fpf_decode": "read-out",
}
"""The phases that can be searched, as they are called in figures; ``fpf_NoFps`` asks for the trajectories alone."""


@dataclass(frozen=True)
class PhaseResult:
    """The search of one phase.

    Attributes:
        found: points and how they were reached, the searches from settled states included.
        starts_on_trajectories, starts_beyond, starts_settled: how many starts there were of each kind.
        basin: [starts on trajectories and beyond], the point at which the flow without noise has settled after 20 s,
            −1 for none.
        decoded: [P, M], the angle that F r gives for each point and location, radians.
        q_of_trajectories: [starts on trajectories], to compare with those of the points.
    """

    found: FixedPoints
    starts_on_trajectories: int
    starts_beyond: int
    starts_settled: int
    basin: NDArray[np.int64]
    decoded: FloatArray
    q_of_trajectories: FloatArray

    def summary(self) -> dict[str, Any]:
        """The measures of ``fixed_points.DEFINITIONS``."""
        found = self.found
        unstable = found.unstable_modes.numpy()
        at_point = np.bincount(self.basin[self.basin >= 0], minlength=len(unstable))
        slowest = time_constants(found)[:, 0] if len(unstable) else np.array([])
        return {
            "starts": {
                "on_trajectories": self.starts_on_trajectories,
                "beyond": self.starts_beyond,
                "settled": self.starts_settled,
            },
            "converged": int((found.reached >= 0).sum()),
            "unique": len(unstable),
            "stable": int((unstable == 0).sum()),
            "stable_in_map": int((found.unstable_modes_of_map == 0).sum()),
            "outliers": int(found.is_outlier.sum()),
            "q_max": float(found.q.max()) if len(unstable) else None,
            "q_median_on_trajectories": float(np.median(self.q_of_trajectories)),
            "slow_points": len(found.slow),
            "slow_q_min": float(found.slow_q.min()) if len(found.slow) else None,
            "slow_q_median": float(found.slow_q.median()) if len(found.slow) else None,
            "unstable_modes": _counts(unstable),
            "slowest_time_constant": {
                "median_of_stable": float(np.median(slowest[unstable == 0])) if (unstable == 0).any() else None,
                "max_of_stable": float(slowest[unstable == 0].max()) if (unstable == 0).any() else None,
            },
            "basins": {
                "settled_at_a_point": int((self.basin >= 0).sum()),
                "not_settled": int((self.basin < 0).sum()),
                "points_reached": int((at_point > 0).sum()),
                "largest_share": float(at_point.max() / len(self.basin)) if len(unstable) else 0.0,
            },
        }


def states_by_phase(
    network: Network, configuration: Configuration, generator: torch.Generator
) -> tuple[Trials, dict[FixedPointPhase, Tensor]]:
    """Noisy trials of all set sizes, and of each phase some of their states, [trials, states of a trial, N], float64.

    A phase without steps is left out.
    """
    params, search = network.params, configuration.fpf_params
    trials = draw_trials(params, equal_shares(params.item_num, search.fpf_trials), generator, network.tau.dtype)
    steps = steps_of_phases(params)
    rates = list(rates_of_steps(network, trials, generator))
    states: dict[FixedPointPhase, Tensor] = {}
    for phase, at in steps.items():
        if not len(at):
            continue
        chosen = torch.randint(
            len(at), (search.fpf_trials, search.fpf_N_init), generator=generator, device=generator.device
        )
        of_phase = torch.stack(rates[at.start : at.stop], dim=1).double()
        rows = torch.arange(search.fpf_trials, device=chosen.device)[:, None]
        picked = of_phase[rows, chosen]
        noise = torch.randn(picked.shape, generator=generator, device=generator.device, dtype=picked.dtype)
        states[phase] = (picked + search.fpf_noise_scale * noise).clamp_min(0)
    return trials, states


def steps_of_phases(params: ModelParams) -> dict[FixedPointPhase, range]:
    """The steps of each phase, by index of the state after them."""
    on, decode = params.stimulus_steps, params.steps - params.decode_steps
    return {
        "fpf_init": range(on.start),
        "fpf_stimuli": on,
        "fpf_delay": range(on.stop, decode),
        "fpf_decode": range(decode, params.steps),
    }


@torch.no_grad()
def search_phase(
    network: Network,
    configuration: Configuration,
    trials: Trials,
    states: Tensor,
    phase: FixedPointPhase,
    generator: torch.Generator,
) -> PhaseResult:
    """Search the fixed points of a phase from ``states`` [trials, starts, N] of its trials, and from beyond them."""
    system, params, search = NetworkFlow(network), network.params, configuration.fpf_params
    on = states.flatten(0, 1)
    group = torch.arange(len(states), device=on.device).repeat_interleave(states.shape[1])
    drive = (input_code(params, trials).to(network.tau.dtype) @ network.input.T).double()[group]
    if phase != "fpf_stimuli":
        # Without input all trials share one flow, and so one group.
        group, drive = torch.zeros_like(group), torch.zeros_like(drive)
    beyond = _beyond(on, generator)
    starts, inputs, groups = torch.cat([on, beyond]), torch.cat([drive, drive]), torch.cat([group, group])
    settled = settle(system, starts, inputs, params.dt, round(_SETTLING_MS / params.dt), _STILL_HZ)
    found = find_fixed_points(
        system,
        torch.cat([starts, settled]),
        torch.cat([inputs, inputs]),
        torch.cat([groups, groups]),
        params.dt,
        max_iterations=search.fpf_hps.max_iters,
        outlier_distance_scale=search.fpf_hps.outlier_distance_scale,
    )
    estimate = estimates(network, found.points.to(network.tau.dtype))
    return PhaseResult(
        found=_on_cpu(found),
        starts_on_trajectories=len(on),
        starts_beyond=len(beyond),
        starts_settled=len(settled),
        basin=_nearest(settled, groups, found).cpu().numpy(),
        decoded=torch.atan2(estimate[..., 1], estimate[..., 0]).double().cpu().numpy(),
        q_of_trajectories=q_of(system, on, drive, params.dt).cpu().numpy(),
    )


def _beyond(states: Tensor, generator: torch.Generator) -> Tensor:
    """As many starts where trajectories do not go: half twice as far from their mean, half uniform."""
    mean = states.mean(0)
    further = (mean + 2 * (states - mean)).clamp_min(0)
    uniform = torch.rand(states.shape, generator=generator, device=states.device, dtype=states.dtype)
    is_further = torch.arange(len(states), device=states.device)[:, None] % 2 == 0
    return torch.where(is_further, further, 1.2 * states.max() * uniform)


def _nearest(settled: Tensor, group: Tensor, found: FixedPoints) -> Tensor:
    """The point at which each settled state is, −1 for none."""
    basin = torch.full_like(group, -1)
    for number, point in enumerate(found.points):
        is_near = (settled - point).abs().amax(1) <= _NEAR * (1 + point.abs().max())
        basin[is_near & (group == found.group[number])] = number
    return basin


def _on_cpu(found: FixedPoints) -> FixedPoints:
    fields: dict[str, Any] = {
        name: value.cpu() if isinstance(value, Tensor) else value for name, value in vars(found).items()
    }
    return FixedPoints(**fields)


def _counts(values: NDArray[np.int64]) -> dict[str, int]:
    return {str(value): int((values == value).sum()) for value in np.unique(values)}


def time_constants(found: FixedPoints) -> FloatArray:
    """−1/Re λ, ms, [P, N], the slowest first; infinite or negative for modes that do not decay."""
    with np.errstate(divide="ignore"):
        constants: FloatArray = -1 / found.eigenvalues.real.numpy()
    return constants
