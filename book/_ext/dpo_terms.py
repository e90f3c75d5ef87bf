"""The glossary in the margin of every chapter: a term's definition where the term first stands.

The terms and their definitions are those of the ``{glossary}`` on the glossary's page. On each
chapter and appendix the first occurrence of a term in running prose becomes a link to its entry.
The definition is put at the end of the page, and ``terms.js`` shows it as a tooltip when the link
is pointed at, focused or tapped. Without JavaScript the link remains.

Running prose is paragraphs and lists, less what is a heading, link, code, formula, caption, title,
table, quotation (emphasis) or already bold, as a term is where the text itself explains it.

The role ``{appendix}`D` `` links to an appendix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from docutils import nodes
from dpo_contents import APPENDICES, CHAPTERS, appendix
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import ReferenceRole
from sphinx.util.typing import ExtensionMetadata

GLOSSARY = appendix("glossary")
# The pages whose terms are marked: all but those on which a reader looks something up.
LOOKUP = {appendix(name) for name in ("notation", "glossary", "references", "api")}
MARKED = {*CHAPTERS.values(), *APPENDICES.values()} - LOOKUP
MOST = 2  # terms marked in one paragraph: the others wait for their next occurrence
ANOTHER_MEANING = {  # pages on which a word is not the term at all
    "notebooks/01_alignment_problem": {"policy"},  # of the climate
    "notebooks/06_naive_failures": {"likelihood displacement"},  # of jobs
}

NOT_PROSE = (
    *(nodes.title, nodes.subtitle, nodes.rubric, nodes.caption, nodes.legend, nodes.figure),
    *(nodes.reference, addnodes.pending_xref, nodes.target, addnodes.download_reference),
    *(nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw),
    *(nodes.strong, nodes.emphasis, nodes.table, nodes.term, nodes.footnote, nodes.citation),
    *(addnodes.desc, nodes.field_list, nodes.topic, nodes.comment, nodes.block_quote),
)
NOT_PROSE_CLASSES = {"cell_input", "cell_output", "dpo-before-you-start", "dpo-nobreak"}


class TermLink(nodes.Inline, nodes.TextElement):
    """A term in the text: a link to its entry, described by its tooltip."""


class Tooltips(nodes.General, nodes.Element):
    """The definitions of the terms that a page marks, hidden at its end."""


class Tooltip(nodes.General, nodes.TextElement):
    """One definition."""


@dataclass(frozen=True)
class Entry:
    """One entry of the glossary."""

    anchor: str  # of its first name, on the glossary's page
    names: tuple[str, ...]
    definition: nodes.paragraph  # its first paragraph


# --- links to appendices ------------------------------------------------------------------------


class AppendixRole(ReferenceRole):
    """``{appendix}`D` `` or ``{appendix}`its name <D>` ``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the node."""
        letter = self.target.lower()
        if letter not in APPENDICES:
            message = f"no appendix {self.target!r}: there are {', '.join(APPENDICES).upper()}"
            error = self.inliner.reporter.error(message, line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, error)], [error]
        text = self.title if self.has_explicit_title else f"appendix {letter.upper()}"
        uri = self.env.app.builder.get_relative_uri(self.env.docname, APPENDICES[letter])
        return [nodes.reference("", text, refuri=uri, internal=True)], []


# --- reading the glossary ----------------------------------------------------------------------


def read_glossary(doctree: nodes.document) -> list[Entry]:
    """Return the entries of a page's glossaries, in their order."""
    entries = []
    for glossary in doctree.findall(addnodes.glossary):
        for item in glossary.findall(nodes.definition_list_item):
            terms = list(item.findall(nodes.term))
            definition = next(item.findall(nodes.definition))
            paragraph = next(definition.findall(nodes.paragraph))
            names = tuple(term.astext() for term in terms)
            entries.append(Entry(terms[0]["ids"][0], names, paragraph))
    return entries


@lru_cache(maxsize=1)
def glossary(env: BuildEnvironment) -> list[Entry]:
    """Return the entries of the book's glossary once all pages are read."""
    return read_glossary(env.get_doctree(GLOSSARY))


def name_pattern(name: str) -> str:
    """Return a regular expression for a name: its plural, other hyphens, a capital at its start."""
    words = []
    for word in name.split():
        pattern = re.sub(r"\\?[-–‑]", "[-–‑]", re.escape(word))
        if word.islower() and word[0].isalpha():
            pattern = f"[{word[0].upper()}{word[0]}]{pattern[1:]}"
        words.append(pattern)
    last = words[-1]
    if re.search(r"[^aeiou]y$", last):
        words[-1] = f"{last[:-1]}(?:y|ies)"
    elif last[-1].isalpha():
        words[-1] = f"{last}(?:e?s)?"
    return r"(?:\s+|[-–‑])".join(words)  # "best of n" and "best-of-n"


def terms_pattern(entries: list[Entry]) -> re.Pattern[str]:
    """Return one expression for all names, longer names first; the group tells which entry."""
    names = [(name, index) for index, entry in enumerate(entries) for name in entry.names]
    names.sort(key=lambda pair: -len(pair[0]))
    choices = "|".join(
        f"(?P<t{place}_{index}>{name_pattern(name)})" for place, (name, index) in enumerate(names)
    )
    return re.compile(rf"(?<![\w/\-–‑])(?:{choices})(?![\w/]|[-–‑]\w)")


