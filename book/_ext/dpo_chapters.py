"""The ten chapters as the book's other pages point to them.

1. The role ``{chapter}`2` `` (or ``{chapter}`its name <2>` ``) links to a chapter once it is in the
   book, and is plain text until then. Nothing has to be edited when a chapter is added.
2. The directive ``{derivation-map}`` draws what each chapter adds to the formula.
3. The directive ``{dpo-formula}`` draws the whole formula; each symbol leads to its chapter.

Formulas are set by Matplotlib at build time and drawn as outlines, so that they look the same
everywhere; their colors are the palette's CSS variables, which follow the theme.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import ReferenceRole, SphinxDirective
from sphinx.util.typing import ExtensionMetadata

POLICY, REFERENCE = r"\pi_\theta", r"\pi_{\mathrm{ref}}"
COLORS = {
    REFERENCE: "reference",
    POLICY: "policy",
    "y_w": "chosen",
    "y_l": "rejected",
    "r_w": "chosen",
    "r_l": "rejected",
}


@dataclass(frozen=True)
class Station:
    """One chapter on the map."""

    title: str
    tex: str  # the formula as the chapter leaves it
    new: tuple[str, ...]  # the parts of it that the chapter adds
    says: str  # the same for a screen reader
    struck: bool = False  # crossed out: the chapter shows where it fails


STATIONS = (
    Station(
        "The alignment problem",
        r"y_w \succ y_l\;\mid\;x",
        (r"y_w \succ y_l\;\mid\;x",),
        "a prompt, two answers, and a judgement of which is better",
    ),
    Station(
        "From scores to probabilities",
        r"P(y_w \succ y_l) =\,\sigma(r_w - r_l)",
        (r"\sigma",),
        "the sigmoid of a difference of scores",
    ),
    Station(
        "From probability to a loss",
        r"\mathcal{L} = -\log\,\sigma(r_w - r_l)",
        (r"-\log",),
        "the negative logarithm",
    ),
    Station(
        "A naive reward",
        rf"r(x,y) =\,\log\,{POLICY}(y\mid x)",
        (rf"\log\,{POLICY}(y\mid x)",),
        "the policy's log-probability as the score",
    ),
    Station(
        "Sequence log-probabilities",
        rf"\log\,{POLICY}(y\mid x) =\,\sum_t\,\log\,{POLICY}(y_t\mid x,y_{{<t}})",
        (r"\sum_t",),
        "the sum over tokens",
    ),
    Station(
        "The failure of naivety",
        rf"r(x,y) = \log\,{POLICY}(y\mid x)",
        (),
        "where the naive reward fails",
        struck=True,
    ),
    Station(
        "The reference model",
        rf"\log\,\dfrac{{{POLICY}(y\mid x)}}{{{REFERENCE}(y\mid x)}}",
        (rf"{REFERENCE}(y\mid x)",),
        "the frozen reference model, to compare with",
    ),
    Station(
        "The DPO reward",
        rf"\hat{{r}}_\theta(x,y) =\,\beta\,\log\,\dfrac{{{POLICY}(y\mid x)}}"
        rf"{{{REFERENCE}(y\mid x)}}",
        (r"\beta",),
        "beta, the scale that makes the log-ratio a reward",
    ),
    Station(
        "Assembling the loss",
        r"\mathcal{L} = -\log\,\sigma(\hat{r}_\theta(x,y_w) - \hat{r}_\theta(x,y_l))",
        (r"\hat{r}_\theta(x,y_w)", r"\hat{r}_\theta(x,y_l)"),
        "both rewards put into the loss: the DPO loss",
    ),
    Station(
        "A full implementation",
        r"\theta \leftarrow \theta - \eta\,\,\nabla_\theta\,\mathcal{L}",
        (r"\nabla_\theta\,\mathcal{L}",),
        "the training step that follows its gradient",
    ),
)

# The whole formula, one line where there is room and three where there is not.
_LEFT = r"\mathcal{L}_{\mathrm{DPO}}(\theta) = -\,\mathrm{E}_{(x,\,y_w,\,y_l)}\,\log\,\sigma"
_TERM = r"\beta\,\log\,\dfrac{{\pi_\theta(y_{0}\mid x)}}{{\pi_{{\mathrm{{ref}}}}(y_{0}\mid x)}}"
_WINNER, _LOSER = _TERM.format("w"), _TERM.format("l")
WIDE_LINES = (rf"{_LEFT}\left({_WINNER}\;-\;{_LOSER}\right)",)
NARROW_LINES = (rf"{_LEFT}\,(", rf"{_WINNER}", rf"-\;{_LOSER}\;)")
SYMBOLS = (  # part of the formula, its chapter, its name
    (r"(x,\,y_w,\,y_l)", 1, "a prompt, the chosen and the rejected answer"),
    (r"\sigma", 2, "the sigmoid"),
    (r"\log\,\sigma", 3, "the logarithm of the probability"),  # less σ, which is taken
    (POLICY, 4, "the policy"),
    (REFERENCE, 7, "the reference model"),
    (r"\beta", 8, "beta"),
    (r"\mathcal{L}_{\mathrm{DPO}}", 9, "the loss"),
    (r"(\theta)", 10, "the parameters, which the training step moves"),
)
SPOKEN = (
    "The DPO loss of theta is minus the mean, over triples of a prompt x, a chosen answer y w and "
    "a rejected answer y l, of the log of the sigmoid of: beta times the log of the policy's over "
    "the reference's probability of y w, minus the same for y l."
)


# --- links -------------------------------------------------------------------------------------


def chapter_uri(env: BuildEnvironment, number: int) -> str | None:
    """Return the link from the page being read to a chapter, or None if it is not in the book."""
    for name in sorted(env.found_docs):
        if name.startswith(f"notebooks/{number:02d}_"):
            return env.app.builder.get_relative_uri(env.docname, name)
    return None


class ChapterRole(ReferenceRole):
    """``{chapter}`2` ``: a link if the chapter is in the book, else its text alone."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the node."""
        if not self.target.isdecimal() or not 1 <= int(self.target) <= len(STATIONS):
            message = f"no chapter {self.target!r}: chapters run from 1 to {len(STATIONS)}"
            error = self.inliner.reporter.error(message, line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, error)], [error]
        number = int(self.target)
        text = self.title if self.has_explicit_title else f"chapter {number}"
        uri = chapter_uri(self.env, number)
        if uri is None:
            return [nodes.inline("", text, classes=["chapter-to-come"])], []
        return [nodes.reference("", text, refuri=uri, internal=True)], []


