"""Releases: written whole, opened lazily, every change noticed, the digest blind to index bytes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from lakehouse import tables
from lakehouse.releases import (
    BadRelease,
    CandidateLists,
    ReleaseContents,
    ReleaseCorrupt,
    TowerContents,
    open_release,
    verify_release,
    write_release,
)
from lakehouse.serving import NothingServed, Serving, open_served, read_serving, write_serving

DAY = date(2022, 5, 3)
FACTS = {"day": DAY, "code_version": "abc123", "config_digest": "c0ffee"}


def contents() -> ReleaseContents:
    generator = np.random.default_rng(0)
    tower = TowerContents(
        weights=save({"a": np.arange(4, dtype=np.float32), "b": np.eye(2, dtype=np.float32)}),
        config=b'{"dim": 4, "variant": "TB-Online"}',
        item_ids=np.arange(10, 15),
        item_embeddings=generator.normal(size=(5, 4)).astype(np.float32),
        user_ids=np.arange(3),
        user_embeddings=generator.normal(size=(3, 2, 4)).astype(np.float32),
        index=b"flat index",
    )
    lists = CandidateLists(
        user_ids=np.arange(3),
        item_ids=np.array([[10, 11], [12, -1], [13, 14]]),
        scores=np.ones((3, 2), np.float32),
    )
    return ReleaseContents(
        i2i_table=pa.table([[10], [11], [0.5], [1], [2]], schema=tables.I2I_TABLE.schema),
        item_index=pa.table([[10, 11], [1, 2], [DAY, DAY]], schema=tables.ITEM_INDEX.schema),
        items=pa.table({"item_id": [10, 11, 12], "item_index": [1, 2, 3], "price": [0.5, None, 1.0]}),
        user_history=pa.table([[0], [[10]], [[0]], [["home"]]], schema=tables.USER_HISTORY.schema),
        user_profile=pa.table([[0], [["age=20"]]], schema=tables.USER_SNAPSHOT.schema),
        popular_item_ids=np.array([12, 10]),
        quotas={"swing": 50, "base": 100},
        served_from=datetime(2022, 5, 3, 16),
        towers={"base": tower},
        candidates={"merged": lists},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_release(tmp_path / "release", contents(), **FACTS)
    return tmp_path / "release"


def test_release_gives_back_what_was_written(folder: Path) -> None:
    release, given = open_release(folder), contents()
    assert release.manifest.day == DAY
    assert release.manifest.served_from == datetime(2022, 5, 3, 16)
    assert release.manifest.quotas == {"swing": 50, "base": 100}
    assert release.i2i_table.equals(given.i2i_table)
    assert release.item_index.equals(given.item_index)
    assert release.items.equals(given.items)
    assert release.user_history.equals(given.user_history)
    assert release.popular_item_ids.tolist() == [12, 10]
    assert (release.towers, release.candidate_lists) == (("base",), ("merged",))
    tower = release.channel("base")
    assert (tower.weights, tower.index) == (given.towers["base"].weights, b"flat index")
    assert json.loads(tower.config)["variant"] == "TB-Online"
    for name in ("item_ids", "item_embeddings", "user_ids", "user_embeddings"):
        assert np.array_equal(getattr(tower, name), getattr(given.towers["base"], name))
    assert release.candidates("merged").item_ids.tolist() == [[10, 11], [12, -1], [13, 14]]


def scorer(config: str = "a") -> bytes:
    return save({"weight": np.arange(3, dtype=np.float32)}, metadata={"pi2i": config})


def scored(scorer: bytes | None) -> dict:
    statistics = pa.table({"item_id": [10], "n_clicks_day": [3]})
    return {"scorer": scorer, "item_statistics": None if scorer is None else statistics}


def test_a_release_carries_the_scorer_and_the_profiles_that_it_needs(tmp_path: Path) -> None:
    quotas = {"swing": 50, "base": 100, "pi2i": 50}
    write_release(tmp_path / "release", replace(contents(), **scored(scorer()), quotas=quotas), **FACTS)
    release = open_release(tmp_path / "release")
    assert (release.has_scorer, release.scorer) == (True, scorer())
    assert "pi2i/scorer.safetensors" in verify_release(tmp_path / "release").files
    assert release.towers == ("base",)
    assert release.item_statistics.to_pylist() == [{"item_id": 10, "n_clicks_day": 3}]
    assert release.user_profile.to_pylist() == [{"user_id": 0, "profile": ["age=20"]}]


def test_the_release_digest_covers_the_scorer_and_its_configuration(tmp_path: Path) -> None:
    digests = {
        write_release(tmp_path / "release", replace(contents(), **scored(each)), **FACTS).digest
        for each in (None, scorer(), scorer("b"), scorer())
    }
    assert len(digests) == 3


def test_a_release_without_a_scorer_says_so(folder: Path) -> None:
    assert not open_release(folder).has_scorer
    with pytest.raises(LookupError, match=r"of 2022-05-03 has no PI2I scorer: publish one that was built"):
        open_release(folder).scorer  # noqa: B018


def test_a_release_from_before_the_profiles_says_so(folder: Path) -> None:
    release = open_release(folder)
    files = {name: entry for name, entry in release.manifest.files.items() if name != "user_profile.parquet"}
    older = replace(release, manifest=replace(release.manifest, files=files))
    with pytest.raises(LookupError, match="has no user profiles: publish a newer one"):
        older.user_profile  # noqa: B018


def test_arrays_are_memory_mapped_and_read_only(folder: Path) -> None:
    embeddings = open_release(folder).channel("base").item_embeddings
    assert isinstance(embeddings, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        embeddings[0, 0] = 1


def test_unknown_channel_or_list_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(LookupError, match="no tower channel 'increc'; it has base"):
        open_release(folder).channel("increc")
    with pytest.raises(LookupError, match="no candidate list 'x'; it has merged"):
        open_release(folder).candidates("x")


def test_whole_release_verifies(folder: Path) -> None:
    assert verify_release(folder) == open_release(folder).manifest


def test_every_changed_byte_is_noticed(folder: Path) -> None:
    for name in open_release(folder).manifest.files:
        path = folder / name
        stored = path.read_bytes()
        path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
        with pytest.raises(ReleaseCorrupt, match=f"{name} was changed"):
            verify_release(folder)
        path.write_bytes(stored)
    verify_release(folder)


def test_truncated_missing_and_extra_files_are_noticed(folder: Path) -> None:
    index = folder / "base" / "index.faiss"
    index.write_bytes(b"flat")
    with pytest.raises(ReleaseCorrupt, match=r"index.faiss was changed .4 bytes"):
        verify_release(folder)
    index.unlink()
    with pytest.raises(ReleaseCorrupt, match=r"base/index.faiss is missing"):
        verify_release(folder)
    index.write_bytes(b"flat index")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ReleaseCorrupt, match=r"notes.txt is not in the manifest"):
        verify_release(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"day": "2022-05-03", "files": {}, "nonsense": 1}'])
def test_broken_manifest_is_one_clear_line(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ReleaseCorrupt, match=r"manifest.json cannot be read") as caught:
        open_release(folder)
    assert "\n" not in str(caught.value)


def test_edited_manifest_and_missing_manifest_are_noticed(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"swing": 50', '"swing": 51'))
    with pytest.raises(ReleaseCorrupt, match="was changed, its digest"):
        open_release(folder)
    path.unlink()
    with pytest.raises(ReleaseCorrupt, match="is no release"):
        open_release(folder)


def test_release_that_does_not_know_from_when_it_is_served_is_read(tmp_path: Path) -> None:
    write_release(tmp_path / "release", replace(contents(), served_from=None), **FACTS)
    path = tmp_path / "release" / "manifest.json"
    facts = json.loads(path.read_text())
    assert facts.pop("served_from") is None
    path.write_text(json.dumps(facts))
    assert open_release(tmp_path / "release").manifest.served_from is None


def test_digest_covers_rows_weights_and_embeddings_but_no_index_bytes(tmp_path: Path) -> None:
    def digest(given: ReleaseContents, **facts: object) -> str:
        return write_release(tmp_path / "r", given, **FACTS | facts).digest

    def with_tower(**changes: object) -> ReleaseContents:
        return replace(given, towers={"base": replace(given.towers["base"], **changes)})

    given = contents()
    same = digest(given)
    header_moved = save(
        {"b": np.eye(2, dtype=np.float32), "a": np.arange(4, dtype=np.float32)}, {"made": "today"}
    )
    assert digest(with_tower(index=b"other bytes")) == same
    assert digest(given, code_version="other", mlflow_run_id="run") == same
    assert digest(with_tower(weights=header_moved)) == same
    assert digest(with_tower(config=b'{"variant":"TB-Online","dim":4}')) == same
    chunked = pa.concat_tables([given.item_index.slice(0, 1), given.item_index.slice(1)])
    assert digest(replace(given, item_index=chunked)) == same
    assert digest(given, day=date(2022, 5, 4)) != same
    assert digest(replace(given, quotas={"swing": 51, "base": 100})) != same
    assert digest(replace(given, quotas={"base": 100, "swing": 50})) != same
    assert digest(replace(given, n_triggers=50)) != same
    assert digest(replace(given, served_from=datetime(2022, 5, 3, 17))) != same
    assert digest(replace(given, item_index=given.item_index.slice(1))) != same
    assert digest(replace(given, items=given.items.slice(1))) != same
    assert digest(replace(given, popular_item_ids=np.array([10, 12]))) != same
    assert digest(with_tower(weights=save({"a": np.ones(4, np.float32)}))) != same
    assert digest(with_tower(item_embeddings=given.towers["base"].item_embeddings + 1)) != same


def test_parts_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    given = contents()
    tower = given.towers["base"]
    not_finite = tower.item_embeddings.copy()
    not_finite[0, 0] = np.nan
    cases = {
        "item_ids .4,. do not fit": {"towers": {"base": replace(tower, item_ids=np.arange(4))}},
        "not finite": {"towers": {"base": replace(tower, item_embeddings=not_finite)}},
        "no safetensors file": {"towers": {"base": replace(tower, weights=b"pickle")}},
        "base/config.json cannot be read": {"towers": {"base": replace(tower, config=b"{")}},
        "has no quota": {"quotas": {"swing": 50}},
        "'../x' cannot name": {"quotas": {"../x": 1, "base": 1}},
        "'pi2i' has a quota but no scorer": {"quotas": {**given.quotas, "pi2i": 5}},
        "come together, but only one": {"scorer": scorer()},
        "pi2i/scorer.safetensors cannot be read": scored(b"pickle"),
        "'pi2i' cannot name a tower": {
            "towers": {"pi2i": tower},
            "quotas": {"pi2i": 1},
            **scored(scorer()),
        },
        "candidates merged": {
            "candidates": {"merged": replace(given.candidates["merged"], user_ids=np.arange(9))}
        },
    }
    for message, changes in cases.items():
        with pytest.raises(BadRelease, match=message):
            write_release(tmp_path / "release", replace(given, **changes), **FACTS)
        assert list(tmp_path.iterdir()) == []


def test_rewriting_a_release_replaces_it_whole(folder: Path) -> None:
    without_towers = replace(contents(), towers={})
    write_release(folder, without_towers, **FACTS)
    assert verify_release(folder).digest == open_release(folder).manifest.digest
    assert open_release(folder).towers == ()
    assert [path.name for path in folder.parent.iterdir()] == ["release"]


def test_writer_killed_half_way_leaves_the_old_release_and_the_next_one_cleans_up(folder: Path) -> None:
    old = verify_release(folder)
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import lakehouse.releases as releases, test_releases
write = releases.np.save
def save_then_die(*args, **kwargs):
    write(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
releases.np.save = save_then_die
releases.write_release(sys.argv[1], test_releases.contents(), **test_releases.FACTS)
"""
    arguments = [sys.executable, "-c", script, str(folder), str(Path(__file__).parent)]
    repository = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    killed = subprocess.run(arguments, check=False, cwd=repository, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.parent.iterdir())) == 2
    assert verify_release(folder) == old
    write_release(folder, contents(), **FACTS)
    assert [path.name for path in folder.parent.iterdir()] == ["release"]


def test_pointer_names_the_served_release(folder: Path) -> None:
    root = folder.parent
    assert read_serving(root) is None
    with pytest.raises(NothingServed, match="publish a release first"):
        open_served(root)
    serving = Serving("3", DAY, "d1", "mlflow-artifacts:/1/m-1/artifacts", "release", "2022-05-04T00:00:00")
    write_serving(root, serving)
    assert read_serving(root) == serving
    assert open_served(root).manifest.day == DAY
    (root / "SERVING.json").write_text("{")
    with pytest.raises(ReleaseCorrupt, match="publish again"):
        read_serving(root)
