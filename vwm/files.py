"""Files as this project reads and writes them: atomically, and with the line a value stands on."""

import contextlib
import difflib
import errno
import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vwm.errors import UserError

KeyPath = tuple[str | int, ...]


def write_atomically(path: Path, content: bytes | str, flush: bool = True) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary name in the same folder, are flushed to the disk, and the file is renamed.

    Args:
        path: the file.
        content: its bytes, or its text.
        flush: False leaves the flushing to the caller, who writes thousands of files and then calls ``os.sync`` once.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            if flush:
                os.fsync(handle.fileno())
        # mkstemp makes private files; a results folder is shared by a group, as the umask says.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if flush:
        _flush_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line to ``path`` and flush it to the disk; the line is there as a whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, (line + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``, or None where there is no such file."""
    try:
        with open(path, "rb") as handle:
            content: dict[str, Any] = json.load(handle)
            return content
    except FileNotFoundError:
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Locked(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, patience: float = 1) -> Iterator[None]:
    """Hold the lock file ``path``; the kernel lets go of it when this process ends, however it ends.

    Args:
        path: the lock file.
        patience: seconds to wait for it. `is_locked` of another process holds it for no time at all.

    Raises:
        Locked: another process holds it.
    """
    with open(path, "a") as handle:
        deadline = time.monotonic() + patience
        while not _take(handle.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise Locked(str(path))
            time.sleep(0.02)
        yield


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file ``path``; nothing is created."""
    try:
        with open(path) as handle:
            return not _take(handle.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        # Some cluster file systems are mounted without locks: there the scheduler alone keeps runs apart.
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    return True


# ---------------------------------------------------------------------------------------------------------------
# YAML and JSON with line numbers
# ---------------------------------------------------------------------------------------------------------------


class _Loader(yaml.CSafeLoader):
    """SafeLoader that also reads 1e-4 as a number, as YAML 1.2, JSON and every reader of the file do."""


_Loader.yaml_implicit_resolvers = {
    letter: list(resolvers) for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Document:
    """What a YAML or JSON file says, and on which line it says it."""

    name: str
    content: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """``file:line`` of the value at ``path``, or of the nearest thing around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path)
        return self.name if line is None else f"{self.name}:{line}"


def parse_value(text: str) -> Any:
    """The value a person types on a command line, read as YAML: ``1e-4`` is a number, ``[1, 2]`` a list.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


def read_document(path: Path) -> Document:
    """Read a YAML or JSON file (JSON is read as the subset of YAML it is).

    Raises:
        UserError: the file cannot be read, is no YAML, or gives one key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file. {_beside(path)}".rstrip()) from None
    except IsADirectoryError:
        raise UserError(f"{path}: this is a folder; a YAML or JSON file was expected.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the file cannot be read: {error}.") from None
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # The one thing that JSON allows between tokens and YAML does not.
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _collect_lines(node, (), lines, path)
        content = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = error.problem or error.context
        raise UserError(f"{where}: this is no valid YAML: {what}. Look at the indentation and the colons.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: this is no valid YAML: {error}.") from None
    except RecursionError:
        raise UserError(f"{path}: something in this file contains itself (a YAML alias); write it out.") from None
    finally:
        loader.dispose()
    return Document(str(path), content, lines)


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: Path) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = key_node.value
            if (*path, key) in lines:
                first = lines[(*path, key)]
                place = f"{file}:{key_node.start_mark.line + 1}"
                raise UserError(f"{place}: the key {key!r} is given twice (first on line {first}); keep one of them.")
            lines[(*path, key)] = key_node.start_mark.line + 1
            _collect_lines(value_node, (*path, key), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*path, index), lines, file)


class _Dumper(yaml.CSafeDumper):
    """SafeDumper that writes a list on one line, as people write it."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def dump_yaml(content: Any) -> str:
    """``content`` as YAML in the order given."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the known name that looks most like ``name``, or the empty string."""
    candidates = list(known)
    by_last_part = [candidate for candidate in candidates if candidate.rsplit(".", 1)[-1] == name]
    close = by_last_part or difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


def _beside(path: Path) -> str:
    """The files next to a missing one that look like it."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml", ".json"))
    except OSError:
        return f"Nor is there a folder {path.parent}."
    hint = nearest(path.name, names)
    if hint:
        return hint[0].upper() + hint[1:]
    return f"In {path.parent}: {', '.join(names[:8])}." if names else ""
