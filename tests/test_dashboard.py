"""The saved view and the report of a sweep, laid out by the real wandb-workspaces, and sent to a STUB of a server."""

import json
import os
from pathlib import Path
from typing import Any

from tests.conftest import python
from tests.sweep_files import SWEEP, write_sweep
from tests.wandb_stub import WandbStub

GRID = {"model_params.spike_noise_factor": [0.1, 0.3], "training_params.error_def": ["rad", "l2"]}


def test_a_dry_run_prints_both_and_needs_no_server(tmp_path: Path):
    write_sweep(tmp_path, grid=GRID, seeds=2, table={"rows": "training_params.error_def"})
    shown = python(*SWEEP, "dashboard", "tiny.yaml", "--dry-run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    made = json.loads(shown.stdout)
    bars = made["view"]["sections"][0]["panels"]
    assert bars[0]["title"] == "mean |error| (rad)"
    assert bars[0]["metrics"] == [f"final/mean_abs_error/{n}" for n in (1, 2, 3)]
    assert {bar["groupby"] for bar in bars} == {"config.training_params.error_def"}
    assert {"capacity K (items)", "precision (1/rad)"} <= {bar["title"] for bar in bars}
    headings = [block["text"] for block in made["report"]["blocks"] if "text" in block]
    assert headings[0] == "Error, precision and capacity against set size"
    assert headings[-2:] == ["Training", "Failures"]
    assert made["report"]["description"] == "8 runs, 2 seeds; rows: training_params.error_def"


def test_both_are_sent(tmp_path: Path):
    write_sweep(tmp_path, grid=GRID)
    with WandbStub() as stub:
        sent = python(*SWEEP, "dashboard", "tiny.yaml", cwd=tmp_path, timeout=300, **stub.environment(tmp_path))
        assert sent.returncode == 0, sent.stderr
    view, report = stub.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("lab", "vwm", "sweep tiny")
    assert (report["displayName"], report["type"]) == ("Sweep tiny", "runs")
    assert len(sent.stdout.split()) == 2
    grids = [block for block in json.loads(report["spec"])["blocks"] if block["type"] == "panel-grid"]
    group = {"section": "run", "name": "group"}
    for block in grids:
        first, *others = _filters(block)
        assert (first["key"], first["op"], first["value"]) == (group, "=", "tiny")
    assert others[0]["value"] == ["failed", "crashed"]


def _filters(block: dict[str, Any]) -> list[dict[str, Any]]:
    (runs,) = block["metadata"]["runSets"]
    found: list[dict[str, Any]] = runs["filters"]["filters"]
    return found


def test_without_an_entity_it_is_refused(tmp_path: Path):
    assert "WANDB_ENTITY" not in os.environ
    write_sweep(tmp_path, grid=GRID)
    refused = python(*SWEEP, "dashboard", "tiny.yaml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "WANDB_ENTITY is not set." in refused.stderr
