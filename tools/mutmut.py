"""Let mutmut change every operator, number, name and text, and list what no test notices.

Usage: ``python -m tools.mutmut [--jobs N] [NAME …]``; a name is ``dpo_lib.rewards*``, say.
The modules, and the tests that must notice, stand in pyproject.toml.

mutmut puts a switch before every function and throws it when a test begins. Two things are out of
its reach so. It leaves decorated functions alone: it is given a copy of the library in which they
are decorated by a call. And what is made at import has been made by then: where that matters, the
changes that are left over are tried once more in the file itself.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tools.mutant_list import LOSSES
from tools.mutants import prepare, try_tests

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build" / "mutmut"
AT_IMPORT = tuple(f"dpo_lib/losses/{name}.py" for name in ("__init__", "form", "relatives"))
UNNOTICED = (0, 5, 33)  # exit codes: all tests passed, or there were none


def undecorated(source: str) -> str:
    """Write ``f = decorator(f)`` below each function and method that is decorated above.

    Caches keep their decorator: they would answer from before the change.
    """
    tree = ast.parse(source)
    homes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    functions = [node for home in homes for node in home.body if isinstance(node, ast.FunctionDef)]
    lines = source.splitlines(keepends=True)
    for node in sorted(functions, key=lambda node: -node.lineno):
        calls = [ast.unparse(decorator) for decorator in node.decorator_list]
        if calls and not any(kept in call for call in calls for kept in ("cache", ".setter")):
            applied = "(".join([*calls, node.name]) + ")" * len(calls)
            lines.insert(node.end_lineno, f"{' ' * node.col_offset}{node.name} = {applied}\n")
            del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "".join(lines)


def _copy() -> None:
    """What mutmut works on; it knows by itself which functions are as they were."""
    for name in ("dpo_lib", "tests", "tools"):
        shutil.copytree(ROOT / name, BUILD / name, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", BUILD)
    for path in (BUILD / "dpo_lib").rglob("*.py"):
        path.write_text(undecorated(path.read_text()))


def _mutmut(*arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(BUILD / "site")}
    command = [sys.executable, "-m", "mutmut", *arguments]
    subprocess.run(command, cwd=BUILD, env=environment, check=True)


class _Change(NamedTuple):
    """A module as mutmut has changed it, in the form in which `try_tests` takes a mutant."""

    file: str
    changed: str

    def applied_to(self, source: str) -> str:
        return self.changed


def noticed_in_the_file(name: str, file: str) -> bool:
    """Whether a test of the losses notices the change if it stands in the file itself."""
    path = BUILD / file
    source = path.read_text()
    try:
        _mutmut("apply", name)
        change = _Change(file, path.read_text())
    finally:
        path.write_text(source)
    return bool(try_tests(LOSSES, change).noticed_by)


def main() -> int:
    """Run mutmut, try again what is made at import, and print the score of each module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    _copy()
    prepare()  # for mutmut, too: plugins take longer than a change
    _mutmut("run", "--max-children", str(arguments.jobs), *arguments.names)
    for meta in sorted((BUILD / "mutants").rglob("*.py.meta")):
        file = str(meta.relative_to(BUILD / "mutants").with_suffix(""))
        tried = {
            name: code
            for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()
            if code is not None
            and any(fnmatch.fnmatch(name, wanted) for wanted in arguments.names or ["*"])
        }
        left = [name for name, code in tried.items() if code in UNNOTICED]
        if file in AT_IMPORT:
            left = [name for name in left if not noticed_in_the_file(name, file)]
        if tried:
            print(f"{file}: {len(tried) - len(left)} of {len(tried)} noticed", *left, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
