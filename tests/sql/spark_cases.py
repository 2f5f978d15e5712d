"""Source rows, and a day's exposures, that tell two engines apart where they differ."""

from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa

from lakehouse import tables

DAY = date(2022, 5, 2)
EVE = DAY - timedelta(days=1)
START = datetime(2022, 5, 2)
N_USERS, N_ITEMS = 40, 60
SCENARIOS = np.array(["home", "search", "Ärger", "detail"])
BOUNDS = {"earliest": START - timedelta(hours=1), "day_end": START + timedelta(days=1)}
ODD_NUMBERS = [
    "7",
    "7.0",
    "07",
    " 7",
    "7 ",
    "7.5",
    "-7",
    "+7",
    "1e3",
    "9" * 20,
    "u1",
    "",
    "7.00",
    "nan",
    "٣",
    "7\n",
]
ODD_TIMES = [
    *("2022-05-02 04:00:00", "2022-05-02 04:00:00.5", "2022-05-02 04:00:00.123456", "2022-05-02"),
    *("2022-05-02T04:00:00", "2022-05-02T04:00:00Z", "2022-05-02 12:00:00+08", "2022-05-02 12:00:00 +08:00"),
    *("2022-5-2 4:00:00", "2022", "2022-05", "noon", "", "2022-02-30", "1651464000", "2022-05-02 24:00:00"),
    *("2022-05-01 23:00:00", "2022-05-01 22:59:59.999999", "2022-05-03 00:00:00", "infinity", "epoch"),
    *("2022-05-02 04:00:00.1234567", "2022-05-02 12:00:00 Asia/Shanghai", "2022/05/02 04:00:00"),
]
ODD_TRUTHS = [
    "1",
    "0",
    "true",
    "False",
    "t",
    "f",
    "yes",
    "no",
    "y",
    "n",
    "on",
    "off",
    "maybe",
    "",
    "2",
    " true ",
]
ODD_PRICES = [
    "1.5",
    "1.5d",
    "1.5f",
    ".5",
    "5.",
    "1e3",
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    "-1",
    "0x10",
    "",
    "1_0",
    "1,5",
]


def texts(values: list[str], *, seed: int, n: int = 400) -> pa.Array:
    """Draw texts, a tenth of them null."""
    generator = np.random.default_rng(seed)
    drawn = generator.choice(np.array(values, object), n)
    return pa.array(np.where(generator.random(n) < 0.1, None, drawn), pa.string())


def mostly(good: str, values: list[str], seed: int, n: int = 400) -> pa.Array:
    """Draw a good text four times in five, so that whole rows are good."""
    generator = np.random.default_rng(seed)
    return pa.array(np.where(generator.random(n) < 0.8, good, texts(values, seed=seed, n=n).to_numpy(False)))


def source_rows(**columns: pa.Array) -> dict[str, pa.Table]:
    """Give source rows with the reader's own columns added."""
    n = len(next(iter(columns.values())))
    errors = pa.array(["broken line"] + [None] * (n - 1), pa.string())
    return {"source_rows": pa.table(columns | {"read_error": errors, "raw_line": pa.nulls(n, pa.string())})}


def staged_exposure() -> dict[str, pa.Table]:
    numbers = [str(number) for number in range(5)]
    return source_rows(
        request_id=mostly("7", ODD_NUMBERS, 1),
        user_id=mostly("1", numbers + ODD_NUMBERS, 2),
        item_id=mostly("10", numbers + ODD_NUMBERS, 3),
        scenario=mostly("home", [*SCENARIOS], 4),
        event_time=texts(ODD_TIMES, seed=5),
        position=mostly("3", ODD_NUMBERS, 6),
        is_click=mostly("1", ODD_TRUTHS, 7),
        is_order=mostly("0", ODD_TRUTHS, 8),
    )


def typed_exposure() -> dict[str, pa.Table]:
    """The same as a typed file gives it: whole numbers as floats, times with a zone, truths as bytes."""
    n = 50
    generator = np.random.default_rng(9)
    floats = pa.array([None, 0.5, 1e7, 1e20, float("nan"), *generator.integers(0, 9, n - 5).astype(float)])
    moments = [
        START + timedelta(minutes=int(m), microseconds=int(m) % 7) for m in generator.integers(0, 2000, n)
    ]
    return source_rows(
        request_id=floats,
        user_id=pa.array(generator.integers(0, 5, n)),
        item_id=pa.array(generator.integers(0, 5, n), pa.int32()),
        scenario=pa.array(generator.choice(SCENARIOS, n)),
        event_time=pa.array(moments, pa.timestamp("us", "UTC")),
        position=pa.array(generator.integers(0, 5, n), pa.int8()),
        is_click=pa.array(generator.random(n) < 0.5),
        is_order=pa.array(generator.integers(0, 2, n), pa.int64()),
    )


def staged_item() -> dict[str, pa.Table]:
    return source_rows(
        item_id=mostly("10", [str(i) for i in range(9)] + ODD_NUMBERS, 11),
        category_id=mostly("3", ODD_NUMBERS, 12),
        author_id=mostly("4", ODD_NUMBERS, 13),
        brand_id=mostly("5", ODD_NUMBERS, 14),
        price=mostly("1.5", ODD_PRICES, 15),
        is_available=mostly("1", ODD_TRUTHS, 16),
    )


