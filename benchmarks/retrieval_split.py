"""
What do RecBole's models learn from, and what are they asked? The tables that PI2I reads, as arrays.

A sample is a click on an item that the user's history does not hold, with the history strictly before it, the
newest ``length`` items, oldest first; clicks without a history are left out. An interaction is an item in a
user's history as of the last learned day, the warm start's included. Items and users are numbers from 1 on, 0
where they are unknown. Ragged arrays are values and ``<name>_offsets``. All int64.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.ragged import flat_lists


@dataclass(frozen=True)
class Vocabulary:
    """The known ids, int64 and ascending; the number of ``ids[n]`` is n + 1."""

    item_ids: np.ndarray
    user_ids: np.ndarray

    def items(self, ids: np.ndarray) -> np.ndarray:
        """Give the numbers of items, 0 for unknown ones."""
        return _numbers(ids, self.item_ids)

    def users(self, ids: np.ndarray) -> np.ndarray:
        """Give the numbers of users, 0 for unknown ones."""
        return _numbers(ids, self.user_ids)

    def item_ids_of(self, lists: np.ndarray) -> np.ndarray:
        """Give the ids of numbers; -1 stays -1."""
        return np.where(lists > 0, self.item_ids[np.maximum(lists, 1) - 1], -1)


def learned_arrays(
    clicks: Iterable[pa.Table], histories: pa.Table, vocabulary: Vocabulary, length: int
) -> dict[str, np.ndarray]:
    """
    Give what is learned.

    Args:
        clicks: of each day item_id and history_item_ids, see ``tasks.pi2i_samples.read_new_clicks``.
        histories: user_id and item_ids as of the last learned day.
        vocabulary: all items and users.
        length: items of a history that a sample keeps.

    Returns:
        ``n_users``, ``n_items``; samples as ``target`` and ragged ``history``; interactions as ``edge_user``
        and ``edge_item``.
    """
    targets, lists = [], []
    for day in clicks:
        offsets, values = flat_lists(day["history_item_ids"])
        numbers, offsets = _known(vocabulary.items(values), offsets)
        has_history = np.diff(offsets) > 0
        targets.append(vocabulary.items(day["item_id"].to_numpy())[has_history])
        parts = np.split(numbers, offsets[1:])[:-1]
        lists += [part[-length:] for part, is_kept in zip(parts, has_history, strict=True) if is_kept]
    return {
        "n_users": np.int64(len(vocabulary.user_ids)),
        "n_items": np.int64(len(vocabulary.item_ids)),
        "target": np.concatenate(targets),
        "history": np.concatenate(lists) if lists else np.empty(0, np.int64),
        "history_offsets": np.cumsum([0, *map(len, lists)]),
        **_edges(histories, vocabulary),
    }


def asked_arrays(
    user_ids: np.ndarray,
    histories: pa.ListArray,
    targets: pa.ListArray,
    available_item_ids: np.ndarray,
    all_histories: pa.Table,
    vocabulary: Vocabulary,
) -> dict[str, np.ndarray]:
    """
    Give what a day's lists are made of.

    Returns:
        ``user``; ragged ``past``, the whole histories, and ``wanted``, the targets (0 where unknown);
        ``available``, bool by item number - 1; ``edge_user`` and ``edge_item`` of all histories.
    """
    offsets, values = flat_lists(histories)
    past, past_offsets = _known(vocabulary.items(values), offsets)
    wanted_offsets, wanted = flat_lists(targets)
    return {
        "user": vocabulary.users(user_ids),
        "past": past,
        "past_offsets": past_offsets,
        "wanted": vocabulary.items(wanted),
        "wanted_offsets": wanted_offsets,
        "available": np.isin(vocabulary.item_ids, available_item_ids),
        **_edges(all_histories, vocabulary),
    }


def _edges(histories: pa.Table, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    offsets, values = flat_lists(histories["item_ids"])
    users = np.repeat(vocabulary.users(histories["user_id"].to_numpy()), np.diff(offsets))
    items = vocabulary.items(values)
    is_known = (users > 0) & (items > 0)
    return {"edge_user": users[is_known], "edge_item": items[is_known]}


def _known(numbers: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave the unknown items out of ragged lists."""
    kept = np.concatenate([[0], np.cumsum(numbers > 0)])
    return numbers[numbers > 0], kept[offsets]


def _numbers(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.index_in(pa.array(ids), pa.array(known)), -1)).astype(np.int64) + 1
