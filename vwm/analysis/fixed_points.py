"""Fixed points of a network without noise, where its states go, and how that bounds what it remembers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vwm.analysis import drift, fixed_point_figures
from vwm.analysis.drift import Drift, drift_and_diffusion, one_item_trials
from vwm.analysis.phase_search import PHASES, PhaseResult, search_phase, states_by_phase
from vwm.analysis.results import Column, Progress, refuse_bad_weights, unwatched
from vwm.behaviour.circular import FloatArray
from vwm.config import Configuration, FixedPointPhase, FpfParams, ModelParams
from vwm.model.network import Network
from vwm.model.task import Trials
from vwm.model.trajectory import rates_of_steps

SEED = 0  # of stimuli, noise and starts: the same network always gives the same points
_ANGLES_DRAWN = 24


@dataclass(frozen=True)
class Result:
    """Fixed points by phase, the drift of one item, and one item's trajectories to draw.

    Attributes:
        phases: by the configuration's name of the phase.
        drift: of one item.
        course: [steps, angles, N], rates without noise of one item at the first location, Hz.
        course_angle: [angles], radians.
        components: [N, 3], the first three principal components of ``course`` after the stimulus.
        explained: [3], their shares of the variance.
        plane_angles: [2], degrees between the plane of the first two components and the one that the read-out of that
            location sees.
        params: of the model.
        search: whose ``fpf_pca_bool`` and ``fpf_names`` say what is drawn in principal components.
    """

    phases: dict[FixedPointPhase, PhaseResult]
    drift: Drift
    course: FloatArray
    course_angle: FloatArray
    components: FloatArray
    explained: FloatArray
    plane_angles: FloatArray
    params: ModelParams
    search: FpfParams

    def summary(self) -> dict[str, Any]:
        """The measures of ``DEFINITIONS``."""
        return {
            "phases": {name: phase.summary() for name, phase in self.phases.items()},
            "memory_of_one_item": self.drift.summary(),
            "explained_variance": self.explained,
            "readout_plane_angles": self.plane_angles,
        }

    def columns(self) -> dict[str, Column]:
        """Numbers of roots by phase, and the drift of one item."""
        drifting = self.drift.summary()
        columns = {name: Column(DEFINITIONS[name], unit, drifting[name]) for name, unit in drift.COLUMNS.items()}
        for name, phase in self.phases.items():
            shown = phase.summary()
            for count, meaning in (("unique", "roots found"), ("stable", "stable roots found")):
                text = f"{PHASES[name]}: {meaning}; {DEFINITIONS[count]}"
                columns[f"fixed_points_{count}_{name.removeprefix('fpf_')}"] = Column(text, "–", shown[count])
        return columns

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``<phase>_points`` and so on, as in `FixedPoints` and `PhaseResult`; the drift; the components."""
        arrays: dict[str, NDArray[Any]] = self.drift.arrays()
        for name, phase in self.phases.items():
            for field in ("points", "group", "q", "eigenvalues", "is_outlier", "reached", "slow", "slow_q"):
                arrays[f"{name}_{field}"] = getattr(phase.found, field).numpy()
            arrays |= {f"{name}_basin": phase.basin, f"{name}_decoded": phase.decoded}
        return arrays | {"components": self.components, "course_angle": self.course_angle}


DEFINITIONS = {
    "q": "½|r(t + dt) − r(t)|² of a step without noise, Hz²: 0 at a fixed point (Golub & Sussillo 2018)",
    "starts": "states that the search began from: on noisy trajectories of the phase (plus fpf_noise_scale · N(0, 1) "
    "Hz), beyond them (twice as far from their mean, or uniform up to 1.2 times the largest rate), and where the flow "
    "without noise takes all of these in 20 s",
    "converged": "searches that ended at a root: q ≤ 1e-20 (1 + |r|²)",
    "unique": "different roots: of one input, further than 1e-6 (1 + max r) apart in some rate. Stimuli have each "
    "their own points; without input all phases share one flow and differ in where the search starts",
    "stable": "roots whose Jacobian of the flow has no eigenvalue λ with Re λ > 0",
    "stable_in_map": "roots with |1 + dt λ| ≤ 1 for all λ: stable under the Euler map that is simulated",
    "outliers": "roots further from the mean of the starts than fpf_hps.outlier_distance_scale times the starts' mean "
    "distance from it",
    "slow_points": "searches that ended elsewhere: minima of q that are no roots, or a search given up",
    "unstable_modes": "number of roots by their number of λ with Re λ > 0",
    "slowest_time_constant": "−1/Re λ of the eigenvalue nearest to 0 from below, ms, over the stable roots",
    "basins": "of the starts but the settled ones: at which root the flow without noise is after 20 s",
    "explained_variance": "shares of the variance of the first three principal components: one item at the first "
    "location, 24 angles, without noise, all steps from the end of the stimulus on",
    "readout_plane_angles": "principal angles between the plane of the first two components and the two rows of F of "
    "that location, degrees: 0 and 0 if the read-out sees the plane as it is, 90 if it is blind to it",
    **drift.DEFINITIONS,
}


