"""Runs tracked offline through kills and preemptions on the cluster, then synced, with the real client of W&B.

The server is the STUB on loopback (wandb_stub.py). Faults come by progress and never by the clock: each when every run
of a pack has its offline run of this attempt and some rows more.
"""

import random
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import psutil
import pytest

from tests.conftest import tiny, wait_until
from tests.slurm.cluster import Cluster
from tests.slurm.place import NOISE, Place
from tests.wandb_runs import assert_mirrored, num_rows
from tests.wandb_stub import WandbStub, client_environment
from vwm.training.offline_runs import read_offline_runs
from vwm.training.run_folder import Phase, Reason, RunFolder

pytestmark = pytest.mark.slow

ROWS = 75
BASE = tiny(
    model_params__max_item_num=2,
    model_params__item_num=[1, 2],
    training_params__num_iterations=4 * ROWS,
    training_params__logging_period=4,
    training_params__early_stop_patience=100_000,
)
PROFILE = {
    "where": "slurm",
    "partition": "preempt",
    "gpus_per_node": 0,
    "cpus_per_process": 4,  # a node, so that who preempts one pack preempts no other
    "runs_per_job": 15,
    "timeout_min": 30,
    "signal_delay_s": 20,
}
FAULTS = ["kill"] * 3 + ["preemption"] * 2


class Pack:
    """The runs of one job, what befell each of them, and the moments at which it did."""

    def __init__(self, runs: list[RunFolder], cluster: Cluster, seed: int) -> None:
        self.runs = runs
        self.cluster = cluster
        self.random = random.Random(seed)
        self.befell: Counter[tuple[str, str]] = Counter()  # run id, fault → how often

    def suffer(self) -> None:
        """All faults in random order, each at a random moment of an attempt of its own."""
        for attempt, fault in enumerate(self.random.sample(FAULTS, len(FAULTS)), start=1):
            rows = [num_rows(run) + self.random.randint(1, 5) for run in self.runs]
            wait_until(partial(self._is_mirrored, attempt, rows), 300)
            if fault == "kill":
                self._worker().kill()
                self._wait_until_left("interrupted", "killed", attempt)
            else:
                self._preempt()
                self._wait_until_left("stopped", "preempted", attempt)
            self.befell.update((run.path.name, fault) for run in self.runs)

    def _is_mirrored(self, attempt: int, rows: list[int]) -> bool:
        """Whether all runs are tracked in this attempt, and have so many rows."""
        return all(
            len(list(run.path.glob("wandb/offline-run-*/*.wandb"))) == attempt and num_rows(run) >= wanted
            for run, wanted in zip(self.runs, rows, strict=True)
        )

    def _preempt(self) -> None:
        """Let a job of a higher tier take the node.

        The training is held until the request is there, so that how far it comes does not depend on how long SLURM
        takes. SLURM itself may let it go on a moment before.
        """
        worker = self._worker()
        worker.send_signal(signal.SIGSTOP)
        where = ("--partition=main", f"--nodelist={self._node()}", "--exclusive", "--output=/dev/null")
        self.cluster.command("sbatch", *where, "--wrap=true")
        wait_until(lambda: any(run.stop.exists() for run in self.runs) or not worker.is_running())
        with suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGCONT)

    def _wait_until_left(self, phase: Phase, reason: Reason, attempt: int) -> None:
        """Return when this attempt of every run was left so. The next one comes seconds later."""

        def is_left(run: RunFolder) -> bool:
            state = run.read_state()
            assert state is not None
            assert state.attempt == attempt, f"{run.path.name} began attempt {state.attempt} after {state.reason}"
            return (state.phase, state.reason) == (phase, reason)

        wait_until(lambda: all(is_left(run) for run in self.runs))

    def _node(self) -> str:
        state = self.runs[0].read_state()
        assert state is not None
        return state.host

    def _worker(self) -> psutil.Process:
        """The process that trains the pack, which torchrun has started."""
        found = []
        for number in self.cluster.processes_on(self._node()):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(number)
                words = process.cmdline()
                if str(self.runs[0].path) in words and "torch.distributed.run" not in words and "train" in words:
                    found.append(process)
        (worker,) = found
        return worker


def test_thirty_runs_through_kills_and_preemptions_arrive_whole(place: Place):
    sweep = place.sweep(PROFILE, base=BASE, grid={NOISE: [0.1, 0.2]}, seeds=15)
    began = time.monotonic()
    code, said = place.launch("--wandb", "offline", **client_environment(place.path, "http://127.0.0.1:9"))
    assert code == 0, said
    packs = [
        Pack([RunFolder(place.folder / run_id) for run_id in element], place.cluster, seed)
        for seed, element in enumerate(element for job in place.ledger.jobs() for element in job.elements)
    ]
    with ThreadPoolExecutor(len(packs)) as pool:
        for suffered in [pool.submit(pack.suffer) for pack in packs]:
            suffered.result()
    runs = [run for pack in packs for run in pack.runs]
    assert len(runs) == len(sweep.runs) == 30
    assert not any(run.is_finished() for run in runs)
    wait_until(lambda: all(run.is_finished() for run in runs), 900)
    trained = time.monotonic()

    befell = sum((pack.befell for pack in packs), Counter())
    assert {befell[run.path.name, "kill"] for run in runs} == {3}
    assert {befell[run.path.name, "preemption"] for run in runs} == {2}
    for run in runs:
        state = run.read_state()
        assert state is not None
        assert state.attempt == 6
        offline = read_offline_runs(run)
        assert (sorted(offline.rows), offline.copies) == (list(range(ROWS)), 0)

    with WandbStub() as stub:
        variables = stub.environment(place.path)
        code, said = place.run("sync", "tiny", **variables)
        assert "30 runs: 30 synced." in said
        assert code == 0, said
        synced = time.monotonic()
        assert_mirrored(stub, place.folder, sweep, ROWS)
        requests = stub.requests.total()
        from_folders, from_wandb = (_tables(place, source, **variables) for source in ("folders", "wandb"))
        requests_of_collect = stub.requests.total() - requests
    assert len(from_folders["runs.csv"].splitlines()) == 1 + 30 * 2
    assert from_wandb == from_folders
    print(
        f"{len(runs)} runs, {sum(befell.values())} faults ({befell_in_words(befell)}), {30 * ROWS} rows; "
        f"trained in {trained - began:.0f} s, synced in {synced - trained:.0f} s with {requests} requests, "
        f"collected with {requests_of_collect} in {time.monotonic() - synced:.0f} s"
    )


def befell_in_words(befell: Counter[tuple[str, str]]) -> str:
    counts = {fault: sum(n for (_, kind), n in befell.items() if kind == fault) for fault in set(FAULTS)}
    return ", ".join(f"{count} times a {fault}" for fault, count in sorted(counts.items()))


def _tables(place: Place, source: str, **variables: str) -> dict[str, str]:
    """The tables as text, made from here or there."""
    tables = place.folder / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    code, said = place.run("collect", "tiny", "--from", source, **variables)
    assert code == 0, said
    assert "differ" not in said
    return {path.name: path.read_text() for path in tables.glob("*.csv")}
