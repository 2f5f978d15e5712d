"""The benchmark of the streaming job, where it cannot run."""

import shutil
from pathlib import Path

import pytest

from benchmarks import mnr
from benchmarks.mnr_load import flink_environment
from nearline.mnr_process import FlinkMissing
from tests.conftest import skip_or_fail


def test_redis_server_that_is_missing_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    try:
        flink_environment()
    except FlinkMissing as missing:
        skip_or_fail(str(missing))
    monkeypatch.setenv("JAVA_HOME", str(Path(shutil.which("java")).resolve().parents[1]))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["mnr"])
    with pytest.raises(SystemExit) as ended:
        mnr.main()
    assert ended.value.code == "bench-mnr: no redis-server: install Redis (apt install redis-server)"
