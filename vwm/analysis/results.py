"""What every analysis leaves in a run's folder: <name>.yaml with each number and what it means, .npz, .pdf and .png."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vwm.analysis.made_from import columns_file
from vwm.behaviour import figures
from vwm.errors import UserError
from vwm.files import dump_yaml, write_atomically
from vwm.model.network import Network

Progress = Callable[[int, int], None]
"""Told how many of how many parts of an analysis are done."""


def unwatched(done: int, total: int) -> None:
    """The progress that nobody looks at."""


@dataclass(frozen=True)
class Column:
    """A number of a run that tables of many runs show.

    Attributes:
        meaning, unit: for people who read the table without the program.
        values: one for the run, or by set size.
    """

    meaning: str
    unit: str
    values: float | Mapping[int, float]


class Result(Protocol):
    """What an analysis found."""

    def summary(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and mappings."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The numbers that are too many for a text."""

    def columns(self) -> dict[str, Column]:
        """Those that tables of many runs show, by the column's name, which is that of no other analysis's."""


def write_result(
    folder: Path,
    name: str,
    run_id: str,
    made_from: str,
    definitions: Mapping[str, str],
    result: Result,
    drawn: Mapping[str, Figure],
) -> list[Path]:
    """Write the files of one analysis, each atomically, the columns last; returns them, the text first.

    Args:
        folder: <run>/analysis, made here.
        name: of the analysis, and of its files.
        run_id: of the run.
        made_from: what the result was made from, see `made_from`; it says later whether the files are up to date.
        definitions: what each name of the summary means, with unit and source.
        result: the numbers.
        drawn: by the ending of the file's name: "" for <name>.png, "eigenvalues" for <name>_eigenvalues.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, figure in drawn.items():
        path = folder / (f"{name}_{ending}" if ending else name)
        figures.save(figure, path)
        written += [folder / f"{path.name}.pdf", folder / f"{path.name}.png"]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **result.arrays())
    write_atomically(folder / f"{name}.npz", buffer.getvalue())
    content = {"analysis": name, "run_id": run_id, "result": result.summary(), "definitions": dict(definitions)}
    write_atomically(folder / f"{name}.yaml", dump_yaml(_plain(content)))
    columns = {column: _for_json(asdict(one)) for column, one in result.columns().items()}
    path = columns_file(folder, name)
    write_atomically(path, json.dumps({"made_from": made_from, "columns": columns}, indent=1, allow_nan=False) + "\n")
    return [folder / f"{name}.yaml", folder / f"{name}.npz", path, *written]


def _for_json(value: Any) -> Any:
    """Plain numbers, and None for those that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _for_json(item) for key, item in value.items()}
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Without numpy's types, floats with six digits."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}")
    return value


def refuse_bad_weights(network: Network) -> None:
    """Refuse a network of which some number is not finite.

    Raises:
        UserError: there is a NaN or an infinity.
    """
    for name, values in network.state_dict().items():
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise UserError(
                f"The network cannot be analysed: {bad} of {values.numel()} numbers of {name!r} are NaN or infinite. "
                "Its training diverged; train it again with a smaller training_params.eta."
            )
