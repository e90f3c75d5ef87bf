"""Links to single sections of the book, with the time that they take.

1. The role ``{section}`10#Why do my chosen rewards fall?` `` links to a section of chapter 10, by
   its heading; ``{section}`C#Choosing β` `` to one of appendix C, ``{section}`3` `` to a whole
   chapter, ``{section}`index#How to read it` `` to one of another page; nothing after the ``#``
   is what stands before the first heading. A heading that is not there
   fails the build.
2. The role ``{task}`ex-dpo-build` `` links to an exercise by its label, worded as its title.
3. The directive ``{route}`` holds a Markdown list of such links. Behind each come its minutes, and
   at the end their sum; with the option ``exercises`` those of the exercises of its sections too.
4. The directive ``{mistakes}`` lists the wrong answers that the checks of exercises know.
"""

from __future__ import annotations

import copy
import html

from docutils import nodes
from docutils.parsers.rst import directives
from dpo_contents import APPENDICES, CHAPTERS, NOTEBOOKS, PAGES
from dpo_times import Exercise, Time, exercises, rounded, sections, whole
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole, SphinxDirective
from sphinx.util.typing import ExtensionMetadata

logger = logging.getLogger(__name__)

HOUR = 60


class SectionLink(nodes.Inline, nodes.TextElement):
    """A link to a section, until all pages have been read."""


class TaskLink(nodes.reference):
    """A link to an exercise."""


def page_of(place: str) -> tuple[str, str]:
    """Return a page and how the text names it: ``3``, ``C`` or ``index``."""
    if place.isdigit() and int(place) in CHAPTERS:
        return CHAPTERS[int(place)], f"Chapter {place}"
    if place.isupper() and place.lower() in APPENDICES:
        return APPENDICES[place.lower()], f"Appendix {place}"
    if f"book/{place}" in PAGES:
        return f"book/{place}", ""
    raise ValueError(f"no page {place!r}: a chapter's number, an appendix's letter, a page's name")


class SectionRole(ReferenceRole):
    """``{section}`10#Its heading` ``, or ``{section}`words <10#Its heading>` ``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the node."""
        place, mark, heading = self.target.partition("#")
        try:
            page, name = page_of(place)
        except ValueError as problem:
            error = self.inliner.reporter.error(str(problem), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, error)], [error]
        link = SectionLink("", page=page, name=name, heading=heading if mark else None)
        if self.has_explicit_title:
            link += nodes.Text(self.title)
        self.set_source_info(link)
        return [link], []


def every_exercise() -> dict[str, Exercise]:
    """Return the exercises of the book by their labels."""
    return {exercise.label: exercise for page in NOTEBOOKS for exercise in exercises(page)}


def task_link(env: BuildEnvironment, exercise: Exercise) -> nodes.reference:
    """Return a link to an exercise."""
    uri = env.app.builder.get_relative_uri(env.docname, exercise.page) + f"#{exercise.label}"
    title = exercise.title.replace("$", "")
    return TaskLink("", title, refuri=uri, internal=True, minutes=exercise.minutes)


class TaskRole(ReferenceRole):
    """``{task}`ex-dpo-build` ``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the node."""
        exercise = every_exercise().get(self.target)
        if exercise is None:
            message = f"no exercise has the label {self.target!r}"
            error = self.inliner.reporter.error(message, line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, error)], [error]
        return [task_link(self.env, exercise)], []


class Mistakes(SphinxDirective):
    """What the checks of exercises know to be wrong, exercise by exercise, each folded."""

    def run(self) -> list[nodes.Node]:
        """Take the words from the exercises themselves."""
        from dpo_lib.exercises.all import EXERCISES

        made: list[nodes.Node] = []
        for task in every_exercise().values():
            if not task.number:
                continue
            words = [mistake.words for mistake in EXERCISES[task.number].mistakes]
            link = nodes.paragraph("", "", task_link(self.env, task))
            items = [nodes.list_item("", nodes.paragraph("", text)) for text in words]
            title = html.escape(f"{task.number} {task.title}: {len(words)} wrong answers")
            made += [
                nodes.raw("", f"<details><summary>{title}</summary>", format="html"),
                link,
                nodes.bullet_list("", *items),
                nodes.raw("", "</details>", format="html"),
            ]
        return made


