"""What a person sees of collecting a sweep, on a terminal of 80 characters or more."""

from typing import TYPE_CHECKING, Any

from vwm.sweep.collect import Collected, Hole, cell_text, evenly, row_names
from vwm.sweep.collect_files import NOISE_FACTOR, field_title, note

if TYPE_CHECKING:
    from rich.table import Table

_MOST_SET_SIZES = 10  # columns of numbers that fit a terminal of 80 characters
_MOST_RANKS = 8  # grid points of each source
_MOST_HOLES = 20  # runs under each command


def summary_table(collected: Collected) -> "Table":
    """Precision and capacity of every row against set size, for a terminal of 80 characters or more."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    sizes = sorted({int(n) for n in collected.by_row["set_size"]})
    shown = evenly(sizes, _MOST_SET_SIZES)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, collapse_padding=True, caption_justify="left")
    # Beside many set sizes the name stands one word a line, so that the column is no wider than its values need.
    joint = "_\n" if len(shown) > 6 else "_"
    names = [escape(field_title(name).split("\n")[0].replace("_", joint)) for name in row_names(collected.sweep)]
    table.add_column(",\n".join(names) or "sweep", overflow="fold", max_width=20)
    table.add_column("set size", no_wrap=True)
    for size in shown:
        table.add_column(str(size), justify="right", no_wrap=True)
    for row, cells in collected.by_row.groupby("row", sort=False):
        means = cells.set_index("set_size").reindex(shown)
        found, planned = int(cells["n_seeds"].min()), int(cells["n_planned"].max())
        runs = f"{found} run{'' if found == 1 else 's'}" if found == planned else f"{found} of {planned} runs"
        table.add_row(escape(cell_text(row)), "precision", *map(_two_decimals, means["precision_mean"]))
        table.add_row(f"  {runs}", "capacity", *map(_two_decimals, means["capacity_mean"]), end_section=True)
    table.caption = _summary_caption(collected, shown == sizes)
    return table


def _summary_caption(collected: Collected, complete: bool) -> str:
    parts = ["Means over runs. precision: 1/rad, Bays-corrected, 0 at chance; capacity: K = w·n, items; – no value."]
    if NOISE_FACTOR in row_names(collected.sweep):
        parts.append("k² is the Fano factor.")
    if not complete:
        parts.append("Other set sizes: by_set_size.csv.")
    return " ".join([*parts, note(collected)]).rstrip()


def ranking_table(collected: Collected) -> "Table | None":
    """The grid points that are closest to people, for every source; None where there is nothing to compare."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    ranking = collected.ranking
    if ranking.empty:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
    table.add_column("rank", justify="right")
    table.add_column(", ".join(name.rsplit(".", 1)[-1] for name in collected.sweep.axes) or "sweep", overflow="fold")
    for head in ("set\nsizes", "z", "variance\n(ln)", "kurtosis", "exponent"):
        table.add_column(head, justify="right", no_wrap=True)
    for source, points in ranking.groupby("source", sort=False):
        table.add_section()
        table.add_row("", f"[bold]{escape(str(source))}[/bold]")
        for _, point in points.head(_MOST_RANKS).iterrows():
            settings = ", ".join(cell_text(point[name]) for name in collected.sweep.axes) or collected.sweep.name
            distances = [point[name] for name in ("variance_distance", "kurtosis_distance", "exponent_distance")]
            counts = (_count(point["rank"]), escape(settings), _count(point["n_set_sizes"]))
            table.add_row(*counts, *map(_two_decimals, [point["rms_z"], *distances]))
        if len(points) > _MOST_RANKS:
            table.add_row("", f"… and {len(points) - _MOST_RANKS} more in ranking.csv")
    table.caption = (
        "Distance from people at the set sizes that both have: z (RMS, in standard errors of people's means), "
        "ln variance (RMS), kurtosis (RMS), exponent of the variance over set size."
    )
    return table


def holes_in_words(collected: Collected) -> list[str]:
    """The missing runs, a line each, under each command that fills some of them; plain text."""
    by_command: dict[str, list[Hole]] = {}
    for hole in collected.holes:
        by_command.setdefault(hole.command, []).append(hole)
    lines = []
    for command, holes in by_command.items():
        lines.append(f"{len(holes)} missing, to be filled by: {command}")
        for hole in holes[:_MOST_HOLES]:
            settings = [f"{name.rsplit('.', 1)[-1]} {cell_text(value)}" for name, value in hole.settings.items()]
            lines.append(f"  {hole.run_id}  {', '.join([*settings, f'seed {hole.seed}'])}: {hole.why}")
        if len(holes) > _MOST_HOLES:
            lines.append(f"  … and {len(holes) - _MOST_HOLES} more")
    return lines


def _two_decimals(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"  # NaN is not equal to itself


def _count(value: Any) -> str:
    return "–" if value != value else str(int(value))
