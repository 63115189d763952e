"""People's summaries, and distances of networks from them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vwm.behaviour import human, power_law
from vwm.behaviour.response_files import read_csv
from vwm.behaviour.tables import MEASURES, measures

HUMAN = Path(__file__).parents[2] / "shared" / "data" / "human"
BAYS = human.SUMMARIES[human.SUMMARIES["source"] == "Bays 2014"]


def networks(**scale: float) -> pd.DataFrame:
    """A grid point for each name: the variance and kurtosis of Bays 2014 times its scale, at five set sizes."""
    rows = []
    for name, factor in scale.items():
        for n in (1, 2, 4, 8):
            means = BAYS[BAYS["set_size"] == n].set_index("measure")["mean"]
            rows.append({"k": name, "set_size": n, **{f"{m}_mean": factor * value for m, value in means.items()}})
        rows.append({"k": name, "set_size": 3, "circular_variance_mean": 1.0, "circular_kurtosis_mean": 1.0})
    return pd.DataFrame(rows).assign(unrelated_mean=0.0)


def test_summaries_are_in_the_form_that_is_promised() -> None:
    assert set(human.SUMMARIES["source"]) == set(human.CITATIONS)
    assert set(human.SUMMARIES["measure"]) <= set(MEASURES)
    assert not human.SUMMARIES.duplicated(["source", "set_size", "measure"]).any()
    assert (human.SUMMARIES["se"] > 0).all()
    numbers = human.SUMMARIES.pivot(index=["source", "set_size"], columns="measure", values="mean")
    np.testing.assert_allclose(
        numbers["capacity"], numbers["w"] * numbers.index.get_level_values("set_size"), rtol=1e-3
    )


# Two-component fits as they are in the literature: w, SD in degrees, K.
@pytest.mark.parametrize(
    ("source", "set_size", "w", "sd", "capacity"),
    [
        ("Zhang & Luck 2008", 1, 0.993, 14.1, 0.99),
        ("Zhang & Luck 2008", 6, 0.373, 23.0, 2.24),
        ("Bays et al. 2009", 4, 0.723, 20.9, 2.89),
    ],
)
def test_known_means(source: str, set_size: int, w: float, sd: float, capacity: float) -> None:
    rows = human.SUMMARIES.query("source == @source and set_size == @set_size").set_index("measure")["mean"]
    assert rows["w"] == pytest.approx(w, abs=6e-4)
    assert np.degrees(rows["sd"]) == pytest.approx(sd, abs=0.06)
    assert rows["capacity"] == pytest.approx(capacity, abs=6e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("zhang_luck2008_exp2", "Zhang & Luck 2008"),
        ("bays2009_full", "Bays et al. 2009"),
        ("oberauer_lin2017", "Oberauer & Lin 2017"),
    ],
)
def test_summaries_are_computed_from_the_data(file: str, source: str) -> None:
    path = HUMAN / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"the human data {file}.csv, which may not be distributed, is not in {HUMAN}")
    people = read_csv(path).responders
    measured = pd.concat(measures(person).assign(responder=person.responder) for person in people)
    found = human.summarise(measured, source)
    expected = human.SUMMARIES[human.SUMMARIES["source"] == source]
    both = expected.merge(found, on=["source", "set_size", "measure"], suffixes=("", "_found"))
    assert len(both) == len(expected)
    np.testing.assert_allclose(both["mean_found"], both["mean"], rtol=6e-4, atol=6e-5)
    np.testing.assert_allclose(both["se_found"], both["se"], rtol=6e-3, atol=6e-5)
    np.testing.assert_array_equal(both["n_responders_found"], both["n_responders"])


def test_summaries_of_full_data_are_means_and_standard_errors() -> None:
    measured = pd.DataFrame(
        {"responder": ["a", "b", "c"] * 2, "set_size": [1] * 3 + [2] * 3, "p_n": [np.nan] * 3 + [0.1, 0.2, 0.6]}
    )
    found = human.summarise(measured, "mine")
    assert found.to_dict("list") == {
        "source": ["mine"],
        "set_size": [2],
        "measure": ["p_n"],
        "mean": [pytest.approx(0.3)],
        "se": [pytest.approx(np.sqrt(0.07 / 3))],
        "n_responders": [3.0],
    }


def test_networks_are_compared_at_matched_set_sizes_only() -> None:
    found = human.compare(networks(same=1.0, twice=2.0), BAYS, ["k"])
    assert list(found["k"]) == ["same"] * 8 + ["twice"] * 8
    assert list(found["set_size"][:8]) == [1, 2, 4, 8] * 2
    assert list(found["measure"][:8]) == ["circular_variance"] * 4 + ["circular_kurtosis"] * 4
    np.testing.assert_allclose(found["z"][:8], 0, atol=1e-12)
    np.testing.assert_allclose(found["z"][8:12], [0.1168 / 0.0184, 0.2582 / 0.0566, 0.7284 / 0.1874, 1.7999 / 0.4149])


def test_a_measure_that_either_lacks_and_a_point_without_a_run_are_left_out() -> None:
    table = networks(same=1.0).drop(columns="circular_kurtosis_mean")
    table.loc[table["set_size"] == 4, "circular_variance_mean"] = np.nan
    found = human.compare(table, human.SUMMARIES, ["k"])
    assert set(found["measure"]) == {"circular_variance"}
    assert 4 not in set(found["set_size"])
    assert human.rank(table, human.SUMMARIES, ["k"]).empty


def test_without_a_standard_error_there_is_no_z() -> None:
    one_person = BAYS.assign(se=np.nan)
    assert human.compare(networks(twice=2.0), one_person, ["k"])["z"].isna().all()
    ranked = human.rank(networks(twice=2.0), one_person, ["k"])
    assert np.isnan(ranked["rms_z"].item())
    assert ranked["variance_distance"].item() == pytest.approx(np.log(2))


def test_the_closest_grid_point_comes_first() -> None:
    ranked = human.rank(networks(half=0.5, twice=2.0, same=1.0, near=1.1), human.SUMMARIES, ["k"])
    bays = ranked[ranked["source"] == "Bays 2014"].set_index("k")
    assert list(bays.index) == ["same", "near", "half", "twice"]
    assert list(bays["rank"]) == [1, 2, 3, 4]
    assert set(bays["n_set_sizes"]) == {4}
    assert bays.loc["twice", "variance_distance"] == pytest.approx(np.log(2))
    kurtosis = np.array([4.39, 3.98, 2.61, 1.04])
    assert bays.loc["half", "kurtosis_distance"] == pytest.approx(np.sqrt(np.mean((kurtosis / 2) ** 2)))
    assert bays.loc["half", "exponent_distance"] == pytest.approx(0, abs=1e-12)
    z = np.concatenate(
        [[0.1168 / 0.0184, 0.2582 / 0.0566, 0.7284 / 0.1874, 1.7999 / 0.4149], kurtosis / [1.29, 1.09, 0.47, 0.45]]
    )
    assert bays.loc["near", "rms_z"] == pytest.approx(0.1 * np.sqrt(np.mean(z**2)))
    # The other sources have other set sizes in common with these networks.
    assert set(ranked.query("source == 'Zhang & Luck 2008'")["n_set_sizes"]) == {3}


def test_the_exponents_distance_is_that_of_two_power_laws() -> None:
    table = networks(same=1.0)
    table["circular_variance_mean"] *= table["set_size"] ** 0.4
    ranked = human.rank(table, BAYS, ["k"])
    assert ranked["exponent_distance"].item() == pytest.approx(0.4)
    of_people = BAYS[BAYS["measure"] == "circular_variance"].rename(columns={"mean": "circular_variance"})
    of_networks = table[table["set_size"] != 3].rename(columns={"circular_variance_mean": "circular_variance"})
    exponents = [
        power_law.fit(rows.assign(responder="mean")[["responder", "set_size", "circular_variance"]]).exponent
        for rows in (of_people, of_networks)
    ]
    assert exponents[1] - exponents[0] == pytest.approx(0.4)


def test_one_grid_point_needs_no_name() -> None:
    assert len(human.compare(networks(same=1.0), BAYS)) == 8
    assert human.rank(networks(same=1.0), BAYS)["rank"].tolist() == [1]


def test_nothing_in_common_is_an_empty_table() -> None:
    nothing = human.compare(networks(same=1.0).query("set_size == 3"), BAYS, ["k"])
    assert nothing.empty
    assert "z" in nothing
    assert human.rank(networks(same=1.0).query("set_size == 3"), BAYS, ["k"]).empty
