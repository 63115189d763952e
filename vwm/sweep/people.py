"""The people that networks are put beside: published summaries, and files of full data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vwm.errors import UserError
from vwm.files import nearest

if TYPE_CHECKING:
    import pandas as pd

    from vwm.behaviour.responses import Responses


@dataclass(frozen=True)
class People:
    """Measures of people by set size, and what is to be said of each source."""

    summaries: "pd.DataFrame"  # as human.SUMMARIES
    citations: Mapping[str, str]  # source → reference, or how its file was read
    responders: "Mapping[str, tuple[Responses, ...]]"  # source → the people of its file


def published() -> People:
    """The published summaries that come with the program."""
    from vwm.behaviour import human

    return People(human.SUMMARIES, human.CITATIONS, {})


def read_people(files: Sequence[Path], columns: str | None, units: str) -> People:
    """Published summaries and the people of these CSV files, a source each.

    Args:
        columns: ``NAME=COLUMN,...``: the files' own names of columns.
        units: rad, deg or deg180.

    Raises:
        UserError: a file or an option is refused.
    """
    import pandas as pd

    from vwm.behaviour import human
    from vwm.behaviour.response_files import read_csv
    from vwm.behaviour.tables import measures

    names = _columns(columns)
    people = published()
    parts, citations, responders = [people.summaries], dict(people.citations), {}
    for path in files:
        file = read_csv(path, names, units)
        measured = pd.concat(measures(person).assign(responder=person.responder) for person in file.responders)
        source = source_of(path, files)
        parts.append(human.summarise(measured, source))
        responders[source] = file.responders
        citations[source] = f"{len(file.responders)} people. {file.note}".strip()
    return People(pd.concat(parts, ignore_index=True), citations, responders)


def source_of(path: Path, files: Sequence[Path]) -> str:
    """What the people of a file are called: its name, or its path where several of ``files`` have that name."""
    return path.name if sum(path.name == other.name for other in files) == 1 else str(path)


def _columns(text: str | None) -> dict[str, str]:
    from vwm.behaviour.response_files import COLUMNS

    columns: dict[str, str] = {}
    for part in text.split(",") if text else []:
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if name not in COLUMNS or not equals or not column:
            expected = f"NAME=COLUMN with a NAME of {', '.join(COLUMNS)}"
            raise UserError(f"--columns {part}: expected {expected}. {nearest(name, COLUMNS)}".rstrip())
        columns[name] = column
    return columns
