"""
Which users does a reviewer look at? A few, drawn by a seed, with what was recommended and what they did.

Two each with a long, a short and no history, of those who turned to something on the day: the last items of
their history, the first items of the merged list with the channel that placed each, and where in the list
the items stood that they turned to.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from models.channels import merge_with_origin
from models.metrics import NOT_RETRIEVED
from tasks.channels import Users

LONG, SHORT, NONE = "long history", "short history", "no history"
USERS_PER_KIND = 2
HISTORY_SHOWN = 5
ITEMS_SHOWN = 10
TARGETS_SHOWN = 10


def draw_examples(
    users: Users,
    targets: pa.ListArray,
    ranks: np.ndarray,
    lists: dict[str, np.ndarray],
    quotas: dict[str, int],
    seed: int,
) -> pa.Table:
    """
    Give the rows of the table ``example``.

    Args:
        users: the measured users, ascending by id.
        targets: what each turned to on the day.
        ranks: 0-based places of those in the merged list, over the flattened targets.
        lists: item-id matrix of each channel.
        quotas: the channels' quotas in the merged list.
        seed: seed of the draw.
    """
    names = list(quotas)
    offsets = targets.offsets.to_numpy()
    lengths = pc.list_value_length(users.histories).to_numpy(zero_copy_only=False)
    rows = []
    for kind, row in _draw(lengths, np.diff(offsets) > 0, seed):
        one = slice(row, row + 1)
        merged, origin = (part[0] for part in merge_with_origin({n: lists[n][one] for n in names}, quotas))
        size = min(ITEMS_SHOWN, int(np.sum(merged >= 0)))
        places = ranks[offsets[row] : offsets[row + 1]]
        by_place = np.argsort(places, kind="stable")[:TARGETS_SHOWN]
        rows.append(
            {
                "user_id": int(users.ids[row]),
                "kind": kind,
                "n_history": int(lengths[row]),
                "history_item_ids": users.histories[row].values.to_pylist()[-HISTORY_SHOWN:],
                "item_ids": merged[:size].tolist(),
                "channels": [names[position] for position in origin[:size]],
                "target_item_ids": targets[row].values.to_numpy()[by_place].tolist(),
                "target_places": [0 if p == NOT_RETRIEVED else int(p) + 1 for p in places[by_place]],
            }
        )
    return pa.Table.from_pylist(rows, tables.EXAMPLE.schema)


def _draw(lengths: np.ndarray, has_target: np.ndarray, seed: int) -> Iterator[tuple[str, int]]:
    """Draw users by the length of their history; long and short are the outer quarters."""
    known = lengths[has_target & (lengths > 0)]
    short, long = np.quantile(known, [0.25, 0.75], method="nearest") if len(known) else (0, 0)
    kinds = {LONG: (lengths > 0) & (lengths >= long), SHORT: (lengths > 0) & (lengths <= short)}
    generator = np.random.default_rng(seed)
    free = has_target.copy()
    for kind, is_one in (kinds | {NONE: lengths == 0}).items():
        candidates = np.flatnonzero(free & is_one)
        drawn = generator.choice(candidates, min(USERS_PER_KIND, len(candidates)), replace=False)
        free[drawn] = False
        yield from ((kind, int(row)) for row in np.sort(drawn))
