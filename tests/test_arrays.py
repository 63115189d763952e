"""Arrays without a cluster: their sizes and throttles, the script that sbatch gets, the copy of the code, a plan."""

import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import python
from tests.sweep_files import SWEEP, write_sweep
from vwm.errors import UserError
from vwm.sweep.arrays import arrange, live_elements, look_ahead
from vwm.sweep.grid import read_sweep
from vwm.sweep.ledger import Job
from vwm.sweep.limits import Limits
from vwm.sweep.plan import ObservedRun
from vwm.sweep.profile import SlurmProfile
from vwm.sweep.slurm import QueueEntry
from vwm.sweep.snapshot import take_snapshot
from vwm.sweep.submit import Submission, make_executor

GOLDEN = Path(__file__).parent / "golden" / "sbatch_script.sh"


def packs(count: int) -> list[list[ObservedRun]]:
    return [[ObservedRun(f"{number:012}", "new", None, None)] for number in range(count)]


@pytest.mark.parametrize("most", [1, 3, 10, 1000])
@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 25])
@pytest.mark.parametrize("cap", [None, 1, 2, 3, 7, 100])
def test_arrays_hold_every_pack_once_and_never_run_more_than_the_cap(most: int, count: int, cap: int | None) -> None:
    arrays = arrange(packs(count), most, cap)
    assert [pack for array in arrays for pack in array.packs] == packs(count)
    assert max(len(array.packs) for array in arrays) <= most
    assert all(array.at_a_time >= 1 for array in arrays)
    if cap is None:
        assert all(array.after is None and array.at_a_time == len(array.packs) for array in arrays)
        return
    # The arrays that can run together are one of each lane: a first array and those that follow from it.
    lane: list[int] = []
    for place, array in enumerate(arrays):
        assert array.after is None or array.after < place
        lane.append(place if array.after is None else lane[array.after])
    widest = {first: max(a.at_a_time for a, own in zip(arrays, lane, strict=True) if own == first) for first in lane}
    assert sum(widest.values()) <= cap
    assert len(set(lane)) == min(len(arrays), cap)


def test_a_queue_with_little_room_takes_part_and_says_which_limit_binds() -> None:
    profile = SlurmProfile(gpus_per_node=2, nodes=3, timeout_min=30)
    limits = Limits(11, {"MaxJobCount of the cluster": 9999, "MaxSubmitJobs of account lab": 25})
    outlook = look_ahead(packs(30), profile, limits, queued=2)
    assert [len(array.packs) for array in outlook.arrays] == [10, 10, 3]
    assert (outlook.left_out, outlook.limit) == (7, "MaxSubmitJobs of account lab = 25")
    text = "\n".join(outlook.lines)
    assert "Jobs: 30, in 3 arrays of 10, the last of 3" in text
    assert "At most 90 GPU-hours per attempt (30 × 6 GPUs × 0.5 h)" in text
    assert "MaxArraySize = 11: an array has at most 10 jobs" in text
    assert "7 jobs would be refused now" in text
    assert look_ahead(packs(30), profile, limits, queued=99).arrays == ()


def test_an_element_is_ours_only_where_id_and_name_agree() -> None:
    job = Job("ours", (("a",), ("b", "c")), slurm_id="7", task={"timeout_min": 1})

    def entry(array_id: str, index: int, name: str) -> QueueEntry:
        return QueueEntry(array_id, index, array_id, name, "PENDING", "None", "", 0, None)

    queue = [entry("7", 1, "ours"), entry("7", 0, "theirs"), entry("8", 0, "ours"), entry("7", 2, "ours")]
    assert [element.runs for element in live_elements([job], queue)] == [("b", "c")]


