"""MLflow: one parent run a day, releases as versions, aliases, verified copies; a real store and server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import requests
from mlflow import MlflowClient

from lakehouse.releases import ReleaseCorrupt, open_release, verify_release
from tasks import tracking
from tasks.records import MethodRecord
from tasks.settings import BadSettings, Settings
from tasks.tracking.connection import connected
from tests.tasks.small_releases import (
    DAY,
    metric_rows,
    small_contents,
    small_record,
    small_settings,
    write_small,
)

PASSWORD = "of this test alone"
AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return small_settings(tmp_path_factory.mktemp("state"))


@pytest.fixture
def client(settings: Settings) -> Iterator[MlflowClient]:
    with connected(settings) as client:
        yield client


@pytest.fixture
def day(request: pytest.FixtureRequest) -> date:
    """A day of its own for each test, since they share one MLflow."""
    return DAY + timedelta(days=sum(request.node.name.encode()))


def day_runs(client: MlflowClient, day: date) -> list:
    experiment = client.get_experiment_by_name("daily_cycle").experiment_id
    return client.search_runs([experiment], f"tags.kind = 'day' and tags.day = '{day}'")


def nested_runs(client: MlflowClient, run_id: str) -> dict:
    experiment = client.get_experiment_by_name("daily_cycle").experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.info.run_name: run for run in runs}


def register(day: date, settings: Settings, seed: int = 0, **changes: object) -> tracking.ReleaseVersion:
    record = small_record(day, **{"methods": ()} | changes)
    folder = settings.staged_root / day.isoformat()
    write_small(folder, small_contents(seed), day)
    return tracking.register_version(folder, record, tracking.log_day(record, settings).run_id, settings)


def test_day_is_one_parent_run_with_a_nested_run_per_method(day: date, settings: Settings, client) -> None:
    logged = tracking.log_day(small_record(day), settings)
    (parent,) = day_runs(client, day)
    assert (parent.info.run_id, parent.info.run_name, parent.info.status) == (
        logged.run_id,
        str(day),
        "FINISHED",
    )
    tags = parent.data.tags
    assert tags["verdict"] == "failed"
    assert tags["data_digest.click"] == "d1"
    assert (tags["config_digest"], tags["code_version"], tags["dag_run_id"]) == (
        "c0ffee",
        "abc123",
        "manual__1",
    )
    assert tags["is_backfill"] == "false"
    assert "| volume | **failed** | 0.4000 | 0.5000 | -0.1000 |" in tags["mlflow.note.content"]
    assert parent.data.params == {"window_days": "14"}
    assert parent.data.metrics == {"index_recall": 1.0}
    methods = nested_runs(client, logged.run_id)
    assert methods.keys() == {"popularity", "merged"}
    merged = methods["merged"].data
    assert merged.params == {"dim": "32", "nested.alpha": "0.5"}
    assert merged.metrics["hit_rate_at_100"] == 0.36
    assert merged.metrics["hit_rate_at_100_low"] == pytest.approx(0.35)
    assert merged.metrics["users_new/hit_rate_at_100"] == pytest.approx(0.12)
    losses = client.get_metric_history(methods["merged"].info.run_id, "loss/total")
    assert [(loss.step, loss.value) for loss in losses] == [(0, 1.0), (1, 0.5), (2, 0.25)]


def test_figures_and_gate_table_are_kept_with_the_runs(
    day: date, settings: Settings, client, tmp_path
) -> None:
    run_id = tracking.log_day(small_record(day), settings).run_id
    assert {file.path for file in client.list_artifacts(run_id)} == {
        "gates.json",
        "gates.md",
        "hit_rate.png",
        "made_with.json",
    }
    folder = Path(client.download_artifacts(run_id, "", str(tmp_path)))
    assert json.loads((folder / "gates.json").read_text())["verdict"] == "failed"
    assert (folder / "hit_rate.png").read_bytes().startswith(b"\x89PNG")
    merged = nested_runs(client, run_id)["merged"].info.run_id
    assert [file.path for file in client.list_artifacts(merged)] == ["loss.png"]


def test_undefined_figures_are_left_out_and_diverged_losses_are_kept(
    day: date, settings: Settings, client
) -> None:
    rows = metric_rows("swing", 0.3).to_pylist()
    rows[0] |= {"value": None, "low": None, "high": None}
    rows[1] |= {"low": float("nan")}
    table = pa.Table.from_pylist(rows, metric_rows("swing", 0.3).schema)
    method = MethodRecord("swing", {}, table, {"total": [1.0, float("nan")], "none": []})
    run_id = tracking.log_day(small_record(day, methods=(method,)), settings).run_id
    (swing,) = nested_runs(client, run_id).values()
    assert "hit_rate_at_50" not in swing.data.metrics
    assert "hit_rate_at_100_low" not in swing.data.metrics
    assert swing.data.metrics["hit_rate_at_100"] == 0.3
    assert len(client.get_metric_history(swing.info.run_id, "loss/total")) == 2


def test_long_series_and_many_metrics_are_logged_whole(day: date, settings: Settings, client) -> None:
    method = MethodRecord(
        "base", {f"p{i}": i for i in range(150)}, metric_rows("base", 0.3), {"total": [1.0] * 1234}
    )
    run_id = tracking.log_day(small_record(day, methods=(method,)), settings).run_id
    (base,) = nested_runs(client, run_id).values()
    assert len(base.data.params) == 150
    assert len(client.get_metric_history(base.info.run_id, "loss/total")) == 1234


def test_equal_record_of_another_attempt_updates_the_tags_only(day: date, settings: Settings, client) -> None:
    first = tracking.log_day(small_record(day), settings)
    again = tracking.log_day(small_record(day, dag_run_id="manual__2", is_backfill=True), settings)
    assert (again.run_id, first.is_new, again.is_new) == (first.run_id, True, False)
    (run,) = day_runs(client, day)
    assert (run.data.tags["dag_run_id"], run.data.tags["is_backfill"]) == ("manual__2", "true")
    assert nested_runs(client, first.run_id).keys() == {"popularity", "merged"}


def test_changed_and_unfinished_attempts_are_replaced(day: date, settings: Settings, client) -> None:
    first = tracking.log_day(small_record(day), settings)
    second = tracking.log_day(small_record(day, verdict="passed"), settings)
    (run,) = day_runs(client, day)
    assert (run.info.run_id, second.is_new) == (second.run_id, True)
    assert nested_runs(client, first.run_id) == {}
    client.update_run(second.run_id, status="RUNNING")
    third = tracking.log_day(small_record(day, verdict="passed"), settings)
    (run,) = day_runs(client, day)
    assert (run.info.run_id, third.is_new) == (third.run_id, True)


def test_replaced_run_of_a_registered_version_stays_and_says_so(
    day: date, settings: Settings, client
) -> None:
    version = register(day, settings)
    second = tracking.log_day(small_record(day, verdict="passed"), settings)
    assert {run.info.run_id for run in day_runs(client, day)} == {version.run_id, second.run_id}
    assert client.get_run(version.run_id).data.tags["superseded_by"] == second.run_id


def test_release_becomes_a_version_with_tags_and_a_page_to_decide_from(
    day: date, settings: Settings, client
) -> None:
    methods = small_record(day).methods
    version = register(day, settings, methods=methods)
    assert (version.day, version.verdict, version.is_new, version.is_backfill) == (day, "failed", True, False)
    stored = client.get_model_version("retrieval", version.version)
    assert stored.tags["release_digest"] == version.release_digest
    assert stored.tags["dag_run_id"] == "manual__1"
    assert stored.tags["merged.hit_rate_at_100"] == "0.3600 [0.3500, 0.3700]"
    page = stored.description
    assert page.startswith(f"## {day}: failed\n\n1 of 2 gates passed; not passed: volume.")
    assert "| beats_popularity | passed | 1.3100 | 1.0000 | +0.3100 | Hit@100 1.31 |" in page
    assert "| merged | 100 | +2.00% | +1.00% | +3.00% | 500 |" in page
    assert "| popularity | 0.1200 [0.1100, 0.1300] | 0.2400 [0.2300, 0.2500] | 500 |" in page
    assert f"runs/{version.run_id}" in page
    assert "/state/data_docs/index.html" in page
    assert version.release_digest in page
    facts = tracking.find_version(day, settings)
    assert (facts["version"], facts["day"], facts["verdict"]) == (version.version, str(day), "failed")
    assert json.loads(json.dumps(facts)) == facts


def test_version_holds_no_pickle(day: date, settings: Settings) -> None:
    address = Path(register(day, settings).artifact_address.removeprefix("file://"))
    files = [path for path in address.rglob("*") if path.is_file()]
    assert (address / "pyfunc.py").exists()
    assert not [path.name for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".joblib")]
    assert not [path.name for path in files if path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05")]


def test_equal_release_of_the_same_day_reuses_its_version(day: date, settings: Settings, client) -> None:
    first = register(day, settings)
    again = register(day, settings, verdict="passed", dag_run_id="manual__2")
    assert (again.version, again.is_new, again.verdict) == (first.version, False, "passed")
    stored = client.get_model_version("retrieval", first.version)
    assert stored.description.startswith(f"## {day}: passed")
    assert stored.tags["dag_run_id"] == "manual__2"
    other = register(day, settings, seed=1)
    assert (other.is_new, int(other.version) > int(first.version)) == (True, True)
    assert tracking.find_version(day, settings)["version"] == other.version


def test_registration_killed_after_the_upload_uses_the_upload(day: date, settings: Settings, client) -> None:
    version = register(day, settings)
    client.delete_model_version("retrieval", version.version)
    again = register(day, settings)
    assert again.version != version.version
    assert again.artifact_address == version.artifact_address


def test_damaged_folder_is_not_registered(day: date, settings: Settings) -> None:
    record = small_record(day, methods=())
    folder = settings.staged_root / day.isoformat()
    write_small(folder, small_contents(), day)
    (folder / "items.parquet").write_bytes(b"")
    run = tracking.log_day(record, settings)
    with pytest.raises(ReleaseCorrupt, match=r"items\.parquet was changed"):
        tracking.register_version(folder, record, run.run_id, settings)
    assert tracking.find_version(day, settings) is None


def test_aliases_name_releases_and_remember_our_own_moves(day: date, settings: Settings, client) -> None:
    first, second = register(day, settings), register(day, settings, seed=1)
    tracking.set_challenger(second.version, settings)
    assert tracking.challenger(settings).version == second.version
    move = tracking.set_champion(first.version, settings, actor="auto", reason="gates passed")
    found = tracking.champion(settings)
    assert (found.version, found.day, found.release_digest) == (first.version, day, first.release_digest)
    assert found.move == move
    client.set_registered_model_alias("retrieval", "champion", second.version)
    assert tracking.champion(settings).move is None
    client.delete_registered_model_alias("retrieval", "champion")
    assert tracking.champion(settings) is None


def test_alias_on_what_is_no_release_is_one_clear_line(day: date, settings: Settings, client) -> None:
    version = register(day, settings)
    with pytest.raises(tracking.UnknownVersion, match="has no version 999"):
        tracking.set_champion("999", settings, actor="manual", reason="typo")
    with pytest.raises(tracking.UnknownVersion, match="has no version banana"):
        tracking.set_challenger("banana", settings)
    stray = client.create_model_version("retrieval", version.artifact_address)
    client.set_registered_model_alias("retrieval", "champion", stray.version)
    with pytest.raises(tracking.UnknownVersion, match="no tags day and release_digest"):
        tracking.champion(settings)
    client.delete_registered_model_alias("retrieval", "champion")


def test_download_is_verified_cached_and_healed(day: date, settings: Settings, tmp_path: Path) -> None:
    version = register(day, settings)
    folder = tracking.download_release(version.version, tmp_path, settings)
    assert folder == tmp_path / version.release_digest
    assert verify_release(folder).digest == version.release_digest
    inode = folder.stat().st_ino
    assert tracking.download_release(version.version, tmp_path, settings).stat().st_ino == inode
    (folder / "items.parquet").unlink()
    assert tracking.download_release(version.version, tmp_path, settings).stat().st_ino != inode
    assert verify_release(folder).day == day
    digest = version.release_digest
    assert sorted(path.name for path in tmp_path.iterdir()) == [digest, f"{digest}.verified"]


def test_artifacts_of_another_release_are_refused(day: date, settings: Settings, tmp_path: Path) -> None:
    first, second = register(day, settings), register(day, settings, seed=1)
    (one,), (other,) = (
        list(Path(version.artifact_address.removeprefix("file://")).glob("artifacts/*"))
        for version in (first, second)
    )
    shutil.rmtree(one)
    shutil.copytree(other, one)
    with pytest.raises(ReleaseCorrupt, match="holds release"):
        tracking.download_release(first.version, tmp_path, settings)
    assert list(tmp_path.iterdir()) == []


def test_deleted_experiment_is_restored(day: date, settings: Settings, client) -> None:
    tracking.log_day(small_record(day), settings)
    client.delete_experiment(client.get_experiment_by_name("daily_cycle").experiment_id)
    tracking.log_day(small_record(day + timedelta(days=1)), settings)
    assert client.get_experiment_by_name("daily_cycle").lifecycle_stage == "active"


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_removed_version_is_no_release_and_its_bytes_are_gone(
    day: date, settings: Settings, client, tmp_path: Path
) -> None:
    version = register(day, settings, methods=small_record(day).methods)
    artifacts = settings.var / "mlartifacts"
    runs = [version.run_id, nested_runs(client, version.run_id)["merged"].info.run_id]
    folders = [Path(version.artifact_address.removeprefix("file://")), *(artifacts / run for run in runs)]
    assert all(files_below(folder) for folder in folders)
    tracking.mark_removed([version.version], settings)
    assert version.version in tracking.list_removed(settings)
    assert tracking.find_version(day, settings) is None
    with pytest.raises(tracking.UnknownVersion, match="was removed by retention"):
        tracking.download_release(version.version, tmp_path, settings)
    tracking.remove_version(version.version, settings)
    assert day in tracking.list_logged_days(settings)
    tracking.remove_day(day, settings)
    assert [files_below(folder) for folder in folders] == [[]] * len(folders)
    assert day_runs(client, day) == tracking.list_removed(settings) == []
    assert day not in tracking.list_logged_days(settings)


def test_release_registered_again_while_it_is_removed_keeps_its_artifacts(
    day: date, settings: Settings, tmp_path: Path
) -> None:
    first = register(day, settings)
    tracking.mark_removed([first.version], settings)
    again = register(day, settings)
    assert (again.is_new, again.release_digest) == (True, first.release_digest)
    tracking.remove_version(first.version, settings)
    assert verify_release(tracking.download_release(again.version, tmp_path, settings)).day == day


def test_artifacts_that_another_version_shares_stay(day: date, settings: Settings, client, tmp_path) -> None:
    version = register(day, settings)
    source = client.get_model_version("retrieval", version.version)
    tags = {name: source.tags[name] for name in ("day", "release_digest")}
    twin = client.create_model_version(
        "retrieval", source.source, run_id=version.run_id, tags=tags, model_id=source.model_id
    )
    tracking.mark_removed([version.version], settings)
    tracking.remove_version(version.version, settings)
    assert verify_release(tracking.download_release(str(twin.version), tmp_path, settings)).day == day


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://user:secret@127.0.0.1:1", "http://***@127.0.0.1:1: connection refused"),
        ("http://nowhere.invalid", "http://nowhere.invalid: "),
    ],
)
def test_absent_tracking_is_one_short_line_at_once(tmp_path: Path, uri: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(tracking.TrackingUnavailable) as caught:
        tracking.champion(small_settings(tmp_path, tracking_uri=uri))
    told = str(caught.value)
    assert told.startswith(f"MLflow does not answer at {message}")
    assert told.endswith("; start it (make up) or set TRIBUTARY_TRACKING_URI")
    assert len(told) < 160 and "\n" not in told
    assert time.monotonic() - started < 10


def test_address_that_is_none_is_a_mistake_which_no_retry_mends(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="must be sqlite"):
        tracking.champion(small_settings(tmp_path, tracking_uri="file:///tmp/mlruns"))


def test_store_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, tracking_uri="sqlite:////proc/no/mlflow.db")
    with pytest.raises(tracking.TrackingUnavailable, match="check the file"):
        tracking.log_day(small_record(), settings)


def test_reading_an_absent_store_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "var")
    assert tracking.champion(settings) is tracking.challenger(settings) is None
    assert tracking.find_version(DAY, settings) is None
    assert tracking.list_releases(settings) == []
    with pytest.raises(tracking.UnknownVersion, match="retrieval has no version 1"):
        tracking.find_release("1", settings)
    assert not settings.var.exists()


def test_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database" * 500)
    with pytest.raises(tracking.TrackingUnavailable, match="file is not a database"):
        tracking.champion(small_settings(tmp_path))


@pytest.fixture
def server(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real MLflow server with logins on a copy of the database, which keeps the artifacts itself."""
    shutil.copy(settings.var / "mlflow.db", tmp_path / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    command += ["--app-name", "basic-auth"]
    (tmp_path / "auth.ini").write_text(AUTH.format(folder=tmp_path))
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": "tributary",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "signs sessions of this test",
    }
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "tributary")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while True:
        try:
            requests.get(f"{address}/health", timeout=1)
            break
        except requests.RequestException:
            assert process.poll() is None and time.monotonic() < deadline, "the MLflow server does not start"
            time.sleep(0.2)
    yield address
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_everything_works_against_a_server_over_http(
    server: str, day: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(
        tmp_path / "var", tracking_uri=server, experiment="over_http", model_name="over_http"
    )
    folder = settings.staged_root / str(day)
    manifest = write_small(folder, small_contents(), day)
    record = small_record(day, methods=small_record(day).methods[1:])
    logged = tracking.log_day(record, settings)
    assert logged.address.startswith(f"{server}/#/experiments/")
    assert requests.get(f"{server}/health", timeout=5).ok
    version = tracking.register_version(folder, record, logged.run_id, settings)
    assert (version.version, version.release_digest) == ("1", manifest.digest)
    assert not tracking.register_version(folder, record, logged.run_id, settings).is_new
    tracking.set_challenger(version.version, settings)
    tracking.set_champion(version.version, settings, actor="auto", reason="gates passed")
    assert tracking.champion(settings).move.actor == "auto"
    copy = tracking.download_release("1", tmp_path / "local", settings)
    assert open_release(copy).manifest == manifest
    with pytest.raises(tracking.UnknownVersion):
        tracking.set_champion("7", settings, actor="manual", reason="typo")
    assert len(files_below(tmp_path / "artifacts")) > 20
    tracking.mark_removed(["1"], settings)
    tracking.remove_version("1", settings)
    tracking.remove_day(day, settings)
    assert files_below(tmp_path / "artifacts") == []
    with pytest.raises(tracking.UnknownVersion, match="has no version 1"):
        tracking.find_release("1", settings)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
    with pytest.raises(tracking.LoginRefused, match="check MLFLOW_TRACKING_USERNAME") as caught:
        tracking.champion(settings)
    assert not isinstance(caught.value, OSError)
    assert "not the password" not in str(caught.value)
