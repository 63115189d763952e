"""A real SLURM cluster on one machine: a controller, its accounting and four nodes, each a namespace of its own.

    python tests/slurm/cluster.py up | down | status

needs root, and on a Debian without SLURM installs it. Only the standard library is used, so that it runs before the
project is installed. Everything listens on the loopback, everything it keeps is in one folder ($VWM_SLURM_DIR, or
/tmp/vwm-slurm), and only what it started is ever stopped.

Exit codes: 0 done, or a healthy cluster; 1 failed, or an unhealthy one; 2 wrong usage; 3 this machine cannot hold a
cluster; 4 (status) none is running.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Run as a script, this file is not part of a package yet.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.slurm.install import CannotRunHere, install_missing, search_path
from tests.slurm.processes import Failed, Process, members, namespace_of_children, process_namespace, start, wait_for
from tests.slurm.settings import GPUS_PER_NODE, NODES, settings_are_current, write, write_settings

ACCOUNT = "vwm"
OTHER_USER = "nobody"  # whose jobs root can submit with --uid

DEFAULT_FOLDER = Path("/tmp/vwm-slurm")

# The daemons beside the nodes, in the order they need each other.
DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld")

# $1 is the hosts file, $2 the host name, the rest the daemon.
ENTER = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && '


class Cluster:
    """The cluster in one folder. ``up`` gives a running one; the other methods act on it, whoever started it."""

    def __init__(self, folder: Path | None = None):
        self.folder = (folder or Path(os.environ.get("VWM_SLURM_DIR") or DEFAULT_FOLDER)).absolute()

    # ---- The whole cluster ----------------------------------------------------------------------------------------

    @classmethod
    def up(cls, folder: Path | None = None) -> "Cluster":
        """A healthy cluster: the one that runs, its missing parts started again, or else a fresh one.

        A cluster with settings of an older version of this folder is replaced by a fresh one.

        Raises:
            CannotRunHere: this machine cannot hold a cluster.
            Failed: it could, but something did not start; nothing is left running then.
        """
        cluster = cls(folder)
        cluster._refuse_impossible()
        install_missing()
        with cluster._locked():
            if cluster.living() and settings_are_current(cluster.folder):
                with contextlib.suppress(Failed):
                    cluster._start_missing()
                    return cluster
            cluster._stop_everything()
            try:
                cluster._start_fresh()
            except BaseException:
                cluster._stop_everything()
                raise
        return cluster

    def down(self) -> None:
        """Kill every daemon and every job, and remove all but the logs; without a cluster, do nothing."""
        if (self.folder / "cluster.lock").exists():
            with self._locked():
                self._stop_everything()

    def living(self) -> dict[str, Process]:
        """The daemons and nodes that run, by name."""
        processes = {name: Process(entry["pid"], entry["started"]) for name, entry in self._recorded().items()}
        return {name: process for name, process in processes.items() if process.alive()}

    def problems(self) -> list[str]:
        """What is wrong with the cluster, a sentence each; empty when it is healthy."""
        living = self.living()
        missing = [f"{name} does not run" for name in (*DAEMONS, *NODES) if name not in living]
        if "munged" not in living or "slurmctld" not in living:
            return missing
        if "slurmdbd" in living and "mariadbd" in living and not self._accounting_answers():
            missing.append("the accounting does not answer")
        try:
            states = self.node_states()
        except Failed:
            return [*missing, "slurmctld does not answer"]
        usable = ("idle", "mixed", "allocated", "completing")
        return missing + [f"{name} is {states[name]}" for name in NODES if states[name] not in usable]

    # ---- For tests ------------------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command that is to use this cluster, such as sbatch or a program that calls it."""
        # Settings of another cluster, and of the job that the tests themselves may run in, do not belong to this one.
        foreign = ("SLURM", "SBATCH", "SRUN", "SALLOC", "SQUEUE", "SACCT", "SINFO", "SCANCEL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {**kept, "PATH": search_path(), "SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def command(self, *arguments: object, timeout: float = 120) -> str:
        """Run one of SLURM's commands and give back what it prints.

        Raises:
            Failed: it ended with an error, whose words the message holds, or not within ``timeout`` seconds.
        """
        words = [str(argument) for argument in arguments]
        try:
            done = subprocess.run(
                words, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(words)}: no answer within {timeout:.0f} s") from None
        if done.returncode != 0:
            raise Failed(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def node_states(self) -> dict[str, str]:
        """The state of each node in sinfo's words; a star says that the node does not answer."""
        lines = self.command("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def processes_on(self, node: str) -> list[int]:
        """The ids, on this machine, of all processes of a node: its daemon's and its jobs'."""
        # The kernel gives a namespace's number again once it is gone, so only a living node's is asked for.
        return members(self._recorded()[node]["namespace"]) if node in self.living() else []

    def kill_node(self, node: str) -> None:
        """Kill everything on a node at once, as a crash does; it is over when this returns."""
        self._stop(node, patience=0)

    def start_node(self, node: str) -> None:
        """Start a killed node and return when it takes jobs again."""
        self._start_nodes([node])
        self._wait_until_healthy(node)

    def stop_controller(self) -> None:
        """Stop slurmctld; jobs go on without it."""
        self._stop("slurmctld", patience=60)

    def start_controller(self) -> None:
        """Start slurmctld from its saved state and return when it answers."""
        self._start_controller()
        self._wait_until_healthy("slurmctld")

    def stop_accounting(self) -> None:
        """Stop slurmdbd: sacct fails from now on, and slurmctld keeps its records until slurmdbd is back."""
        self._stop("slurmdbd", patience=60)

    def start_accounting(self) -> None:
        """Start slurmdbd and return when it answers."""
        self._start_accounting()

    def set_limits(self, **limits: int) -> None:
        """Set limits of the association that jobs run under, such as MaxSubmitJobs=5; -1 takes a limit away."""
        words = [f"{name}={value}" for name, value in limits.items()]
        where = ["where", "user=root", f"account={ACCOUNT}"]
        self.command("sacctmgr", "--immediate", "modify", "user", *where, "set", *words)

    # ---- Starting -------------------------------------------------------------------------------------------------

    def _refuse_impossible(self) -> None:
        if not sys.platform.startswith("linux"):
            raise CannotRunHere("a SLURM cluster for the tests needs Linux")
        if os.geteuid() != 0:
            raise CannotRunHere("a SLURM cluster for the tests needs root: its nodes are namespaces")
        # SLURM's files know no quoting, and the name of a socket has at most 107 characters.
        if not re.fullmatch(r"[\w./-]{1,60}", str(self.folder)):
            raise CannotRunHere(f"{self.folder}: give a folder of at most 60 letters, digits and / . _ -")
        if self.folder.exists():
            if self.folder.stat().st_uid != 0:
                raise CannotRunHere(f"{self.folder} belongs to another user; name another one in VWM_SLURM_DIR")
            if any(self.folder.iterdir()) and not (self.folder / "cluster.lock").exists():
                raise CannotRunHere(f"{self.folder} holds something else; name another one in VWM_SLURM_DIR")
        namespaces = ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc"]
        try:
            attempt = subprocess.run(
                [*namespaces, "mount", "--bind", "/etc/hosts", "/etc/hosts"],
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise CannotRunHere("there is no unshare, which makes the namespaces of the nodes") from None
        if attempt.returncode != 0:
            raise CannotRunHere(f"no namespaces for the nodes: {attempt.stderr.strip()}")

    def _start_fresh(self) -> None:
        for name in ("log", "run", "state", "spool", "mariadb", "mariadb-tmp", "gpus", "etc"):
            (self.folder / name).mkdir(exist_ok=True)
        for log in (self.folder / "log").iterdir():
            log.unlink()
        self._make_devices()
        write_settings(self.folder)
        self._start_missing()

    def _make_devices(self) -> None:
        for number in range(GPUS_PER_NODE):
            try:
                os.mknod(self.folder / "gpus" / f"gpu{number}", 0o20666, os.makedev(1, 3))
            except PermissionError:
                raise CannotRunHere("devices for the scheduler cannot be made here (mknod is not permitted)") from None

    def _start_missing(self) -> None:
        living = self.living()
        if "munged" not in living:
            self._start_munge()
        if "mariadbd" not in living:
            self._start_mariadb()
        if "slurmdbd" not in living or not self._accounting_answers():
            self._stop("slurmdbd", patience=0)
            self._start_accounting()
        if "slurmctld" not in living:
            self._start_controller()
        self._start_nodes([node for node in NODES if node not in living])
        self._wait_until_healthy(*DAEMONS, *NODES)

    def _start_munge(self) -> None:
        run, etc = self.folder / "run", self.folder / "etc"
        (run / "munge").unlink(missing_ok=True)
        files = [f"--key-file={etc}/munge.key", f"--socket={run}/munge", f"--pid-file={run}/munge.pid"]
        own_log = f"--log-file={self.folder}/log/munged"
        self._start("munged", ["munged", "--foreground", *files, own_log, f"--seed-file={run}/munge.seed"])
        wait_for("munged", (run / "munge").is_socket, 120)

    def _start_mariadb(self) -> None:
        settings = f"--defaults-file={self.folder}/etc/mariadb.cnf"
        database = self.folder / "mariadb"
        if not (database / "mysql").exists():
            fresh = ["--auth-root-authentication-method=socket", "--skip-test-db", "--skip-name-resolve", "--user=root"]
            self.command("mariadb-install-db", settings, *fresh, timeout=300)
        (self.folder / "run" / "mariadb").unlink(missing_ok=True)
        self._start("mariadbd", ["mariadbd", settings])
        wait_for("MariaDB", (self.folder / "run" / "mariadb").is_socket, 120)

    def _start_accounting(self) -> None:
        self._start("slurmdbd", self._in_namespaces("controller", ["slurmdbd", "-D"]))
        wait_for("slurmdbd", self._accounting_answers, 120)
        add = ["sacctmgr", "--immediate", "add"]
        if not self.command("sacctmgr", "--noheader", "show", "account", ACCOUNT):
            self.command(*add, "cluster", "vwm")
            self.command(*add, "account", ACCOUNT)
            for user in ("root", OTHER_USER):
                self.command(*add, "user", user, f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}")

    def _start_controller(self) -> None:
        self._start("slurmctld", self._in_namespaces("controller", ["slurmctld", "-D"]))

    def _start_node(self, node: str) -> None:
        """A node is a process namespace: its first process dies with the one recorded, and all others with it."""
        process = self._start(node, self._in_namespaces(node, ["slurmd", "-D", "-N", node], own_processes=True))
        own = process_namespace(os.getpid())
        wait_for(f"the namespace of {node}", lambda: namespace_of_children(process.pid) not in (None, own), 120)
        self._record(node, process, namespace_of_children(process.pid))

    def _start_nodes(self, nodes: list[str]) -> None:
        """Start nodes and wait until slurmctld knows these, and not only what it thinks of their predecessors."""
        since = time.strftime("%Y-%m-%dT%H:%M:%S")
        for node in nodes:
            self._start_node(node)
        wait_for(
            f"{' '.join(nodes)} to report to slurmctld",
            lambda: all(self._slurmd_start(node) >= since for node in nodes),
            timeout=120,
        )

    def _slurmd_start(self, node: str) -> str:
        """When the daemon of a node started, as slurmctld has it, in local time; empty before it has reported."""
        with contextlib.suppress(Failed):  # slurmctld may be coming up itself.
            found = re.search(r"SlurmdStartTime=(\d\S*)", self.command("scontrol", "show", "node", node))
            return found.group(1) if found else ""
        return ""

    def _in_namespaces(self, host_name: str, daemon: list[str], own_processes: bool = False) -> list[str]:
        """The command that runs a daemon under a host name of its own, with the hosts file of the cluster."""
        words = ["sh", str(self.folder / "etc" / "hosts"), host_name, *daemon]
        if not own_processes:
            return ["unshare", "--uts", "--mount", "sh", "-c", ENTER + 'exec "$@"', *words]
        own = ["--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
        # The shell stays as the first process: it collects the orphans of jobs, which slurmd does not.
        return ["unshare", "--uts", "--mount", *own, "sh", "-c", ENTER + '{ "$@" & wait; }', *words]

    def _start(self, name: str, command: list[str]) -> Process:
        environment = {
            "PATH": search_path(),
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self.folder / "etc" / "daemons.conf"),
        }
        process = start(command, environment, self.folder / "log" / name)
        self._record(name, process)
        return process

    # ---- Waiting and stopping -------------------------------------------------------------------------------------

    def _accounting_answers(self) -> bool:
        with contextlib.suppress(Failed):
            self.command("sacctmgr", "--noheader", "show", "cluster", timeout=30)
            return True
        return False

    def _wait_until_healthy(self, *parts: str) -> None:
        def healthy() -> bool:
            named = (*parts, "slurmctld", "the accounting")  # Without slurmctld nobody knows how a node is.
            return not [problem for problem in self.problems() if problem.startswith(named)]

        try:
            wait_for(", ".join(parts), healthy, 120)
        except Failed:
            raise Failed(f"{'; '.join(self.problems())}; see {self.folder}/log") from None

    def _stop(self, name: str, patience: float) -> None:
        living = self.living()
        if name in living:
            namespace = self._recorded()[name]["namespace"]
            living[name].stop(patience)
            if namespace is not None:
                wait_for(f"the end of all on {name}", lambda: not members(namespace), 120)

    def _stop_everything(self) -> None:
        # Nothing of it is used again, so nobody is asked to leave; the nodes go first, so that no job outlives them.
        for name in (*NODES, *reversed(DAEMONS)):
            self._stop(name, patience=0)
        for entry in self.folder.iterdir():
            # A lock that is removed while somebody waits for it would be held by two.
            if entry.name == "log" or entry.suffix == ".lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    # ---- What is remembered of the processes ----------------------------------------------------------------------

    def _recorded(self) -> dict[str, dict[str, Any]]:
        try:
            recorded: dict[str, dict[str, Any]] = json.loads((self.folder / "processes.json").read_text())
        except FileNotFoundError:
            return {}
        return recorded

    def _record(self, name: str, process: Process, namespace: str | None = None) -> None:
        entry = {"pid": process.pid, "started": process.started, "namespace": namespace}
        everything = {**self._recorded(), name: entry}
        write(self.folder / "processes.json", json.dumps(everything, indent=1).encode(), 0o644)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process at a time starts or stops the cluster."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(self.folder / "cluster.lock", "a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says and give back the exit code."""
    parser = argparse.ArgumentParser(description="A real SLURM cluster on this machine, for the tests.")
    parser.add_argument("action", choices=("up", "down", "status"))
    action = parser.parse_args(arguments).action
    try:
        if action == "up":
            cluster = Cluster.up()
            print(f"running; to use it: export SLURM_CONF={cluster.environment['SLURM_CONF']}")
            return 0
        if action == "down":
            Cluster().down()
            print("not running")
            return 0
        return _print_status(Cluster())
    except CannotRunHere as reason:
        print(f"no SLURM cluster here: {reason}", file=sys.stderr)
        return 3
    except (Failed, PermissionError) as reason:
        print(f"failed: {reason}", file=sys.stderr)
        return 1


def _print_status(cluster: Cluster) -> int:
    living = cluster.living()
    if not living:
        print("not running")
        return 4
    for name in (*DAEMONS, *NODES):
        print(f"{name:<10} {f'process {living[name].pid}' if name in living else 'does not run'}")
    problems = cluster.problems()
    if "slurmctld" in living:
        with contextlib.suppress(Failed):
            print("\n" + cluster.command("sinfo"))
    for problem in problems:
        print(f"problem: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
