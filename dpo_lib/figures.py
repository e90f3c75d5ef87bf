"""The look of the book's figures: one palette, one style, SVG that is the same on every run.

A notebook starts with ``figures.use_book_style()``. From then on every Matplotlib figure is stored
as SVG only, with text kept as text, coordinates rounded and ids derived from the content, so that
running the notebook again gives the same bytes. Only the colors below are used: the book maps each
of them to a CSS variable, which is how the figures follow the light and the dark theme.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

    from dpo_lib.training import TrainingHistory

__all__ = [
    "ACCENT",
    "CHOSEN",
    "GRID",
    "INK",
    "MUTED",
    "PALETTE",
    "PAPER",
    "POLICY",
    "REFERENCE",
    "REJECTED",
    "arrow",
    "book_style",
    "box",
    "diagram",
    "figure_svg",
    "label_line",
    "plain_ticks",
    "plot_history",
    "read_results",
    "save_svg",
    "spread",
    "springs",
    "use_book_style",
]

INK = "#1f2933"  # text and axes
MUTED = "#7b8794"  # what is secondary
GRID = "#d9dee4"  # grid lines
PAPER = "#ffffff"  # the background, always opaque
CHOSEN = "#0072b2"  # blue: the chosen response
REJECTED = "#d55e00"  # vermilion: the rejected response
POLICY = "#009e73"  # green: the policy
REFERENCE = "#7b61a8"  # violet: the reference
ACCENT = "#b8860b"  # gold: what the reader should look at

PALETTE: dict[str, str] = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "paper": PAPER,
    "chosen": CHOSEN,
    "rejected": REJECTED,
    "policy": POLICY,
    "reference": REFERENCE,
    "accent": ACCENT,
}

_RESULTS = Path(__file__).parent / "results"
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}"
# A number, but not the digits inside a color such as #0072b2 or inside an id.
_NUMBER = re.compile(r"(?<![#\w.])-?(?:\d+\.\d*|\.\d+|\d+)(?:e[-+]?\d+)?(?!\w)", re.IGNORECASE)
_REFERENCE_TO_ID = re.compile(r"url\(#([^)]+)\)|^#(.+)$")

_STYLE: dict[str, Any] = {
    "figure.figsize": (6.5, 3.4),
    "figure.facecolor": PAPER,
    "figure.edgecolor": PAPER,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": PAPER,
    "savefig.edgecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "dpo",
    # Layout is computed with the font that Matplotlib ships; the page then draws the text in the
    # reader's own sans-serif font, which is narrower, so nothing overlaps.
    "font.family": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 10,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "normal",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.edgecolor": GRID,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "patch.edgecolor": INK,
    "patch.facecolor": CHOSEN,
    "hatch.color": INK,
    "boxplot.boxprops.color": INK,
    "boxplot.capprops.color": INK,
    "boxplot.flierprops.color": INK,
    "boxplot.flierprops.markeredgecolor": INK,
    "boxplot.medianprops.color": ACCENT,
    "boxplot.whiskerprops.color": INK,
}


def use_book_style() -> None:
    """Set the book's style and, in a notebook, store figures as reproducible SVG and nothing else.

    Outside IPython only Matplotlib's defaults change.
    """
    from cycler import cycler

    cycle = cycler(color=[CHOSEN, REJECTED, POLICY, REFERENCE, ACCENT, MUTED])
    ipython = sys.modules.get("IPython")  # a shell can only be running if IPython is loaded
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and getattr(shell, "kernel", None) is not None:
        # The inline backend installs its own formatters when it is first selected: do that now,
        # so that it cannot replace ours later.
        import matplotlib.pyplot as plt
        from matplotlib_inline.backend_inline import configure_inline_support

        plt.switch_backend("module://matplotlib_inline.backend_inline")
        configure_inline_support(shell, "inline")
    matplotlib.rcParams.update(_STYLE)
    matplotlib.rcParams["axes.prop_cycle"] = cycle
    if shell is not None:
        for formatter in shell.display_formatter.formatters.values():
            formatter.pop(Figure, None)
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, figure_svg)


@contextlib.contextmanager
def book_style() -> Iterator[None]:
    """The book's style for the figures that are made within the block, wherever it runs."""
    with matplotlib.rc_context(_STYLE):
        yield


