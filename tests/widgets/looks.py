"""What a widget must look like: axe finds nothing in both themes, and it fits a phone."""

from axe_playwright_python.sync_playwright import Axe

from dpo_lib.widgets import join

PHONE = 360
# What axe asks of whole pages, and a widget alone in a test's page cannot have.
OF_WHOLE_PAGES = {
    rule: {"enabled": False} for rule in ("region", "landmark-one-main", "page-has-heading-one")
}


def assert_accessible(page, rules=OF_WHOLE_PAGES):
    for theme in ("light", "dark"):
        page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
        results = Axe().run(page, options={"rules": rules})
        assert results.violations_count == 0, results.generate_report()


def colors_of(node, theme="light"):
    """The names of a node's color and background in the palette."""
    names = {rgb(color): name.removesuffix("-text") for name, color in join.palette(theme).items()}
    found = node.evaluate(
        "n => { const s = getComputedStyle(n); return [s.color, s.backgroundColor]; }"
    )
    return [names.get(color, color) for color in found]


def rgb(color):
    return f"rgb({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))})"


def assert_fits(page, width=PHONE):
    page.set_viewport_size({"width": width, "height": 800})
    # Drawings follow the width in the frame after it is known.
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
