"""The responses table and the tables of measures made from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from vwm.behaviour import circular
from vwm.behaviour.mixture import fit_mixture, fit_three_component
from vwm.behaviour.responses import Responses, UnreadableResponses, read_run
from vwm.behaviour.table_text import describe, latex, markdown, rounded
from vwm.behaviour.tables import (
    AGGREGATED,
    COUNTS,
    MEASURES,
    OF_PEOPLE,
    OF_THE_MIXTURE,
    OF_THE_SWAPS,
    SUMMARIES,
    aggregate,
    data_dictionary,
    measures,
    one_response_a_trial,
)
from vwm.behaviour.von_mises import fisher_information, sd_of_kappa

NAN = np.nan
# Three trials at three locations; every error is chosen, one of them across ±π.
SET_SIZE = np.array([1, 2, 2], dtype=np.int16)
TARGET = np.array([[NAN, 1.0, NAN], [0.5, NAN, -2.0], [NAN, 3.1, 0.0]], dtype=np.float32)
ERROR = np.array([[NAN, 0.2, NAN], [-0.1, NAN, 0.3], [NAN, 0.4, -0.6]])
RESPONSE = circular.wrap(TARGET + ERROR).astype(np.float32)


def write(path: Path, **changes: np.ndarray | None) -> Path:
    arrays: dict[str, Any] = {"set_size": SET_SIZE, "target": TARGET, "response": RESPONSE} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_every_shown_item_is_a_row_with_the_others_as_its_non_targets(tmp_path: Path) -> None:
    responses = read_run(write(tmp_path / "responses.npz"), "abc")
    assert responses.responder == "abc"
    assert responses.set_sizes() == [1, 2]
    np.testing.assert_array_equal(responses.trial, [0, 1, 1, 2, 2])
    np.testing.assert_array_equal(responses.set_size, [1, 2, 2, 2, 2])
    np.testing.assert_allclose(responses.target, [1.0, 0.5, -2.0, 3.1, 0.0], rtol=1e-6)
    np.testing.assert_allclose(responses.errors, [0.2, -0.1, 0.3, 0.4, -0.6], atol=1e-6)
    expected = [[NAN, NAN], [NAN, -2.0], [0.5, NAN], [NAN, 0.0], [NAN, 3.1]]
    np.testing.assert_allclose(responses.non_targets, expected, rtol=1e-6)


def test_one_location_has_no_non_targets(tmp_path: Path) -> None:
    path = tmp_path / "responses.npz"
    write(path, set_size=SET_SIZE[:1], target=TARGET[:1, 1:2], response=RESPONSE[:1, 1:2])
    assert read_run(path, "abc").non_targets.shape == (1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response": None}, "the array 'response' is missing; found: 'set_size', 'target'"),
        ({"response": RESPONSE[:, :2]}, "shapes set_size (3,), target (3, 3), response (3, 2)"),
        ({"set_size": SET_SIZE[:2]}, "shapes set_size (2,)"),
        ({"set_size": SET_SIZE.astype(float)}, "'set_size' has type float64; whole numbers were expected"),
        ({"target": TARGET.astype(str)}, "floating-point numbers were expected"),
        ({"target": np.array([["a"]], dtype=object)}, "the file is damaged"),  # would have to be unpickled
        ({"set_size": np.array([1, 2, 1])}, "not as many as its set size"),
        ({"response": np.degrees(RESPONSE)}, "'response' goes beyond ±π"),
        ({"response": np.where(TARGET == 0, NAN, RESPONSE)}, "1 of 5 items have no response (NaN)"),
        ({"set_size": SET_SIZE[:0], "target": TARGET[:0], "response": RESPONSE[:0]}, "no trial"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    path = write(tmp_path / "responses.npz", **changes)
    with pytest.raises(UnreadableResponses) as caught:
        read_run(path, "abc")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_damaged_file_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    content = write(tmp_path / "responses.npz").read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "cut.npz").write_bytes(content[:length])
        with pytest.raises(UnreadableResponses, match="damaged"):
            read_run(tmp_path / "cut.npz", "abc")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bytes_never_change_the_numbers_unseen(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "responses.npz", set_size=SET_SIZE, target=TARGET, response=RESPONSE)
    content = (tmp_path / "responses.npz").read_bytes()
    sound = read_run(tmp_path / "responses.npz", "abc")
    refused = 0
    for place in range(0, len(content), 5):
        (tmp_path / "flipped.npz").write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        try:
            read = read_run(tmp_path / "flipped.npz", "abc")
        except UnreadableResponses:
            refused += 1
        else:  # a byte that carries no meaning, such as a file's date in the archive
            np.testing.assert_array_equal(read.errors, sound.errors)
    assert refused > 50


def test_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableResponses, match="there is no such file"):
        read_run(tmp_path / "responses.npz", "abc")
    np.save(tmp_path / "one.npy", TARGET)
    with pytest.raises(UnreadableResponses, match="'set_size' is missing; found: nothing"):
        read_run(tmp_path / "one.npy", "abc")
    with pytest.raises(UnreadableResponses, match="damaged"):
        read_run(tmp_path, "abc")


def test_measures_by_hand(tmp_path: Path) -> None:
    table = measures(read_run(write(tmp_path / "responses.npz"), "abc")).set_index("set_size")
    assert list(table.index) == [1, 2]
    two = table.loc[2]
    assert (two["n_trials"], two["n_responses"]) == (2, 4)
    assert two["mean_abs_error"] == pytest.approx((0.1 + 0.3 + 0.4 + 0.6) / 4, rel=1e-5)
    assert two["sd_abs_error"] == pytest.approx(0.15, rel=1e-5)  # of the trials' means .2 and .5
    length = abs(np.mean(np.exp(1j * np.array([-0.1, 0.3, 0.4, -0.6]))))
    assert two["circular_variance"] == pytest.approx(-2 * np.log(length), rel=1e-5)
    assert two["circular_sd"] == pytest.approx(np.sqrt(-2 * np.log(length)), rel=1e-5)
    assert two["precision"] == pytest.approx(1 / two["circular_sd"] - circular.uniform_precision(4), rel=1e-9)
    assert two["capacity"] == pytest.approx(2 * two["w"], rel=1e-12)


def people_who_swap(trials: int, p_n: float) -> Responses:
    """Responses to one item of three, κ = 12, a share ``p_n`` of them at another item."""
    rng = np.random.default_rng(3)
    items = rng.uniform(-np.pi, np.pi, (trials, 3))
    aimed = np.where(rng.random(trials) < p_n, 1, 0)
    response = circular.wrap(items[np.arange(trials), aimed] + rng.vonmises(0, 12, trials))
    count = np.arange(trials)
    return Responses("p", count, np.full(trials, 3), items[:, 0], response, items[:, 1:])


def test_swaps_and_information_are_columns() -> None:
    responses = people_who_swap(2000, 0.2)
    row = measures(responses).iloc[0]
    non_target_errors = circular.wrap(responses.response[:, None] - responses.non_targets)
    fit = fit_three_component(responses.errors, non_target_errors)
    assert (row["p_t"], row["p_n"], row["p_u"]) == pytest.approx((fit.p_t, fit.p_n, fit.p_u), abs=1e-4)
    assert row["p_n"] == pytest.approx(0.2, abs=0.04)
    assert row["swap_flag"] == ""
    # The null knows nothing of swaps, and the permutations none as high.
    assert row["swap_null"] < row["swap_null_95"] < 0.05
    assert row["swap_p_value"] == 1 / 40
    kappa = fit_mixture(responses.errors).kappa
    assert row["information"] == pytest.approx(float(fisher_information(kappa)))
    assert row["sd"] == pytest.approx(float(sd_of_kappa(kappa)))


def test_one_response_of_a_trial_is_taken_and_all_items_equally_often() -> None:
    trial = np.repeat(np.arange(90), np.repeat([1, 2, 3], 30))
    set_size = np.repeat([1, 2, 3], [30, 60, 90])
    row = np.arange(180.0)
    responses = Responses("x", trial, set_size, row, row + 0.5, row[:, None] + [1, 2])
    every = one_response_a_trial(responses)
    np.testing.assert_array_equal(every.trial, np.arange(90))
    np.testing.assert_array_equal(every.response, every.target + 0.5)
    np.testing.assert_array_equal(every.non_targets, every.target[:, None] + [1, 2])
    place = every.target - row[np.unique(trial, return_index=True)[1]]  # within the trial
    for n in (1, 2, 3):
        np.testing.assert_array_equal(np.bincount(place[every.set_size == n].astype(int)), [30 / n] * n)
    few = one_response_a_trial(responses, 7)
    np.testing.assert_array_equal(few.trial, [*range(7), *range(30, 37), *range(60, 67)])


def test_one_item_has_no_swaps(tmp_path: Path) -> None:
    row = measures(read_run(write(tmp_path / "responses.npz"), "abc")).iloc[0]
    assert row["set_size"] == 1
    assert np.isnan([row[name] for name in (*OF_THE_SWAPS, "swap_null", "swap_p_value")]).all()
    assert row["swap_flag"] == ""


def some_runs() -> pd.DataFrame:
    """Four runs in two groups, the measures random, one of them with a mixture that cannot be told."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "group": group,
            "set_size": n,
            "mixture_flag": "",
            "swap_flag": "",
            **{name: rng.normal() for name in MEASURES},
        }
        for group, seeds in (("a", 3), ("b", 1))
        for _ in range(seeds)
        for n in (1, 2)
    ]
    rows[2]["mixture_flag"] = "not told apart from guessing"
    return pd.DataFrame(rows)


