"""Launching a sweep on a SLURM cluster: each run is submitted exactly once, whatever happens around sbatch.

Before sbatch is called, the ledger holds the intent: a unique job name and the runs of every element. Whoever finds an
intent without a word on what came of it asks the scheduler for that name, and takes the job over or declares it void.
"""

import io
import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from vwm.errors import UserError
from vwm.sweep.arrays import Array, LiveElement, Outlook, live_elements, look_ahead
from vwm.sweep.doubt import alone, settle, settle_earlier_intents, take_over
from vwm.sweep.grid import Sweep
from vwm.sweep.ledger import Job, Ledger
from vwm.sweep.limits import read_limits
from vwm.sweep.plan import Plan, State, jobs_to_start, make_plan
from vwm.sweep.profile import SlurmProfile
from vwm.sweep.provenance import record_launch
from vwm.sweep.slurm import SchedulerUnreachable, cancel, queue
from vwm.sweep.snapshot import take_snapshot
from vwm.training.mirror import tracking_mode
from vwm.training.run_folder import prepare_run_folder

if TYPE_CHECKING:
    from submitit import SlurmExecutor

SBATCH_TIMEOUT_S = 60  # An sbatch that has not answered by then is ended.
# What sbatch says when it does not know whether the controller has taken the job, or was ended while it tried again.
_UNSURE = (
    *("timed out", "Unable to contact", "Zero Bytes", "connect", "Message", "transport", "Transport", "unexpected"),
    "retrying",
)

_DONE, _NO_ROOM, _REFUSED, _UNREACHABLE = 0, 1, 2, 3  # exit codes
# An ignored signal stays ignored in the programs that are started: SIGUSR2 comes once, and would kill a Python that has
# not set its handler yet. A container's own start may undo it, so that it is said inside and outside of one.
_IGNORING_USR2 = """sh -c 'trap "" USR2; exec "$@"' sh"""
_BEGINNING = """sh -c 'trap "" USR2; rm -f "$VWM_NOT_BEGUN"; exec "$@"' sh"""
# A job that is preempted before its setup is over gets no step any more once its time of grace is over. The script
# would end with srun, and the job would have failed, in the seconds that SLURM takes to requeue it.
_SRUN = """\
export VWM_NOT_BEGUN="$(mktemp)"
srun() {
  local code=0
  command srun "$@" || code=$?
  if [ "$code" != 0 ] && [ -e "$VWM_NOT_BEGUN" ]; then
    echo "[job] SLURM has not started the step. In case that it is about to end the job, this waits for two minutes."
    rm -f "$VWM_NOT_BEGUN"
    sleep 120 & wait "$!"
  fi
  return "$code"
}"""


@dataclass(frozen=True)
class _Answer:
    """What came of calling sbatch."""

    slurm_id: str | None
    exit_code: int  # of the launch, if nothing else is submitted
    is_too_much: bool = False  # SLURM has no room for so many jobs, and may have for fewer


