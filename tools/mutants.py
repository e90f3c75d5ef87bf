"""Break the project on purpose, one line at a time, and see that its tests notice.

Usage: ``python -m tools.mutants [--jobs N] [words …]``; words choose mutants of the list
by their description or kind.

Each mutant is one small change to a copy of the project in a temporary folder; the working tree is
never touched. The tests of what was changed run on the copy until the first one fails. First, as a
control, they must all pass on an unchanged copy. Exits 0 if every mutant was noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools.mutant_list import KINDS, Mutant

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 600  # seconds a mutant may run: one that hangs is noticed too
OWN = ("dpo_lib", "tests", "tools")  # packages of which a copy must be its own
BESIDE = (".*", "_build", "dist", "__pycache__", "node_modules")  # of the project, but not copied


class Outcome(NamedTuple):
    """What the tests said: ``noticed_by`` is empty if they all passed."""

    noticed_by: str
    seconds: float


class _FirstFailure:
    """Pytest plugin: remember the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.removeprefix("tests/")

    def pytest_collectreport(self, report) -> None:
        if report.failed and not self.name:
            self.name = "(import fails)"


def prepare(tests: Iterable[str] = ()) -> None:
    """Import what is slow to import, once, before the forks."""
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take longer than a mutant
    os.environ["HF_HUB_OFFLINE"] = "1"
    import hypothesis.strategies  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # imports more, on first use
    if any(name.startswith("cli/") for name in tests):
        for name in ("transformers.models.llama.modeling_llama", "peft", "matplotlib.figure"):
            importlib.import_module(name)


def _run_tests(folder: str, tests: tuple[str, ...]) -> None:
    """Run in a process of its own: test the copy in ``folder`` and write the outcome there."""
    import pytest

    os.setsid()
    os.chdir(folder)
    with open("log.txt", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.path[:] = [folder, *(path for path in sys.path if path not in ("", str(ROOT)))]
    os.environ["PYTHONPATH"] = folder  # of what tests start
    for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
        del sys.modules[name]
    first = _FirstFailure()
    options = ["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    code = int(pytest.main(options, plugins=[first]))
    tested = Path(importlib.import_module("dpo_lib").__file__).resolve().parent.parent
    if tested != Path(folder).resolve():
        code = -1  # the tests imported another copy: their word is worth nothing
    Path("outcome.json").write_text(json.dumps({"code": code, "first": first.name}))


def try_tests(tests: tuple[str, ...], mutant: Mutant | None = None) -> Outcome:
    """Copy the project, apply the mutant if there is one, and run the tests on the copy."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as parent:
        folder = str(Path(parent, "copy"))
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*BESIDE))
        if mutant:
            path = Path(folder, mutant.file)
            path.write_text(mutant.applied_to(path.read_text()))
        # By fork: it has imported pytest and torch already.
        process = multiprocessing.get_context("fork").Process(
            target=_run_tests, args=(folder, tests)
        )
        process.start()
        process.join(TIME_LIMIT)
        late = process.is_alive()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that its tests have started
        process.join()
        if late:
            return Outcome("(time ran out)", time.perf_counter() - start)
        outcome = Path(folder, "outcome.json")
        result = json.loads(outcome.read_text()) if outcome.exists() else {"code": -2}
        if result["code"] not in (0, 1, 2):  # passed, failed, import failed
            log = Path(folder, "log.txt")
            raise RuntimeError(f"pytest could not run {tests}: {result}\n{log.read_text()}")
    return Outcome(result["first"] if result["code"] else "", time.perf_counter() - start)


def main() -> int:
    """Run the control and the mutants, print a table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("words", nargs="*", help="only mutants whose description or kind holds one")
    arguments = parser.parse_args()
    chosen = [
        mutant
        for kind, mutants in KINDS.items()
        for mutant in mutants
        if not arguments.words
        or any(word in text for word in arguments.words for text in (kind, mutant.what))
    ]
    if not chosen:
        parser.error(f"no mutant matches {arguments.words}")
    for mutant in chosen:
        mutant.applied_to((ROOT / mutant.file).read_text())

    tests = tuple(dict.fromkeys(name for mutant in chosen for name in mutant.tests))
    prepare(tests)
    start = time.perf_counter()
    control = try_tests(tests)
    if control.noticed_by:
        print(f"the tests fail without any mutant: {control.noticed_by}")
        return 2
    print(f"{'seconds':>7}  {'mutant':<50} noticed by")
    print(f"{control.seconds:7.1f}  {'(none: the control)':<50} -")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = pool.map(lambda mutant: try_tests(mutant.tests, mutant), chosen)
        survivors = 0
        for mutant, outcome in zip(chosen, outcomes, strict=True):
            survivors += not outcome.noticed_by
            verdict = outcome.noticed_by or "NOBODY"
            print(f"{outcome.seconds:7.1f}  {mutant.what:<50} {verdict}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{len(chosen) - survivors} of {len(chosen)} noticed in {seconds:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
