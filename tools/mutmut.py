"""Change every operator, number, name and text, one at a time, and list what no test notices.

Usage: ``python -m tools.mutmut [--jobs N] [--tests PATH] [NAME …]``; a name is
``dpo_lib.rewards*``, say, or that of a group. The groups of modules, and the tests that must
notice, stand in pyproject.toml; ``--tests`` takes others, such as the ones of a single module.

mutmut makes the changes, with a switch before every function. Its own runs start pytest for each of
them, which takes longer than the tests do: here all tests are collected once, and a process for
each function tries its changes, one after the other, on the tests that go through it. mutmut leaves
decorated functions alone: it is given a copy of the library in which they are decorated by a call.
What is made at import has been made before a switch is thrown: where that matters, what is left
over is tried once more in the file itself.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import gc
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build" / "mutmut"
AT_IMPORT = tuple(f"dpo_lib/losses/{name}.py" for name in ("form", "relatives"))
SLOW = 1  # second of a test: what quicker ones notice, it need not


class Group(NamedTuple):
    """Files that are changed, and the tests that must notice."""

    files: list[str]
    tests: list[str]


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


def chosen_groups(names: Sequence[str]) -> dict[str, Group]:
    """Groups of pyproject.toml, each with those of its files in which the names may lie."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["groups"]
    chosen = {}
    for group, entry in table.items():
        found = sorted({path for glob in entry["files"] for path in ROOT.glob(glob)})
        files = [path.relative_to(ROOT).as_posix() for path in found if path.suffix == ".py"]
        if group not in names:
            files = [file for file in files if any(_may_lie_in(file, name) for name in names)]
        if files:
            chosen[group] = Group(files, entry["tests"])
    return chosen


def _may_lie_in(file: str, name: str) -> bool:
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") + "."
    start = re.split(r"[*?[]", name)[0]
    return module.startswith(start) or start.startswith(module)


