"""Do two values of one parameter make networks learn differently? Tables and tests of docs/speed.md and results.md.

Runs of a sweep that differ in nothing but that parameter are a pair: same seed, same start. A run is called stalled
where its mean |error| over set sizes is above 1.45 rad; chance is 1.57.

Usage: python -m benchmarks.compare_pairs runs/gamma_sampler_n64 model_params.gamma_sampler [--set-sizes 1 2 4 8 10]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

STALLED = 1.45  # radians


def results(folder: Path, parameter: str) -> tuple[list[Any], list[list[dict[str, Any]]]]:
    """The two values, and for each the results of its runs, in the order of the other's."""
    section, name = parameter.split(".")
    pairs: dict[str, dict[Any, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/result.json")):
        configuration = yaml.safe_load((path.parent / "config.yaml").read_text())
        value = configuration[section].pop(name)
        pairs.setdefault(json.dumps(configuration, sort_keys=True), {})[value] = json.loads(path.read_text())
    values = sorted({value for pair in pairs.values() for value in pair})
    if len(values) != 2:
        raise SystemExit(f"{folder}: runs with two values of {parameter} are compared; here it has {values}")
    whole = [pairs[key] for key in sorted(pairs) if len(pairs[key]) == 2]
    if len(whole) < len(pairs):
        print(f"{len(pairs) - len(whole)} runs are left out: the other one of their pair has no result yet.\n")
    return values, [[pair[value] for pair in whole] for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parameter")
    parser.add_argument("--set-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 10])
    given = parser.parse_args()
    values, runs = results(given.folder, given.parameter)
    sizes = runs[0][0]["set_size"]
    shown = [sizes.index(size) for size in given.set_sizes if size in sizes]
    errors = np.array([[run["mean_abs_error"] for run in each] for each in runs])  # [values, pairs, set sizes]
    rates = np.array([[np.mean(run["mean_rate"]) for run in each] for each in runs])
    means = errors.mean(2)

    print(f"| | {' | '.join(f'n = {sizes[at]}' for at in shown)} | stalled runs | highest rate (Hz) |")
    print("|---" * (len(shown) + 3) + "|")
    for value, error, mean, rate in zip(values, errors, means, rates, strict=True):
        cells = [f"{error[:, at].mean():.2f} ({error[:, at].std(ddof=1):.2f})" for at in shown]
        print(f"| {value} | {' | '.join(cells)} | {(mean > STALLED).sum()} of {len(mean)} | {rate.max():.1f} |")

    one, other = means
    difference = one - other
    t_test, signed_rank = stats.ttest_rel(one, other).pvalue, stats.wilcoxon(difference).pvalue
    each = [stats.wilcoxon(errors[0, :, at], errors[1, :, at]).pvalue for at in range(len(sizes))]
    stalled = (means > STALLED).sum(1)
    fisher = stats.fisher_exact(np.array([stalled, len(one) - stalled])).pvalue
    print(f"\n{len(difference)} pairs, mean |error| over set sizes, {values[0]} − {values[1]}:")
    print(f"  mean {difference.mean():.4f} rad, SD {difference.std(ddof=1):.4f}, lower in {(difference < 0).sum()}")
    print(f"  paired t test p = {t_test:.3f}, Wilcoxon p = {signed_rank:.3f}, at one set size {min(each):.3f} or more")
    print(
        f"  correlation over pairs {np.corrcoef(one, other)[0, 1]:.3f}; stalled: Fisher's exact test p = {fisher:.2f}"
    )


if __name__ == "__main__":
    main()
