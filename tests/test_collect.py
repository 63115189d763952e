"""Collecting sweeps whose responses are simulated from known mixtures, so that the tables have known answers."""

import io
import json
import shlex
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from scipy.special import i0e

from tests.conftest import python
from tests.sweep_files import vwm_sweep, write_sweep
from vwm.behaviour import human
from vwm.behaviour.figures import set_size_figure
from vwm.behaviour.response_files import read_csv
from vwm.behaviour.tables import measures
from vwm.errors import UserError
from vwm.files import locked
from vwm.sweep.collect import Collected, collect
from vwm.sweep.collect_files import write_tables
from vwm.sweep.collect_view import holes_in_words, ranking_table, summary_table
from vwm.sweep.grid import Sweep, SweepRun, read_sweep
from vwm.sweep.people import read_people
from vwm.training.run_folder import Phase, Reason, RunFolder, RunState

K = "model_params.spike_noise_factor"
SET_SIZES = [1, 2, 4]
TABLES = ("runs", "by_set_size", "people", "ranking")


def make_sweep(tmp_path: Path, set_sizes: list[int] = SET_SIZES, **changes: Any) -> Sweep:
    base = {"model_params": {"max_item_num": max(set_sizes), "item_num": set_sizes}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    content = {"name": "demo", "base": "base.yaml", "grid": {K: [0.3, 0.1]}, "seeds": 3, "table": {"rows": K}}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(content | changes))
    return read_sweep(tmp_path / "demo.yaml")


def truth(k: float, n: int) -> tuple[float, float]:
    """The weight and concentration that a simulated network with noise factor k has at set size n."""
    return 1 / (1 + k * (n - 1) / 3), 3 / (k * n**0.6)


def expected_error(k: float, n: int) -> float:
    """Mean |error| of that mixture, integrated."""
    w, kappa = truth(k, n)
    e = np.linspace(0, np.pi, 200001)
    density = np.exp(-2 * kappa * np.sin(e / 2) ** 2) / (np.pi * i0e(kappa))
    return float(w * np.trapezoid(e * density, e) + (1 - w) * np.pi / 2)


def finish(folder: Path, run: SweepRun, trials: int = 1500) -> RunFolder:
    """A finished run's files: every shown item answered from the mixture of `truth`."""
    params = run.configuration.model_params
    rng = np.random.default_rng([run.seed, round(1000 * params.spike_noise_factor)])
    set_size = np.repeat(params.item_num, trials)
    shape = (len(set_size), params.max_item_num)
    shown = rng.permuted(np.arange(params.max_item_num) < set_size[:, None], axis=1)
    w, kappa = np.array([truth(params.spike_noise_factor, n) for n in set_size]).T
    target = rng.uniform(-np.pi, np.pi, shape)
    guess = rng.uniform(-np.pi, np.pi, shape)
    noise = np.where(rng.random(shape) < w[:, None], rng.vonmises(0, kappa[:, None], shape), guess)
    response = np.mod(target + noise + np.pi, 2 * np.pi) - np.pi
    run_folder = RunFolder(folder / run.run_id)
    run_folder.path.mkdir(parents=True, exist_ok=True)
    run_folder.config.write_text(run.configuration.to_yaml())
    np.savez(
        run_folder.responses,
        set_size=set_size.astype(np.int16),
        target=np.where(shown, target, np.nan).astype(np.float32),
        response=np.where(shown, response, np.nan).astype(np.float32),
    )
    run_folder.result.write_text(json.dumps({"run_id": run.run_id}))
    return run_folder


def leave(folder: Path, run: SweepRun, phase: Phase, reason: Reason | None = None, detail: str | None = None) -> None:
    """An unfinished run's state."""
    run_folder = RunFolder(folder / run.run_id)
    run_folder.path.mkdir(parents=True)
    run_folder.config.write_text(run.configuration.to_yaml())
    state = RunState(phase, 40, 100, 1, time.time(), "here", 1, reason=reason, detail=detail)
    run_folder.state.write_text(json.dumps(asdict(state)))


