"""
Which tables are there, and what is one row of each?

Every table is declared once, here. A partition is ``<root>/<table>/ds=YYYY-MM-DD/``; tables with a
``part_by`` column have one partition per value below that, e.g. ``checkpoint/ds=.../method=base/``.
All times are UTC without a zone, in microseconds. Ids are int64.
"""

from dataclasses import dataclass

import pyarrow as pa

TIME = pa.timestamp("us")
IDS = pa.list_(pa.int64())
TIMES = pa.list_(TIME)
TEXTS = pa.list_(pa.string())
FIGURES = pa.list_(pa.float32())


@dataclass(frozen=True)
class Column:
    """One column: name, Arrow type, meaning, and whether a null is allowed."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """
    One declared table.

    ``key`` names the columns that identify a row (unique in a partition); rows are stored in the order
    of ``order_by`` (default: the key), so that the same rows always give the same digest.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    order_by: tuple[str, ...] = ()
    part_by: str | None = None
    version: int = 1

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema that every stored row group has."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    @property
    def sort_columns(self) -> tuple[str, ...]:
        """The columns that give the stored order of rows."""
        return self.order_by or self.key


USER = Column("user_id", pa.int64(), "the user")
ITEM = Column("item_id", pa.int64(), "the item")
SCENARIO = Column("scenario", pa.string(), "surface of the app: home feed, search, ...")
EVENT_TIME = Column("event_time", TIME, "when it happened, UTC")

EXPOSURE = Table(
    "exposure",
    "One item shown to one user, with what the user did with it.",
    (
        Column("request_id", pa.int64(), "the request that showed it; null where logs carry none", True),
        USER,
        ITEM,
        SCENARIO,
        EVENT_TIME,
        Column("position", pa.int32(), "0-based place on the page; null where logs carry none", True),
        Column("is_click", pa.bool_(), "the user clicked it"),
        Column("is_order", pa.bool_(), "the user ordered it"),
    ),
    key=("user_id", "event_time", "scenario", "item_id"),
)

RANKING_LOG = Table(
    "ranking_log",
    "One ranking that a scenario's ranking stage computed for a request, best item first.",
    (
        Column("request_id", pa.int64(), "the request"),
        USER,
        SCENARIO,
        EVENT_TIME,
        Column("item_ids", IDS, "ranked items, best first"),
        Column("category_ids", IDS, "their categories, aligned with item_ids"),
        Column("scores", FIGURES, "their ranking scores, aligned with item_ids"),
    ),
    key=("user_id", "event_time", "scenario", "request_id"),
)

RETRIEVAL_LOG = Table(
    "retrieval_log",
    "What one retrieval channel, or all of them together, returned for a request, best item first.",
    (
        Column("request_id", pa.int64(), "the request; null where logs carry none", True),
        USER,
        SCENARIO,
        EVENT_TIME,
        Column("channel", pa.string(), "the channel that returned them; null for all together", True),
        Column("item_ids", IDS, "returned items, best first; empty where nothing was found"),
    ),
    key=("user_id", "event_time", "scenario", "channel", "request_id"),
)

ITEM_SNAPSHOT = Table(
    "item",
    "Every item as of the end of the day.",
    (
        ITEM,
        Column("category_id", pa.int64(), "category", True),
        Column("author_id", pa.int64(), "author or seller", True),
        Column("brand_id", pa.int64(), "brand", True),
        Column("price", pa.float32(), "price in the source's currency", True),
        Column("is_available", pa.bool_(), "may be recommended"),
    ),
    key=("item_id",),
)

USER_SNAPSHOT = Table(
    "user",
    "Every user as of the end of the day.",
    (USER, Column("profile", pa.list_(pa.string()), "profile features as name=value, sorted")),
    key=("user_id",),
)

INITIAL_HISTORY = Table(
    "initial_history",
    "The past that users of a new deployment bring (warm start); stored at the source's first day.",
    (
        USER,
        Column("item_ids", IDS, "positively used items, oldest first"),
        Column("last_event_time", TIME, "time of the last one; all of them leave the window with it"),
    ),
    key=("user_id",),
)

CLICK = Table(
    "click",
    "One positive event (click or order) of a user on an item, in any scenario.",
    (USER, ITEM, SCENARIO, EVENT_TIME),
    key=("user_id", "event_time", "item_id", "scenario"),
)

