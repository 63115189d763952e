"""What the pages on speed and results and `runs_per_job: auto` say is what the benchmarks wrote."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import compare_pairs, fit_gamma_quantile, whole_trainings
from vwm.config import Configuration
from vwm.sweep.packing import estimated_pack

PROJECT = Path(__file__).parents[1]
PACKS = pd.read_csv(PROJECT / "benchmarks" / "results" / "gpu_packs.csv")
ALONE = pd.read_csv(PROJECT / "benchmarks" / "results" / "gpu.csv")
ON_A_CPU = pd.read_csv(PROJECT / "benchmarks" / "results" / "iteration.csv")


def rows_of_the_page(first_cell: str, chapter: str = "On a GPU") -> list[list[str]]:
    """The rows of a chapter's tables whose first cell begins so; bold is not part of a cell."""
    page = (PROJECT / "docs" / "speed.md").read_text().partition(f"## {chapter}")[2].partition("\n## ")[0]
    lines = [line.replace("*", "").strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines if cells[0].strip().startswith(first_cell)]


@pytest.mark.parametrize("units", [64, 256])
def test_the_pack_that_auto_chooses_gains_what_plan_says(units: int) -> None:
    configuration = Configuration.model_validate({"model_params": {"num_neurons": units}})
    pack = estimated_pack(configuration)
    members = pack.runs
    packs = PACKS[PACKS["units"] == units].set_index("members")["gain"]
    assert pack.gain == pytest.approx(packs[members], abs=0.05)
    assert packs[2 * members] < 1.11 * packs[members]


def test_the_page_has_the_times_of_the_benchmark() -> None:
    (header,) = [row for row in rows_of_the_page("") if "published" in row]
    rows = [row for row in rows_of_the_page("N ") if "," in row[0]]
    assert len(rows) == 10
    for name, *cells in rows:
        units, noise = name.removeprefix("N ").split(", ")
        measured = ALONE[(ALONE["units"] == int(units)) & (ALONE["noise"] == noise.replace("no noise", "none"))]
        times = measured.set_index("implementation")["ms"]
        for implementation, cell in zip(header[1:], cells, strict=True):
            decimals = len(cell.partition(".")[2])
            assert float(cell) == pytest.approx(times[implementation], abs=0.51 * 10**-decimals), (name, implementation)


def as_written(cell: str, value: float) -> bool:
    """Whether a cell is this value with the cell's own digits."""
    return float(cell) == pytest.approx(value, abs=0.501 * 10 ** -len(cell.partition(".")[2]))


def test_the_page_has_the_times_of_a_cpu() -> None:
    rows = rows_of_the_page("N ", "Measured")
    assert len(rows) == 6
    for name, *cells in rows:
        units, noise = name.removeprefix("N ").split(", ")
        is_row = (ON_A_CPU["units"] == int(units)) & (ON_A_CPU["noise"] == noise.replace("no noise", "none"))
        measured = ON_A_CPU[is_row].set_index("implementation")
        seconds, memory = measured["seconds"], measured["memory"]
        names = ("published", "tuned", "RNN", "JAX", "vwm", "limit")
        assert [name for name, cell in zip(names, cells, strict=False) if cell == "–"] == [
            name for name in names if name not in seconds
        ]
        times = [(cell, seconds[each]) for cell, each in zip(cells, names, strict=False) if cell != "–"]
        assert all(as_written(cell, value) for cell, value in times), name
        over = {"published": "vwm", "tuned": "vwm", "vwm": "limit"}
        ratios = zip(cells[6:9], over.items(), strict=True)
        assert all(as_written(cell, seconds[one] / seconds[other]) for cell, (one, other) in ratios), name
        gib = cells[9].split(" → ")
        assert all(as_written(cell, memory[each]) for cell, each in zip(gib, ("published", "vwm"), strict=True)), name


def page_in_one_line(name: str) -> str:
    return " ".join((PROJECT / name).read_text().split())


def test_the_prose_has_the_ratios_of_the_benchmarks() -> None:
    page = page_in_one_line("docs/speed.md")
    products = pd.read_csv(PROJECT / "benchmarks" / "results" / "products.csv")
    step, summed = products["step"] / products["step by torch"], products["turned"] / products["sum by torch"]
    assert f"is {step[0]:.1f} (N 64) to {step.max():.1f} times as fast for the products of a step" in page
    assert f"and {summed.min():.1f} to {summed.max():.1f} times for the sum over steps" in page
    rounding = pd.read_csv(PROJECT / "benchmarks" / "results" / "rounding.csv")
    ratio = rounding["vwm"] / rounding["autograd"]
    least, most = 1e5 * rounding["vwm"].min(), 1e5 * rounding["vwm"].max()
    assert f"medians over nine networks are {least:.0f} to {most:.0f} hundred-thousandths" in page
    assert f"{ratio.min():.1f} to {ratio.max():.1f} times plain autograd's".replace("0.", ".") in page


RATIOS = (("published", "vwm"), ("tuned", "vwm"), ("tuned", "limit"))


