"""The model file: histories in, top-K items out, as the release's channels answer."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.releases import CandidateLists, TowerContents, open_release
from models.channels import merge_channels
from models.increc.config import IncRecConfig
from models.increc.training import train
from models.item_to_item import retrieve_by_items
from models.search import build_index, exact_top_k
from tasks import tracking
from tasks.pyfunc import Retrieval, UnknownChannel
from tests.tasks.small_releases import (
    DAY,
    ITEMS,
    USERS,
    small_contents,
    small_record,
    small_settings,
    write_small,
)

QUOTAS = {"swing": 4, "base": 6}
SERVED_FROM = datetime(2022, 5, 4)
HISTORIES = [[3, 7, 9], [40], [12, 1, 30, 5]]
IDS = pa.list_(pa.int64())


def trained_tower():
    """A base tower that learned a little, for items with a category; it reads sequences."""
    generator = np.random.default_rng(0)
    n = 64
    items = small_contents().items
    nothing = {name: pa.nulls(len(ITEMS), pa.int64()) for name in ("author_id", "brand_id")}
    for name, column in nothing.items():
        items = items.append_column(name, column)
    items = items.append_column("price", pa.nulls(len(ITEMS), pa.float32()))
    histories = [generator.choice(ITEMS, 4, replace=False).tolist() for _ in range(n)]
    columns = [range(n), range(n), [datetime(2022, 5, 2)] * n, histories]
    columns += [[[datetime(2022, 4, day) for day in (1, 20, 29, 30)]] * n]
    columns += [[["home", "search", "home", "search"]] * n]
    columns += [[row[:1] for row in histories], [[]] * n, [row[:1] for row in histories]]
    samples = pa.table(columns, schema=tables.INCREC_SAMPLE.schema)
    users = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})
    config = IncRecConfig(
        variant="TB-Online",
        backbone="comirec",
        n_interests=2,
        dim=8,
        hidden_dim=8,
        epochs=5,
        n_negatives=8,
        n_threads=1,
    )
    model, _ = train(samples, items, users, config, device="cpu")
    return model, items


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A release with the channels swing and base, and the model file that answers from it."""
    model, items = trained_tower()
    embeddings = model.embed_items(items)
    stored = small_contents().user_history
    histories, times, scenarios = (column.combine_chunks() for column in stored.columns[1:])
    context = {"event_times": times, "scenarios": scenarios, "now": SERVED_FROM}
    files = model.for_serving().to_files()
    tower = TowerContents(
        weights=files["model.safetensors"],
        config=files["config.json"],
        item_ids=ITEMS,
        item_embeddings=embeddings,
        user_ids=USERS,
        user_embeddings=model.embed_users(histories, items=items, **context),
        index=faiss.serialize_index(build_index(embeddings, seed=0)).tobytes(),
    )
    lists = {
        "swing": retrieve_by_items(small_contents().i2i_table, histories, 10),
        "base": exact_top_k(tower.user_embeddings, embeddings, ITEMS, 10, exclude=histories),
    }
    merged = merge_channels(lists, QUOTAS)
    candidates = CandidateLists(USERS, merged, np.ones(merged.shape, np.float32))
    folder = tmp_path_factory.mktemp("release") / "2022-05-03"
    write_small(
        folder,
        small_contents(
            items=items,
            quotas=QUOTAS,
            towers={"base": tower},
            candidates={"merged": candidates},
            served_from=SERVED_FROM,
        ),
    )
    return SimpleNamespace(
        folder=folder, model=model, items=items, embeddings=embeddings, answer=_load(folder)
    )


def _load(folder: Path):
    retrieval = Retrieval()
    retrieval.load_context(SimpleNamespace(artifacts={"release": str(folder)}))

    def answer(histories: list, params: dict | None = None, **columns: object) -> list[list[int]]:
        frame = pd.DataFrame({"item_ids": pd.Series(histories, dtype=object), **columns})
        return retrieval.predict(None, frame, params)["item_ids"].tolist()

    return answer


def rows(retrieved: np.ndarray) -> list[list[int]]:
    return [row[row >= 0].tolist() for row in retrieved]


def test_swing_answers_from_the_release_s_table(parts) -> None:
    expected = retrieve_by_items(open_release(parts.folder).i2i_table, pa.array(HISTORIES, IDS), 5)
    assert parts.answer(HISTORIES, {"k": 5, "channel": "swing"}) == rows(expected)


def test_tower_answers_as_the_trained_model_does(parts) -> None:
    histories = pa.array(HISTORIES, IDS)
    users = parts.model.embed_users(histories, items=parts.items)
    expected = exact_top_k(users, parts.embeddings, ITEMS, 7, exclude=histories)
    assert parts.answer(HISTORIES, {"k": 7, "channel": "base"}) == rows(expected)


def test_times_and_scenarios_reach_the_tower_without_unknown_items(parts) -> None:
    times = [[datetime(2022, 4, 29, 12)] * len(history) for history in HISTORIES]
    scenarios = [["search"] * len(history) for history in HISTORIES]
    histories = pa.array(HISTORIES, IDS)
    users = parts.model.embed_users(
        histories,
        items=parts.items,
        event_times=pa.array(times, tables.TIMES),
        scenarios=pa.array(scenarios, tables.TEXTS),
        now=datetime(2022, 4, 29, 13),
    )
    expected = rows(exact_top_k(users, parts.embeddings, ITEMS, 40, exclude=histories))
    zoned = [[pd.Timestamp(time, tz="UTC").tz_convert("Asia/Shanghai") for time in row] for row in times]
    given = {
        "event_times": [[pd.NaT, *row] for row in zoned],
        "scenarios": [["home", *row] for row in scenarios],
        "now": [datetime(2022, 4, 29, 13)] * len(HISTORIES),
    }
    base = {"k": 40, "channel": "base"}
    assert parts.answer([[999_999, *history] for history in HISTORIES], base, **given) == expected
    assert parts.answer(HISTORIES, base) != expected


