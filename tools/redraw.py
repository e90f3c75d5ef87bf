"""Measure how long the book's widgets take to redraw: `make redraw`. A frame lasts 16 ms.

python -m tools.redraw    builds the book if needed and prints a line for each widget
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tools import book
from tools.browser import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Moves a widget's first slider 30 times. Each time: how long its handler, the drawing in the next
# animation frame and the layout after it take, without the wait for that frame to begin.
REDRAW = """async (widget) => {
    const slider = widget.querySelector("input[type=range]");
    const frame = () => new Promise((done) => requestAnimationFrame(() => done(performance.now())));
    const times = [];
    for (let i = 0; i < 30; i++) {
        const begins = frame();
        const start = performance.now();
        slider[i % 2 ? "stepUp" : "stepDown"](5);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        const handled = performance.now() - start;
        const ends = new Promise((done) => requestAnimationFrame(() => {
            widget.getBoundingClientRect();
            done(performance.now());
        }));
        times.push(handled + (await ends) - (await begins));
    }
    return times;
}"""


class Redraw(NamedTuple):
    """How long one widget takes, in ms."""

    page: str
    widget: str
    median: float
    late: float  # 95th percentile


def measure_redraws(browser: Browser) -> Iterator[Redraw]:
    """Measure each widget of the built chapters that has a slider."""
    for path in sorted((book.HTML / "notebooks").glob("*.html")):
        page = browser.new_page()
        page.goto(path.as_uri())
        page.evaluate("window.dpoBook?.bring?.()")  # those too that wait for a reader
        for widget in page.locator("[data-dpo-widget]:has(input[type=range])").all():
            times = sorted(widget.evaluate(REDRAW))
            name = widget.get_attribute("data-dpo-widget")
            late = times[int(0.95 * len(times))]
            yield Redraw(path.stem, name, statistics.median(times), late)
        page.close()


def main() -> None:
    """Print median and 95th percentile (ms) for each widget that has a slider."""
    book.build()
    with chromium(find_chromium) as browser:
        for row in measure_redraws(browser):
            print(f"{row.page:28} {row.widget:22} {row.median:5.1f} ms   95 %: {row.late:5.1f} ms")


if __name__ == "__main__":
    main()
