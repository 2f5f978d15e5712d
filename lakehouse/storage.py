"""How is one file written so that it is there whole or not at all, on a local folder or an fsspec URL?"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

ROWS_PER_GROUP = 1 << 17


class StorageError(OSError):
    """The root cannot be used; the message names the address, the reason and what to check."""


class Storage:
    """
    The files below one root; paths are relative to it.

    Options of an fsspec file system (endpoint, credentials) come from fsspec's own configuration: its
    ``FSSPEC_*`` variables or files in ``~/.config/fsspec``. Listings are never cached, because other
    processes write. Below an object store's bucket there are no folders to make; on other remote file
    systems the root must exist.
    """

    def __init__(self, root: str | Path):
        """Open the root; nothing is made or reached before the first read or write.

        Raises:
            StorageError: a file stands where the folder should be, or no installed package knows the URL.
        """
        self.root = str(root)
        try:
            self.filesystem, self._root = fsspec.core.url_to_fs(self.root, use_listings_cache=False)
        except (ImportError, OSError, ValueError) as error:
            raise StorageError(
                f"cannot use the lakehouse root {self.root}: {one_line(error)}; give a local folder or a URL"
                " whose fsspec package is installed (for s3:// the extra `s3`)"
            ) from error
        self._is_local = isinstance(self.filesystem, LocalFileSystem)
        if self._is_local:
            _refuse_file_as_folder(Path(self._root))
            self._arrow = pyarrow.fs.LocalFileSystem(use_mmap=True)
        else:
            self._arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.filesystem))

    def address(self, path: str) -> str:
        """Give the full local path or URL, as DuckDB and error messages name the file."""
        full = self._full(path)
        return full if self._is_local else self.filesystem.unstrip_protocol(full)

    def write_parquet(self, path: str, rows: pa.Table) -> None:
        """Write a new file; when this returns it is on the disk or in the store."""
        with self.parquet_writer(path, rows.schema) as write:
            write(rows)

    @contextmanager
    def parquet_writer(self, path: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
        """
        Write a new file from tables, one after the other; at the end it is on the disk or in the store.

        What raises between the writes is passed on, after the unfinished file is deleted.
        """
        with self._reporting("write", path):
            folder = os.path.dirname(self._full(path))
            if self._is_local or self.filesystem.exists(self._root):
                self.filesystem.makedirs(folder, exist_ok=True)
            file = self._arrow.open_output_stream(self._full(path))
            writer = pq.ParquetWriter(file, schema, compression="zstd")

        def write(rows: pa.Table) -> None:
            with self._reporting("write", path):
                writer.write_table(rows, row_group_size=ROWS_PER_GROUP)

        try:
            yield write
            with self._reporting("write", path):
                writer.close()
                file.close()
                if self._is_local:
                    _sync(self._full(path))
                    _sync(folder)
        except BaseException:
            with suppress(Exception):
                writer.close()
            with suppress(Exception):
                file.close()
            with suppress(Exception):
                self.filesystem.rm_file(self._full(path))
            raise

    def read_parquet(self, path: str, columns: list[str]) -> pa.Table:
        """Read columns of one file; errors are those of pyarrow and of the file system."""
        with self._arrow.open_input_file(self._full(path)) as file:
            return pq.ParquetFile(file, pre_buffer=not self._is_local).read(columns)

    def put(self, path: str, content: bytes) -> None:
        """Write a small file, or replace it, in one step that no reader can see half of."""
        with self._reporting("write", path):
            if not self._is_local:
                self.filesystem.pipe_file(self._full(path), content)
                return
            temporary = f"{self._full(path)}.{uuid4().hex}"
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._full(path))
            _sync(os.path.dirname(temporary))

    def get(self, path: str) -> bytes | None:
        """Read a small file; None where there is none."""
        with self._reporting("read", path):
            try:
                return self.filesystem.cat_file(self._full(path))
            except FileNotFoundError:
                return None

    def find(self, folder: str) -> list[str]:
        """Give all files below a folder, sorted; none where there is no such folder."""
        with self._reporting("list", folder):
            try:
                found = self.filesystem.find(self._full(folder))
            except FileNotFoundError:
                return []
        return sorted(path.removeprefix(f"{self._root}/") for path in found)

    def modified(self, path: str) -> datetime | None:
        """Give the time of the last write, with its zone; None where there is no such file any more."""
        with self._reporting("look at", path):
            try:
                return self.filesystem.modified(self._full(path))
            except FileNotFoundError:
                return None

    def size(self, path: str) -> int:
        """Give the bytes of a file; 0 where there is no such file any more."""
        with self._reporting("look at", path):
            try:
                return self.filesystem.size(self._full(path)) or 0
            except FileNotFoundError:
                return 0

    def delete(self, path: str) -> None:
        """Delete one file, if it is still there."""
        with self._reporting("delete", path), suppress(FileNotFoundError):
            self.filesystem.rm_file(self._full(path))

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _reporting(self, action: str, path: str) -> Iterator[None]:
        """Tell any failure in one line; each client library of a store has its own family of exceptions."""
        try:
            yield
        except Exception as error:
            options = "" if self._is_local else " and its fsspec options (FSSPEC_* or ~/.config/fsspec)"
            raise StorageError(
                f"cannot {action} {self.address(path)}: {one_line(error)}; check {self.root}{options}"
            ) from error


def _refuse_file_as_folder(root: Path) -> None:
    for folder in (root, *root.parents):
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"cannot use the lakehouse root {root}: {folder} is a file; give a folder")


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def one_line(error: Exception) -> str:
    """Give the error's message, or its type where it has none, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
