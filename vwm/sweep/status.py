"""What a sweep is doing: the same facts as a table for a person and as JSON for a program."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vwm.config_file import show_value
from vwm.sweep.grid import Sweep
from vwm.sweep.plan import STATES, ObservedRun, Plan, State
from vwm.sweep.profile import Profile
from vwm.sweep.slurm import QueueEntry

STALE_S = 600.0  # A process that holds a run and has been silent for so long is probably stuck.
_MOST_ROWS = 40
COLOURS: dict[State, str] = {
    "running": "cyan",
    "waiting": "blue",
    "unreachable": "magenta",
    "failed": "red",
    "damaged": "red",
    "interrupted": "yellow",
    "stopped": "yellow",
    "new": "",
    "finished": "green",
}


# ---------------------------------------------------------------------------------------------------------------
# Facts
# ---------------------------------------------------------------------------------------------------------------


def seconds_left(observed: ObservedRun) -> float | None:
    """Seconds until a running run has done all its iterations at its present speed, if it does not stop early."""
    record = observed.record
    if observed.state != "running" or record is None or not record.iterations_per_second:
        return None
    return (record.num_iterations - record.iteration) / record.iterations_per_second


def sweep_seconds_left(plan: Plan) -> float | None:
    """Seconds until all runs but the failed ones are done, at the speed of those that run now."""
    running = [observed.record for observed in plan.in_state("running") if observed.record is not None]
    speed = sum(record.iterations_per_second or 0.0 for record in running)
    if speed == 0:
        return None
    left = 0
    for observed in plan.in_state("running", "new", "stopped", "interrupted"):
        if observed.record is not None:
            left += observed.record.num_iterations - observed.record.iteration
        elif observed.run is not None:
            left += observed.run.configuration.training_params.num_iterations
    return left / speed


def silent_for(observed: ObservedRun, now: float) -> float | None:
    """Seconds since the last sign of life of a running run: its heartbeat, or the start of the job that carries it."""
    if observed.state != "running":
        return None
    live = observed.carrier and observed.carrier.live
    signs = [observed.record.heartbeat] if observed.record is not None else []
    signs += [time for time in (observed.claimed_at, live.start if live else None) if time is not None]
    return now - max(signs) if signs else None


def is_stale(observed: ObservedRun, now: float) -> bool:
    """Whether a process holds the run and has given no sign of life for ``STALE_S``."""
    silence = silent_for(observed, now)
    return silence is not None and silence > STALE_S


def attempts(observed: ObservedRun) -> int:
    """How often the run was started, or its job, if that was more often."""
    live = observed.carrier and observed.carrier.live
    ever = 0 if observed.record is None else observed.record.attempt
    return max(ever, live.restarts + 1 if live and live.state != "PENDING" else 0)


def unreachable(plan: Plan) -> str | None:
    """SLURM's words where it cannot be asked what became of a run, or None."""
    return next((observed.note for observed in (*plan.runs, *plan.left) if observed.state == "unreachable"), None)


def as_json(name: str, plan: Plan) -> dict[str, Any]:
    """All facts about a sweep. Times are seconds, errors radians."""
    now = time.time()
    return {
        "sweep": name,
        "counts": plan.counts(),
        "scheduler_unreachable": unreachable(plan),
        "seconds_left": sweep_seconds_left(plan),
        "runs": [_run_as_json(observed, now) for observed in plan.runs],
        "no_longer_in_the_grid": [_run_as_json(observed, now) for observed in plan.left],
    }


def _run_as_json(observed: ObservedRun, now: float) -> dict[str, Any]:
    record, run = observed.record, observed.run
    return {
        "run_id": observed.run_id,
        "state": observed.state,
        "settings": None if run is None else dict(run.settings),
        "seed": None if run is None else run.seed,
        "record": None if record is None else asdict(record),
        "note": observed.note,
        "attempts": attempts(observed),
        "slurm": _carrier_as_json(observed),
        "seconds_left": seconds_left(observed),
        "stale": is_stale(observed, now),
    }


