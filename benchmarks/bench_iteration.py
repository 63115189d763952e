"""One iteration of training: its time and memory against what a user would otherwise run, and against the machine.

Each row is processes of their own on one core, and times are processor seconds, so that other work on the machine
disturbs as little as it can. An iteration of the published implementation takes several times as long when it waits for
memory, which some iterations do and others do not, in some processes more than in others: so all are measured in turn
some times over, and a row has the median over processes of the mean over iterations, with the least and the most of
these means. "published" is benchmarks/published_loop.py; "tuned" is the same with the settings of malloc that spare it
most page faults; "RNN" is torch.nn.RNN of the same size, steps and trials, which has neither noise, time constants nor
Dale's law; "JAX" is benchmarks/jax_loop.py, where JAX is installed and noise is not gamma. The limit is what the matrix
products, the random variates and the memory of an iteration take at the rates that this machine reaches with each of
them alone. Memory is the most that a process held, the median over processes; "empty" is one that has only imported
torch and made an optimiser of torch's. The table is also written to benchmarks/results/iteration.csv, where rows of
other sizes and noises stay, and a picture of the limit beside it.

Usage: python -m benchmarks.bench_iteration [--units 64 256] [--noise gamma gauss none] [--processes 3] [--repeats 8]
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.jax_loop import jax_iteration
from benchmarks.published_loop import PublishedLoop
from vwm.config import Configuration
from vwm.files import write_atomically
from vwm.model.compiled import compiled
from vwm.model.products import add_products, product_with
from vwm.model.recurrence import _transmit
from vwm.training.iteration import backward
from vwm.training.training_run import TrainingRun
from vwm.training.workers import use_own_device

if TYPE_CHECKING:
    import pandas as pd

TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}
NOISES = ("gamma", "gauss", "none")  # those of published implementations
IMPLEMENTATIONS = ("published", "tuned", "RNN", "JAX", "vwm", "empty")
ON_ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # JAX takes all cores otherwise


def configuration(units: int, noise: str, factor: float = 0.1) -> Configuration:
    """The default task and training with so many units."""
    model: dict[str, object] = {"num_neurons": units, "spike_noise_factor": 0.0 if noise == "none" else factor}
    if noise != "none":
        model["spike_noise_type"] = noise
    return Configuration.model_validate({"model_params": model})


def ours(*settings: Configuration) -> Callable[[], object]:
    """An iteration as the training loop does it, of one run or of some as a pack."""
    device = use_own_device()
    runs = [TrainingRun(each, device) for each in settings]

    def iterate() -> None:
        for run, measured in zip(runs, backward(runs, 0), strict=True):
            run.update(measured, 1)

    return iterate


def published_iteration(settings: Configuration, device: str = "cpu") -> Callable[[], object]:
    """The next iteration of the published loop."""
    return PublishedLoop(settings, device=device).train().__next__


def plain_rnn(settings: Configuration, device: str = "cpu") -> Callable[[], object]:
    """torch.nn.RNN with a linear read-out and a squared loss."""
    model = settings.model_params
    channels = model.input_channels * model.max_item_num
    rnn = torch.nn.RNN(channels, model.num_neurons).to(device)
    readout = torch.nn.Linear(model.num_neurons, 2 * model.max_item_num).to(device)
    optimizer = torch.optim.Adam([*rnn.parameters(), *readout.parameters()])
    inputs = torch.zeros(model.steps, settings.training_params.num_trials, channels, device=device)
    inputs[model.stimulus_steps.start : model.stimulus_steps.stop] = 1.0

    def iterate() -> None:
        states, _ = rnn(inputs)
        loss = readout(states[-model.decode_steps :]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return iterate


def seconds(iterate: Callable[[], object], repeats: int) -> list[float]:
    """Processor seconds of each of some calls."""
    times = []
    for _ in range(repeats):
        before = time.process_time()
        iterate()
        times.append(time.process_time() - before)
    return times


def limit(settings: Configuration, repeats: int) -> dict[str, float]:
    """Seconds for each part of what no implementation can leave out, at the rate that it reaches alone.

    These are the matrix products (for the recurrence one a step forward and one back, and the sum over steps and trials
    for the gradient of the weights, and as many for the read-out), the random variates, and the memory: transmitted
    rates, their slopes and those of the activation are more than a cache holds, and are written once and read once.
    """
    use_own_device()  # Freed memory is kept, as in training,
    torch.set_flush_denormal(True)  # and the smallest numbers are 0.
    model, trials = settings.model_params, settings.training_params.num_trials
    is_noisy = model.spike_noise_factor > 0
    kept = torch.rand(model.steps, 1, trials, model.num_neurons), torch.rand(model.steps, 1, trials, model.num_neurons)
    weights = torch.rand(1, model.num_neurons, model.num_neurons)

    def mean(work: Callable[[], object]) -> float:
        work()
        return statistics.mean(seconds(work, repeats))

    forward, back, heard = product_with(weights.transpose(1, 2)), product_with(weights), kept[0][: model.decode_steps]
    estimates = torch.rand(model.decode_steps, 1, trials, 2 * model.max_item_num)
    readout = torch.rand(1, 2 * model.max_item_num, model.num_neurons)

    def products() -> None:
        for _ in range(model.steps):  # of rates that have just been computed, and so are in a cache
            forward(kept[0][0])
            back(kept[0][0])

    def of_the_readout() -> None:
        torch.matmul(heard, readout.transpose(1, 2), out=estimates)
        torch.matmul(estimates, readout)
        add_products(torch.zeros_like(readout), estimates, heard, compile=False)

    of_recurrence = mean(products) + mean(lambda: add_products(torch.zeros_like(weights), *kept, compile=True))
    parts = {
        "products": of_recurrence + mean(of_the_readout),
        "variates": 0.0,
        "traffic": (3 if is_noisy else 2) * mean(lambda: kept[0].copy_(kept[1])),
    }
    if is_noisy:
        arrays = (kept[0][0], torch.zeros(1, 2, dtype=torch.int32), torch.ones(1, 1, 1), kept[1][0], kept[1][1])
        draw = compiled(_transmit, (model.spike_noise_type,), arrays, True)

        def transmit() -> None:
            for _ in range(model.steps + model.decode_steps):
                draw(*arrays)

        parts["variates"] = mean(transmit)
    return parts


def measure(name: str, units: int, noise: str, repeats: int) -> dict[str, float]:
    """What one implementation takes; runs in a process of its own."""
    torch.set_num_threads(1)
    settings = configuration(units, noise)
    if name == "empty":
        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
        return {"seconds": 0.0, "first": 0.0, "memory": memory()}
    if name == "limit":
        parts = limit(settings, repeats)
        return {"seconds": sum(parts.values()), "first": 0.0, "memory": 0.0, **parts}
    start = time.perf_counter()
    iterate = {
        "published": lambda: published_iteration(settings),
        "tuned": lambda: published_iteration(settings),
        "RNN": lambda: plain_rnn(settings),
        "JAX": lambda: jax_iteration(settings),
        "vwm": lambda: ours(settings),
    }[name]()
    iterate()
    first = time.perf_counter() - start
    iterate()
    return {"seconds": statistics.mean(seconds(iterate, repeats)), "first": first, "memory": memory()}


def memory() -> float:
    """The most that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_a_process(name: str, units: int, noise: str, repeats: int) -> dict[str, float]:
    """`measure` in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": ON_ONE_CORE}
    environment |= TUNED if name == "tuned" else {}
    command = [sys.executable, "-m", "benchmarks.bench_iteration", "--one", name]
    command += ["--units", str(units), "--noise", noise, "--repeats", str(repeats)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each column, and of the seconds also the smallest and the largest."""
    seconds_each = [row["seconds"] for row in rows]
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return {**middle, "least": min(seconds_each), "most": max(seconds_each)}


