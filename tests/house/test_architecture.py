"""The house: which module may import which, what stands where, what must not be left behind."""

import ast
import functools
import re
import string
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from dpo_contents import APPENDICES, CHAPTERS, PAGES, ROOMS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dpo_lib"
# The capstone's page is data: it is shown and run by itself, and imports nothing of ours.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "capstone")

RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
CORE = {room for room, rank in RANK.items() if rank < RANK["figures"]}
DOORS = {"pair_log_probs", "cache"}  # what the rest of the package may import of dpo_lib.fast
BEHIND = ("fast", "benchmarks")  # a benchmark measures what is behind the doors
HEAVY = ["IPython", "anywidget", "ipywidgets", "matplotlib", "pandas", "playwright", "transformers"]

NEEDED = {
    *("README.md", "requirements.txt", "pyproject.toml", "Makefile", "_config.yml", "_toc.yml"),
    *("book", "notebooks", "dpo_lib", "tests", ".ci"),
}
ALLOWED = NEEDED | {
    ".gitattributes",
    ".gitignore",
    "CONTRIBUTING.md",
    "LICENSE",
    "constraints.txt",
    "tools",
}


@functools.cache
def tracked():
    """Every file of the project: what git tracks or would track."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.fail(f"these tests need a git checkout: {listing.stderr}", pytrace=False)
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def own_texts():
    """Name and text of every file that was written here, vendored ones left out."""
    for name in tracked():
        if "vendor" in Path(name).parts:
            continue
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


# --- imports -------------------------------------------------------------------------------------


def imported_paths(tree, parts):
    """Yield the dotted path of every import from dpo_lib; type-checking imports do not run."""

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from visit(child)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dpo_lib":
                    yield alias.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            base = list(parts[: len(parts) - node.level]) if node.level else []
            path = base + (node.module.split(".") if node.module else [])
            if path[:1] == ["dpo_lib"]:
                for alias in node.names:
                    yield [*path, alias.name]
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return visit(tree)


def imported_rooms(tree, parts):
    """Yield the room of each import from dpo_lib."""
    for path in imported_paths(tree, parts):
        yield [*path, ""][1]


def wrong_imports(source, parts):
    """Describe the imports of one module (its dotted path in parts) that go the wrong way."""
    room = parts[1]
    for other in imported_rooms(ast.parse(source), parts):
        if other == room:
            continue
        if other not in RANK:
            yield f"{room} imports {other!r}: is it a module, and a room in pyproject.toml?"
        elif RANK[other] >= RANK[room]:
            yield f"{room} imports {other}, which comes after it in the derivation"


def dotted(path):
    return path.relative_to(ROOT).with_suffix("").parts


@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(dotted(path)[1:]))
def test_imports_run_one_way(path):
    parts = dotted(path)
    if parts[1:] == ("__init__",):
        rooms = {*imported_rooms(ast.parse(path.read_text("utf-8")), parts)}
        assert rooms <= CORE
    else:
        assert parts[1] in RANK, f"add {parts[1]} to the rooms in pyproject.toml"
        assert not list(wrong_imports(path.read_text("utf-8"), parts))


@pytest.mark.parametrize(
    ("source", "module", "fine"),
    [
        ("from dpo_lib.rewards import dpo_reward", "losses", True),
        ("from dpo_lib.training import train_dpo", "losses", False),
        ("import dpo_lib.training", "losses", False),
        ("from dpo_lib import training", "losses", False),
        ("from .training import train_dpo", "losses", False),
        ("from . import rewards", "losses", True),
        ("from . import training", "losses", False),
        ("from dpo_lib import dpo_loss", "rewards", False),
        ("import dpo_lib", "losses", False),
        ("from dpo_lib import nobody", "losses", False),
        ("def f():\n    from dpo_lib import figures", "losses", False),
        ("def f():\n    from dpo_lib.figures import plot", "training", False),
        ("if TYPE_CHECKING:\n    from dpo_lib.training import A", "losses", True),
        ("if True:\n    from dpo_lib.training import A", "losses", False),
        ("from ..preference import x\nfrom .spec import y", "widgets.base", True),
        ("from ..figures import x", "widgets.base", False),
        ("import torch, json\nfrom math import log", "losses", True),
    ],
)
def test_the_direction_is_seen(source, module, fine):
    found = list(wrong_imports(source, ("dpo_lib", *module.split("."))))
    assert (found == []) is fine


def module_graph(sources):
    """Module -> modules that it imports, at any time; sources by their dotted path."""
    graph = {}
    for parts, source in sources.items():
        graph[parts] = set()
        for path in imported_paths(ast.parse(source), parts):
            found = tuple(path)
            while found not in sources and (*found, "__init__") not in sources:
                found = found[:-1]
            graph[parts].add(found if found in sources else (*found, "__init__"))
    return graph


def test_no_module_reaches_itself_over_others():
    sources = {dotted(path): path.read_text("utf-8") for path in MODULES}
    assert [*TopologicalSorter(module_graph(sources)).static_order()]


def test_a_circle_is_seen():
    sources = {
        ("dpo_lib", "a", "__init__"): "",
        ("dpo_lib", "a", "x"): "def f():\n    from dpo_lib.a.y import g",
        ("dpo_lib", "a", "y"): "from dpo_lib import a\nfrom dpo_lib.a import z",
        ("dpo_lib", "a", "z"): "import torch",
    }
    assert [*TopologicalSorter(module_graph(sources)).static_order()]
    sources["dpo_lib", "a", "z"] = "from .x import f"
    with pytest.raises(CycleError):
        TopologicalSorter(module_graph(sources)).prepare()


def behind_the_doors(source):
    """Modules of the fast path that a source imports, other than those meant for it."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            found = re.match(r"(?:dpo_lib\.)?fast\.(\w+)", name)
            if found and found[1] not in DOORS:
                yield found[1]


