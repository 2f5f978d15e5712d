"""Whatever happens to a writer, a file or the root: whole rows or one clear line."""

import resource
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lakehouse.commit import BrokenPartition
from lakehouse.sql import SqlError, run_sql
from lakehouse.storage import StorageError
from lakehouse.store import Lakehouse
from lakehouse.tables import CLICK, TIME

REPOSITORY = Path(__file__).resolve().parents[2]
DAY = date(2022, 5, 1)


def clicks(item_id: int, n: int = 3) -> pa.Table:
    """Clicks of n users on one item: rows that show which write they belong to."""
    return pa.table(
        {
            "user_id": range(n),
            "item_id": [item_id] * n,
            "scenario": ["home"] * n,
            "event_time": pa.array(range(n), TIME),
        }
    )


def item_of(rows: pa.Table, n: int = 3) -> int:
    """Give the one item of rows that `clicks` made, which must be all there."""
    assert rows.num_rows == n
    (item_id,) = set(rows["item_id"].to_pylist())
    return item_id


def files_of(root: str) -> list[str]:
    """Give the URLs of the partition's files."""
    filesystem, path = fsspec.url_to_fs(root, use_listings_cache=False)
    return [filesystem.unstrip_protocol(f) for f in filesystem.find(f"{path}/click/ds={DAY}")]


def marker_of(root: str) -> str:
    (marker,) = [file for file in files_of(root) if file.endswith("/_COMMIT.json")]
    return marker


def overwrite(url: str, content: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(content)


@pytest.mark.parametrize(
    ("break_marker", "fault"),
    [
        (lambda _: b"", "Invalid JSON"),
        (lambda content: content[: len(content) // 2], "Invalid JSON"),
        (lambda _: b"\xff\x00", "Invalid JSON"),
        (lambda content: content.replace(b"n_rows", b"rows"), "n_rows: Field required"),
        (
            lambda content: content.replace(b'parquet"', b'parquet", "../other/x.parquet"'),
            "outside its folder",
        ),
    ],
)
def test_broken_marker_is_named(root: str, break_marker, fault: str) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1))
    marker = marker_of(root)
    overwrite(marker, break_marker(fsspec.open(marker).open().read()))
    asks = (lakehouse.read, lakehouse.commit, lambda table, day: lakehouse.relation(table, [day]))
    for ask in asks:
        with pytest.raises(BrokenPartition, match=fault) as broken:
            ask(CLICK, DAY)
        assert marker.removeprefix("file://") in str(broken.value)
        assert "\n" not in str(broken.value)
    with pytest.raises(BrokenPartition):
        lakehouse.sweep(CLICK, timedelta(0))
    lakehouse.replace(CLICK, DAY, clicks(2))
    assert item_of(lakehouse.read(CLICK, DAY)) == 2


def test_data_file_that_is_gone_cut_off_or_exchanged_is_named(root: str) -> None:
    lakehouse = Lakehouse(root)
    (name,) = lakehouse.replace(CLICK, DAY, clicks(1)).files
    (file,) = [url for url in files_of(root) if url.endswith(name)]
    content = fsspec.open(file).open().read()
    overwrite(file, content[:-50])
    with pytest.raises(BrokenPartition, match=rf"{name}, which the marker beside it names, is unreadable"):
        lakehouse.read(CLICK, DAY)
    with fsspec.open(file, "wb") as sink:
        pq.write_table(clicks(1, n=2), sink)
    with pytest.raises(BrokenPartition, match="has 2 rows where its marker says 3"):
        lakehouse.read(CLICK, DAY)
    filesystem, path = fsspec.url_to_fs(file)
    filesystem.rm(path)
    with pytest.raises(BrokenPartition, match=f"{name}, which the marker beside it names, is missing; run"):
        lakehouse.read(CLICK, DAY)


KILLED_WRITER = """
import os, resource, signal, sys
from datetime import date
import pyarrow.parquet as pq
from lakehouse.store import Lakehouse
from lakehouse.tables import CLICK

root, rows, event, start, count = sys.argv[1:]
rows, left = pq.read_table(rows), int(count)

def kill_at_event(name, arguments):
    global left
    folder, _, file = str(arguments[0]).rpartition("/") if arguments else ("", "", "")
    if name == event and folder.startswith(root) and file.startswith(start):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if event == "write":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(count), int(count)))
sys.addaudithook(kill_at_event)
Lakehouse(root).replace(CLICK, date(2022, 5, 1), rows)
"""


@pytest.mark.parametrize(
    ("event", "start", "count", "survivor"),
    [
        pytest.param("write", "", 1000, 1, id="in the middle of the data file"),
        pytest.param("open", "ds=", 1, 1, id="between data file and marker"),
        pytest.param("open", "_COMMIT.json.", 1, 1, id="before the marker"),
        pytest.param("os.rename", "_COMMIT.json.", 1, 1, id="before the marker gets its name"),
        pytest.param("open", "ds=", 2, 2, id="after the marker got its name"),
    ],
)
def test_killed_writer_leaves_a_whole_partition(
    tmp_path: Path, event: str, start: str, count: int, survivor: int
) -> None:
    root = tmp_path / "lakehouse"
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1, n=1000))
    pq.write_table(clicks(2, n=1000), tmp_path / "rows.parquet")
    writer = [sys.executable, "-c", KILLED_WRITER, root, tmp_path / "rows.parquet", event, start, str(count)]
    killed = subprocess.run(writer, cwd=REPOSITORY, check=False)
    assert killed.returncode == -(signal.SIGXFSZ if event == "write" else signal.SIGKILL)
    assert len(files_of(str(root))) > 2
    assert item_of(lakehouse.read(CLICK, DAY), n=1000) == survivor
    lakehouse.replace(CLICK, DAY, clicks(3))
    assert item_of(lakehouse.read(CLICK, DAY)) == 3
    assert lakehouse.sweep(CLICK, timedelta(0)) > 0
    assert len(files_of(str(root))) == 2


