"""The book's own Sphinx extension.

1. Widgets: gives each page with a widget one classic script, joined from the browser modules of
   ``dpo_lib.widgets`` that it needs, or the small one that loads them when the reader comes near.
   The widgets' palette is the whole book's. The directive ``{widget} ThreeClicks`` puts one on a
   page that is no notebook.
2. Figures: puts SVG images into the page itself, so that their text can be read out and their
   colors follow the light and the dark theme. An image without alternative text is a warning,
   and so fails the build.
3. Numbers: a chapter's number is the one in its file's name.
4. Boxes: gives the boxes that every chapter has a class by their title.
5. Lines: keeps a formula and the punctuation around it on one line.
6. Weight: empties the theme's 1.5 MB ``fontawesome.js``, as the web font already draws the icons;
   leaves the files of sphinx-design off the pages that do not use it.
7. Safety: gives each page a Content-Security-Policy, under which it asks no other host for anything
   and runs no script but the book's.
8. Storage: moves the theme's script that asks for storage behind those that come as files.
9. Time: names the plugin that each citation asks for, which is else looked for in all packages.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from pybtex.backends import plaintext
from pybtex.plugin import register_plugin
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles

from dpo_lib import widgets
from dpo_lib.figures import PALETTE
from dpo_lib.widgets import join, live

logger = logging.getLogger(__name__)

WIDGET = re.compile(r'data-dpo-widget="(\w+)"')
DESIGN = re.compile(r'class="[^"]*\bsd-')  # grids, cards and tabs of sphinx-design
DESIGN_FILE = re.compile(r"sphinx-design|design-tabs")
LOADS = {kind: getattr(widgets, widgets.class_name(kind)).load for kind in widgets.kinds()}
LATER = {kind: load for kind, load in LOADS.items() if load != "page"}
WIDGET_STYLES = "dpo-widgets.css"  # near.js has this name too, and those of modules
PALETTE_STYLES = "dpo-palette.css"
BOX_CLASSES = {"A closer look": "dpo-closer-look", "Before you start": "dpo-before-you-start"}
ICON_SCRIPT = "scripts/fontawesome.js"
ICON_STYLE = "styles/pydata-sphinx-theme.css"
ICON_NAME = re.compile(r"\bfa-[a-z0-9-]+")
ICON_RULE = re.compile(r'(?:\.fa-[a-z0-9-]+:before,?)+\{content:"[^"]*"\}')

# From a file, 'self' is every file. Workers and MicroPython are Blobs; its WebAssembly is a data
# address. MathJax, figures and the theme style elements in place, which no hash can name. Links to
# other hosts stay links: a policy has no word for them.
POLICY = (
    "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval' 'unsafe-hashes' {hashes}; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src data:; "
    "worker-src blob:; form-action 'self'; base-uri 'none'"
)
POLICY_TAG = '<meta http-equiv="Content-Security-Policy" content="{policy}" />'
INLINE_SCRIPT = re.compile(r"<script(?![^>]*(?:\bsrc=|/json))[^>]*>(.*?)</script>", re.DOTALL)
STORED_THEME = re.compile(r'<script data-cfasync="false">.*?</script>\s*', re.DOTALL)
HANDLER = re.compile(r'<[a-z][^<>]*\son[a-z]+="([^"]*)"')

REPEATED_IDS = ("exercise-content", "solution-content", "proof-content")

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
REFERENCE_TO_ID = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
OPENING = re.compile(r"[(\[‘“]+$")
CLOSING = re.compile(r"[,.;:?!)\]’”]+")
COLOR = re.compile("|".join(PALETTE.values()), re.IGNORECASE)
COLOR_NAME = {color.lower(): name for name, color in PALETTE.items()}
LONG_PATH = 400  # characters; shorter ones may be marks of a point's size
DECIMALS = re.compile(r"-?\d+\.\d\d+")
PIXELS = {"": 1.0, "px": 1.0, "pt": 96 / 72, "in": 96.0, "mm": 96 / 25.4, "cm": 96 / 2.54}


# --- widgets ---------------------------------------------------------------------------------


def write_static(app: Sphinx, name: str, text: str) -> None:
    """Write one of the book's static files."""
    path = Path(app.outdir) / "_static" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_files(app: Sphinx) -> None:
    """Write the palette, the widgets' styles, and what pages load to run the model in them."""
    for name in live.PARTS:
        write_static(app, live.part_file(name), live.part_script(name))
    write_static(app, PALETTE_STYLES, join.theme_css())
    write_static(app, WIDGET_STYLES, first_files({*LOADS})[WIDGET_STYLES])
    for name in dict.fromkeys(name for kind in LATER for name in join.module_names(kind)):
        write_static(app, f"dpo-{name}.js", join.module_script(name))
        if rules := join.module_css(name):
            write_static(app, f"dpo-{name}.css", rules)


