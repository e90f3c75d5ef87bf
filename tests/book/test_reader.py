"""Every page as a reader meets it: on a phone, by keyboard, with a screen reader."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.book.pages import EVERY_PAGE, PAGES

AXE_OPTIONS = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "resultTypes": ["violations"],
}
# What a theme changes: it has colors only, and on a page they take axe most of its time.
OF_COLORS = ["color-contrast", "link-in-text-block"]
EVERY_WIDGET = "window.dpoBook?.bring?.()"  # also those that wait until the reader comes near


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_a_phone_does_not_scroll_sideways(open_page, name):
    page = open_page(name, width=360, height=740)
    page.evaluate(EVERY_WIDGET)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.locator("button.toggle-button").evaluate_all("all => all.forEach(b => b.click())")
    page.evaluate("new Promise(requestAnimationFrame)")
    widths = page.evaluate(
        "[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
    )
    too_wide = page.evaluate(
        """() => [...document.querySelectorAll('main *')]
            .filter((e) => e.getBoundingClientRect().right > 361
                && !e.closest('.dpo-figure, pre, .math, .pst-scrollable-table-container, .output'))
            .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert max(widths) <= 360, too_wide[:5]


@pytest.mark.parametrize("name", PAGES)
def test_meets_accessibility_rules(open_page, name):
    page = open_page(name)
    page.evaluate(EVERY_WIDGET)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    problems = broken_rules(page, AXE_OPTIONS)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    problems += broken_rules(page, AXE_OPTIONS | {"runOnly": OF_COLORS})
    assert problems == [], "\n" + "\n".join(problems)


def test_rules_of_colors_are_broken_in_the_dark_theme_alone(open_page):
    page = open_page("book/how_to_run.html")
    page.add_style_tag(content="html[data-theme=dark] article p { color: #333; }")
    assert broken_rules(page, AXE_OPTIONS) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert "color-contrast" in broken_rules(page, AXE_OPTIONS | {"runOnly": OF_COLORS})[0]


def broken_rules(page, options):
    """What axe finds on a page as it stands."""
    # What opens fades in: half-way through, its colors are not those that a reader gets to see.
    page.evaluate(
        "document.getAnimations().forEach(a => { try { a.finish(); } catch { a.cancel(); } })"
    )
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'].splitlines()[-1].strip()})"
        for rule in Axe().run(page, options=options).response["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_every_control_has_a_name_and_a_slider_moves_something(open_page, name):
    page = open_page(name)
    page.evaluate(EVERY_WIDGET)
    controls = page.locator("article").locator("input, button, select").filter(visible=True)
    for control in controls.all():
        markup = control.evaluate("e => e.outerHTML.slice(0, 160)")
        assert accessible_name(page, control), f"no accessible name: {markup}"

    for slider in page.locator("article input[type=range]").all():
        widget = slider.locator("xpath=ancestor::*[@data-dpo-widget][1]")
        before = shown(widget)
        slider.focus()
        at_end = slider.evaluate("e => Number(e.value) >= Number(e.max)")
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
        page.evaluate("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
        label = accessible_name(page, slider)
        assert shown(widget) != before, f"the slider {label!r} moves nothing"


def accessible_name(page, element):
    """The name that a screen reader says, as Chromium computes it."""
    session = page.context.new_cdp_session(page)
    try:
        handle = element.evaluate_handle("e => { window.__named = e; return e; }")
        found = session.send("Runtime.evaluate", {"expression": "window.__named"})
        node = session.send(
            "Accessibility.getPartialAXTree",
            {"objectId": found["result"]["objectId"], "fetchRelatives": False},
        )["nodes"][0]
        handle.dispose()
        return node.get("name", {}).get("value", "").strip()
    finally:
        session.detach()


def shown(widget):
    """What a widget draws and reads out, its controls left out."""
    return widget.evaluate(
        """(e) => {
            const copy = e.cloneNode(true);
            copy.querySelectorAll(".dpo-controls, input, output").forEach((c) => c.remove());
            return copy.innerHTML;
        }"""
    )
