"""A new release is taken over while the old one works; one that cannot be used is refused, and told."""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lakehouse.releases import ReleaseCorrupt
from lakehouse.serving import POINTER, NothingServed
from nearline import served_scorer
from nearline.served_scorer import ServedScorer
from tests.nearline.small_served import publish


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def test_nothing_served_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NothingServed, match="publish a release first"):
        ServedScorer(tmp_path, Counter().update)


def test_new_release_is_taken_over_when_it_is_ready(tmp_path: Path) -> None:
    counts = Counter()
    first = publish(tmp_path)
    with closing(ServedScorer(tmp_path, lambda name: counts.update([name]))) as served:
        assert served.current().digest == first.digest
        second = publish(tmp_path, seed=1)
        assert served.current().digest == first.digest
        wait_for(lambda: served.current().digest == second.digest)
        assert counts == {"release_exchanges": 1}


def test_removed_release_goes_on_from_memory_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = Counter()
    first = publish(tmp_path)
    with closing(ServedScorer(tmp_path, lambda name: counts.update([name]))) as served:
        shutil.rmtree(tmp_path / "local")
        wait_for(lambda: served.current() and "was removed" in caplog.text)
        time.sleep(0.5)
        assert served.current().digest == first.digest
        assert counts == {"release_failures": 1}
        second = publish(tmp_path, seed=1)
        wait_for(lambda: served.current().digest == second.digest)


@pytest.mark.parametrize("harm", ["mixed", "removed", "pointer"])
def test_release_that_cannot_be_used_is_refused_until_it_is_mended(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_scorer, "TRY_AGAIN_SECONDS", 0.3)
    counts = Counter()
    first = publish(tmp_path)
    with closing(ServedScorer(tmp_path, lambda name: counts.update([name]))) as served:
        second = publish(tmp_path / "elsewhere", seed=1)
        if harm == "mixed":
            mixed, name = tmp_path / "local" / "seed1", "i2i_table.parquet"
            shutil.copytree(tmp_path / "elsewhere" / "local" / "seed1", mixed)
            shutil.copy(tmp_path / "local" / "seed0" / name, mixed / name)
        pointer = (tmp_path / "elsewhere" / POINTER).read_text()
        (tmp_path / POINTER).write_text("{" if harm == "pointer" else pointer)
        said = {
            "mixed": "i2i_table.parquet is not its manifest's",
            "removed": "is no release",
            "pointer": "pointer cannot be read",
        }[harm]
        wait_for(lambda: served.current() and said in caplog.text)
        assert served.current().digest == first.digest
        assert counts == {"release_failures": 1}
        publish(tmp_path, seed=1)
        wait_for(lambda: served.current().digest == second.digest)


def test_folder_of_another_release_than_the_pointer_names_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, seed=1)
    publish(tmp_path, seed=0)
    folder = tmp_path / "local"
    shutil.rmtree(folder / "seed0")
    (folder / "seed1").rename(folder / "seed0")
    with pytest.raises(ReleaseCorrupt, match="but the pointer names"):
        ServedScorer(tmp_path, Counter().update)
