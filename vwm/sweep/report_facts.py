"""What a page shows of each run besides its measures: its errors, how it learnt, and the models fitted to it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.sweep.archive import Archive
from vwm.sweep.collect import Collected, evenly
from vwm.sweep.measured import Progress, measured
from vwm.sweep.people import People
from vwm.training.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

BINS = 120  # of 3° each
MODEL_TRIALS = 300  # of each set size that the models are fitted to, one response of each: about what a person gives
_CURVE_POINTS = 120
_MOST_RUNS = 300
_PERMUTATIONS = 19  # enough for the mean of the null; its 95 % point is in the tables


def facts_of_runs(collected: Collected, folder: Path, progress: Progress) -> dict[str, Any]:
    """What ``facts_of_run`` says of the runs that were collected, by run id; kept as measures are.

    Of very many runs some are taken, evenly spread over the grid: fitting all models takes seconds for each.
    """
    present = set(collected.runs["run_id"])
    runs = evenly([run for run in collected.sweep.runs if run.run_id in present], _MOST_RUNS)
    return measured(runs, folder, "facts", facts_of_run, progress)


def facts_of_run(files: RunFolder, archive: Archive) -> dict[str, Any]:
    """Histograms of a run's errors, its learning curve, its fits of the models, and to which items its swaps go.

    Raises:
        UnreadableResponses: its responses cannot be read.
    """
    import numpy as np

    from vwm.behaviour.responses import read_run
    from vwm.behaviour.set_size_models import fit_all
    from vwm.behaviour.swaps import swap_report
    from vwm.behaviour.tables import SWAP_SEED, one_response_a_trial

    with archive.readable(files.responses) as path:
        responses = read_run(path, files.path.name)
    errors = responses.errors
    histograms = {
        n: np.histogram(errors[responses.set_size == n], BINS, (-np.pi, np.pi))[0].tolist()
        for n in responses.set_sizes()
    }
    with archive.readable(files.history) as path:
        curve = learning_curve(path.read_text() if path.exists() else "")
    models = fit_all(one_response_a_trial(responses, MODEL_TRIALS))
    swaps = swap_report(one_response_a_trial(responses), SWAP_SEED, _PERMUTATIONS)
    return {
        "histograms": histograms,
        "curve": curve,
        "models": models.to_dict("list"),
        "swaps_by_angle": swaps.by_angle.to_dict("list"),
        "swaps_by_location": swaps.by_location.to_dict("list"),
    }


def models_of_people(people: People, progress: Progress) -> "dict[str, pd.DataFrame]":
    """``set_size_models.fit_all`` of every person of every file that has several set sizes, by source."""
    import pandas as pd

    from vwm.behaviour.set_size_models import fit_all

    chosen = [
        (source, person)
        for source, persons in people.responders.items()
        for person in persons
        if len(person.set_sizes()) > 1
    ]
    fits: dict[str, list[pd.DataFrame]] = {}
    for done, (source, person) in enumerate(chosen):
        progress(done, len(chosen))
        fits.setdefault(source, []).append(fit_all(person))
    return {source: pd.concat(tables, ignore_index=True) for source, tables in fits.items()}


def learning_curve(history: str) -> list[tuple[int, float]]:
    """Iteration and mean |error| over set sizes, in rad, of some rows of ``history.jsonl``, closer at the start."""
    lines = history.splitlines()
    count = min(_CURVE_POINTS, len(lines))
    places = sorted({round(len(lines) ** (i / max(1, count - 1))) - 1 for i in range(count)})
    rows = [json.loads(lines[place]) for place in places]
    points = []
    for row in rows:
        errors = [error for error in row["mean_abs_error"] if error is not None and error == error]
        if errors:
            points.append((row["iteration"], sum(errors) / len(errors)))
    return points
