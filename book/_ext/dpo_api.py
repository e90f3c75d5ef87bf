"""The API page: made from the docstrings, linked from the chapters and back.

1. On the API page the comment line ``% modules`` is replaced by a section for each public
   module of ``dpo_lib``, in the order of the derivation, with an entry for each public name. A new
   module or name needs no edit.
2. Inline code that is the name of such an entry leads to it: once in each section of a page.
3. Each entry ends with the chapters and appendices whose text or code uses it.
4. A name in a docstring (single backticks, types) leads to its entry if it has one; names of other
   packages have no page here and stay plain.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, get_origin

from docutils import nodes
from dpo_contents import APPENDICES, CHAPTERS, NOTEBOOKS, ROOMS, appendix
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc import preserve_defaults
from sphinx.util.typing import ExtensionMetadata

PACKAGE = "dpo_lib"
PAGE = appendix("api")
PLACE = re.compile(r"^% modules$", re.MULTILINE)
LINKED = re.compile(r"notebooks/|book/appendices/|book/how_to_run")  # pages with links to it
# Subpackages whose parts are of use by themselves.
WITH_PARTS = ("data", "models", "world", "fast", "training")
# Parts that nobody calls from outside; Appendix G shows what matters in the fast ones.
INNER = (
    *("fast.kernels", "fast.lean", "fast.backbones", "fast.prefix_tree", "fast.precision"),
    *("training.checkpoint", "training.processes", "models.chat", "data.audit"),
)
# What every widget's class fills in; the page says it of none.
HOOKS = ("build_spec", "describe", "preview", "static_html")
CODE_NAME = re.compile(r"([A-Za-z_][\w.]*)(?:\([^()]*\))?")
SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)
LIST_TAG = re.compile(r"<(/?)d[ld]>")
REPEATED_IDS = ("exercise-content", "solution-content", "proof-content")


# --- what is public ----------------------------------------------------------------------------


def module_names() -> list[str]:
    """Return the public modules of the package, subpackages but not what is in them."""
    package = importlib.import_module(PACKAGE)
    found = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    order = [room for rooms in ROOMS for room in rooms if room in found]
    return [f"{PACKAGE}.{name}" for name in order + sorted(found - set(order))]


def defined_names(module: ModuleType) -> list[str]:
    """Return the names that a module offers, in the order of its source."""
    if hasattr(module, "__path__"):
        names = list(getattr(module, "__all__", ()))
    else:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (
                (getattr(value, "__module__", None) == module.__name__ and callable(value))
                or (name.isupper() and name in descriptions(module))
            )
        ]
    order = {name: place for place, name in enumerate(names)}

    def line(name: str) -> tuple[str, int]:
        value = inspect.unwrap(getattr(module, name))
        if inspect.isroutine(value) or inspect.isclass(value):
            return value.__module__, definition_lines(value.__module__).get(value.__name__, 0)
        return module.__name__, 0

    first = {}  # parts of a package in the order in which it names them
    for name in names:
        first.setdefault(line(name)[0], order[name])
    return sorted(names, key=lambda name: (first[line(name)[0]], line(name)[1], order[name]))


@cache
def definition_lines(module: str) -> dict[str, int]:
    """Return the line of each function and class that a module defines."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name: node.lineno for node in tree.body if isinstance(node, defined)}


@cache
def public_names() -> dict[str, list[str]]:
    """Return module -> names, for every public module and for the parts of subpackages.

    A part of a subpackage has a section of its own for what the subpackage does not offer itself.
    """
    found: dict[str, list[str]] = {}
    for name in module_names():
        module = importlib.import_module(name)
        found[name] = defined_names(module)
        if name.partition(".")[2] not in WITH_PARTS:
            continue
        offered = {id(getattr(module, member)) for member in found[name]}
        for part in pkgutil.iter_modules(module.__path__):
            place = f"{name}.{part.name}".partition(".")[2]
            if part.name.startswith("_") or place in INNER:
                continue
            inner = importlib.import_module(f"{name}.{part.name}")
            if rest := [n for n in defined_names(inner) if id(getattr(inner, n)) not in offered]:
                found[inner.__name__] = rest
    return found