def lists(type_: pa.DataType, values: list, seed: int, n: int = 200) -> pa.Array:
    """Draw lists of up to four values, a tenth of them null."""
    generator = np.random.default_rng(seed)
    drawn = [
        None
        if generator.random() < 0.1
        else [values[place] for place in generator.integers(0, len(values), generator.integers(0, 4))]
        for _ in range(n)
    ]
    return pa.array(drawn, pa.list_(type_))


def staged_user() -> dict[str, pa.Table]:
    return source_rows(
        user_id=mostly("1", [str(i) for i in range(50)] + ODD_NUMBERS, 21, 200),
        profile=lists(pa.string(), ["a=1", "b=2", "Ä=x", "broken", "=", None], 22),
    )


def staged_history() -> dict[str, pa.Table]:
    return source_rows(
        user_id=mostly("1", [str(i) for i in range(50)] + ODD_NUMBERS, 31, 200),
        item_ids=lists(pa.int64(), [1, 2, 3, -4, None], 32),
        last_event_time=texts([time.replace("05-02", "04-30") for time in ODD_TIMES], seed=33, n=200),
    )


def textual_history() -> dict[str, pa.Table]:
    """Lists as text, as files without lists give them."""
    return source_rows(
        user_id=pa.array([str(n) for n in range(6)]),
        item_ids=pa.array(["[1, 2]", "[]", "1,2", "[1, x]", None, "[3]"]),
        last_event_time=pa.array(["2022-05-01 00:00:00"] * 6),
    )


def staged_ranking() -> dict[str, pa.Table]:
    n = 200
    whole = lists(pa.int64(), [1, 2, 3, -4, None], 42)
    scores = [items and [0.5 / (1 + place) for place in range(len(items))] for items in whole.to_pylist()]
    scores[3], scores[4] = [float("nan")], [float("inf"), None]
    return source_rows(
        request_id=mostly("7", [str(i) for i in range(50)] + ODD_NUMBERS, 41, n),
        user_id=pa.array([str(i % 50) for i in range(n)]),
        scenario=texts([*SCENARIOS], seed=43, n=n),
        event_time=pa.array([START + timedelta(seconds=i) for i in range(n)], tables.TIME),
        item_ids=whole,
        category_ids=whole,
        scores=pa.array(scores, pa.list_(pa.float64())),
    )


def staged_retrieval() -> dict[str, pa.Table]:
    n = 200
    return source_rows(
        request_id=mostly("7", [str(i) for i in range(50)] + ODD_NUMBERS, 51, n),
        user_id=pa.array([str(i % 9) for i in range(n)]),
        scenario=texts([*SCENARIOS], seed=53, n=n),
        event_time=pa.array([START + timedelta(seconds=i % 3) for i in range(n)], tables.TIME),
        channel=texts(["swing", "hot"], seed=54, n=n),
        item_ids=lists(pa.int64(), [1, 2, 3, -4, None], 55),
    )


def of_day(table: tables.Table, columns: dict, ds: date = DAY) -> pa.Table:
    schema = pa.schema([field.with_nullable(True) for field in table.schema])
    rows = pa.table(columns, schema=schema)
    return rows.append_column("ds", pa.array([ds] * rows.num_rows, pa.date32()))


def exposures(seed: int, ds: date = DAY, *, has_requests: bool = True, n: int = 1500) -> pa.Table:
    """Draw exposures with distinct keys: pauses about half an hour long, times with fractions of a second."""
    generator = np.random.default_rng(seed)
    user, item = generator.integers(0, N_USERS, n), generator.integers(0, N_ITEMS, n)
    pauses = [0, 700_000, 1_800_000_000, 1_800_400_000, 1_800_999_999, 1_801_000_000]
    pause = generator.choice(pauses, n)
    micros = np.empty(n, np.int64)
    for one in range(N_USERS):
        micros[user == one] = np.cumsum(pause[user == one]) % 86_400_000_000
    scenario = generator.choice(len(SCENARIOS), n, p=[0.7, 0.1, 0.1, 0.1])
    _, kept = np.unique(np.stack([user, micros, scenario, item]), axis=1, return_index=True)
    user, item, micros, scenario = user[kept], item[kept], micros[kept], scenario[kept]
    start = np.datetime64(datetime.combine(ds, datetime.min.time()), "us")
    is_unknown = generator.random(len(kept)) < (0.2 if has_requests else 1.0)
    return of_day(
        tables.EXPOSURE,
        {
            "request_id": pa.array(user * 1000 + micros // 3_600_000_000, mask=is_unknown),
            "user_id": user,
            "item_id": item,
            "scenario": SCENARIOS[scenario],
            "event_time": start + micros.astype("timedelta64[us]"),
            "position": pa.array(item.astype(np.int32), mask=is_unknown),
            "is_click": generator.random(len(kept)) < 0.3,
            "is_order": generator.random(len(kept)) < 0.1,
        },
        ds,
    )
