"""From what a person types to a sweep, its folder, and its runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from vwm.errors import UserError
from vwm.files import nearest, parse_value
from vwm.sweep.grid import Sweep, SweepRun, read_sweep
from vwm.sweep.plan import STATES, ObservedRun, Plan, make_plan


@dataclass(frozen=True)
class FoundSweep:
    """A sweep and the folder that its runs are in."""

    sweep: Sweep
    folder: Path  # runs/<sweep>; need not exist

    def plan(self) -> Plan:
        """The state of its runs."""
        return make_plan(self.sweep, self.folder)


def find_sweep(text: str, runs: Path) -> FoundSweep:
    """The sweep that ``text`` names: a sweep file, or a folder in ``runs``.

    Raises:
        UserError: there is neither, or the sweep file is refused.
    """
    path = Path(text)
    if path.is_file():
        sweep = read_sweep(path)
        return FoundSweep(sweep, runs / sweep.name)
    for folder in (runs / text, path):
        if (folder / "sweep.yaml").is_file():
            return FoundSweep(read_sweep(folder / "sweep.yaml"), folder)
    names = [folder.name for folder in sweep_folders(runs)]
    hint = nearest(text, names) or (f"There are: {', '.join(names[:8])}." if names else "")
    raise UserError(f"{text}: expected a sweep file, or the name of a sweep in {runs}/. {hint}".rstrip())


def sweep_folders(runs: Path) -> list[Path]:
    """The folders in ``runs`` that hold a sweep, by name."""
    return sorted(file.parent for file in runs.glob("*/sweep.yaml"))


def find_runs(texts: Sequence[str], candidates: Iterable[ObservedRun]) -> list[ObservedRun]:
    """The runs that these ids, or unique beginnings of ids, name.

    Raises:
        UserError: a text names no run, or more than one.
    """
    known = list(candidates)
    found = []
    for text in texts:
        matching = [observed for observed in known if text and observed.run_id.startswith(text)]
        if len(matching) != 1:
            ids = ", ".join(observed.run_id for observed in (matching or known)[:6])
            problem = "is the beginning of several runs" if matching else "is the beginning of no run's id here"
            raise UserError(f"{text!r} {problem}. Expected one of: {ids}{', …' if len(matching or known) > 6 else ''}")
        found.append(matching[0])
    return found


def chosen_runs(plan: Plan, states: str | None, settings: Sequence[str]) -> list[ObservedRun]:
    """The runs of the grid in one of these states (``running,failed``) that have all of these settings.

    Args:
        settings: ``NAME=VALUE``, the name with its section or without, the value as in a YAML file.

    Raises:
        UserError: there is no such state, or no such axis.
    """
    wanted = [] if states is None else [text.strip() for text in states.split(",")]
    for text in wanted:
        if text not in STATES:
            raise UserError(f"--state {text}: expected one of {', '.join(STATES)}. {nearest(text, STATES)}".rstrip())
    runs = [observed for observed in plan.runs if not wanted or observed.state in wanted]
    for text in settings:
        name, value = _axis_and_value(text, plan)
        runs = [observed for observed in runs if observed.run is not None and _has(observed.run, name, value)]
    return runs


def _axis_and_value(text: str, plan: Plan) -> tuple[str, object]:
    given, _, value = text.partition("=")
    axes = ["seed", *(plan.runs[0].run.settings if plan.runs and plan.runs[0].run is not None else ())]
    matching = [axis for axis in axes if given in (axis, axis.rsplit(".", 1)[-1])]
    if len(matching) != 1 or not value:
        hint = nearest(given, axes)
        raise UserError(f"--setting {text}: expected NAME=VALUE, with a NAME of {', '.join(axes)}. {hint}".rstrip())
    try:
        return matching[0], parse_value(value)
    except yaml.YAMLError:
        raise UserError(f"--setting {text}: {value!r} is no value; expected one as in a YAML file.") from None


def _has(run: SweepRun, name: str, value: object) -> bool:
    present = run.seed if name == "seed" else run.settings[name]
    return (list(present) if isinstance(present, tuple) else present) == value


def pick_run(text: str, sweep: Sweep) -> SweepRun:
    """The one run of a sweep with this number, counted from 0, or this id or unique beginning of one.

    Raises:
        UserError: there is none, or more than one.
    """
    if text.isdecimal() and int(text) < len(sweep.runs):
        return sweep.runs[int(text)]
    matching = [run for run in sweep.runs if text and run.run_id.startswith(text)]
    if len(matching) != 1:
        raise UserError(
            f"{text!r}: expected a run's number from 0 to {len(sweep.runs) - 1}, or the beginning of its id."
        )
    return matching[0]
