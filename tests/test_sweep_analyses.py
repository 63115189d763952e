"""Analyses of all runs of a sweep, and their numbers in its tables and on its page."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from tests.conftest import EXACT_FILES
from tests.sweep_files import vwm_sweep, write_sweep
from tests.test_collect import SET_SIZES, K, collect_and_write, finish, make_sweep
from vwm.errors import UserError
from vwm.sweep import archive
from vwm.sweep.collect import collect
from vwm.sweep.grid import Sweep
from vwm.sweep.report import write_page
from vwm.sweep.report_content import make_page
from vwm.sweep.report_facts import facts_of_runs
from vwm.training.run_folder import RunFolder, RunState

ONE_NUMBER, BY_SIZE = "spectral_radius", "efficiency"


def leave_columns(folder: Path, run_id: str, radius: float) -> None:
    """What two analyses leave: a number of the run, and one a set size with a hole."""
    values = {"1": radius / 2, "2": None, "4": radius / 4}
    columns: dict[str, dict[str, Any]] = {
        "weights": {ONE_NUMBER: {"meaning": "largest |λ|", "unit": "–", "values": radius}},
        "signal_to_noise": {BY_SIZE: {"meaning": "how much is used", "unit": "1/Hz", "values": values}},
    }
    (folder / run_id / "analysis").mkdir()
    for name, content in columns.items():
        path = folder / run_id / "analysis" / f"{name}.columns.json"
        path.write_text(json.dumps({"made_from": "0", "columns": content}))


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Six finished runs, of which the first two seeds of the first grid point were analysed."""
    folder = tmp_path / "the runs" / "demo"
    folder.mkdir(parents=True)
    sweep = make_sweep(tmp_path)
    for run in sweep.runs:
        finish(folder, run, trials=60)
    for run, radius in zip(sweep.runs, (8.0, 12.0), strict=False):
        leave_columns(folder, run.run_id, radius)
    return sweep


def test_numbers_of_analyses_are_columns_of_the_tables(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "the runs" / "demo"
    collected = collect_and_write(sweep, folder)
    runs = pd.read_csv(folder / "tables" / "runs.csv")
    first, second, third = (run.run_id for run in sweep.runs[:3])
    assert runs.loc[runs["run_id"] == first, ONE_NUMBER].tolist() == [8.0] * 3
    np.testing.assert_array_equal(runs.loc[runs["run_id"] == second, BY_SIZE], [6, np.nan, 3])
    assert runs.loc[runs["run_id"] == third, [ONE_NUMBER, BY_SIZE]].isna().to_numpy().all()

    table = pd.read_csv(folder / "tables" / "by_set_size.csv")
    here = table[table[K] == 0.3]
    assert here["set_size"].tolist() == SET_SIZES
    assert here[f"{ONE_NUMBER}_mean"].tolist() == [10.0] * 3
    np.testing.assert_allclose(here[f"{BY_SIZE}_mean"], [5, np.nan, 2.5])
    half = student_t.ppf(0.975, 1) * np.std([8, 12], ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(here[f"{ONE_NUMBER}_ci_low"], 10 - half)
    np.testing.assert_allclose(here[f"{ONE_NUMBER}_ci_high"], 10 + half)
    assert table.loc[table[K] == 0.1, f"{ONE_NUMBER}_mean"].isna().all()
    assert (table["n_seeds"] == 3).all()

    dictionary = (folder / "tables" / "columns.md").read_text()
    assert re.search(rf"\| `{BY_SIZE}` +\| how much is used +\| 1/Hz +\|", dictionary)
    assert f"`{ONE_NUMBER}_ci_high`" in dictionary
    for name in ("runs.md", "by_set_size.md", "table.md", "runs.tex"):
        assert BY_SIZE not in (folder / "tables" / name).read_text()
    parquet = pd.read_parquet(folder / "tables" / "runs.parquet")
    assert parquet[ONE_NUMBER].dtype == np.float64
    assert {ONE_NUMBER, BY_SIZE} <= set(collected.runs.columns)


def test_numbers_of_analyses_come_from_the_archive_too(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "the runs" / "demo"
    before = collect(sweep, folder)
    for run in sweep.runs:
        RunFolder(folder / run.run_id).write_state(RunState("finished", 1, 1, 1))
    assert archive.pack(folder, [run.run_id for run in sweep.runs]) == 6
    assert not (folder / sweep.runs[0].run_id).exists()
    pd.testing.assert_frame_equal(collect(sweep, folder).runs, before.runs)


def test_a_damaged_file_of_an_analysis_is_named(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "the runs" / "demo"
    path = folder / sweep.runs[0].run_id / "analysis" / "weights.columns.json"
    path.write_text('{"columns": {"x": 3}}')
    with pytest.raises(UserError, match=r"weights\.columns\.json: this file is damaged\. Delete it"):
        collect(sweep, folder)


@pytest.mark.slow
def test_the_page_shows_them(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "the runs" / "demo"
    collected = collect(sweep, folder)
    page = make_page(collected, facts_of_runs(collected, folder, lambda done, total: None), {}, folder)
    (section,) = (section for section in page.sections if section.id == "analyses")
    assert section.paragraphs[0].startswith("Of 2 of 6 finished runs.")
    assert [figure.name for figure in section.figures] == [BY_SIZE]
    rows = {(row[0].text, row[2].text): [cell.key for cell in row[3:]] for row in section.tables[0].rows}
    assert rows == {("spectral radius", "0.3"): [10, 10, 10], ("efficiency", "0.3"): [5, "", 2.5]}
    assert "how much is used" in write_page(page, folder).read_text()


@pytest.mark.slow
def test_analyse_a_sweep(tmp_path: Path) -> None:
    """Once, in processes of their own; the second time only what is new; the exact files stay as they are."""
    place = tmp_path / "my 'sweeps'"
    write_sweep(place, grid={"model_params.item_num": [[1], [1, 2]]}, set={"training_params.num_iterations": 4})
    assert vwm_sweep("launch", "tiny.yaml", cwd=place).returncode == 0
    folder = place / "runs" / "tiny"
    runs = sorted(path.parent for path in folder.glob("*/result.json"))
    assert len(runs) == 2
    before = {path / name: (path / name).read_bytes() for path in runs for name in EXACT_FILES}

    unknown = vwm_sweep("analyse", "tiny", "--only", "weight", cwd=place)
    assert unknown.returncode == 2
    assert "did you mean 'weights'?" in unknown.stderr
    first = vwm_sweep("analyse", "tiny", "--only", "weights", cwd=place)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 runs finished, 0 runs analysed already." in first.stdout
    assert "2 runs analysed." in first.stdout
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*/analysis/*")}
    assert len(written) == 14  # text, numbers, columns and two figures in two formats, of each run

    second = vwm_sweep("analyse", "tiny", "--only", "weights", "--only", "normalisation", cwd=place)
    assert second.returncode == 1  # one of the networks knows one item only
    assert "2 runs finished, 0 runs analysed already." in second.stdout
    assert "normalisation: this network was trained with item_num [1]" in second.stdout
    assert "1 run analysed." in second.stdout
    third = vwm_sweep("analyse", "tiny", "--only", "weights", cwd=place)
    assert "2 runs finished, 2 runs analysed already." in third.stdout
    assert written.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("*/analysis/*")}.items()
    assert before == {path: path.read_bytes() for path in before}

    assert vwm_sweep("collect", "tiny", cwd=place).returncode == 0
    table = pd.read_csv(folder / "tables" / "runs.csv")
    assert table["spectral_radius"].notna().all()
    assert table["weight_sum_delay"].notna().sum() == 1