USER_HISTORY = Table(
    "user_history",
    "A user's distinct positively used items of the window, as of the end of the day.",
    (
        USER,
        Column("item_ids", IDS, "distinct items by their last use, oldest first"),
        Column("event_times", TIMES, "last use of each; of the warm start's items the time of the last one"),
        Column("scenarios", TEXTS, "scenario of that use; empty text for the warm start's items"),
    ),
    key=("user_id",),
    version=2,
)

ITEM_INDEX = Table(
    "item_index",
    "The dense index of every item ever seen: append-only, 0 is kept for padding.",
    (
        ITEM,
        Column("item_index", pa.int32(), "dense index, from 1 on, never reused"),
        Column("first_day", pa.date32(), "day on which the item got its index"),
    ),
    key=("item_id",),
    order_by=("item_index",),
)

I2I_TABLE = Table(
    "i2i_table",
    "Swing: the ranked targets of each trigger, truncated at T.",
    (
        Column("trigger_item_id", pa.int64(), "item the user touched"),
        Column("target_item_id", pa.int64(), "item reached from it"),
        Column("score", pa.float64(), "Swing score s(trigger, target), Eq. 3 of PI2I"),
        Column("rank", pa.int32(), "1-based rank among the trigger's targets"),
        Column("n_common_users", pa.int32(), "users who clicked both in the window"),
    ),
    key=("trigger_item_id", "target_item_id"),
    order_by=("trigger_item_id", "rank"),
)

MNR_CANDIDATES = Table(
    "mnr_candidates",
    "MNR: a user's candidates from one scenario's rankings, as of the end of the day.",
    (
        USER,
        Column("scenario", pa.string(), "the scenario whose rankings they come from"),
        Column("event_time", TIME, "time of the newest ranking among them, UTC"),
        Column("item_ids", IDS, "candidates, best first"),
        Column("scores", pa.list_(pa.float32()), "finalScore, Eq. 6 of MNR, aligned with item_ids"),
    ),
    key=("user_id", "scenario"),
)

TARGET_GROUP = Table(
    "target_group",
    "One primary-scenario request with its retrieved (RTG), incremental (ITG) and exposed (ETG) targets.",
    (
        Column("request_id", pa.int64(), "number of the request or visit, unique in the day"),
        USER,
        Column("event_time", TIME, "T1, the request's first exposure"),
        Column("history_item_ids", IDS, "history before T1, oldest first"),
        Column("history_event_times", TIMES, "last use of each, as in user_history"),
        Column("history_scenarios", TEXTS, "scenario of that use, as in user_history"),
        Column("retrieved_item_ids", IDS, "R_u: what the existing channels returned, best first"),
        Column("rtg_item_ids", IDS, "retrieved target group: X_u in R_u"),
        Column("itg_item_ids", IDS, "incremental target group: X_u outside R_u"),
        Column("etg_item_ids", IDS, "exposed target group"),
    ),
    key=("request_id",),
    order_by=("user_id", "event_time", "request_id"),
    version=2,
)

INCREC_SAMPLE = Table(
    "increc_sample",
    "One training sample of IncRec: a request's history and targets, each (user, item) a target once a day.",
    (
        Column("request_id", pa.int64(), "the request, as in target_group"),
        USER,
        Column("event_time", TIME, "T1"),
        Column("history_item_ids", IDS, "history before T1, oldest first"),
        Column("history_event_times", TIMES, "last use of each, as in user_history"),
        Column("history_scenarios", TEXTS, "scenario of that use, as in user_history"),
        Column("rtg_item_ids", IDS, "retrieved target group, de-duplicated over the day"),
        Column("itg_item_ids", IDS, "incremental target group, de-duplicated over the day"),
        Column("etg_item_ids", IDS, "exposed target group, de-duplicated over the day"),
    ),
    key=("request_id",),
    order_by=("user_id", "event_time", "request_id"),
    version=2,
)