class Submission:
    """One launch of a sweep on a cluster."""

    def __init__(
        self, sweep: Sweep, folder: Path, profile: SlurmProfile, console: Console, analyses: Sequence[str] = ()
    ) -> None:
        """Writes nothing yet.

        Args:
            sweep: whose runs are submitted.
            folder: runs/<sweep>.
            profile: what each job gets.
            console: where it says what it does.
            analyses: what the jobs are to do of their runs, which are finished; without any, they train them.

        Raises:
            UserError: SLURM cannot write into a folder of this name.
        """
        self.sweep = sweep
        self.folder = folder.absolute()
        self.profile = profile
        self.console = console
        self.ledger = Ledger(self.folder / "ledger.jsonl")
        self._analyses = tuple(analyses)
        self._task = profile.analysis_task(analyses) if analyses else profile.task()
        self._prefix = f"{sweep.name}-{secrets.token_hex(4)}"
        self._intents = 0
        if re.search(r"[%\\:\r\n]", str(self.folder)):
            raise UserError(
                f"{str(self.folder)!r}: to SLURM or Python, %, \\, : and line breaks in a path mean something else. "
                "Launch from a folder without them, or name another one with --runs."
            )

    def run(self, states: Sequence[State], only: Sequence[str] | None = None, prune: bool = False) -> int:
        """Submit the runs that are in one of ``states`` (of these ids, if ``only`` is given) and not live.

        Args:
            states: which runs to submit.
            only: ids of runs.
            prune: also cancel live jobs none of whose runs is in the grid any more.

        Returns:
            0 all is submitted, 1 the queue has no room for the rest, 2 SLURM refused, 3 SLURM could not be asked.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder, self._say):
            try:
                return self._run(states, only, prune)
            except SchedulerUnreachable as words:
                self._say(f"SLURM cannot be asked: {words}", "red")
                self._say("Nothing more was submitted. Launch again when SLURM answers.")
                return _UNREACHABLE

    def _run(self, states: Sequence[State], only: Sequence[str] | None, prune: bool) -> int:
        settle_earlier_intents(self.folder, self.ledger, self._say)
        # The queue comes before the folders: a job that leaves in between has written how its runs are.
        jobs = [job for job in self.ledger.jobs() if bool(job.analyses) == bool(self._analyses)]
        live = live_elements(jobs, queue([job.name for job in jobs if job.slurm_id is not None]))
        plan = make_plan(self.sweep, self.folder)
        if prune:
            live = self._prune(live, plan)
        taken = {run for element in live for run in element.runs}
        wanted = [run for run in plan.in_state(*states) if run.run_id not in taken]
        wanted = [run for run in wanted if only is None or run.run_id in only]
        if taken:
            self._say(f"{_runs(len(taken))} in the queue already, left alone.")
        if not wanted:
            self._say("There is nothing to submit.")
            return _DONE
        packs = jobs_to_start(wanted, self.profile)
        outlook = look_ahead(packs, self.profile, read_limits(self.profile), len(queue()))
        for line in outlook.lines:
            self._say(line)
        return self._submit_all(outlook, sorted({element.entry.array_id for element in live}))

    # -- submitting --------------------------------------------------------------------------------------------

    def _submit_all(self, outlook: Outlook, live_arrays: Sequence[str]) -> int:
        code = take_snapshot(self.folder)
        (self.folder / "jobs").mkdir(exist_ok=True)
        record_launch(self.sweep, self.folder, self.profile, code)
        for array in outlook.arrays:
            for observed in (run for pack in array.packs for run in pack):
                assert observed.run is not None
                prepare_run_folder(self.folder / observed.run_id, observed.run.configuration, flush=False)
        os.sync()  # Flushing ten thousand files one by one would take most of the launch.
        # What an earlier launch has queued keeps its own throttle, so that with a limit the new jobs wait for its end.
        earlier = live_arrays if self.profile.jobs_at_a_time is not None else ()
        submitted: list[str] = []
        for array in outlook.arrays:
            after = earlier if array.after is None else [submitted[array.after]]
            answer = self._submit(array, after, code)
            whole = len(array.packs)
            while answer.is_too_much and len(array.packs) > 1:
                # SLURM takes an array as a whole or not at all: a sweep that is larger than a limit which only SLURM
                # knows would never begin.
                array = replace(array, packs=array.packs[: len(array.packs) // 2])
                self._say(f"Trying the first {_jobs(len(array.packs))} of them.", "yellow")
                answer = self._submit(array, after, code)
            if answer.slurm_id is not None:
                submitted.append(answer.slurm_id)
            if answer.exit_code or len(array.packs) < whole:
                if submitted:
                    self._say(f"Queued, and left there: {', '.join(submitted)}. The rest is for a later launch.")
                return answer.exit_code or _NO_ROOM
        self._tidy()
        if outlook.left_out:
            self._say(
                f"{_jobs(outlook.left_out)} not submitted, for the queue has no room ({outlook.limit}). "
                "Launch again when some of yours have ended.",
                "yellow",
            )
            return _NO_ROOM
        return _DONE

    def _intend(self, array: Array) -> Job:
        elements = tuple(tuple(observed.run_id for observed in pack) for pack in array.packs)
        job = Job(f"{self._prefix}-{self._intents}", elements, time.time(), task=self._task)
        self._intents += 1
        self.ledger.intends(job.name, job.elements, job.task)
        return job

    def _submit(self, array: Array, after: Sequence[str], code: Path) -> _Answer:
        """Note the intent and call sbatch."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        job = self._intend(array)
        executor = make_executor(self.folder, self.profile, job.name, len(array.packs), array.at_a_time, after, code)
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what it raises.
                # submitit's submit_array would call sbatch through an executor of its own, without a time limit.
                submitted = executor._submit_command(executor._submitit_command_str)
        except (FailedJobError, FailedSubmissionError, OSError) as failure:
            words = " ".join(str(failure).split()) or f"sbatch gave no answer within {SBATCH_TIMEOUT_S} s"
        else:
            answered = str(submitted.job_id).split("_")[0]
            take_over(job, answered, self.folder, self.ledger)
            self._say(f"submitted  {answered}  {job.name}  {_jobs(len(array.packs))}", "green")
            return _Answer(answered, _DONE)
        unsure = "no answer" in words or any(word in words for word in _UNSURE)
        if unsure:
            self._say(words, "yellow")
        found = settle(job, self.folder, self.ledger, words, patient=unsure, say=self._say)
        if found is not None:
            return _Answer(found, _DONE)
        if _is_no_room(words):
            self._say(f"SLURM did not take {_jobs(len(array.packs))}: {words}", "yellow")
            self._say("The queue has no room for them. Launch again when some jobs have ended.")
            return _Answer(None, _NO_ROOM, is_too_much=not unsure)
        if unsure:
            self._say("SLURM does not have the jobs. Launch again when it answers.", "red")
            return _Answer(None, _UNREACHABLE)
        self._say(f"SLURM refused the jobs: {words}", "red")
        self._say(_advice(words))
        return _Answer(None, _REFUSED)

    def _tidy(self) -> None:
        """Remove what failed submissions have left; nobody reads it, since no intent is in doubt."""
        for path in (self.folder / "jobs").glob(".submission_file_*.sh"):
            path.unlink(missing_ok=True)

    # -- pruning -----------------------------------------------------------------------------------------------

    def _prune(self, live: Sequence[LiveElement], plan: Plan) -> list[LiveElement]:
        """Cancel the live jobs none of whose runs is in the grid; gives the others."""
        kept_runs = {observed.run_id for observed in plan.runs}
        gone = [element for element in live if not kept_runs.intersection(element.runs)]
        mixed = [
            element for element in live if kept_runs.intersection(element.runs) and not kept_runs >= {*element.runs}
        ]
        if gone:
            self.ledger.cancelled(sorted({run for element in gone for run in element.runs}))
            cancel([element.entry for element in gone])
            for element in gone:
                self._say(
                    f"cancelled  {element.entry.target}  {' '.join(element.runs)}: no longer in the grid", "yellow"
                )
        for element in mixed:
            self._say(f"left alone {element.entry.target}: it also carries runs that are still in the grid")
        if not gone:
            self._say("No live job has all its runs outside the grid; nothing is cancelled.")
        return [element for element in live if element not in gone]

    def _say(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style), soft_wrap=not self.console.is_terminal)


