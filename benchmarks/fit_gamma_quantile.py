"""The coefficients of vwm/model/gamma.py, and how near its quantile comes to the gamma law.

With s = α^(−1/2), log(z/α) is fitted for α ≥ 1 by a polynomial in w·s and s of total degree 8 that is zero at s = 0.
Least squares on a Chebyshev grid: the error of z is weighted with the density there, so that it counts as an error of
probability, and the slope dz/dα has equations of its own.

Usage: python -m benchmarks.fit_gamma_quantile [--fit]
"""

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, gammaln, ndtr
from scipy.stats import norm

from vwm.model.gamma import DEGREE, gamma_quantile

Floats = NDArray[np.float64]
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


def accuracy(alpha: float, dtype: torch.dtype) -> dict[str, Any]:
    """Errors at one shape: of the probability, of mean and variance, of the gradient."""
    grid = np.linspace(-6.3, 6.3, 4001)
    share = norm.pdf(grid) / norm.pdf(grid).sum()
    w = torch.from_numpy(grid).to(dtype)
    if alpha >= 1:
        z, d = (x.double().numpy() for x in gamma_quantile(w, torch.ones_like(w), torch.full_like(w, alpha)))
        below = np.where(grid < 0, gammainc(alpha, z) - ndtr(grid), ndtr(-grid) - gammaincc(alpha, z))
        ks, mean, second, gradient = np.abs(below).max(), share @ z, share @ z**2, share @ d
        gradient_rms = float(np.sqrt(share @ (d - slope(grid, np.full_like(grid, alpha))) ** 2))
    else:  # two independent variates: integrate over both, over E = −log U from far below α to its end
        e = np.geomspace(1e-5 * alpha, 40, 3001)
        w = w[::10]
        share = share[::10] / share[::10].sum()
        middle, weight = (e[1:] + e[:-1]) / 2, -np.diff(np.exp(-e))
        weight /= weight.sum()
        uniform = torch.from_numpy(np.exp(-middle)).to(dtype)[None]
        z, d = (x.double().numpy() for x in gamma_quantile(w[:, None], uniform, torch.full((1, 1), alpha, dtype=dtype)))
        mean, second, gradient = share @ z @ weight, share @ z**2 @ weight, share @ d @ weight
        ks = max(abs(share @ (z > x) @ weight - gammaincc(alpha, x)) for x in np.geomspace(1e-3, 20, 40))
        gradient_rms = float("nan")
    return {
        "ks": ks,
        "mean": mean / alpha - 1,
        "variance": (second - mean**2) / alpha - 1,
        "gradient": gradient - 1,
        "rms": gradient_rms,
    }


def main() -> None:
    print("α          KS error   mean       variance   mean slope  rms error of the slope")
    for alpha in (1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.99, 1.0, 1.5, 2.0, 4.0, 10.0, 100.0, 1e3, 1e4):
        row = accuracy(alpha, torch.float64)
        signed = f"{row['mean']:<+10.1e} {row['variance']:<+10.1e} {row['gradient']:<+11.1e}"
        print(f"{alpha:<10g} {row['ks']:<10.1e} {signed} {row['rms']:.1e}")


if __name__ == "__main__":
    fit() if "--fit" in sys.argv else main()