def test_times_that_are_not_one_for_each_item_are_a_clear_line(parts) -> None:
    with pytest.raises(ValueError, match="row 1 has 2 item_ids but 1 event_times: give one for each item"):
        parts.answer([[3], [3, 7]], event_times=[[], [datetime(2022, 5, 1)]])


def test_merged_answer_for_a_known_user_is_the_published_one(parts) -> None:
    release = open_release(parts.folder)
    _, histories, event_times, scenarios = (column.to_pylist() for column in release.user_history.columns)
    expected = rows(release.candidates("merged").item_ids)
    used = {"event_times": event_times, "scenarios": scenarios}
    assert parts.answer(histories, {"k": 10}, **used) == expected
    assert parts.answer(histories, {"k": 4, "channel": "merged"}, **used) == [row[:4] for row in expected]
    assert parts.answer([[]] * len(USERS), {"k": 10}, user_id=USERS) == expected


def test_more_items_than_the_quotas_enlarge_them_in_proportion(parts) -> None:
    answers = parts.answer(HISTORIES, {"k": 20, "channel": "merged"})
    assert [len(set(row)) for row in answers] == [20, 20, 20]
    swing = parts.answer(HISTORIES, {"k": 8, "channel": "swing"})
    assert all(set(found) <= set(row) for found, row in zip(swing, answers, strict=True))


def test_items_of_the_history_are_never_returned(parts) -> None:
    for channel in ("merged", "swing", "base", "popularity"):
        for history, row in zip(
            HISTORIES, parts.answer(HISTORIES, {"k": 40, "channel": channel}), strict=True
        ):
            assert not set(history) & set(row)
            assert len(row) == len(set(row))


def test_unknown_items_are_ignored(parts) -> None:
    assert parts.answer([[999_999, 3, 7, -5, 9]]) == parts.answer([[3, 7, 9]])


def test_users_without_a_known_history_get_the_most_popular_items(parts) -> None:
    most_popular = ITEMS[::-1][:3].tolist()
    histories = [[], None, [999_999], np.array([], np.int64)]
    for channel in ("merged", "swing", "base", "popularity"):
        assert parts.answer(histories, {"k": 3, "channel": channel}) == [most_popular] * 4
    assert parts.answer([[]], {"k": 3}, user_id=[987_654]) == [most_popular]


def test_given_history_goes_before_the_stored_one(parts) -> None:
    assert parts.answer([[3, 7, 9]], user_id=USERS[:1]) == parts.answer([[3, 7, 9]])


def test_scores_fall_with_the_place_and_the_index_is_kept(parts) -> None:
    retrieval = Retrieval()
    retrieval.load_context(SimpleNamespace(artifacts={"release": str(parts.folder)}))
    frame = pd.DataFrame({"item_ids": HISTORIES}, index=[5, 3, 8])
    answer = retrieval.predict(None, frame, {"k": 4})
    assert answer.index.tolist() == [5, 3, 8]
    assert answer["scores"].tolist() == [[1.0, 1 / 2, 1 / 3, 1 / 4]] * 3


def test_unknown_channel_and_bad_k_are_clear_lines(parts) -> None:
    with pytest.raises(UnknownChannel, match="'increc'; this release has merged, swing, popularity, base"):
        parts.answer(HISTORIES, {"channel": "increc"})
    with pytest.raises(ValueError, match="k is 0; ask for at least 1"):
        parts.answer(HISTORIES, {"k": 0})


def test_no_rows_give_no_rows(parts) -> None:
    assert parts.answer([]) == []


def test_registered_version_answers_in_a_fresh_process_from_its_own_code(parts, tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "var")
    record = small_record(DAY, methods=())
    run = tracking.log_day(record, settings)
    version = tracking.register_version(parts.folder, record, run.run_id, settings)
    tracking.set_champion(version.version, settings, actor="manual", reason="test")
    times = [["2022-05-02 12:00:00"] * len(history) for history in HISTORIES]
    scenarios = [["search"] * len(history) for history in HISTORIES]
    script = f"""
import json, sys, mlflow, pandas as pd
mlflow.set_tracking_uri({settings.tracking_uri!r})
model = mlflow.pyfunc.load_model("models:/retrieval@champion")
history = {{"item_ids": {HISTORIES!r}, "event_times": {times!r}, "scenarios": {scenarios!r}}}
history["event_times"] = [list(map(pd.Timestamp, row)) for row in history["event_times"]]
history["now"] = pd.Timestamp("2022-05-03")
answer = model.predict(pd.DataFrame(history), params={{"k": 8, "channel": "base"}})
import lakehouse, models.channels
print(json.dumps([answer["item_ids"].tolist(), lakehouse.__file__, models.channels.__file__]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    item_ids, *code = json.loads(done.stdout.splitlines()[-1])
    given = {"event_times": times, "scenarios": scenarios, "now": pd.Timestamp("2022-05-03")}
    assert item_ids == parts.answer(HISTORIES, {"k": 8, "channel": "base"}, **given)
    assert all(str(settings.var / "mlartifacts") in path for path in code)