def make_changes(files: Sequence[str]) -> dict[str, list[str]]:
    """Let mutmut write the changed library; names of the changes of each file."""
    for name in ("dpo_lib", "tests", "tools"):
        shutil.copytree(ROOT / name, BUILD / name, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", BUILD)
    for path in (BUILD / "dpo_lib").rglob("*.py"):
        path.write_text(undecorated(path.read_text()))
    os.chdir(BUILD)
    (BUILD / "mutants").mkdir(exist_ok=True)
    from mutmut import __main__ as mutmut
    from mutmut.configuration import config
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.utils.file_utils import walk_mutatable_files

    config().only_mutate = files
    set_mutant_under_test("mutant_generation")
    with contextlib.redirect_stdout(io.StringIO()):  # it names every file
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.setup_source_paths()
        mutmut.create_mutants(1)
    found = {}
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        found[str(path)] = [name.replace("__init__.", "") for name in data.exit_code_by_key]
    return found


class Trial:
    """Pytest plugin: which test goes through which function, and which change one of them notices.

    Parameters
    ----------
    changes : dict
        Names of changes, and the paths of the tests that must notice each.
    jobs : int
        Processes at a time.
    """

    def __init__(self, changes: dict[str, Sequence[str]], jobs: int) -> None:
        self.functions: dict[str, list[str]] = defaultdict(list)
        self.tests: dict[str, Sequence[str]] = {}
        for name, tests in changes.items():
            function = name.rpartition("__mutmut_")[0]
            self.functions[function].append(name)
            self.tests[function] = tests
        self.jobs, self.left = jobs, []

    def pytest_collection_modifyitems(self, items: list) -> None:
        """Leave out what starts a browser."""
        items[:] = [item for item in items if "browser" not in item.fixturenames]

    def pytest_runtestloop(self, session) -> bool:
        """In the place of one pass over the tests."""
        from mutmut.mutation.trampoline import set_mutant_under_test
        from mutmut.state import state

        set_mutant_under_test("stats")
        through, seconds = defaultdict(list), {}
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            state()._stats.clear()
            started = time.perf_counter()
            if not passes(item, following):
                print(f"not asked, as it fails without any change: {item.nodeid}", flush=True)
                continue
            seconds[item] = time.perf_counter() - started
            for function in state()._stats:
                own = self.tests.get(function, ())
                if any(_stands_in(item.nodeid, path) for path in own):
                    through[function].append(item)
        print(f"{len(seconds)} tests pass in {sum(seconds.values()):.0f} s", flush=True)
        gc.freeze()
        with ThreadPoolExecutor(self.jobs) as pool:
            jobs = {name: _quick(through[name], seconds) for name in self.functions}
            limits = {name: 15 * (1 + sum(map(seconds.get, items))) for name, items in jobs.items()}
            outcomes = pool.map(
                lambda name: self._try(self.functions[name], jobs[name], limits[name]), jobs
            )
            for name, left in zip(jobs, outcomes, strict=True):
                self.left += left
                number = len(self.functions[name])
                print(f"{name}: {len(left)} of {number} left", *left, sep="\n  ", flush=True)
        return True

    def _try(self, changes: list[str], items: list, limit: float) -> list[str]:
        """Those of a function's changes that no test notices; to hang, or crash, is to notice."""
        left = []
        while changes:
            said = in_a_process(lambda todo=tuple(changes): _notice(todo, items), limit)
            for noticed, name in zip(said, tuple(changes), strict=False):
                changes = changes[1:]
                if not noticed:
                    left.append(name)
            changes = changes[1:]  # at which the process ended
        return left


def _notice(changes: Sequence[str], items: list) -> Iterator[bool]:
    """Whether the tests notice each change."""
    from mutmut.mutation.trampoline import set_mutant_under_test

    for name in changes:
        set_mutant_under_test(name)
        yield not all(map(passes, items, [*items[1:], None]))


def in_a_process(values: Callable[[], Iterator], limit: float | None = None) -> Iterator:
    """What a function yields in a process of its own, as far as that comes.

    Parameters
    ----------
    values : callable
        What it yields can be written as JSON.
    limit : float, optional
        Seconds that a value may take: then the process is ended, with all that it has started.
    """
    read, write = os.pipe()
    process = os.fork()
    if not process:
        os.setsid()
        os.close(read)
        for value in values():
            os.write(write, f"{json.dumps(value)}\n".encode())
        os._exit(0)
    os.close(write)
    try:
        with open(read, "rb", buffering=0) as lines:  # a buffer would hold what select asks for
            while select.select([lines], [], [], limit)[0] and (line := lines.readline()):
                yield json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _quick(items: list, seconds: dict) -> list:
    """The quickest files first, each file's tests together, as they share what is made for them.

    Slow tests are left out where there are others.
    """
    kept = [item for item in items if seconds[item] < SLOW] or items
    of_file = defaultdict(float)
    for item in kept:
        of_file[item.path] += seconds[item]
    return sorted(kept, key=lambda i: (of_file[i.path], i.path, seconds[i]))


def _stands_in(test: str, path: str) -> bool:
    """Whether a test, maybe one of several parameters, is named by a path of it, or above it."""
    return test.startswith(path) and test[len(path) :][:1] in ("", "/", ":", "[")


def passes(item, following) -> bool:
    """Whether a test passes; ``following`` is the next one, None after the last."""
    from _pytest.runner import runtestprotocol

    return all(report.passed for report in runtestprotocol(item, nextitem=following, log=False))


class _Change(NamedTuple):
    """A module as mutmut has changed it, in the form in which `try_tests` takes a mutant."""

    file: str
    changed: str

    def applied_to(self, source: str) -> str:
        return self.changed


def noticed_in_the_file(name: str, file: str) -> bool:
    """Whether a test of the losses notices the change if it stands in the file itself."""
    from tools.mutant_list import LOSSES  # imports the library, as do all tests
    from tools.mutants import try_tests

    path = BUILD / file
    source = path.read_text()
    try:
        command = [sys.executable, "-m", "mutmut", "apply", name]
        environment = os.environ | {"PYTHONPATH": str(BUILD / "site")}
        subprocess.run(command, cwd=BUILD, env=environment, check=True)
        change = _Change(file, path.read_text())
    finally:
        path.write_text(source)
    return bool(try_tests(LOSSES, change).noticed_by)


def main() -> int:
    """Try all changes and print the score of each module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--tests", action="append", help="a path, in the place of the groups'")
    parser.add_argument("names", nargs="*", default=["*"])
    arguments = parser.parse_args()
    groups = chosen_groups(arguments.names)
    if not groups:
        parser.error(f"no group of pyproject.toml has changes in {arguments.names}")
    sys.path.append(str(BUILD / "site"))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["PYTHONPATH"] = f"{BUILD / 'mutants'}{os.pathsep}{BUILD / 'site'}"  # of what is run
    changes, tests = {}, {}
    made = make_changes([file for group in groups.values() for file in group.files])
    for group, (files, own) in groups.items():
        for file in files:
            wanted = ["*"] if group in arguments.names else arguments.names
            names = [n for n in made[file] if any(fnmatch.fnmatch(n, name) for name in wanted)]
            changes[file] = names
            tests |= dict.fromkeys(names, arguments.tests or own)
    import pytest
    from mutmut.configuration import config

    selection = [*dict.fromkeys(path for paths in tests.values() for path in paths)]
    options = ["--rootdir=.", "-q", "-p", "no:cacheprovider", *config().pytest_add_cli_args]
    os.chdir(BUILD / "mutants")
    trial = Trial(tests, arguments.jobs)
    code = pytest.main([*options, *selection], plugins=[trial])
    if code not in (0, 5):
        return int(code)
    for file, names in changes.items():
        left = [name for name in trial.left if name in {*names}]
        if file in AT_IMPORT:
            left = [name for name in left if not noticed_in_the_file(name, file)]
        if names:
            again = left if file in AT_IMPORT else ()
            print(f"{file}: {len(names) - len(left)} of {len(names)} noticed", *again, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