def test_full_disk_gives_one_line_and_leaves_the_old_partition(tmp_path: Path) -> None:
    lakehouse = Lakehouse(tmp_path)
    lakehouse.replace(CLICK, DAY, clicks(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=f"cannot write {tmp_path}/click/ds=2022.*File too large"):
            lakehouse.replace(CLICK, DAY, clicks(2, n=1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert item_of(lakehouse.read(CLICK, DAY)) == 1


def test_file_in_place_of_the_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "lakehouse", f"file://{tmp_path}/file"):
        with pytest.raises(StorageError, match=f"{tmp_path}/file is a file; give a folder"):
            Lakehouse(root)


def test_unknown_protocol_is_named() -> None:
    with pytest.raises(StorageError, match="the lakehouse root s4://bucket/x: Protocol not known: s4"):
        Lakehouse("s4://bucket/x")


class Distant(MemoryFileSystem):
    """A file system whose network fails a number of times when a data file is read."""

    protocol = "distant"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    n_failures = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("distant:/"))

    def _fail(self, path: str) -> None:
        if Distant.n_failures and path.endswith(".parquet"):
            Distant.n_failures -= 1
            raise ConnectionResetError("connection reset by peer")

    def _open(self, path, mode="rb", **options):
        if "r" in mode:
            self._fail(path)
        return super()._open(path, mode, **options)

    def cat_file(self, path, start=None, end=None, **options):
        self._fail(path)
        return super().cat_file(path, start, end, **options)


@pytest.fixture
def distant() -> Lakehouse:
    fsspec.register_implementation("distant", Distant, clobber=True)
    lakehouse = Lakehouse("distant://lakehouse")
    lakehouse.replace(CLICK, DAY, clicks(1))
    yield lakehouse
    Distant.n_failures = 0


def test_network_that_fails_while_reading_is_no_broken_partition(distant: Lakehouse, tmp_path: Path) -> None:
    (tmp_path / "all.sql").write_text("select * from click order by user_id")
    inputs = {"click": distant.relation(CLICK, [DAY])}
    assert run_sql("all", inputs, folder=tmp_path).num_rows == 3
    Distant.n_failures = 100
    with pytest.raises(StorageError, match=r"cannot read distant://.*parquet: connection reset"):
        distant.read(CLICK, DAY)
    with pytest.raises(StorageError, match=r"all.sql, line 1: ConnectionResetError: connection"):
        run_sql("all", inputs, folder=tmp_path)


def test_network_that_fails_once_while_reading_is_mended_at_once(distant: Lakehouse) -> None:
    Distant.n_failures = 1
    assert item_of(distant.read(CLICK, DAY)) == 1


def test_damaged_file_under_a_query_is_no_network_failure(tmp_path: Path) -> None:
    lakehouse = Lakehouse(tmp_path / "lakehouse")
    lakehouse.replace(CLICK, DAY, clicks(1))
    (tmp_path / "all.sql").write_text("select * from click order by user_id")
    relation = lakehouse.relation(CLICK, [DAY])
    Path(relation.files[0]).write_bytes(b"PAR1")
    with pytest.raises(SqlError, match=r"all.sql"):
        run_sql("all", {"click": relation}, folder=tmp_path)
    Path(relation.files[0]).unlink()
    with pytest.raises(SqlError, match=Path(relation.files[0]).name):
        run_sql("all", {"click": relation}, folder=tmp_path)