def analyse(network: Network, configuration: Configuration, progress: Progress = unwatched) -> Result:
    """Search the phases that the configuration names, and measure the drift of one item.

    Args:
        network: trained, on any device.
        configuration: whose ``fpf_params`` say how many trials and starts.
        progress: told how many phases are searched, the drift being one more.

    Raises:
        UserError: a weight is not finite.
    """
    refuse_bad_weights(network)
    generator = torch.Generator(network.tau.device).manual_seed(SEED)
    wanted = [phase for phase in configuration.fpf_params.fpf_names if phase != "fpf_NoFps"]
    trials, states = states_by_phase(network, configuration, generator)
    phases: dict[FixedPointPhase, PhaseResult] = {}
    searched = [phase for phase in dict.fromkeys(wanted) if phase in states]
    for done, phase in enumerate(searched):
        progress(done, len(searched) + 1)
        phases[phase] = search_phase(network, configuration, trials, states[phase], phase, generator)
    progress(len(searched), len(searched) + 1)
    course, shown = _course(network)
    components, explained = _principal(course[network.params.stimulus_steps.stop - 1 :])
    readout = network.readout[:2].detach().double().cpu().numpy()
    return Result(
        phases=phases,
        drift=drift_and_diffusion(network, generator),
        course=course,
        course_angle=shown,
        components=components,
        explained=explained,
        plane_angles=_plane_angles(components[:, :2], readout.T),
        params=network.params,
        search=configuration.fpf_params,
    )


# ---------------------------------------------------------------------------------------------------------------
# One item's trajectories
# ---------------------------------------------------------------------------------------------------------------


def _course(network: Network) -> tuple[FloatArray, FloatArray]:
    """Rates [steps, angles, N] of one item at the first location without noise, and the angles."""
    shown = torch.arange(_ANGLES_DRAWN).to(network.tau) * (2 * np.pi / _ANGLES_DRAWN) - np.pi
    trials = one_item_trials(network.params, shown)
    first = Trials(*(values[:_ANGLES_DRAWN] for values in vars(trials).values()))
    course = torch.stack(list(rates_of_steps(network, first, None)))
    return course.double().cpu().numpy(), shown.double().cpu().numpy()


def _principal(course: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The first three principal components [N, 3] of states, and their shares of the variance [3]."""
    states = course.reshape(-1, course.shape[-1])
    _, sizes, rows = np.linalg.svd(states - states.mean(0), full_matrices=False)
    components = np.zeros((course.shape[-1], 3))
    components[:, : len(rows[:3])] = rows[:3].T
    shares = np.zeros(3)
    total = float(np.sum(sizes**2))
    shares[: len(sizes[:3])] = sizes[:3] ** 2 / total if total > 0 else 0
    return components, shares


def _plane_angles(first: FloatArray, second: FloatArray) -> FloatArray:
    """Principal angles between the spans of the columns [N, 2] of two matrices, degrees, the smaller first."""
    bases = [np.linalg.qr(columns)[0] for columns in (first, second)]
    cosines = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    angles: FloatArray = np.degrees(np.arccos(np.clip(cosines, 0, 1)))
    return angles


def plot(result: Result) -> dict[str, Figure]:
    """The figures by the ending of their file: memory; eigenvalues where a phase was searched; and by ``fpf_pca_bool``
    trajectories in principal components, with the points that were found and, by ``fpf_NoFps``, without.
    """
    drawn = {"memory": fixed_point_figures.memory_figure(result.drift)}
    if result.search.fpf_pca_bool:
        drawn["trajectories"] = _trajectories(result, result.phases)
        if result.phases and "fpf_NoFps" in result.search.fpf_names:
            drawn["trajectories_alone"] = _trajectories(result, {})
    if result.phases:
        drawn["eigenvalues"] = fixed_point_figures.eigenvalues_figure(result.phases, result.params.dt)
    return drawn


def _trajectories(result: Result, phases: dict[FixedPointPhase, PhaseResult]) -> Figure:
    """One item's trajectories with the points of ``phases``."""
    return fixed_point_figures.trajectories_figure(
        result.params, result.course, result.course_angle, result.components, result.explained, phases
    )