PI2I_SAMPLE = Table(
    "pi2i_sample",
    "One training sample of PI2I: a click on a new item that a trigger reaches, with its drawn negatives.",
    (
        USER,
        Column("item_id", pa.int64(), "the positive: an item that the history does not hold"),
        Column("event_time", TIME, "the user's first click on it that day"),
        Column("trigger_item_ids", IDS, "triggers, the newest first"),
        Column("item_ids", IDS, "the positive, then n_hard hard and the easy negatives"),
        Column("n_hard", pa.int32(), "hard negatives: targets of a trigger that reaches the positive"),
        Column("trigger_masks", pa.list_(pa.uint64()), "two words an item: the triggers that reach it"),
        Column("cross", FIGURES, "cross features of each item, one item after the other"),
        Column("statistics", FIGURES, "statistics of each item as of the day before, likewise"),
        Column("log_q", FIGURES, "log of the chance that sampling draws the item, aligned with item_ids"),
    ),
    key=("user_id", "item_id"),
    order_by=("user_id", "event_time", "item_id"),
)

CHECKPOINT = Table(
    "checkpoint",
    "A trained model of one method: learned from the samples of the window that ends the day before.",
    (
        Column(
            "name",
            pa.string(),
            "file name: model.safetensors, config.json, report.json (PI2I: scorer.safetensors, report.json); "
            "of a long file's pieces name:00000, ...",
        ),
        Column("content", pa.large_binary(), "its bytes"),
    ),
    key=("name",),
    part_by="method",
)

METRIC = Table(
    "metric",
    "One measured figure of one method on one day, with its 95% bootstrap interval.",
    (
        Column("method", pa.string(), "method or channel, e.g. popularity, swing, base, increc, merged"),
        Column(
            "metric",
            pa.string(),
            "hit_rate, base, sup, inc, exposure_hit, ..., see tasks/evaluate.py",
        ),
        Column("k", pa.int32(), "K of Hit@K; 0 where there is none"),
        Column("cohort", pa.string(), "all, or scenario=..., users=new, items=known, ..."),
        Column("value", pa.float64(), "the figure", True),
        Column("low", pa.float64(), "lower end of the interval", True),
        Column("high", pa.float64(), "upper end of the interval", True),
        Column("n_users", pa.int64(), "users it is measured on"),
        Column("n_targets", pa.int64(), "targets it is measured on"),
    ),
    key=("method", "metric", "k", "cohort"),
    part_by="step",
)

EXAMPLE = Table(
    "example",
    "One user whose merged list a reviewer looks at, as it was measured on the day.",
    (
        USER,
        Column("kind", pa.string(), "long history, short history or no history"),
        Column("n_history", pa.int32(), "items in the history as of the end of the day before"),
        Column("history_item_ids", IDS, "the last of them, oldest first"),
        Column("item_ids", IDS, "first items of the merged list, best first"),
        Column("channels", pa.list_(pa.string()), "the channel that placed each, aligned with item_ids"),
        Column("target_item_ids", IDS, "what the user turned to on the day, by place in the merged list"),
        Column("target_places", pa.list_(pa.int32()), "1-based places of those, 0 where not in the list"),
    ),
    key=("user_id",),
)

GATE = Table(
    "gate",
    "One gate of the day's verdict.",
    (
        Column("gate", pa.string(), "name in mlflow/gates.toml"),
        Column("status", pa.string(), "passed, failed, not decidable or no comparison"),
        Column("figure", pa.float64(), "what was measured", True),
        Column("floor", pa.float64(), "what was required", True),
        Column("detail", pa.string(), "the one line that a reviewer reads"),
    ),
    key=("gate",),
)


def quarantine(table: Table) -> Table:
    """Give the table ``quarantine/<table>`` that keeps the refused source rows of ``table``."""
    return Table(
        f"quarantine/{table.name}",
        f"One source row of {table.name} that was refused, with the reason.",
        (
            Column("row_number", pa.int64(), "0-based number among the day's refused rows"),
            Column("reason", pa.string(), "why it was refused"),
            Column("row", pa.string(), "the row as JSON"),
        ),
        key=("row_number",),
    )


TABLES = {
    table.name: table
    for table in (
        EXPOSURE,
        RANKING_LOG,
        RETRIEVAL_LOG,
        ITEM_SNAPSHOT,
        USER_SNAPSHOT,
        INITIAL_HISTORY,
        CLICK,
        USER_HISTORY,
        ITEM_INDEX,
        I2I_TABLE,
        MNR_CANDIDATES,
        TARGET_GROUP,
        INCREC_SAMPLE,
        PI2I_SAMPLE,
        CHECKPOINT,
        METRIC,
        EXAMPLE,
        GATE,
    )
}
