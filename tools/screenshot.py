"""Take the README's picture from the built book.

python tools/screenshot.py    builds the book if needed and writes book/images/screenshot.png
"""

import argparse
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "book" / "images" / "screenshot.png"
PAGE = "notebooks/02_bradley_terry.html"
WIDGET = "[data-dpo-widget=score_sigmoid]"
SIZE = {"width": 1060, "height": 960}


def load(path: str) -> ModuleType:
    """Import a file of the project that is no module of a package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photograph(page_path: Path) -> bytes:
    """Return a PNG of the page, scrolled to its first widget, in the light theme."""
    browsers = load("tests/conftest.py")
    chromium = browsers.find_chromium()
    if chromium is None:
        raise SystemExit("error: Chromium is missing: run tools/system.sh chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=list(browsers.QUIET), chromium_sandbox=False
        )
        page = browser.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
        page.goto(page_path.as_uri())
        widget = page.locator(WIDGET).first
        widget.locator("input[type=range]").first.wait_for()
        page.evaluate("document.fonts.ready")
        page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")
        widget.evaluate("node => window.scrollTo(0, node.getBoundingClientRect().top - 130)")
        page.wait_for_timeout(500)  # the header hides itself while the page scrolls
        picture = page.screenshot()
        browser.close()
    return picture


def main() -> None:
    """Build the book, take the picture and store it."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    load("tools/book.py").build()
    picture = Image.open(io.BytesIO(photograph(ROOT / "_build" / "html" / PAGE))).convert("RGB")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    picture.save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