def test_the_script_that_sbatch_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared as a whole with the file in tests/golden, in a folder whose name no shell likes."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    place = tmp_path / 'it\'s a "sweep" $HOME;' / "runs" / "grid"
    monkeypatch.setattr(sys, "executable", "/home/me/my env/bin/python")
    profile = SlurmProfile(
        nodes=2,
        processes_per_node=2,
        gpus_per_node=2,
        mem_gb=12.5,
        account="lab",
        partition="gpu,long",
        constraint="a100|h100",
        mail_type="FAIL",
        setup=("module load cuda/12.4",),
        environment={"NCCL_DEBUG": "INFO", "QUOTED": "it's $HOME"},
        container="apptainer exec --nv /shared/torch.sif",
        sbatch={"reservation": "a course", "exclusive": True},
    )
    executor = make_executor(place, profile, "grid-1a2b3c4d-1", 7, 3, ["11", "12"], place / "code" / "0123456789abcdef")

    text = executor._make_submission_file_text(executor._submitit_command_str, "unused")

    # The temporary folder is a word in front of the hostile part of every path.
    assert text.replace(str(tmp_path), "/TMP") == GOLDEN.read_text()


def test_sbatch_is_called_in_time_and_without_variables_that_overrule_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    executor = make_executor(tmp_path, SlurmProfile(partition="gpu"), "name", 1, 1, [], tmp_path)
    command = executor._make_submission_command(Path("script"))
    assert command[0] == "env"
    assert command[-5:] == ["timeout", "--kill-after=5", "60", "sbatch", "script"]
    for variable in ("SBATCH_JOB_NAME", "SBATCH_ARRAY_INX", "SBATCH_PARTITION"):
        assert command[command.index(variable) - 1] == "-u"
    assert "SBATCH_ACCOUNT" not in command


@pytest.mark.parametrize("name", ["50% noise", "a:b", "back\\slash", "line\nbreak"])
def test_a_folder_that_slurm_cannot_write_into_is_refused(tmp_path: Path, name: str) -> None:
    from rich.console import Console

    sweep = read_sweep(write_sweep(tmp_path, grid={"model_params.spike_noise_factor": [0.1]}))
    with pytest.raises(UserError, match="mean something else"):
        Submission(sweep, tmp_path / name, SlurmProfile(), Console())
    assert not (tmp_path / name).exists()


def test_a_snapshot_is_made_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vwm

    package = tmp_path / "checkout" / "vwm"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("first = 1\n")
    (package / "data.json").write_text("{}")
    (package / "__pycache__" / "x.pyc").write_bytes(b"x")
    monkeypatch.setattr(vwm, "__file__", str(package / "__init__.py"))

    first = take_snapshot(tmp_path / "sweep")
    assert sorted(path.name for path in first.rglob("*")) == ["__init__.py", "data.json", "vwm"]
    before = first.stat().st_mtime_ns
    assert take_snapshot(tmp_path / "sweep") == first
    assert first.stat().st_mtime_ns == before
    (package / "__init__.py").write_text("second = 2\n")
    second = take_snapshot(tmp_path / "sweep")
    assert second != first
    assert (first / "vwm" / "__init__.py").read_text() == "first = 1\n"
    assert sorted(path.name for path in (tmp_path / "sweep" / "code").iterdir()) == sorted([first.name, second.name])


def test_a_plan_for_slurm_works_without_slurm_writes_nothing_and_does_not_load_submitit(tmp_path: Path) -> None:
    (tmp_path / "slurm.yaml").write_text(yaml.safe_dump({"where": "slurm", "runs_per_job": 2}))
    write_sweep(tmp_path, grid={"model_params.spike_noise_factor": [0.1, 0.2]}, seeds=3)
    before = sorted(tmp_path.rglob("*"))
    loaded = "import sys, atexit; atexit.register(lambda: print('submitit' in sys.modules)); "
    done = python("-c", loaded + SWEEP[1], "plan", "tiny.yaml", "--on", "slurm.yaml", cwd=tmp_path, PATH="/nowhere")
    assert done.returncode == 0, done.stderr
    assert "Profile: slurm.yaml." in done.stdout
    assert "3 jobs of up to 2 runs" in done.stdout
    assert "At most 12 GPU-hours per attempt" in done.stdout
    assert "could not be asked" in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == "False"
    assert sorted(tmp_path.rglob("*")) == before
