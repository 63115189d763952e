"""A sweep tracked offline, killed, synced and collected, with the real client and a STUB of a server on loopback."""

import cmath
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import environment, python, wait_until
from tests.sweep_files import SWEEP, write_sweep
from tests.wandb_runs import LONG, assert_mirrored, num_rows, train_and_kill
from tests.wandb_stub import WandbStub, client_environment
from vwm.sweep.grid import Sweep, read_sweep
from vwm.training.run_folder import RunFolder, prepare_run_folder

GRID = {"model_params.spike_noise_factor": [0.1, 0.3]}
SETTINGS = {name.replace("__", "."): value for name, value in LONG.items()}
NOWHERE = "http://127.0.0.1:9"

# With rounds that follow each other sooner than a person needs them.
WATCH = """
import sys
import vwm.cli.sweep_results as commands
commands.WATCH_S = 0.2
sys.argv[1:] = ["sync", "tiny", "--watch"]
from vwm.cli.sweep import main
main()
"""


@pytest.fixture
def stub() -> Iterator[WandbStub]:
    with WandbStub() as server:
        yield server


def vwm_sweep(*arguments: object, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return python(*SWEEP, *arguments, cwd=cwd, timeout=600, **variables)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of four runs, tracked offline, of which one was killed before it was finished."""
    place = tmp_path_factory.mktemp("a 'quoted' place")
    sweep = read_sweep(write_sweep(place, grid=GRID, seeds=2, set=SETTINGS))
    variables = client_environment(place, NOWHERE) | {"WANDB_MODE": "offline"}
    first = sweep.runs[0]
    folder = prepare_run_folder(place / "runs" / "tiny" / first.run_id, first.configuration)
    train_and_kill(folder, random.Random(1), **variables)
    assert not folder.is_finished()
    launched = vwm_sweep("launch", "tiny.yaml", cwd=place, **variables)
    assert launched.returncode == 0, launched.stdout + launched.stderr
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "it's here", symlinks=True))


def sweep_in(place: Path) -> Sweep:
    return read_sweep(place / "tiny.yaml")


def assert_all_mirrored(stub: WandbStub, place: Path) -> None:
    assert_mirrored(stub, place / "runs" / "tiny", sweep_in(place), rows=120)


@pytest.mark.slow
def test_every_row_arrives_once_whatever_the_server_does(stub: WandbStub, place: Path):
    variables = stub.environment(place)
    stub.too_many_requests = 5
    synced = vwm_sweep("sync", "tiny", cwd=place, **variables)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert "4 runs: 4 synced." in synced.stdout
    assert stub.requests["429"] == 5
    assert_all_mirrored(stub, place)
    facts = [row for run in stub.runs.values() for row in run.rows if "steps_per_second" in row]
    assert len(facts) > 4 * 100  # the offline runs' own, but for rows that a kill tore from them

    streams = stub.requests["file_stream"]
    again = vwm_sweep("sync", "tiny", cwd=place, **variables)
    assert "4 runs: 4 up to date." in again.stdout
    assert stub.requests["file_stream"] == streams

    for mark in place.glob("runs/tiny/*/wandb/synced.json"):
        mark.unlink()
    vwm_sweep("sync", "tiny", cwd=place, **variables)
    assert_all_mirrored(stub, place)


@pytest.mark.slow
def test_responses_figures_and_checkpoints_are_sent_once_they_are_there(stub: WandbStub, place: Path):
    variables = stub.environment(place)
    vwm_sweep("sync", "tiny", cwd=place, **variables)
    assert {(artifact.type, artifact.state) for artifact in stub.artifacts} == {("run_table", "COMMITTED")}
    run = sweep_in(place).runs[2].run_id
    stored, folder = stub.runs[run], RunFolder(place / "runs" / "tiny" / run)
    table = json.loads(stored.files[stored.summary["responses"]["path"]])
    assert table["columns"] == ["trial", "set size", "location", "target (rad)", "response (rad)", "error (rad)"]
    with np.load(folder.responses) as content:
        target, response, set_size = content["target"], content["response"], content["set_size"]
    assert [sum(row[1] == size for row in table["data"]) for size in (1, 2, 3)] == [50, 100, 150]
    for trial, size, location, *angles in table["data"]:
        shown, answer = float(target[trial, location]), float(response[trial, location])
        error = cmath.phase(cmath.exp(1j * (answer - shown)))
        assert size == set_size[trial]
        assert angles == pytest.approx([shown, answer, error], abs=1e-5)

    (folder.path / "analysis").mkdir()
    shutil.copy(Path(__file__).parent.parent / "docs" / "quick.png", folder.path / "analysis" / "fixed_points.png")
    again = vwm_sweep("sync", "tiny", cwd=place, **variables)
    assert "4 runs: 1 synced, 3 up to date." in again.stdout
    drawn = stored.summary["analysis/fixed_points"]
    assert stored.files[drawn["path"]] == (folder.path / "analysis" / "fixed_points.png").read_bytes()

    vwm_sweep("sync", "tiny", cwd=place, **variables, WANDB_LOG_MODEL="end")
    kept = {artifact.run: artifact.files for artifact in stub.artifacts if artifact.type == "model"}
    for one in sweep_in(place).runs:
        checkpoint = place / "runs" / "tiny" / one.run_id / "checkpoint.pt"
        assert kept[one.run_id]["checkpoint.pt"] == checkpoint.read_bytes()
    assert_all_mirrored(stub, place)


@pytest.mark.slow
def test_a_watched_run_is_sent_while_it_is_trained_and_when_it_is_finished(stub: WandbStub, tmp_path: Path):
    changes = {
        name.replace("__", "."): value for name, value in (LONG | {"training_params__num_iterations": 120}).items()
    }
    sweep = read_sweep(write_sweep(tmp_path, seeds=1, set=changes))
    (run,) = sweep.runs
    folder = prepare_run_folder(tmp_path / "runs" / "tiny" / run.run_id, run.configuration)
    shutil.copy(tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny" / "sweep.yaml")
    variables = stub.environment(tmp_path) | {"WANDB_MODE": "offline"}
    train = [sys.executable, "-m", "vwm", "train", str(folder.path)]
    watch = [sys.executable, "-c", WATCH]

    def has_rows(number: int) -> bool:
        return num_rows(folder) >= number

    def sent() -> int:
        return len(stub.runs[run.run_id].history) if run.run_id in stub.runs else 0

    with (
        subprocess.Popen(train, env=environment(**variables), stdout=subprocess.DEVNULL) as training,
        subprocess.Popen(watch, cwd=tmp_path, env=environment(**variables), stdout=subprocess.PIPE) as watching,
    ):
        # The training is held while it is sent, so that it cannot be over before.
        for rows in (5, 20):
            wait_until(partial(has_rows, rows))
            training.send_signal(signal.SIGSTOP)
            wait_until(lambda: sent() >= num_rows(folder) - 1)
            assert not folder.is_finished()
            training.send_signal(signal.SIGCONT)
        said, _ = watching.communicate(timeout=300)
        assert training.wait() == 0
    assert watching.returncode == 0, said
    assert said.count(b"1 synced") >= 3
    assert b"pending" not in said
    assert_mirrored(stub, folder.path.parent, sweep, rows=60)


@pytest.mark.slow
def test_a_sync_that_was_cut_off_goes_on(stub: WandbStub, place: Path):
    """The server keeps a part of the rows of some runs, as after a kill of the sync."""
    variables = stub.environment(place)
    vwm_sweep("sync", "tiny", cwd=place, **variables)
    for kept, run in zip((0, 1, 37, 119), stub.runs.values(), strict=True):
        del run.history[kept:]
        run.summary = {}
    for mark in place.glob("runs/tiny/*/wandb/synced.json"):
        mark.unlink()
    assert vwm_sweep("sync", "tiny", cwd=place, **variables).returncode == 0
    assert_all_mirrored(stub, place)


@pytest.mark.slow
def test_a_refused_key_leaves_all_pending_and_says_so(stub: WandbStub, place: Path):
    stub.rejects_key = True
    refused = vwm_sweep("sync", "tiny", cwd=place, **stub.environment(place))
    assert refused.returncode == 1
    assert "4 runs: 4 pending." in refused.stdout
    assert refused.stdout.count("invalid API key") == 4
    assert "Traceback" not in refused.stderr
    stub.rejects_key = False
    assert vwm_sweep("sync", "tiny", cwd=place, **stub.environment(place)).returncode == 0
    assert_all_mirrored(stub, place)


@pytest.mark.slow
def test_the_tables_from_wandb_are_those_from_the_folders(stub: WandbStub, place: Path):
    variables = stub.environment(place)
    vwm_sweep("sync", "tiny", cwd=place, **variables)
    tables = place / "runs" / "tiny" / "tables"
    texts = {}
    for source in ("folders", "offline", "wandb:lab/vwm"):
        shutil.rmtree(tables, ignore_errors=True)
        collected = vwm_sweep("collect", "tiny", "--from", source, cwd=place, **variables)
        assert collected.returncode == 0, collected.stderr
        assert "differ" not in collected.stdout
        texts[source] = {path.name: path.read_text() for path in tables.glob("*.csv")}
    assert len(pd.read_csv(tables / "runs.csv")) == 4 * 3
    assert texts["offline"] == texts["folders"]
    assert texts["wandb:lab/vwm"] == texts["folders"]

    alone = place / "elsewhere"
    alone.mkdir()
    shutil.copy(place / "tiny.yaml", alone)
    vwm_sweep("collect", "tiny.yaml", "--from", "wandb", cwd=alone, **variables)
    found = {path.name: path.read_text() for path in (alone / "runs" / "tiny" / "tables").glob("*.csv")}
    assert found == texts["folders"]


@pytest.mark.slow
def test_a_second_collect_asks_for_what_changed_and_names_what_differs(stub: WandbStub, place: Path):
    variables = stub.environment(place)
    vwm_sweep("sync", "tiny", cwd=place, **variables)

    def collected(*arguments: str) -> tuple[str, list[int], int]:
        """What a collect says, how often it asked for the summary of each run, and for lists of runs."""
        stub.requests.clear()
        for run in stub.runs.values():
            run.summaries_sent = 0
        ended = vwm_sweep("collect", "tiny", "--from", "wandb", *arguments, cwd=place, **variables)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, [run.summaries_sent for run in stub.runs.values()], stub.requests["Runs"]

    said, *asked = collected()
    assert asked == [[1, 1, 1, 1], 1]
    assert "missing" not in said
    same, *asked = collected()
    assert asked == [[0, 0, 0, 0], 1]
    assert same == said

    first, second, third, _ = stub.runs.values()
    result = json.loads(first.summary["result"])
    measures = json.loads(first.summary["measures"])
    measures["precision"][0] *= 1 + 1e-15
    first.summary |= {"measures": json.dumps(measures), "result": json.dumps(result | {"iterations": 80})}
    measures = json.loads(second.summary["measures"])
    measures["w"][0] += 1e-12
    second.summary["measures"] = json.dumps(measures)
    third.summary = {}
    for run in (first, second, third):
        run.beats += 1
    said, *asked = collected()
    assert asked == [[1, 1, 1, 0], 2]
    assert f"{first.name}: W&B and the folder differ: iterations is 80 in W&B and 240 in" in said
    assert f"{second.name}: W&B and the folder differ: they are of the same responses" in said
    assert "W&B holds no measures of it" in said
    assert "vwm-sweep sync tiny" in said

    for run in (first, second):
        run.fields["group"] = "another"
    second.fields["tags"] = ["mine"]
    said, *asked = collected("--group", "another", "--filter", '{"tags": "mine"}')
    assert asked == [[0, 0, 0, 0], 1]
    assert said.count("W&B holds no measures of it") == 3
    assert f"{second.name}: W&B and the folder differ" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "wandb", "--filter", "[1"], "--filter [1: expected a Mongo query in JSON"),
        (["--group", "another"], "--group and --filter choose runs of W&B: they go with --from wandb."),
    ],
)
def test_a_choice_that_is_none_is_refused(tmp_path: Path, arguments: list[str], words: str):
    write_sweep(tmp_path, grid=GRID)
    refused = vwm_sweep("collect", "tiny.yaml", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert words in " ".join(refused.stderr.split())


def test_an_unknown_source_is_refused(tmp_path: Path):
    write_sweep(tmp_path, grid=GRID)
    refused = vwm_sweep("collect", "tiny.yaml", "--from", "wand", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--from wand: expected folders, wandb, wandb:ENTITY/PROJECT, or offline." in refused.stderr
    assert not (tmp_path / "runs").exists()
