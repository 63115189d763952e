"""Models across set sizes: quadrature and derivatives, independent likelihoods and optimisers, recovery, and people."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import gamma, vonmises

from tests.simulated import averaging, kappa_by_table, of_errors, varying
from vwm.behaviour import memory_density, set_size_models
from vwm.behaviour.circular import FloatArray
from vwm.behaviour.memory_density import SHAPE_MAX, GammaMixture
from vwm.behaviour.mixture_likelihood import one_minus_cos
from vwm.behaviour.responses import Responses
from vwm.behaviour.set_size_models import MODELS, compare, fit_all, log_likelihood
from vwm.behaviour.von_mises import fisher_information, kappa_of_information

HUMAN = Path(__file__).parents[2] / "shared" / "data" / "human"
ERRORS = np.array([0.0, 0.01, -0.1, 0.4, 1.0, -2.0, 3.1])


def test_kappa_of_information_is_the_inverse() -> None:
    information = np.geomspace(1e-6, 1e6, 1000)
    np.testing.assert_allclose(fisher_information(kappa_of_information(information)), information, rtol=1e-12)


@pytest.mark.parametrize(
    ("mean", "tau"), [(20.0, 15.0), (0.5, 3.0), (300.0, 5.0), (2.0, 0.05), (1000.0, 2000.0), (0.02, 0.1), (2000.0, 8.0)]
)
def test_the_gamma_mixture_agrees_with_adaptive_integration(mean: float, tau: float) -> None:
    """scipy's adaptive rule over the gamma law's probability, where no law is narrow, with scipy's von Mises."""
    law = gamma(mean / tau, scale=tau)
    found = (1 + GammaMixture.at(one_minus_cos(ERRORS)).excess(mean, tau)[0]) / (2 * np.pi)
    for error, density in zip(ERRORS, found, strict=True):

        def integrand(probability: float, error: float = error) -> float:
            J = np.maximum(law.ppf(probability), 1e-15)
            return float(vonmises.pdf(error, kappa_by_table(J)))

        inner, _ = quad(integrand, 0, 0.99, limit=200, epsabs=1e-9, epsrel=1e-6)
        tail, _ = quad(lambda z: integrand(-np.expm1(-z)) * np.exp(-z), np.log(100), 34, epsabs=1e-9, epsrel=1e-6)
        assert density == pytest.approx(inner + tail, rel=5e-4, abs=1e-7)


@pytest.mark.parametrize(("mean", "tau"), [(20.0, 15.0), (0.5, 3.0), (50.0, 0.01)])
def test_derivatives_are_those_of_the_density(mean: float, tau: float) -> None:
    d, h = one_minus_cos(ERRORS), 1e-5
    mixture = GammaMixture.at(d)
    _, by_mean, by_tau = mixture.excess(mean, tau)
    up, down = np.exp(h), np.exp(-h)
    numeric = (mixture.excess(mean * up, tau)[0] - mixture.excess(mean * down, tau)[0]) / (2 * h)
    np.testing.assert_allclose(by_mean, numeric, rtol=1e-6, atol=1e-7)
    numeric = (mixture.excess(mean, tau * up)[0] - mixture.excess(mean, tau * down)[0]) / (2 * h)
    np.testing.assert_allclose(by_tau, numeric, rtol=1e-6, atol=1e-7)
    _, by_information, _ = memory_density.fixed(d, mean)
    numeric = (memory_density.fixed(d, mean * up)[0] - memory_density.fixed(d, mean * down)[0]) / (2 * h)
    np.testing.assert_allclose(by_information, numeric, rtol=1e-6, atol=1e-7)


def test_a_gamma_law_without_spread_is_equal_precision() -> None:
    d = one_minus_cos(ERRORS)
    narrow, fixed = GammaMixture.at(d).excess(30.0, 1e-9)[0], memory_density.fixed(d, 30.0)[0]
    # J still varies by 1/√SHAPE_MAX, which changes the density by about half its square.
    np.testing.assert_allclose(narrow[:4], fixed[:4], atol=4 / SHAPE_MAX * np.max(fixed))