# --- formulas as outlines ----------------------------------------------------------------------


@dataclass
class Box:
    """A rectangle in pixels, y downwards."""

    x0: float = np.inf
    y0: float = np.inf
    x1: float = -np.inf
    y1: float = -np.inf

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Grow to hold these points."""
        self.x0, self.x1 = min(self.x0, x.min()), max(self.x1, x.max())
        self.y0, self.y1 = min(self.y0, y.min()), max(self.y1, y.max())

    def svg(self, pad: float, css: str) -> str:
        """Draw it with some room around it."""
        x, y = self.x0 - pad, self.y0 - pad
        width, height = self.x1 + pad - x, self.y1 + pad - y
        return (
            f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="3"/>'
        )


@dataclass
class Formula:
    """A formula set in a size of so many pixels: glyphs around a baseline that starts at (0, 0)."""

    tex: str
    size: float
    glyphs: list[str] = field(default_factory=list)  # which outline
    places: list[str] = field(default_factory=list)  # its transform
    boxes: list[Box] = field(default_factory=list)
    bars: list[Box] = field(default_factory=list)  # of fractions

    def __post_init__(self) -> None:
        scale = self.size / 100
        info, bars = _set(self.tex)
        for name, x, y, factor in info:
            outline = _OUTLINES[name][0]
            box = Box()
            if len(outline):
                box.add(scale * (x + factor * outline[:, 0]), -scale * (y + factor * outline[:, 1]))
            self.glyphs.append(name)
            self.boxes.append(box)
            self.places.append(
                f"translate({scale * x:.2f} {-scale * y:.2f}) scale({scale * factor:.4g})"
            )
        for bar in bars:
            box = Box()
            box.add(scale * bar[:, 0], -scale * bar[:, 1])
            self.bars.append(box)

    @property
    def box(self) -> Box:
        """The formula's extent."""
        whole = Box()
        for box in self.boxes + self.bars:
            if np.isfinite(box.x0):
                whole.add(np.array([box.x0, box.x1]), np.array([box.y0, box.y1]))
        return whole

    def find(self, part: str) -> list[range]:
        """Return where a part of the formula, given in TeX, stands among the glyphs."""
        wanted = [name for name, *_ in _set(part)[0]]
        last = len(self.glyphs) - len(wanted)
        found: list[range] = []
        for start in range(last + 1):
            if self.glyphs[start : start + len(wanted)] == wanted:
                found.append(range(start, start + len(wanted)))
        return found

    def extent(self, part: range) -> Box:
        """Return the rectangle around some of the glyphs."""
        box = Box()
        for index in part:
            one = self.boxes[index]
            box.add(np.array([one.x0, one.x1]), np.array([one.y0, one.y1]))
        return box

    def svg(self, drawing: str, links: dict[range, str] | None = None) -> str:
        """Draw the formula, with the opening tag of a link around some parts."""
        color = dict.fromkeys(range(len(self.glyphs)), "ink")
        for tex, name in COLORS.items():
            for part in self.find(tex):
                color |= dict.fromkeys(part, name)
        opens = {part.start: (tag, part) for part, tag in (links or {}).items()}
        closes = {part.stop - 1 for part in links or {}}
        drawn = []
        for index, (name, place) in enumerate(zip(self.glyphs, self.places, strict=True)):
            if index in opens:
                tag, part = opens[index]
                drawn += [tag, self.extent(part).svg(4, "map-hit")]
            drawn.append(
                f'<use href="#{drawing}-{name}" transform="{place}" class="map-{color[index]}"/>'
            )
            if index in closes:
                drawn.append("</a>")
        drawn += [bar.svg(0, "map-ink") for bar in self.bars]
        return "".join(drawn)


