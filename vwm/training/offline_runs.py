"""What the offline runs of W&B in a run's folder hold: rows of the history, and facts about attempts.

W&B's client keeps an offline run in a log of protocol buffers, in the framing of LevelDB's logs: blocks of 32 KiB with
records of checksum, length, type and content. A process that was killed leaves a log that ends in the middle.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vwm.training.run_folder import RunFolder

_MAGIC = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")  # CRC-32 of type and content, length of the content, type
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRuns:
    """All offline runs of one run, one an attempt, put together."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # W&B's step, which counts rows from 0 → the row
    copies: int = 0  # rows that stand in more than one place, which never happens as long as only vwm writes
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    is_closed: bool = True  # whether the last one ended in order, and was not killed

    @property
    def next_row(self) -> int:
        """The first row of the history that is not there."""
        return max(self.rows, default=-1) + 1


def logs(folder: RunFolder) -> list[Path]:
    """The logs of a run's offline runs, the earliest first."""
    return sorted(folder.path.glob("wandb/offline-run-*/run-*.wandb"))


def read_offline_runs(folder: RunFolder) -> OfflineRuns:
    """Everything that was written completely; what a kill tore is left out."""
    found = OfflineRuns()
    for path in logs(folder):
        found.is_closed = False
        for record in _records(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = {(item.nested_key or [item.key])[0]: json.loads(item.value_json) for item in record.history.item}
                found.copies += row["_step"] in found.rows
                found.rows[row["_step"]] = row
            elif kind == "run":
                found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "config":
                found.config |= {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.config.update
                    if len(item.nested_key) <= 1
                }
            elif kind == "summary":
                found.summary |= {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.summary.update
                    if len(item.nested_key) <= 1
                }
            elif kind == "exit":
                found.is_closed = True
    return found


def _records(path: Path) -> Iterator[Any]:
    """W&B's records, whose class is only made when its module is imported."""
    from wandb.proto import wandb_internal_pb2

    for content in _contents(path.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(content)
        yield record


def _contents(data: bytes) -> Iterator[bytes]:
    """The contents of a log's records, up to the first that is torn."""
    if not data.startswith(_MAGIC):
        return
    position, parts = len(_MAGIC), b""
    while position + _HEADER.size <= len(data):
        left_of_block = _BLOCK - position % _BLOCK
        if left_of_block < _HEADER.size:  # No header fits there, so the block is filled up with zeros.
            position += left_of_block
            continue
        checksum, length, kind = _HEADER.unpack_from(data, position)
        part = data[position + _HEADER.size : position + _HEADER.size + length]
        if len(part) < length or zlib.crc32(bytes([kind]) + part) != checksum:
            return
        position += _HEADER.size + length
        parts = parts + part if kind in (_MIDDLE, _LAST) else part
        if kind in (_FULL, _LAST):
            yield parts
