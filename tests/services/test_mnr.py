"""The commands of the streaming job, where they cannot start one."""

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from nearline.mnr_cluster import flink_options
from nearline.mnr_config import KafkaConfig, MNRStreamConfig
from nearline.mnr_process import ENTRY_POINT, Cluster, Flink, FlinkMissing, command, command_file
from services import mnr


@pytest.fixture(autouse=True)
def var(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TRIBUTARY_VAR", str(tmp_path / "v"))
    return tmp_path / "v"


def installed(folder: Path) -> Flink:
    """Make a folder that looks as the Flink environment does."""
    flink = Flink(folder)
    script = flink.home / "bin" / "standalone-job.sh"
    script.parent.mkdir(parents=True)
    script.touch()
    return flink


def test_flink_environment_that_is_missing_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, var: Path
) -> None:
    monkeypatch.setattr(mnr, "REPOSITORY", tmp_path)
    assert mnr.main(["start"]) == 1
    assert capsys.readouterr().err == (
        f"mnr start: no Flink environment at {tmp_path}/.venv-flink: run `make flink-env`\n"
    )
    assert not var.exists()


def test_java_that_is_missing_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flink = installed(tmp_path / "flink")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(FlinkMissing, match="no Java: install Java 17") as caught:
        flink.refuse_missing()
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FlinkMissing, match="no Java"):
        flink.refuse_missing()


@pytest.mark.parametrize("name", ["status", "savepoint"])
def test_job_that_was_never_started_is_one_clear_line(name: str, capsys: pytest.CaptureFixture) -> None:
    assert mnr.main([name]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "`make mnr` starts it" in printed


def test_stopping_what_does_not_run_is_no_failure(capsys: pytest.CaptureFixture, var: Path) -> None:
    assert mnr.main(["stop"]) == 0
    assert capsys.readouterr().out == f"No streaming job runs for {var}\n"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MNR__ALPHA", "0"),
        ("MNR__BETA", "-1"),
        ("MNR__K", "0"),
        ("MNR_STREAM__MODE", "fork"),
        ("MNR__ALFA", "1"),
    ],
)
def test_wrong_setting_is_one_clear_line(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(f"TRIBUTARY_{setting}", value)
    assert mnr.main(["start"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert setting.split("__")[1].lower() in printed


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ONLINE_STORE_URL", "mysql://host", "names no online store"),
        ("MNR_STREAM__LINES", __file__, "cannot make the folders of the streaming job"),
    ],
)
def test_store_or_folder_that_cannot_be_is_one_clear_line(
    setting: str, value: str, message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, var: Path,
) -> None:  # fmt: skip
    installed(tmp_path / ".venv-flink")
    monkeypatch.setattr(mnr, "REPOSITORY", tmp_path)
    monkeypatch.setattr(Flink, "refuse_missing", lambda flink: None)
    monkeypatch.setenv(f"TRIBUTARY_{setting}", value)
    assert mnr.main(["start"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message in printed
    assert not (var / "mnr" / "job.json").exists()


def test_two_sources_are_refused() -> None:
    with pytest.raises(ValidationError, match="choose one source"):
        MNRStreamConfig(lines="lines", kafka=KafkaConfig(servers="host:9092", topic="rankings"))


def complete(state: Path, seconds: int) -> None:
    state.mkdir(parents=True)
    (state / "_metadata").touch()
    os.utime(state / "_metadata", (seconds, seconds))


def test_job_goes_on_from_the_newest_complete_state(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    line = ["java", "Main", "--job-classname", ENTRY_POINT, "-pym", "module"]
    command_file(cluster, "jobmanager").write_text(json.dumps(line))
    assert command(cluster, "jobmanager") == line
    complete(tmp_path / "checkpoints/a/chk-7", 100)
    complete(tmp_path / "checkpoints/b/chk-2", 200)
    complete(tmp_path / "savepoints/savepoint-1", 300)
    (tmp_path / "checkpoints/b/chk-4").mkdir()  # was never completed
    assert cluster.newest_state() == tmp_path / "savepoints/savepoint-1"
    complete(tmp_path / "checkpoints/b/chk-3", 400)
    newest = tmp_path / "checkpoints/b/chk-3"
    assert command(cluster, "jobmanager") == [*line[:4], "--fromSavepoint", newest.as_uri(), *line[4:]]
    cluster.forget_old_checkpoints()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["b"]
    assert (tmp_path / "savepoints/savepoint-1/_metadata").exists()


def test_cluster_listens_on_this_machine_alone(tmp_path: Path) -> None:
    options = flink_options(Cluster(tmp_path), Flink(tmp_path), MNRStreamConfig(), 8081)
    addresses = [value for name, value in options.items() if name.endswith(("host", "address"))]
    assert set(addresses) == {"127.0.0.1"}