def _carrier_as_json(observed: ObservedRun) -> dict[str, Any] | None:
    carrier = observed.carrier
    if carrier is None:
        return None
    entry = carrier.live or carrier.ended
    return {
        "job": carrier.job,
        "job_id": carrier.slurm_id,
        "state": None if entry is None else entry.state,
        "reason": None if carrier.live is None else carrier.live.reason,
        "nodes": None if entry is None else entry.nodes,
        "seconds_left": None if carrier.live is None else carrier.live.seconds_left,
    }


# ---------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """A duration to two figures: 45 s, 3 min, 2 h 10 min, 5 d 4 h."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def counts_line(plan: Plan) -> Text:
    """How many runs are in which state, as in ``3 finished · 2 running · 1 new``."""
    counts = plan.counts()
    parts = [Text(f"{counts[state]} {state}", COLOURS[state]) for state in reversed(STATES) if counts[state]]
    if plan.left:
        parts.append(Text(f"{len(plan.left)} no longer in the grid", "dim"))
    return Text(" · ").join(parts) if parts else Text("no runs")


def heading(name: str, plan: Plan) -> Text:
    """One line on the whole sweep."""
    line = Text.assemble((name, "bold"), f": {_plural(len(plan.runs), 'run')}: ", counts_line(plan))
    left = sweep_seconds_left(plan)
    return line if left is None else line.append(f"; about {duration(left)} left")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def runs_table(axes: Sequence[str], runs: Sequence[ObservedRun], rows: int = _MOST_ROWS) -> RenderableType:
    """One line a run, the first ``rows`` of them. Where the terminal is narrow, only the settings are wrapped."""
    on_slurm = any(observed.carrier is not None for observed in runs[:rows])  # Its words on a run hold the attempt.
    again = not on_slurm and any(attempts(observed) > 1 for observed in runs[:rows])
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    table.add_column("run", no_wrap=True)
    for axis in axes:
        # One word a line, so that a column is not much wider than its values.
        header = axis.rsplit(".", 1)[-1].replace("_", "_\n")
        table.add_column(Text(header), overflow="fold", max_width=24)
    table.add_column("seed", no_wrap=True, justify="right")
    now = time.time()
    states = [_state_in_words(observed, now) for observed in runs[:rows]]
    # What SLURM says can be long, and is broken between words where the terminal is narrow.
    longest = min(13, max((len(word) for state in states for word in state.split()), default=0))
    short = all(len(state) <= 20 for state in states)
    table.add_column("state", no_wrap=short, overflow="fold", min_width=None if short else longest)
    progress = [] if all(observed.record is None for observed in runs[:rows]) else _PROGRESS
    for header in (*progress, *(["start"] if again else [])):
        table.add_column(header, no_wrap=True, justify="right")
    for observed, state in zip(runs[:rows], states, strict=True):
        cells = [*_setting_cells(observed, axes), Text(state, COLOURS[observed.state])]
        table.add_row(
            *cells, *(_progress_cells(observed) if progress else []), *([_attempt(observed)] if again else [])
        )
    parts: list[RenderableType] = [table]
    if len(runs) > rows:
        parts.append(Text(f"… and {len(runs) - rows} more", "dim"))
    return Group(*parts)


def _setting_cells(observed: ObservedRun, axes: Sequence[str]) -> list[Text]:
    run = observed.run
    values = [""] * (len(axes) + 1) if run is None else [*(_value(run.settings[axis]) for axis in axes), str(run.seed)]
    return [Text(text) for text in (observed.run_id, *values)]


_PROGRESS = ("done", "it/s", "left", "error\n(rad)")


def _progress_cells(observed: ObservedRun) -> list[str]:
    record = observed.record
    if record is None:
        return [""] * len(_PROGRESS)
    speed = record.iterations_per_second if observed.state == "running" else None
    return [
        f"{100 * record.iteration / record.num_iterations:.0f} %",
        "" if speed is None else f"{speed:.3g}",
        duration(seconds_left(observed)),
        "" if record.mean_abs_error is None else f"{record.mean_abs_error:.3f}",
    ]


