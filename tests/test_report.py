"""The page of a sweep, read back as a browser would read it."""

import base64
import hashlib
import html.parser
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.sweep_files import vwm_sweep
from tests.test_collect import K, finish, leave, make_sweep, write_people
from vwm.behaviour.figures import colours, one_measure, svg
from vwm.behaviour.set_size_models import MODELS
from vwm.sweep import report_facts
from vwm.sweep.collect import collect
from vwm.sweep.grid import Sweep
from vwm.sweep.people import People, read_people
from vwm.sweep.report import write_page
from vwm.sweep.report_content import make_page
from vwm.sweep.report_facts import facts_of_runs, learning_curve, models_of_people
from vwm.training.run_folder import RunFolder

VOID = {"meta", "link", "br", "hr", "img", "input"}
SECTIONS = ["set-size", "errors", "shape", "swaps", "models", "people", "training", "tables"]
HOSTILE = "</p><b x=1>$n$ & \"' {{ 7*7 }}</script><script>alert(1)</script>"


class Reader(html.parser.HTMLParser):
    """Every element with its attributes, and the text of every element's own; refuses what is not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def report(sweep: Sweep, folder: Path, people: People | None = None) -> tuple[Reader, str]:
    collected = collect(sweep, folder, people)
    facts = facts_of_runs(collected, folder, lambda done, total: None)
    models = models_of_people(collected.people, lambda done, total: None)
    page = write_page(make_page(collected, facts, models, folder), folder)
    text = page.read_text(encoding="utf-8")
    return Reader(text), text


def with_history(run_folder: RunFolder) -> None:
    rows = [
        {"iteration": 10 * i, "set_size": [1, 2, 4], "mean_abs_error": [1 / i, 2 / i, float("nan")]}
        for i in range(1, 400)
    ]
    run_folder.history.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / 'the runs\' "best" <b>' / "demo"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.slow
def test_the_page_shows_the_sweep_and_needs_nothing_else(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path)
    for run in sweep.runs[:-1]:
        with_history(finish(folder, run, trials=400))
    leave(folder, sweep.runs[-1], "failed", "error", HOSTILE)
    page, text = report(sweep, folder)

    assert [section["id"] for section in page.all("section")] == ["holes", *SECTIONS]
    # Nothing is loaded: no element refers to anything but a place on this page.
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", text)
    # The only script is the page's own, and a browser is told to run no other.
    scripts = page.text("script")
    assert len(page.all("script")) == 1
    digest = base64.b64encode(hashlib.sha256("".join(scripts).encode()).digest()).decode()
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    # The missing run is named with what it died of, as text, and with the command that goes on.
    assert HOSTILE in " ".join(page.text("td"))
    assert f"vwm-sweep retry {shlex.quote(str(folder))}" in page.text("pre")
    # Identifiers that figures refer to are there once.
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    referred = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', text))
    assert referred <= set(identifiers)
    # Every figure is a file too.
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert len(page.all("svg")) == len(names) == len(list((folder / "figures").glob("*.pdf")))
    expected = {"mean_abs_error", "precision", "capacity", "errors_0", "errors_1", "circular_variance"}
    assert names >= {*expected, "circular_kurtosis", "exponent", "p_n", "models", "ranking", "training"}


@pytest.mark.slow
def test_the_numbers_of_the_page_are_those_of_the_tables(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=2)
    for run in sweep.runs:
        finish(folder, run, trials=200)
    page, _ = report(sweep, folder)
    keys = [float(cell["data-sort"] or "nan") for cell in page.all("td") if "data-sort" in cell]
    collected = collect(sweep, folder)
    for value in [*collected.by_row["precision_mean"], *collected.runs["capacity"], *collected.ranking["rms_z"]]:
        assert np.isclose(keys, value, rtol=1e-12).any()
    for row in collected.by_row.itertuples():
        assert any(text.startswith(f"{row.precision_mean:#.3g}".rstrip(".")) for text in page.text("td"))


@pytest.mark.slow
def test_hostile_names_stay_text(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=1)
    named = tuple(replace(run, settings={K: f"{HOSTILE}{i}"}) for i, run in enumerate(sweep.runs))
    for run in named:
        finish(folder, run, trials=60)
    page, _ = report(replace(sweep, runs=named), folder)
    assert len(page.all("script")) == 1
    assert page.all("b") == []
    assert f"{HOSTILE}0" in page.text("td")
    assert any(text.startswith(HOSTILE[:25]) for text in page.text("text"))  # in a figure's legend
    assert "49" not in page.text("td")


def test_a_sweep_without_a_finished_run_has_a_page_of_holes(tmp_path: Path, folder: Path) -> None:
    page, text = report(make_sweep(tmp_path), folder)
    assert [section["id"] for section in page.all("section")] == ["holes", "tables"]
    assert "0 of 6" in page.text("dd")
    assert len(re.findall("never started", text)) == 6


@pytest.mark.slow
def test_a_network_of_one_item_alone_has_a_page(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, set_sizes=[1], grid={}, seeds=1, table=None)
    finish(folder, sweep.runs[0], trials=200)
    page, _ = report(sweep, folder)
    assert "With one item on a trial there is nothing to swap it with." in page.text("p")


@pytest.mark.slow
def test_of_very_many_runs_some_are_looked_at_closely_and_the_page_says_so(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_facts, "_MOST_RUNS", 3)
    sweep = make_sweep(tmp_path)
    for run in sweep.runs:
        finish(folder, run, trials=60)
    page, _ = report(sweep, folder)
    assert "models and training are of 3 of 6 runs, evenly spread over the grid." in page.text("p")[0]
    facts = (folder / "tables" / "cache" / "facts.jsonl").read_text().splitlines()
    chosen = [json.loads(line)["run_id"] for line in facts]
    assert set(chosen) == {sweep.runs[0].run_id, sweep.runs[2].run_id, sweep.runs[5].run_id}


def test_the_command_says_where_the_page_is(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    done = vwm_sweep("report", "demo.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The page: runs/demo/report.html" in done.stdout
    assert f"{len(sweep.runs)} runs missing" in done.stdout
    assert (tmp_path / "runs" / "demo" / "tables" / "runs.csv").exists()


def test_a_learning_curve_is_thinned_and_keeps_its_ends() -> None:
    rows = [{"iteration": i, "mean_abs_error": [1.0, 3.0, None]} for i in range(1, 5001)]
    curve = learning_curve("".join(json.dumps(row) + "\n" for row in rows))
    iterations = [iteration for iteration, _ in curve]
    assert iterations == sorted(set(iterations))
    assert (iterations[0], iterations[-1]) == (1, 5000)
    assert 50 < len(curve) <= 120
    assert {error for _, error in curve} == {2.0}
    assert learning_curve("") == []


def test_a_figure_takes_the_colours_of_its_page() -> None:
    columns = {f"precision_{ending}": [1.0, 2.0, 3.0] for ending in ("mean", "ci_low", "ci_high")}
    table = pd.DataFrame({"row": [0.1, 0.2, 0.3], "set_size": [1, 1, 1], "n_seeds": 3, **columns})
    text = svg(one_measure(table, "precision", "k"), "precision")
    assert "currentColor" in text
    assert "#010203" not in text
    variables = colours([text])
    used = set(re.findall(r"var\((--c[0-9a-f]{6}),", text))
    assert used == set(variables)
    light, dark = variables["--c440154"]  # the first colour of the ordered palette, nearly black
    assert light == "#440154"
    assert sum(bytes.fromhex(dark[1:])) > sum(bytes.fromhex(light[1:])) + 100


@pytest.mark.slow
def test_the_models_are_fitted_to_people_of_a_file_as_well(tmp_path: Path, folder: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=1)
    for run in sweep.runs:
        finish(folder, run, trials=200)
    file = write_people(tmp_path / "<i>people & $1$.csv", 2)
    people = read_people([file], "responder=who,response=answer", "deg")
    page, _ = report(sweep, folder, people)
    cells = page.text("td") + page.text("th")
    assert cells.count(file.name) >= len(MODELS)
    # The errors were drawn from von Mises laws without guesses, with a concentration that falls as 1/n.
    fits = models_of_people(people, lambda done, total: None)[file.name]
    assert set(fits["responder"]) == {"p0", "p1"}
    best = fits.loc[fits.groupby("responder")["bic"].idxmin()]
    assert set(best["model"]) <= {"equal precision", "slots + averaging"}
