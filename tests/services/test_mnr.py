"""The commands of the streaming job, where they cannot start one."""

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from nearline.mnr_cluster import flink_options, refuse_missing_jars
from nearline.mnr_config import KafkaConfig, MNRStreamConfig
from nearline.mnr_process import ENTRY_POINT, Cluster, Flink, FlinkMissing, command, command_file
from services import mnr
from services.mnr_state import MNRState
from services.processes import Process, Stage, render_supervisor
from services.supervisor import Supervisor
from tests.nearline.flink_server import flink


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


def jar(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return path


SOURCE = "org/apache/flink/connector/kafka/source/KafkaSource.class"
CLIENT = "org/apache/flink/kafka/shaded/org/apache/kafka/clients/consumer/KafkaConsumer.class"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no jar of mnr_stream.jars has KafkaSource: name the jar of flink-sql-connector-kafka"),
        (["thin.jar"], "no jar of mnr_stream.jars has KafkaConsumer"),
        (["gone.jar"], "gone.jar, which cannot be read: No such file or directory"),
        (["whole.jar", "text.jar"], "text.jar, which cannot be read: it is no jar"),
    ],
)
def test_kafka_without_its_connector_is_refused_before_anything_starts(
    given: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, var: Path,
) -> None:  # fmt: skip
    installed(tmp_path / ".venv-flink")
    monkeypatch.setattr(mnr, "REPOSITORY", tmp_path)
    monkeypatch.setattr(Flink, "refuse_missing", lambda flink: None)
    jar(tmp_path / "thin.jar", SOURCE)
    jar(tmp_path / "whole.jar", SOURCE, CLIENT)
    (tmp_path / "text.jar").write_text("text")
    monkeypatch.setenv("TRIBUTARY_MNR_STREAM__KAFKA", '{"servers": "host:9092", "topic": "rankings"}')
    monkeypatch.setenv("TRIBUTARY_MNR_STREAM__JARS", json.dumps([str(tmp_path / name) for name in given]))
    assert mnr.main(["start"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message in printed
    assert not var.exists()


def test_kafka_with_its_connector_is_taken(tmp_path: Path) -> None:
    flink, kafka = installed(tmp_path / "flink"), KafkaConfig(servers="host:9092", topic="rankings")
    whole = jar(tmp_path / "whole.jar", SOURCE, CLIENT)
    refuse_missing_jars(flink, MNRStreamConfig(kafka=kafka, jars=(whole,)))
    (flink.home / "lib").mkdir()
    jar(flink.home / "lib" / "flink-sql-connector-kafka.jar", SOURCE, CLIENT)
    refuse_missing_jars(flink, MNRStreamConfig(kafka=kafka))


def job(state: str, n_running: int) -> dict[str, object]:
    tasks = {"running": n_running, "total": 3}
    jobs = [{"jid": "j1", "name": "mnr", "state": state, "start-time": 1, "tasks": tasks}]
    return {"/jobs/overview": {"jobs": jobs}}


TRACE = (
    "java.util.concurrent.CompletionException: x\n\tat a.b\nCaused by: java.io.IOException: disk full\n\tat c"
)
NO_ROOM = {
    "/jobs/j1/stop": {"request-id": "t1"},
    "/jobs/j1/savepoints": {"request-id": "t1"},
    "/jobs/j1/savepoints/t1": {
        "status": {"id": "COMPLETED"},
        "operation": {"failure-cause": {"stack-trace": TRACE}},
    },
}


@contextmanager
def cluster(var: Path, answers: dict[str, object]) -> Iterator[MNRState]:
    """Run processes that do nothing, under supervisor, where Flink's REST interface gives ``answers``."""
    state = MNRState(var)
    state.make_folders(None)
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    processes = [Process(role, Stage.SERVERS, sleeping, "", "") for role in mnr.ROLES]
    state.supervisor_file.write_text(render_supervisor(processes, state, ""))
    with flink(answers) as url:
        (state.folder / "ports.json").write_text(json.dumps({"mnr": int(url.rsplit(":", 1)[1])}))
        Supervisor(state).start()
        try:
            yield state
        finally:
            Supervisor(state).stop()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (job("RUNNING", 3) | NO_ROOM, "java.io.IOException: disk full"),
        (job("RESTARTING", 0), "the job is RESTARTING, 0 of 3 tasks run"),
        (job("RUNNING", 2), "the job is RUNNING, 2 of 3 tasks run"),
        ({}, "the job does not answer"),
    ],
)
def test_job_that_can_take_no_savepoint_is_stopped_by_force_alone(
    answers: dict, reason: str, capsys: pytest.CaptureFixture, var: Path
) -> None:
    with cluster(var, answers) as state:
        complete(state.cluster.checkpoints / "a/chk-7", 1_767_268_800)
        assert mnr.main(["stop"]) == 1
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert f"no savepoint can be taken in {state.cluster.savepoints}: {reason}; mend that" in printed
        newest = f"goes on from {state.cluster.checkpoints}/a/chk-7 of 2026-01-01 12:00:00 UTC"
        assert f"`make mnr-stop FORCE=1` stops without one: `make mnr` then {newest}" in printed
        assert Supervisor(state).is_up()
        assert mnr.main(["stop", "--force"]) == 0
        assert f"Stopped without a savepoint; `make mnr` {newest}" in capsys.readouterr().out
        assert not state.is_up()
        assert mnr.main(["stop", "--force"]) == 0
        assert capsys.readouterr().out == f"No streaming job runs for {var}\n"


