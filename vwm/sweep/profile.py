"""A launch profile: where the jobs of a sweep run, and with how much of the machine."""

import glob
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from vwm.config import Configuration
from vwm.config_file import InvalidInput, Problem, show_value
from vwm.files import Document, nearest, read_document
from vwm.sweep.packing import Pack, pack_of, read_packs
from vwm.sweep.sbatch_options import OWN, SBATCH_OPTIONS
from vwm.training.mirror import Mode

Count = Annotated[int, Field(ge=1)]
Line = Annotated[str, Field(pattern=r"^[^\r\n]+$")]  # A second line would be read as an option of its own.

_COUNT = "a whole number from 1 on"
_COUNT_OR_NONE = "a whole number from 0 on"
_LINE = "text on one line, or null"
_MODES = "online, offline or disabled"


def _auto_is_none(value: Any) -> Any:
    return None if value == "auto" else value


RunsPerJob = Count | Literal["auto"]
_COUNT_OR_AUTO = f"auto, or {_COUNT}"


class _Packed(BaseModel):
    """How many runs a job trains together."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    runs_per_job: RunsPerJob = Field(1, description=_COUNT_OR_AUTO)  # runs trained together as one pack
    _measured: dict[str, Pack] = PrivateAttr(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether jobs have a GPU."""
        raise NotImplementedError

    def pack(self, configuration: Configuration) -> Pack | None:
        """The pack that ``auto`` chooses for runs like this one; None where it is not asked, or there is no GPU.

        On a CPU a core for each run is the fastest.
        """
        return pack_of(configuration, self._measured) if self.runs_per_job == "auto" and self.on_gpu else None

    def pack_size(self, configuration: Configuration) -> int:
        """Runs like this one that a job trains together at most."""
        pack = self.pack(configuration)
        if pack is not None:
            return pack.runs
        return 1 if self.runs_per_job == "auto" else self.runs_per_job


