"""
Are two tables the same rows in the same order?

The digest is taken over logical values: chunks, slices, offsets, null bitmaps and whatever bytes lie
under a null do not count. Each column gives a fixed number of byte streams (validity, lengths, values),
and each stream is hashed over all chunks by itself, so that nothing has to be copied together.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def digest_rows(rows: pa.Table) -> str:
    """
    Give the SHA-256 of column names, types and values, as 64 hexadecimal digits.

    Null, NaN, the empty list and the empty string are four different values; every NaN is the same.

    Raises:
        TypeError: a column holds neither numbers, booleans, times, text, bytes nor lists of those.
    """
    digest = RowDigest(rows.schema)
    digest.update(rows)
    return digest.hexdigest()


class RowDigest:
    """The digest of rows that come batch by batch: that of `digest_rows` for all of them."""

    def __init__(self, schema: pa.Schema):
        """Start without rows. Raises TypeError as `digest_rows`."""
        self._schema = schema
        self._n_rows = 0
        self._columns = [[hashlib.sha256() for _ in _streams(pa.array([], field.type))] for field in schema]

    def update(self, rows: pa.Table) -> None:
        """Put rows of the schema behind those so far."""
        self._n_rows += rows.num_rows
        for digests, column in zip(self._columns, rows.columns, strict=True):
            for chunk in column.chunks:
                for digest, stream in zip(digests, _streams(chunk), strict=True):
                    digest.update(stream)

    def hexdigest(self) -> str:
        """Give the digest of the rows so far."""
        whole = hashlib.sha256(str(self._n_rows).encode())
        for field, digests in zip(self._schema, self._columns, strict=True):
            whole.update(f"\n{field.name}: {_type_name(field.type)}\n".encode())
            whole.update(b"".join(digest.digest() for digest in digests))
        return whole.hexdigest()


def _type_name(kind: pa.DataType) -> str:
    """Name the type without the names that list items have, which differ between Parquet and DuckDB."""
    return f"list<{_type_name(kind.value_type)}>" if _is_list(kind) else str(kind)


def _streams(array: pa.Array) -> Iterator[np.ndarray | memoryview]:
    """Give byte streams that only need to be put behind those of the chunk before."""
    kind = array.type
    yield _numbers(array.is_valid().cast(pa.uint8()))
    if _is_list(kind):
        yield _numbers(pc.list_value_length(array).cast(pa.int64()))
        yield from _streams(array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        yield _numbers(pc.binary_length(array).cast(pa.int64()))
        yield _content(array.cast(pa.binary()), np.int32)
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        yield _numbers(pc.binary_length(array))
        yield _content(array.cast(pa.large_binary()), np.int64)
    elif pa.types.is_boolean(kind):
        yield _numbers(array.cast(pa.uint8()))
    elif pa.types.is_floating(kind):
        yield _numbers(pc.if_else(pc.is_nan(array), pa.scalar(float("nan"), kind), array))
    elif pa.types.is_temporal(kind):
        yield _numbers(array.view(pa.int64() if kind.bit_width == 64 else pa.int32()))
    elif pa.types.is_integer(kind):
        yield _numbers(array)
    else:
        raise TypeError(f"no digest for a column of type {kind}")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _numbers(array: pa.Array) -> np.ndarray:
    """Give the values, 0 where null."""
    return array.fill_null(0).to_numpy()


def _content(array: pa.Array, offset_type: type) -> memoryview:
    """Give the bytes of all values behind each other, none where null."""
    array = array.fill_null(b"")
    _, offsets, content = array.buffers()
    if len(array) == 0 or content is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, offset_type)[array.offset : array.offset + len(array) + 1]
    return memoryview(content)[ends[0] : ends[-1]]