def test_intervals_are_those_of_student_over_seeds() -> None:
    runs = some_runs()
    table = aggregate(runs, ["group", "set_size"]).set_index(["group", "set_size"])
    for name in AGGREGATED:
        values = runs.loc[(runs["group"] == "a") & (runs["set_size"] == 1), name].to_numpy()
        if name in OF_THE_MIXTURE:
            values = values[[0, 2]]  # the second seed's mixture was not identified
        cell = table.xs(("a", 1))
        low, high = student_t.interval(0.95, len(values) - 1, values.mean(), values.std(ddof=1) / np.sqrt(len(values)))
        assert cell[f"{name}_mean"] == pytest.approx(values.mean())
        assert cell[f"{name}_sd"] == pytest.approx(values.std(ddof=1))
        assert (cell[f"{name}_ci_low"], cell[f"{name}_ci_high"]) == pytest.approx((low, high))
    assert list(table["n_seeds"]) == [3, 3, 1, 1]
    assert list(table["n_identified"]) == [2, 3, 1, 1]
    assert list(table["n_swaps_identified"]) == [3, 3, 1, 1]


def test_one_seed_has_a_mean_and_no_interval() -> None:
    alone = aggregate(some_runs(), ["group", "set_size"]).set_index(["group", "set_size"]).xs(("b", 1))
    assert np.isfinite(alone["precision_mean"])
    assert np.isnan([alone[f"precision_{ending}"] for ending in ("sd", "ci_low", "ci_high")]).all()


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    runs = pd.DataFrame({name: rng.normal(3, 0.5, 4000 * 3) for name in MEASURES})
    runs = runs.assign(mixture_flag="", swap_flag="", set_size=1, group=np.repeat(np.arange(4000), 3))
    table = aggregate(runs, ["group", "set_size"])
    covered = (table["precision_ci_low"] < 3) & (table["precision_ci_high"] > 3)
    assert covered.mean() == pytest.approx(0.95, abs=0.012)