class LocalProfile(_Packed):
    """``launch/local.yaml``: jobs on this machine, a few at a time. Descriptions of fields say what is expected."""

    where: Literal["local"] = Field("local", description="local or slurm")
    jobs_at_a_time: Annotated[Count | None, BeforeValidator(_auto_is_none)] = Field(
        None, description=_COUNT_OR_AUTO
    )  # auto: as many as cores allow
    processes_per_job: Count = Field(1, description=_COUNT)  # data-parallel ones that torchrun starts, a thread each
    wandb: Mode = Field("offline", description=_MODES)

    @property
    def on_gpu(self) -> bool:
        """Whether this machine has a GPU, as far as its devices tell without torch."""
        return bool(glob.glob("/dev/nvidia[0-9]*"))

    @property
    def concurrency(self) -> int:
        """Jobs that run at the same time."""
        return self.jobs_at_a_time or max(1, cores() // self.processes_per_job)


class SlurmProfile(_Packed):
    """``launch/slurm.yaml``, which explains every key: jobs that SLURM queues."""

    where: Literal["slurm"] = Field("slurm", description="local or slurm")

    nodes: Count = Field(1, description=_COUNT)
    processes_per_node: Count = Field(1, description=_COUNT)
    cpus_per_process: Count = Field(2, description=_COUNT)
    gpus_per_node: Annotated[int, Field(ge=0)] = Field(1, description=_COUNT_OR_NONE)
    gres: Line | None = Field(None, description=_LINE)
    mem_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="gigabytes above 0, or null"
    )
    timeout_min: Count = Field(240, description=_COUNT)

    signal_delay_s: Count = Field(120, description=_COUNT)
    max_requeues: Annotated[int, Field(ge=0)] = Field(20, description=_COUNT_OR_NONE)

    jobs_at_a_time: Count | None = Field(None, description=f"{_COUNT}, or null")
    wandb: Mode = Field("offline", description=_MODES)

    account: Line | None = Field(None, description=_LINE)
    partition: Line | None = Field(None, description=_LINE)
    qos: Line | None = Field(None, description=_LINE)
    constraint: Line | None = Field(None, description=_LINE)
    exclude: Line | None = Field(None, description=_LINE)
    mail_user: Line | None = Field(None, description=_LINE)
    mail_type: Line | None = Field(None, description=_LINE)

    setup: tuple[str, ...] = Field((), description="a list of lines for bash", strict=False)
    environment: dict[str, str | int | float] = Field(
        default_factory=dict, description="names of variables, each with a text or a number"
    )
    container: Line | None = Field(None, description=_LINE)
    sbatch: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="options of sbatch, each with a text, a number, or true where it takes none"
    )

    @property
    def gpus(self) -> int:
        """GPUs of one job."""
        named = re.search(r"\bgpu(?::[^:,()]*[^:,()\d][^:,()]*)?(?::(\d+))?(?=[,(]|$)", self.gres or "")
        return self.nodes * (int(named[1] or 1) if named else self.gpus_per_node)

    @property
    def on_gpu(self) -> bool:
        """Whether a job asks for a GPU."""
        return self.gpus > 0

    def options(self) -> dict[str, str | int | float | bool]:
        """What sbatch is asked for each job, by SLURM's own names; the array and its name come on top."""
        asked: dict[str, str | int | float | bool | None] = {
            "nodes": self.nodes,
            "ntasks-per-node": 1,  # The task starts torchrun, and torchrun the processes.
            "cpus-per-task": self.cpus_per_process * self.processes_per_node,
            "gpus-per-node": self.gpus_per_node or None,
            "gres": self.gres,
            "mem": None if self.mem_gb is None else f"{round(self.mem_gb * 1024)}M",
            "time": self.timeout_min,
            "requeue": True,
            "account": self.account,
            "partition": self.partition,
            "qos": self.qos,
            "constraint": self.constraint,
            "exclude": self.exclude,
            "mail-user": self.mail_user,
            "mail-type": self.mail_type,
            **self.sbatch,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def task(self) -> dict[str, int]:
        """What a job is told of this profile beside its runs: further arguments of ``TrainOnNodes``."""
        return {"processes_per_node": self.processes_per_node, **self._limits()}

    def analysis_task(self, analyses: Sequence[str]) -> dict[str, Any]:
        """What a job that analyses is told beside its runs: further arguments of ``AnalyseOnNode``."""
        return {"analyses": list(analyses), **self._limits()}

    def for_analyses(self) -> "SlurmProfile":
        """The same with the part of a node that one process gets, since an analysis is one process."""
        return self.model_copy(
            update={"nodes": 1, "processes_per_node": 1, "gpus_per_node": min(1, self.gpus_per_node)}
        )

    def _limits(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("max_requeues", "timeout_min", "signal_delay_s")}


Profile = LocalProfile | SlurmProfile


def cores() -> int:
    """Cores that this process may use, which a batch system or a container can make fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def choose_profile(on: Path | None, own: Path | None) -> tuple[Profile, str]:
    """The profile of a launch, and where it comes from, in words.

    Args:
        on: what ``--on`` names; it decides.
        own: the profile that the sweep file names. Where neither does, an sbatch on the PATH means SLURM with the
            values of ``launch/slurm.yaml``, and otherwise jobs run on this machine.

    Raises:
        InvalidInput, UserError: as ``read_profile``.
    """
    path = on or own
    if path is not None:
        return read_profile(path), os.path.relpath(path)
    if shutil.which("sbatch"):
        return SlurmProfile(), "SLURM as in launch/slurm.yaml, since there is an sbatch here and no profile is named"
    return LocalProfile(), "this machine, since there is no sbatch here and no profile is named"


def read_profile(path: Path) -> Profile:
    """Read and check a launch profile.

    Raises:
        InvalidInput: an unknown key or a value of the wrong kind.
        UserError: the file cannot be read, or the packs measured for it.
    """
    document = read_document(path)
    content = {} if document.content is None else document.content
    if not isinstance(content, dict):
        raise InvalidInput([Problem(document.name, "the whole file", show_value(content), "keys such as where: local")])
    kind = SlurmProfile if content.get("where") == "slurm" else LocalProfile
    try:
        profile: Profile = kind.model_validate(content)
    except ValidationError as error:
        problems = {str(item["loc"][0]): _problem(kind, item["loc"], content, document) for item in error.errors()}
        raise InvalidInput(list(problems.values())) from None
    problems_of_slurm = list(_contradictions(profile, document)) if isinstance(profile, SlurmProfile) else []
    if problems_of_slurm:
        raise InvalidInput(problems_of_slurm)
    if profile.runs_per_job == "auto":
        profile._measured = read_packs(path)
    return profile


def _problem(
    kind: type[LocalProfile] | type[SlurmProfile],
    at: tuple[str | int, ...],
    content: dict[Any, Any],
    document: Document,
) -> Problem:
    key, fields = str(at[0]), kind.model_fields
    place, given = document.place(at[:1]), show_value(content.get(at[0]))
    if key in fields:
        return Problem(place, key, given, str(fields[key].description))
    if kind is LocalProfile and key in SlurmProfile.model_fields:
        return Problem(place, key, "a key of SLURM's", "keys of a local profile", "add the line where: slurm")
    return Problem(place, key, f"unknown key {key!r}", f"one of {', '.join(fields)}", nearest(key, fields))


def _contradictions(profile: SlurmProfile, document: Document) -> Iterator[Problem]:
    """What no single value shows."""
    if profile.signal_delay_s >= 60 * profile.timeout_min:
        place, expected = document.place(("signal_delay_s",)), f"fewer than the {60 * profile.timeout_min} s of a job"
        yield Problem(place, "signal_delay_s", f"{profile.signal_delay_s} s", expected, "lower it or raise timeout_min")
    if profile.gpus_per_node and re.search(r"\bgpu\b", profile.gres or ""):
        place, given = document.place(("gres",)), f"GPUs beside gpus_per_node: {profile.gpus_per_node}"
        yield Problem(place, "gres", given, "one of the two ways to ask for GPUs", "write gpus_per_node: 0")
    for name in profile.environment:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield Problem(document.place(("environment", name)), "environment", repr(name), "the name of a variable")
    for name, value in profile.sbatch.items():
        place = document.place(("sbatch", name))
        if name in OWN:
            yield Problem(place, f"sbatch.{name}", "an option that vwm-sweep sets", "other options", OWN[name])
        elif name not in SBATCH_OPTIONS:
            hint = nearest(name, [*SBATCH_OPTIONS, *OWN])
            yield Problem(place, f"sbatch.{name}", "no option of sbatch", "a long option, without its dashes", hint)
        elif value is False or "\n" in str(value) or "\r" in str(value):
            yield Problem(place, f"sbatch.{name}", show_value(value), "text on one line, a number, or true")
