"""What tracking costs, with the real client of W&B and a STUB of a server on loopback.

Usage: python -m benchmarks.bench_tracking [--repeats 5] [--iterations 600]

First: the CPU time of an iteration, W&B's process included, and its time by the clock, with tracking offline and
online, as ratios to tracking disabled in the same round; processes and memory beside the trainer; CPU time of a whole
run. Whatever else the machine does spoils the clock more than the CPU time. A row of the history is written every ten
iterations. Second: the tables of 1,000 runs from the stub, then again with nothing changed and with ten runs changed,
with the number of requests and the time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import environment, make_run, tiny
from tests.wandb_stub import ENTITY, WandbStub
from vwm.sweep.grid import read_sweep
from vwm.sweep.wandb_source import results_from
from vwm.training.mirror import MODES
from vwm.training.run_folder import RunFolder

RUNS = 1000


@dataclass(frozen=True)
class Cost:
    """What a training took."""

    cpu_ms: float  # of an iteration
    clock_ms: float  # of an iteration
    cpu_s: float  # in all
    processes: int  # beside the trainer
    memory_mib: float  # of those


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=600)
    arguments = parser.parse_args()
    with WandbStub() as stub, tempfile.TemporaryDirectory() as temporary:
        os.environ |= stub.environment(Path(temporary))
        overhead(Path(temporary), arguments.repeats, arguments.iterations)
        stub.runs.clear()
        stub.requests.clear()
        collecting(stub, Path(temporary))


def overhead(place: Path, repeats: int, iterations: int) -> None:
    costs: dict[str, list[Cost]] = {mode: [] for mode in MODES}
    for repeat in range(repeats):
        for mode in MODES:
            folder = RunFolder(
                make_run(
                    place / f"{mode}-{repeat}",
                    model_params__num_neurons=64,
                    model_params__dt=10,
                    training_params__num_iterations=iterations,
                    training_params__early_stop_patience=10**6,
                    training_params__logging_period=10,
                )
            )
            cost = trained(folder, mode)
            costs[mode].append(cost)
            text = f"{mode:<9} an iteration {cost.cpu_ms:6.2f} CPU ms, {cost.clock_ms:6.2f} ms; {cost.cpu_s:5.1f} CPU s"
            print(f"{text} in all, {cost.processes} processes beside it with {cost.memory_mib:.0f} MiB")
    for mode in ("offline", "online"):
        pairs = list(zip(costs[mode], costs["disabled"], strict=True))
        print(f"{mode}, of disabled in the same round:")
        print(f"  CPU time of an iteration: {ratios([(a.cpu_ms, b.cpu_ms) for a, b in pairs])}")
        print(f"  time of an iteration: {ratios([(a.clock_ms, b.clock_ms) for a, b in pairs])}")
        more = [a.cpu_s - b.cpu_s for a, b in pairs]
        print(f"  more in all: {statistics.median(more):.1f} CPU s ({min(more):.1f} to {max(more):.1f})")


def ratios(pairs: list[tuple[float, float]]) -> str:
    """Median and range."""
    found = [a / b for a, b in pairs]
    return f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def trained(folder: RunFolder, mode: str) -> Cost:
    command = [sys.executable, "-m", "vwm", "train", str(folder.path), "--wandb", mode]
    processes, memory = 0, 0.0
    first: tuple[float, float, int] | None = None  # CPU seconds, seconds, rows
    last = (0.0, 0.0, 0)
    before = os.times()
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                children = watched.children(recursive=True)
                used = sum(sum(one.cpu_times()[:2]) for one in (watched, *children))
                now = (used, time.perf_counter(), _rows(folder))
                # From the twentieth row on, when W&B has started.
                if now[2] >= 20 and first is None:
                    first = now
                if now[2] > last[2]:
                    last = now
                processes = max(processes, len(children))
                if children:
                    memory = sum(child.memory_info().rss for child in children) / 2**20
            except psutil.Error:
                pass
            time.sleep(0.02)
    after = os.times()
    assert process.returncode == 0
    assert first is not None
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    passed = 10 * (last[2] - first[2])
    return Cost(1e3 * (last[0] - first[0]) / passed, 1e3 * (last[1] - first[1]) / passed, cpu, processes, memory)


def _rows(folder: RunFolder) -> int:
    return folder.history.read_bytes().count(b"\n") if folder.history.exists() else 0


def collecting(stub: WandbStub, place: Path) -> None:
    """The measures of 1,000 runs whose summaries have the size of real ones, compared with what was put there."""
    file = place / "many.yaml"
    grid = {"model_params.spike_noise_factor": {"linspace": [0.01, 1.0, RUNS // 10]}}
    file.write_text(json.dumps({"name": "many", "base": tiny(), "grid": grid, "seeds": 10}))
    sweep = read_sweep(file)
    sizes = [1, 2, 3, 4, 6, 8]
    put = {
        run.run_id: {"set_size": sizes} | {f"measure_{i}": [number / (7 + i + n) for n in sizes] for i in range(20)}
        for number, run in enumerate(sweep.runs)
    }
    for run_id, measures in put.items():
        stored = stub.run("vwm", run_id)
        stored.fields |= {"group": "many", "state": "finished"}
        scalars = {f"final/{name}/{n}": column[i] for name, column in measures.items() for i, n in enumerate(sizes)}
        stored.summary = {**scalars, "measures": json.dumps(measures)}

    def collect(what: str) -> None:
        stub.requests.clear()
        begin = time.perf_counter()
        folder = place / "runs" / "many"
        found, differences = results_from(f"wandb:{ENTITY}/vwm", sweep, folder, lambda done, total: None)
        elapsed = time.perf_counter() - begin
        assert found == put
        assert differences == []
        asked = f"{stub.requests.total()} requests ({dict(stub.requests)})"
        print(f"{len(found)} runs from the stub, {what}: {asked}, {elapsed:.2f} s")

    collect("for the first time")
    collect("nothing changed")
    for run in list(stub.runs.values())[:10]:
        run.beats += 1
    collect("ten changed")


if __name__ == "__main__":
    main()