_OUTLINES: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of every glyph set so far


@cache
def _set(tex: str) -> tuple[list[tuple[str, float, float, float]], list[np.ndarray]]:
    """Set TeX at size 100: glyph names, places and factors; and the bars of fractions."""
    info, outlines, bars = text_to_path.get_glyphs_mathtext(
        FontProperties(math_fontfamily="cm"), f"${tex}$"
    )
    _OUTLINES.update(outlines)
    # A bar is a closed path whose last point only closes it.
    return list(info), [np.array(vertices, float)[:-1] for vertices, _ in bars]


def outline_definitions(drawing: str, names: set[str]) -> str:
    """Return the outlines of these glyphs, once for a drawing."""
    letters = {1: ("M", 1), 2: ("L", 1), 3: ("Q", 2), 4: ("C", 3), 79: ("Z", 1)}
    paths = []
    for name in sorted(names):
        vertices, codes = _OUTLINES[name]
        steps, index = [], 0
        while index < len(codes):
            letter, count = letters[int(codes[index])]
            points = [] if letter == "Z" else vertices[index : index + count]
            steps.append(letter + " ".join(f"{x:.0f} {-y:.0f}" for x, y in points))
            index += count
        paths.append(f'<path id="{drawing}-{name}" d="{"".join(steps)}"/>')
    return f'<svg class="map-outlines" aria-hidden="true"><defs>{"".join(paths)}</defs></svg>'


# --- the map -----------------------------------------------------------------------------------

ROW, COLUMN, NARROW, SIZE = 88, 372, 344, 18
LINE_X, TEXT_X, TOP = 18, 46, 18


