"""Records from files of problems. What is wrong with one is said in one line that names file, line and field."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lapha._checks import check
from lapha._imports import require

LONGEST_LINE = 1 << 24
"""Bytes of a record: one that is longer is no problem, but a file of another kind."""

ID_FIELDS = ("id", "unique_id", "problem_id", "uid")

Record = tuple[Mapping[str, Any], str]  # a record, and where it stands


def read_records(path: Path) -> Iterator[Record]:
    """(record, where it stands) of a ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file.

    Raises:
        ValueError: a file of another kind, or one that cannot be read: not UTF-8, no JSON, NaN, a line that is too long, an
            id that occurs twice.
    """
    check(path.suffix in _READERS, "data", "a file ending in " + ", ".join(_READERS), str(path))
    seen: dict[tuple[str, str], str] = {}
    for row, at in _READERS[path.suffix](path):
        for name in ID_FIELDS:
            identity = row.get(name)
            if identity is not None and identity != "":
                first = seen.setdefault((name, str(identity)), at)
                check(first == at, "data", f"another {name} in {at} than in {first}", repr(identity))
        yield row, at


def text_field(row: Mapping[str, Any], names: tuple[str, ...], at: str) -> str:
    """The text of the first of the fields that the record has; a list of answers with commas between them.

    Raises:
        ValueError: none of them is there, or it holds no text; names the field.
    """
    present = [name for name in names if name in row]
    for name in [
        *(name for name in present if row[name] is not None),
        *present,
    ]:  # one that is null, if there is no other
        return _text(row[name], f"field {name!r} of {at}")
    found = ", ".join(map(str, row))[:200]
    raise ValueError(f"data: expected {' or '.join(names[:2])} in {at}, got fields {found}")


def _text(value: Any, at: str) -> str:
    if isinstance(value, (list, tuple)):
        check(len(value) > 0, "data", f"text in {at}", "an empty list")
        return ", ".join(_text(part, at) for part in value)
    if isinstance(value, float):
        check(math.isfinite(value), "data", f"text in {at}", value)
        value = int(value) if value.is_integer() else value  # 27.0 where a column of integers was stored as floats
    named = {type(None): "null", dict: "an object", bool: "true or false"}.get(type(value))
    check(named is None, "data", f"text in {at}", named)
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"data: expected text in {at}, got half of a surrogate pair") from None
    return text


def _json_lines(path: Path) -> Iterator[Record]:
    for number, text in _lines(path):
        if text.strip():
            yield _json(text, f"{path}:{number}"), f"{path}:{number}"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, without the byte order mark that some editors write."""
    with _opened(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            at = f"{path}:{number}"
            check(
                len(line) <= LONGEST_LINE, "data", f"lines of at most {LONGEST_LINE >> 20} MB in {at}", "a longer one"
            )
            yield number, _decoded(line, at).removeprefix("\ufeff" if number == 1 else "")


def _opened(path: Path) -> BinaryIO:
    """The file as UTF-8 with line feeds; one that says that it is UTF-16, as Windows writes it, is converted."""
    file = path.open("rb")
    if file.read(2) not in (b"\xff\xfe", b"\xfe\xff"):
        file.seek(0)
        return file
    with file:
        file.seek(0)
        try:
            return io.BytesIO(file.read().decode("utf-16").encode())
        except UnicodeDecodeError as error:
            raise ValueError(f"data: expected UTF-16 in {path}, got byte {error.start} ({error.reason})") from None


def _decoded(data: bytes, at: str) -> str:
    check(b"\0" not in data, "data", f"text in {at}", "binary data")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise ValueError(f"data: expected UTF-8 in {at}, got byte 0x{byte:02x} at {error.start}") from None


def _json_list(path: Path) -> Iterator[Record]:
    with _opened(path) as file:
        text = _decoded(file.read(), str(path)).removeprefix("\ufeff")
    for number, row in enumerate(_json(text, str(path), list), 1):
        check(isinstance(row, dict), "data", f"an object as record {number} of {path}", type(row).__name__)
        yield row, f"{path} record {number}"


def _json(text: str, at: str, kind: type = dict) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant}, which is no JSON")

    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"data: expected JSON in {at}, got {_with_field(text, str(error))}") from None
    check(
        isinstance(value, kind), "data", f"a JSON {'object' if kind is dict else 'list'} in {at}", type(value).__name__
    )
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _with_field(text: str, found: str) -> str:
    """The message, with the field that holds a constant that is no JSON."""
    constant = found.partition(",")[0]
    if constant not in ("NaN", "Infinity", "-Infinity"):
        return found
    try:
        loose = json.loads(text)
    except ValueError:
        return found
    fields = [name for name, value in loose.items() if _holds(value, constant)] if isinstance(loose, dict) else []
    return f"{found}, in field {fields[0]!r}" if fields else found


def _holds(value: Any, constant: str) -> bool:
    if isinstance(value, list):
        return any(_holds(part, constant) for part in value)
    if isinstance(value, dict):
        return any(_holds(part, constant) for part in value.values())
    return isinstance(value, float) and not math.isfinite(value) and math.isnan(value) == (constant == "NaN")


def _csv(path: Path) -> Iterator[Record]:
    text = "".join(line for _, line in _lines(path))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    limit = csv.field_size_limit(LONGEST_LINE)  # the library's own is shorter than some problems
    try:
        names = list(reader.fieldnames or ())
        twice = sorted({name for name in names if names.count(name) > 1})
        check(not twice, "data", f"columns of different names in {path}", f"{', '.join(map(repr, twice))} twice")
        for row in reader:
            at = f"{path}:{reader.line_num}"
            check(None not in row, "data", f"{len(names)} fields in {at}", "more")
            yield row, at
    except csv.Error as error:
        raise ValueError(f"data: expected CSV in {path}:{reader.line_num}, got {error}") from None
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path) -> Iterator[Record]:
    parquet = require("pyarrow.parquet", extra="eval")
    arrow = require("pyarrow", extra="eval")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"data: expected Parquet in {path}, got {' '.join(str(error).split())[:200]}") from None
    for number, row in enumerate(rows, 1):
        yield row, f"{path} record {number}"


_READERS = {".jsonl": _json_lines, ".json": _json_list, ".csv": _csv, ".parquet": _parquet}
