"""Colours and type that all pictures share.

Values are coloured by viridis (CC0), which stays ordered for colour-blind readers and in grey print.
"""

from __future__ import annotations

import math

VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26",
    "#fde725",
)  # fmt: skip
UNKNOWN = "#c3c9d0"
INK, MUTED, HAIRLINE, ACCENT = "#16202c", "#5b6875", "#dfe3e8", "#d6336c"
# Categorical colours that differ in lightness as well as in hue; every one has contrast 3:1 or better on white.
SERIES = ("#33508f", "#d1661c", "#12806f", "#8d3a94", "#6b7683", "#a8231f")
FONTS = "Inter, 'Segoe UI', 'Helvetica Neue', 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"


def viridis(fraction: float) -> str:
    """The colour at `fraction` of the scale, clamped to [0, 1], as ``#rrggbb``; NaN is grey."""
    if math.isnan(fraction):
        return UNKNOWN
    place = min(max(fraction, 0.0), 1.0) * (len(VIRIDIS) - 1)
    low = min(int(place), len(VIRIDIS) - 2)
    weight = place - low
    channels = []
    for start in (1, 3, 5):
        first, second = int(VIRIDIS[low][start : start + 2], 16), int(VIRIDIS[low + 1][start : start + 2], 16)
        channels.append(round(first + weight * (second - first)))
    return "#" + "".join(f"{channel:02x}" for channel in channels)
