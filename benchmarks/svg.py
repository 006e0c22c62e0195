"""Pictures of figures, written by hand: bars for contenders, lines for growth. Pure: rows in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

from benchmarks.row import Row, number

__all__ = ["bars", "lines"]

_WIDTH = 760
_BAR, _GAP, _TOP = 22, 12, 48
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b7791f")
_STYLE = "font-family: system-ui, sans-serif; font-size: 12px"


def _picture(title: str, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" style="{_STYLE}">'
    )
    heading = f'<text x="12" y="24" font-size="15" font-weight="600">{escape(title)}</text>'
    ground = f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join([head, ground, heading, *parts, "</svg>"]) + "\n"


def bars(title: str, rows: Sequence[Row]) -> str:
    """A bar for each row, as long as its value is large, with the value and the ratio beside it."""
    # Letters are about 6.4 wide; the text behind a bar needs the last 170.
    left = min(440, 24 + round(6.4 * max((len(row.name) for row in rows), default=0)))
    room = _WIDTH - left - 170
    most = max((row.value for row in rows), default=0.0) or 1.0
    parts = []
    for place, row in enumerate(rows):
        y = _TOP + place * (_BAR + _GAP)
        width = max(1.0, row.value / most * room)
        text = f"{number(row.value)} {row.unit}" + (f" ({row.ratio:.2f} x)" if row.against else "")
        parts += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(row.name)}</text>',
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_COLOURS[0]}"/>',
            f'<text x="{left + width + 6:.1f}" y="{y + 15}">{escape(text)}</text>',
        ]
    return _picture(title, _TOP + len(rows) * (_BAR + _GAP) + 8, parts)


def lines(title: str, rows: Sequence[Row]) -> str:
    """A line for each series over a logarithmic axis of sizes; the other axis begins at zero."""
    left, right, bottom, height = 70, _WIDTH - 150, 300, 350
    low, high = floor(log10(min(row.x for row in rows))), ceil(log10(max(row.x for row in rows)))
    high = max(high, low + 1)
    most = max(row.value for row in rows) or 1.0

    def across(x: float) -> float:
        return left + (log10(x) - low) / (high - low) * (right - left)

    def up(value: float) -> float:
        return bottom - max(0.0, value) / most * (bottom - _TOP)

    parts = [f'<path d="M{left} {_TOP} V{bottom} H{right}" fill="none" stroke="#666"/>']
    for power in range(low, high + 1):
        x = across(10.0**power)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10**power:,}</text>')
        parts.append(f'<path d="M{x:.1f} {_TOP} V{bottom}" stroke="#eee"/>')
    parts += [
        f'<text x="{left - 8}" y="{up(most * share) + 4:.1f}" text-anchor="end">{number(most * share)}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    parts.append(f'<text x="12" y="{_TOP - 8}" fill="#666">{escape(rows[0].unit)}</text>')
    series = list(dict.fromkeys(row.series for row in rows))
    for place, name in enumerate(series):
        colour = _COLOURS[place % len(_COLOURS)]
        points = [(across(row.x), up(row.value)) for row in rows if row.series == name]
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{right + 8}" y="{points[-1][1] + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    return _picture(title, height, parts)
