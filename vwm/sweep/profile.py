"""A launch profile: where the jobs of a sweep run, and with how much of the machine."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vwm.config import InvalidInput, Problem, show_value
from vwm.files import nearest, read_document

Count = Annotated[int, Field(ge=1)]


def _auto_is_none(value: Any) -> Any:
    return None if value == "auto" else value


class Profile(BaseModel):
    """``launch/local.yaml``: jobs on this machine, a few at a time."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    where: Literal["local"] = "local"
    jobs_at_a_time: Annotated[Count | None, BeforeValidator(_auto_is_none)] = None  # auto: as many as cores allow
    processes_per_job: Count = 1  # data-parallel processes that torchrun starts, one thread each
    runs_per_job: Count = 1  # runs trained together as one pack

    @property
    def concurrency(self) -> int:
        """Jobs that run at the same time."""
        return self.jobs_at_a_time or max(1, _cores() // self.processes_per_job)


def _cores() -> int:
    """Cores that this process may use, which a batch system or a container can make fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


_EXPECTED = {
    "where": "local",
    "jobs_at_a_time": "auto, or a whole number from 1 on",
    "processes_per_job": "a whole number from 1 on",
    "runs_per_job": "a whole number from 1 on",
}


def read_profile(path: Path) -> Profile:
    """Read and check a launch profile.

    Raises:
        InvalidInput: an unknown key or a value of the wrong kind.
        UserError: the file cannot be read.
    """
    document = read_document(path)
    content = {} if document.content is None else document.content
    if not isinstance(content, dict):
        raise InvalidInput([Problem(document.name, "the whole file", show_value(content), "keys such as where: local")])
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise InvalidInput(
            [_problem(str(item["loc"][0]), item["input"], document.place(item["loc"])) for item in error.errors()]
        ) from None


def _problem(key: str, given: object, place: str) -> Problem:
    if key in _EXPECTED:
        return Problem(place, key, show_value(given), _EXPECTED[key])
    return Problem(place, key, f"unknown key {key!r}", f"one of {', '.join(_EXPECTED)}", nearest(key, _EXPECTED))
