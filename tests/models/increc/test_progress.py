import logging
import signal
from datetime import date

import pytest

from models.increc.training import train
from tasks.training_state import TrainingState

NAME = "training/2026-01-01.base.safetensors"


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "IncRec", "n_category_buckets": 8},
        {"validation_share": 0.3, "patience": 3, "learning_rate": 0.5, "optimizer_state": "row_wise"},
    ],
    ids=["IncRec", "held out"],
)
def test_a_run_killed_after_any_epoch_ends_in_the_same_bytes(few, config, run_child, tmp_path, changes):
    config = config.model_copy(update={"epochs": 5, "batch_size": 64} | changes)
    whole, report = train(*few, config)
    for epoch in (2, len(report.epoch_losses["total"])):
        assert run_child(config, keep=True, kill_at=[0, epoch]).returncode == -signal.SIGKILL
        assert (tmp_path / NAME).exists()
    seen = []
    state = TrainingState(tmp_path, date(2026, 1, 1), "base")
    again, again_report = train(*few, config, keeper=state, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == []
    assert again.to_bytes() == whole.to_bytes()
    assert again_report.to_json() == report.to_json()
    state.forget()
    assert list((tmp_path / "training").iterdir()) == []


def test_a_run_goes_on_after_the_last_kept_epoch(few, config, run_child, tmp_path):
    config = config.model_copy(update={"epochs": 4, "validation_share": 0.2, "patience": 4})
    assert run_child(config, keep=True, kill_at=[0, 2]).returncode == -signal.SIGKILL
    seen = []
    keeper = TrainingState(tmp_path, date(2026, 1, 1), "base")
    again, _ = train(*few, config, keeper=keeper, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == [3, 4]
    assert again.to_bytes() == train(*few, config)[0].to_bytes()


def test_a_state_of_other_inputs_is_named_and_not_used(few, config, tmp_path, caplog):
    samples, items, users = few
    config = config.model_copy(update={"epochs": 1})
    keeper = TrainingState(tmp_path, date(2026, 1, 1), "base")
    train(*few, config, keeper=keeper)
    for what, inputs, changed in (
        ("samples", (samples.slice(1), items, users), config),
        ("vocabulary", (samples, items.slice(0, 199), users), config),
        ("config.dim", few, config.model_copy(update={"dim": 8})),
        ("config.seed", few, config.model_copy(update={"seed": 3})),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            model, _ = train(*inputs, changed, keeper=keeper)
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.startswith("the kept training state has another ")
        assert what in line
        assert line.endswith("it is not used, training starts anew")
        assert model.to_bytes() == train(*inputs, changed)[0].to_bytes()


def test_a_damaged_state_is_named_and_not_used(few, config, tmp_path, caplog):
    config = config.model_copy(update={"epochs": 1})
    keeper = TrainingState(tmp_path, date(2026, 1, 1), "base")
    whole, _ = train(*few, config, keeper=keeper)
    content = keeper.path.read_bytes()
    for damaged in (b"", b"nothing", content[:100], content[:-1]):
        keeper.path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again, _ = train(*few, config, keeper=keeper)
        assert "cannot be read" in caplog.text
        assert again.to_bytes() == whole.to_bytes()
