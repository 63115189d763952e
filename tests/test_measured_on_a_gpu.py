"""What the page on speed and `runs_per_job: auto` say of a GPU is what the benchmark wrote on one."""

from pathlib import Path

import pandas as pd
import pytest

from vwm.config import Configuration
from vwm.sweep.packing import gain_of_a_pack, runs_that_fill_a_gpu

PROJECT = Path(__file__).parents[1]
PACKS = pd.read_csv(PROJECT / "benchmarks" / "results" / "gpu_packs.csv")
ALONE = pd.read_csv(PROJECT / "benchmarks" / "results" / "gpu.csv")
PAGE = (PROJECT / "docs" / "speed.md").read_text().partition("## On a GPU")[2].partition("\n## ")[0]


def rows_of_the_page(first_cell: str) -> list[list[str]]:
    """The rows of its tables whose first cell begins so; bold is not part of a cell."""
    lines = [line.replace("*", "").strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines if cells[0].strip().startswith(first_cell)]


@pytest.mark.parametrize("units", [64, 256])
def test_the_pack_that_auto_chooses_gains_what_plan_says(units: int) -> None:
    configuration = Configuration.model_validate({"model_params": {"num_neurons": units}})
    members = runs_that_fill_a_gpu(configuration)
    packs = PACKS[PACKS["units"] == units].set_index("members")["gain"]
    assert gain_of_a_pack(configuration) == pytest.approx(packs[members], abs=0.05)
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


def test_the_page_has_the_packs_of_the_benchmark() -> None:
    rows = [row for row in rows_of_the_page("N ") if "," not in row[0]]
    assert len(rows) == 2
    for name, *cells in rows:
        packs = PACKS[PACKS["units"] == int(name.removeprefix("N "))]
        assert [int(cell.replace(",", "")) for cell in cells] == [round(speed) for speed in packs["iterations_per_s"]]