def entry_of(match: re.Match[str]) -> int:
    """Return the number of the entry that an expression of `terms_pattern` found."""
    return int(str(match.lastgroup).rpartition("_")[2])


# --- marking a page ----------------------------------------------------------------------------


def paragraph_of(text: nodes.Text) -> nodes.paragraph | None:
    """Return the paragraph of running prose that a text stands in, if it stands in one."""
    paragraph, node = None, text.parent
    while node is not None:
        if isinstance(node, NOT_PROSE) or NOT_PROSE_CLASSES & set(node.get("classes", ())):
            return None
        if paragraph is None and isinstance(node, nodes.paragraph):
            paragraph = node
        node = node.parent
    return paragraph


def mark_terms(doctree: nodes.Element, entries: list[Entry], uri: str) -> list[int]:
    """Make links of the first occurrences; return the numbers of the entries that were found."""
    if not entries:
        return []
    pattern = terms_pattern(entries)
    found: list[int] = []
    marks: dict[int, int] = {}  # paragraph: how many
    for text in list(doctree.findall(nodes.Text)):
        paragraph = paragraph_of(text)
        if paragraph is None:
            continue
        pieces: list[nodes.Node] = []
        end = 0
        for match in pattern.finditer(text):
            index = entry_of(match)
            if index in found or marks.get(id(paragraph), 0) >= MOST:
                continue
            found.append(index)
            marks[id(paragraph)] = marks.get(id(paragraph), 0) + 1
            entry = entries[index]
            link = TermLink("", match[0], refuri=f"{uri}#{entry.anchor}", tip=tip_id(entry))
            pieces += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[end:])])
    return found


def tip_id(entry: Entry) -> str:
    """Return the id of an entry's tooltip."""
    return entry.anchor.replace("term-", "tip-", 1)


def tooltip(entry: Entry) -> Tooltip:
    """Return the tooltip of an entry: its first name and its definition, links turned into text."""
    tip = Tooltip("", ids=[tip_id(entry)])
    tip += nodes.strong("", entry.names[0])
    tip += nodes.Text(" ")
    definition = entry.definition.deepcopy()
    for link in list(definition.findall(lambda n: isinstance(n, nodes.reference | TermLink))):
        link.replace_self(link.children)
    for cross in list(definition.findall(addnodes.pending_xref)):
        cross.replace_self(nodes.inline("", cross.astext()))
    tip += definition.children
    return tip


def on_page(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Mark the terms of a chapter or an appendix."""
    if app.builder.format != "html" or docname not in MARKED:
        return
    if GLOSSARY not in app.env.found_docs:
        return
    other = ANOTHER_MEANING.get(docname, set())
    entries = [entry for entry in glossary(app.env) if entry.names[0] not in other]
    found = mark_terms(doctree, entries, app.builder.get_relative_uri(docname, GLOSSARY))
    if not found:
        return
    tips = Tooltips("")
    tips += [tooltip(entries[index]) for index in found]
    doctree += tips
    if next(tips.findall(nodes.math), None) is not None:  # else a page may come without MathJax
        app.env.get_domain("math").data["has_equations"][docname] = True


# --- writing -----------------------------------------------------------------------------------


def visit_link(self: Any, node: TermLink) -> None:
    """Open a link."""
    attributes = {"href": node["refuri"], "aria-describedby": node["tip"]}
    self.body.append(self.starttag(node, "a", "", CLASS="dpo-term", **attributes))


def depart_link(self: Any, node: TermLink) -> None:
    """Close a link."""
    self.body.append("</a>")


def visit_tooltips(self: Any, node: Tooltips) -> None:
    """Open the list of tooltips, which nobody sees until one is asked for."""
    self.body.append('<div class="dpo-tips" hidden>\n')


def depart_tooltips(self: Any, node: Tooltips) -> None:
    """Close the list."""
    self.body.append("</div>\n")


def visit_tooltip(self: Any, node: Tooltip) -> None:
    """Open a tooltip."""
    self.body.append(self.starttag(node, "div", "", CLASS="dpo-tip", role="tooltip"))


def depart_tooltip(self: Any, node: Tooltip) -> None:
    """Close a tooltip."""
    self.body.append("</div>\n")


def add_files(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give the pages with tooltips what shows them."""
    if 'class="dpo-tips"' in context.get("body", ""):
        app.add_js_file("terms.js", loading_method="defer")
    if pagename == GLOSSARY or 'class="dpo-tips"' in context.get("body", ""):
        app.add_css_file("terms.css")


def unused_names(entries: list[Entry], texts: Iterator[str]) -> list[str]:
    """Return the first names of the entries that no text contains."""
    pattern, seen = terms_pattern(entries), set()
    for text in texts:
        seen |= {entry_of(match) for match in pattern.finditer(text)}
    return [entry.names[0] for index, entry in enumerate(entries) if index not in seen]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the extension."""
    app.add_role("appendix", AppendixRole())
    app.add_node(TermLink, html=(visit_link, depart_link))
    app.add_node(Tooltips, html=(visit_tooltips, depart_tooltips))
    app.add_node(Tooltip, html=(visit_tooltip, depart_tooltip))
    app.connect("doctree-resolved", on_page)
    app.connect("html-page-context", add_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