@cache
def identities() -> dict[int, str]:
    """Return the full name of every public object by its identity, however it is imported."""
    found: dict[int, str] = {}
    for name, members in public_names().items():
        module = importlib.import_module(name)
        for member in members:
            found.setdefault(id(getattr(module, member)), f"{name}.{member}")
    return found


# --- the page ----------------------------------------------------------------------------------


@cache
def descriptions(module: ModuleType) -> dict[str, str]:
    """Return what a module says of its constants: in the string below or the comment after them."""
    source = inspect.getsource(module)
    lines, found = source.splitlines(), {}
    statements = ast.parse(source).body
    for place, node in enumerate(statements):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        below = statements[place + 1] if place + 1 < len(statements) else None
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = inspect.cleandoc(str(below.value.value))
        elif names and "  # " in lines[node.end_lineno - 1]:
            text = lines[node.end_lineno - 1].partition("  # ")[2].strip()
        if text:
            found |= dict.fromkeys(names, text)
    return found


def entry(module: ModuleType, name: str) -> Iterator[str]:
    """Yield the reStructuredText of one entry."""
    value = getattr(module, name)
    full = f"{module.__name__}.{name}"
    if inspect.isclass(value):
        yield from (f".. autoclass:: {full}", "   :members:", "   :member-order: bysource")
        yield from (f"   :exclude-members: {', '.join(HOOKS)}", "")
    elif callable(value) and get_origin(value) is None:
        yield from (f".. autofunction:: {full}", "")
    else:
        yield f".. py:data:: {full}"
        if isinstance(value, int | float | str):
            yield f"   :value: {value!r}"
        elif get_origin(value):  # a name for a type
            yield f"   :value: {inspect.formatannotation(value)}"
        about = descriptions(module).get(name, "").splitlines()
        yield from ("", *(f"   {line}" for line in about), "")


def sections() -> str:
    """Return the page's sections, as Markdown."""
    lines: list[str] = []
    for name, members in public_names().items():
        module = importlib.import_module(name)
        if not members:
            continue
        depth = name.count(".") - 1
        lines += [f"(api-{name.partition('.')[2].replace('.', '-').replace('_', '-')})="]
        lines += [f"#{'#' * (depth + 1)} `{name}`", ""]
        lines += ["```{eval-rst}", f".. py:module:: {name}", ""]
        lines += [inspect.getdoc(module) or "", "", f".. py:currentmodule:: {name}", ""]
        for member in members:
            lines += entry(module, member)
        lines += ["```", ""]
    return "\n".join(lines)


