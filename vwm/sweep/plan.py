"""What a sweep holds and what is left to do: the state of every run, and the jobs a launch would start."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from vwm.config import Configuration
from vwm.errors import UserError
from vwm.sweep.archive import Archive
from vwm.sweep.claim import claimed_at
from vwm.sweep.grid import Sweep, SweepRun
from vwm.sweep.ledger import Ledger
from vwm.sweep.memory import ADVICE
from vwm.sweep.profile import Profile
from vwm.sweep.scheduled import Carrier, scheduled, why_waiting
from vwm.training.run_folder import RunFolder, RunState

State = Literal[
    "running",
    "waiting",  # in SLURM's queue
    "unreachable",  # given to SLURM, which cannot be asked what became of it
    "failed",
    "damaged",  # its state.json cannot be read
    "interrupted",
    "stopped",
    "new",
    "finished",
]
STATES: tuple[State, ...] = get_args(State)
STARTABLE: tuple[State, ...] = ("new", "stopped", "interrupted")  # A failed run waits for somebody to look: retry.


@dataclass(frozen=True)
class ObservedRun:
    """A run and what its folder says of it."""

    run_id: str
    state: State
    record: RunState | None  # state.json; None before the first attempt
    run: SweepRun | None  # None: on the disk, but no longer in the grid
    claimed_at: float | None = None  # when the job began that carries it now
    carrier: Carrier | None = None  # the SLURM job that was given it last, where that was asked for
    note: str = ""  # what there is to say beside the state: why it waits, what is missing, what to do


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep as they are now; made without writing anything."""

    runs: tuple[ObservedRun, ...]  # of the grid, in its order
    left: tuple[ObservedRun, ...]  # no longer in the grid

    def counts(self) -> dict[State, int]:
        """Runs of the grid by state; every state is there."""
        counts = dict.fromkeys(STATES, 0)
        for observed in self.runs:
            counts[observed.state] += 1
        return counts

    def in_state(self, *states: State) -> list[ObservedRun]:
        """Runs of the grid in one of these states."""
        return [observed for observed in self.runs if observed.state in states]


def observe(folder: Path, run_id: str, run: SweepRun | None) -> ObservedRun:
    """A run as its folder in ``folder`` (runs/<sweep>) tells it.

    The locks say whether somebody works on it, result.json whether it is finished, and state.json the rest: a run that
    calls itself in training while nobody holds it was killed.
    """
    files = RunFolder(folder / run_id)
    record, damage = _read_record(files)
    if files.is_finished():
        return ObservedRun(run_id, "finished", record, run)
    claimed = claimed_at(files)
    if claimed is not None or files.is_being_trained():
        return ObservedRun(run_id, "running", record, run, claimed)
    if damage:
        return ObservedRun(run_id, "damaged", None, run, note=damage)
    if record is None:
        return ObservedRun(run_id, "new", None, run)
    if record.phase == "stopped" or record.phase == "failed":
        return ObservedRun(run_id, record.phase, record, run)
    return ObservedRun(run_id, "interrupted", record, run)


def _read_record(files: RunFolder) -> tuple[RunState | None, str]:
    """What state.json says, or why it says nothing."""
    try:
        return files.read_state(), ""
    except UserError as damage:
        return None, str(damage)


def make_plan(sweep: Sweep, folder: Path) -> Plan:
    """Observe every run of ``sweep`` in its folder ``runs/<sweep>``, which need not exist yet.

    SLURM is asked for the runs that were last given to it and are not finished.
    """
    present = _run_folders(folder)
    archived = Archive(folder).states

    def look(run_id: str, run: SweepRun | None) -> ObservedRun:
        if run_id in present:
            return observe(folder, run_id, run)
        if run_id in archived:
            return ObservedRun(run_id, "finished", archived[run_id], run)
        return ObservedRun(run_id, "new", None, run)

    runs = [look(run.run_id, run) for run in sweep.runs]
    left = [look(run_id, None) for run_id in sorted((present | archived.keys()) - {run.run_id for run in sweep.runs})]
    unfinished = [observed.run_id for observed in (*runs, *left) if observed.state != "finished"]
    carriers = scheduled(Ledger(folder / "ledger.jsonl").jobs()).ask(unfinished) if unfinished else {}
    if not carriers:
        return Plan(tuple(runs), tuple(left))

    def merge(observed: ObservedRun) -> ObservedRun:
        carrier = carriers.get(observed.run_id)
        if carrier is not None and carrier.live is None:
            # Its job has left the queue, and may have finished the run since the first look.
            observed = look(observed.run_id, observed.run)
        return _merged(observed, carrier)

    return Plan(tuple(map(merge, runs)), tuple(map(merge, left)))


def _merged(observed: ObservedRun, carrier: Carrier | None) -> ObservedRun:
    """A run as its folder and SLURM together tell it.

    For a job that waits or runs SLURM decides: the locks of its node may not be seen from here.
    """
    if carrier is None or observed.state == "finished":
        return observed
    observed = replace(observed, carrier=carrier)
    if carrier.live is not None:
        if carrier.live.state == "PENDING":
            return replace(observed, state="waiting", note=why_waiting(carrier.live.reason))
        record, began = observed.record, carrier.live.start or 0.0
        if record is not None and record.phase == "failed" and record.heartbeat >= began:
            return replace(observed, state="failed")  # The others of its pack go on.
        return replace(observed, state="damaged" if observed.state == "damaged" else "running")
    if observed.state in ("running", "failed", "damaged"):
        return observed
    if carrier.unreachable is not None:
        return replace(observed, state="unreachable", note=carrier.unreachable)
    if observed.state == "stopped" and observed.record is not None:
        return observed  # It saved and left: nothing is missing.
    if carrier.ended is not None and carrier.ended.state == "OUT_OF_MEMORY" and observed.record is not None:
        # Nobody was left to write it into state.json, and once more would end the same way.
        record = replace(observed.record, phase="failed", reason="out of memory", detail=ADVICE)
        return replace(observed, state="failed", record=record, note=carrier.note)
    return replace(observed, note=carrier.note)


def _run_folders(folder: Path) -> set[str]:
    """The names of the folders that hold a run."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if len(entry.name) == 12 and entry.is_dir()]
    except FileNotFoundError:
        return set()
    return {name for name in names if os.path.exists(f"{folder}/{name}/config.yaml")}


def jobs_to_start(runs: Iterable[ObservedRun], profile: Profile) -> list[list[ObservedRun]]:
    """Pack runs into jobs, in the order given; runs that go into one pack have networks and batches of equal size."""
    packs: list[list[ObservedRun]] = []
    open_packs: dict[object, list[ObservedRun]] = {}
    for observed in runs:
        assert observed.run is not None
        key = _pack_key(observed.run.configuration)
        pack = open_packs.get(key)
        if pack is None or len(pack) == profile.pack_size(observed.run.configuration):
            pack = open_packs[key] = []
            packs.append(pack)
        pack.append(observed)
    return packs


def _pack_key(configuration: Configuration) -> tuple[object, ...]:
    """Equal for runs that can be one batched computation, as ``vwm.training`` checks once more."""
    m = configuration.model_params
    return (
        *(configuration.training_params.num_trials, m.num_neurons, m.max_item_num, m.positive_input),
        *(m.saturation_firing_rate > 0, m.steps, m.stimulus_steps, m.decode_steps),
    )
