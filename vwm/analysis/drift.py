"""How one remembered angle moves once the stimulus is gone: drift without noise, diffusion with it.

A single item is shown at each location in turn, without encoding noise, and the network is left alone from the end of
the stimulus on. The angle is read from the state itself, atan2 of F r, without the noise of the read-out. What the
angle does from then on is foretold as drift and diffusion of a point on a ring (Burak & Fiete 2012, PNAS 109:17645) and
compared with what was measured. The diffusion is that of the second half of the delay, when the state has left what the
stimulus made of it; in a delay of less than four steps, that of the first half of all the time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vwm.behaviour.circular import FloatArray, wrap
from vwm.config import ModelParams
from vwm.model.network import Network
from vwm.model.task import Trials
from vwm.model.task import wrap as wrapped
from vwm.model.trajectory import estimates, euler_step, rates_of_steps

_BATCH = 2000  # trials at once
_SETTLING_MS = 20_000.0


@dataclass(frozen=True)
class Drift:
    """One item remembered at each of M locations, from the end of its stimulus on; T times, A angles.

    Attributes:
        time: [T], ms since the end of the stimulus.
        shown: [A], the angles shown, radians.
        held: [T, M, A], the angle that the state decodes to without noise, radians.
        settled: [M, A], that angle after 20 s more without noise and without input.
        spread: [T], variance of the angle around ``held`` with noise, averaged over locations and angles, rad².
        squared_error: [T], mean squared error of the angle with noise, rad².
        fitted: the first and the last time, ms, of ``spread`` that the line below goes through.
        variance_slope: of that line, rad²/s: the diffusion. Negative where the angle gets sharper instead.
        variance_offset: of that line at time 0, rad².
    """

    time: FloatArray
    shown: FloatArray
    held: FloatArray
    settled: FloatArray
    spread: FloatArray
    squared_error: FloatArray
    fitted: tuple[float, float]
    variance_slope: float
    variance_offset: float

    @property
    def speed(self) -> FloatArray:
        """[T − 1, M, A] d(held)/dt without noise, rad/s."""
        return wrap(np.diff(self.held, axis=0)) / (np.diff(self.time)[:, None, None] / 1000)

    @property
    def foretold(self) -> FloatArray:
        """[T] squared error from drift and diffusion: mean square of held − shown, plus the line through ``spread``."""
        bias = np.mean(wrap(self.held - self.shown) ** 2, axis=(1, 2))
        foretold: FloatArray = bias + self.variance_offset + self.variance_slope * self.time / 1000
        return foretold

    def attractors(self) -> list[int]:
        """How many different angles are left after settling, for each location; closer than 0.02 rad is the same."""
        return [_clusters(row, 0.02) for row in self.settled]

    def summary(self) -> dict[str, Any]:
        """The measures of ``DEFINITIONS``."""
        late = self.speed[len(self.speed) // 2 :]
        moved = wrap(self.held[-1] - self.held[0])
        return {
            "drift_speed_rms": float(np.sqrt(np.mean(late**2))),
            "drift_speed_max": float(np.abs(late).max()),
            "drift_displacement_rms": float(np.sqrt(np.mean(moved**2))),
            "diffusion": self.variance_slope,
            "diffusion_per_root_second": float(np.sqrt(self.variance_slope)) if self.variance_slope >= 0 else None,
            "variance_offset": self.variance_offset,
            "squared_error_at_end_measured": float(self.squared_error[-1]),
            "squared_error_at_end_foretold": float(self.foretold[-1]),
            "settled_angles_by_location": self.attractors(),
            "settled_displacement_rms": float(np.sqrt(np.mean(wrap(self.settled - self.shown) ** 2))),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As in the class, the names preceded by ``drift_``."""
        names = ("time", "shown", "held", "settled", "spread", "squared_error", "foretold", "speed")
        return {f"drift_{name}": getattr(self, name) for name in names}


COLUMNS = {"drift_speed_rms": "rad/s", "drift_displacement_rms": "rad", "diffusion": "rad²/s"}
"""The measures that tables of many runs show, with their units."""

DEFINITIONS = {
    "drift_speed_rms": "root mean square of d(angle)/dt without noise over the second half of the time after the "
    "stimulus, one item, all locations and angles, rad/s",
    "drift_speed_max": "the largest |d(angle)/dt| of the same, rad/s",
    "drift_displacement_rms": "root mean square way of the angle from the end of the stimulus to the end of the trial "
    "without noise, rad",
    "diffusion": "slope of the variance of the angle around its noise-free course over the second half of the delay "
    "(of a delay below four steps: the first half of the time after the stimulus), rad²/s; negative where the angle "
    "gets sharper",
    "diffusion_per_root_second": "its square root, rad per √s; null where it is negative",
    "variance_offset": "where that line stands at the end of the stimulus, rad²",
    "squared_error_at_end_measured": "mean squared error of the angle in the last state of a trial, with spike noise, "
    "one item, no read-out noise, rad²",
    "squared_error_at_end_foretold": "the same foretold: mean squared bias without noise + variance_offset + diffusion "
    "· time; the read-out phase is not in the fit of the line",
    "settled_angles_by_location": "different angles (0.02 rad apart) left of 48 shown after 20 s more without noise: "
    "few for discrete attractors, as many as were shown for a line of fixed points",
    "settled_displacement_rms": "root mean square of settled − shown angle, rad; 1.81 if nothing is left",
}


