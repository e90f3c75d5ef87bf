"""Joins the browser modules into one script, in Python, so that the book needs no node.

The modules in ``js/`` are ES modules written in a small subset: named imports from relative
paths and named exports. Each becomes a function scope whose exports are an object, in the order
of their imports. A notebook gets the result as an ES module (``esm``), the static book as
classic scripts, because pages opened from ``file://`` cannot import modules: one script for the
widgets that come with a page (``static_script``), one for each module of those that come later
(``module_script``), which ``near.js`` adds to the page.
"""

from __future__ import annotations

import functools
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

JS_DIR = Path(__file__).parent / "js"
CSS_DIR = Path(__file__).parent / "css"

_MODULES = "const modules = ((window.dpoBook ??= {}).modules ??= {});\n"  # what a page has so far

_IMPORT = re.compile(
    r"^import\s+(?:\{(?P<names>[^}]*)\}|\*\s+as\s+(?P<space>\w+))"
    r'\s+from\s+"(?P<path>[^"]+)";[ \t]*\n?',
    re.MULTILINE,
)
_DECLARATION = re.compile(
    r"^export\s+(?=(?:async\s+)?(?:function\*?|const|let|class)\s+(\w+))", re.MULTILINE
)
_COMMENT_LINE = re.compile(r"^[ \t]*(?://.*)?\n", re.MULTILINE)  # and empty ones
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)
_EXPORT_LIST = re.compile(r"\bexport\s*\{([^}]*)\};?\s*\Z")


def kinds() -> tuple[str, ...]:
    """Return the widget kinds: the file names in ``js/widgets``."""
    return tuple(sorted(path.stem for path in (JS_DIR / "widgets").glob("*.js")))


@functools.cache
def esm(kind: str) -> str:
    """Return the ES module that ``anywidget`` runs for one kind of widget."""
    path = _widget_path(kind)
    modules = _in_import_order(["runtime.js", path])
    return (
        _scopes(modules)
        + f"export default {{ render: {_scope_name('runtime.js')}.live({_scope_name(path)}) }};\n"
    )


def static_script(wanted: Iterable[str] | None = None) -> str:
    """Return the classic script for static pages: all widgets, or the ``wanted`` kinds.

    It mounts every such ``[data-dpo-widget]`` and adds one global, ``dpoBook``.
    """
    return _static_script(kinds() if wanted is None else tuple(sorted(set(wanted))))


@functools.cache
def _static_script(chosen: tuple[str, ...]) -> str:
    paths = {kind: _widget_path(kind) for kind in chosen}
    modules = _in_import_order(["math.js", "runtime.js", *paths.values()])
    table = ", ".join(f"{kind}: {_scope_name(path)}" for kind, path in paths.items())
    return (
        '(() => {\n"use strict";\n'
        + _scopes(modules)
        + f"{_MODULES}Object.assign(modules, {{ {', '.join(map(_scope_name, modules))} }});\n"
        + f"{_scope_name('runtime.js')}.boot({{ {table} }}, {_scope_name('math.js')});\n"
        + "})();\n"
    )


def classic(entry: str, code: str) -> str:
    """Return a classic script of all that ``entry`` needs, then ``code``.

    There the exports of ``live/worker.js`` are ``module_live_worker``.
    """
    return f'(() => {{\n"use strict";\n{_scopes(_in_import_order([entry]))}{code}\n}})();\n'


def module_names(kind: str) -> list[str]:
    """Return the names of the modules that a kind of widget needs, each after its imports."""
    order = _in_import_order(["runtime.js", _widget_path(kind)])
    return [_scope_name(path) for path in order]


def module_script(name: str) -> str:
    """Return the classic script that adds one module, by its name, to ``dpoBook.modules``."""
    path = _module_path(name)
    paths = (match["path"] for match in _IMPORT.finditer(_source(path)))
    needed = sorted({_scope_name(_resolve(path, target)) for target in paths})
    takes = f"const {{ {', '.join(needed)} }} = modules;\n" if needed else ""
    body = f"{_MODULES}{takes}{_scope(path, _source(path))}modules.{name} = {name};\n"
    return f'(() => {{\n"use strict";\n{body}}})();\n'


def module_css(name: str) -> str:
    """Return the style sheet that stands beside a module, or an empty text."""
    path = (JS_DIR / _module_path(name)).with_suffix(".css")
    return _squeeze(path.read_text(encoding="utf-8")) if path.is_file() else ""


def near_script(loads: Mapping[str, str]) -> str:
    """Return the classic script that brings widgets when they are wanted; how, by kind."""
    table = {
        kind: {
            "load": load,
            "modules": module_names(kind),
            "styles": [name for name in module_names(kind) if module_css(name)],
        }
        for kind, load in loads.items()
    }
    data = json.dumps(table, separators=(",", ":"))
    return classic("near.js", f"{_scope_name('near.js')}.start({data});")


def static_css(wanted: Iterable[str] | None = None) -> str:
    """Return the style sheet of all widgets, or of the ``wanted`` kinds, with the palette."""
    return theme_css() + widget_css(kinds() if wanted is None else wanted)