def test_the_prose_has_the_range_of_the_published_loop() -> None:
    rows = ON_A_CPU.set_index("implementation")
    gauss = rows[(rows["units"] == 64) & (rows["noise"] == "gauss")].loc["published"]
    means = "their means with gauss noise were {:.2f}, {:.2f} and {:.2f} s".format(*gauss[["least", "seconds", "most"]])
    assert means.replace("0.", ".") in page_in_one_line("docs/speed.md")
    each = ON_A_CPU.pivot(index=["units", "noise"], columns="implementation", values="seconds")
    ratios, tuned, of_limit = (each[one] / each[other] for one, other in RATIOS)
    assert f"then it takes {tuned.min():.0f} to {tuned.max():.0f} times vwm's" in page_in_one_line("docs/speed.md")
    assert f"and {of_limit.min():.0f} to {of_limit.max():.0f} times the limit" in page_in_one_line("docs/speed.md")
    speed = f"{ratios.min():.0f} to {ratios.max():.0f} times the speed of the loop as it is published"
    assert speed in page_in_one_line("CHANGELOG.md")


def test_the_prose_has_what_the_leaner_loop_took() -> None:
    table = pd.read_csv(PROJECT / "benchmarks" / "results" / "iteration_leaner_loop.csv").set_index("implementation")
    gauss = table[(table["units"] == 256) & (table["noise"] == "gauss")]
    published = gauss.loc["published"]
    words = "five processes took {:.1f} to {:.1f} s an iteration, in the median {:.1f}, {:.0f} times vwm's".format(
        *published[["least", "most", "seconds"]], published["seconds"] / gauss["seconds"]["vwm"]
    )
    assert words in page_in_one_line("docs/speed.md")


def test_the_prose_has_what_does_not_depend_on_size() -> None:
    page = page_in_one_line("docs/speed.md")
    scaling = pd.read_csv(PROJECT / "benchmarks" / "results" / "scaling.csv").set_index(["varied", "value"])
    one, two = scaling["seconds"]["processes"]
    assert f"are {one / two:.1f} times as fast as one ({two:.3f} and {one:.3f} s".replace("0.", ".") in page
    cold, warm = scaling["first"]["compiled before"]
    assert f"The first iteration comes {cold:.0f} s after torch has loaded" in page
    assert f"and after {warm:.1f} s where another process has done so".replace("0.", ".") in page
    taken_as_0, kept = scaling["seconds"]["denormal"]
    assert f"An iteration at N 64 with them takes {kept / taken_as_0:.2f} of its time without" in page
    members = scaling["seconds"]["members"]
    assert f"take {members[8] / members[1]:.2f} of the time of one each".replace("0.", ".") in page


def test_the_page_has_the_packs_of_the_benchmark() -> None:
    rows = [row for row in rows_of_the_page("N ") if "," not in row[0]]
    assert len(rows) == 2
    for name, *cells in rows:
        packs = PACKS[PACKS["units"] == int(name.removeprefix("N "))]
        assert [int(cell.replace(",", "")) for cell in cells] == [round(speed) for speed in packs["iterations_per_s"]]


def test_the_page_of_results_has_the_tables_of_whole_trainings() -> None:
    page = (PROJECT / "docs" / "results.md").read_text()
    table = pd.read_csv(whole_trainings.TABLE)
    assert len(table) == 64
    assert "\n".join(whole_trainings.summary(table)) in page
    assert "\n".join(whole_trainings.by_seed(table)) in page
    assert f"{table['iterations'].sum():,}" in page
    on_a_cpu = pd.read_csv(whole_trainings.TABLE_OF_A_CPU)
    assert list(on_a_cpu["seed"]) == list(range(6))
    assert set(on_a_cpu["ended_by"]) == {"early stopping"}
    assert "\n".join(whole_trainings.each(on_a_cpu)) in page


def test_the_page_has_the_errors_of_the_gamma_variate() -> None:
    page = (PROJECT / "docs" / "speed.md").read_text()
    table = pd.read_csv(fit_gamma_quantile.TABLE)
    assert "\n".join(fit_gamma_quantile.lines(table)) in page
    kept, now = table.set_index("shape").loc[2.0], fit_gamma_quantile.accuracy(2.0)
    assert now == pytest.approx(dict(kept), rel=0.06)


@pytest.mark.parametrize("name", ["gamma_sampler", "gamma_sampler_n64"])
def test_the_page_has_the_comparisons_of_samplers(name: str) -> None:
    page = (PROJECT / "docs" / "speed.md").read_text()
    table = pd.read_csv(compare_pairs.table_of(Path(f"{name}.yaml")))
    assert sorted(table["value"]) == ["quantile"] * 20 + ["torch"] * 20
    assert "\n".join(compare_pairs.summary(table)) in page
    assert compare_pairs.difference(table) in " ".join(page.split())


def test_the_page_of_results_has_the_comparison_of_limits() -> None:
    page = (PROJECT / "docs" / "results.md").read_text()
    table = pd.read_csv(compare_pairs.table_of(Path("gradient_clipping.yaml")))
    assert len(table) == 20
    assert "\n".join(compare_pairs.by_seed(table)) in page
    assert compare_pairs.difference(table) in " ".join(page.split())
