"""What the page of a sweep says, section by section."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.files import dump_yaml, read_json
from vwm.sweep.collect import Collected, Hole, cell_text, evenly, row_names
from vwm.sweep.collect_files import NOISE_FACTOR, data_dictionary_of, layout, legend_title, note, without_analyses
from vwm.sweep.report import Block, Cell, Head, MissingRuns, Page, PageFigure, PageTable, Section, page_table
from vwm.sweep.report_analyses import analyses_section

if TYPE_CHECKING:
    import pandas as pd

Facts = Mapping[str, Mapping[str, Any]]
"""What ``report_facts.facts_of_run`` says, by run id."""

_MOST_DISTRIBUTIONS = 6  # rows of the table with a figure of errors
_MOST_SET_SIZES = 5  # in one of these figures
_MOST_CURVES = 120
_MOST_RANKED = 20


def make_page(collected: Collected, facts: Facts, people: "Mapping[str, pd.DataFrame]", folder: Path) -> Page:
    """The page of a sweep in ``folder`` (``runs/<sweep>``) with what is finished of it.

    Args:
        people: by source, the models fitted to each person, see ``report_facts.models_of_people``.
    """
    sweep = collected.sweep
    found = len(sweep.runs) - len(collected.holes)
    sections = [_holes(collected.holes)] if collected.holes else []
    if found:
        sections += [
            _set_sizes(collected),
            _distributions(collected, facts),
            _shape(collected),
            _swaps(collected, facts),
            _models(collected, facts, people),
            _people(collected),
            _training(collected, facts),
        ]
        sections += [analyses_section(collected)] if collected.analyses.dictionary else []
    sections.append(_everything(collected, folder))
    axes = ", ".join(name.rsplit(".", 1)[-1] for name in sweep.axes)
    summary = [
        f"A sweep over {axes}." if axes else "A sweep of one network.",
        "The unit of every interval is the seed; angles are in radians.",
        "k² is the Fano factor of the spike noise (k = 1 is Poisson)." if NOISE_FACTOR in sweep.axes else "",
        note(collected),
    ]
    if len(facts) < found:
        some = f"{len(facts)} of {found} runs, evenly spread over the grid"
        summary.append(f"Error distributions, swaps by distance, models and training are of {some}.")
    return Page(sweep.name, " ".join(filter(None, summary)), _facts(collected, found, folder), sections)


def _facts(collected: Collected, found: int, folder: Path) -> list[tuple[str, str]]:
    sweep = collected.sweep
    seeds = {run.seed for run in sweep.runs}
    sizes = sorted({n for run in sweep.runs for n in run.configuration.model_params.item_num})
    facts = [
        ("Runs finished", f"{found} of {len(sweep.runs)}"),
        ("Grid points", str(len({str(dict(run.settings)) for run in sweep.runs}))),
        ("Seeds", str(len(seeds))),
        ("Set sizes", ", ".join(map(str, sizes))),
    ]
    provenance = read_json(folder / "provenance.json") or {}
    git = provenance.get("git") or {}
    if git.get("commit"):
        facts.append(("Code", f"{str(git['commit'])[:12]}{', modified' if git.get('modified') else ''}"))
    if provenance.get("time"):
        facts.append(("Last launch", str(provenance["time"])[:16].replace("T", " ")))
    return facts


def _holes(holes: Sequence[Hole]) -> Section:
    by_command: dict[str, list[Hole]] = {}
    for hole in holes:
        by_command.setdefault(hole.command, []).append(hole)
    missing = []
    for command, runs in by_command.items():
        names = [name.rsplit(".", 1)[-1] for name in runs[0].settings]
        heads = [Head("run"), *map(Head, names), Head("seed", is_number=True), Head("why")]
        rows = [
            [
                Cell(hole.run_id),
                *(Cell(cell_text(value)) for value in hole.settings.values()),
                Cell(str(hole.seed), hole.seed),
                Cell(hole.why),
            ]
            for hole in runs[:100]
        ]
        missing.append(
            MissingRuns(len(runs), command, PageTable("", heads, rows, False, len(runs[100:]), "this sweep"))
        )
    return Section("holes", "Missing runs", holes=missing)


def _set_sizes(collected: Collected) -> Section:
    from vwm.behaviour.figures import one_measure

    title = legend_title(collected)
    people = collected.people.summaries
    captions = {
        "mean_abs_error": "Mean |error|; chance is π/2.",
        "precision": "Precision: 1/circular SD less its expectation under guessing (Bays et al. 2009).",
        "capacity": "Capacity of the two-component mixture (Zhang & Luck 2008).",
    }
    figures = [
        PageFigure(measure, one_measure(collected.by_row, measure, title, people), caption)
        for measure, caption in captions.items()
        if collected.by_row[f"{measure}_mean"].notna().any()
    ]
    intervals = "Means over seeds, shaded with the 95 % interval of the mean (Student t over seeds)"
    sources = [source for source in collected.people.citations if source in set(people["source"])]
    text = (
        f"{intervals}; dotted: people with standard errors, at the set sizes that both have."
        if sources
        else f"{intervals}."
    )
    table = page_table(layout(collected), "Mean [95 % interval] over seeds", "tables/by_set_size.csv")
    return Section("set-size", "Precision and capacity", [text], figures=figures, tables=[table])


def _distributions(collected: Collected, facts: Facts) -> Section:
    import numpy as np

    from vwm.behaviour.page_figures import error_distribution

    figures = []
    rows = evenly(list(dict.fromkeys(collected.by_row["row"])), _MOST_DISTRIBUTIONS)
    for number, row in enumerate(rows):
        runs = [run for run in facts if collected.row_of_run[run] == row]
        if not runs:
            continue
        sizes = sorted({int(n) for run in runs for n in facts[run]["histograms"]})
        sizes = evenly(sizes, _MOST_SET_SIZES)
        measured = collected.runs[collected.runs["run_id"].isin(runs)]
        counts, fits = {}, {}
        for n in sizes:
            found = [facts[run]["histograms"][str(n)] for run in runs if str(n) in facts[run]["histograms"]]
            counts[n] = np.sum(found, axis=0)
            fits[n] = list(measured.loc[measured["set_size"] == n, ["w", "kappa"]].itertuples(index=False, name=None))
        named = f"{_row_title(collected)}: {cell_text(row)}"
        figure = error_distribution(counts, fits, named)
        figures.append(PageFigure(f"errors_{number}", figure, f"{named}; {len(runs)} runs together."))
    text = (
        "Points: errors of all seeds in bins of 3°. Lines: the fitted two-component mixture, w at the target and the "
        "rest uniform, averaged over seeds. Dashed: guessing."
    )
    return Section("errors", "Error distributions", [text], figures=figures)


def _shape(collected: Collected) -> Section:
    """Variance and kurtosis on logarithmic axes, and the exponent of the variance."""
    import pandas as pd

    from vwm.behaviour import power_law
    from vwm.behaviour.figures import one_measure
    from vwm.behaviour.page_figures import exponents

    title, people = legend_title(collected), collected.people.summaries
    captions = {
        "circular_variance": "Circular variance −2 ln R.",
        "circular_kurtosis": "Circular kurtosis (Fisher 1993), 0 for a wrapped normal; negative ones are left out.",
    }
    figures = [
        PageFigure(measure, one_measure(collected.by_row, measure, title, people), caption)
        for measure, caption in captions.items()
        if (collected.by_row[f"{measure}_mean"] > 0).any()
    ]
    variance = people[people["measure"] == "circular_variance"]
    sizes = _comparable_set_sizes(variance, set(collected.runs["set_size"]))
    runs = collected.runs.assign(
        row=collected.runs["run_id"].map(collected.row_of_run), responder=collected.runs["run_id"]
    )
    runs = runs[runs["set_size"].isin(sizes)]
    if runs["set_size"].nunique() < 2:
        return Section("shape", "Variance, kurtosis and exponent", figures=figures)
    fits = [(row, power_law.fit(points)) for row, points in runs.groupby("row", sort=False)]
    of_people = []
    for source, of_source in variance.groupby("source", sort=False):
        if sizes <= set(of_source["set_size"]):
            table = pd.DataFrame(
                {"responder": source, "set_size": of_source["set_size"], "circular_variance": of_source["mean"]}
            )
            of_people.append((str(source), power_law.fit(table[table["set_size"].isin(sizes)])))
    listed = ", ".join(map(str, sorted(int(n) for n in sizes)))
    caption = (
        f"Exponent of the variance as a power of set size ({listed}), with the 95 % bootstrap interval over seeds."
    )
    figures.append(PageFigure("exponent", exponents(fits, of_people, title), caption))
    table = pd.DataFrame(
        [
            {
                _row_title(collected): cell_text(row),
                "exponent": round(fit.exponent, 3),
                "interval": f"[{fit.low:.3f}, {fit.high:.3f}]" if fit.low == fit.low else "–",
                "scale": round(fit.scale, 4),
                "responders": fit.n_responders,
            }
            for row, fit in (*fits, *of_people)
        ]
    )
    shown = page_table(table, "Variance = scale · n^exponent, by responder, then averaged")
    return Section("shape", "Variance, kurtosis and exponent", figures=figures, tables=[shown])


def _comparable_set_sizes(people: "pd.DataFrame", of_networks: set[int]) -> set[int]:
    """Set sizes at which an exponent can be compared with the most sources; the networks' own where with none."""
    matched = [of_networks & set(points["set_size"]) for _, points in people.groupby("source", sort=False)]
    candidates = [sizes for sizes in matched if len(sizes) > 2] or [sizes for sizes in matched if len(sizes) > 1]
    if not candidates:
        return of_networks
    return max(candidates, key=lambda sizes: (sum(sizes <= others for others in matched), len(sizes)))


