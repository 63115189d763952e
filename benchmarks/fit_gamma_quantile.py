"""The coefficients of vwm/model/gamma.py, and how near its quantile comes to the gamma law.

With s = α^(−1/2), log(z/α) is fitted for α ≥ 1 by a polynomial in w·s and s of total degree 8 that is zero at s = 0.
Least squares on a Chebyshev grid: the error of z is weighted with the density there, so that it counts as an error of
probability, and the slope dz/dα has equations of its own.

Usage: python -m benchmarks.fit_gamma_quantile [--fit]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, gammaln, ndtr
from scipy.stats import norm

from vwm.files import write_atomically
from vwm.model.gamma import DEGREE, gamma_quantile

Floats = NDArray[np.float64]
TABLE = Path(__file__).with_name("results") / "gamma.csv"
SHAPES = (1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.99, 1.0, 1.5, 2.0, 4.0, 10.0, 100.0, 1e3, 1e4)
WIDEST = 6.4  # standard deviations; the normal variates of vwm/model/variates.py end at 6.3


def quantile(w: Floats, alpha: Floats) -> Floats:
    """Scipy's quantile of Gamma(α) at the probability Φ(w), from whichever tail is nearer."""
    upper: Floats = np.where(w < 0, gammaincinv(alpha, ndtr(w)), gammainccinv(alpha, ndtr(-w)))
    return upper


def slope(w: Floats, alpha: Floats) -> Floats:
    """dz/dα of that quantile by central differences."""
    h = 1e-4 * alpha
    return (quantile(w, alpha + h) - quantile(w, alpha - h)) / (2 * h)


def fit() -> None:
    """Print the coefficients, a row for each degree."""
    s = np.maximum((1 + np.cos(np.pi * (np.arange(48) + 0.5) / 48)) / 2, 0.004)
    w = WIDEST * np.cos(np.pi * (np.arange(241) + 0.5) / 241)
    w, s = (grid.ravel() for grid in np.meshgrid(w, s))
    alpha = 1 / s**2
    z = quantile(w, alpha)
    density = np.exp((alpha - 1) * np.log(z) - z - gammaln(alpha))
    weight = np.maximum(density * z * s, 0.003)
    slope_weight = 0.03 * np.exp(-(w**2) / 4)
    powers = [(i, k) for i in range(DEGREE + 1) for k in range(DEGREE + 1 - i) if i + k > 0]
    terms = np.stack([(w * s) ** i * s**k for i, k in powers], axis=1)
    degree = np.array([i + k for i, k in powers])
    # d(log z)/dα = 1/α − (Σ degree·term)/(2α), since every term scales with s to the power of its degree.
    equations = np.vstack([terms * (weight / s)[:, None], -terms * degree * (slope_weight * z / (2 * alpha))[:, None]])
    answers = np.concatenate([np.log(z / alpha) * weight / s, (slope(w, alpha) - z / alpha) * slope_weight])
    scale = np.abs(equations).max(axis=0)
    found = dict(zip(powers, np.linalg.lstsq(equations / scale, answers, rcond=None)[0] / scale, strict=True))
    print("COEFFICIENTS = (")
    for d in range(1, DEGREE + 1):
        print(f"    ({', '.join(f'{found[i, d - i]:.9g}' for i in range(d + 1))}),")
    print(")")


def accuracy(alpha: float) -> dict[str, float]:
    """Errors at one shape, without any randomness.

    Returns:
        KS: largest error of the distribution function.
        mean, variance, beyond 1e-6, gradient of the mean, of E exp(−tz): relative errors; "beyond 1e-6" is the
            probability of a value beyond which the gamma law has a millionth, and t is 1/α, at most 1.
        rms: of the slope against that of scipy's quantile; not for α < 1, where the slope is of two variates.
    """
    grid = np.linspace(-6.3, 6.3, 4001)
    share = norm.pdf(grid) / norm.pdf(grid).sum()
    w, far, t = torch.from_numpy(grid), gammainccinv(alpha, 1e-6), 1 / max(1.0, alpha)
    # With U = 1 the variate is that of the polynomial alone, of Gamma(α + 1) for α < 1.
    z, d = (x.numpy() for x in gamma_quantile(w, torch.ones_like(w), torch.full_like(w, alpha)))
    rms = float("nan")
    if alpha >= 1:
        below = np.where(grid < 0, gammainc(alpha, z) - ndtr(grid), ndtr(-grid) - gammaincc(alpha, z))
        ks, beyond = np.abs(below).max(), ndtr(-np.interp(far, z, grid))
        rms = float(np.sqrt(share @ (d - slope(grid, np.full_like(grid, alpha))) ** 2))

        def expectation(values: Floats) -> float:
            return float(share @ values)
    else:
        x: Floats = np.append(np.geomspace(1e-300, 20, 1000), far)
        above = share @ (1 - np.minimum(1, (x / z[:, None]) ** alpha))  # P(z > x), exact in the uniform variate
        ks, beyond = np.abs(above - gammaincc(alpha, x)).max(), above[-1]
        # Over E = −log U as well, from far below α to its end.
        e = np.geomspace(1e-5 * alpha, 40, 3001)
        middle, weight = (e[1:] + e[:-1]) / 2, -np.diff(np.exp(-e))
        w, uniform, few = w[::10], torch.from_numpy(np.exp(-middle))[None], share[::10] / share[::10].sum()
        z, d = (x.numpy() for x in gamma_quantile(w[:, None], uniform, torch.full((1, 1), alpha, dtype=w.dtype)))

        def expectation(values: Floats) -> float:
            return float(few @ values @ weight / weight.sum())

    of_exp = -np.log1p(t) * (1 + t) ** -alpha  # since E exp(−tz) = (1 + t)^−α
    return {
        "KS": float(ks),
        "mean": expectation(z) / alpha - 1,
        "variance": (expectation(z**2) - expectation(z) ** 2) / alpha - 1,
        "beyond 1e-6": beyond / 1e-6 - 1,
        "gradient of the mean": expectation(d) - 1,
        "of E exp(−tz)": expectation(-t * np.exp(-t * z) * d) / of_exp - 1,
        "rms": rms,
    }


def main() -> None:
    """Print the table of docs/speed.md and keep it."""
    rows = [{"shape": alpha, **accuracy(alpha)} for alpha in SHAPES]
    write_atomically(TABLE, pd.DataFrame(rows).to_csv(index=False, float_format="%.1e"))
    print("\n".join(lines(pd.read_csv(TABLE))))


def lines(table: pd.DataFrame) -> list[str]:
    """The table in Markdown."""
    names = ["α", *list(table.columns[1:-1]), "rms of the slope"]
    found = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for shape, *values in table.itertuples(index=False):
        cells = ["" if np.isnan(value) else f"{abs(value):.1e}" for value in values]
        found.append(f"| {shape:g} | {' | '.join(cells)} |")
    return found


if __name__ == "__main__":
    fit() if "--fit" in sys.argv else main()
