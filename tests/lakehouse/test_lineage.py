"""A marker tells what its partition was made from; what has moved away from its inputs is stale."""

import json
import logging
import shutil
import time
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.commit import BrokenPartition, partition_folder
from lakehouse.lineage import Stale, stale_partitions, watch
from lakehouse.store import Lakehouse
from lakehouse.tables import CHECKPOINT, CLICK, EXPOSURE, I2I_TABLE, TIME

DAY = date(2022, 5, 1)
NEXT_DAY = date(2022, 5, 2)
THIRD_DAY = date(2022, 5, 3)


def clicks(item_id: int, n: int = 3) -> pa.Table:
    return pa.table(
        {
            "user_id": range(n),
            "item_id": [item_id] * n,
            "scenario": ["home"] * n,
            "event_time": pa.array(range(n), TIME),
        }
    )


def pairs(item_id: int) -> pa.Table:
    columns = {"trigger_item_id": [item_id], "target_item_id": [item_id + 1], "score": [1.0]}
    return pa.table({**columns, "rank": [1], "n_common_users": [2]}, I2I_TABLE.schema)


def weights(content: object) -> pa.Table:
    return pa.table({"name": ["w"], "content": pa.array([str(content).encode()], pa.large_binary())})


def write(root: Path, table, day: date, rows: pa.Table, *inputs, part: str | None = None) -> str:
    """Write a partition as a task does: an instance of its own reads the inputs first."""
    lakehouse = Lakehouse(root)
    for input_table, input_day in inputs:
        lakehouse.relation(input_table, [input_day])
    return lakehouse.replace(table, day, rows, part=part).digest


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Root of click -> i2i table of two days -> checkpoint of the third."""
    root = tmp_path / "lakehouse"
    write(root, CLICK, DAY, clicks(1))
    write(root, I2I_TABLE, DAY, pairs(1), (CLICK, DAY))
    write(root, CLICK, NEXT_DAY, clicks(2))
    write(root, I2I_TABLE, NEXT_DAY, pairs(2), (CLICK, NEXT_DAY), (CLICK, DAY), (I2I_TABLE, DAY))
    write(root, CHECKPOINT, THIRD_DAY, weights(1), (I2I_TABLE, NEXT_DAY), part="base")
    return root


def test_what_was_read_by_any_way_is_an_input_with_its_digest(chain: Path) -> None:
    lakehouse = Lakehouse(chain)
    digests = {
        "click/ds=2022-05-01": lakehouse.require(CLICK, DAY).digest,
        "click/ds=2022-05-02": lakehouse.read_days(CLICK, [NEXT_DAY])
        and lakehouse.commit(CLICK, NEXT_DAY).digest,
        "i2i_table/ds=2022-05-02": lakehouse.read(I2I_TABLE, NEXT_DAY)
        and lakehouse.commit(I2I_TABLE, NEXT_DAY).digest,
        "checkpoint/ds=2022-05-03/method=base": (
            lakehouse.relation(CHECKPOINT, [THIRD_DAY])
            and lakehouse.commit(CHECKPOINT, THIRD_DAY, part="base").digest
        ),
    }
    assert lakehouse.replace(CHECKPOINT, THIRD_DAY, weights(2), part="increc").inputs == digests
    assert Lakehouse(chain).commit(CHECKPOINT, THIRD_DAY, part="increc").inputs == digests


def test_a_glance_a_later_day_and_the_partition_itself_are_no_inputs(chain: Path) -> None:
    lakehouse = Lakehouse(chain)
    lakehouse.commit(CLICK, DAY)
    lakehouse.days(CLICK)
    lakehouse.parts(CHECKPOINT, THIRD_DAY)
    lakehouse.read(CLICK, NEXT_DAY)
    lakehouse.read(I2I_TABLE, DAY)
    assert lakehouse.replace(I2I_TABLE, DAY, pairs(1)).inputs == {}


def test_lineage_leaves_the_digest_as_it_is(chain: Path) -> None:
    assert write(chain, I2I_TABLE, DAY, pairs(1)) == write(chain, I2I_TABLE, DAY, pairs(1), (CLICK, DAY))


def test_markers_of_before_lineage_was_kept_are_read_and_not_stale(chain: Path) -> None:
    for marker in chain.rglob("_COMMIT.json"):
        fields = json.loads(marker.read_text())
        del fields["inputs"]
        marker.write_text(json.dumps(fields))
    write(chain, CLICK, DAY, clicks(5))
    assert Lakehouse(chain).commit(I2I_TABLE, DAY).inputs == {}
    assert stale_partitions(Lakehouse(chain)) == []


def test_marker_whose_inputs_are_no_partitions_is_broken(chain: Path) -> None:
    marker = chain / "i2i_table" / f"ds={DAY}" / "_COMMIT.json"
    marker.write_text(marker.read_text().replace("click/ds=2022-05-01", "../click"))
    with pytest.raises(BrokenPartition, match=r"inputs that are no partitions: \.\./click"):
        Lakehouse(chain).commit(I2I_TABLE, DAY)


def test_equal_digests_make_nothing_stale(chain: Path) -> None:
    assert stale_partitions(Lakehouse(chain)) == []
    write(chain, CLICK, DAY, clicks(1))
    write(chain, I2I_TABLE, DAY, pairs(1), (CLICK, DAY))
    assert stale_partitions(Lakehouse(chain)) == []


def test_a_changed_input_makes_all_downstream_stale_and_says_why(chain: Path) -> None:
    write(chain, CLICK, DAY, clicks(7))
    assert stale_partitions(Lakehouse(chain)) == [
        Stale("i2i_table", DAY, None, "click/ds=2022-05-01 has changed"),
        Stale("i2i_table", NEXT_DAY, None, "click/ds=2022-05-01 has changed"),
        Stale("checkpoint", THIRD_DAY, "base", "i2i_table/ds=2022-05-02 is stale"),
    ]
    write(chain, I2I_TABLE, DAY, pairs(1), (CLICK, DAY))
    write(chain, I2I_TABLE, NEXT_DAY, pairs(2), (CLICK, NEXT_DAY), (CLICK, DAY), (I2I_TABLE, DAY))
    assert stale_partitions(Lakehouse(chain)) == []  # made again, with rows as before


def test_a_hole_makes_downstream_stale_but_days_dropped_for_their_age_do_not(chain: Path) -> None:
    shutil.rmtree(chain / "click" / f"ds={DAY}")
    assert stale_partitions(Lakehouse(chain)) == []
    write(chain, CLICK, DAY - timedelta(days=1), clicks(0))
    assert [stale.reason for stale in stale_partitions(Lakehouse(chain))] == [
        "click/ds=2022-05-01 is gone",
        "click/ds=2022-05-01 is gone",
        "i2i_table/ds=2022-05-02 is stale",
    ]


def test_a_marker_that_cannot_be_read_is_listed_with_what_was_made_from_it(chain: Path) -> None:
    (chain / "i2i_table" / f"ds={NEXT_DAY}" / "_COMMIT.json").write_text("{")
    assert stale_partitions(Lakehouse(chain)) == [
        Stale("i2i_table", NEXT_DAY, None, "its marker cannot be read"),
        Stale("checkpoint", THIRD_DAY, "base", "i2i_table/ds=2022-05-02 is stale"),
    ]


NODES = [(DAY + timedelta(days=n), part) for n in range(4) for part in "abc"]


@st.composite
def writes(draw) -> list[tuple[int, int, tuple[int, ...]]]:
    """Writes in any order: node, content, and the nodes before it that are read."""
    found = []
    for _ in range(draw(st.integers(1, 14))):
        node = draw(st.integers(0, len(NODES) - 1))
        inputs = draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else ()
        found.append((node, draw(st.integers(0, 1)), tuple(sorted(inputs))))
    return found


@settings(max_examples=40, deadline=None)
@given(writes(), st.sets(st.integers(0, len(NODES) - 1), max_size=2))
def test_what_is_stale_is_what_its_definition_says(done, removed) -> None:
    root = f"memory://{uuid4().hex}"
    there: dict[int, tuple[int, dict[int, int]]] = {}
    for node, content, inputs in done:
        lakehouse = Lakehouse(root)
        read = {used: there[used][0] for used in inputs if used in there}
        for used in read:
            lakehouse.require(CHECKPOINT, NODES[used][0], part=NODES[used][1])
        lakehouse.replace(CHECKPOINT, NODES[node][0], weights(content), part=NODES[node][1])
        there[node] = (content, read)
    filesystem = Lakehouse(root)._storage.filesystem
    for node in removed & there.keys():
        folder = partition_folder(CHECKPOINT, NODES[node][0], NODES[node][1])
        filesystem.rm(f"{root.removeprefix('memory:/')}/{folder}", recursive=True)
        del there[node]
    first_day = min((NODES[node][0] for node in there), default=DAY)

    def is_stale(node: int) -> bool:
        return any(
            (used not in there and NODES[used][0] >= first_day)
            or (used in there and (there[used][0] != content or is_stale(used)))
            for used, content in there[node][1].items()
        )

    found = [(stale.day, stale.part) for stale in stale_partitions(Lakehouse(root))]
    assert found == [NODES[node] for node in sorted(there) if is_stale(node)]


def test_a_chain_of_two_years_is_looked_through_in_seconds(tmp_path: Path) -> None:
    root, n_days = tmp_path / "lakehouse", 730
    write(root, CLICK, DAY, clicks(1))
    write(root, I2I_TABLE, DAY, pairs(1), (CLICK, DAY))
    marker = json.loads((root / "i2i_table" / f"ds={DAY}" / "_COMMIT.json").read_text())
    for n in range(1, n_days):
        day, before = (str(DAY + timedelta(days=m)) for m in (n, n - 1))
        inputs = {f"i2i_table/ds={before}": marker["digest"]}
        (root / "i2i_table" / f"ds={day}").mkdir()
        (root / "i2i_table" / f"ds={day}" / "_COMMIT.json").write_text(
            json.dumps(marker | {"day": day, "inputs": inputs})
        )
    write(root, CLICK, DAY, clicks(2))
    started = time.monotonic()
    assert len(stale_partitions(Lakehouse(root))) == n_days
    assert time.monotonic() - started < 5


def test_reads_and_writes_are_logged_and_counted(chain: Path, caplog) -> None:
    lakehouse = Lakehouse(chain)
    with caplog.at_level(logging.INFO, "lakehouse"), watch() as traffic:
        lakehouse.relation(CLICK, [DAY, NEXT_DAY])
        lakehouse.read(CHECKPOINT, THIRD_DAY, part="base")
        commit = lakehouse.replace(CLICK, THIRD_DAY, clicks(3, n=5))
    told = list(caplog.messages)
    Lakehouse(chain).read(CLICK, DAY)
    assert traffic.read == {
        "click/ds=2022-05-01": 3,
        "click/ds=2022-05-02": 3,
        "checkpoint/ds=2022-05-03/method=base": 1,
    }
    assert traffic.written == {"click/ds=2022-05-03": 5}
    assert told == [
        "read click/ds=2022-05-01 .. 2022-05-02 (2 partitions): 6 rows",
        "read checkpoint/ds=2022-05-03/method=base: 1 rows",
        f"wrote click/ds=2022-05-03: 5 rows, digest {commit.digest[:12]}",
    ]


def test_a_table_without_partitions_has_nothing_stale(tmp_path: Path) -> None:
    assert stale_partitions(Lakehouse(tmp_path / "lakehouse")) == []
    assert Lakehouse(tmp_path / "lakehouse").partitions(EXPOSURE) == []