def _swaps(collected: Collected, facts: Facts) -> Section:
    from vwm.behaviour.figures import one_measure
    from vwm.behaviour.page_figures import swaps_by_distance

    title = legend_title(collected)
    if collected.by_row["p_n_mean"].isna().all():
        return Section("swaps", "Swaps", ["With one item on a trial there is nothing to swap it with."])
    caption = "Swap rate by set size: p_n of the three-component mixture (Bays et al. 2009); dotted: the null."
    figures = [PageFigure("p_n", one_measure(collected.by_row, "p_n", title, collected.people.summaries), caption)]
    kinds = {
        "angle": ("Distance from the target in angle (rad)", "Swaps by how far the other item's angle is."),
        "location": ("Distance from the target in locations", "Swaps by how far the other item's place is."),
    }
    for kind, (axis, caption) in kinds.items():
        rates = _swap_rates(collected, facts, kind)
        if len(rates):
            figures.append(PageFigure(f"swaps_by_{kind}", swaps_by_distance(rates, axis, title), caption))
    text = (
        "A response near another item of the trial can be chance. The null reassigns the non-targets, as angles "
        "relative to the target, between the responses of a set size; dotted: its mean. The table of runs has its 95 % "
        "point and a p-value for every set size."
    )
    columns = ["set_size", "p_n_mean", "p_n_ci_low", "p_n_ci_high", "swap_null_mean", "swap_null_ci_low"]
    shown = layout(collected)[[_row_title(collected), *columns, "swap_null_ci_high", "n_seeds"]]
    table = page_table(shown[shown["set_size"] > 1], "Swap rate and its null, mean [95 % interval] over seeds")
    return Section("swaps", "Swaps", [text], figures=figures, tables=[table])


