"""How far training is, for a person: bars on a terminal, now and then a line in a log file."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """One bar per run of a pack; where the output is no terminal, a line every ten seconds and at every end."""

    def __init__(self, shown: bool) -> None:
        """``shown`` is False in every process but the first, which stay silent."""
        self._console = Console(quiet=not shown, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[error]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
            expand=True,
        )
        self._tasks: dict[Path, TaskID] = {}
        self._last_line: dict[Path, float] = {}

    def __enter__(self) -> "ProgressDisplay":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, messages: Sequence[str]) -> None:
        """Print lines above the bars."""
        for message in messages:
            self._console.print(escape(message), soft_wrap=True)

    def begin(self, run: Path, iteration: int, total: int) -> None:
        """Show a run, which starts or goes on at ``iteration``."""
        name = escape(run.name)
        self._tasks[run] = self._bars.add_task(name, completed=iteration, total=total, speed="", error="")

    def advance(self, run: Path, iteration: int, total: int, speed: float | None, error: float | None) -> None:
        """Show the present iteration, iterations per second, and the mean |error| (rad) of the last history row."""
        speed_text = "" if speed is None else f"{speed:.3g} it/s"
        error_text = "" if error is None else f"error {error:.3f} rad"
        self._bars.update(self._tasks[run], completed=iteration, total=total, speed=speed_text, error=error_text)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line.get(run, -100.0) >= _SECONDS_BETWEEN_LINES:
            self._last_line[run] = now
            parts = [f"{run.name}: iteration {iteration} of {total}", speed_text, error_text]
            self.say([", ".join(part for part in parts if part)])

    def end(self, run: Path, message: str) -> None:
        """Take the run's bar away and say how it ended."""
        self._bars.remove_task(self._tasks.pop(run))
        self.say([f"{run.name}: {message}"])
