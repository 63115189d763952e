"""The archive of a sweep: the folders of its finished runs in one file, ``runs/<sweep>/archive.zip``.

File systems of clusters limit how many files a user has. A zip file has a checksum for every member and a list of all
of them at its end, so that a single run is read without reading the others. Whatever moment an interruption comes at,
every run is whole in its folder or in the archive: folders go only after the archive was flushed, read back and
compared, and each goes, and comes back, by one rename.
"""

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from vwm.errors import UserError
from vwm.files import Locked, locked
from vwm.training.run_folder import RunFolder, RunState

_NAME = "archive.zip"
_STATES = "states.json"  # of all runs in it, so that a status reads one member instead of thousands
_COMPRESSED = (".pt", ".npz")  # Numbers that deflating makes hardly smaller.
_LEAVING, _COMING = ".archived-", ".unpacking-"  # what a run's folder is called while it is removed or made
_CHUNK = 1 << 20


class Archive:
    """The runs that are in the archive of a sweep; none, where there is no archive."""

    def __init__(self, folder: Path) -> None:
        """Read which runs there are.

        Args:
            folder: ``runs/<sweep>``.

        Raises:
            UserError: the archive cannot be read.
        """
        self.path = folder / _NAME
        self.states: dict[str, RunState | None] = {}
        if not self.path.exists():
            return
        with self._opened() as file:
            states = json.loads(file.read(_STATES))
            self.states = {run: None if state is None else RunState(**state) for run, state in states.items()}

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as file:
                yield file
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
            raise UserError(f"{self.path}: the archive is damaged: {error}. Bring it back from a backup.") from None

    @contextlib.contextmanager
    def readable(self, path: Path) -> Iterator[Path]:
        """A path where a file of a run can be read: its own, or a temporary copy of what is in the archive.

        Raises:
            UserError: the archive cannot be read.
        """
        member = f"{path.parent.name}/{path.name}"
        if path.exists() or path.parent.name not in self.states:
            yield path
            return
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, path.name)
            with self._opened() as file:
                if member in file.NameToInfo:
                    copy.write_bytes(file.read(member))
            yield copy

    def checksums(self, name: str) -> dict[str, tuple[int, int]]:
        """Size in bytes and CRC-32 of the file of this name of every run in the archive that has one.

        Raises:
            UserError: the archive cannot be read.
        """
        if not self.states:
            return {}
        with self._opened() as file:
            paths = ((info.filename.partition("/"), info) for info in file.infolist())
            return {run: (info.file_size, info.CRC) for (run, _, member), info in paths if member == name}

    def texts(self, inside: str, ending: str) -> dict[str, dict[str, str]]:
        """The files of a folder inside a run's whose names end so: by run id and place, their text.

        Raises:
            UserError: the archive cannot be read.
        """
        found: dict[str, dict[str, str]] = {}
        if self.states:
            with self._opened() as file:
                for info in file.infolist():
                    run, _, member = info.filename.partition("/")
                    if member.startswith(inside) and member.endswith(ending):
                        found.setdefault(run, {})[f"{self.path}: {info.filename}"] = file.read(info).decode()
        return found


def pack(folder: Path, runs: Sequence[str]) -> int:
    """Move the folders of these finished runs into the archive, beside those that are in it.

    Args:
        folder: ``runs/<sweep>``.

    Returns:
        The number of runs that are in the archive now.

    Raises:
        UserError: a run's folder holds something else than files and folders, or a launch is in progress.
    """
    with _alone(folder):
        _clear(folder)
        earlier = Archive(folder)
        present = [RunFolder(folder / run) for run in runs if RunFolder(folder / run).is_finished()]
        new = {run.path.name for run in present}
        if new:
            _write(folder, earlier, present, [run for run in earlier.states if run not in new])
        for run in present:
            os.rename(run.path, folder / f"{_LEAVING}{run.path.name}")
        _clear(folder)
        return len(new | set(earlier.states))