def write(table: "pd.DataFrame", path: Path) -> None:
    """Write the table, with the rows of sizes and noises that are in the file and not in the table."""
    import pandas as pd

    if path.exists():
        before = pd.read_csv(path)
        of = ["units", "noise"]
        is_new = before.set_index(of).index.isin(table.set_index(of).index)
        table = pd.concat([before[~is_new], table])
    order = table["noise"].map(NOISES.index)
    table = table.assign(order=order).sort_values(["units", "order"], kind="stable").drop(columns="order")
    write_atomically(path, table.to_csv(index=False))


def draw(results: Path) -> None:
    """What vwm takes, with the parts of the limit in it, a bar for each noise."""
    import pandas as pd
    from matplotlib.patches import Patch

    from vwm.behaviour.figures import DISTINCT_COLOURS, new_figure, style

    table = pd.read_csv(results / "iteration.csv")
    colours = (*DISTINCT_COLOURS[:3], "0.8")
    with style():
        figure = new_figure(9, 2.6)
        panels = figure.subplots(1, table["units"].nunique(), squeeze=False)[0]
        for axes, (units, rows) in zip(panels, table.groupby("units"), strict=True):
            noises = list(dict.fromkeys(rows["noise"]))
            for place, noise in enumerate(noises):
                each = rows[rows["noise"] == noise].set_index("implementation")
                ours = each["seconds"]["vwm"]
                parts = [each[part]["limit"] for part in ("products", "variates", "traffic")]
                left = 0.0
                for part, colour in zip([*parts, ours - sum(parts)], colours, strict=True):
                    axes.barh(place, 1000 * part, left=1000 * left, color=colour, height=0.6)
                    left += part
                ratio = each["seconds"]["published"] / ours
                axes.text(1020 * ours, place, f"published: {ratio:.0f} times", va="center", fontsize=8)
            axes.set_yticks(range(len(noises)), [noise.replace("none", "no noise") for noise in noises])
            axes.invert_yaxis()
            widest = rows[rows["implementation"] == "vwm"]["seconds"].max()
            axes.set(xlabel="ms an iteration", title=f"N = {units}", xlim=(0, 1000 * 1.45 * widest))
        names = ("matrix products", "random variates", "memory traffic", "the rest")
        handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
        figure.savefig(results / "iteration.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--noise", nargs="+", choices=NOISES, default=NOISES)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=8, help="iterations that each is timed for, of 256 units")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.units[0], given.noise[0], given.repeats)))
        return
    import pandas as pd  # not above, where it would count as memory of the processes that are measured

    print(f"torch {torch.__version__}, one core; processor seconds an iteration of 512 trials × 202 steps")
    has_jax = importlib.util.find_spec("jax") is not None
    if not has_jax:
        print("JAX is not installed here, so its rows are left out; `pip install jax` adds them.")
    print(f"{'':16}{'seconds':>9}{'least':>9}{'most':>9}{'× vwm':>8}{'GiB':>7}{'first s':>9}")
    table: list[dict[str, object]] = []
    for units in given.units:
        for noise in given.noise:
            # JAX's gamma variates take it most of a minute an iteration.
            with_jax = has_jax and noise != "gamma"
            names = [name for name in (*IMPLEMENTATIONS, "limit") if with_jax or name != "JAX"]
            # Waits for memory come and go, so small networks, whose iterations are short, are timed for more of them.
            repeats = max(1, given.repeats * 256 // units)
            in_a_process("vwm", units, noise, 1)  # compiles, as the first run of a sweep does for the others
            each = [{name: in_a_process(name, units, noise, repeats) for name in names} for _ in range(given.processes)]
            rows = {name: medians([measured[name] for measured in each]) for name in names}
            print(f"N {units}, {noise}")
            for name, row in rows.items():
                ratio = row["seconds"] / rows["vwm"]["seconds"]
                rest = "" if name == "limit" else f"{row['memory']:7.2f}{row['first']:9.1f}"
                times = "".join(f"{row[which]:9.3f}" for which in ("seconds", "least", "most"))
                print(f"  {name:14}{times}{ratio:8.2f}{rest}", flush=True)
                table.append({"units": units, "noise": noise, "implementation": name, **row})
            given.results.mkdir(parents=True, exist_ok=True)
            write(pd.DataFrame(table).assign(torch=torch.__version__).round(4), given.results / "iteration.csv")
    draw(given.results)


if __name__ == "__main__":
    main()
