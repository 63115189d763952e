"""Analyses of a sweep's runs as jobs of a real cluster."""

import pandas as pd
import pytest

from tests.conftest import wait_until
from tests.slurm.place import HELD, NOISE, ROOT, Place

pytestmark = pytest.mark.slow

ANALYSE = ("analyse", "tiny.yaml", "--only", "weights")


def trained(place: Place) -> list[str]:
    """The ids of runs that were trained on this machine, of a sweep whose jobs on the cluster wait."""
    sweep = place.sweep(
        {**HELD, "nodes": 2, "runs_per_job": 2, "signal_delay_s": 60},
        grid={NOISE: [0.1, 0.2, 0.3]},
        set={"training_params.num_iterations": 4},
    )
    code, output = place.launch("--on", str(ROOT / "launch" / "local.yaml"))
    assert code == 0, output
    return [run.run_id for run in sweep.runs]


def test_they_are_submitted_once_and_go_on_after_an_interruption(place: Place) -> None:
    runs = trained(place)
    code, output = place.run(*ANALYSE)
    assert code == 0, output
    assert "3 runs finished, 0 runs analysed already." in output
    assert "Jobs: 2, in 1 array" in output  # of one node each, since an analysis is one process
    assert len(place.queued()) == 2
    code, output = place.run(*ANALYSE)
    assert code == 0, output
    assert "3 runs are in the queue already" in output
    code, output = place.launch()
    assert "There is nothing to submit." in output  # to train
    code, output = place.run("archive", "tiny")
    assert code == 2, output
    assert "still analyses runs of this sweep" in output
    code, output = place.run("archive", "tiny", SLURM_CONF="/nowhere")
    assert code == 2, output
    assert "SLURM cannot be asked whether a job still analyses" in output

    array = str(place.ledger.jobs()[-1].slurm_id)
    place.cluster.command("scontrol", "release", array)
    log = place.folder / "jobs" / f"{array}_0_0_log.out"
    wait_until(lambda: log.exists() and "0 of 2 runs analysed" in log.read_text())
    place.cluster.command("scancel", "--signal=USR2", f"{array}_0")  # notice of an end
    wait_until(lambda: not place.queued(), 600)

    logs = {path.name: path.read_text() for path in (place.folder / "jobs").glob(f"{array}_*.out")}
    assert "preempted: the job goes back to the queue" in logs[log.name], logs
    assert all((place.folder / run / "analysis" / "weights.columns.json").exists() for run in runs), logs
    code, output = place.run(*ANALYSE)
    assert code == 0, output
    assert "3 runs finished, 3 runs analysed already." in output
    assert place.run("collect", "tiny")[0] == 0
    assert pd.read_csv(place.folder / "tables" / "runs.csv")["spectral_radius"].notna().all()
    assert "[job]" in place.run("logs", runs[0])[1]


def test_a_job_that_was_cancelled_just_before_it_requeued_itself_does_not_come_back(place: Place) -> None:
    """SLURM takes a requeue of a job that was just cancelled. Here only the ledger is told: the moment is not hit."""
    runs = trained(place)
    assert place.run(*ANALYSE)[0] == 0
    array = str(place.ledger.jobs()[-1].slurm_id)
    place.cluster.command("scontrol", "release", array)
    log = place.folder / "jobs" / f"{array}_0_0_log.out"
    wait_until(lambda: log.exists() and "0 of 2 runs analysed" in log.read_text())
    place.ledger.cancelled(runs)
    place.cluster.command("scancel", "--signal=USR2", f"{array}_0")
    wait_until(lambda: not place.queued(), 600)
    assert "its runs were cancelled, and so is the job" in log.read_text()
    assert not all((place.folder / run / "analysis" / "weights.columns.json").exists() for run in runs)


def test_they_are_cancelled_with_their_runs(place: Place) -> None:
    trained(place)
    assert place.run(*ANALYSE)[0] == 0
    assert len(place.queued()) == 2
    code, output = place.run("cancel", "tiny")
    assert code == 0, output
    assert "2 SLURM jobs cancelled" in output
    wait_until(lambda: not place.queued())
    code, output = place.run("cancel", "tiny")
    assert "Nothing is running." in output
