"""The measures of a sweep's finished runs from Weights & Biases, instead of from the folders of the runs.

A finished run's summary holds its measures as the text that the program made, so that no digit is lost. What was had
from the server once is kept beside the tables, so that it is asked which runs have changed, and for those alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.errors import UserError
from vwm.files import read_json, write_atomically
from vwm.sweep.collect import measures_of_finished
from vwm.sweep.grid import Sweep
from vwm.sweep.measured import Progress
from vwm.sweep.plan import make_plan
from vwm.training.mirror import project, server
from vwm.training.offline_runs import read_offline_runs
from vwm.training.run_folder import RunFolder

if TYPE_CHECKING:
    from vwm.training.wandb_server import StoredRun

Results = dict[str, dict[str, list[Any]]]
"""Measures by run id, column by column."""


@dataclass(frozen=True)
class Chosen:
    """Which runs of a project are looked at."""

    group: str | None = None  # the sweep's name, where not given
    filters: Mapping[str, Any] = field(default_factory=dict)  # a Mongo query


def results_from(
    source: str, sweep: Sweep, folder: Path, progress: Progress, chosen: Chosen = Chosen()
) -> tuple[Results, list[str]]:
    """The measures that W&B holds of the runs of a sweep, and where they differ from those in the folders.

    Args:
        source: wandb, wandb:PROJECT, wandb:ENTITY/PROJECT, or offline.
        sweep: the expanded sweep.
        folder: ``runs/<sweep>``, which need not exist.
        progress: told how many of the finished runs in the folder are measured.
        chosen: which runs of the project are looked at.

    Raises:
        UserError: there is no such source, or the server does not answer.
    """
    kind, _, path = source.partition(":")
    summaries: Mapping[str, Mapping[str, Any]]
    if kind == "wandb":
        summaries = _from_server(sweep, path or _project(), folder / "tables" / "cache" / "wandb.json", chosen)
    elif source == "offline":
        summaries = {run.run_id: read_offline_runs(RunFolder(folder / run.run_id)).summary for run in sweep.runs}
    else:
        raise UserError(f"--from {source}: expected folders, wandb, wandb:ENTITY/PROJECT, or offline.")
    results: Results = {
        run_id: json.loads(summary["measures"]) for run_id, summary in summaries.items() if "measures" in summary
    }
    here = measures_of_finished(make_plan(sweep, folder), folder, progress)
    return results, [
        f"{run_id}: W&B and the folder differ: {_why(summaries[run_id], RunFolder(folder / run_id))}"
        for run_id in results.keys() & here.keys()
        # As text, since what is not a number is equal to nothing.
        if json.dumps(results[run_id]) != json.dumps(here[run_id])
    ]


def read_chosen(group: str | None, filters: str | None, source: str) -> Chosen:
    """What --group and --filter say.

    Raises:
        UserError: the filter is no Mongo query, or the runs are not had from a server.
    """
    if (group is not None or filters is not None) and source.partition(":")[0] != "wandb":
        raise UserError("--group and --filter choose runs of W&B: they go with --from wandb.")
    try:
        query = {} if filters is None else json.loads(filters)
    except ValueError:
        query = None
    if not isinstance(query, dict):
        expected = """a Mongo query in JSON, such as '{"state": "finished"}' or '{"tags": "mine"}'"""
        raise UserError(f"--filter {filters}: expected {expected}.")
    return Chosen(group, query)


def _project() -> str:
    entity = os.environ.get("WANDB_ENTITY")
    return f"{entity}/{project()}" if entity else project()


def _from_server(sweep: Sweep, path: str, cache: Path, chosen: Chosen) -> dict[str, dict[str, str]]:
    """Of each run of the sweep that is found, what its summary holds as text.

    With nothing in the cache, one list brings everything. Otherwise a list without summaries says what has changed.
    """
    from vwm.training.wandb_server import stored_runs, stored_summaries

    group = {"group": sweep.name if chosen.group is None else chosen.group}
    filters = {"$and": [group, dict(chosen.filters)]} if chosen.filters else group
    known = _read_cache(cache, path)
    listed = {run.run_id: run for run in stored_runs(path, filters, summaries=not known)}
    wanted = [run.run_id for run in sweep.runs if run.run_id in listed]
    if known:
        changed = [run_id for run_id in wanted if known.get(run_id, {}).get("heartbeat") != listed[run_id].heartbeat]
        listed |= {run.run_id: run for run in stored_summaries(path, changed)}
    else:
        changed = wanted
    texts = {run_id: _texts(listed[run_id]) for run_id in changed}
    found = {run_id: texts.get(run_id) or known[run_id] for run_id in wanted}
    # A run that goes on may change in the second that its heartbeat names.
    lasting = {run_id: kept for run_id, kept in found.items() if listed[run_id].state != "running"}
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(cache, json.dumps({"server": server(), "path": path, "runs": known | lasting}) + "\n")
    return found


def _texts(run: "StoredRun") -> dict[str, str]:
    """What is kept of a run."""
    return {"heartbeat": run.heartbeat} | {n: run.summary[n] for n in ("measures", "result") if n in run.summary}


def _read_cache(cache: Path, path: str) -> dict[str, dict[str, str]]:
    """What was had from this project of this server before, by run id."""
    try:
        content = read_json(cache)
    except (ValueError, OSError):  # It is only a cache.
        return {}
    if content is None or (content.get("server"), content.get("path")) != (server(), path):
        return {}
    runs: dict[str, dict[str, str]] = content["runs"]
    return runs


def _why(summary: Mapping[str, Any], files: RunFolder) -> str:
    """Why the measures of a run are not those of its folder."""
    there, here = json.loads(summary["result"]), files.read_result()
    if here is None:
        return "the folder holds no result, but an archive"
    for name in ("iterations", "ended_by", "trials", "mean_abs_error"):
        if there[name] != here[name]:
            return f"{name} is {there[name]} in W&B and {here[name]} in {files.result}"
    return "they are of the same responses, measured by another version of vwm, numpy or scipy"
