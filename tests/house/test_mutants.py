"""The list of mutants fits the source, and the script that tries them tells the truth.

``make mutants`` tries them all; that takes many minutes, so it is not part of ``make test``.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dpo_lib.experiments.bug_zoo import BUGS
from tools.mutant_list import KINDS, MUTANTS
from tools.mutmut import chosen_groups, in_a_process, undecorated

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_each_mutant_changes_the_source_as_it_stands(mutant):
    source = (ROOT / mutant.file).read_text()
    changed = mutant.applied_to(source)
    assert changed != source
    if mutant.file.endswith(".py"):
        compile(changed, mutant.what, "exec")
    assert all((ROOT / "tests" / name).exists() for name in mutant.tests)


def test_the_classic_mistakes_are_among_them():
    described = "\n".join(mutant.what for mutant in MUTANTS).lower()
    for mistake in (
        "off-by-one slice",
        "appendix e: wrong slice",
        "appendix e: prompt in the mask",
        "appendix e: pads in the sum",
        "first token only",
        "appendix e: mean for sum",
        "beta ignored",
        "reference ignored",
        "sign flipped",
        "reference not frozen",
        "dropout left on",
        "label smoothing swapped",
        "zero_grad missing",
    ):
        assert mistake in described


def test_no_bug_stands_there_twice():
    changes = [(mutant.file, mutant.function, mutant.old, mutant.new) for mutant in MUTANTS]
    assert len(set(changes)) == len(changes)
    lines = {(bug.module, bug.line) for bug in BUGS}
    of_zoo = [mutant for mutant in MUTANTS if mutant.what.startswith("appendix E")]
    assert len(of_zoo) == sum(".experiments." not in module for module, _ in lines)


def test_a_stale_mutant_is_refused():
    stale = KINDS["the core"][-1]._replace(old="this stands nowhere")
    source = (ROOT / stale.file).read_text()
    with pytest.raises(ValueError, match="'this stands nowhere' stands 0 times"):
        stale.applied_to(source)


def test_a_harmless_change_survives_and_a_bug_is_noticed():
    code = """
from tools.mutant_list import Mutant
from tools.mutants import prepare, try_tests
prepare()
for new in ("copy.deepcopy(policy, {})", "policy"):
    mutant = Mutant("?", "reference", "make_reference", "copy.deepcopy(policy)", new)
    print(try_tests(mutant.tests, mutant).noticed_by or "nobody")
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.stdout.splitlines() == [
        "nobody",
        "core/test_reference.py::test_make_reference_copies_and_freezes",
    ], result.stderr


def test_mutmut_takes_groups_and_names():
    groups = chosen_groups(["*"])
    assert "dpo_lib/losses/form.py" in groups["core"].files
    assert "dpo_lib/fast/cache.py" in groups["fast"].files
    assert len({file for group in groups.values() for file in group.files}) == sum(
        len(group.files) for group in groups.values()
    )
    assert all((ROOT / path).exists() for group in groups.values() for path in group.tests)
    assert chosen_groups(["fast"]) == {"fast": groups["fast"]}
    two = {name: groups[name] for name in ("core", "fast")}
    assert chosen_groups(["dpo_lib.fast*", "core"]) == two
    for name in ("dpo_lib.fast.cache*", "dpo_lib.fast.cache.x_read_cache__mutmut_1"):
        files = ["dpo_lib/fast/__init__.py", "dpo_lib/fast/cache.py"]
        assert chosen_groups([name])["fast"].files == files
    assert chosen_groups(["dpo_lib.losses.x_*"])["core"].files == ["dpo_lib/losses/__init__.py"]
    assert not chosen_groups(["dpo_lib.faster*"])


def test_a_process_that_hangs_or_dies_has_said_what_came_before():
    def hangs():
        yield "first"
        threading.Event().wait()

    def dies():
        yield from (1, None)
        os._exit(3)

    assert [*in_a_process(hangs, 0.2)] == ["first"]
    assert [*in_a_process(dies)] == [1, None]
    assert [*in_a_process(lambda: iter(range(9)), 30)] == [*range(9)]


def test_mutmut_reaches_what_is_decorated():
    source = """
import functools

def twice(f):
    return lambda *args: 2 * f(*args)

def plus(n):
    return lambda f: lambda *args: n + f(*args)

@twice
@plus(3)
def f(x):
    "Its text."
    return x

@functools.cache
def kept(x):
    return x

class A:
    @property
    def x(self):
        return self.y(1)

    @staticmethod
    @twice
    def y(n):
        return n
"""
    before, after = {}, {}
    changed = undecorated(source)
    exec(source, before)
    exec(changed, after)
    assert before["f"](4) == after["f"](4) == 14
    assert before["A"]().x == after["A"]().x == 2
    assert [line for line in changed.splitlines() if "@" in line or " = " in line] == [
        "f = twice(plus(3)(f))",
        "@functools.cache",
        "    x = property(x)",
        "    y = staticmethod(twice(y))",
    ]


def test_stryker_s_trial_tells_what_is_noticed_from_what_is_left():
    code = """
from tools import stryker
from dpo_lib.widgets.join import JS_DIR
def change(old, new):
    source = (JS_DIR / "math.js").read_text()
    assert source.count(old) == 1
    return stryker.Change("math", 1, 1, f"{old} → {new}", source.replace(old, new))
stryker.TESTS["math"] = stryker.MATH
stryker.make_changes = lambda modules: [
    change("rewards[i] / beta", "rewards[i] * beta"),
    change("rewards[i] / beta", "(rewards[i] / beta)"),
    change("Math.max(x, 0) +", "Math.min(x, 0) +"),
]
sys.argv[1:] = ["math"]
sys.exit(stryker.main())
"""
    result = subprocess.run(
        [sys.executable, "-c", "import sys" + code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said = result.stdout.splitlines()
    assert [line for line in said if "→" in line] == [
        "math.js:1:1: rewards[i] / beta → (rewards[i] / beta)",
    ], result.stderr
    assert said[-1] == "math: 2 of 3 noticed"
