"""Measure how long the book's widgets take to redraw: `make redraw`. A frame lasts 16 ms.

python tools/redraw.py    builds the book if needed and prints a line for each widget
"""

import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import sync_playwright  # noqa: E402

from tests.conftest import QUIET, find_chromium  # noqa: E402
from tools import book  # noqa: E402

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


def main() -> None:
    """Print median and 95th percentile (ms) for each widget that has a slider."""
    book.build()
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("error: Chromium is missing: run tools/system.sh chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=list(QUIET), chromium_sandbox=False
        )
        for path in sorted((book.HTML / "notebooks").glob("*.html")):
            page = browser.new_page()
            page.goto(path.as_uri())
            for widget in page.locator("[data-dpo-widget]:has(input[type=range])").all():
                times = sorted(widget.evaluate(REDRAW))
                name = widget.get_attribute("data-dpo-widget")
                late = times[int(0.95 * len(times))]
                median = statistics.median(times)
                print(f"{path.stem:28} {name:22} {median:5.1f} ms   95 %: {late:5.1f} ms")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