def _state_in_words(observed: ObservedRun, now: float) -> str:
    record = observed.record
    if observed.state == "waiting":
        return f"waiting: {observed.note}"
    if observed.state == "unreachable":
        return "scheduler unreachable"
    if observed.state == "running" and observed.carrier is not None and observed.carrier.live is not None:
        return _running_on_nodes(observed, observed.carrier.live, now)
    if observed.state == "running":
        if record is None or record.phase not in ("training", "evaluating"):
            # What state.json says is either the last word of the attempt before, or of the one that is just ending.
            began = observed.claimed_at
            return "leaving" if record and began and record.heartbeat > began else "starting"
        if is_stale(observed, now):
            return f"silent for {duration(silent_for(observed, now))}"
        return record.phase
    if record is not None and record.reason is not None and observed.state in ("failed", "stopped", "interrupted"):
        # "stopped: stop requested" says no more than "stopped".
        return observed.state if record.reason == "stop requested" else f"{observed.state}: {record.reason}"
    return observed.state


def _running_on_nodes(observed: ObservedRun, live: QueueEntry, now: float) -> str:
    record, nodes = observed.record, live.nodes or "its node"
    count = f" (attempt {attempts(observed)})" if attempts(observed) > 1 else ""
    if is_stale(observed, now):
        return f"silent for {duration(silent_for(observed, now))} on {nodes}{count}"
    if live.state == "COMPLETING":
        return f"leaving {nodes}{count}"
    began = record is not None and record.heartbeat >= (live.start or 0.0)
    return f"{'running' if began else 'starting'} on {nodes}{count}"


def _attempt(observed: ObservedRun) -> str:
    return str(attempts(observed) or "")


def name_run(observed: ObservedRun) -> str:
    """A run on one line: its id, its settings and its seed."""
    if observed.run is None:
        return observed.run_id
    settings = [f"{axis.rsplit('.', 1)[-1]}={_value(value)}" for axis, value in observed.run.settings.items()]
    return f"{observed.run_id}  {' '.join([*settings, f'seed={observed.run.seed}'])}"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(_value(item) for item in value)}]"
    return value if isinstance(value, str) else f"{value:.12g}" if isinstance(value, float) else show_value(value)


def status_view(
    name: str, axes: Sequence[str], plan: Plan, rows: int | None = None, chosen: Sequence[ObservedRun] | None = None
) -> RenderableType:
    """The whole status of a sweep: one line on all runs, a table of those that need a look, their last errors.

    Args:
        rows: runs in the table at most.
        chosen: the runs to show instead of those that need a look.
    """
    shown = chosen if chosen is not None else _worth_a_look(plan)
    parts: list[RenderableType] = [heading(name, plan), *waiting_lines(plan)]
    if unreachable(plan) is not None:
        parts.append(Text(f"SLURM cannot be asked: {unreachable(plan)}", "magenta"))
    if shown:
        parts += [Text(), runs_table(axes, shown, _MOST_ROWS if rows is None else max(rows, 1))]
    errors = errors_view(shown)
    if errors:
        parts += [Text(), *errors]
    return Group(*parts)


def _worth_a_look(plan: Plan) -> list[ObservedRun]:
    runs = [*plan.in_state("running"), *plan.in_state("failed", "damaged"), *plan.in_state("interrupted", "stopped")]
    runs += [observed for observed in plan.in_state("new") if observed.note]
    return [*runs, *plan.in_state("unreachable"), *plan.in_state("waiting")]


def waiting_lines(plan: Plan) -> list[Text]:
    """Why runs wait in SLURM's queue, the most frequent reason first: ``waiting: 12 no free node · 3 held``."""
    reasons = Counter(observed.note for observed in plan.in_state("waiting")).most_common()
    return [Text(f"waiting: {' · '.join(f'{count} {why}' for why, count in reasons)}", "blue")] if reasons else []