def widget_css(wanted: Iterable[str]) -> str:
    """Return the common rules and the own ones of the ``wanted`` kinds, without the palette."""
    return _rules(dict.fromkeys(name for kind in wanted for name in module_names(kind)))


def page_css(entry: str) -> str:
    """Return the style sheet of a page whose script is `classic` of ``entry``."""
    return theme_css() + _rules(map(_scope_name, _in_import_order([entry])))


def preview_css(kind: str) -> str:
    """Return the rules that a widget's preview needs, without the palette."""
    frame = _squeeze((CSS_DIR / "frame.css").read_text(encoding="utf-8"))
    return frame + "".join(map(module_css, module_names(kind)))


@functools.cache
def theme_css() -> str:
    """Return the palette alone: the CSS variables of the light and the dark theme."""
    return (CSS_DIR / "theme.css").read_text(encoding="utf-8")


@functools.cache
def palette(theme: str) -> dict[str, str]:
    """Return the colors of the ``"light"`` or ``"dark"`` theme by name: ``{"ink": "#1f2933"}``."""
    blocks = dict(zip(("light", "dark"), re.findall(r"\{([^}]*)\}", theme_css()), strict=True))
    return dict(re.findall(r"--dpo-([\w-]+):\s*(#[0-9a-f]{6});", blocks[theme]))


def _rules(names: Iterable[str]) -> str:
    """The rules of every widget, then those of the modules."""
    common = (CSS_DIR / name for name in ("frame.css", "widgets.css"))
    squeezed = (_squeeze(path.read_text(encoding="utf-8")) for path in common)
    return "".join([*squeezed, *map(module_css, names)])


def _squeeze(rules: str) -> str:
    """Leave out comments and the space at the ends of lines: every page pays for them."""
    return re.sub(r"\s*\n\s*", "", re.sub(r"/\*.*?\*/", "", rules, flags=re.DOTALL))


def _widget_path(kind: str) -> str:
    if kind not in kinds():
        raise ValueError(f"unknown widget kind {kind!r}; there are {list(kinds())}")
    return f"widgets/{kind}.js"


def _in_import_order(entries: Iterable[str]) -> list[str]:
    """Return the modules that ``entries`` need, each after those it imports."""
    order: list[str] = []
    open_paths: list[str] = []

    def visit(path: str) -> None:
        if path in order:
            return
        if path in open_paths:
            raise ValueError(f"import cycle: {' -> '.join([*open_paths, path])}")
        open_paths.append(path)
        for match in _IMPORT.finditer(_source(path)):
            visit(_resolve(path, match["path"]))
        open_paths.pop()
        order.append(path)

    for entry in entries:
        visit(entry)
    return order


def _scopes(modules: Iterable[str]) -> str:
    return "".join(_scope(path, _source(path)) for path in modules)


def _scope(path: str, source: str) -> str:
    """Turn one ES module into ``const module = (() => { …; return { exports }; })();``."""

    def import_to_const(match: re.Match[str]) -> str:
        target = _scope_name(_resolve(path, match["path"]))
        if match["space"]:
            return f"const {match['space']} = {target};\n"
        names = re.sub(r"(\w+)\s+as\s+(\w+)", r"\1: \2", match["names"].strip().rstrip(","))
        return f"const {{ {names} }} = {target};\n"

    exports = [(name, name) for name in _DECLARATION.findall(source)]
    body = _DECLARATION.sub("", _IMPORT.sub(import_to_const, source))
    export_list = _EXPORT_LIST.search(body)
    if export_list:
        for item in filter(None, (part.strip() for part in export_list[1].split(","))):
            local, _, exported = item.partition(" as ")
            exports.append((exported.strip() or local, local))
        body = body[: export_list.start()]
    left_over = re.search(r"^(?:import|export)\b.*", body, re.MULTILINE)
    if left_over:
        raise ValueError(f"{path}: form not supported by the joiner: {left_over[0]}")
    if not path.startswith("vendor/"):  # readers of the source have it; every page pays for it
        body = _COMMENT_LINE.sub("", body)
        if not any(line.count("`") % 2 for line in body.splitlines()):  # no text of several lines
            body = _INDENT.sub("", body)
    table = ", ".join(key if key == local else f"{key}: {local}" for key, local in exports)
    return f"const {_scope_name(path)} = (() => {{\n{body}\nreturn {{ {table} }};\n}})();\n"


@functools.cache
def _source(path: str) -> str:
    return (JS_DIR / path).read_text(encoding="utf-8")


def _resolve(importer: str, target: str) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(importer), target))
    if not target.startswith(".") or path.startswith("..") or not (JS_DIR / path).is_file():
        raise ValueError(f"{importer}: cannot import {target!r}")
    return path


def _scope_name(path: str) -> str:
    return "module_" + re.sub(r"\W", "_", path.removesuffix(".js"))


def _module_path(name: str) -> str:
    paths = (path.relative_to(JS_DIR).as_posix() for path in JS_DIR.rglob("*.js"))
    return next(path for path in paths if _scope_name(path) == name)