def make_executor(
    folder: Path, profile: SlurmProfile, name: str, elements: int, at_a_time: int, after: Sequence[str], code: Path
) -> "SlurmExecutor":
    """submitit's executor for one array.

    Args:
        folder: runs/<sweep>, absolute.
        profile: what each job gets.
        name: the unique name of the array.
        elements: how many it has; a single one is a job that is no array.
        at_a_time: elements that run at the same time.
        after: ids of the arrays that must have ended before.
        code: what stands in front of PYTHONPATH in the job.
    """
    from submitit import SlurmExecutor

    options = profile.options()

    class Executor(SlurmExecutor):
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            # sbatch obeys variables more than the script, and has no time limit of its own.
            fixed = ("JOB_NAME", "ARRAY_INX", "OPEN_MODE", "SIGNAL", "NO_REQUEUE", "TIMELIMIT", "DEPENDENCY")
            ours = {*fixed, *(option.upper().replace("-", "_") for option in options)}
            dropped = [word for variable in sorted(ours) for word in ("-u", f"SBATCH_{variable}")]
            in_time = ["timeout", "--kill-after=5", str(SBATCH_TIMEOUT_S)]
            command: list[str] = super()._make_submission_command(submission_file_path)
            return ["env", *dropped, *in_time, *command]

    python = [_BEGINNING]
    if profile.container is not None:
        python += [profile.container, _IGNORING_USR2]
    python.append(shlex.quote(sys.executable))
    executor = Executor(folder / "jobs", max_num_timeout=profile.max_requeues, python=" ".join(python))
    own = ("nodes", "ntasks-per-node", "cpus-per-task", "time")  # submitit reckons with these itself
    parameters: dict[str, Any] = {option.replace("-", "_"): options[option] for option in own}
    executor.update_parameters(
        job_name=name,
        array_parallelism=at_a_time,
        dependency=f"afterany:{':'.join(after)}" if after else None,
        signal_delay_s=profile.signal_delay_s,
        stderr_to_stdout=True,
        wckey=None,
        setup=_setup(profile, code),
        srun_args=[f"--cpus-per-task={options['cpus-per-task']}"],  # srun does not inherit it since SLURM 22.05.
        additional_parameters={option: value for option, value in options.items() if option not in own},
        **parameters,
    )
    if elements > 1:
        executor.parameters["map_count"] = elements
    return executor


