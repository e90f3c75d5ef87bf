"""Let Stryker change the browser's modules, one operator at a time, and list what no test notices.

Usage: ``python -m tools.stryker [MODULE …]``; a module is ``math`` or ``live/layers``, say.

Stryker's own runners expect tests in JavaScript; ours are pytest's, in Chromium. So the changes are
Stryker's (``tools/js_changes``), and the rest is here, as in ``tools/mutmut.py``: all tests are
collected once, and a process with a browser of its own tries one change after the other. A page is
given its script by ``dpo_lib.widgets.join``, which reads the changed text in the place of the file.
Whatever has noticed changes so far is tried first, the quickest at first.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dpo_lib.widgets import join, live
from tools.mutmut import in_a_process, passes

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build" / "stryker"
ENGINE = ("widgets/test_engine.py", "widgets/test_engine_stops.py")


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}.py::test_{name}" for name in names)


CLICKS = (
    "widgets/test_clicks.py",
    *_of("properties/test_clicks", "the_good", "what_a", "a_file", "what_is", "what_c"),
)
BETS = (
    *_of("properties/test_clicks", "what_is", "what_c"),
    *_of("widgets/test_bet", "a_number", "a_bet", "without"),
)
DONE = _of("widgets/test_done", "another", "what_the", "what_an", "a_browser", "erasing", "out")
MATH = _of("widgets/test_browser", "preference", "slopes", "the_dpo", "distrib")
TESTS = {
    "math": (*MATH, *_of("widgets/test_engine", "ten_updates")),
    "live/training": ENGINE,
    "live/sampling": ENGINE,
    "live/world": _of("widgets/test_engine", "the_judge", "the_token"),
    "live/tiny_gpt": ENGINE,
    "live/layers": ENGINE,
    "storage": (*CLICKS, *DONE),
    "clicks": CLICKS,
    "bets": BETS,
    "bradley_terry": (
        *_of("widgets/test_your_clicks", "scores_of", "clicks_on_one"),
        *_of("widgets/test_browser", "chains_of", "scores_come"),
    ),
    "checker": (
        *_of("widgets/test_exercise", "faults", "code_without"),
        *_of("widgets/test_live_widgets", "a_check_answers", "an_endless"),
    ),
    "answers": _of("widgets/test_live_widgets", "answers_stand"),
}
"""The modules, and the files of ``tests``, or tests in them, that must notice."""
LEFT_OUT = "broken_derivative|python|mistake_is_named|second_code|reader_s_loss"
"""Tests that look for lines of the source, and those of MicroPython, which is not changed here."""
AT_ONCE = 40  # changes for a browser
SLACK = 10  # seconds that a test may take beside five times its own


class Change(NamedTuple):
    """One change: where it stands, what becomes of what, and the module with it."""

    module: str
    line: int
    column: int
    what: str
    changed: str

    def __str__(self) -> str:
        return f"{self.module}.js:{self.line}:{self.column}: {self.what}"


def make_changes(modules: list[str]) -> list[Change]:
    """Let Stryker make all changes of these modules."""
    shutil.copytree(ROOT / "tools" / "js_changes", BUILD, dirs_exist_ok=True)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    subprocess.run(["npm", "ci", *quiet], cwd=BUILD, check=True)
    found = []
    for module in modules:
        command = ["node", "changes.mjs", join.JS_DIR / f"{module}.js"]
        run = subprocess.run(command, cwd=BUILD, check=True, capture_output=True, text=True)
        found += [Change(module, *row) for row in json.loads(run.stdout)]
    return found


def _name(item: pytest.Item) -> str:
    return f"{item.path.relative_to(ROOT / 'tests').as_posix()}::{item.originalname}"


class _Session(NamedTuple):
    """What comes next, where pytest shall end all but the session, and with it the browser."""

    session: pytest.Session

    def listchain(self) -> list[pytest.Session]:
        return [self.session]


class Trial:
    """Pytest plugin: tries changes in the place of one pass over the tests.

    Parameters
    ----------
    changes : list of Change
        What is tried.
    """

    def __init__(self, changes: list[Change]) -> None:
        self.changes, self.left, self.browser = changes, [], None
        self.seconds, self.noticed = {}, Counter()  # by test

    def pytest_collection(self) -> None:
        """Have Hypothesis take the first example that fails, not the smallest."""
        from hypothesis import Phase, settings

        settings.register_profile("first", phases=[Phase.explicit, Phase.generate])
        settings.load_profile("first")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        """Remember the browser."""
        value = yield
        if fixturedef.argname == "browser":
            self.browser = value
        return value

    def pytest_runtestloop(self, session) -> bool:
        """Time the tests without any change, then try each change on those of its module."""
        self.session = session
        self.tests = {
            module: [
                i
                for i, item in enumerate(session.items)
                if _name(item).startswith(names) and not re.search(LEFT_OUT, item.originalname)
            ]
            for module, names in TESTS.items()
        }
        wanted = sorted({i for change in self.changes for i in self.tests[change.module]})
        for i, seconds in in_a_process(lambda: self._time(wanted)):
            self.seconds[i] = seconds
        if len(self.seconds) < len(wanted):
            failed = session.items[wanted[len(self.seconds)]].nodeid
            raise session.Failed(f"{failed} fails without any change")
        print(f"{len(wanted)} tests pass in {sum(self.seconds.values()):.0f} s", flush=True)
        waiting = list(self.changes)
        while waiting:
            todo = waiting[:AT_ONCE]
            said = list(in_a_process(lambda changes=todo: self._try(changes)))
            verdicts = [verdict for verdict in said if verdict != "sound"]
            if said[:1] != ["sound"] or (len(verdicts) == len(todo) and said[-1] != "sound"):
                raise session.Failed("a test that passed before fails without any change")
            for change, verdict in zip(todo, verdicts, strict=False):
                self.noticed[verdict] += 1
                if verdict is None:
                    self.left.append(change)
                    print(change, flush=True)
            for change in todo[len(verdicts) :][:1]:  # to hang, or crash, is to notice
                print(f"{change} (without end)", flush=True)
            waiting = waiting[min(len(verdicts) + 1, len(todo)) :]
        return True

    def _time(self, tests: list[int]) -> Iterator[tuple[int, float]]:
        for i, following in zip(tests, [*tests[1:], None], strict=True):
            started = time.perf_counter()
            if not self._passes(i, following):
                return
            yield i, time.perf_counter() - started

    def _try(self, changes: list[Change]) -> Iterator[str | int | None]:
        """The test that notices each change, or None, as far as the browser comes."""
        read = join._source
        made = [
            f
            for f in (*vars(join).values(), live.engine, live.exercises)
            if hasattr(f, "cache_clear") and f is not read
        ]
        control = self._in_order(changes[0].module)[0]
        if not self._passes(control, None):
            return
        yield "sound"
        for change in changes:
            join._source = lambda path, c=change: (
                c.changed if path == f"{c.module}.js" else read(path)
            )
            for function in made:
                function.cache_clear()
            tests = self._in_order(change.module)
            pairs = zip(tests, [*tests[1:], None], strict=True)
            by = next((i for i, following in pairs if not self._passes(i, following)), None)
            if not self.browser.is_connected():
                return
            self.session._setupstate.teardown_exact(_Session(self.session))
            for context in self.browser.contexts:
                context.close()  # what a test leaves when it fails
            self.noticed[by] += 1
            yield by
        join._source = read
        for function in made:
            function.cache_clear()
        if self._passes(control, None):
            yield "sound"

    def _in_order(self, module: str) -> list[int]:
        return sorted(self.tests[module], key=lambda i: self.seconds[i] / (0.1 + self.noticed[i]))

    def _passes(self, i: int, following: int | None) -> bool:
        """Run a test in time, or end the process."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        limit = SLACK + 5 * self.seconds.get(i, 60)
        signal.setitimer(signal.ITIMER_REAL, limit if self.browser else 300)  # to start one
        items = self.session.items
        return passes(items[i], _Session(self.session) if following is None else items[following])


def main() -> int:
    """Try all changes and print the score of each module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE")
    modules = parser.parse_args().modules
    trial = Trial(make_changes(modules))
    files = sorted(
        {f"tests/{name.partition('::')[0]}" for module in modules for name in TESTS[module]}
    )
    code = pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[trial])
    if code not in (0, 5):
        return int(code)
    for module in modules:
        all_, left = (sum(c.module == module for c in cs) for cs in (trial.changes, trial.left))
        print(f"{module}: {all_ - left} of {all_} noticed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