class Widget(SphinxDirective):
    """A widget with its default values, by the name of its class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the placeholder that a notebook's output would hold."""
        widget = getattr(widgets, self.arguments[0])
        spec = widget.build_spec()
        return [nodes.raw("", widget.static_html(spec), format="html")]


def first_files(kinds: set[str]) -> dict[str, str]:
    """Return the files, by name, that a page with these kinds of widgets loads at first."""
    files = {}
    if with_page := sorted(kind for kind in kinds if kind not in LATER):
        files[f"dpo-widgets-{'-'.join(with_page)}.js"] = join.static_script(with_page)
        files[WIDGET_STYLES] = join.widget_css(kind for kind in LOADS if kind not in LATER)
    if later := {kind: LATER[kind] for kind in sorted(kinds & {*LATER})}:
        files[f"dpo-near-{'-'.join(later)}.js"] = join.near_script(later)
    for kind in sorted(kind for kind in kinds if LOADS[kind] == "use"):
        files[f"dpo-preview-{kind}.css"] = join.preview_css(kind)
    return files


def finish_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give a page the script of the widgets that it shows, take away what it does not use."""
    body = context.get("body", "")
    # docutils gives entries of a bibliography a role that ARIA has since withdrawn.
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')
    if not DESIGN.search(body):
        for files in ("css_files", "script_files"):
            # In place: what is added below goes to this same list.
            context[files][:] = [
                file for file in context[files] if not DESIGN_FILE.search(str(file.filename))
            ]
    for name, text in first_files({*WIDGET.findall(body)}).items():
        write_static(app, name, text)
        if name.endswith(".css"):
            app.add_css_file(name)
        else:
            app.add_js_file(name, loading_method="defer")


# --- figures ---------------------------------------------------------------------------------


def themed(text: str) -> str:
    """Replace each color of the palette by the CSS variable of its name."""
    return COLOR.sub(lambda m: f"var(--dpo-{COLOR_NAME[m[0].lower()]}, {m[0]})", text)


def pixels(length: str) -> float:
    """Return an SVG length such as ``468pt`` in CSS pixels."""
    match = re.fullmatch(r"([\d.]+)(\w*)", length.strip())
    if match is None or match[2] not in PIXELS:
        raise ValueError(f"cannot read the SVG length {length!r}")
    return float(match[1]) * PIXELS[match[2]]


def name_styles(root: ElementTree.Element, prefix: str) -> None:
    """Write each style that is used more than twice once, as a class of this figure."""
    count = Counter(element.get("style") for element in root.iter())
    often = [style for style, times in count.items() if style and times > 2]
    names = {style: f"s{number}" for number, style in enumerate(often)}
    for element in root.iter():
        if element.get("style") in names and "class" not in element.attrib:
            element.set("class", names[element.attrib.pop("style")])
    if names:
        sheet = ElementTree.Element("style")
        rules = " ".join(f".{name} {{ {style} }}" for style, name in names.items())
        sheet.text = f"#{prefix} {{ {rules} }}"
        root.insert(0, sheet)


def inline_svg(source: str, alt: str, prefix: str) -> str:
    """Turn an SVG file into an element of the page, named by its alternative text.

    Ids get a prefix, so that several figures can stand on one page; styles apply to this
    figure alone; the drawing shrinks with the page but never grows.
    """
    root = ElementTree.fromstring(source)
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{{{SVG}}}metadata":
                parent.remove(child)

    used: dict[str, str] = {}  # old id: new id
    for element in root.iter():
        for value in element.attrib.values():
            for a, b in REFERENCE_TO_ID.findall(value):
                used.setdefault(a or b, f"{prefix}-{len(used)}")

    def renamed(value: str) -> str:
        return REFERENCE_TO_ID.sub(
            lambda m: f"url(#{used[m[1]]})" if m[1] else f"#{used[m[2]]}", value
        )

    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        if element.tag == "style":
            # An SVG's style element would apply to the whole page: nest its rules in the figure.
            element.text = f"#{prefix} {{ {themed(element.text or '')} }}"
        name = element.attrib.pop("id", None)
        href = element.attrib.pop(XLINK, None)
        for key, value in element.attrib.items():
            element.set(key, themed(renamed(value)))
        if len(element.get("d", "")) > LONG_PATH:
            element.set("d", DECIMALS.sub(lambda m: f"{float(m[0]):.1f}", element.get("d")))
        if name in used:
            element.set("id", used[name])
        if href is not None:
            element.set("href", renamed(href))

    width, height = root.attrib.pop("width", None), root.attrib.pop("height", None)
    if "viewBox" not in root.attrib:
        if width is None or height is None:
            raise ValueError("the SVG has neither a viewBox nor a width and a height")
        root.set("viewBox", f"0 0 {pixels(width):g} {pixels(height):g}")
    if width is None or "%" in width:
        width = root.attrib["viewBox"].split()[2]
    style = root.attrib.pop("style", "")
    name_styles(root, prefix)
    size = f"{pixels(width):g}px"
    root.set("style", f"--dpo-width: {size}; width: {size}; {style}".strip())
    root.set("id", prefix)
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def inline_figures(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Check that every image has alternative text, and put SVG images into the page."""
    if app.builder.format != "html":
        return
    for number, image in enumerate(list(doctree.findall(nodes.image)), start=1):
        alt = " ".join(image.get("alt", "").split())
        if not alt:
            logger.warning("image without alternative text: %s", image["uri"], location=image)
            continue
        path = Path(app.srcdir) / image["uri"]
        if path.suffix != ".svg" or not path.is_file():
            continue
        svg = inline_svg(path.read_text(encoding="utf-8"), alt, f"drawing-{number}")
        classes = html.escape(" ".join(["dpo-figure", *image.get("classes", [])]))
        image.replace_self(
            nodes.raw("", f'<span class="{classes}">{svg}</span>', format="html"),
        )


