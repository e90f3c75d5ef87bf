"""Take the README's picture from the built book.

python -m tools.screenshot    builds the book if needed and writes book/images/screenshot.png
"""

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

from tools import book
from tools.browser import chromium, find_chromium

PICTURE = book.ROOT / "book" / "images" / "screenshot.png"
PAGE = "notebooks/02_bradley_terry.html"
WIDGET = "[data-dpo-widget=score_sigmoid]"
SIZE = {"width": 1060, "height": 960}


def photograph(page_path: Path) -> bytes:
    """Return a PNG of the page, scrolled to its first widget, in the light theme."""
    with chromium(find_chromium) as browser:
        page = browser.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
        page.goto(page_path.as_uri())
        widget = page.locator(WIDGET).first
        widget.locator("input[type=range]").first.wait_for()
        page.evaluate("document.fonts.ready")
        page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")
        widget.evaluate("node => window.scrollTo(0, node.getBoundingClientRect().top - 130)")
        page.wait_for_timeout(500)  # the header hides itself while the page scrolls
        return page.screenshot()


def main() -> None:
    """Build the book, take the picture and store it."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    book.build()
    picture = Image.open(io.BytesIO(photograph(book.HTML / PAGE))).convert("RGB")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    picture.save(PICTURE, optimize=True)
    name, size = PICTURE.relative_to(book.ROOT), PICTURE.stat().st_size
    print(f"{name}: {size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
