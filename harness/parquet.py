"""Tables of plain columns as Parquet: written the same for the same rows, read as what a stranger made.

No pickle, no code, no nesting: whole numbers, numbers, text and truth values, of columns that the reader
names. What a file says of its own size is checked before any of it is unpacked.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TYPES = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
ENCODINGS = {"int64": "DELTA_BINARY_PACKED", "float64": "BYTE_STREAM_SPLIT"}
"""Of columns that no dictionary makes smaller: 2 to 5% smaller than Parquet's plain one, of rows."""
LEVEL = 19
"""Of zstd: files are written once and kept for good."""
MOST_BYTES, MOST_UNPACKED, MOST_ROWS = 64_000_000, 512_000_000, 4_000_000
"""Of a file that is read: on disk, unpacked, and rows."""
LONGEST_TEXT = 65_536
"""Bytes of a text in a column."""
MOST_NAMES, LONGEST_NAMES = 10_000, 1_000_000
"""Entries of a list, and bytes of a text, in a file's own description of itself."""


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    return pa.schema([(name, TYPES[kind]) for name, kind in columns.items()])


def encoded(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> bytes:
    """A file of rows; equal rows give equal bytes (with one version of pyarrow).

    Args:
        rows: each with a value, or ``None``, for every column.
        columns: their kinds by name, of :data:`TYPES`.

    Raises:
        ValueError: for a row that lacks a column, a value of another kind, or too long a text.
    """
    schema = _schema(columns)
    try:
        table = pa.table([pa.array([row[f.name] for row in rows], f.type) for f in schema], schema=schema)
    except KeyError as error:
        raise ValueError(f"a row has no {error.args[0]}") from None
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"a value is of another kind: {_line(error)}") from None
    for field, column in zip(schema, table.columns, strict=True):
        if field.type == TYPES["str"]:
            _check_lengths(field.name, column)
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        row_group_size=max(1, len(rows)),
        compression="zstd",
        compression_level=LEVEL,
        use_dictionary=[name for name, kind in columns.items() if kind == "str"],
        column_encoding={name: ENCODINGS[kind] for name, kind in columns.items() if kind in ENCODINGS},
        # nobody seeks in so little, and Arrow's own schema says nothing that Parquet's does not
        write_statistics=False,
        store_schema=False,
        write_page_checksum=True,
    )
    return file.getvalue()


def decoded(path: Path, columns: Mapping[str, str], most: int = MOST_ROWS) -> list[dict[str, Any]]:
    """The rows of a file, ``None`` where a value is missing.

    Args:
        path: of the file.
        columns: kinds by name of the columns that it must have, in this order, and no others.
        most: rows that it may have.

    Raises:
        ValueError: if it is no such file, is damaged, or is larger than can be meant.
        OSError: if it cannot be read.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
    limits = {"thrift_string_size_limit": LONGEST_NAMES, "thrift_container_size_limit": MOST_NAMES}
    # texts stay in their dictionaries: those of all rows may be a thousand times as long
    texts = [name for name, kind in columns.items() if kind == "str"]
    expected = _schema(columns)
    for name in texts:
        place = expected.get_field_index(name)
        expected = expected.set(place, pa.field(name, pa.dictionary(pa.int32(), pa.string())))
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts, **limits) as file:
            found = file.schema_arrow
            if not found.equals(expected):
                has = ", ".join(f"{f.name} {f.type}" for f in list(found)[: 2 * len(columns)])
                raise ValueError(f"its columns are {has}; they should be {', '.join(columns)}")
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            unpacked = sum(group.total_byte_size for group in groups)
            most = min(most, MOST_ROWS)
            if not (0 <= file.metadata.num_rows <= most and 0 <= unpacked <= MOST_UNPACKED):
                raise ValueError(
                    f"it says that it holds {file.metadata.num_rows:,} rows, {unpacked:,} bytes; at "
                    f"most {most:,} and {MOST_UNPACKED:,} can be meant"
                )
            table = file.read(use_threads=False)
            values = [_values(field.name, table[field.name]) for field in expected]
    except UnicodeDecodeError:
        raise ValueError("it holds text that is none") from None
    except (pa.ArrowException, OSError) as error:  # an OSError is what damaged pages give
        raise ValueError(f"it is no Parquet file, or damaged: {_line(error)}") from None
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _values(name: str, column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; equal texts of a dictionary are one."""
    if not pa.types.is_dictionary(column.type):
        return list(column.to_pylist())
    found: list[Any] = []
    for chunk in column.chunks:
        chunk.validate(full=True)  # an index may be of no text, and a text none
        _check_lengths(name, chunk.dictionary)
        texts = chunk.dictionary.to_pylist()
        found.extend(None if i is None else texts[i] for i in chunk.indices.to_pylist())
    return found


def _check_lengths(name: str, texts: pa.Array | pa.ChunkedArray) -> None:
    """Refuses texts that are too long.

    Raises:
        ValueError: if there is one.
    """
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > LONGEST_TEXT:
        raise ValueError(f"it has a text of {longest:,} bytes in {name}, more than {LONGEST_TEXT:,}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
