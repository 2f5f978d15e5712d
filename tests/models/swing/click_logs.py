"""Click tables that several Swing tests take."""

import numpy as np
import pyarrow as pa


def click_table(rows):
    """rows: (user, item, time) triples."""
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table(
        {
            "user_id": pa.array(columns[0], pa.int64()),
            "item_id": pa.array(columns[1], pa.int64()),
            "event_time": pa.array(columns[2], pa.int64()).cast(pa.timestamp("us")),
        }
    )


def random_clicks(generator, n=6000, n_users=300, n_items=120):
    """Rows with a few popular items."""
    items = (n_items * generator.random(n) ** 2).astype(int)
    return list(
        zip(
            generator.integers(0, n_users, n).tolist(),
            items.tolist(),
            generator.integers(0, 99, n).tolist(),
            strict=True,
        )
    )


def nearly_full_clicks(generator, n_users=40, n_items=25, share_missing=0.06):
    """Rows of a matrix in which few users miss an item; item 0 and user 0 miss most."""
    is_clicked = generator.random((n_users, n_items)) >= share_missing
    is_clicked[5:, 0] = False
    is_clicked[0, 5:] = False
    return [(int(user), int(item), 0) for user, item in np.argwhere(is_clicked)]