def _station(number: int, x: float, y: float, uri: str | None, used: set[str]) -> str:
    """Draw one station with its circle at (x, y)."""
    station = STATIONS[number - 1]
    formula = Formula(station.tex, SIZE)
    used |= set(formula.glyphs)
    fraction = bool(formula.bars)
    marks = [
        formula.extent(part).svg(3, "map-new") for tex in station.new for part in formula.find(tex)
    ]
    if len(marks) < len(station.new):
        raise ValueError(f"chapter {number}: its formula lacks one of {station.new}")
    strike = ""
    if station.struck:
        box = formula.box
        strike = (
            f'<line class="map-strike" x1="{box.x0 - 3:.1f}" x2="{box.x1 + 3:.1f}" '
            f'y1="{-0.28 * SIZE:.1f}" y2="{-0.28 * SIZE:.1f}"/>'
        )
    label = f"Chapter {number}, {station.title}: {station.says}"
    to_come = "" if uri else '<tspan class="map-note" dx="6">to come</tspan>'
    body = (
        f'<circle cx="{x}" cy="{y}" r="14"/>'
        f'<text class="map-number" x="{x}" y="{y + 5}">{number}</text>'
        f'<text class="map-title" x="{x + TEXT_X - LINE_X}" y="{y + 5}">'
        f"{html.escape(station.title)}{to_come}</text>"
        f'<g transform="translate({x + TEXT_X - LINE_X} {y + (42 if fraction else 34)})">'
        f"{''.join(marks)}{formula.svg('map')}{strike}</g>"
    )
    if uri:
        return f'<a href="{html.escape(uri)}" aria-label="{html.escape(label)}">{body}</a>'
    return f'<g role="img" aria-label="{html.escape(label)} (to come)">{body}</g>'


def draw_map(uris: dict[int, str | None]) -> str:
    """Draw the map twice, in two columns and in one; the page shows the one that fits."""
    used: set[str] = set()
    half = len(STATIONS) // 2

    def place(number: int, columns: int) -> tuple[float, float]:
        column, row = divmod(number - 1, half) if columns == 2 else (0, number - 1)
        return LINE_X + column * COLUMN, TOP + row * ROW

    drawings = []
    for columns, css in ((2, "map-wide"), (1, "map-narrow")):
        rows = half if columns == 2 else len(STATIONS)
        width = 2 * NARROW + (COLUMN - NARROW) if columns == 2 else NARROW
        height = TOP + rows * ROW - (0 if columns == 2 else 20)
        start, end = place(1, columns), place(len(STATIONS), columns)
        track = f"M{start[0]} {start[1]}V{end[1]}"
        if columns == 2:  # from the foot of the first column to the head of the second
            gutter, foot = COLUMN - LINE_X, height - 10
            track += (
                f"V{foot - 10}q0 10 10 10H{gutter - 10}q10 0 10 -10V{TOP + 10}"
                f"q0 -10 10 -10H{end[0]}V{end[1]}"
            )
        stations = [
            _station(number, *place(number, columns), uris[number], used)
            for number in range(1, len(STATIONS) + 1)
        ]
        drawings.append(
            f'<svg class="{css}" viewBox="0 0 {width} {height}" role="group" '
            'aria-label="Map of the derivation in ten stations; the list below says the same">'
            f'<path class="map-track" d="{track}"/>{"".join(stations)}</svg>'
        )
    outlines = outline_definitions("map", used)
    return f'<div class="derivation-map">{outlines}{"".join(drawings)}</div>'


def draw_formula(uris: dict[int, str | None]) -> str:
    """Draw the whole formula in one line and in three, its symbols linked to their chapters."""
    used: set[str] = set()
    drawings = []
    for lines, css, size in ((WIDE_LINES, "map-wide", 21), (NARROW_LINES, "map-narrow", 19)):
        y, width, rows = 0.0, 0.0, []
        for index, tex in enumerate(lines):
            formula = Formula(tex, size)
            used |= set(formula.glyphs)
            links: dict[range, str] = {}
            taken: set[int] = set()
            for part_tex, number, name in SYMBOLS:
                for part in formula.find(part_tex):
                    free = [index for index in part if index not in taken]
                    taken |= set(part)
                    if uris[number] is None:
                        continue
                    part = range(free[0], free[-1] + 1)
                    title = html.escape(f"{name}: chapter {number}")
                    uri = html.escape(uris[number] or "")
                    links[part] = f'<a href="{uri}" aria-label="{title}"><title>{title}</title>'
            box = formula.box
            x = 8 if index == 0 else 34
            y += 10 - box.y0
            rows.append(
                f'<g transform="translate({x} {y:.1f})">{formula.svg("formula", links)}</g>'
            )
            y += box.y1
            width = max(width, x + box.x1 + 8)
        drawings.append(
            f'<svg class="{css}" viewBox="0 0 {width:.0f} {y + 10:.0f}" '
            f'style="max-width: {width:.0f}px" role="group" aria-label="{SPOKEN}">'
            f"{''.join(rows)}</svg>"
        )
    return (
        f'<div class="derivation-map dpo-formula">{outline_definitions("formula", used)}'
        f"{''.join(drawings)}</div>"
    )