def _setup(profile: SlurmProfile, code: Path) -> list[str]:
    """The lines of bash before the Python of a job."""
    return [
        f"export WANDB_MODE={tracking_mode(None, profile.wandb)}",
        *(f"export {name}={shlex.quote(str(value))}" for name, value in profile.environment.items()),
        *profile.setup,
        f'export PYTHONPATH={shlex.quote(str(code))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        "export PYTHONSAFEPATH=1",  # Otherwise python -m looks into the folder that launch was called in first.
        "export SLURM_EXPORT_ENV=ALL",  # The task gets these variables, even if the job was to get none of the user's.
        _SRUN,
    ]


def _is_no_room(words: str) -> bool:
    """Whether SLURM takes no more jobs now; it refuses one that is too long or too large in nearly the same words."""
    limits = re.findall(r"\b(?:Assoc|QOS)\w+", words)
    return (
        any("SubmitJob" in limit for limit in limits)
        or ("submit limit" in words and not limits)
        or "temporarily unable to accept" in words
        or "Resource temporarily unavailable" in words
    )


def _advice(words: str) -> str:
    """What to do about a refusal."""
    lower = words.lower()
    for word, advice in (
        (
            "wallduration",
            "Lower timeout_min: in the profile, to the MaxWall of your account and QOS.",
        ),
        ("partition", "Correct partition: in the profile; sinfo shows the names."),
        ("account", "Correct account: in the profile; sacctmgr show associations shows yours."),
        ("qos", "Correct qos: in the profile; sacctmgr show qos shows the names."),
        ("gres", "Correct gpus_per_node: or gres: in the profile; sinfo -o '%P %G' shows what there is."),
        ("time limit", "Lower timeout_min: in the profile; sinfo -o '%P %l' shows the longest."),
        (
            "node",
            "Ask for less in the profile (nodes, cores, GPUs, memory, constraint); sinfo -N -l shows what there is.",
        ),
        ("memory", "Lower mem_gb: in the profile."),
    ):
        if word in lower:
            return advice
    return "Correct the profile and launch again."


def _runs(count: int) -> str:
    return f"{count} run{' is' if count == 1 else 's are'}"


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
