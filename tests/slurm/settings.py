"""The cluster's settings: the files of etc/, filled in for one folder and for ports that are free now."""

import hashlib
import os
import random
import secrets
import socket
import string
from pathlib import Path

# Each node has a loopback address of its own: with one for all, every node would take itself for the rendezvous host.
NODES = {"node1": "127.0.0.11", "node2": "127.0.0.12", "node3": "127.0.0.13", "node4": "127.0.0.14"}
CPUS_PER_NODE = 4
GPUS_PER_NODE = 2

TEMPLATES = Path(__file__).resolve().parent / "etc"
MODES = {"slurmdbd.conf": 0o600, "mariadb.sql": 0o600, "task_prolog": 0o755}


def write_settings(folder: Path) -> None:
    """Write the settings and a new key for munge into ``folder``/etc."""
    mariadb_port, slurmdbd_port, slurmctld_port, slurmd_port = _free_ports(4)
    node = f"CPUs={CPUS_PER_NODE} Gres=gpu:{GPUS_PER_NODE}"
    values = {
        "folder": folder,
        "mariadb_port": mariadb_port,
        "slurmdbd_port": slurmdbd_port,
        "slurmctld_port": slurmctld_port,
        "slurmd_port": slurmd_port,
        # Clusters that run side by side have other jobs' ids, from which a job takes the port of its rendezvous.
        "first_job_id": random.randrange(10_000, 30_000),
        "password": secrets.token_hex(16),
        "node_lines": "\n".join(f"NodeName={name} NodeAddr={address} {node}" for name, address in NODES.items()),
        "host_lines": "\n".join(f"{address} {name}" for name, address in NODES.items()),
        "hosts_of_machine": Path("/etc/hosts").read_text(),
    }
    for template in TEMPLATES.iterdir():
        text = string.Template(template.read_text()).substitute(values)
        write(folder / "etc" / template.name, text.encode(), MODES.get(template.name, 0o644))
    write(folder / "etc" / "munge.key", secrets.token_bytes(128), 0o400)
    write(folder / "etc" / "origin", _origin().encode(), 0o644)


def settings_are_current(folder: Path) -> bool:
    """Whether the settings in ``folder`` were written from the templates and names as they are now."""
    origin = folder / "etc" / "origin"
    return origin.exists() and origin.read_text() == _origin()


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is whole, and has its mode, from the first moment it can be seen."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
    temporary.replace(path)


def _origin() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for template in sorted(TEMPLATES.iterdir()):
        digest.update(template.read_bytes())
    return digest.hexdigest()


def _free_ports(number: int) -> list[int]:
    """Ports that nothing uses on any address, between those of a job's rendezvous and of outgoing connections."""
    ports: list[int] = []
    for port in random.sample(range(30_000, 32_768), 1000):
        with socket.socket() as attempt:
            try:
                attempt.bind(("", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == number:
            break
    return ports
