"""Train sweeps/quick.yaml with five seeds and write what it gives into README.md and docs/results.md.

About nine minutes on two cores: ``python -m benchmarks.quick_results FOLDER``. Interrupted, the same command goes on.
Tables are put between the comments that name them; the sentences around them are to be read again by a person.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from vwm.behaviour.human import SUMMARIES
from vwm.files import write_atomically

ROOT = Path(__file__).parents[1]
SEEDS = 5
NOISE = "model_params.spike_noise_factor"
WINDOW = 140  # iterations
MOMENTS = (140, 420, 700, 980, 1260, 1500)
PEOPLE = "Oberauer & Lin 2017"
MINUS = "−"

# measure → heading, digits behind the point
MEASURES = {
    "mean_abs_error": (r"mean \|error\| (rad)", 3),
    "precision": ("precision (1/rad)", 2),
    "circular_variance": ("variance (rad²)", 3),
    "circular_kurtosis": ("kurtosis", 1),
    "capacity": ("K (items)", 2),
    "sd": ("SD (rad)", 3),
    "p_n": ("p_n", 3),
}
AT_FOUR = {
    "mean_abs_error": (r"mean \|error\| (rad)", 2),
    "precision": ("precision (1/rad)", 1),
    "circular_variance": ("variance (rad²)", 2),
    "circular_kurtosis": ("kurtosis", 1),
    "capacity": ("capacity K", 1),
    "p_n": ("swap rate", 2),
}


def main() -> None:
    place = Path(sys.argv[1]).resolve()
    place.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_load((ROOT / "sweeps" / "quick.yaml").read_text())
    for name in ("base", "launch"):
        content[name] = str(ROOT / "sweeps" / content[name])
    (place / "quick.yaml").write_text(yaml.safe_dump({**content, "seeds": SEEDS}))
    for command in ("launch", "collect"):
        program = [sys.executable, "-c", "from vwm.cli.sweep import main; main()", command, "quick.yaml"]
        subprocess.run(program, cwd=place, check=True)
    runs = place / "runs" / "quick"
    networks = pd.read_csv(runs / "tables" / "by_set_size.csv").sort_values([NOISE, "set_size"])
    assert (networks["n_seeds"] == SEEDS).all(), "a run is missing"
    insert(ROOT / "README.md", "at four items", at_four(networks))
    insert(ROOT / "docs" / "results.md", "networks and people", beside_people(networks))
    insert(ROOT / "docs" / "results.md", "closeness", closeness(pd.read_csv(runs / "tables" / "ranking.csv")))
    insert(ROOT / "docs" / "results.md", "learning", learning(pd.read_csv(runs / "tables" / "runs.csv"), runs))
    shutil.copyfile(runs / "tables" / "set_size.png", ROOT / "docs" / "quick.png")


def insert(file: Path, name: str, table: list[list[str]]) -> None:
    """Put a table, its heading first, between ``<!-- name -->`` and ``<!-- end -->``."""
    heading, *rows = (f"| {' | '.join(cells)} |" for cells in table)
    rule = "|" + "---|" * len(table[0])
    before, begin, rest = file.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition("<!-- end -->\n")
    assert all((begin, end)), f"{file} has no place for {name}"
    write_atomically(file, before + begin + "\n".join([heading, rule, *rows]) + "\n" + end + after)


def number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def with_interval(row: "pd.Series[float]", measure: str, digits: int) -> str:
    mean, low, high = (row[f"{measure}_{part}"] for part in ("mean", "ci_low", "ci_high"))
    if measure == "p_n" or np.isnan(mean):
        return number(mean, digits)
    return f"{number(mean, digits)} [{number(low, digits)}, {number(high, digits)}]"


def of_people(source: str, set_size: int, measure: str, digits: int) -> str:
    found = SUMMARIES.query("source == @source and set_size == @set_size and measure == @measure")
    if found.empty:
        return "–"
    mean, error = found["mean"].item(), found["se"].item()
    return number(mean, digits) + ("" if np.isnan(error) else f" ± {number(error, digits)}")


def at_four(networks: pd.DataFrame) -> list[list[str]]:
    table = [["", *(heading for heading, _ in AT_FOUR.values())]]
    for _, row in networks[networks["set_size"] == 4].iterrows():
        table.append([f"k = {row[NOISE]:g}", *(with_interval(row, m, digits) for m, (_, digits) in AT_FOUR.items())])
    return [*table, ["people", *(of_people(PEOPLE, 4, m, digits) for m, (_, digits) in AT_FOUR.items())]]


def beside_people(networks: pd.DataFrame) -> list[list[str]]:
    table = [["", "set size", *(heading for heading, _ in MEASURES.values())]]
    for _, row in networks.iterrows():
        name = f"k = {row[NOISE]:g}" if row["set_size"] == 1 else ""
        cells = [with_interval(row, measure, digits) for measure, (_, digits) in MEASURES.items()]
        table.append([name, f"{row['set_size']:.0f}", *cells])
    for source in (PEOPLE, "Bays 2014"):
        sizes = sorted(set(SUMMARIES.query("source == @source and set_size <= 4")["set_size"]))
        for place, size in enumerate(sizes):
            cells = [of_people(source, size, measure, digits) for measure, (_, digits) in MEASURES.items()]
            table.append([source if place == 0 else "", str(size), *cells])
    return table


def closeness(ranking: pd.DataFrame) -> list[list[str]]:
    wide = ranking.pivot_table(index=NOISE, columns="source", values="rms_z")
    closest = wide.min().sort_values().index
    wide = wide[closest].sort_values(str(closest[0]))
    rows = [[f"k = {noise:g}", *(number(value, 1) for value in values)] for noise, values in wide.iterrows()]
    return [["", *map(str, wide.columns)], *rows]


def learning(runs: pd.DataFrame, folder: Path) -> list[list[str]]:
    """Mean |error| over seeds and the windows before each moment, by set size."""
    factors = sorted(set(runs[NOISE]))
    columns = []
    for factor in factors:
        of_seeds = []
        for run_id in runs[runs[NOISE] == factor]["run_id"].unique():
            lines = (folder / run_id / "history.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            of_seeds.append(
                [
                    np.mean([r["mean_abs_error"] for r in rows if end - WINDOW < r["iteration"] <= end], axis=0)
                    for end in MOMENTS
                ]
            )
        columns.append(np.mean(of_seeds, axis=0))
    cells = [[" ".join(f"{error:.3f}".lstrip("0") for error in at) for at in column] for column in columns]
    heading = ["iteration", *(f"k = {factor:g}" for factor in factors)]
    heading[1] += ": n = 1, 2, 3, 4"
    falls = all((np.diff(column, axis=0) < 0).all() for column in columns)
    rises = all((np.diff(column, axis=1) > 0).all() for column in columns)
    print(f"The error falls with training in every window: {falls}; rises with set size in every window: {rises}.")
    return [heading, *([str(moment), *row] for moment, row in zip(MOMENTS, zip(*cells, strict=True), strict=True))]


if __name__ == "__main__":
    main()