def write_sections(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the sections into the page as it is read."""
    if docname == PAGE:
        text = sections()
        source[0] = PLACE.sub(lambda match: text, source[0])


def fields_of(value: type) -> list[tuple[str, str, str]]:
    """Return (name, type, comment) of the fields of a named tuple or a dataclass."""
    if not (dataclasses.is_dataclass(value) or hasattr(value, "_fields")):
        return []
    names = getattr(value, "_fields", None) or [f.name for f in dataclasses.fields(value)]
    types = {
        field: getattr(kind, "__forward_arg__", kind)  # what stands in the source
        for field, kind in inspect.get_annotations(value).items()
    }
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        return []
    comments = dict(re.findall(r"^    (\w+): [^\n]*?  # ([^\n]*)$", source, re.MULTILINE))
    return [(name, str(types.get(name, "")), comments.get(name, "")) for name in names]


def keep_made_signatures() -> None:
    """Leave a signature that is made, not written, as it is: its defaults stand in no source."""
    read = preserve_defaults._get_arguments
    preserve_defaults._get_arguments = lambda value, /: (
        None if hasattr(value, "__signature__") else read(value)
    )


def describe_fields(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Add the fields of a named tuple or a dataclass, with the comments that stand after them."""
    if what != "class" or any(line.strip() in ("Attributes", "Parameters") for line in lines):
        return
    fields = fields_of(value)
    if fields:
        lines += ["", "Fields", "------"]
        for field, kind, comment in fields:
            lines += [f"{field} : {kind}" if kind else field, f"    {comment}"]
        lines += [""]


def skip_fields(
    app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what Python writes about the fields of named tuples."""
    if str(getattr(value, "__doc__", "")).startswith("Alias for field number"):
        return True
    return None


def resolve_reference(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Link a Python name to its entry; let a name without one stay as it is."""
    if node.get("refdomain") != "py":
        return None
    objects = env.get_domain("py").objects
    name = str(node.get("reftarget", ""))
    full = name if name in objects else names_of(env).get(name)
    if full is None:
        return None if name.startswith(f"{PACKAGE}.") else content
    target = objects[full]
    uri = app.builder.get_relative_uri(node.get("refdoc", env.docname), target.docname)
    return nodes.reference("", "", content, refuri=f"{uri}#{target.node_id}", internal=True)


# --- from the chapters to the page ---------------------------------------------------------------


def short_names(env: BuildEnvironment) -> dict[str, str]:
    """Return full names by every shorter form that can mean only one: ``dpo_loss``, ``TinyGPT``."""
    found: dict[str, set[str]] = {}
    for full, target in env.get_domain("py").objects.items():
        if target.docname != PAGE or target.aliased:
            continue
        parts = full.split(".")
        member = target.objtype in ("method", "property", "attribute", "staticmethod")
        shortest = 2 if member else 1  # a method only together with its class
        if target.objtype == "module":
            shortest = 2
        for length in range(shortest, len(parts) + 1):
            found.setdefault(".".join(parts[-length:]), set()).add(full)
            if not member:
                found.setdefault(f"{PACKAGE}.{'.'.join(parts[-length:])}", set()).add(full)
    return {name: full.pop() for name, full in found.items() if len(full) == 1}


names_of = lru_cache(maxsize=1)(short_names)  # of a book whose pages are all read


def section_of(node: nodes.Node) -> nodes.section | None:
    """Return the section right below the page's title in which a node stands."""
    section = None
    while node is not None:
        if isinstance(node, nodes.section):
            outer = node.parent
            if not isinstance(outer, nodes.section) or isinstance(outer.parent, nodes.document):
                if isinstance(outer, nodes.section):
                    return node
                section = node
        node = node.parent
    return section


def link_code(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make links of inline code that names an entry, once in each section."""
    if app.builder.format != "html" or docname == PAGE or not LINKED.match(docname):
        return
    names = names_of(app.env)
    objects = app.env.get_domain("py").objects
    seen: set[tuple[int, str]] = set()
    for literal in list(doctree.findall(nodes.literal)):
        match = CODE_NAME.fullmatch(literal.astext())
        full = names.get(match[1]) if match else None
        if full is None or in_link_or_title(literal):
            continue
        place = (id(section_of(literal)), full)
        if place in seen:
            continue
        seen.add(place)
        target = objects[full]
        uri = f"{app.builder.get_relative_uri(docname, target.docname)}#{target.node_id}"
        link = nodes.reference("", "", refuri=uri, internal=True, classes=["dpo-api"])
        literal.replace_self(link)
        link += literal


def in_link_or_title(node: nodes.Node) -> bool:
    """Whether a node stands where there can be no further link."""
    stop = (nodes.reference, nodes.title, nodes.caption, nodes.rubric, nodes.term)
    while node is not None:
        if isinstance(node, stop):
            return True
        node = node.parent
    return False


# --- from the page to the chapters ---------------------------------------------------------------


class Imports:
    """What the names of a page's code mean, as far as its import statements tell."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {PACKAGE: PACKAGE}

    def used(self, code: str) -> set[str]:
        """Return the full names of the public objects that a piece of code names."""
        try:
            tree = ast.parse(code)
        except SyntaxError:  # magics, other languages
            return set()
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == PACKAGE and alias.asname:
                        self.names[alias.asname] = alias.name
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                for alias in node.names:
                    self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Name | ast.Attribute):
                chain = ast.unparse(node)
                first, _, rest = chain.partition(".")
                if first in self.names and re.fullmatch(r"[\w.]*", chain):
                    found.add(f"{self.names[first]}.{rest}".rstrip("."))
        return {full for name in found if (full := find_object(name))}


@cache
def find_object(dotted: str) -> str | None:
    """Return the full name of the public object that a dotted name leads to."""
    parts = dotted.split(".")
    value: Any = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], start=1):
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = importlib.import_module(".".join(parts[: place + 1]))
            except ImportError:
                return None
    return identities().get(id(value))