# --- numbers ---------------------------------------------------------------------------------


def number_chapters_by_name() -> None:
    """Let ``notebooks/03_….ipynb`` be chapter 3, whatever chapters stand before it in the book.

    Sphinx counts the chapters that it finds. Its figures and equations take their numbers from
    the chapters' right after those are assigned, so the change has to happen in that step.
    """
    assign = TocTreeCollectorWithStyles.assign_section_numbers

    def assign_by_name(self: TocTreeCollectorWithStyles, env: BuildEnvironment) -> list[str]:
        changed = assign(self, env)
        for docname, numbers in env.toc_secnumbers.items():
            match = re.match(r"notebooks/(\d+)_", docname)
            if match is None:
                continue
            chapter = int(match[1])
            for anchor, number in numbers.items():
                numbers[anchor] = (chapter, *number[1:]) if number else number
            titles = [env.titles[docname], *env.tocs[docname].findall(nodes.reference)]
            for title in titles:
                if title.get("secnumber"):
                    title["secnumber"] = [chapter, *title["secnumber"][1:]]
        return changed

    TocTreeCollectorWithStyles.assign_section_numbers = assign_by_name


def number_appendix_figures() -> None:
    """Let the figures of ``book/appendices/a_….ipynb`` be A.1, A.2, … (tables, equations too)."""
    assign = TocTreeCollectorWithStyles.assign_figure_numbers

    def assign_with_letter(self: TocTreeCollectorWithStyles, env: BuildEnvironment) -> list[str]:
        before = {name: env.toc_fignumbers.get(name) for name in env.toc_fignumbers}
        assign(self, env)
        for docname, kinds in env.toc_fignumbers.items():
            if match := re.match(r"book/appendices/([a-z])_", docname):
                letter = match[1].upper()
                for numbers in kinds.values():
                    for count, anchor in enumerate(numbers, 1):
                        numbers[anchor] = (letter, count)
        return [name for name, kinds in env.toc_fignumbers.items() if before.get(name) != kinds]

    TocTreeCollectorWithStyles.assign_figure_numbers = assign_with_letter


# --- boxes -----------------------------------------------------------------------------------


def name_boxes(app: Sphinx, doctree: nodes.document) -> None:
    """Give each box whose title starts in a known way its class."""
    for box in doctree.findall(nodes.admonition):
        for title, name in BOX_CLASSES.items():
            if box[0].astext().startswith(title):
                box["classes"] = [name]


