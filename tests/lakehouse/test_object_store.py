"""What only an object store can do wrong; that a partition works there is in test_store.py."""

import json
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from lakehouse.storage import StorageError
from lakehouse.store import Lakehouse
from lakehouse.tables import CHECKPOINT

REPOSITORY = Path(__file__).resolve().parents[2]
DAY = date(2022, 5, 1)


def weights(content: bytes) -> pa.Table:
    return pa.table({"name": ["model.safetensors"], "content": pa.array([content], pa.large_binary())})


def read(lakehouse: Lakehouse) -> bytes:
    return lakehouse.read(CHECKPOINT, DAY, part="base")["content"][0].as_py()


def run_elsewhere(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python in another process that knows the S3 server from its environment alone."""
    environment = os.environ | {"FSSPEC_S3": json.dumps(fsspec.config.conf.get("s3", {}))}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


def test_partition_is_two_objects_and_no_folder(s3_root: str) -> None:
    (file,) = Lakehouse(s3_root).replace(CHECKPOINT, DAY, weights(b"1"), part="base").files
    filesystem, path = fsspec.url_to_fs(s3_root, use_listings_cache=False)
    folder = f"{path}/checkpoint/ds=2022-05-01/method=base"
    assert set(filesystem.find(path, withdirs=False)) == {f"{folder}/_COMMIT.json", f"{folder}/{file}"}


def test_file_uploaded_in_pieces_comes_back(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf["s3"], "default_block_size", 5 << 20)
    content = np.random.default_rng(0).bytes(12 << 20)
    lakehouse = Lakehouse(s3_root)
    lakehouse.replace(CHECKPOINT, DAY, weights(content), part="base")
    assert read(lakehouse) == content


WRITE = """
import sys
from datetime import date
import pyarrow as pa
from lakehouse.store import Lakehouse
from lakehouse.tables import CHECKPOINT
rows = pa.table({"name": ["w"], "content": pa.array([b"elsewhere"], pa.large_binary())})
lakehouse = Lakehouse(sys.argv[1])
"""
WHOLE = WRITE + 'lakehouse.replace(CHECKPOINT, date(2022, 5, 1), rows, part="base")'
HALF = (
    WRITE
    + """
import os, signal
lakehouse._storage.write_parquet("checkpoint/ds=2022-05-01/method=base/half.parquet", rows)
os.kill(os.getpid(), signal.SIGKILL)
"""
)


def test_what_another_process_writes_is_seen_at_once(s3_root: str) -> None:
    lakehouse = Lakehouse(s3_root)
    lakehouse.replace(CHECKPOINT, DAY, weights(b"here"), part="increc")
    assert lakehouse.parts(CHECKPOINT, DAY) == ["increc"]
    written = run_elsewhere(WHOLE, s3_root)
    assert written.returncode == 0, written.stderr
    assert lakehouse.parts(CHECKPOINT, DAY) == ["base", "increc"]
    assert read(lakehouse) == b"elsewhere"


def test_writer_killed_between_data_and_marker_changes_nothing(s3_root: str) -> None:
    lakehouse = Lakehouse(s3_root)
    lakehouse.replace(CHECKPOINT, DAY, weights(b"old"), part="base")
    assert run_elsewhere(HALF, s3_root).returncode == -signal.SIGKILL
    assert read(lakehouse) == b"old"
    assert lakehouse.sweep(CHECKPOINT, timedelta(0)) == 1
    assert read(lakehouse) == b"old"


def test_missing_bucket_is_named_and_not_made(s3_endpoint: str) -> None:
    bucket = uuid4().hex
    with pytest.raises(StorageError, match=f"cannot write s3://{bucket}/x/.* bucket does not exist"):
        Lakehouse(f"s3://{bucket}/x").replace(CHECKPOINT, DAY, weights(b""), part="base")
    assert not fsspec.filesystem("s3").exists(bucket)


def test_endpoint_that_nobody_answers_at_is_named(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf["s3"], "endpoint_url", "http://127.0.0.1:9")
    monkeypatch.setitem(fsspec.config.conf["s3"], "config_kwargs", {"retries": {"max_attempts": 0}})
    lakehouse = Lakehouse(s3_root)
    for action, attempt in (
        ("read", lambda: read(lakehouse)),
        ("list", lambda: lakehouse.days(CHECKPOINT)),
        ("write", lambda: lakehouse.replace(CHECKPOINT, DAY, weights(b""), part="base")),
    ):
        with pytest.raises(StorageError, match=f"cannot {action} {s3_root}/checkpoint") as unreachable:
            attempt()
        message = str(unreachable.value)
        assert "http://127.0.0.1:9" in message
        assert message.endswith(f"check {s3_root} and its fsspec options (FSSPEC_* or ~/.config/fsspec)")
        assert "\n" not in message


def test_url_without_its_package_says_which_extra_to_install() -> None:
    tried = run_elsewhere(
        "import sys; sys.modules['s3fs'] = None; from lakehouse.store import Lakehouse; Lakehouse('s3://bucket/x')"
    )
    assert tried.returncode == 1
    last_line = tried.stderr.strip().splitlines()[-1]
    assert "cannot use the lakehouse root s3://bucket/x: Install s3fs to access S3; give a local" in last_line
    assert "the extra `s3`" in last_line
