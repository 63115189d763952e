"""The numbers that analyses have left in the folders of runs, as columns of a sweep's tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.errors import UserError
from vwm.sweep.archive import Archive

if TYPE_CHECKING:
    import pandas as pd

    from vwm.behaviour.tables import Measure

_FOLDER, _ENDING = "analysis", ".columns.json"


@dataclass(frozen=True)
class AnalysisColumns:
    """What analyses say of the runs of a sweep; empty where none was done.

    Attributes:
        dictionary: meaning and unit of each column.
        values: by run id and column, one number for the run or, by set size, several.
    """

    dictionary: Mapping[str, "Measure"] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def beside(self, runs: "pd.DataFrame") -> "pd.DataFrame":
        """The columns for the rows of ``runs`` (run_id, set_size), under the same index; NaN where there is none."""
        import pandas as pd

        def cell(run_id: str, name: str, n: int) -> float:
            value = self.values.get(run_id, {}).get(name)
            if isinstance(value, dict):
                value = value.get(str(n))
            return float("nan") if value is None else float(value)

        keys = list(zip(runs["run_id"], runs["set_size"], strict=True))
        columns = {name: [cell(run_id, name, n) for run_id, n in keys] for name in self.dictionary}
        return pd.DataFrame(columns, index=runs.index, dtype="float64")


def read_analysis_columns(runs: Sequence[str], folder: Path) -> AnalysisColumns:
    """What is in the folders of these runs, or in the archive of the sweep.

    Args:
        runs: their ids.
        folder: ``runs/<sweep>``.

    Raises:
        UserError: a file cannot be read.
    """
    from vwm.behaviour.tables import Measure

    archived = Archive(folder).texts(f"{_FOLDER}/", _ENDING)
    dictionary: dict[str, Measure] = {}
    values: dict[str, dict[str, Any]] = {}
    for run_id in runs:
        texts = archived.get(run_id, {})
        if (folder / run_id).is_dir():
            paths = sorted((folder / run_id / _FOLDER).glob(f"*{_ENDING}"))
            texts = {str(path): path.read_text(encoding="utf-8") for path in paths}
        for place, text in texts.items():
            try:
                columns = json.loads(text)["columns"]
                for name, column in columns.items():
                    dictionary.setdefault(name, Measure(column["meaning"], column["unit"], "of an analysis"))
                    values.setdefault(run_id, {})[name] = column["values"]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"{place}: this file is damaged. Delete it, and do the analysis again.") from None
    return AnalysisColumns(dictionary, values)
