"""Every page as a reader meets it: as a file at a desk and from a server on a phone, by keyboard,
with a screen reader.
"""

import re

import dpo_book
import pytest
from axe_playwright_python.sync_playwright import Axe

from dpo_lib import widgets
from tests.book.pages import EVERY_PAGE, HTML, PAGES, ROOT, faults_of_load, parsed
from tools.browser import Watch

# Bytes of one first page load, uncompressed, without fonts: of a chapter, of another page.
WEIGHT_LIMITS = {True: 1_500_000, False: 1_750_000}
LIVE_LIMIT = 10_000  # bytes of it that live widgets may bring
WIDGET_FILE = re.compile(r"_static/dpo-(?:widgets|near|preview|module|live)\b")
AXE_OPTIONS = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "resultTypes": ["violations"],
    "preload": False,  # it reads style sheets again, which a page from a file may not
}
EVERY_WIDGET = "window.dpoBook?.bring?.()"  # also those that wait until the reader comes near
OF_COLORS = ["color-contrast", "link-in-text-block"]  # all that a theme changes
# On a page of 8,000 words in color, axe spends nine tenths of its time on their contrast. Words
# whose letters and grounds are painted alike, on whatever page, have one contrast: three of them
# are tried, and three links of a kind. A single character tells axe nothing, so those are apart.
WAYS_OF_WORDS = """() => {
    const samples = (window.samples = new Map()), ofNode = new Map();
    const letters = (s) => [s.color, s.fill, s.fontSize, s.fontWeight, s.textShadow].join();
    const ground = (s) => [s.backgroundColor, s.backgroundImage, s.opacity, s.filter,
        s.mixBlendMode, s.position].join();
    const NOTHING = "rgba(0, 0, 0, 0),none,1,none,normal,static";
    const wayOf = (node) => {
        if (!node) return "";
        if (!ofNode.has(node)) {
            const above = wayOf(node.parentElement), style = getComputedStyle(node);
            const own = `${letters(style)},${ground(style)}`;
            const like = node.parentElement && letters(getComputedStyle(node.parentElement));
            ofNode.set(node, own === `${like},${NOTHING}` ? above : `${above}: ${own}`);
        }
        return ofNode.get(node);
    };
    for (const node of document.querySelectorAll("body *")) {
        const words = [...node.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE)
            .map((n) => n.data.trim()).join("");
        const link = node.matches("a[href]"), field = node.matches("input, select, textarea");
        node.removeAttribute("data-chosen");
        if (!(words || link || field)) continue;
        if (!node.checkVisibility({ visibilityProperty: true })) continue;
        const way = `${wayOf(node)} ${words.length > 1} ${link} ${field}`;
        if (!samples.has(way)) samples.set(way, []);
        if (samples.get(way).length < 3) samples.get(way).push(node);
    }
    return [...samples.keys()];
}"""
CHOOSE = """ways => ways.flatMap((way) => samples.get(way))
    .forEach((node) => node.setAttribute("data-chosen", ""))"""