def independent_log_likelihood(model: str, responses: Responses, row: "pd.Series[Any]") -> float:
    """The definitions of the models, with scipy's laws and a trapezoid rule of its own over ln J."""
    total = 0.0
    for n in responses.set_sizes():
        errors = responses.errors[responses.set_size == n]
        items = min(n, row["capacity"]) if np.isfinite(row["capacity"]) else n
        if model == "slots + averaging":
            per_item = np.bincount(np.arange(int(row["capacity"])) % n, minlength=n)
            density = sum(
                vonmises.pdf(errors, kappa_by_table(row["J1"] * k)) if k else np.full(errors.size, 0.5 / np.pi)
                for k in per_item
            )
            density = density / n
        else:
            mean = row["J1"] * items ** -np.nan_to_num(row["alpha"])
            if np.isfinite(row["tau"]):
                log_J = np.linspace(-30, 12, 3000)
                weight = gamma.pdf(np.exp(log_J), mean / row["tau"], scale=row["tau"]) * np.exp(log_J)
                nodes = vonmises.pdf(errors[:, None], kappa_by_table(np.exp(log_J)))
                below = gamma.cdf(np.exp(log_J[0]), mean / row["tau"], scale=row["tau"])
                remembered = np.trapezoid(nodes * weight, log_J, axis=1) + below / (2 * np.pi)
            else:
                remembered = vonmises.pdf(errors, float(kappa_by_table(mean)))
            density = items / n * remembered + (1 - items / n) / (2 * np.pi)
        total += float(np.sum(np.log(density)))
    return total


@pytest.fixture(scope="module")
def fitted() -> tuple[Responses, pd.DataFrame]:
    """A responder of variable precision with a capacity of three items, and all models fitted to it."""
    responses = varying((1, 2, 4, 6), 250, np.random.default_rng(0), J1=30, alpha=1.0, tau=12, capacity=3)
    return responses, fit_all(responses)


def test_the_likelihood_is_the_definitions(fitted: tuple[Responses, pd.DataFrame]) -> None:
    responses, fits = fitted
    assert tuple(fits["model"]) == MODELS
    for _, row in fits.iterrows():
        expected = independent_log_likelihood(row["model"], responses, row)
        assert row["log_likelihood"] == pytest.approx(expected, abs=5e-3)
        given = {name: row[name] for name in set_size_models.PARAMETERS if np.isfinite(row[name])}
        assert log_likelihood(row["model"], responses, **given) == pytest.approx(row["log_likelihood"], abs=1e-9)


def test_criteria_are_their_formulas(fitted: tuple[Responses, pd.DataFrame]) -> None:
    responses, fits = fitted
    k, n, value = fits["k"], responses.errors.size, fits["log_likelihood"]
    assert k.tolist() == [2, 2, 3, 2, 3, 4]
    np.testing.assert_allclose(fits["aic"], 2 * k - 2 * value)
    np.testing.assert_allclose(fits["aicc"], 2 * k * n / (n - k - 1) - 2 * value)
    np.testing.assert_allclose(fits["bic"], k * np.log(n) - 2 * value)


@pytest.mark.parametrize("model", MODELS)
def test_a_generic_optimiser_finds_nothing_better(model: str, fitted: tuple[Responses, pd.DataFrame]) -> None:
    """Nelder and Mead's simplex from several places, at every K, on the public likelihood."""
    responses, fits = fitted
    row = fits.set_index("model").loc[model]
    free = [name for name in ("J1", "alpha", "tau") if np.isfinite(row[name])]
    capacities = [None] if np.isnan(row["capacity"]) else [row["capacity"] + step for step in (-1, 0, 1)]
    best = -np.inf
    for capacity in capacities:
        if capacity is not None and not 1 <= capacity <= (12 if model == "slots + averaging" else 6):
            continue

        def loss(point: FloatArray, capacity: Any = capacity) -> float:
            given = {name: p if name == "alpha" else np.exp(p) for name, p in zip(free, point, strict=True)}
            extra = {} if capacity is None else {"capacity": float(capacity)}
            return -log_likelihood(model, responses, **given, **extra)

        for start in ((2.0, 0.7, 1.0), (4.0, 1.5, 3.0)):
            x0 = [dict(zip(("J1", "alpha", "tau"), start, strict=True))[name] for name in free]
            found = minimize(loss, x0, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6, "maxiter": 600})
            best = max(best, -float(found.fun))
    assert row["log_likelihood"] > best - 1e-4


def test_a_model_is_never_worse_than_its_special_cases() -> None:
    rng = np.random.default_rng(4)
    for _ in range(12):
        sizes = tuple(sorted(rng.choice(np.arange(1, 9), 3, replace=False).tolist()))
        J1, tau = np.exp(rng.uniform(0, 7)), np.exp(rng.uniform(0, 5))
        capacity = float(rng.choice([2, 4, np.inf]))
        responses = varying(sizes, 60, rng, J1, rng.uniform(-0.2, 2), tau if rng.random() < 0.5 else None, capacity)
        found = fit_all(responses).set_index("model")["log_likelihood"]
        assert found["slots + resources"] > max(found["slots"], found["equal precision"]) - 1e-3
        assert found["variable precision + capacity"] > found["variable precision"] - 1e-3
        # J varies by 6 % at least, so equal precision is a special case only nearly.
        assert found["variable precision"] > found["equal precision"] - 0.5