def figure_svg(figure: Figure) -> str:
    """Return the figure as a small SVG string that is the same on every run.

    Comments, metadata and unused ids are dropped, coordinates have at most two decimals, the ids
    that are left start with a hash of the content (two figures may stand on one page), and the
    font is the page's own.
    """
    buffer = io.StringIO()
    salted = {key: _STYLE[key] for key in ("svg.fonttype", "svg.hashsalt")}
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(salted):
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    return _normalize_svg(buffer.getvalue())


def save_svg(figure: Figure, path: str | Path) -> Path:
    """Write the figure to ``path`` as reproducible SVG and return the path."""
    path = Path(path)
    path.write_text(figure_svg(figure) + "\n", encoding="utf-8", newline="\n")
    return path


def read_results(name: str) -> dict[str, Any]:
    """Return what a stored experiment found: its ``settings`` and its ``rows``.

    Their files come with the library, so that a notebook finds them wherever it stands.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    stored = {path.stem: path for path in _RESULTS.glob("*.json")}
    if name not in stored:
        raise ValueError(f"name {name!r}: not one of {', '.join(sorted(stored))}")
    found = json.loads(stored[name].read_text(encoding="utf-8"))
    return {part: found[part] for part in ("settings", "rows")}


def label_line(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    color: str = INK,
    *,
    dx: float = 6.0,
    dy: float = 0.0,
    **kwargs: Any,
) -> Annotation:
    """Write ``text`` beside the data point ``(x, y)``: a direct label instead of a legend.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to write.
    x, y : float
        The point, in data coordinates, usually the last of a line.
    text : str
        The label.
    color : str
        One of the palette, as a rule the color of the line.
    dx, dy : float
        Distance from the point in typographic points.
    **kwargs
        Passed to ``Axes.annotate``, for example ``ha`` or ``fontsize``.
    """
    style = {"ha": "left" if dx >= 0 else "right", "va": "center", "fontsize": 9, **kwargs}
    return ax.annotate(
        text,
        (x, y),
        (dx, dy),
        textcoords="offset points",
        color=color,
        annotation_clip=False,
        **style,
    )


def plain_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Put ticks at ``values`` only, as plain numbers: for a logarithmic axis of few decades."""
    axis.set_ticks(list(values), labels=[f"{value:,.10g}" for value in values])
    axis.set_ticks([], minor=True)


def spread(
    ax: Axes,
    x: Sequence[float] | np.ndarray,
    samples: Sequence[Sequence[float]] | np.ndarray,
    *,
    color: str = CHOSEN,
    band: str = "range",
    label: str | None = None,
    **kwargs: Any,
) -> Line2D:
    """Draw the mean over seeds as a line and the spread over seeds as a band.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    x : array-like, shape (points,)
        Horizontal positions.
    samples : array-like, shape (seeds, points)
        One row a seed.
    color : str
        One of the palette, for the line and, lighter, for the band.
    band : {"range", "sd"}
        ``"range"`` fills from the smallest to the largest seed, ``"sd"`` one sample standard
        deviation (n − 1) to either side. Say in the caption which one it is.
    label : str, optional
        Legend label of the line.
    **kwargs
        Passed to ``Axes.plot``.

    Returns
    -------
    matplotlib.lines.Line2D
        The line of means.
    """
    positions = np.asarray(x, dtype=float)
    rows = np.asarray(samples, dtype=float)
    if rows.ndim != 2 or rows.shape[1:] != positions.shape:
        raise ValueError(
            f"samples must have shape (seeds, {positions.size}) to match x, got {rows.shape}"
        )
    if rows.shape[0] < 2:
        raise ValueError(f"samples must hold at least 2 seeds, got {rows.shape[0]}")
    mean = rows.mean(axis=0)
    if band == "range":
        low, high = rows.min(axis=0), rows.max(axis=0)
    elif band == "sd":
        deviation = rows.std(axis=0, ddof=1)
        low, high = mean - deviation, mean + deviation
    else:
        raise ValueError(f'band must be "range" or "sd", got {band!r}')
    ax.fill_between(positions, low, high, color=color, alpha=0.18, linewidth=0)
    (line,) = ax.plot(positions, mean, color=color, label=label, **kwargs)
    return line


def diagram(width: float, height: float) -> tuple[Figure, Axes]:
    """Start a picture without axes whose unit is one typographic point, the origin at bottom left.

    Up to 270 points wide it stands on a phone in its full size.
    """
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(width / 72, height / 72), layout="constrained")
    figure.get_layout_engine().set(w_pad=0, h_pad=0)
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    return figure, ax


