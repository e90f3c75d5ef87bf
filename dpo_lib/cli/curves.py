"""Line plots as SVG text, without a plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 34, 40


class Line(NamedTuple):
    """One curve."""

    label: str
    style: str  # classes of the style sheet
    x: Sequence[float]
    y: Sequence[float]


def draw(
    title: str,
    unit: str,
    lines: Sequence[Line],
    low: float | None = None,
    high: float | None = None,
) -> str:
    """A figure with the curves over the updates; its text alternative says where each one goes."""
    values = [v for line in lines for v in line.y if math.isfinite(v)]
    low = min([*values, 0.0]) if low is None else low
    high = max([*values, low + 1e-9]) if high is None else high
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    last = max([*(x for line in lines for x in line.x), 1])

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        down = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)
        return f"{across:.1f},{down:.1f}"

    parts = []
    for tick in ticks:
        (x1, y), (x2, _) = place(0, tick).split(","), place(last, tick).split(",")
        parts.append(f'<line class="grid" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in {0, round(last)}:
        x = place(tick, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">update</text>')
    across = LEFT
    for line in lines:
        points = " ".join(
            place(x, min(max(y, low), high))
            for x, y in zip(line.x, line.y, strict=True)
            if math.isfinite(y)
        )
        parts.append(f'<polyline class="line {line.style}" points="{points}"/>')
        parts.append(
            f'<g class="key"><line class="{line.style}" x1="{across}" x2="{across + 16}" '
            f'y1="16" y2="16"/><text x="{across + 20}" y="20">{html.escape(line.label)}</text></g>'
        )
        across += 30 + 6 * len(line.label)
    described = html.escape(f"{title} ({unit}). " + " ".join(_say(line) for line in lines))
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{described}">'
        f"{''.join(parts)}</svg><figcaption>{html.escape(title)} ({unit})</figcaption></figure>"
    )


def _say(line: Line) -> str:
    if not line.y:
        return f"{line.label}: no values."
    return (
        f"{line.label}: from {line.y[0]:.2f} at update {line.x[0]:g} to {line.y[-1]:.2f} at "
        f"update {line.x[-1]:g}, between {min(line.y):.2f} and {max(line.y):.2f}."
    )


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers from below ``low`` to above ``high``."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]
