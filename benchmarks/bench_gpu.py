"""One iteration of training on a GPU: its time and memory against what a user would otherwise run, and packs.

Wall-clock times with the GPU waited for, medians, all in one process on one card, whose name stands in the table.
"published" is benchmarks/published_loop.py, "RNN" torch.nn.RNN of the same size (which has neither noise, time
constants nor Dale's law), "JAX" benchmarks/jax_loop.py where JAX is installed. "steps" is this project's recurrence
with a few kernels for each step, "kernel" with one for all of them, and "recorded" means that the iteration is replayed
as a CUDA graph. The tables and a plot go to benchmarks/results/gpu*.

Usage: python -m benchmarks.bench_gpu [--units 64 256] [--noise gamma none] [--pack-units 64] [--members 1 16]
"""

import argparse
import datetime
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from matplotlib.ticker import LogLocator

from benchmarks.bench_iteration import NOISES, configuration, plain_rnn, published_iteration
from benchmarks.jax_loop import jax_iteration
from vwm.behaviour.figures import DISTINCT_COLOURS, new_figure, style
from vwm.config import Configuration
from vwm.files import write_atomically
from vwm.model import recurrence
from vwm.model.recurrence import POOL
from vwm.training.batches import Batches
from vwm.training.pack_speed import iterate
from vwm.training.training_run import TrainingRun
from vwm.training.workers import Workers

RESULTS = Path(__file__).with_name("results")
TOGETHER = 25  # recorded iterations, which are launched ahead of their results
OURS = ("steps", "steps, recorded", "kernel", "kernel, recorded")


def runs_of(settings: Configuration, members: int) -> list[TrainingRun]:
    """Some runs that differ in their seeds."""
    training = settings.training_params
    return [
        TrainingRun(
            settings.model_copy(update={"training_params": training.model_copy(update={"seed": seed})}),
            torch.device("cuda"),
        )
        for seed in range(members)
    ]


def ours(settings: Configuration, members: int, way: str) -> Callable[[int], int]:
    """Iterations of a pack in one of four ways; how many all its networks have done comes back."""
    runs, batches = runs_of(settings, members), Batches(Workers())
    batches._may_record = way.endswith("recorded")
    return partial(iterate, runs, batches)


def others(name: str, settings: Configuration) -> Callable[[int], int]:
    """Iterations of what a user would otherwise run."""
    iterate_once = OTHERS[name](settings)

    def iterate_often(count: int) -> int:
        for _ in range(count):
            iterate_once()
        return count

    return iterate_often


OTHERS: dict[str, Callable[[Configuration], Callable[[], object]]] = {
    "published": partial(published_iteration, device="cuda"),
    "RNN": partial(plain_rnn, device="cuda"),
    "JAX": jax_iteration,
}


def measure(
    make: Callable[[], Callable[[int], int]], repeats: int, together: int, members: int = 1
) -> dict[str, float]:
    """Milliseconds and peak memory of an iteration, and seconds until the third, which holds all that is done once.

    It is an iteration of all members of a pack. The GPU is waited for after so many iterations as are timed together.
    """
    POOL.clear()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    iterate_often = make()
    iterate_often(3)
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        done = iterate_often(together)
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - before) * members / done)
    return {"ms": statistics.median(times), "GiB": torch.cuda.max_memory_allocated() / 2**30, "first_s": first}


def in_way(way: str) -> AbstractContextManager[object]:
    """The recurrence with or without its kernel, whatever it would choose."""
    is_kernel = way.startswith("kernel")
    return mock.patch.object(recurrence, "has_kernel", return_value=is_kernel)


def iterations(units: list[int], noises: list[str], repeats: int) -> Iterator[dict[str, object]]:
    """Every implementation at every size and noise, a row of the table each."""
    names = [name for name in (*OTHERS, *OURS) if name != "JAX" or importlib.util.find_spec("jax")]
    for noise, n in itertools.product(noises, units):
        settings = configuration(n, noise)
        found: dict[str, dict[str, float]] = {}
        for name in names:
            few = min(repeats, 5) if name == "published" else repeats
            with in_way(name):
                make = partial(others, name, settings) if name in OTHERS else partial(ours, settings, 1, name)
                found[name] = measure(make, few, TOGETHER if name.endswith("recorded") else 1)
        print(f"N {n}, {noise}")
        for name, row in found.items():
            ratio = row["ms"] / found["kernel, recorded"]["ms"]
            print(
                f"  {name:18}{row['ms']:9.2f} ms{ratio:8.2f} ×{row['GiB']:7.2f} GiB{row['first_s']:7.1f} s", flush=True
            )
            yield {"units": n, "noise": noise, "implementation": name, **row, "ratio": ratio}


def packs(units: list[int], members: list[int], repeats: int) -> Iterator[dict[str, object]]:
    """A pack of networks with gamma noise: how many iterations of a network a second there are in all."""
    for n in units:
        alone = None
        for count in members:
            row = measure(partial(ours, configuration(n, "gamma"), count, "recorded"), min(repeats, 3), TOGETHER, count)
            speed = 1000 * count / row["ms"]
            alone = alone or speed
            print(
                f"N {n}, {count:3} networks{row['ms']:9.2f} ms{speed:9.0f} iterations/s{speed / alone:7.2f} ×"
                f"{row['GiB']:7.2f} GiB",
                flush=True,
            )
            yield {"units": n, "members": count, **row, "iterations_per_s": speed, "gain": speed / alone}


def draw(results: Path) -> None:
    """Time against units, and what packs do in all, from the two tables."""
    alone, together = pd.read_csv(results / "gpu.csv"), pd.read_csv(results / "gpu_packs.csv")
    with style():
        figure = new_figure(9, 3.6)
        left, right = figure.subplots(1, 2)
        gamma = alone[alone["noise"] == "gamma"]
        for index, name in enumerate(("published", "JAX", "steps, recorded", "kernel, recorded")):
            rows = gamma[gamma["implementation"] == name]
            left.plot(rows["units"], rows["ms"], marker="osD^"[index], color=DISTINCT_COLOURS[index], label=name)
        left.set_ylabel("ms an iteration")
        for index, (units, rows) in enumerate(together.groupby("units")):
            colour, marker = DISTINCT_COLOURS[index], "os"[index]
            right.plot(rows["members"], rows["iterations_per_s"], marker=marker, color=colour, label=f"N = {units}")
        right.set_ylabel("iterations per second, all networks")
        for axes, label, values in (
            (left, "units", gamma["units"]),
            (right, "networks in a pack", together["members"]),
        ):
            axes.set(xscale="log", yscale="log", xlabel=label)
            axes.set_xticks(sorted(set(values)), [str(value) for value in sorted(set(values))])
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.legend(frameon=False)
        left.set_title("one network, gamma noise")
        right.set_title("packs, gamma noise")
        figure.savefig(results / "gpu.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--noise", nargs="+", choices=NOISES, default=NOISES)
    parser.add_argument("--pack-units", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no GPU here: torch.cuda.is_available() is False")
    card = torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}; an iteration of 512 trials × 202 steps, medians")
    given.results.mkdir(exist_ok=True)
    for name, rows in (
        ("gpu_packs", packs(given.pack_units, given.members, given.repeats)),
        ("gpu", iterations(given.units, given.noise, given.repeats)),
    ):
        table: list[dict[str, object]] = []
        for row in rows:
            table.append(row)
            frame = pd.DataFrame(table).round(3).assign(card=card, torch=torch.__version__, date=datetime.date.today())
            write_atomically(given.results / f"{name}.csv", frame.to_csv(index=False))
    draw(given.results)


if __name__ == "__main__":
    main()
