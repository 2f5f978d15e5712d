"""The file of a training run's state: replaced whole, taken away, and what a full disk leaves."""

import resource
from datetime import date
from pathlib import Path

import pytest
import torch

from tasks.training_state import TrainingState

DAY = date(2026, 1, 1)


@pytest.fixture
def state(tmp_path: Path) -> TrainingState:
    return TrainingState(tmp_path, DAY, "base")


def names(state: TrainingState) -> list[str]:
    return [path.name for path in state.path.parent.iterdir()]


def test_what_was_saved_last_is_loaded_until_it_is_forgotten(state: TrainingState) -> None:
    assert state.load() is None
    for value in (1.0, 2.0):
        state.save({"weight": torch.full((3, 2), value)}, f"facts {value}")
    tensors, facts = state.load()
    assert (tensors["weight"].tolist(), facts) == ([[2.0, 2.0]] * 3, "facts 2.0")
    state.forget()
    assert state.load() is None
    assert names(state) == []
    state.forget()


def test_what_a_killed_save_left_is_cleared_away(state: TrainingState) -> None:
    state.save({"weight": torch.zeros(1)}, "")
    state.path.with_name(f"{state.path.name}.123").write_bytes(b"half")
    state.save({"weight": torch.zeros(1)}, "")
    assert names(state) == [state.path.name]


def test_another_method_has_a_file_of_its_own(state: TrainingState, tmp_path: Path) -> None:
    other = TrainingState(tmp_path, DAY, "base_reseeded")
    other.save({"weight": torch.zeros(1)}, "other")
    state.save({"weight": torch.ones(1)}, "")
    state.forget()
    assert other.load()[1] == "other"


def test_a_file_that_may_not_grow_is_one_line_and_leaves_the_old_state(state: TrainingState) -> None:
    state.save({"weight": torch.zeros(1)}, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write the training state .*; make room") as raised:
            state.save({"weight": torch.zeros(10_000)}, "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(raised.value)
    assert state.load()[1] == "old"
    assert names(state) == [state.path.name]


@pytest.mark.parametrize("place", [-1, 60])
def test_a_state_with_one_changed_byte_is_named_and_not_used(
    state: TrainingState, place: int, caplog
) -> None:
    state.save({"weight": torch.ones(8)}, "facts")
    content = bytearray(state.path.read_bytes())
    content[place] ^= 1
    state.path.write_bytes(content)
    assert state.load() is None
    (line,) = caplog.messages
    assert str(state.path) in line
    assert "not used, training starts anew" in line