def box(
    ax: Axes,
    x: float,
    y: float,
    title: str,
    note: str = "",
    color: str = INK,
    *,
    width: float = 96.0,
    height: float = 38.0,
    dashed: bool = False,
) -> None:
    """Draw a box of a `diagram` around the point ``(x, y)``, with a title and a smaller note."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2 + 4, y - height / 2 + 4)
    look: dict[str, Any] = {"boxstyle": "round,pad=4", "edgecolor": color, "linewidth": 1.6}
    look["linestyle"] = "--" if dashed else "-"
    for fill in ({"facecolor": PAPER}, {"facecolor": color, "alpha": 0.1}):
        ax.add_patch(FancyBboxPatch(corner, width - 8, height - 8, **look, **fill))
    at = {"ha": "center", "va": "center"}
    ax.text(x, y + (7 if note else 0), title, fontsize=10, **at)
    ax.text(x, y - 8, note, fontsize=8.5, color=color, **at)


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = INK,
    *,
    bend: float = 0.0,
    dashed: bool = False,
    width: float = 1.6,
) -> None:
    """Draw an arrow between two points of a `diagram`; ``bend`` is its height over its length."""
    look: dict[str, Any] = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}"}
    look |= {"color": color, "lw": width, "ls": "--" if dashed else "-", "mutation_scale": 12}
    ax.annotate("", end, start, arrowprops=look | {"shrinkA": 0, "shrinkB": 0})


def springs(
    rows: Sequence[tuple[str, float, float]], *, reach: float = 5.0, pull_name: str = "pull"
) -> Figure:
    """Draw pairs of scores on springs: the winner's pulls to the right, the loser's to the left.

    Parameters
    ----------
    rows : sequence of (label, gap, pull)
        One pair a row: words, its score gap, its pull in [0, 1] (the length of both arrows).
    reach : float
        The largest gap that the drawing holds, to either side.
    pull_name : str
        What the text calls the pull.

    Raises
    ------
    ValueError
        If a gap is beyond ``reach`` or a pull outside [0, 1].
    """
    for _, gap, pull in rows:
        if abs(gap) > reach or not 0 <= pull <= 1:
            raise ValueError(
                f"a gap must be within ±{reach} and a pull in [0, 1], got {gap} and {pull}"
            )
    room = 64  # points a row
    figure, ax = diagram(270, room * len(rows))
    for row, (label, gap, pull) in enumerate(rows):
        y = room * (len(rows) - row) - 30
        for side, rail, color in ((1, y + 6, CHOSEN), (-1, y - 12, REJECTED)):
            x, wall = 135 + side * 50 * gap / reach, 135 + side * 128
            turns = rail + 3.5 * (-1.0) ** np.arange(20)
            ax.plot(np.linspace(x, wall, 20), turns, color=MUTED, linewidth=1.4)
            ax.plot([wall, wall], [rail - 7, rail + 7], color=MUTED, linewidth=2.5)
            ax.plot(x, rail, "o", color=color, markersize=9)
            if 60 * pull > 3:  # a shorter arrow would be a head alone
                arrow(ax, (x + 4 * side, rail), (x + (4 + 60 * pull) * side, rail), color, width=2)
        ax.text(7, y + 22, label, fontsize=9, va="center")
        words = f"{pull_name} {pull:.2f}"
        ax.text(263, y + 22, words, color=ACCENT, fontsize=9, ha="right", va="center")
    return figure


_STEP_PANELS = {  # column of the history: title and color of its panel
    "loss": ("loss (nats)", INK),
    "reward_accuracy": ("reward accuracy", INK),
    "margin": ("reward margin", INK),
    "chosen_logp": ("change of log π: chosen", CHOSEN),
    "rejected_logp": ("change of log π: rejected", REJECTED),
}


def plot_history(history: TrainingHistory) -> Figure:
    """Draw a training run: a panel for each column of the history, over the updates.

    The two changes of log-probability share a panel; every evaluation that is one number has a
    panel of its own, in the color of the policy.
    """
    import matplotlib.pyplot as plt

    steps = [row["step"] for row in history.steps]
    panels = [
        [(*_STEP_PANELS[name], steps, history.column(name)) for name in names]
        for names in (
            ["loss"], ["reward_accuracy"], ["margin"], ["chosen_logp", "rejected_logp"]
        )
    ]  # fmt: skip
    first = history.evaluations[0] if history.evaluations else {}
    at = [row["step"] for row in history.evaluations]
    for name, value in first.items():
        if name != "step" and isinstance(value, int | float):
            values = [row[name] for row in history.evaluations]
            panels.append([(name.replace("_", " "), POLICY, at, values)])
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(6.5, 1.9 * rows), sharex=True, squeeze=False)
    for ax, lines in zip(axes.flat, panels, strict=False):
        for label, color, x, y in lines:
            ax.plot(x, y, color=color, label=label)
        if len(lines) > 1:
            ax.legend()
        else:
            ax.set_title(lines[0][0], fontsize=10)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("update")
    return figure


def _normalize_svg(text: str) -> str:
    """Rewrite Matplotlib's SVG in a canonical form; see `figure_svg`."""
    root = ElementTree.fromstring(text)  # drops the comments, the doctype and the declaration
    for element in list(root):
        if element.tag == f"{{{_SVG}}}metadata":
            root.remove(element)
    _drop_style_sheets(root)

    used = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            if name != "id":
                used.update(a or b for a, b in _REFERENCE_TO_ID.findall(value))
    names: dict[str, str] = {}
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            names[identifier] = f"\0{len(names) + 1}"  # \0: the prefix is known at the end
            element.attrib["id"] = identifier

    for element in root.iter():
        _clean(element, names)
    _unwrap_groups(root)

    body = _serialize(root)
    prefix = hashlib.sha256(body.encode()).hexdigest()[:8]
    return body.replace("\0", f"f{prefix}-")


