"""The model that lives in a page: how long its updates take, and how the page answers meanwhile.

python -m tools.bench_live    writes live.json into dpo_lib/benchmarks/results/KIND
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_lib.benchmarks.machine import RESULTS, describe, kind
from dpo_lib.experiments.store import store
from dpo_lib.widgets import join, live
from dpo_lib.world import load_pairs
from tools import book
from tools.browser import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BATCHES = (32, 8)  # pairs an update
UPDATES, WARM_UP = 40, 10
KEYS = 60
PAGE = "notebooks/10_full_implementation.html"
WIDGET = "[data-dpo-widget=train_it_yourself]"
ENGINE = join.classic(
    "live/worker.js",
    "self.live = { ...module_live_tiny_gpt, ...module_live_training, ...module_live_world };",
)
# Milliseconds of each DPO update on one batch, the first ones left out.
MEASURE_UPDATES = """([model, words, texts, updates, warmUp]) => {
  const bytes = Uint8Array.from(atob(model.weights), (c) => c.charCodeAt(0));
  const policy = new live.TinyGPT(model, Float64Array.from(new Float32Array(bytes.buffer)));
  const tokenizer = new live.WordTokenizer(words);
  const pairs = texts.map(([prompt, ...both]) =>
    [tokenizer.encode(prompt), ...both.map((text) => tokenizer.encodeResponse(text))]);
  const reference = live.pairLogProbs(policy, pairs);
  const optimizer = new live.Adam(policy, 2e-4);
  const times = [];
  for (let i = 0; i < warmUp + updates; i++) {
    const start = performance.now();
    live.trainingStep(policy, optimizer, pairs, reference, live.LOSSES.dpo, 1);
    times.push(performance.now() - start);
  }
  return times.slice(warmUp);
}"""
# Of each key press on the slider: from its time stamp to the end of the frame that shows it, and
# the page's part of that, without the wait for the frame: up to 17 ms on a screen of 60 Hz.
WATCH_KEYS = """(slider) => {
  self.answered = [];
  slider.addEventListener("input", ({ timeStamp }) => {
    requestAnimationFrame((begun) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        const now = performance.now();
        self.answered.push([now - timeStamp, now - Math.max(begun, timeStamp)]);
      };
      port2.postMessage(null);
    });
  });
}"""


def measure(browser: Browser) -> list[dict[str, Any]]:
    """Times of updates by the number of pairs, and of key presses while a run goes on."""
    page = browser.new_page()
    page.add_script_tag(content=ENGINE)
    rows = [_updates(page, size) for size in BATCHES]
    page.close()
    page = browser.new_page()
    page.goto((book.HTML / PAGE).as_uri())
    rows.append(_keys(page))
    page.close()
    return rows


def _updates(page: Page, size: int) -> dict[str, Any]:
    texts = [[pair.prompt, pair.first, pair.second] for pair in load_pairs()[:: 792 // size][:size]]
    settings = [live.model(), live.world()["words"], texts, UPDATES, WARM_UP]
    times = page.evaluate(MEASURE_UPDATES, settings)
    return {"what": "update", "pairs": size, "median_ms": statistics.median(times)}


def _keys(page: Page) -> dict[str, Any]:
    page.evaluate("dpoBook.bring()")
    widget = page.locator(WIDGET)
    widget.get_by_role("button", name="Play").click()
    running = widget.locator(".dpo-status", has_text="10 updates")
    running.wait_for()
    slider = widget.get_by_role("slider", name="β")
    slider.evaluate(WATCH_KEYS)
    slider.focus()
    for number in range(KEYS):
        page.keyboard.press("ArrowLeft" if number % 2 == 0 else "ArrowRight")
        page.wait_for_timeout(37)  # no multiple of a frame
    times, own = (sorted(column) for column in zip(*page.evaluate("answered"), strict=True))
    if widget.get_by_role("button", name="Pause").count() != 1 or len(times) < KEYS:
        raise SystemExit(f"error: the run ended before {KEYS} keys were pressed")
    late, own_late = (column[int(0.95 * len(column))] for column in (times, own))
    median = statistics.median(times)
    return {"what": "key", "median_ms": median, "late_ms": late, "own_late_ms": own_late}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / kind(), help="folder of the results")
    options = parser.parse_args(arguments)
    book.build()
    with chromium(find_chromium) as browser:
        settings = {"machine": describe(1), "browser": browser.version}
        rows = measure(browser)
    print(store("live", settings, rows, options.out), file=sys.stderr)


if __name__ == "__main__":
    main()