def uses(env: BuildEnvironment) -> dict[str, list[tuple[str, str]]]:
    """Return for each public object the pages that use it: (page, section of the first use)."""
    names = names_of(env)
    found: dict[str, list[tuple[str, str]]] = {}
    for docname in NOTEBOOKS:
        imports = Imports()
        here: dict[str, str] = {}
        for node in env.get_doctree(docname).findall(
            lambda n: isinstance(n, nodes.literal | nodes.literal_block)
        ):
            if isinstance(node, nodes.literal):
                match = CODE_NAME.fullmatch(node.astext())
                used = {names[match[1]]} if match and match[1] in names else set()
            else:
                used = imports.used(node.astext())
            section = section_of(node)
            ids = [i for i in (section or {}).get("ids", []) if i not in REPEATED_IDS]
            for full in used:
                here.setdefault(full, ids[0] if ids else "")
        for full, anchor in here.items():
            found.setdefault(full, []).append((docname, anchor))
    return found


def page_label(docname: str) -> str:
    """Return ``chapter 9`` or ``appendix B``."""
    for number, page in CHAPTERS.items():
        if page == docname:
            return f"chapter {number}"
    (letter,) = (letter for letter, page in APPENDICES.items() if page == docname)
    return f"appendix {letter.upper()}"


def drop_return_types(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Leave out the return type where the docstring says what is returned."""
    if docname != PAGE:
        return
    for fields in doctree.findall(nodes.field_list):
        named = {field[0].astext(): field for field in fields}
        if "Returns" in named and "Return type" in named:
            fields.remove(named["Return type"])


def list_uses(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Close each entry of the page with the chapters that use it."""
    if docname != PAGE or app.builder.format != "html":
        return
    found = uses(app.env)
    for description in doctree.findall(addnodes.desc):
        signature = description.next_node(addnodes.desc_signature)
        full = (signature.get("ids") or [""])[0]
        pages = found.get(full, [])
        if not pages:
            continue
        line = nodes.paragraph("", "Used in ", classes=["dpo-used-in"])
        for place, (page, anchor) in enumerate(pages):
            uri = app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")
            line += nodes.Text(", " if place else "")
            line += nodes.reference("", page_label(page), refuri=uri, internal=True)
        content = description[-1]
        methods = (i for i, child in enumerate(content) if isinstance(child, addnodes.desc))
        content.insert(next(methods, len(content)), line)


def add_styles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give the page and the index its styles, and its signatures lines that are no list."""
    if pagename in (PAGE, "genindex"):
        app.add_css_file("api.css")
    if pagename == PAGE:
        # Sphinx writes the lines of a long signature as a <dl> without any <dt>.
        context["body"] = SIGNATURE.sub(
            lambda signature: LIST_TAG.sub(
                lambda tag: "</span>" if tag[1] else '<span class="sig-line">', signature[0]
            ),
            context["body"],
        )


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the extension."""
    keep_made_signatures()
    app.connect("source-read", write_sections)
    app.connect("autodoc-process-docstring", describe_fields, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", resolve_reference)
    app.connect("doctree-resolved", link_code)
    app.connect("doctree-resolved", list_uses)
    app.connect("doctree-resolved", drop_return_types)
    app.connect("html-page-context", add_styles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
