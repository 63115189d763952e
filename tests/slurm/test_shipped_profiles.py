"""The profiles of launch/ as they are shipped, on a cluster whose GPUs only the scheduler has: training is on CPUs."""

import pytest

from tests.conftest import tiny, wait_until
from tests.slurm.place import NOISE, ROOT, Place
from tests.sweep_files import write_sweep
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.ledger import Job, Ledger

pytestmark = pytest.mark.slow


def launch(place: Place, name: str, profile: str, **parts: object) -> tuple[Sweep, Job]:
    """Launch a sweep with a shipped profile; gives its one job."""
    base = tiny(training_params__num_iterations=20)
    sweep = read_sweep(write_sweep(place.path, name, base=base, **parts))
    code, output = place.run("launch", f"{name}.yaml", "--on", str(ROOT / "launch" / profile))
    assert code == 0, output
    (job,) = Ledger(place.path / "runs" / name / "ledger.jsonl").jobs()
    return sweep, job


def wait_for_results(place: Place, sweep: Sweep) -> None:
    results = [place.path / "runs" / sweep.name / run.run_id / "result.json" for run in sweep.runs]
    wait_until(lambda: all(result.exists() for result in results), 600)


def wait_for_use(place: Place, job: Job, nodes: int, gpus: int) -> None:
    """Return when the accounting, which may learn it late, has the job as complete, with so many nodes and GPUs."""
    words = ("sacct", "-X", "-n", "-P", "-j", str(job.slurm_id), "--format=State,NNodes,AllocTRES")

    def is_told() -> bool:
        state, count, resources = place.cluster.command(*words).split("|")
        return (state, count) == ("COMPLETED", str(nodes)) and f"gres/gpu={gpus}" in resources.split(",")

    wait_until(is_told)


def test_several_nodes_and_packs(place: Place) -> None:
    wide, wide_job = launch(place, "wide", "slurm-multinode.yaml", seeds=1)
    packed, packed_job = launch(place, "packed", "slurm-packed.yaml", grid={NOISE: [0.1, 0.2]}, seeds=2)
    assert [len(runs) for runs in packed_job.elements] == [4]
    wait_for_results(place, wide)
    wait_for_results(place, packed)
    wait_for_use(place, wide_job, nodes=3, gpus=6)
    wait_for_use(place, packed_job, nodes=1, gpus=1)
