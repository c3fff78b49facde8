"""Results as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_COLUMNS = (
    "shape",
    "dtype",
    "contestant",
    "median ms",
    "20 %",
    "80 %",
    "TFLOP/s",
    "GB/s",
    "extra MB",
    "rel. error",
    "against",
)


def table(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of measurements."""
    rows = [_COLUMNS, *(_row(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    shape = " × ".join(str(size) for size in record["shape"].values())
    if "skipped" in record:
        return (shape, record["dtype"], record["name"], f"skipped: {record['skipped']}", *[""] * 7)
    against = "; ".join(_against(name, ratio) for name, ratio in record.get("against", {}).items())
    return (
        shape,
        record["dtype"],
        record["name"],
        _number(record["median_ms"]),
        _number(record["p20_ms"]),
        _number(record["p80_ms"]),
        _number(record.get("tflops")),
        _number(record.get("gbytes_per_s")),
        _number(None if record["peak_extra_bytes"] is None else record["peak_extra_bytes"] / 1e6),
        "" if record.get("relative_error") is None else f"{float(record['relative_error']):.1e}",
        "ceiling" if record.get("is_ceiling") else against,
    )


def _against(name: str, ratio: dict[str, float]) -> str:
    text = f"{ratio['time_ratio']:.2f} × {name}"
    return text + (f" ({100 * ratio['share']:.0f} %)" if "share" in ratio else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
