"""A saved view and a report of a sweep in Weights & Biases: does the error grow with the set size as it does in people?

Both are laid out by wandb-workspaces. A set size is no axis that W&B knows, so each has a bar of its own; runs are
averaged by grouping them by the first of the axes that make the sweep's rows.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vwm.errors import UserError
from vwm.sweep.collect import row_names
from vwm.sweep.grid import Sweep
from vwm.training.wandb_server import one_line

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report, Runset
    from wandb_workspaces.workspaces.interface import Workspace

_FINAL = {
    "mean_abs_error": "mean |error| (rad)",
    "precision": "precision (1/rad)",
    "capacity": "capacity K (items)",
    "w": "mixture weight w",
    "kappa": "concentration κ",
    "circular_sd": "circular SD (rad)",
}


class Dashboard:
    """The view and the report of one sweep; nothing is sent before `save`."""

    def __init__(self, sweep: Sweep, entity: str, project: str) -> None:
        """Lay them out.

        Raises:
            UserError: wandb-workspaces is not installed.
        """
        try:
            import wandb_workspaces  # noqa: F401  (whether it is there)
        except ImportError:
            raise UserError(
                "A dashboard needs the package wandb-workspaces: pip install 'vwm[dashboard]', or make install."
            ) from None
        self._sweep, self._entity, self._project = sweep, entity, project
        self._rows = row_names(sweep)
        self._sizes = sorted({size for run in sweep.runs for size in run.configuration.model_params.item_num})
        self.view = self._make_view()
        self.report = self._make_report()

    def save(self) -> tuple[str, str]:
        """Make both on the server; returns their addresses.

        Raises:
            UserError: the server refuses, or does not answer.
        """
        try:
            self.view.save()  # type: ignore[no-untyped-call]  # the library gives it no types
            self.report.save()
        except Exception as error:  # wandb raises its own errors, those of requests, and plain ones.
            where = "Look at WANDB_BASE_URL, WANDB_API_KEY and WANDB_ENTITY."
            raise UserError(f"W&B did not take the dashboard: {one_line(error)}. {where}") from None
        return self.view.url, self.report.url

    def as_json(self) -> str:
        """Both as JSON, for a look before anything is sent."""
        from pydantic import TypeAdapter

        parts = {"view": self.view, "report": self.report}
        content = {name: TypeAdapter(type(part)).dump_python(part, mode="json") for name, part in parts.items()}
        return json.dumps(content, indent=1, ensure_ascii=False)

    # -- the two -----------------------------------------------------------------------------------------------

    def _make_view(self) -> "Workspace":
        from wandb_workspaces.workspaces import interface as workspaces

        def section(name: str, panels: Sequence[Any]) -> Any:
            return workspaces.Section(name=name, panels=list(panels), is_open=True)

        return workspaces.Workspace(
            entity=self._entity,
            project=self._project,
            name=f"sweep {self._sweep.name}",
            sections=[
                section("Against set size", self._bars()),
                section("Training", self._curves()),
            ],
            runset_settings=workspaces.RunsetSettings(filters=self._filter(), pinned_columns=self._columns()),
        )

    def _make_report(self) -> "Report":
        from wandb_workspaces.reports.v2 import interface as reports

        ended = [self._runset("finished runs", " and State = 'finished'")]
        failed = [self._runset("failed runs", " and State in ['failed', 'crashed']")]
        seeds = len({run.seed for run in self._sweep.runs})
        rows = ", ".join(self._rows) or "no axis"
        return reports.Report(
            entity=self._entity,
            project=self._project,
            title=f"Sweep {self._sweep.name}",
            description=f"{len(self._sweep.runs)} runs, {seeds} seeds; rows: {rows}",
            blocks=[
                reports.H2(text="Error, precision and capacity against set size"),
                reports.P(
                    text=f"One bar a set size, means over runs, grouped by {rows}. The table is under the panels."
                ),
                reports.PanelGrid(runsets=ended, panels=self._bars()),
                reports.H2(text="Training"),
                reports.PanelGrid(runsets=[self._runset("all runs", "")], panels=self._curves()),
                reports.H2(text="Failures"),
                reports.PanelGrid(runsets=failed, panels=self._curves()[:1]),
            ],
        )

    # -- their parts -------------------------------------------------------------------------------------------

    def _filter(self) -> str:
        return f"Group = {json.dumps(self._sweep.name)}"

    def _runset(self, name: str, and_also: str) -> "Runset":
        from wandb_workspaces.reports.v2 import interface as reports

        return reports.Runset(
            entity=self._entity,
            project=self._project,
            name=name,
            filters=self._filter() + and_also,
            pinned_columns=self._columns(),
        )

    def _columns(self) -> list[str]:
        """Of the table of runs: how a run ended, its row and seed, and capacity and precision at each set size."""
        axes = [f"config:{_in_config(name)}" for name in (*self._rows, "training_params.seed")]
        numbers = [f"summary:final/{name}/{n}" for name in ("capacity", "precision") for n in self._sizes]
        return ["run:state", *axes, *numbers]

    def _bars(self) -> list[Any]:
        from wandb_workspaces.reports.v2 import interface as reports

        return [
            reports.BarPlot(
                title=title,
                metrics=[f"final/{name}/{size}" for size in self._sizes],
                orientation="v",
                groupby=self._group(),
                groupby_aggfunc="mean",
                title_x="set size",
                title_y=title,
            )
            for name, title in _FINAL.items()
        ]

    def _curves(self) -> list[Any]:
        from wandb_workspaces.reports.v2 import interface as reports

        def curve(name: str, title: str, log: bool = False) -> Any:
            return reports.LinePlot(
                title=title, x="trainer/step", y=[name], groupby=self._group(), log_y=log, title_x="iteration"
            )

        errors = [curve(f"mean_abs_error/{n}", f"mean |error| (rad), set size {n}") for n in self._sizes]
        others = [("mean_rate", "mean rate (Hz)", False), ("learning_rate", "learning rate", True)]
        return [curve("loss", "loss"), *errors, *(curve(*other) for other in others)]

    def _group(self) -> str | None:
        # W&B groups a panel by one key; the first axis of the rows is the one that the sweep's author put first.
        return f"config.{self._rows[0]}" if self._rows else None


def _in_config(name: str) -> str:
    """The column of a dotted name: W&B keeps the value of a key of the first level under ``value``."""
    section, _, rest = name.partition(".")
    return f"{section}.value.{rest}"
