import os
import time
from pathlib import Path

from tasks.compare_kept import code_of, digest, keep_whole, remove_unfinished, unfinished, versions


def test_a_folder_appears_with_all_of_its_files_and_the_first_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "models" / digest("a training")
    keep_whole(folder, {"a": b"1", "b": b"2"})
    keep_whole(folder, {"a": b"3"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"1", "b": b"2"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_killed_runs_left_is_deleted_once_nobody_can_be_writing_it(tmp_path: Path) -> None:
    kept, hits = tmp_path / "models" / digest("kept"), tmp_path / "hits" / f"{digest('hits')}.parquet"
    keep_whole(kept, {"a": b"1"})
    hits.parent.mkdir()
    hits.write_bytes(b"2")
    left = [unfinished(path) for path in (kept, kept, hits, hits)]
    for path in left[:2]:
        path.mkdir()
        (path / "a").write_bytes(b"")
    for path in left[2:]:
        path.write_bytes(b"")
    hours_ago = time.time() - 7200
    for path in (kept, hits, left[0], left[2]):
        os.utime(path, (hours_ago, hours_ago))
    remove_unfinished(tmp_path)
    assert [path.exists() for path in left] == [False, True, False, True]
    assert kept.exists() and hits.exists()


def test_code_sql_and_libraries_have_digests_and_versions() -> None:
    assert len({code_of("models"), code_of("models/increc"), code_of("sql"), digest([])}) == 4
    assert {"torch", "numpy", "duckdb"} <= versions().keys()
