"""How an iteration of training scales: with units, trials, steps, networks in one batch, processes; and how it starts.

One core for each process, times in processor seconds, medians; N 64 and gamma noise, 512 trials × 202 steps, unless the
row says otherwise. "limit" is as in bench_iteration; "denormal" 1 keeps numbers below 1e-38, which training takes as 0.
The first iteration (with nothing compiled before, and with all) and processes that share 512 trials are timed by the
clock. The table is also written to benchmarks/results/scaling.csv, and drawn beside it.

Usage: python -m benchmarks.bench_scaling [--repeats 5]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.bench_iteration import limit, ours, seconds
from vwm.config import Configuration
from vwm.files import write_atomically

RESULTS = Path(__file__).with_name("results")
UNITS = (32, 64, 128, 256, 512, 1024)
TRIALS = (64, 128, 256, 512, 1024, 2048)
DELAYS_MS = (0, 500, 1000, 2000, 4000)  # 102 to 502 steps
MEMBERS = (1, 2, 4, 8)
DENORMAL = (0, 1)  # Numbers below 1e-38 are 0, as in training, or kept.
PROCESSES = (1, 2)
ITERATIONS_OF_A_ROW, ROWS = 20, 3  # of the history, in which processes are timed
FIELDS = {"units": "num_neurons", "delay": "T_delay"}  # of model_params
LABELS = {"units": "units", "trials": "trials", "delay": "steps of a trial", "members": "networks in one batch"}


def configuration(kind: str, value: int, **training: Any) -> Configuration:
    """The default task at N 64 with one thing changed."""
    model: dict[str, object] = {"num_neurons": 64, "spike_noise_factor": 0.1}
    if kind in FIELDS:
        model[FIELDS[kind]] = value
    if kind == "trials":
        training["num_trials"] = value
    return Configuration.model_validate({"model_params": model, "training_params": training})


def measure(kind: str, value: int, repeats: int) -> dict[str, float]:
    """One row of the table; runs in a process of its own."""
    torch.set_num_threads(1)
    if kind == "denormal" and value:
        patch.object(torch, "set_flush_denormal").start()  # No one sets them to 0 from here on.
    settings = configuration(kind, value)
    networks = value if kind == "members" else 1
    iterate = ours(*(configuration(kind, value, seed=seed) for seed in range(networks)))
    start = time.perf_counter()
    iterate()
    first = time.perf_counter() - start
    iterate()
    taken = statistics.median(seconds(iterate, repeats))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": taken / networks, "limit": sum(limit(settings, repeats).values()), "GiB": peak, "first": first}


def in_a_process(kind: str, value: int, repeats: int, **environment: str) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.bench_scaling", "--one", kind, str(value), "--repeats", str(repeats)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def data_parallel(processes: int, folder: Path) -> float:
    """Wall-clock seconds of an iteration of 512 trials in all, shared by some processes of one torchrun."""
    settings = configuration("processes", processes, num_trials=512 // processes, logging_period=ITERATIONS_OF_A_ROW)
    run = folder / f"by {processes}"
    run.mkdir()
    (run / "config.yaml").write_text(settings.to_yaml())
    history = run / "history.jsonl"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with subprocess.Popen(
        [sys.executable, *launcher, "-m", "vwm", "train", str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        moments: list[float] = []  # of the rows of the history, the first of which holds the start
        while len(moments) <= ROWS and process.poll() is None:
            if history.exists() and history.read_text().count("\n") > len(moments):
                moments.append(time.perf_counter())
            time.sleep(0.005)
        process.terminate()
    if len(moments) <= ROWS:
        raise SystemExit(f"{processes} processes of torchrun ended early: see {' '.join(launcher)} -m vwm train.")
    return (moments[-1] - moments[0]) / ROWS / ITERATIONS_OF_A_ROW


def draw(table: Any, path: Path) -> None:
    """Time and memory against what was varied, on log axes."""
    from vwm.behaviour.figures import DISTINCT_COLOURS, GREY, new_figure, style

    with style():
        figure = new_figure(10, 5)
        axes = figure.subplots(2, len(LABELS), sharex="col", sharey="row")
        for (kind, label), (upper, lower) in zip(LABELS.items(), axes.T, strict=True):
            rows = table[table["varied"] == kind]
            upper.plot(rows["value"], rows["seconds"], marker="o", label="vwm", color=DISTINCT_COLOURS[0])
            upper.plot(rows["value"], rows["limit"], marker="", linestyle="--", color=GREY, label="limit")
            lower.plot(rows["value"], rows["GiB"], marker="s", color=DISTINCT_COLOURS[1])
            lower.set_xscale("log", base=2)
            lower.set_xticks(rows["value"], [str(value) for value in rows["value"]])
            lower.minorticks_off()
            lower.set_xlabel(label)
            upper.set_yscale("log")
            lower.set_ylim(0, None)
        axes[0][0].set_ylabel("processor seconds an\niteration and network")
        axes[1][0].set_ylabel("peak memory (GiB)")
        axes[0][0].legend(frameon=False)
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]), given.repeats)))
        return
    import pandas as pd  # not above, where it would count as memory of the processes that are measured

    print(f"torch {torch.__version__}, {platform.machine()}, one core a process; medians of {given.repeats}")
    print(f"{'varied':<12}{'value':>7}{'seconds':>10}{'limit':>9}{'× limit':>9}{'GiB':>7}", flush=True)
    rows = []
    varied = {"units": UNITS, "trials": TRIALS, "delay": DELAYS_MS, "members": MEMBERS, "denormal": DENORMAL}
    for kind, values in varied.items():
        for value in values:
            in_a_process(kind, value, 1)  # compiles, whose memory is not counted
            row = in_a_process(kind, value, given.repeats)
            shown = configuration(kind, value).model_params.steps if kind == "delay" else value
            rows.append({"varied": kind, "value": shown, **row})
            name, ratio = LABELS.get(kind, kind).split()[0], row["seconds"] / row["limit"]
            print(
                f"{name:<12}{shown:>7}{row['seconds']:>10.3f}{row['limit']:>9.3f}{ratio:>9.2f}{row['GiB']:>7.2f}",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as temporary:
        by_clock = {processes: data_parallel(processes, Path(temporary)) for processes in PROCESSES}
        for processes, taken in by_clock.items():
            rows.append({"varied": "processes", "value": processes, "seconds": taken})
            ratio = by_clock[PROCESSES[0]] / taken
            print(f"{'processes':<12}{processes:>7}{taken:>10.3f}  by the clock, {ratio:.2f} times as fast", flush=True)
        for compiled in (0, 1):
            first = in_a_process("units", 64, 1, TORCHINDUCTOR_CACHE_DIR=f"{temporary}/cache")["first"]
            rows.append({"varied": "compiled before", "value": compiled, "first": first})
            print(f"first iteration, {('nothing', 'all')[compiled]} compiled before: {first:.1f} s", flush=True)
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    write_atomically(RESULTS / "scaling.csv", table.round(4).to_csv(index=False))
    draw(table, RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