def plain(heading: str) -> str:
    """Return a heading as one types it: Sphinx curls its apostrophes, and formulas lose their $."""
    return heading.replace("\u2019", "'").replace("$", "")


def heading_of(env: BuildEnvironment, page: str, heading: str | None) -> nodes.reference | None:
    """Return the entry of a section, or of the page, in the table of contents."""
    entries = env.tocs[page].findall(nodes.reference)
    if not heading:
        return next(entries)
    return next((entry for entry in entries if plain(entry.astext()) == plain(heading)), None)


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn every such link into a reference, worded as the section is."""
    for link in list(doctree.findall(SectionLink)):
        entry = heading_of(app.env, link["page"], link["heading"])
        if entry is None:
            message = "%s has no section %r"
            logger.warning(message, link["page"], link["heading"], location=link)
            link.replace_self(nodes.Text(link["heading"]))
            continue
        words = link.children
        if not words:
            words = [copy.deepcopy(child) for child in entry.children]
            if link["name"] and not entry.astext().startswith(link["name"]):
                words.insert(0, nodes.Text(f"{link['name']}: "))
        uri = app.builder.get_relative_uri(docname, link["page"]) + entry["anchorname"]
        link.replace_self(nodes.reference("", "", *words, refuri=uri, internal=True))


def time_of(link: SectionLink) -> Time:
    """Return the time of what is linked to; `ValueError` if the section is not there."""
    page, heading = link["page"], link["heading"]
    if heading is None:
        return whole(page)
    if heading not in sections(page):
        raise ValueError(f"{page} has no section {heading!r}")
    return sections(page)[heading]


def in_words(minutes: float) -> str:
    """Return ``55 minutes`` or ``4 hours``, to a quarter of an hour where there are hours."""
    if minutes < 1.5 * HOUR:
        return f"{rounded(minutes)} minutes"
    quarters = round(4 * minutes / HOUR)
    return f"{quarters // 4}{('', '¼', '½', '¾')[quarters % 4]} hours"


class Route(SphinxDirective):
    """A list of sections with their minutes and the sum."""

    has_content = True
    option_spec = {"exercises": directives.flag}  # noqa: RUF012  as docutils has it

    def run(self) -> list[nodes.Node]:
        """Read the list and put the times in."""
        box = nodes.container(classes=["dpo-route"])
        self.state.nested_parse(self.content, self.content_offset, box)
        total = Time()
        said = None
        for link in list(box.findall(lambda node: isinstance(node, SectionLink | TaskLink))):
            if isinstance(link, TaskLink):
                total += Time(link["minutes"])
                words = f"{link['minutes']}\u00a0min"
            else:
                if (link.parent, link["page"]) == said:  # "Chapter 9" stands once in a line
                    link["name"] = ""
                said = (link.parent, link["page"])
                try:
                    time = time_of(link)
                except ValueError as problem:
                    raise self.error(str(problem)) from None
                total += time
                words = f"{time.minutes}\u00a0min"
                if "exercises" in self.options and time.exercises:
                    words += f" + {time.exercises}\u00a0min"
            place = link.parent.index(link) + 1
            link.parent.insert(place, nodes.inline("", f" ({words})", classes=["dpo-minutes"]))
        words = f"Together about {in_words(total.reading)}"
        if "exercises" in self.options:
            words += f", and {in_words(total.exercises)} more with the exercises"
        box += nodes.paragraph("", "", nodes.strong("", f"{words}."))
        return [box]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the role and the directive."""
    app.add_node(SectionLink)
    app.add_role("section", SectionRole())
    app.add_role("task", TaskRole())
    app.add_directive("route", Route)
    app.add_directive("mistakes", Mistakes)
    app.connect("doctree-resolved", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