def unpack(folder: Path) -> int:
    """Make the folders of all runs in the archive again, and remove it. A folder that is there already stays as it is.

    Returns:
        The number of runs that were in the archive.

    Raises:
        UserError: there is no archive, it cannot be read, or a launch is in progress.
    """
    with _alone(folder):
        _clear(folder)
        archive = Archive(folder)
        if not archive.path.exists():
            raise UserError(f"{archive.path}: there is no archive to unpack.")
        with archive._opened() as file:
            members: dict[str, list[zipfile.ZipInfo]] = {run: [] for run in archive.states}
            for member in file.infolist():
                run = member.filename.partition("/")[0]
                if run in members:
                    members[run].append(member)
            for run, infos in members.items():
                if not (folder / run).exists():
                    _extract(file, infos, folder, run)
        _flush(folder)
        archive.path.unlink()
        return len(archive.states)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder, so nothing of this sweep was run.")
    try:
        with locked(folder / "launch.lock"):
            yield
    except Locked:
        raise UserError(f"{folder}: a launch of this sweep, or its archiving, is in progress; wait for it.") from None


def _clear(folder: Path) -> None:
    """Remove what is left of folders that are in the archive, and of files that an interruption left unfinished."""
    for path in folder.iterdir():
        if path.name.startswith((_LEAVING, _COMING)):
            shutil.rmtree(path)
        elif path.name.startswith(f".{_NAME}."):
            path.unlink()


def _write(folder: Path, earlier: Archive, present: Sequence[RunFolder], kept: Sequence[str]) -> None:
    """Replace the archive by one that also holds the runs of ``present``, proven to be what their folders hold."""
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{_NAME}.")
    try:
        with os.fdopen(descriptor, "w+b") as handle:
            sources: dict[str, Path] = {}
            with zipfile.ZipFile(handle, "w") as file:
                states = {run: earlier.states[run] for run in kept}
                states |= {run.path.name: run.read_state() for run in present}
                content = {run: None if state is None else asdict(state) for run, state in states.items()}
                file.writestr(_STATES, json.dumps(content), zipfile.ZIP_DEFLATED)
                for run in present:
                    for path in _files(run.path):
                        sources[f"{run.path.name}/{path.relative_to(run.path)}"] = path
                for name, path in sources.items():
                    _add(file, name, path)
                if kept:
                    _copy(earlier, set(kept), file)
            handle.flush()
            os.fsync(handle.fileno())
            _compare(temporary, sources)
        os.chmod(temporary, (folder.stat().st_mode & 0o666) | 0o600)
        os.replace(temporary, folder / _NAME)
        _flush(folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _files(folder: Path) -> list[Path]:
    """Everything in a run's folder, folders included."""
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: neither a file nor a folder, so it cannot be archived. Remove or replace it.")
    return paths


def _add(file: zipfile.ZipFile, name: str, path: Path) -> None:
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    info.compress_type = zipfile.ZIP_STORED if path.suffix in _COMPRESSED else zipfile.ZIP_DEFLATED
    if path.is_dir():
        file.writestr(info, b"")
        return
    with open(path, "rb") as source, file.open(info, "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target, _CHUNK)


def _copy(earlier: Archive, runs: set[str], file: zipfile.ZipFile) -> None:
    with earlier._opened() as old:
        for info in old.infolist():
            if info.filename.partition("/")[0] in runs:
                file.writestr(info, old.read(info), info.compress_type)


def _compare(archive: str, sources: dict[str, Path]) -> None:
    """Read every member back: its checksum must hold, and its bytes be those of the file it came from."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            source = sources.get(info.filename.rstrip("/"))
            with file.open(info) as member:
                if source is None or source.is_dir():
                    while member.read(_CHUNK):
                        pass
                    continue
                with open(source, "rb") as original:
                    while True:
                        expected = original.read(_CHUNK)
                        if member.read(len(expected) or 1) != expected:
                            raise OSError(f"{source} was not what was read back from the archive; nothing was removed")
                        if not expected:
                            break


def _extract(file: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path, run: str) -> None:
    temporary = folder / f"{_COMING}{run}"
    temporary.mkdir()
    for info in members:
        path = temporary / info.filename.partition("/")[2]
        if info.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with file.open(info) as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
            target.flush()
            os.fsync(target.fileno())
        os.chmod(path, info.external_attr >> 16 & 0o777)
    _flush(temporary)
    os.rename(temporary, folder / run)


def _flush(folder: Path) -> None:
    """Make what was created or renamed in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
