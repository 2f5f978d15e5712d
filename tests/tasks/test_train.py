"""Training a day: the same twice, after a kill, and by two processes; what it keeps on the way."""

import os
import shutil
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.store import Lakehouse, MissingPartition
from models.increc.samples import NoSamples
from tasks import train_distributed
from tasks.checkpoints import read_files
from tasks.histories import build_histories
from tasks.ingest import ingest_logs
from tasks.samples import construct_samples
from tasks.settings import REPOSITORY, Settings, load_settings
from tasks.swing import rebuild_swing_index
from tasks.train import UnknownMethod, read_checkpoint, train

FIRST = date(2026, 1, 1)
DAY = FIRST + timedelta(days=3)
SETTINGS = """
[source]
preset = "synthetic"
[source.synthetic]
n_users = 200
n_items = 150
n_days = 5
n_clusters = 6
first_day = "2026-01-01"
[methods.base]
variant = "TB-Online"
[methods.increc]
variant = "IncRec"
batch_size = 64
epochs = 3
dim = 8
[channels]
base = 5
"""
KILLED_IN_EPOCH_TWO = """
import os, signal
from datetime import date
from models.increc import training
from tasks import train
from tasks.settings import load_settings

first_epoch = training.train_epoch

def train_epoch(network, optimizer, batches, epoch, device):
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return first_epoch(network, optimizer, batches, epoch, device)

training.train_epoch = train_epoch
train.train(date(2026, 1, 4), "increc", load_settings())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a state folder with three days of samples."""
    folder = tmp_path_factory.mktemp("state")
    (folder / "settings.toml").write_text(SETTINGS)
    given = {"TRIBUTARY_SETTINGS": str(folder / "settings.toml"), "TRIBUTARY_VAR": str(folder / "var")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        settings = load_settings()
        for n in range(3):
            for step in (ingest_logs, build_histories, rebuild_swing_index, construct_samples):
                step(FIRST + timedelta(days=n), settings)
        ingest_logs(DAY, settings)
    return os.environ | given | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Its settings."""
    for name in ("TRIBUTARY_SETTINGS", "TRIBUTARY_VAR"):
        monkeypatch.setenv(name, environment[name])
    return load_settings()


def digest(settings: Settings) -> str:
    return Lakehouse(settings.lakehouse_root).require(tables.CHECKPOINT, DAY, part="increc").digest


def kept(settings: Settings) -> list[str]:
    return sorted(path.name for path in Path(settings.var / "training").iterdir())


@pytest.fixture
def whole(settings: Settings) -> str:
    """The digest of an undisturbed run."""
    report = train(DAY, "increc", settings)
    assert report.n_samples > 64
    return digest(settings)


def test_a_day_trained_twice_has_the_same_digest_and_keeps_no_state(settings: Settings, whole: str) -> None:
    assert kept(settings) == []
    train(DAY, "increc", settings)
    assert digest(settings) == whole


def test_a_killed_run_goes_on_and_ends_in_the_same_digest(
    settings: Settings, whole: str, environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    Lakehouse(settings.lakehouse_root).remove(tables.CHECKPOINT, DAY, part="increc")
    ended = subprocess.run([sys.executable, "-c", KILLED_IN_EPOCH_TWO], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert kept(settings) == [f"{DAY}.increc.safetensors"]
    with caplog.at_level("INFO", logger="models.increc"):
        train(DAY, "increc", settings)
    assert "training goes on after epoch 1 of 3" in caplog.text
    assert digest(settings) == whole
    assert kept(settings) == []


def run_distributed(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return subprocess.run(
        [*command, "tasks.train_distributed", "--day", str(DAY), *arguments],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_two_processes_write_the_checkpoint_of_one(
    settings: Settings, whole: str, environment: dict[str, str]
) -> None:
    one = read_checkpoint(Lakehouse(settings.lakehouse_root), DAY, "increc")
    ended = run_distributed(environment, "--method", "increc")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert digest(settings) != whole
    two = read_checkpoint(Lakehouse(settings.lakehouse_root), DAY, "increc")
    for name, value in one.network.state_dict().items():
        np.testing.assert_allclose(two.network.state_dict()[name], value, atol=1e-3)
    assert kept(settings) == []


def test_two_processes_say_what_is_wrong_and_end(environment: dict[str, str]) -> None:
    ended = run_distributed(environment, "--method", "nothing")
    assert ended.returncode != 0
    assert "of 2: no method 'nothing' in the settings; known: base, increc" in ended.stderr


def test_settings_that_cannot_be_used_are_one_line_of_a_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TRIBUTARY_DEVICE", "tpu")
    assert train_distributed.main(["--day", str(DAY), "--method", "increc"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tasks.train_distributed, process 1: ")
    assert "TRIBUTARY_DEVICE" in line or "device" in line


def test_day_without_samples_carries_the_weights_on_as_they_are(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(settings.lakehouse_root, tmp_path / "lakehouse")
    carried = {"increc": settings.methods["increc"].model_copy(update={"start": "carry_on"})}
    settings = settings.model_copy(
        update={"var": tmp_path, "lakehouse_root": str(tmp_path / "lakehouse"), "methods": carried}
    )
    lakehouse, eve = Lakehouse(settings.lakehouse_root), DAY - timedelta(days=1)
    assert train(eve, "increc", settings).n_samples > 64
    lakehouse.replace(tables.INCREC_SAMPLE, eve, tables.INCREC_SAMPLE.schema.empty_table())
    report = train(DAY, "increc", settings)
    assert (report.n_samples, report.final_loss, report.is_warming_up) == (0, None, False)
    assert f"the checkpoint of {eve} is carried on to {DAY} as it is: IncRec has nothing" in caplog.text
    before, after = (read_files(lakehouse, day, "increc") for day in (eve, DAY))
    assert before == after
    assert train(DAY, "increc", settings) == report
    # Without weights to carry on there is nothing to write.
    lakehouse.remove(tables.CHECKPOINT, eve, part="increc")
    lakehouse.remove(tables.CHECKPOINT, DAY, part="increc")
    few = lakehouse.read(tables.INCREC_SAMPLE, FIRST + timedelta(days=1)).slice(0, 1)
    for name in ("rtg_item_ids", "itg_item_ids", "etg_item_ids"):
        nothing = pa.array([[]], few.schema.field(name).type)
        few = few.set_column(few.column_names.index(name), name, nothing)
    lakehouse.replace(tables.INCREC_SAMPLE, FIRST + timedelta(days=1), few)
    with pytest.raises(NoSamples, match="IncRec has nothing to learn from"):
        train(DAY, "increc", settings)
    assert lakehouse.commit(tables.CHECKPOINT, DAY, part="increc") is None


def test_unknown_method_and_missing_days_are_refused(settings: Settings) -> None:
    with pytest.raises(UnknownMethod, match="known: base, increc"):
        train(DAY, "nothing", settings)
    with pytest.raises(MissingPartition):
        train(DAY + timedelta(days=1), "increc", settings)
