"""
How does a model lie in the lakehouse? Its files as rows of ``checkpoint``, long ones cut into pieces.

A large catalogue's weights take gigabytes; piece by piece they are neither held nor copied again as a whole,
and stay below what one value of a Parquet file may hold.
"""

from collections.abc import Iterator
from datetime import date

import pyarrow as pa

from lakehouse import tables
from lakehouse.store import Commit, Lakehouse

PIECE_BYTES = 64 * 2**20
PIECE_MARK = ":"


def write_files(lakehouse: Lakehouse, day: date, method: str, files: dict[str, bytes]) -> Commit:
    """Replace ``checkpoint/ds=<day>/method=<method>`` with the files."""
    return lakehouse.replace_by_batches(tables.CHECKPOINT, day, _pieces(files), part=method)


def read_files(lakehouse: Lakehouse, day: date, method: str) -> dict[str, bytes]:
    """
    Read the files of a checkpoint by name.

    Raises:
        MissingPartition: there is none.
    """
    rows = lakehouse.read(tables.CHECKPOINT, day, part=method)
    pieces: dict[str, list[pa.Buffer]] = {}
    for name, content in zip(rows["name"].to_pylist(), rows["content"], strict=True):
        pieces.setdefault(name.split(PIECE_MARK)[0], []).append(content.as_buffer())
    return {name: b"".join(buffers) for name, buffers in pieces.items()}


def _pieces(files: dict[str, bytes]) -> Iterator[pa.RecordBatch]:
    for name in sorted(files):
        view = memoryview(files[name])
        for number, start in enumerate(range(0, max(1, len(view)), PIECE_BYTES)):
            piece = name if len(view) <= PIECE_BYTES else f"{name}{PIECE_MARK}{number:05d}"
            content = pa.array([view[start : start + PIECE_BYTES]], pa.large_binary())
            yield pa.record_batch([pa.array([piece]), content], schema=tables.CHECKPOINT.schema)
