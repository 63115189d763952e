"""How long collecting a sweep takes: 10,000 runs whose measures are known, and runs whose responses are read anew.

Usage: python -m benchmarks.bench_collect [RUNS]
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from vwm.sweep.collect import collect, measure_run
from vwm.sweep.collect_files import write_tables
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.measured import measured
from vwm.training.run_folder import RunFolder, RunState

COLD = 8  # runs that are measured for real; every other one gets a copy of their measures
TRIALS = 2000  # of each set size, as in a final evaluation


def make_sweep(folder: Path, count: int) -> Sweep:
    """A sweep of ``count`` finished runs with the default task in ``folder``/runs/large, without responses."""
    noise, penalty = {"linspace": [0.05, 1.0, count // 200]}, {"geomspace": [1e-6, 1e-3, 10]}
    grid = {
        "model_params.spike_noise_factor": noise,
        "training_params.lambda_reg": penalty,
        "training_params.error_def": ["rad", "l2"],
    }
    content = {"name": "large", "base": {}, "grid": grid, "seeds": 10}
    (folder / "large.yaml").write_text(yaml.safe_dump(content | {"table": {"rows": "model_params.spike_noise_factor"}}))
    sweep = read_sweep(folder / "large.yaml")
    state = json.dumps(asdict(RunState("finished", 50_000, 50_000, 1, time.time(), "host", 1, 12.5, 0.3)))
    for run in sweep.runs:
        files = RunFolder(folder / "runs" / "large" / run.run_id)
        files.path.mkdir(parents=True)
        files.config.write_text("")
        files.state.write_text(state)
        files.result.write_text("{}")
    return sweep


def write_responses(path: Path, seed: int) -> None:
    """Responses to 1 to 10 items whose errors grow with their number."""
    rng = np.random.default_rng(seed)
    set_size = np.repeat(np.arange(1, 11, dtype=np.int16), TRIALS)
    shown = rng.permuted(np.arange(10) < set_size[:, None], axis=1)
    target = rng.uniform(-np.pi, np.pi, shown.shape)
    error = rng.vonmises(0, 30 / set_size[:, None], shown.shape)
    response = np.mod(target + error + np.pi, 2 * np.pi) - np.pi
    shown_target, shown_response = (np.where(shown, array, np.nan).astype(np.float32) for array in (target, response))
    np.savez(path, set_size=set_size, target=shown_target, response=shown_response)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        sweep = make_sweep(Path(temporary), count)
        folder = Path(temporary) / "runs" / "large"
        for seed, run in enumerate(sweep.runs[:COLD]):
            write_responses(RunFolder(folder / run.run_id).responses, seed)
        before = time.perf_counter()
        measured(sweep.runs[:COLD], folder, "measures", measure_run)
        cold = time.perf_counter() - before
        print(f"{COLD} runs of 10 set sizes read and measured: {cold:.1f} s, {cold / COLD:.2f} s a run", flush=True)

        # The other runs have the same bytes as responses, and lines of their own in the cache.
        examples = [RunFolder(folder / run.run_id).responses for run in sweep.runs[:COLD]]
        cache = folder / "tables" / "cache" / "measures.jsonl"
        lines = {entry["run_id"]: entry for entry in map(json.loads, cache.read_text().splitlines())}
        with open(cache, "a") as file:
            for index, run in enumerate(sweep.runs[COLD:]):
                path = RunFolder(folder / run.run_id).responses
                path.hardlink_to(examples[index % COLD])
                entry = lines[sweep.runs[index % COLD].run_id]
                file.write(json.dumps({**entry, "run_id": run.run_id}) + "\n")
        print(f"cache of {cache.stat().st_size / 1e6:.0f} MB for {count} runs", flush=True)

        before = time.perf_counter()
        collected = collect(sweep, folder)
        read = time.perf_counter() - before
        write_tables(collected, folder / "tables")
        total = time.perf_counter() - before
        rows = f"{len(collected.runs)} and {len(collected.by_set_size)} rows"
        print(f"{len(sweep.runs)} runs collected again: {total:.1f} s, {total - read:.1f} s of it writing {rows}")


if __name__ == "__main__":
    main()
