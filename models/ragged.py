"""How does an Arrow column of id lists become flat arrays that a kernel can read?"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class NotAligned(ValueError):
    """Rows that must describe the same users are not of the same number."""


def flat_lists(lists: pa.ListArray | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """
    Give ``offsets`` int64 [n + 1] and ``values`` int64 [offsets[-1]] of a column of id lists.

    A null list counts as empty; slices and chunks are followed. Both arrays are copies of their own.

    Raises:
        ValueError: a list contains a null.
    """
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = lists.flatten().cast(pa.int64())
    if values.null_count:
        raise ValueError(f"{values.null_count} null ids inside lists; remove them before they reach a model")
    return offsets, np.array(values.to_numpy(zero_copy_only=False), np.int64)


def flat_lists_of(
    n_rows: int, lists: pa.ListArray | pa.ChunkedArray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """
    Give ``flat_lists(lists)`` after checking that there is one list per row.

    Raises:
        NotAligned: the number of lists is not ``n_rows``.
    """
    if len(lists) != n_rows:
        raise NotAligned(
            f"{name} has {len(lists)} lists for {n_rows} rows; give one list per row, in row order"
        )
    return flat_lists(lists)


def join_lists(lists: pa.ListArray, others: pa.ListArray) -> pa.ListArray:
    """
    Give each row's list with the same row's of ``others`` behind it; a null list counts as empty.

    Raises:
        NotAligned: they are not over the same rows.
    """
    first, first_values = flat_lists(lists)
    second, second_values = flat_lists_of(len(lists), others, "the other column")
    offsets = first + second
    values = np.empty(offsets[-1], np.int64)
    for part, part_values, before in (
        (first, first_values, second[:-1]),
        (second, second_values, first[1:]),
    ):
        lengths = np.diff(part)
        values[np.arange(part[-1]) + np.repeat(before, lengths)] = part_values
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def unite_lists(lists: pa.ListArray, others: pa.ListArray) -> pa.ListArray:
    """
    Give each row's distinct items: its list, and behind it those of ``others`` that it lacks.

    Raises:
        NotAligned: they are not over the same rows.
    """
    offsets, values = flat_lists(join_lists(lists, others))
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((values, row))  # stable: an item's first place comes first
    is_first = np.ones(len(values), bool)
    is_first[order[1:]] = (row[order][1:] != row[order][:-1]) | (values[order][1:] != values[order][:-1])
    lengths = np.bincount(row[is_first], minlength=len(offsets) - 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[is_first]))


def codes_of(values: np.ndarray, sorted_ids: np.ndarray) -> np.ndarray:
    """Give the int32 position of each value in ``sorted_ids`` (ascending, distinct), -1 if absent."""
    if not len(sorted_ids):
        return np.full(len(values), -1, np.int32)
    positions = np.minimum(np.searchsorted(sorted_ids, values), len(sorted_ids) - 1)
    return np.where(sorted_ids[positions] == values, positions, -1).astype(np.int32)
