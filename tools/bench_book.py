"""What the reader of the book waits for.

python -m tools.bench_book                  writes book.json into dpo_lib/benchmarks/results/KIND
python -m tools.bench_book --only imports   prints a part of it

Measured are the time to build the book from stored outputs, to run its ten chapters again and
compare (on two processes), to import the library, for a slider to show its effect, and the bytes
of each page.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_lib.benchmarks.machine import RESULTS, describe, kind
from dpo_lib.experiments.store import store
from tools import book
from tools.browser import Watch, chromium, find_chromium, served
from tools.redraw import measure_redraws

IMPORTS = 10  # of each package, in turn
NBVAL = (
    "-m pytest -n 2 --dist loadfile --nbval --nbval-current-env -q -p no:cacheprovider notebooks"
)


def run(*arguments: str) -> float:
    """Seconds that a Python of its own takes, with one thread; what it prints if it fails."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=book.ROOT,
        env=os.environ | one_thread,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    elapsed = time.perf_counter() - started
    if result.returncode:
        command = " ".join(arguments)
        raise SystemExit(f"error: {command} failed:\n{(result.stdout + result.stderr)[-3000:]}")
    return elapsed


def measure_build() -> list[dict[str, Any]]:
    """The whole command, from stored outputs and without anything left from another build."""
    return [{"what": "build", "seconds": run("tools/book.py", "build", "--force")}]


def measure_notebooks() -> list[dict[str, Any]]:
    """All ten chapters executed and compared with their stored outputs."""
    return [{"what": "notebooks", "seconds": run(*NBVAL.split())}]


def measure_imports() -> list[dict[str, Any]]:
    """A process that imports one package and ends; the two packages in turn."""
    packages = {"torch": "import torch", "dpo_lib": "from dpo_lib import train_dpo"}
    seconds: dict[str, list[float]] = {package: [] for package in packages}
    for number in range(IMPORTS + 1):
        for package in [*packages][:: 1 if number % 2 else -1]:
            elapsed = run("-c", packages[package])
            if number:  # the first ones read the disk
                seconds[package].append(elapsed)
    return [
        {"what": "import", "package": package, "seconds": times}
        for package, times in seconds.items()
    ]


def measure_pages() -> list[dict[str, Any]]:
    """Bytes of the first load of each page, fonts left out, and times of its widgets."""
    sys.path.insert(0, str(book.ROOT / "book" / "_ext"))  # where the list of pages is
    from dpo_contents import PAGES

    book.build()
    rows: list[dict[str, Any]] = []
    with served(book.HTML) as base, chromium(find_chromium) as browser:
        for name in (f"{page}.html" for page in PAGES):
            page, watch = browser.new_context().new_page(), Watch(base)
            watch(page)
            page.goto(base + name)
            page.wait_for_load_state("networkidle")
            if problems := watch.problems():
                raise SystemExit(f"error: {name}: {problems}")
            rows.append({"what": "page", "page": name, "bytes": sum(watch.weight().values())})
            page.context.close()
        rows += [
            {
                "what": "slider",
                "page": redraw.page,
                "widget": redraw.widget,
                "median_ms": redraw.median,
                "late_ms": redraw.late,
            }
            for redraw in measure_redraws(browser)
        ]
    return rows


PARTS = {
    "build": measure_build,
    "notebooks": measure_notebooks,
    "imports": measure_imports,
    "pages": measure_pages,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--out", type=Path, default=RESULTS / kind(), help="folder of the results")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.only:
        rows += PARTS[name]()
        print(f"{name}: done", file=sys.stderr)
    if {*options.only} != {*PARTS}:
        print(*rows, sep="\n")
        return
    print(store("book", {"machine": describe(1)}, rows, options.out), file=sys.stderr)


if __name__ == "__main__":
    main()