def overview(sweeps: Sequence[tuple[str, Plan]]) -> RenderableType:
    """One line a sweep."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("sweep", overflow="ellipsis", no_wrap=True)
    table.add_column("runs", justify="right")
    table.add_column("state")
    table.add_column("left", justify="right", no_wrap=True)
    for name, plan in sweeps:
        left = duration(sweep_seconds_left(plan))
        table.add_row(Text(name), str(len(plan.runs)), counts_line(plan), left)
    return table


def plan_view(
    sweep: Sweep,
    plan: Plan,
    jobs: Sequence[Sequence[ObservedRun]],
    profile: Profile,
    forecast: Sequence[str] | None = None,
) -> RenderableType:
    """What a sweep holds, how far it is, and what a launch would start; ``forecast`` says it of a cluster, in lines."""
    seeds = list(dict.fromkeys(run.seed for run in sweep.runs))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, show_edge=False)
    table.add_column("axis", no_wrap=True, overflow="ellipsis", max_width=44)
    table.add_column("values")
    for axis in sweep.axes:
        table.add_row(Text(axis), _values(list(dict.fromkeys(run.settings[axis] for run in sweep.runs))))
    table.add_row(Text("seeds"), _values(seeds))
    parts: list[RenderableType] = [heading(sweep.name, plan), Text(), table, Text()]
    if jobs:
        packs = [run.run.configuration for job in jobs for run in job[:1] if run.run is not None]
        most, largest = max(((profile.pack_size(one), one) for one in packs), key=lambda pack: pack[0])
        size = f" of up to {most} runs" if most > 1 else ""
        if profile.where == "local":
            processes = "" if profile.processes_per_job == 1 else f", {profile.processes_per_job} processes each"
            parts.append(
                Text(
                    f"A launch starts {_plural(len(jobs), 'job')}{size} on this machine, "
                    f"{min(profile.concurrency, len(jobs))} at a time{processes}."
                )
            )
        else:
            parts.append(Text(f"A launch submits {_plural(len(jobs), 'job')}{size} to SLURM."))
        pack = profile.pack(largest)
        if pack is not None and pack.gain is not None and pack.runs > 1:
            how = f"measured on {pack.card}" if pack.measured else f"an estimate, from {pack.card}"
            parts.append(Text(f"Together {most} of them do {pack.gain:.2g} times as many iterations as one ({how})."))
        parts += [Text(line) for line in forecast or ()]
        first = [observed for job in jobs for observed in job]
        parts += [Text(), runs_table(sweep.axes, first, 10)]
    else:
        parts += [Text(line) for line in forecast or ()]
        parts.append(Text("A launch starts nothing."))
    if plan.left:
        ids = ", ".join(observed.run_id for observed in plan.left[:5])
        more = ", …" if len(plan.left) > 5 else ""
        parts += [Text(), Text(f"No longer in the grid, and left as they are: {ids}{more}", "dim")]
    return Group(*parts, Text())


def _values(values: Sequence[object]) -> Text:
    """Values of an axis, the middle left out where there are many."""
    shown = [_value(value) for value in values]
    if len(shown) > 12:
        shown = [*shown[:6], "…", *shown[-2:], f"({len(values)} values)"]
    return Text("  ".join(shown))


def errors_view(runs: Sequence[ObservedRun], most: int = 5) -> list[Text]:
    """Why runs failed and what is wrong with others, a line each."""
    told = [(observed, _remark(observed)) for observed in runs]
    told = [(observed, remark) for observed, remark in told if remark]
    lines = [
        Text.assemble((observed.run_id, COLOURS[observed.state]), f"  {remark}") for observed, remark in told[:most]
    ]
    if len(told) > most:
        lines.append(Text(f"… and {len(told) - most} more", "dim"))
    return lines


def _remark(observed: ObservedRun) -> str:
    detail = observed.record.detail if observed.record is not None else None
    # Of a run that waits or runs again, the last error is no news; why it waits is in the table.
    parts = [] if observed.state in ("waiting", "unreachable") else [observed.note, detail or ""]
    return "; ".join(" ".join(part.split()) for part in parts if part)
