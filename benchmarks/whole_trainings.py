"""The published network trained to early stopping: tables and figure of docs/results.md.

Reads the runs of sweeps/whole_trainings.yaml (on a GPU) or sweeps/published_n64.yaml (on a CPU), keeps what is shown of
each in benchmarks/results, prints the tables of both and draws docs/whole_trainings.png. Without folders it begins from
what is kept.

Usage: python -m benchmarks.whole_trainings [runs/whole_trainings] [runs/published_n64]
"""

import argparse
import json
import math
from pathlib import Path

import pandas as pd
import yaml

from vwm.behaviour.figures import DISTINCT_COLOURS, new_figure, style
from vwm.files import write_atomically

RESULTS = Path(__file__).with_name("results")
TABLE, TABLE_OF_A_CPU = RESULTS / "whole_trainings.csv", RESULTS / "published_n64.csv"
FIGURE = Path(__file__).parents[1] / "docs" / "whole_trainings.png"
SIZES = range(1, 11)
ERRORS = [f"error_{size}" for size in SIZES]  # mean |error|, radians
PUBLISHED = (0.169, 0.284, 0.384, 0.467, 0.548, 0.611, 0.669, 0.722, 0.769, 0.818)
HAS_LEARNT = 1.3  # mean |error| over set sizes, radians; chance is π/2


def row(folder: Path) -> dict[str, object]:
    """What is shown of a run."""
    training = yaml.safe_load((folder / "config.yaml").read_text())["training_params"]
    result = json.loads((folder / "result.json").read_text())
    rates = [json.loads(line)["mean_rate"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert result["set_size"] == list(SIZES)
    return {
        "limit": training["gradient_clipping"],
        "products": training["matmul_precision"],
        "seed": training["seed"],
        "iterations": result["iterations"],
        "ended_by": result["ended_by"],
        "rate": rates[-1],
        "highest_rate": max(rates),
        **dict(zip(ERRORS, result["mean_abs_error"], strict=True)),
    }


def summary(table: pd.DataFrame) -> list[str]:
    """Means over the runs of each kind that have learnt, as lines of Markdown."""
    lines = [
        f"| | learnt | iterations | rate (Hz) | n = 1 | {' | '.join(map(str, SIZES[1:]))} |",
        "|---" * (len(SIZES) + 4) + "|",
        f"| published | | 11,650 | 10.8 | {' | '.join(map(radians, PUBLISHED))} |",
    ]
    for (limit, products), rows in table.groupby(["limit", "products"]):
        learnt = rows[rows[ERRORS].mean(axis=1) < HAS_LEARNT]
        name = f"{f'limit {limit:g}' if limit else 'no limit'}, {products}"
        cells = [
            f"{len(learnt)} of {len(rows)}",
            f"{learnt['iterations'].median():,.0f}",
            f"{learnt['rate'].mean():.1f}",
            *(radians(value) for value in learnt[ERRORS].mean()),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def by_seed(table: pd.DataFrame) -> list[str]:
    """Mean |error| over set sizes of every run, as lines of Markdown."""
    means = table.assign(mean=table[ERRORS].mean(axis=1))
    seeds = sorted(set(table["seed"]))
    lines = [f"| seed | {' | '.join(map(str, seeds))} |", "|---" * (len(seeds) + 1) + "|"]
    for (limit, products), rows in means.groupby(["limit", "products"]):
        values = rows.set_index("seed")["mean"]
        name = f"{f'limit {limit:g}' if limit else 'no limit'}, {products}"
        lines.append(f"| {name} | {' | '.join(f'{values[seed]:.2f}'.removeprefix('0') for seed in seeds)} |")
    return lines


def each(table: pd.DataFrame) -> list[str]:
    """Every run, as lines of Markdown."""
    lines = [
        f"| seed | iterations | rate (Hz) | n = 1 | {' | '.join(map(str, SIZES[1:]))} |",
        "|---" * (len(SIZES) + 3) + "|",
    ]
    for seed, iterations, rate, *errors in table[["seed", "iterations", "rate", *ERRORS]].itertuples(index=False):
        lines.append(f"| {seed} | {iterations:,} | {rate:.1f} | {' | '.join(map(radians, errors))} |")
    return lines


def radians(value: float) -> str:
    """As the tables of this project write an error."""
    return f"{value:.3f}".removeprefix("0")


def draw(table: pd.DataFrame) -> None:
    """Error against set size, a line a run, beside the published network."""
    with style():
        figure = new_figure(8, 3.4)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, limit, title in ((left, 0, "no limit to the gradient"), (right, 1, "gradient limited to length 1")):
            for index, products in enumerate(("float32", "tf32")):
                rows = table[(table["limit"] == limit) & (table["products"] == products)]
                label = f"{len(rows)} seeds, {products} products"
                for number, errors in enumerate(rows[ERRORS].to_numpy()):
                    axes.plot(
                        SIZES,
                        errors,
                        color=DISTINCT_COLOURS[index],
                        linestyle=("-", ":")[index],
                        linewidth=1.0,
                        label=None if number else label,
                    )
            axes.plot(SIZES, PUBLISHED, "ko-", markersize=4, linewidth=1.5, label="published")
            axes.axhline(math.pi / 2, color="grey", linestyle="--", linewidth=0.8)
            axes.text(10, math.pi / 2 + 0.02, "chance", ha="right", va="bottom", color="grey", fontsize=8)
            axes.set(xlabel="set size", title=title, ylim=(0, 1.75), xticks=[1, 2, 4, 6, 8, 10])
        left.set_ylabel("mean |error| (rad)")
        right.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.88))
        figure.savefig(FIGURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="*")
    for folder in parser.parse_args().folder:
        kept = {path.stem: path for path in (TABLE, TABLE_OF_A_CPU)}.get(folder.resolve().name)
        results = list(folder.glob("*/result.json"))
        if kept is None or not results:
            parser.error(f"{folder}: no folder of a trained whole_trainings or published_n64. Launch that sweep first.")
        new = pd.DataFrame([row(path.parent) for path in results]).sort_values(["limit", "products", "seed"])
        write_atomically(kept, new.round(4).to_csv(index=False))
    table = pd.read_csv(TABLE)
    print("\n".join([*summary(table), "", *by_seed(table), "", *each(pd.read_csv(TABLE_OF_A_CPU))]))
    draw(table)


if __name__ == "__main__":
    main()