@torch.no_grad()
def drift_and_diffusion(network: Network, generator: torch.Generator, angles: int = 48, repeats: int = 10) -> Drift:
    """Measure drift and diffusion of a network that remembers one item.

    Args:
        network: trained.
        generator: of the spike noise.
        angles: evenly spaced, shown at each location.
        repeats: trials with noise of each angle and location.
    """
    params = network.params
    first = params.stimulus_steps.stop - 1  # the last state that has seen the stimulus
    shown = torch.arange(angles).to(network.tau) * (2 * np.pi / angles) - np.pi
    quiet = one_item_trials(params, shown)
    held, last = _angles_after(network, quiet, None, first)
    settled = last
    for _ in range(round(_SETTLING_MS / params.dt)):
        settled = euler_step(network, settled, settled, None)

    # Trials with noise in batches of whole repeats; the variance is taken around the course without noise.
    at_once = max(1, _BATCH // len(quiet.set_size))
    total, squares, errors = torch.zeros_like(held), torch.zeros_like(held), torch.zeros(len(held)).to(held)
    for done in range(0, repeats, at_once):
        count = min(at_once, repeats - done)
        noisy, _ = _angles_after(network, one_item_trials(params, shown, count), generator, first)
        noisy = noisy.view(len(held), -1, count)
        away = wrapped(noisy - held[..., None])
        total += away.sum(-1)
        squares += away.square().sum(-1)
        errors += wrapped(noisy - quiet.angle[quiet.present][:, None]).square().sum((1, 2))
    variance = (squares - total.square() / repeats) / (repeats - 1)
    spread = variance.mean(1).double().cpu().numpy()
    time = params.dt * np.arange(len(held), dtype=np.float64)
    delay = params.steps - params.decode_steps - params.stimulus_steps.stop
    begin, stop = (delay // 2, delay + 1) if delay >= 4 else (0, max(2, (len(time) + 1) // 2))
    slope, offset = np.polyfit(time[begin:stop] / 1000, spread[begin:stop], 1)
    places = params.max_item_num

    def by_place(values: Tensor) -> FloatArray:
        found: FloatArray = values.double().cpu().numpy().reshape(*values.shape[:-1], places, angles)
        return found

    return Drift(
        time=time,
        shown=shown.double().cpu().numpy(),
        held=by_place(held),
        settled=by_place(_angle_of_item(network, settled, quiet)),
        spread=spread,
        squared_error=(errors / (repeats * held.shape[1])).double().cpu().numpy(),
        fitted=(float(time[begin]), float(time[min(stop, len(time)) - 1])),
        variance_slope=float(slope),
        variance_offset=float(offset),
    )


def one_item_trials(params: ModelParams, shown: Tensor, repeats: int = 1) -> Trials:
    """One item at each location in turn with each of the angles ``shown``, each ``repeats`` times in a row."""
    places = params.max_item_num
    place = torch.arange(places, device=shown.device).repeat_interleave(len(shown) * repeats)
    present = torch.nn.functional.one_hot(place, places).bool()
    angle = shown.repeat_interleave(repeats).repeat(places)[:, None].expand(-1, places)
    return Trials(torch.ones_like(place), present, angle, angle)


def _angles_after(
    network: Network, trials: Trials, generator: torch.Generator | None, first: int
) -> tuple[Tensor, Tensor]:
    """The angle of the item from step ``first`` on, [steps, trials], and the last rates."""
    course = []
    for step, rates in enumerate(rates_of_steps(network, trials, generator)):
        if step >= first:
            course.append(_angle_of_item(network, rates, trials))
    return torch.stack(course), rates


def _angle_of_item(network: Network, rates: Tensor, trials: Trials) -> Tensor:
    estimate = estimates(network, rates)[trials.present]
    return torch.atan2(estimate[:, 1], estimate[:, 0])


def _clusters(angles: FloatArray, apart: float) -> int:
    """How many groups the angles form on the circle when neighbours closer than ``apart`` belong together."""
    ordered = np.sort(angles)
    gaps = np.diff(ordered, append=ordered[0] + 2 * np.pi)
    return max(1, int(np.sum(gaps > apart)))