SET_SIZES = (1, 2, 4, 6, 8)


@pytest.mark.parametrize(
    ("model", "truth"),
    [
        ("slots", {"capacity": 3, "J1": 12.0}),
        ("slots + averaging", {"capacity": 5, "J1": 8.0}),
        ("slots + resources", {"capacity": 4, "J1": 25.0, "alpha": 0.8}),
        ("equal precision", {"J1": 25.0, "alpha": 1.2}),
        ("variable precision", {"J1": 40.0, "alpha": 1.0, "tau": 12.0}),
        ("variable precision + capacity", {"capacity": 4, "J1": 40.0, "alpha": 0.8, "tau": 8.0}),
    ],
)
def test_the_model_that_made_the_data_wins_and_its_parameters_are_recovered(
    model: str, truth: dict[str, float]
) -> None:
    rng = np.random.default_rng(1)
    if model == "slots + averaging":
        responses = averaging(SET_SIZES, 1500, rng, truth["J1"], int(truth["capacity"]))
    else:
        responses = varying(SET_SIZES, 1500, rng, **truth)
    fits = fit_all(responses).set_index("model")
    assert fits["bic"].idxmin() == model
    # A model that has this one as a special case may fit a little better by chance, never worse.
    assert fits.loc[model, "aic"] < fits["aic"].min() + 4
    for name, value in truth.items():
        assert fits.loc[model, name] == pytest.approx(value, rel=0.35 if name == "tau" else 0.15, abs=0.1)
        assert name != "capacity" or fits.loc[model, name] == value


def test_grouping_many_errors_changes_nothing_that_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    responses = varying((1, 5), 8000, np.random.default_rng(2), J1=300.0, alpha=1.2, tau=30.0)
    grouped = fit_all(responses)
    monkeypatch.setattr(set_size_models, "_ROWS", 100_000)
    exact = fit_all(responses)
    np.testing.assert_allclose(grouped["log_likelihood"], exact["log_likelihood"], atol=0.02)
    for name in ("J1", "alpha", "tau"):
        np.testing.assert_allclose(grouped[name], exact[name], rtol=5e-3)


def test_models_are_compared_responder_by_responder() -> None:
    aic = {"a": (10.0, 12.0), "b": (100.0, 90.0), "c": (5.0, 5.5)}
    fits = pd.DataFrame(
        {"responder": name, "model": model, "k": 2, "aic": value, "aicc": value, "bic": -value}
        for name, values in aic.items()
        for model, value in zip(("slots", "equal precision"), values, strict=True)
    )
    found = compare(fits).set_index("model")
    assert list(found.index) == ["slots", "equal precision"]
    assert found["n_responders"].tolist() == [3, 3]
    assert found["aic_sum"].tolist() == [10.0, 2.5]
    assert found["aic_wins"].tolist() == [2, 1]
    assert found["bic_sum"].tolist() == [2.5, 10.0]


def test_extreme_responders_are_fitted_without_a_warning() -> None:
    rng = np.random.default_rng(3)
    for errors in (
        {1: np.zeros(20), 3: np.zeros(20)},
        {1: rng.normal(0, 1e-4, 50), 4: rng.normal(0, 1e-3, 50)},
        {1: rng.uniform(-np.pi, np.pi, 100), 8: rng.uniform(-np.pi, np.pi, 100)},
        {2: np.array([0.1])},
    ):
        fits = fit_all(of_errors(errors))
        assert np.all(np.isfinite(fits["log_likelihood"]))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["zhang_luck2008_exp2", "bays2009_full", "oberauer_lin2017"])
def test_precision_varies_in_people(file: str) -> None:
    """Van den Berg et al. (2012, 2014): variable precision is better than every model of fixed or shared precision."""
    path = HUMAN / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"the human data {file}.csv, which may not be distributed, is not in {HUMAN}")
    trials = pd.read_csv(path)
    fits = []
    for subject, rows in trials.groupby("subject"):
        errors = (rows["response"] - rows["target"]).to_numpy()
        sizes = rows["set_size"].to_numpy()
        fits.append(fit_all(of_errors({int(n): errors[sizes == n] for n in np.unique(sizes)}, str(subject))))
    found = compare(pd.concat(fits)).set_index("model")
    variable = [name for name in MODELS if name.startswith("variable")]
    print(found[["aic_sum", "aic_wins", "bic_sum", "bic_wins"]].round(1).to_string())
    people = found["n_responders"].iloc[0]
    assert found.loc[variable, "aic_wins"].sum() >= 0.85 * people
    assert found["aic_sum"].drop(variable).min() > 10 * people + found.loc["variable precision", "aic_sum"]
