"""The page of a sweep: one HTML file that needs nothing else, on any screen and on paper, without a network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MOST_ROWS = 500  # of a table on the page; the files have all


@dataclass(frozen=True)
class Head:
    """The head of a table's column."""

    text: str
    meaning: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number it is sorted by."""

    text: str
    key: float | str = ""


@dataclass(frozen=True)
class PageTable:
    """A table that sorts."""

    title: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    left_out: int = 0  # rows that are only in the file
    file: str = ""


@dataclass(frozen=True)
class PageFigure:
    """A figure, its name as a file, and what it shows."""

    name: str
    figure: "Figure"
    caption: str


@dataclass(frozen=True)
class MissingRuns:
    """Runs that one command adds."""

    count: int
    command: str
    table: PageTable


@dataclass(frozen=True)
class Block:
    """Text as it is in a file."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    paragraphs: Sequence[str] = ()
    holes: Sequence[MissingRuns] = ()
    figures: Sequence[PageFigure] = ()
    tables: Sequence[PageTable] = ()
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Page:
    """All that the page says."""

    name: str
    summary: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section] = field(default_factory=list)


def write_page(page: Page, folder: Path) -> Path:
    """Write ``report.html`` in ``folder`` (``runs/<sweep>``) and its figures in ``figures`` beside it, as PDF and PNG.

    Text from files and people is escaped by the template; nothing of it is markup or script.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from vwm.behaviour.figures import colours, save, svg

    drawn = {figure.name: svg(figure.figure, figure.name) for section in page.sections for figure in section.figures}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for section in page.sections:
        for figure in section.figures:
            save(figure.figure, folder / "figures" / figure.name)
    here = Path(__file__).parent
    script = (here / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    html = template.render(
        page=page,
        svg={name: Markup(text) for name, text in drawn.items()},
        colours=colours(drawn.values()),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
    write_atomically(folder / "report.html", html)
    return folder / "report.html"


def page_table(table: "pd.DataFrame", title: str, file: str = "", folded: bool = False) -> PageTable:
    """A table of measures for the page: rounded as in Markdown, sorted by the full numbers."""
    from pandas.api.types import is_numeric_dtype

    from vwm.behaviour.table_text import readable
    from vwm.behaviour.tables import OF_THE_SWAPS, data_dictionary

    shown = table.head(_MOST_ROWS)
    heads: list[Head] = []
    columns: list[list[Cell]] = []
    for name, texts in readable(shown):
        source = name if name in shown else f"{name}_mean"
        is_number = is_numeric_dtype(shown[source])
        explained = data_dictionary([name]).get(name)
        meaning = f"{explained.meaning}; {explained.convention}".rstrip("; ") if explained else name
        unit = f" ({explained.unit})" if explained and explained.unit != "–" else ""
        words = name if name in OF_THE_SWAPS else name.rsplit(".", 1)[-1].replace("_", " ")
        heads.append(Head(words + unit, meaning, is_number))
        keys: list[Any] = shown[source].tolist() if is_number else [""] * len(texts)
        columns.append([Cell(text, key) for text, key in zip(texts, keys, strict=True)])
    rows = list(zip(*columns, strict=True))
    return PageTable(title, heads, rows, folded, max(0, len(table) - _MOST_ROWS), file)