def test_the_fast_path_is_entered_by_its_doors():
    outside = [path for path in MODULES if dotted(path)[1] not in BEHIND]
    found = {path.name: [*behind_the_doors(path.read_text("utf-8"))] for path in outside}
    assert not {name: modules for name, modules in found.items() if modules}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from dpo_lib.fast.pair_log_probs import PairLogProbs", []),
        ("from dpo_lib.fast import cache", []),
        ("from dpo_lib.fast import kernels", ["kernels"]),
        ("import dpo_lib.fast.lean", ["lean"]),
        ("from ..fast.prefix_tree import pack_pairs", ["prefix_tree"]),
        ("def f():\n    from dpo_lib.fast.backbones import Parts", ["backbones"]),
    ],
)
def test_another_way_into_the_fast_path_is_seen(source, found):
    assert [*behind_the_doors(source)] == found


def imports_tests(source):
    """Whether a source imports anything from the tests."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        if any(name.split(".")[0] == "tests" for name in names):
            return True
    return False


def test_only_tests_import_tests():
    sources = {name: text for name, text in own_texts() if name.endswith(".py")}
    assert any(name.startswith("tools/") for name in sources)
    outside = [name for name in sources if not name.startswith("tests/")]
    assert not [name for name in outside if imports_tests(sources[name])]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from tests.conftest import browser", True),
        ("def f():\n    import json, tests.helpers", True),
        ("from tests import helpers", True),
        ("from tools import tests", False),
        ("from .tests import x\nimport pytest", False),
    ],
)
def test_an_import_of_tests_is_seen(source, found):
    assert imports_tests(source) is found


WALL_CLOCK = re.compile(
    r"\btime\.(?:time|time_ns|localtime|gmtime|ctime|strftime)\b|\bfrom time import"
    r"|\bdatetime\b|\bst_[amc]time|\bget[amc]time\b"
)


def test_the_library_does_not_ask_what_time_it_is():
    """A clock may be set back: what goes on from a file looks at what is in it."""
    found = {path.name for path in MODULES if WALL_CLOCK.search(path.read_text("utf-8"))}
    assert found == {"machine.py"}  # the day of a benchmark, to be read


def test_the_core_imports_nothing_heavy():
    names = [
        ".".join(part for part in dotted(path) if part != "__init__")
        for path in MODULES
        if dotted(path)[1] in CORE | {"__init__"}
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[]\n"


# --- what is public ------------------------------------------------------------------------------


def undocumented(source):
    """Describe what is public in a module and lacks a docstring or type hints."""
    tree = ast.parse(source)
    if ast.get_docstring(tree) is None:
        yield "the module has no docstring"

    def visit(body, owner=""):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if ast.get_docstring(node) is None:
                    yield f"class {node.name} has no docstring"
                yield from visit(node.body, f"{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                special = node.name.startswith("__") and node.name.endswith("__")
                if node.name.startswith("_") and not special:
                    continue
                if not special and ast.get_docstring(node) is None:
                    yield f"{owner}{node.name} has no docstring"
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments += [node.args.vararg, node.args.kwarg]
                for argument in filter(None, arguments):
                    if argument.annotation is None and argument.arg not in ("self", "cls"):
                        yield f"{owner}{node.name}: {argument.arg} has no type hint"
                if node.returns is None:
                    yield f"{owner}{node.name}: the result has no type hint"

    yield from visit(tree.body)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(dotted(path)[1:]))
def test_what_is_public_is_documented_and_typed(path):
    assert not list(undocumented(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "module"),
        ('"""M."""\nclass A: pass', "class A"),
        ('"""M."""\ndef f() -> None: pass', "f has no docstring"),
        ('"""M."""\ndef f(x) -> None:\n    "D"', "x has no type hint"),
        ('"""M."""\ndef f(*args, k: int) -> None:\n    "D"', "args has no type hint"),
        ('"""M."""\ndef f():\n    "D"', "the result"),
        ('"""M."""\nclass A:\n    "D"\n    def f(self) -> None: pass', "A.f has no docstring"),
        ('"""M."""\nclass A:\n    "D"\n    def __init__(self, x) -> None: pass', "x has no type"),
    ],
)
def test_missing_documentation_is_seen(source, message):
    (problem,) = undocumented(source)
    assert message in problem


# --- what stands where ---------------------------------------------------------------------------


def test_the_top_level_holds_what_it_should_and_nothing_else():
    entries = {Path(name).parts[0] for name in tracked()}
    assert not NEEDED - entries, "missing"
    assert not entries - ALLOWED, "not foreseen"


def test_chapters_and_appendices_are_in_the_table_of_contents_in_their_order():
    assert len(PAGES) == len(set(PAGES))
    for folder, listed in [("notebooks", CHAPTERS), ("book/appendices", APPENDICES)]:
        paths = [path for path in (ROOT / folder).iterdir() if path.suffix in (".ipynb", ".md")]
        assert list(listed.values()) == sorted(f"{folder}/{path.stem}" for path in paths)
    assert list(CHAPTERS) == list(range(1, len(CHAPTERS) + 1))
    assert "".join(APPENDICES) == string.ascii_lowercase[: len(APPENDICES)]


def test_the_chapters_are_notebooks_and_stand_alone_in_their_folder():
    names = {path.name for path in (ROOT / "notebooks").iterdir() if path.name[0] != "."}
    assert names == {f"{Path(page).name}.ipynb" for page in CHAPTERS.values()}


def test_every_room_is_there():
    there = {dotted(path)[1] for path in MODULES} - {"__init__"}
    assert {room for rooms in ROOMS for room in rooms} == there


# --- what must not be left behind ----------------------------------------------------------------

# In two halves, so that this file does not find itself.
UNFINISHED = [a + b for a, b in [("TO", "DO"), ("FIX", "ME"), ("XX", "X")]]
NOT_DONE = "NotImplemented" + "Error"
LEFT_BEHIND = {
    "a path of one machine": re.compile(r"(?<![\w.:/$}])/(?:home|root|Users|tmp|work)/\w"),
    "something unfinished": re.compile(rf"\b(?:{'|'.join(UNFINISHED)})\b"),
    "a merge conflict": re.compile(r"^(?:<{7} |>{7} |={7}$)", re.MULTILINE),
}


@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_nothing_is_left_behind(what):
    found = []
    for name, text in own_texts():
        for match in LEFT_BEHIND[what].finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{name}, line {line}: {match[0]}")
    assert not found, "\n" + "\n".join(found)


def not_done(sources):
    """Describe every raised NotImplementedError, except that of a method which others define."""
    functions = [
        (name, node)
        for name, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    ]
    counts = Counter(node.name for _, node in functions)
    for name, node in functions:
        body = node.body[ast.get_docstring(node) is not None :]
        abstract = len(body) == 1 and isinstance(body[0], ast.Raise) and counts[node.name] > 1
        if NOT_DONE in ast.unparse(body) and not abstract:
            yield f"{name}: {node.name}"


def test_nothing_is_not_implemented():
    sources = {name: text for name, text in own_texts() if name.endswith(".py")}
    assert not list(not_done(sources))


@pytest.mark.parametrize(
    ("source", "fine"),
    [
        (f"def f(): raise {NOT_DONE}", False),
        (f"def f(x):\n    if x: raise {NOT_DONE}('later')", False),
        (f"class A:\n    def f(self):\n        'D'\n        raise {NOT_DONE}", False),
        (f"class A:\n  def f(self):\n    raise {NOT_DONE}\nclass B(A):\n  def f(self): 1", True),
    ],
)
def test_what_is_not_implemented_is_seen(source, fine):
    assert (list(not_done({"a.py": source})) == []) is fine


@pytest.mark.parametrize(
    ("what", "bad", "good"),
    [
        ("a path of one machine", '"/ho' + 'me/me/x"', "https://a.b/home/x $HOME/tmp/x"),
        ("something unfinished", "# TO" + "DO: later", "todos"),
        ("a merge conflict", "a\n" + "<" * 7 + " HEAD\n", "a\n======\n"),
    ],
)
def test_what_is_left_behind_is_seen(what, bad, good):
    assert LEFT_BEHIND[what].search(bad)
    assert not LEFT_BEHIND[what].search(good)


def test_files_end_with_one_newline_and_have_unix_line_ends():
    wrong = []
    for name in tracked():
        if "vendor" in Path(name).parts or name.endswith((".min.js", ".safetensors", ".png")):
            continue
        data = (ROOT / name).read_bytes()
        if b"\0" not in data and data and (b"\r\n" in data or not data.endswith(b"\n")):
            wrong.append(name)
    assert not wrong
