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


def codes_of(values: np.ndarray, sorted_ids: np.ndarray) -> np.ndarray:
    """Give the int32 position of each value in ``sorted_ids`` (ascending, distinct), -1 if absent."""
    if not len(sorted_ids):
        return np.full(len(values), -1, np.int32)
    positions = np.minimum(np.searchsorted(sorted_ids, values), len(sorted_ids) - 1)
    return np.where(sorted_ids[positions] == values, positions, -1).astype(np.int32)
