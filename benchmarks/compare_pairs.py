"""Do two values of one parameter make networks learn differently? Tables and tests of docs/speed.md and results.md.

Runs of one seed with either value are a pair: they start from the same network. Given the folder with the runs of the
sweep, keeps what is shown of them in benchmarks/results; without it begins from that file. A run is called stalled
where its mean |error| over set sizes is above 1.45 rad; chance is 1.57.

Usage: python -m benchmarks.compare_pairs sweeps/gamma_sampler_n64.yaml [runs/gamma_sampler_n64]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.whole_trainings import radians
from vwm.files import write_atomically
from vwm.sweep.grid import Sweep, read_sweep

STALLED = 1.45  # radians
SIZES_OF_MANY = ("1", "2", "4", "8", "10")  # that are shown where there are more than these


def table_of(sweep: Path) -> Path:
    """Where the runs of a sweep are kept: a row a run, mean |error| in radians by set size."""
    return Path(__file__).with_name("results") / f"{sweep.stem}.csv"


def read_runs(sweep: Sweep, folder: Path) -> pd.DataFrame:
    """The pairs of which both runs are finished."""
    points = {tuple(map(str, run.settings.values())) for run in sweep.runs}
    if len(sweep.axes) != 1 or len(points) != 2:
        shape = f"{len(points)} points of {', '.join(sweep.axes)}"
        raise SystemExit(f"{sweep.name}: a grid of one parameter with two values is compared; this has {shape}.")
    rows = []
    for run in sweep.runs:
        path = folder / run.run_id / "result.json"
        if path.exists():
            result = json.loads(path.read_text())
            errors = dict(zip(map(str, result["set_size"]), result["mean_abs_error"], strict=True))
            value, rate = run.settings[sweep.axes[0]], np.mean(result["mean_rate"])
            rows.append({"value": value, "seed": run.seed, "rate": rate, **errors})
    table = pd.DataFrame(rows, columns=None if rows else ["value", "seed"])
    whole = table[table.groupby("seed")["value"].transform("nunique") == 2]
    left_out = len(sweep.runs) - len(whole)
    if left_out:
        print(f"{left_out} runs are left out: they, or the other one of the pair, have no result.\n")
    if whole.empty:
        raise SystemExit(f"{folder}: no pair of {sweep.name} is finished. Train it: vwm-sweep launch.")
    return whole.sort_values(["value", "seed"])


def errors_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean |error| of the runs with one value, seeds in rows and set sizes in columns."""
    return rows.set_index("seed").drop(columns=["value", "rate"])


def summary(table: pd.DataFrame) -> list[str]:
    """Mean (SD over seeds) by set size, as lines of Markdown."""
    sizes = list(table.columns.drop(["value", "seed", "rate"]))
    shown = sizes if len(sizes) <= len(SIZES_OF_MANY) else list(SIZES_OF_MANY)
    lines = [
        f"| | n = {' | '.join(shown)} | stalled runs | highest rate at the end (Hz) |",
        "|---" * (len(shown) + 3) + "|",
    ]
    for value, rows in table.groupby("value"):
        errors = errors_of(rows)
        cells = [f"{radians(errors[size].mean())} ({radians(errors[size].std())})" for size in shown]
        stalled = (errors.mean(axis=1) > STALLED).sum()
        lines.append(f"| {_name(value)} | {' | '.join(cells)} | {stalled} of {len(rows)} | {rows['rate'].max():.1f} |")
    return lines


def by_seed(table: pd.DataFrame) -> list[str]:
    """Mean |error| over set sizes of every run, equal starts below each other, as lines of Markdown."""
    seeds = sorted(set(table["seed"]))
    lines = [f"| seed | {' | '.join(map(str, seeds))} | mean (SD) |", "|---" * (len(seeds) + 2) + "|"]
    for value, rows in table.groupby("value"):
        means = errors_of(rows).mean(axis=1)
        *each, mean, spread = (f"{number:.2f}".removeprefix("0") for number in [*means, means.mean(), means.std()])
        lines.append(f"| {_name(value)} | {' | '.join(each)} | {mean} ({spread}) |")
    return lines


def difference(table: pd.DataFrame) -> str:
    """Whether the two values differ, in a sentence."""
    (one_name, one_rows), (other_name, other_rows) = table.groupby("value")
    one, other = errors_of(one_rows), errors_of(other_rows)
    one_means, other_means = one.mean(axis=1), other.mean(axis=1)
    less = one_means - other_means
    stalled = np.array([(one_means > STALLED).sum(), (other_means > STALLED).sum()])
    t_test, signed_rank = stats.ttest_rel(one_means, other_means), stats.wilcoxon(less)
    at_sizes = min(float(stats.wilcoxon(one[size], other[size]).pvalue) for size in one.columns)
    mean = ("−" if less.mean() < 0 else "") + radians(abs(less.mean()))
    correlation = np.corrcoef(one_means, other_means)[0, 1]
    fisher = stats.fisher_exact(np.array([stalled, len(one) - stalled]))
    return (
        f"Mean over set sizes, {_name(one_name)} − {_name(other_name)}: {mean} rad (SD {radians(less.std())}), lower "
        f"in {(less < 0).sum()} of {len(less)} pairs; paired t test {_p(t_test)}, Wilcoxon {_p(signed_rank)}, "
        f"at no set size below {radians(at_sizes)}; correlation over pairs {radians(correlation)}; "
        f"stalled runs: Fisher's exact test {_p(fisher)}."
    )


def _name(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _p(test: Any) -> str:
    return f"p = {radians(test.pvalue)}" if test.pvalue >= 0.001 else "p < .001"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args()
    if given.folder is not None:
        new = read_runs(read_sweep(given.sweep), given.folder)
        write_atomically(table_of(given.sweep), new.round(4).to_csv(index=False))
    table = pd.read_csv(table_of(given.sweep))
    print("\n".join([*summary(table), "", *by_seed(table), "", difference(table)]))


if __name__ == "__main__":
    main()
