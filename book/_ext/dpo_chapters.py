r"""The chapters as the book's other pages point to them.

1. The role ``{chapter}`2` `` (or ``{chapter}`its name <2>` ``) links to a chapter.
2. The directives ``{derivation-map}`` and ``{dpo-formula}`` hold Markdown with formulas in which
   ``\new{...}`` marks what a chapter adds, and ``\chapter{2: the sigmoid}{\sigma}`` makes a symbol
   a link with that name. Policy, reference, chosen and rejected get their colors by themselves.
   MathJax sets the formulas, and ``derivation.js`` makes its links reachable by keyboard and by
   screen readers.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

from docutils import nodes
from dpo_contents import CHAPTERS
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import ReferenceRole, SphinxDirective
from sphinx.util.typing import ExtensionMetadata

COLORS = {
    r"\pi_{\mathrm{ref}}": "reference",
    r"\pi_\theta": "policy",
    "y_w": "chosen",
    "r_w": "chosen",
    "y_l": "rejected",
    "r_l": "rejected",
}
COLORED = re.compile("|".join(re.escape(symbol) for symbol in COLORS))
NEW = re.compile(r"\\new(?![A-Za-z])")
LINK = re.compile(r"\\chapter\{(\d+): ([^{}]*)\}")


def chapter_uri(env: BuildEnvironment, number: int) -> str:
    """Return the link from the page being read to a chapter."""
    if number not in CHAPTERS:
        raise ValueError(f"no chapter {number}: chapters run from 1 to {max(CHAPTERS)}")
    return env.app.builder.get_relative_uri(env.docname, CHAPTERS[number])


class ChapterRole(ReferenceRole):
    """``{chapter}`2` ``: a link to the chapter."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the node."""
        try:
            uri = chapter_uri(self.env, int(self.target))
        except ValueError as problem:
            error = self.inliner.reporter.error(str(problem), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, error)], [error]
        text = self.title if self.has_explicit_title else f"chapter {self.target}"
        return [nodes.reference("", text, refuri=uri, internal=True)], []


def rewrite(tex: str, env: BuildEnvironment) -> tuple[str, list[str]]:
    """Return a formula as MathJax reads it, and the names of its links in their order."""
    names = [f"{name}: chapter {number}" for number, name in LINK.findall(tex)]
    tex = COLORED.sub(lambda match: rf"\class{{map-{COLORS[match[0]]}}}{{{match[0]}}}", tex)
    tex = NEW.sub(r"\\class{map-new}", tex)
    tex = LINK.sub(lambda match: rf"\href{{{chapter_uri(env, int(match[1]))}}}", tex)
    return tex, names


class Derivation(SphinxDirective):
    """A list or a line of formulas; its argument is what it says to a screen reader."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Read the Markdown and rewrite its formulas."""
        box = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, box)
        names: list[str] = []
        for formula in list(box.findall(nodes.math)):
            try:
                tex, found = rewrite(formula.astext(), self.env)
            except ValueError as problem:
                raise self.error(str(problem)) from None
            formula.replace_self(nodes.math(tex, tex))
            names += found
        attributes = f'class="{self.name}"'
        if names:
            label, data = html.escape(self.arguments[0]), html.escape(json.dumps(names))
            attributes += f' role="group" aria-label="{label}" data-names="{data}"'
        start = nodes.raw("", f"<div {attributes}>", format="html")
        return [start, *box.children, nodes.raw("", "</div>", format="html")]


def add_files(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give a page with such a box its styles and its script."""
    if re.search(r'<div class="(derivation-map|dpo-formula)"', context.get("body", "")):
        app.add_css_file("derivation.css")
        app.add_js_file("derivation.js", loading_method="defer")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the role and the directives."""
    app.add_role("chapter", ChapterRole())
    app.add_directive("derivation-map", Derivation)
    app.add_directive("dpo-formula", Derivation)
    app.connect("html-page-context", add_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