def terminal(report: Collected, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(summary_table(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def collect_and_write(sweep: Sweep, folder: Path) -> Collected:
    collected = collect(sweep, folder)
    write_tables(collected, folder / "tables")
    return collected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sweep's folder, with a name that a shell would have to be told about."""
    folder = tmp_path / 'the runs\' "best"' / "demo"
    folder.mkdir(parents=True)
    return folder


def test_tables_give_back_what_was_simulated(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path)
    for run in sweep.runs:
        finish(folder, run)
    report = collect_and_write(sweep, folder)
    assert report.holes == ()
    table = pd.read_csv(folder / "tables" / "by_set_size.csv", keep_default_na=False, na_values=[""])
    assert list(table[K]) == [0.3] * 3 + [0.1] * 3
    assert list(table["set_size"]) == SET_SIZES * 2
    assert (table["n_seeds"] == 3).all()
    assert table["missing_seeds"].isna().all()
    for _, row in table.iterrows():
        k, n = float(row[K]), int(row["set_size"])
        w, kappa = truth(k, n)
        # Three seeds of 1500·n responses: five standard errors of each mean.
        share = 5 / np.sqrt(3 * 1500 * n)
        assert row["w_mean"] == pytest.approx(w, abs=share * 0.8)
        assert np.log(row["kappa_mean"]) == pytest.approx(np.log(kappa), abs=share * 3)
        assert row["capacity_mean"] == pytest.approx(w * n, abs=share * 0.8 * n)
        assert row["mean_abs_error_mean"] == pytest.approx(expected_error(k, n), abs=share * 0.8)


def test_aggregated_table_follows_from_the_long_one(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path)
    for run in sweep.runs:
        finish(folder, run, trials=200)
    collect_and_write(sweep, folder)
    runs = pd.read_csv(folder / "tables" / "runs.csv")
    assert list(runs["run_id"].unique()) == [run.run_id for run in sweep.runs]
    assert len(runs) == len(sweep.runs) * len(SET_SIZES)
    cell = runs[(runs[K] == 0.3) & (runs["set_size"] == 4)]
    row = pd.read_csv(folder / "tables" / "by_set_size.csv").iloc[2]
    for name in ("mean_abs_error", "circular_sd", "circular_variance", "precision"):
        assert row[f"{name}_mean"] == pytest.approx(cell[name].mean(), rel=1e-12)
        assert row[f"{name}_sd"] == pytest.approx(cell[name].std(), rel=1e-12)


def test_holes_are_named_with_reason_and_command(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, grid={K: [0.1, 0.2, 0.3]})
    runs = sweep.runs
    finish(folder, runs[0], trials=100)
    leave(folder, runs[1], "failed", "error", "ValueError: [/bold] not a\nnumber")
    leave(folder, runs[2], "stopped", "stop requested")
    finish(folder, runs[3], trials=100).responses.write_bytes(b"PK")
    finish(folder, runs[4], trials=100)
    leave(folder, runs[5], "training")  # nobody holds its lock: it was killed
    for run in runs[6:8]:
        (folder / run.run_id).mkdir()
        (folder / run.run_id / "config.yaml").write_text(run.configuration.to_yaml())
    RunFolder(folder / runs[7].run_id).state.write_text("{")
    report = collect_and_write(sweep, folder)

    place = shlex.quote(str(folder))
    assert [(hole.run_id, hole.seed) for hole in report.holes] == [
        (runs[i].run_id, runs[i].seed) for i in (1, 2, 3, 5, 6, 7, 8)
    ]
    failed, stopped, damaged, killed, new, torn, absent = report.holes
    assert failed.why == "failed at iteration 40 of 100: error: ValueError: [/bold] not a number"
    assert failed.command == f"vwm-sweep retry {place}"
    assert stopped.why == "stopped at iteration 40 of 100: stop requested"
    assert killed.why == "interrupted at iteration 40 of 100"
    assert "responses.npz: the file is damaged" in damaged.why
    assert damaged.command == f"vwm evaluate {shlex.quote(str(folder / runs[3].run_id))}"
    assert new.why == absent.why == "never started"
    assert torn.why.endswith("state.json is damaged; delete that file first")
    assert {hole.command for hole in (stopped, killed, new, torn, absent)} == {f"vwm-sweep launch {place}"}

    table = pd.read_csv(folder / "tables" / "by_set_size.csv")
    assert list(table["n_seeds"]) == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert list(table["missing_seeds"].unique()) == ["[1, 2]", "[0, 2]", "[0, 1, 2]"]
    assert table.loc[table["n_seeds"] == 0, "precision_mean"].isna().all()
    assert table.loc[table["n_seeds"] == 1, "precision_mean"].notna().all()
    assert table["precision_ci_low"].isna().all()

    words = "\n".join(holes_in_words(report))
    for hole in report.holes:
        assert hole.run_id in words
        assert hole.command in words
    assert "0 of 3 runs" in terminal(report, 80)


def test_a_run_in_training_is_waited_for(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=1)
    leave(folder, sweep.runs[0], "training")
    finish(folder, sweep.runs[1], trials=100)
    with locked(RunFolder(folder / sweep.runs[0].run_id).lock):
        report = collect_and_write(sweep, folder)
    assert report.holes[0].why == "training, iteration 40 of 100"
    assert report.holes[0].command.startswith("vwm-sweep status ")


def test_a_sweep_without_a_finished_run_has_only_holes(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path)
    report = collect_and_write(sweep, folder)
    assert len(report.holes) == 6
    table = pd.read_csv(folder / "tables" / "by_set_size.csv")
    assert len(table) == 6
    assert (table["n_seeds"] == 0).all()
    assert pd.read_csv(folder / "tables" / "runs.csv").empty
    assert (folder / "tables" / "set_size.png").exists()
    assert "6 of 6 runs are missing" in " ".join(terminal(report, 80).split())


def test_a_sweep_that_was_never_launched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Launch it first"):
        collect(make_sweep(tmp_path), tmp_path / "runs" / "demo")
    assert not (tmp_path / "runs").exists()


def test_responses_of_other_set_sizes_are_a_hole(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=1)
    other = make_sweep(tmp_path, set_sizes=[1, 4], seeds=1)
    for run, stranger in zip(sweep.runs, other.runs, strict=True):
        finish(folder, run, trials=100)
        written = finish(tmp_path / "other", stranger, trials=100)
        written.responses.replace(RunFolder(folder / run.run_id).responses)
    report = collect_and_write(sweep, folder)
    assert len(report.holes) == 2
    assert "set sizes [1, 4]; [1, 2, 4] were expected" in report.holes[0].why


def test_rows_that_share_grid_points_average_over_them_and_say_so(tmp_path: Path, folder: Path) -> None:
    grid = {K: [0.1, 0.3], "training_params.error_def": ["rad", "l2"]}
    sweep = make_sweep(tmp_path, grid=grid, seeds=2, table={"rows": "training_params.error_def"})
    for run in sweep.runs:
        finish(folder, run, trials=200)
    report = collect_and_write(sweep, folder)
    assert report.averaged_axes == (K,)
    assert list(report.by_row["row"].unique()) == ["rad", "l2"]
    assert (report.by_row["n_seeds"] == 4).all()
    rad = report.runs[(report.runs["training_params.error_def"] == "rad") & (report.runs["set_size"] == 2)]
    found = report.by_row[(report.by_row["row"] == "rad") & (report.by_row["set_size"] == 2)]
    assert found["precision_mean"].item() == pytest.approx(rad["precision"].mean())
    assert "averages over spike_noise_factor as well as over seeds" in " ".join(terminal(report, 80).split())


def test_set_sizes_may_differ_between_grid_points(tmp_path: Path, folder: Path) -> None:
    sizes = "model_params.item_num"
    sweep = make_sweep(tmp_path, grid={sizes: [[1, 2], [1, 4]]}, seeds=1, table={"rows": sizes})
    finish(folder, sweep.runs[0], trials=100)
    report = collect_and_write(sweep, folder)
    assert list(report.by_set_size[sizes]) == ["[1, 2]", "[1, 2]", "[1, 4]", "[1, 4]"]
    assert list(report.by_set_size["set_size"]) == [1, 2, 1, 4]
    assert list(report.by_set_size["n_seeds"]) == [1, 1, 0, 0]
    assert "[1, 4]" in terminal(report, 80)


def test_collecting_again_writes_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=2)
    for run in sweep.runs:
        finish(folder, run, trials=100)

    def written() -> dict[str, bytes]:
        collect_and_write(sweep, folder)
        return {path.name: path.read_bytes() for path in (folder / "tables").iterdir() if path.is_file()}

    first = written()
    tables = {f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet", "md", "tex")}
    assert set(first) == {*tables, "table.md", "table.tex", "columns.md", "set_size.pdf", "set_size.png"}
    time.sleep(1.1)  # A time stamp in a PDF counts seconds.
    assert written() == first
    shutil.rmtree(folder / "tables")  # what is measured again is what was kept
    assert written() == first


def test_every_column_of_the_tables_is_explained(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path)
    finish(folder, sweep.runs[0], trials=100)
    report = collect_and_write(sweep, folder)
    text = (folder / "tables" / "columns.md").read_text()
    for table in (report.runs, report.by_set_size, report.comparison, report.ranking):
        for column in table.columns:
            assert f"| `{column}` " in text
    for citation in human.CITATIONS.values():
        assert citation in text
    assert "k² is the Fano factor" in text
    markdown = (folder / "tables" / "by_set_size.md").read_text()
    assert len(markdown.splitlines()) == 2 + 6


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("count", [3, 10, 16])
def test_the_terminal_table_shows_every_number_whole(tmp_path: Path, folder: Path, width: int, count: int) -> None:
    sweep = make_sweep(tmp_path, set_sizes=list(range(1, count + 1)))
    for run in sweep.runs[1:]:
        finish(folder, run, trials=60)
    report = collect_and_write(sweep, folder)
    text = terminal(report, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    shown = report.by_row[report.by_row["set_size"].isin([1, count])]
    for mean in [*shown["precision_mean"], *shown["capacity_mean"]]:
        assert ("–" if np.isnan(mean) else f"{mean:.2f}") in text.split()
    assert "2 of 3 runs" in text
    assert "k² is the Fano factor" in " ".join(text.split())
    assert ("by_set_size.csv" in text) == (count > 10)
    assert text.index("\n 0.1 ") < text.index("\n 0.3 ")  # ascending, whatever the order of the file


def test_values_are_printed_as_they_are_not_as_markup(tmp_path: Path, folder: Path) -> None:
    name = "model_and_logging_params.rnn_name"
    sweep = make_sweep(tmp_path)
    named = tuple(replace(run, settings={name: "[red]$x_1$|net"}) for run in sweep.runs[:3])
    sweep = replace(sweep, axes=(name,), rows=(name,), runs=named)
    finish(folder, named[0], trials=100)
    report = collect_and_write(sweep, folder)
    assert "[red]$x_1$|net" in terminal(report, 80)
    assert r"[red]$x_1$\|net" in (folder / "tables" / "by_set_size.md").read_text()


def test_the_figure_marks_chance_and_names_its_rows(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path)
    for run in sweep.runs[:3]:
        finish(folder, run, trials=100)
    report = collect_and_write(sweep, folder)
    figure = set_size_figure(report.by_row, "k", "a note")
    labels = [panel.get_ylabel() for panel in figure.axes]
    assert labels == ["Mean |error| (rad)", "Precision (1/rad)", "Capacity K = w · n (items)"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0.1 (no run)", "0.3"]
    cell = report.by_row[report.by_row["row"] == 0.3]
    for panel, measure in zip(figure.axes, ("mean_abs_error", "precision", "capacity"), strict=True):
        x, y = panel.lines[1].get_data()
        np.testing.assert_array_equal(x, SET_SIZES)
        np.testing.assert_allclose(np.asarray(y), cell[f"{measure}_mean"])
        assert panel.get_ylim()[1] >= np.max(np.asarray(y))
    assert figure.axes[0].lines[2].get_ydata() == pytest.approx([np.pi / 2] * 2)
    assert "a note" in figure.get_supxlabel()


def test_every_format_holds_the_same_table(tmp_path: Path, folder: Path) -> None:
    names = ["1", 0.5]  # text and a number: a column of parquet has one type
    sweep = make_sweep(tmp_path, seeds=1)
    mixed = tuple(replace(run, settings={K: name}) for run, name in zip(sweep.runs, names, strict=True))
    sweep = replace(sweep, runs=mixed)
    for run in sweep.runs:
        finish(folder, run, trials=100)
    collect_and_write(sweep, folder)
    for name in TABLES:
        text = pd.read_csv(folder / "tables" / f"{name}.csv")
        binary = pd.read_parquet(folder / "tables" / f"{name}.parquet")
        assert list(text.columns) == list(binary.columns)
        assert len(text) == len(binary)
        for column in binary.select_dtypes("number"):
            np.testing.assert_allclose(text[column], binary[column], rtol=1e-14)
        rows = (folder / "tables" / f"{name}.md").read_text().splitlines()[2:]
        assert len(rows) == len(text)
        latex = (folder / "tables" / f"{name}.tex").read_text().splitlines()
        assert sum(line.endswith(r" \\") for line in latex) == len(text) + 1
    layout = (folder / "tables" / "table.md").read_text()
    assert layout.startswith("| spike_noise_factor | set_size |")


def test_people_stand_beside_networks_at_matched_set_sizes(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path)
    for run in sweep.runs:
        finish(folder, run, trials=300)
    report = collect(sweep, folder)
    matched = report.comparison[report.comparison["measure"] == "circular_variance"]
    published = human.SUMMARIES[human.SUMMARIES["measure"] == "circular_variance"]
    assert set(matched["set_size"]) == set(SET_SIZES)  # 8 is published, and no network was shown 8
    for _, row in matched.iterrows():
        network = report.by_set_size[
            (report.by_set_size[K] == row[K]) & (report.by_set_size["set_size"] == row["set_size"])
        ]
        person = published[(published["source"] == row["source"]) & (published["set_size"] == row["set_size"])]
        assert row["network"] == network["circular_variance_mean"].item()
        assert row["z"] == pytest.approx((row["network"] - person["mean"].item()) / person["se"].item())
    ranks = report.ranking.groupby("source")["rank"].apply(list)
    assert all(sorted(rank) == [1, 2] for rank in ranks)
    console = Console(file=io.StringIO(), width=80, highlight=False)
    table = ranking_table(report)
    assert table is not None
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for source, points in report.ranking.groupby("source"):
        assert str(source) in text
        assert f"{points['rms_z'].iloc[0]:.2f}" in text


def write_people(path: Path, count: int) -> Path:
    """People of known mixtures in degrees, under names of columns that are not the usual ones."""
    rng = np.random.default_rng(5)
    rows = []
    for person in range(count):
        for n in SET_SIZES:
            target = rng.uniform(-180, 180, 150)
            error = np.degrees(rng.vonmises(0, 8 / n, 150))
            rows += [(f"p{person}", n, t, (t + e + 180) % 360 - 180) for t, e in zip(target, error, strict=True)]
    pd.DataFrame(rows, columns=["who", "set_size", "target", "answer"]).to_csv(path, index=False)
    return path


def test_a_file_of_people_is_a_source_of_its_own(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=2)
    for run in sweep.runs:
        finish(folder, run, trials=200)
    path = write_people(tmp_path / "our people.csv", 5)
    people = read_people([path], "responder=who,response=answer", "deg")
    report = collect(sweep, folder, people)
    ours = report.comparison[report.comparison["source"] == "our people.csv"]
    assert "5 people" in people.citations["our people.csv"]
    read = read_csv(path, {"responder": "who", "response": "answer"}, "deg").responders
    tables = [measures(person) for person in read]
    precision = np.array([table.loc[table["set_size"] == 2, "precision"].item() for table in tables])
    row = ours[(ours["measure"] == "precision") & (ours["set_size"] == 2)].iloc[0]
    assert row["human"] == pytest.approx(precision.mean())
    assert row["human_se"] == pytest.approx(precision.std(ddof=1) / np.sqrt(5))
    assert set(report.ranking["source"]) >= {"our people.csv"}
    (tmp_path / "other").mkdir()
    other = write_people(tmp_path / "other" / "our people.csv", 2)
    both = read_people([path, other], "responder=who,response=answer", "deg")
    assert {str(path), str(other)} <= set(both.summaries["source"])


@pytest.mark.parametrize("columns", ["person=who", "responder", "responder=", "=who"])
def test_a_wrong_option_for_people_says_what_was_expected(tmp_path: Path, columns: str) -> None:
    path = write_people(tmp_path / "people.csv", 1)
    with pytest.raises(UserError, match=r"expected NAME=COLUMN with a NAME of responder, set_size, target"):
        read_people([path], columns, "deg")


def test_the_command_that_fills_a_hole_names_the_sweep_as_the_user_does(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, seeds=2)
    runs = tmp_path / "all 'my' runs"
    (runs / "tiny").mkdir(parents=True)
    done = vwm_sweep("collect", file.name, "--runs", runs.name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command = f"vwm-sweep launch tiny.yaml --runs {shlex.quote(runs.name)}"
    assert f"2 missing, to be filled by: {command}" in done.stdout


def test_importing_it_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = {"pandas", "numpy", "scipy", "matplotlib", "torch"}
    modules = "vwm.sweep.collect_files, vwm.sweep.collect_view, vwm.sweep.report_content"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    assert python("-c", code, cwd=tmp_path, PYTHONPATH=str(Path(__file__).parents[1])).stdout.strip() == "[]"