def _swap_rates(collected: Collected, facts: Facts, kind: str) -> "pd.DataFrame":
    """Swaps per non-target shown, all set sizes together: the mean over the runs of each row."""
    import pandas as pd

    tables = [
        pd.DataFrame(facts[run][f"swaps_by_{kind}"]).assign(row=collected.row_of_run[run], run=run) for run in facts
    ]
    rates = pd.concat(tables, ignore_index=True)
    if rates.empty:
        return rates
    if kind == "angle":
        rates["distance"] = (rates["distance_low"] + rates["distance_high"]) / 2
    shown = rates["n_non_targets"]
    sums = rates.assign(swap_rate=rates["swap_rate"] * shown, null_rate=rates["null_rate"] * shown)
    columns = ["swap_rate", "null_rate", "n_non_targets"]
    of_runs = sums.groupby(["row", "run", "distance"], sort=False)[columns].sum()
    of_runs = of_runs[["swap_rate", "null_rate"]].div(of_runs["n_non_targets"], axis=0)
    means = of_runs.groupby(["row", "distance"], sort=False).mean().reset_index()
    return means.sort_values("distance", kind="stable").sort_values(
        "row", key=lambda column: column.map(list(dict.fromkeys(collected.by_row["row"])).index), kind="stable"
    )


def _models(collected: Collected, facts: Facts, people: "Mapping[str, pd.DataFrame]") -> Section:
    import pandas as pd

    from vwm.behaviour import set_size_models
    from vwm.behaviour.page_figures import model_comparison
    from vwm.sweep.report_facts import MODEL_TRIALS

    groups: list[tuple[Any, bool, pd.DataFrame]] = []
    for row in dict.fromkeys(collected.by_row["row"]):
        of_seeds = [pd.DataFrame(facts[run]["models"]) for run in facts if collected.row_of_run[run] == row]
        if of_seeds:
            groups.append((row, False, pd.concat(of_seeds, ignore_index=True)))
    groups += [(source, True, fits) for source, fits in people.items()]
    if not groups:
        return Section("models", "Models across set sizes")
    tables, means = [], []
    for row, is_human, fits in groups:
        compared = set_size_models.compare(fits)
        difference = compared["aic_sum"] / compared["n_responders"]
        means.append(compared.assign(row=row, is_human=is_human, difference=difference))
        compared.insert(0, _row_title(collected), cell_text(row))
        tables.append(compared)
    figure = model_comparison(pd.concat(means), set_size_models.MODELS, legend_title(collected))
    whose = "seeds or people" if people else "seeds"
    caption = f"The mean over {whose} of AIC less that of the best model of each; 0 is a model that is best for all."
    text = (
        f"Each model is fitted to each seed by maximum likelihood, to one response of each of the first {MODEL_TRIALS} "
        "trials of a set size, about what a person gives"
        + (", and to all responses of each person. " if people else ". ")
        + f"Criteria are compared one by one; wins are the {whose} whose best model it is, sums are over {whose}."
    )
    every = pd.concat(tables, ignore_index=True).rename(columns={"k": "parameters", "n_responders": whose})
    for criterion in ("aic", "aicc", "bic"):
        every[f"{criterion}_sum"] = every[f"{criterion}_sum"].round(1)
    return Section(
        "models",
        "Models across set sizes",
        [text],
        figures=[PageFigure("models", figure, caption)],
        tables=[page_table(every, "Models by row")],
    )