def drop_repeated_ids(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Drop the ids that sphinx-exercise gives to every exercise and solution of a page."""
    for section in doctree.findall(nodes.section):
        section["ids"] = [i for i in section["ids"] if i not in REPEATED_IDS]


# --- lines -----------------------------------------------------------------------------------


def keep_punctuation(app: Sphinx, doctree: nodes.document) -> None:
    """Hold a formula and the punctuation around it together: browsers would break between them."""
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        place = parent.index(formula)
        before = parent[place - 1] if place else None
        after = parent[place + 1] if place + 1 < len(parent) else None
        opens = OPENING.search(before) if isinstance(before, nodes.Text) else None
        closes = CLOSING.match(after) if isinstance(after, nodes.Text) else None
        if not (opens or closes):
            continue
        held = nodes.inline("", "", formula, classes=["dpo-nobreak"])
        parent[place] = held
        if opens:
            held.insert(0, nodes.Text(opens[0]))
            parent[place - 1] = nodes.Text(before[: opens.start()])
        if closes:
            held.append(nodes.Text(closes[0]))
            parent[place + 1] = nodes.Text(after[closes.end() :])


# --- weight ----------------------------------------------------------------------------------


def only_icons_in_use(app: Sphinx, exception: Exception | None) -> None:
    """After the build, empty the theme's icon script and drop the icons that no page shows.

    The icons come from its web font; the style sheet names some two thousand.
    """
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    script, style = static / ICON_SCRIPT, static / ICON_STYLE
    if not script.is_file():
        raise FileNotFoundError(f"no {ICON_SCRIPT} in the theme: look at its icons again")
    script.write_text("/* emptied: the web font draws the icons */\n", encoding="utf-8")
    shown = [*Path(app.outdir).rglob("*.html"), *static.rglob("*.js")]
    in_use = {name for file in shown for name in ICON_NAME.findall(file.read_text("utf-8"))}
    rules = style.read_text("utf-8")
    kept = ICON_RULE.sub(
        lambda rule: rule[0] if in_use & set(ICON_NAME.findall(rule[0])) else "", rules
    )
    style.write_text(kept, encoding="utf-8")


# --- safety ----------------------------------------------------------------------------------


def policy_tag(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own inline scripts are named by hash."""
    scripts = [*INLINE_SCRIPT.findall(page), *map(html.unescape, HANDLER.findall(page))]
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    named = " ".join(f"'sha256-{value}'" for value in dict.fromkeys(hashes))
    return POLICY_TAG.format(policy=POLICY.format(hashes=named))


def storage_later(page: str) -> str:
    """Move the script that reads the reader's theme to the end of the page's head.

    Where it is the first that runs it may ask before Chromium knows which page asks. One page from
    a file in some 300 then had a storage that went with it, and all that its reader did.
    """
    script = STORED_THEME.search(page)
    if script is None:
        return page
    return page.replace(script[0], "", 1).replace("</head>", f"{script[0].strip()}\n</head>", 1)


def finish_heads(app: Sphinx, exception: Exception | None) -> None:
    """After the build, see to each head; the policy comes first and holds for what follows."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"  # which has templates of the theme
    for file in Path(app.outdir).rglob("*.html"):
        if not file.is_relative_to(static):
            page = storage_later(file.read_text("utf-8"))
            head = page.find("<head>") + len("<head>") if "<head>" in page else 0
            file.write_text(f"{page[:head]}{policy_tag(page)}{page[head:]}", encoding="utf-8")


# --- time ------------------------------------------------------------------------------------


def name_citation_plugin() -> None:
    """Tell pybtex of the plugin for plain text: it reads the files of all packages to find one."""
    register_plugin("pybtex.backends", "plaintext", plaintext.Backend, force=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    number_chapters_by_name()
    number_appendix_figures()
    name_citation_plugin()
    app.add_directive("widget", Widget)
    app.connect("builder-inited", write_files)
    app.connect("html-page-context", finish_page)
    app.add_css_file(PALETTE_STYLES, priority=400)
    app.connect("doctree-read", name_boxes)
    app.connect("doctree-read", keep_punctuation)
    app.connect("doctree-resolved", drop_repeated_ids)
    app.connect("doctree-resolved", inline_figures)
    app.connect("build-finished", only_icons_in_use)
    app.connect("build-finished", finish_heads, priority=900)  # after the redirect is written
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