STYLE = """<style>
.derivation-map { margin: 1.2rem 0; }
.derivation-map svg { display: block; height: auto; margin: 0 auto; width: 100%; }
.derivation-map svg { overflow: visible; }
.derivation-map svg.map-outlines { height: 0; position: absolute; width: 0; }
.derivation-map .map-wide { max-width: 716px; }
.derivation-map .map-narrow { display: none; max-width: 344px; }
.map-track { fill: none; stroke: var(--dpo-grid, #d9dee4); stroke-width: 4; }
.derivation-map circle { fill: var(--dpo-paper, #fff); stroke: var(--dpo-muted, #7b8794); }
.derivation-map circle { stroke-width: 2; }
.derivation-map a circle { fill: var(--pst-color-link); stroke: var(--pst-color-link); }
.derivation-map text { fill: var(--dpo-ink, #1f2933); font-size: 15px; font-weight: 600; }
.derivation-map .map-number { font-size: 13px; text-anchor: middle; }
.derivation-map a .map-number { fill: var(--dpo-paper, #fff); }
.derivation-map a .map-title { fill: var(--pst-color-link); }
.derivation-map a { text-decoration: none; }
.derivation-map a .map-title { text-decoration: underline; }
.derivation-map a:focus-visible { outline: 2px solid var(--pst-color-link); outline-offset: 2px; }
.derivation-map .map-note { fill: var(--pst-color-text-muted); font-size: 12px; font-weight: 400; }
.map-new { fill: var(--dpo-accent, #b8860b); opacity: .22; }
.map-strike { stroke: var(--dpo-rejected, #d55e00); stroke-width: 1.8; }
.map-hit { fill: transparent; }
.dpo-formula a .map-hit { fill: var(--pst-color-link); opacity: .1; }
.dpo-formula a:is(:hover, :focus-visible) .map-hit { opacity: .3; }
.map-ink { fill: var(--dpo-ink, #1f2933); }
.map-chosen { fill: var(--dpo-chosen, #0072b2); }
.map-rejected { fill: var(--dpo-rejected, #d55e00); }
.map-policy { fill: var(--dpo-policy, #009e73); }
.map-reference { fill: var(--dpo-reference, #7b61a8); }
@media (max-width: 767px) {
  .derivation-map .map-wide { display: none; }
  .derivation-map .map-narrow { display: block; }
}
</style>"""


class _Drawing(SphinxDirective):
    """A drawing put into the page as it is."""

    def run(self) -> list[nodes.Node]:
        """Draw it with the links that exist."""
        uris = {n: chapter_uri(self.env, n) for n in range(1, len(STATIONS) + 1)}
        style = "" if self.env.temp_data.get("dpo_chapters") else STYLE  # once for a page
        self.env.temp_data["dpo_chapters"] = True
        return [nodes.raw("", style + self.draw(uris), format="html")]

    def draw(self, uris: dict[int, str | None]) -> str:
        raise NotImplementedError


class DerivationMap(_Drawing):
    """``{derivation-map}``: what each chapter adds to the formula."""

    def draw(self, uris: dict[int, str | None]) -> str:
        """Draw the map."""
        return draw_map(uris)


class DpoFormula(_Drawing):
    """``{dpo-formula}``: the formula in full."""

    def draw(self, uris: dict[int, str | None]) -> str:
        """Draw the formula."""
        return draw_formula(uris)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the role and the directives."""
    app.add_role("chapter", ChapterRole())
    app.add_directive("derivation-map", DerivationMap)
    app.add_directive("dpo-formula", DpoFormula)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