def _people(collected: Collected) -> Section:
    from vwm.behaviour.page_figures import ranking

    ranked = collected.ranking
    sources = [f"{source}: {text}" for source, text in collected.people.citations.items()]
    if ranked.empty:
        text = "No set size of this sweep is one at which people's variance and kurtosis are known."
        return Section("people", "Beside people", [text, *sources])
    labels = [
        ", ".join(cell_text(point[name]) for name in collected.sweep.axes) or collected.sweep.name
        for _, point in ranked.iterrows()
    ]
    points = ranked.assign(label=labels)
    closest = points.groupby("label")["rms_z"].min().sort_values().index[:_MOST_RANKED]
    order = {label: place for place, label in enumerate(closest)}
    points = points[points["label"].isin(closest) & points["rms_z"].notna()]
    points = points.sort_values("label", key=lambda column: column.map(order))
    title = ", ".join(name.rsplit(".", 1)[-1] for name in collected.sweep.axes) or "sweep"
    figures = []
    if not points.empty:
        figures = [
            PageFigure("ranking", ranking(points, title), "Grid points by closeness to people, the closest on top.")
        ]
    text = (
        "At matched set sizes only. z is in standard errors of people's means; the distances are the root mean square "
        "of the difference of ln variance and of kurtosis, and the difference of the variance's exponent over set size."
    )
    tables = [
        page_table(ranked, "Ranking of grid points, the closest first", "tables/ranking.csv"),
        page_table(collected.comparison, "Every measure beside people's", "tables/people.csv", folded=True),
    ]
    return Section("people", "Beside people", [text, *sources], figures=figures, tables=tables)


def _training(collected: Collected, facts: Facts) -> Section:
    import numpy as np

    from vwm.behaviour.page_figures import training

    runs = sorted((run for run in facts if facts[run]["curve"]), key=list(collected.row_of_run).index)
    shown = evenly(runs, _MOST_CURVES)
    if not shown:
        return Section("training", "Training", ["None of these runs was trained."])
    curves = []
    for run in shown:
        iterations, errors = np.array(facts[run]["curve"]).T
        curves.append((collected.row_of_run[run], iterations, errors))
    text = "Mean |error| over set sizes on the trials of training, a line for each run; dashed: guessing."
    if len(shown) < len(runs):
        text += f" {len(shown)} of {len(runs)} runs are drawn."
    figure = training(curves, legend_title(collected))
    return Section("training", "Training", [text], figures=[PageFigure("training", figure, "Learning curves.")])


def _everything(collected: Collected, folder: Path) -> Section:
    provenance = read_json(folder / "provenance.json") or {}
    blocks = [Block("The sweep, resolved", dump_yaml(dict(collected.sweep.resolved)))]
    if provenance.get("packages"):
        versions = {"python": provenance.get("python"), **provenance["packages"]}
        blocks.append(Block("Versions", dump_yaml(versions)))
    by_set_size, runs = (without_analyses(collected, table) for table in (collected.by_set_size, collected.runs))
    tables = [
        page_table(by_set_size, "Grid point × set size", "tables/by_set_size.csv", folded=True),
        page_table(runs, "Run × set size", "tables/runs.csv", folded=True),
        _dictionary(collected),
    ]
    return Section("tables", "All tables", tables=tables, blocks=blocks)


def _dictionary(collected: Collected) -> PageTable:
    heads = [Head(text) for text in ("column", "meaning", "unit", "convention")]
    rows = [
        [Cell(text) for text in (name, column.meaning, column.unit, column.convention)]
        for name, column in data_dictionary_of(collected).items()
    ]
    return PageTable("What the columns mean", heads, rows, folded=True)


def _row_title(collected: Collected) -> str:
    return ", ".join(name.rsplit(".", 1)[-1] for name in row_names(collected.sweep)) or "sweep"
