"""The weights themselves: sorted by what units tell, their spectra, and whether excitation and inhibition balance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vwm.analysis import weights_figure
from vwm.analysis.mean_rates import groups_of, mean_rates
from vwm.analysis.results import Column, Progress, refuse_bad_weights, unwatched
from vwm.behaviour.circular import FloatArray, wrap
from vwm.config import Configuration
from vwm.model.network import Network
from vwm.model.task import draw_trials, equal_shares

SEED = 0
_SHUFFLES = 20
_TRIALS = 200  # of all set sizes, for the currents
_BINS = 12  # of the difference of two preferred angles


@dataclass(frozen=True)
class Result:
    """What the weights are; N units, M locations. An effective weight is W_ij s_j, from unit j to unit i.

    Attributes:
        effective: [N, N].
        groups: the units of each group by its name.
        preferred: [N, M] complex, of each unit's two read-out weights of a location F_cos + i F_sin; its modulus is the
            weight's size, its angle what the unit tells.
        input_preferred: [N, M] complex, the same of the weights from the input.
        order: [N], the units by group, location and angle of their largest ``preferred``.
        eigenvalues: [N] complex, of ``effective``, the largest real part first.
        shuffled_radius: [shuffles], largest modulus of an eigenvalue after shuffling the weights inside each block.
        singular: [N], singular values, the largest first.
        excitation, inhibition: [phases, trials, N], sums of positive and of negative W_ij s_j r_j, the rates averaged
            over a phase; without unit, as the argument of the activation function.
        phases: their names.
    """

    effective: FloatArray
    groups: dict[str, slice]
    preferred: NDArray[np.complex128]
    input_preferred: NDArray[np.complex128]
    order: NDArray[np.int64]
    eigenvalues: NDArray[np.complex128]
    shuffled_radius: FloatArray
    singular: FloatArray
    excitation: FloatArray
    inhibition: FloatArray
    phases: list[str]

    def blocks(self) -> dict[str, FloatArray]:
        """The effective weights from one group to another, by ``<from>_to_<to>``."""
        return {
            f"{source}_to_{target}": self.effective[rows, columns]
            for source, columns in self.groups.items()
            for target, rows in self.groups.items()
        }

    def by_difference(self, block: FloatArray, source: slice, target: slice) -> tuple[FloatArray, FloatArray]:
        """Mean weight between different units of one preferred location, by the difference of their angles.

        Returns:
            The middles of the bins, radians, and the means; NaN for a bin without a pair.
        """
        place, angle = _preference(self.preferred)
        is_pair = place[target][:, None] == place[source][None, :]
        units = np.arange(len(place))
        is_pair &= units[target][:, None] != units[source][None, :]
        difference = wrap(angle[target][:, None] - angle[source][None, :])[is_pair]
        # The first bin is around −π, and so one of them around 0.
        number = np.floor((difference + np.pi) / (2 * np.pi) * _BINS + 0.5).astype(np.int64) % _BINS
        count = np.bincount(number, minlength=_BINS)
        total = np.bincount(number, weights=block[is_pair], minlength=_BINS)
        means: FloatArray = np.divide(total, count, out=np.full(_BINS, np.nan), where=count > 0)
        return np.arange(_BINS) * 2 * np.pi / _BINS - np.pi, means

    def balance_of_weights(self) -> FloatArray:
        """[N] the sum of a unit's negative incoming weights over that of its positive ones, as moduli."""
        positive, negative = self.effective.clip(0).sum(1), -self.effective.clip(None, 0).sum(1)
        return _ratio(negative, positive)

    def balance_of_currents(self, phase: int) -> FloatArray:
        """[N] inhibition over excitation of each unit, both averaged over trials."""
        return _ratio(-self.inhibition[phase].mean(0), self.excitation[phase].mean(0))

    def correlations(self, phase: int) -> tuple[float, float]:
        """Correlation of excitation with inhibition: over units, and over trials (mean over units)."""
        excitation, inhibition = self.excitation[phase], -self.inhibition[phase]
        of_units = _correlation(excitation.mean(0), inhibition.mean(0))
        of_trials = np.array([_correlation(*pair) for pair in zip(excitation.T, inhibition.T, strict=True)])
        known = of_trials[np.isfinite(of_trials)]
        return of_units, float(known.mean()) if known.size else float("nan")

    def summary(self) -> dict[str, Any]:
        """The measures of ``DEFINITIONS``."""
        power = self.singular**2
        return {
            "blocks": {
                name: {
                    "mean_weight": float(block.mean()),
                    "sd_weight": float(block.std()),
                    "zero_share": float(np.mean(block == 0)),
                }
                for name, block in self.blocks().items()
            },
            "spectral_radius": float(np.abs(self.eigenvalues).max()),
            "spectral_abscissa": float(self.eigenvalues.real.max()),
            "spectral_radius_shuffled": float(self.shuffled_radius.mean()),
            "dimension_of_weights": float(power.sum() ** 2 / np.sum(power**2)) if power.any() else None,
            "balance_of_weights": float(np.nanmedian(self.balance_of_weights())),
            "currents": {
                phase: {
                    "balance_of_currents": float(np.nanmedian(self.balance_of_currents(number))),
                    "correlation_over_units": self.correlations(number)[0],
                    "correlation_over_trials": self.correlations(number)[1],
                }
                for number, phase in enumerate(self.phases)
            },
        }

    def columns(self) -> dict[str, Column]:
        """Radius of the spectrum, and the balance in the last phase before the read-out."""
        number = max(0, len(self.phases) - 2)
        balance = float(np.nanmedian(self.balance_of_currents(number)))
        values = {
            "spectral_radius": float(np.abs(self.eigenvalues).max()),
            "spectral_radius_shuffled": float(self.shuffled_radius.mean()),
            "balance_of_weights": float(np.nanmedian(self.balance_of_weights())),
            "balance_of_currents": balance,
        }
        return {name: Column(DEFINITIONS[name], "–", value) for name, value in values.items()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As in the class."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


DEFINITIONS = {
    "mean_weight": "mean of the effective weights W_ij s_j from one group to another",
    "sd_weight": "their SD",
    "zero_share": "share of them that are exactly 0, where the constraint W ≥ 0 holds them",
    "spectral_radius": "largest |λ| of the effective weights' eigenvalues",
    "spectral_abscissa": "largest Re λ",
    "spectral_radius_shuffled": f"mean of spectral_radius over {_SHUFFLES} shuffles of the weights inside each block",
    "dimension_of_weights": "(Σσ²)²/Σσ⁴ of the singular values σ: 1 for a matrix of rank one, N for an orthogonal one",
    "balance_of_weights": "sum of a unit's negative incoming weights over that of the positive ones, as moduli, median "
    "over units",
    "balance_of_currents": "the same of W_ij s_j r_j, rates averaged over the phase and over trials of all set sizes, "
    "without noise and without the input: 1 where recurrent inhibition cancels recurrent excitation",
    "correlation_over_units": "Pearson correlation of recurrent excitation and inhibition over units, averaged over "
    "trials",
    "correlation_over_trials": "the same over trials of random stimulus sets, mean over units: near 1 where inhibition "
    "follows excitation",
}


def analyse(network: Network, configuration: Configuration, progress: Progress = unwatched) -> Result:
    """Describe the weights, and the currents they carry on random trials of all trained set sizes.

    Raises:
        UserError: a weight is not finite.
    """
    refuse_bad_weights(network)
    params = configuration.model_params
    generator = torch.Generator(network.tau.device).manual_seed(SEED)
    set_size = equal_shares(params.item_num, max(_TRIALS, len(params.item_num)))
    rates = mean_rates(network, draw_trials(params, set_size, generator, network.tau.dtype))
    progress(1, 2)
    effective = (network.recurrent * network.sign).detach().double().cpu().numpy()
    readout = network.readout.detach().double().cpu().numpy().T.reshape(-1, params.max_item_num, 2)
    groups = groups_of(network)
    eigenvalues = np.linalg.eigvals(effective)
    preferred = readout[..., 0] + 1j * readout[..., 1]
    return Result(
        effective=effective,
        groups=groups,
        preferred=preferred,
        input_preferred=_of_inputs(network),
        order=sorted_units(preferred, groups),
        eigenvalues=eigenvalues[np.argsort(-eigenvalues.real)],
        shuffled_radius=shuffled_radii(effective, groups),
        singular=np.linalg.svd(effective, compute_uv=False),
        excitation=np.array([values @ effective.clip(0).T for values in rates.values()]),
        inhibition=np.array([values @ effective.clip(None, 0).T for values in rates.values()]),
        phases=list(rates),
    )


def _of_inputs(network: Network) -> NDArray[np.complex128]:
    """What cos θ + i sin θ of each location's item adds to the drive of each unit, [N, M]; the offset left out."""
    channels = network.params.input_channels
    weights = network.input.detach().double().cpu().numpy().reshape(len(network.tau), -1, channels)
    if channels == 2:
        return np.asarray(weights[..., 0] + 1j * weights[..., 1])
    first, second, third = np.moveaxis(weights, -1, 0)
    return np.asarray((first - second) / np.sqrt(2) + 1j * (first + second - 2 * third) / np.sqrt(6))


def _preference(preferred: NDArray[np.complex128]) -> tuple[NDArray[np.int64], FloatArray]:
    """The location of each unit's largest weight [N], and the angle there [N], radians."""
    place = np.abs(preferred).argmax(axis=1)
    return place, np.angle(preferred[np.arange(len(place)), place])


def sorted_units(preferred: NDArray[np.complex128], groups: dict[str, slice]) -> NDArray[np.int64]:
    """The units [N] group by group, by preferred location and there by preferred angle."""
    place, angle = _preference(preferred)
    units = np.arange(len(place))
    parts = [units[group][np.lexsort((angle[group], place[group]))] for group in groups.values()]
    return np.concatenate(parts)


def shuffled_radii(effective: FloatArray, groups: dict[str, slice]) -> FloatArray:
    """The largest |λ| of matrices in which the weights from one group to another are shuffled, [shuffles]."""
    rng = np.random.default_rng(SEED)
    radii = np.empty(_SHUFFLES)
    for number in range(_SHUFFLES):
        shuffled = effective.copy()
        for rows in groups.values():
            for columns in groups.values():
                block = effective[rows, columns]
                shuffled[rows, columns] = rng.permutation(block.ravel()).reshape(block.shape)
        radii[number] = np.abs(np.linalg.eigvals(shuffled)).max()
    return radii


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    ratio: FloatArray = np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)
    return ratio


def _correlation(x: FloatArray, y: FloatArray) -> float:
    """Pearson's; NaN where one of them does not vary."""
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt(np.sum(x**2) * np.sum(y**2)))
    return float(np.sum(x * y)) / size if size > 0 else float("nan")


def plot(result: Result) -> dict[str, Figure]:
    """Two figures: the sorted matrices; spectra, weights by difference of angle, and balance."""
    return {"matrices": weights_figure.matrices_figure(result), "": weights_figure.structure_figure(result)}