def test_every_column_is_explained() -> None:
    columns = [*COUNTS, *MEASURES, *OF_PEOPLE, *(f"{name}_{ending}" for name in AGGREGATED for ending in SUMMARIES)]
    explained = data_dictionary(columns)
    assert list(explained) == columns
    assert all(column.meaning and column.unit for column in explained.values())
    text = describe(explained)
    assert text.count("\n") == len(columns) + 2
    assert r"mean \|error\|" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (12.0, "12.0"), (123.4, "123"), (99999.6, "100000"), (1e-5, "1.00e-05"), (NAN, "–")],
)
def test_rounding(value: float, text: str) -> None:
    assert rounded(value) == text


def hostile_table() -> pd.DataFrame:
    interval = {"w_mean": [0.5, 0.25], "w_sd": [0.1, NAN], "w_ci_low": [0.4, NAN], "w_ci_high": [0.6, NAN]}
    return pd.DataFrame({"a.name_1": ["a|b\nc", "50 % & $x$ {\\~^#}"], "set_size": [2, 3], **interval})


def test_markdown_shows_intervals_and_survives_hostile_text() -> None:
    lines = markdown(hostile_table()).splitlines()
    assert len(lines) == 4
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["a.name_1", "set_size", "w"]
    assert lines[2].split() == ["|", r"a\|b", "c", "|", "2", "|", "0.500", "[0.400,", "0.600]", "|"]
    assert lines[3].split()[-2] == "0.250"


def test_latex_has_the_rules_of_booktabs_and_survives_hostile_text() -> None:
    lines = latex(hostile_table(), ["a.name_1"]).splitlines()
    assert lines == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"name\_1 & $n$ & $w$ \\",
        r"\midrule",
        r"a|b c & 2 & $0.500 \pm 0.100$ \\",
        r"\addlinespace",
        r"50 \% \& \$x\$ \{\textbackslash{}\textasciitilde{}\textasciicircum{}\#\} & 3 & 0.250 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_latex_table_longer_than_a_page_breaks_over_pages() -> None:
    lines = latex(pd.DataFrame({"set_size": range(100), "w": NAN})).splitlines()
    assert lines[1] == r"\begin{longtable}{rr}"
    assert lines[-1] == r"\end{longtable}"
    assert lines.count(r"\bottomrule") == 1
    assert r"99 & -- \\" in lines