def _drop_style_sheets(root: ElementTree.Element) -> None:
    """Replace Matplotlib's ``* {…}`` rule, which would leak into an HTML page, by inheritance."""
    for defs in list(root.findall(f"{{{_SVG}}}defs")):
        for sheet in defs.findall(f"{{{_SVG}}}style"):
            defs.remove(sheet)
        if len(defs) == 0:
            root.remove(defs)
    root.set("style", f"stroke-linejoin: round; stroke-linecap: butt; font-family: {_FONTS}")


def _clean(element: ElementTree.Element, names: dict[str, str]) -> None:
    """Round the numbers, rename the ids and shorten the style of one element."""
    attributes = {}
    for name, value in element.attrib.items():
        if name == "id":
            attributes["id"] = names[value]
            continue
        value = _REFERENCE_TO_ID.sub(lambda match: _rename(match, names), value)
        if name == "style" and not element.tag.endswith("}svg"):
            value = _page_font(value, math=element.tag.endswith("}tspan"))
        if name not in ("class", "version"):
            value = _NUMBER.sub(_rounded, value)
        value = re.sub(r"\s+", " ", value).strip()
        if name == "transform" and re.fullmatch(r"rotate\(0( \S+ \S+)?\)", value):
            continue
        attributes[name.replace(_XLINK, "")] = value
    element.attrib.clear()
    element.attrib.update({name: value for name, value in attributes.items() if value})
    if not element.tag.endswith(("}text", "}tspan")):
        element.text = None
    element.tail = None


def _rename(match: re.Match[str], names: dict[str, str]) -> str:
    new = "#" + names.get(match[1] or match[2], "missing")
    return f"url({new})" if match[1] else new


def _page_font(style: str, *, math: bool) -> str:
    """Leave the font family to the root element; formulas keep the font they were set in."""
    if math:
        return style.replace("'DejaVu Sans'", f"'DejaVu Sans', {_FONTS}")
    return re.sub(r"font-family: [^;]*;? ?", "", style).rstrip("; ")


def _rounded(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _unwrap_groups(element: ElementTree.Element) -> None:
    """Remove groups that carry nothing: most of Matplotlib's are there for their ids only."""
    children = []
    for child in list(element):
        _unwrap_groups(child)
        if child.tag == f"{{{_SVG}}}g" and not child.attrib:
            children.extend(child)
        else:
            children.append(child)
    element[:] = children


def _serialize(root: ElementTree.Element) -> str:
    """Return the element as text, one drawing element a line so that diffs are readable."""
    for element in root.iter():
        element.tag = element.tag.replace(f"{{{_SVG}}}", "")
    root.attrib = {"xmlns": _SVG, **root.attrib}
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"(?<=>)<(?!/?tspan|/text)", "\n<", text)
