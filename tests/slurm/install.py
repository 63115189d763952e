"""Debian's packages of SLURM, munge and MariaDB, installed without starting any of their services."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

# The two MariaDB packages hold the programs only: no service, no system user and no database of the machine's own.
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server-core", "mariadb-client-core")
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "sacctmgr", "munged", "mariadbd", "mariadb-install-db")

LOCK = Path("/tmp/vwm-slurm-install.lock")

# Debian asks this program before it starts a service; 101 forbids it.
POLICY = Path("/usr/sbin/policy-rc.d")
SAVED_POLICY = POLICY.with_name("policy-rc.d.saved-by-vwm-tests")


class CannotRunHere(Exception):
    """This machine cannot hold the cluster; the message is one line and says why."""


def install_missing() -> None:
    """Install the packages unless their programs are there already.

    Raises:
        CannotRunHere: something is missing and this is no Debian, or its packages cannot be had.
    """
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two workers of the tests want a cluster at the same time.
        _install_missing()


def _install_missing() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program, path=search_path()) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or not Path("/etc/debian_version").exists():
        raise CannotRunHere(f"{', '.join(missing)} not installed, and only Debian's packages of them are known here")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _forbid_services()
    try:
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(
                ["apt-get", "--quiet", "--option=DPkg::Lock::Timeout=300", *arguments],
                env=quiet,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                last_line = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
                raise CannotRunHere(f"apt-get {arguments[0]} failed: {last_line}")
    finally:
        _allow_services_as_before()


def search_path() -> str:
    """PATH with the system's folders, which an ordinary user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])


def _forbid_services() -> None:
    # A saved policy is there only if an earlier installation was killed; then the one in its place is ours.
    if POLICY.exists() and not SAVED_POLICY.exists():
        POLICY.rename(SAVED_POLICY)
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)


def _allow_services_as_before() -> None:
    POLICY.unlink()
    if SAVED_POLICY.exists():
        SAVED_POLICY.rename(POLICY)