PROVEN = set()  # ways of words of which axe has seen enough
# What draws a formula is hidden from screen readers and holds no text (glyphs are in the style
# sheet), so axe has nothing to say of it; it is a quarter of a page's elements. Its MathML stays.
WITHOUT_GLYPHS = "document.querySelectorAll('mjx-math').forEach((m) => m.replaceChildren())"
# Every word of code is an element, which says nothing but its color: three of each class stay.
WITHOUT_COLORS = """() => {
    const kept = new Map();
    for (const word of document.querySelectorAll(":is(pre, .sig) span:not([data-chosen])")) {
        if ([...word.attributes].some(({ name }) => name !== "class")) continue;
        kept.set(word.className, 1 + (kept.get(word.className) ?? 0));
        if (kept.get(word.className) > 3) word.replaceWith(...word.childNodes);
    }
    document.body.normalize();
}"""
# Blocks are isolated for speed, which changes no color; but axe does not see a faint word in one.
WITHOUT_ISOLATION = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("section > * { isolation: auto !important }");
  document.adoptedStyleSheets = [sheet];
}"""
AXE = Axe(
    Axe().axe_script
    + "; axe.configure({ rules: [{ id: 'color-contrast', selector: '[data-chosen]' },"
    "  { id: 'link-in-text-block', selector: 'a[href][data-chosen]' }] });"
)


def visits(names, *ways):
    """Parametrize a test by loads of pages, which it shares with the other tests of this file."""
    loads = [(name, *way) for name in names for way in ways]
    return pytest.mark.parametrize(
        "visit", loads, indirect=True, ids=lambda load: "-".join(map(str, load))
    )


AT_A_DESK, ON_A_PHONE = ("file", "light", 1280), ("http", "dark", 360)


@visits(EVERY_PAGE, ON_A_PHONE)
def test_a_first_load_is_light(visit):
    page, watch = visit
    watch.rest(page)
    name, weight = page.url.removeprefix(watch.base), watch.weight()
    assert sum(weight.values()) <= WEIGHT_LIMITS[name.startswith("notebooks/")], weight
    assert live_bytes(name, weight) <= LIVE_LIMIT, weight


def runs_something(kind):
    """Whether a widget loads parts: the engine, its weights, Python."""
    return bool(getattr(widgets, widgets.class_name(kind)).parts)


def live_bytes(name, weight):
    """Bytes of a page's first load that it would not have without the widgets that run a model.

    Bets and quizzes are text that is read, and count as text does.
    """
    placeholders = parsed(HTML / name).select("[data-dpo-widget]")
    kinds = {node["data-dpo-widget"] for node in placeholders}
    live = [node for node in placeholders if runs_something(node["data-dpo-widget"])]
    if not live:
        return 0
    others = {kind for kind in kinds if not runs_something(kind)}
    loaded = sum(size for file, size in weight.items() if WIDGET_FILE.match(file))
    without = sum(len(text.encode()) for text in dpo_book.first_files(others).values())
    return sum(len(str(node).encode()) for node in live) + loaded - without


@visits(EVERY_PAGE, ON_A_PHONE)
def test_a_phone_does_not_scroll_sideways(visit):
    page, _ = visit
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


@visits(PAGES, AT_A_DESK)
def test_meets_accessibility_rules(visit):
    page, _ = visit
    page.evaluate(EVERY_WIDGET)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    problems = broken_rules(page, AXE_OPTIONS)
    page.emulate_media(color_scheme="dark")
    page.locator("html[data-theme=dark]").wait_for()
    problems += broken_rules(page, AXE_OPTIONS | {"runOnly": OF_COLORS})
    assert problems == [], "\n" + "\n".join(problems)


def test_rules_of_colors_are_broken_in_the_dark_theme_alone(open_page):
    page = open_page("book/how_to_run.html")
    page.add_style_tag(content="html[data-theme=dark] article p { color: #333; }")
    assert broken_rules(page, AXE_OPTIONS) == []
    page.emulate_media(color_scheme="dark")
    page.locator("html[data-theme=dark]").wait_for()
    assert "color-contrast" in broken_rules(page, AXE_OPTIONS | {"runOnly": OF_COLORS})[0]


def test_one_word_among_many_of_its_kind_is_found(open_page):
    page = open_page("book/how_to_run.html")
    options = AXE_OPTIONS | {"runOnly": OF_COLORS}
    for kind in ("pre span", "article p"):
        words = page.locator(kind, has_text=re.compile(r"^\w{3}"))
        assert words.count() > 3
        for fault in ("color: #bbb", "opacity: 0.2", "background: #777"):
            words.last.evaluate(f"e => e.setAttribute('style', {fault!r})")
            problems = broken_rules(page, options)
            assert any(fault in problem for problem in problems), (kind, fault)
            words.last.evaluate("e => e.removeAttribute('style')")
    assert broken_rules(page, options) == []


def broken_rules(page, options):
    """What axe finds on a page as it stands."""
    # What opens fades in: half-way through, its colors are not those that a reader gets to see.
    page.evaluate(
        "document.getAnimations().forEach(a => { try { a.finish(); } catch { a.cancel(); } })"
    )
    page.evaluate(WITHOUT_GLYPHS)
    page.evaluate(WITHOUT_ISOLATION)
    ways = [way for way in page.evaluate(WAYS_OF_WORDS) if way not in PROVEN]
    page.evaluate(CHOOSE, ways)
    if options["runOnly"] != OF_COLORS:
        page.evaluate(WITHOUT_COLORS)
    elif not ways:
        return []
    broken = AXE.run(page, options=options).response["violations"]
    if not broken:
        PROVEN.update(ways)
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'].splitlines()[-1].strip()})"
        for rule in broken
        for node in rule["nodes"]
    ]


@visits(PAGES, AT_A_DESK)
def test_every_control_has_a_name_and_a_slider_moves_something(visit):
    page, _ = visit
    page.evaluate(EVERY_WIDGET)
    names = names_that_are_said(page, "article :is(input, button, select)")
    assert [markup for markup, name in names if not name] == []

    for slider in page.locator("article input[type=range]").all():
        widget = slider.locator("xpath=ancestor::*[@data-dpo-widget][1]")
        before = shown(widget)
        slider.focus()
        at_end = slider.evaluate("e => Number(e.value) >= Number(e.max)")
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
        # Words follow once the slider rests; before a first step some widgets change nothing else.
        for _ in range(100):
            if shown(widget) != before:
                break
            page.wait_for_timeout(20)
        assert shown(widget) != before, slider.evaluate("e => `nothing moves by ${e.outerHTML}`")


def test_a_wide_box_is_a_stop_for_the_keyboard_only_while_it_scrolls(browser):
    script = (ROOT / "book" / "_static" / "book.js").read_text(encoding="utf-8")
    boxes = "".join(
        f'<div class="{name}" style="overflow: auto; width: 50vw">'
        f'<p style="width: {width}px">wide</p></div>'
        for name in ("dpo-figure", "math")
        for width in (200, 400)
    )
    page = browser.new_page(viewport={"width": 1000, "height": 600})
    page.set_content(f"{boxes}<script>{script}</script>")
    stops = "[...document.querySelectorAll('div')].map((box) => box.tabIndex).join() == "
    for width, wanted in ((1000, "-1,-1,-1,-1"), (600, "-1,0,-1,0"), (1000, "-1,-1,-1,-1")):
        page.set_viewport_size({"width": width, "height": 600})
        page.wait_for_function(f"{stops} '{wanted}'", timeout=5000)
    page.close()


def test_a_formula_is_a_stop_as_soon_as_it_is_set_too_wide(browser):
    script = (ROOT / "book" / "_static" / "book.js").read_text(encoding="utf-8")
    page = browser.new_page()
    page.set_content(
        '<div class="math" style="overflow: auto; width: 300px"><p>short</p></div><script>'
        "MathJax = { startup: { promise: new Promise((set) => { window.set = set; }) } };"
        f"{script}</script>"
    )
    stop = "document.querySelector('div').tabIndex"
    assert page.evaluate(stop) == -1
    page.evaluate("document.querySelector('p').style.width = '400px'")
    assert page.evaluate(stop) == -1
    page.evaluate("window.set()")
    page.wait_for_function(f"{stop} == 0", timeout=5000)
    page.close()


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_finds_pages(open_page, site, scheme):
    watch = Watch(site[scheme])
    page = open_page("search.html?q=sigmoid", scheme, watch)
    page.locator("#search-results li a").first.wait_for(timeout=10_000)
    assert watch.problems() == []


# Last, so that what a page does a moment later has been done.
@visits(EVERY_PAGE, AT_A_DESK, ON_A_PHONE)
def test_loads_without_errors_or_outside_requests(visit):
    assert faults_of_load(*visit) == []


def names_that_are_said(page, selector):
    """Of each shown element the markup and the name that a screen reader says, by Chromium."""
    page.locator(selector).evaluate_all(
        """all => all.forEach((e) => {
            const seen = e.checkVisibility({ visibilityProperty: true });
            e.dataset.asked = seen ? e.outerHTML : "";
        })"""
    )
    session = page.context.new_cdp_session(page)
    root = session.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
    wanted = {"nodeId": root, "selector": "[data-asked]:not([data-asked=''])"}
    found = []
    for node in session.send("DOM.querySelectorAll", wanted)["nodeIds"]:
        # One by one: the tree of a whole page takes seconds.
        asked = {"nodeId": node, "fetchRelatives": False}
        said = session.send("Accessibility.getPartialAXTree", asked)["nodes"][0]
        name = "" if said["ignored"] else said.get("name", {}).get("value", "")
        attributes = session.send("DOM.getAttributes", {"nodeId": node})["attributes"]
        markup = attributes[attributes.index("data-asked") + 1]
        found.append((markup[:160], name.strip()))
    session.detach()
    return found


def shown(widget):
    """What a widget draws and reads out, its controls left out."""
    return widget.evaluate(
        """(e) => {
            const copy = e.cloneNode(true);
            copy.querySelectorAll(".dpo-controls, input, output").forEach((c) => c.remove());
            return copy.innerHTML;
        }"""
    )