def test_force_that_is_not_1_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert mnr.main(["stop", "--force", "0"]) == 1
    assert capsys.readouterr().err == "mnr stop: FORCE=0 is neither 1 nor left out\n"


def test_savepoint_that_cannot_be_taken_is_one_clear_line(capsys: pytest.CaptureFixture, var: Path) -> None:
    with cluster(var, job("RUNNING", 3) | NO_ROOM) as state:
        assert mnr.main(["savepoint"]) == 1
        assert capsys.readouterr().err == (
            f"mnr savepoint: Flink could not take a savepoint in {state.cluster.savepoints}: "
            "java.io.IOException: disk full\n"
        )


def test_job_is_stopped_after_its_savepoint(capsys: pytest.CaptureFixture, var: Path) -> None:
    done = {"status": {"id": "COMPLETED"}, "operation": {"location": "file:/a/savepoint-1"}}
    with cluster(var, job("RUNNING", 3) | NO_ROOM | {"/jobs/j1/savepoints/t1": done}) as state:
        assert mnr.main(["stop"]) == 0
        assert "Stopped at file:/a/savepoint-1\n" in capsys.readouterr().out
        assert not state.is_up()


def test_job_that_a_savepoint_has_stopped_needs_no_other(capsys: pytest.CaptureFixture, var: Path) -> None:
    with cluster(var, job("FINISHED", 0)) as state:
        assert mnr.main(["stop"]) == 0
        assert not state.is_up()


def test_status_tells_how_often_a_job_that_runs_was_restarted(
    capsys: pytest.CaptureFixture, var: Path
) -> None:
    told = {
        "/jobs/j1": {"duration": 1, "vertices": []},
        "/jobs/j1/metrics?get=numRestarts": [{"id": "numRestarts", "value": "41"}],
        "/jobs/j1/checkpoints": {},
    }
    with cluster(var, job("RUNNING", 3) | told) as state:
        state.cluster.job_file.write_text(
            mnr.job_config(mnr.load_settings(), state.cluster).model_dump_json()
        )
        assert mnr.main(["status"]) == 0
        assert "restarts   41\n" in capsys.readouterr().out


def test_a_second_command_at_once_is_one_clear_line(capsys: pytest.CaptureFixture, var: Path) -> None:
    with cluster(var, job("RUNNING", 3)) as state, state.lock():
        assert mnr.main(["stop"]) == 1
        assert capsys.readouterr().err == (
            f"mnr stop: another `make mnr` or `make mnr-stop` is at work on {var}; wait for it\n"
        )


def test_interrupted_start_is_one_clear_line(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, var: Path
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with cluster(var, job("RESTARTING", 0)):
        monkeypatch.setattr("services.mnr.time.sleep", interrupt)
        assert mnr.main(["start"]) == 130
        assert capsys.readouterr().err == (
            "mnr start: interrupted; `make mnr-status` tells how the job stands\n"
        )


def test_without_a_checkpoint_it_is_said_that_the_job_begins_anew(tmp_path: Path) -> None:
    state = MNRState(tmp_path)
    assert state.going_on() == (
        f"the beginning of its source, with empty queues: {tmp_path}/mnr has no checkpoint"
    )


def older_form(text: str) -> str:
    values = json.loads(text)
    values["stream"]["slots"] = values["stream"].pop("parallelism")
    return json.dumps(values)


@pytest.mark.parametrize(
    "spoil", [lambda text: text[:40], lambda text: "", lambda text: "[1]", older_form, None]
)
def test_status_of_a_job_whose_file_is_damaged_or_of_another_version_is_one_clear_line(
    spoil, capsys: pytest.CaptureFixture, var: Path
) -> None:
    with cluster(var, job("RUNNING", 3)) as state:
        if spoil:
            told = mnr.job_config(mnr.load_settings(), state.cluster).model_dump_json()
            state.cluster.job_file.write_text(spoil(told))
        assert mnr.main(["status"]) == 1
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert str(state.cluster.job_file) in printed
        assert ("cannot be read" if spoil is None else "damaged or of another version") in printed
        assert "`make mnr-stop`, then `make mnr` writes it anew" in printed


def test_status_of_a_cluster_that_is_gone_asks_nobody_who_has_its_port_now(
    capsys: pytest.CaptureFixture, var: Path
) -> None:
    with flink(job("RUNNING", 3)) as url:
        (var / "mnr").mkdir(parents=True)
        (var / "mnr/ports.json").write_text(json.dumps({"mnr": int(url.rsplit(":", 1)[1])}))
        (var / "mnr/job.json").write_text("{}")
        for command, message in (
            ("status", "no streaming job answers"), ("savepoint", "does not answer; `make mnr` starts it")
        ):  # fmt: skip
            assert mnr.main([command]) == 1
            printed = capsys.readouterr().err
            assert printed.count("\n") == 1
            assert message in printed


@pytest.mark.parametrize("text", ["", "[8081]", '{"mn', '{"mnr": "8081"}', '{"mnr": 81000}'])
def test_ports_that_are_damaged_are_one_clear_line(
    text: str, capsys: pytest.CaptureFixture, var: Path
) -> None:
    (var / "mnr").mkdir(parents=True)
    (var / "mnr/ports.json").write_text(text)
    assert mnr.main(["status"]) == 1
    assert capsys.readouterr().err == (
        f"mnr status: {var}/mnr/ports.json is damaged: "
        "`make mnr-stop FORCE=1`, then `make mnr` writes it anew\n"
    )
