"""Run every notebook on other processors, threads and versions, and see that it says the same.

Usage: ``python -m tools.everywhere [--jobs N] [WORDS …]``; words choose rows by their name.

A row of the table in ``tools/everywhere.md`` is one run of all chapters and appendices: each output
is compared with the stored one, as in ``make test``. The rows are the instruction sets that torch
can be held to on this processor, with one thread and with two, and one more with the newest
versions of requirements.txt's packages that agree with each other, in an environment of its own.
The rows of another Python come from a clone whose environment it has made (``make
PYTHON=python3.13 everywhere``). A row that is run again replaces the old one. Exits 0 if no output
differs.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from dpo_lib._files import replacing

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tools" / "everywhere.md"
CHAPTERS = ("notebooks", "book/appendices")
ONEDNN = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}  # its names for the same
PYTHON = "{}.{}".format(*sys.version_info)
NEWEST = ROOT / "_build" / "newest"
SHOWN = ("torch", "numpy", "transformers", "matplotlib")  # versions that stand in the table
HEAD = (
    "run",
    "instructions",
    "threads",
    "Python",
    *SHOWN,
    "outputs compared",
    "differ",
    "day",
)


class Row(NamedTuple):
    """One way to run the notebooks."""

    instructions: str
    threads: int
    newest: bool = False

    @property
    def name(self) -> str:
        """In the table, and on the command line."""
        packages = "newest" if self.newest else "pinned"
        return f"{PYTHON}-{packages}-{self.instructions}-{self.threads}"

    def environment(self) -> dict[str, str]:
        """What the processes get to see."""
        threads = str(self.threads)
        return {
            **os.environ,
            "ATEN_CPU_CAPABILITY": self.instructions,
            "ONEDNN_MAX_CPU_ISA": ONEDNN[self.instructions],
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
            "JUPYTER_PLATFORM_DIRS": "1",
        }


def has(instructions: str) -> bool:
    """Whether this processor can be held to them: torch falls back in silence where it cannot."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability().lower())"
    row = Row(instructions, 1)
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=row.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.strip() == instructions


def rows() -> list[Row]:
    """All that this processor can do."""
    known = [instructions for instructions in ONEDNN if has(instructions)]
    found = [Row(instructions, threads) for instructions in known for threads in (1, 2)]
    return [*found, Row(known[-1], 1, newest=True)]


def newest_python() -> Path:
    """An environment with the newest versions that fit together; made once."""
    python = NEWEST / "bin" / "python"
    if not (NEWEST / ".ready").exists():
        text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
        wanted = [
            pin
            if pin.startswith("jupyter-book==")
            else pin.split("==")[0]  # its 2 is another program
            for pin in re.findall(r"^[\w.\[\]-]+==\S+", text, re.MULTILINE)
        ]
        subprocess.run([sys.executable, "-m", "venv", str(NEWEST)], check=True)
        for words in (wanted, ["--no-deps", "--editable", str(ROOT)]):
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *words], check=True)
        (NEWEST / ".ready").touch()
    return python


def measure(row: Row, jobs: int) -> dict[str, str]:
    """Run the notebooks; the cells of the table's line by their heads."""
    python = newest_python() if row.newest else Path(sys.executable)
    code = f"from importlib.metadata import version; print(*map(version, {SHOWN}))"
    versions = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    words = ["-q", "-n", jobs, "--dist", "loadfile", "-p", "tools.nbval_whole"]
    words += ["--nbval", "--nbval-current-env", *CHAPTERS]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", *words, f"--junit-xml={report}"]
        subprocess.run([*map(str, command)], cwd=ROOT, env=row.environment(), check=False)
        compared, differ = count(report)
    values = (
        row.name,
        row.instructions,
        str(row.threads),
        platform.python_version(),
        *versions.stdout.split(),
        f"{compared:,}",
        f"{differ:,}",
        time.strftime("%Y-%m-%d"),
    )
    return dict(zip(HEAD, values, strict=True))


def count(report: Path) -> tuple[int, int]:
    """How many cells pytest compared, and how many of them failed.

    Raises
    ------
    ValueError
        If it compared none.
    """
    suites = [*ElementTree.parse(report).getroot().iter("testsuite")]
    compared = sum(int(suite.get("tests", 0)) for suite in suites)
    differ = sum(int(suite.get(what, 0)) for suite in suites for what in ("failures", "errors"))
    if not compared:
        raise ValueError("no output was compared")
    return compared, differ


def merged(text: str, line: dict[str, str]) -> str:
    """The page with a line of its table put in the place of the old one, or behind the last."""
    new = "| " + " | ".join(line[head] for head in HEAD) + " |"
    lines = text.rstrip("\n").split("\n")
    begins = f"| {line['run']} |"
    old = [i for i, one in enumerate(lines) if one.startswith(begins)]
    if old:
        lines[old[0]] = new
    else:
        last = max(i for i, one in enumerate(lines) if one.startswith("|"))
        lines.insert(last + 1, new)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="parts of the names of rows (all)")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    chosen = [row for row in rows() if not args.words or any(w in row.name for w in args.words)]
    if not chosen:
        parser.error(f"no row has {' or '.join(args.words)} in its name")
    differ = 0
    for row in chosen:
        line = measure(row, args.jobs)
        differ += int(line["differ"].replace(",", ""))
        text = merged(TABLE.read_text(encoding="utf-8"), line)
        with replacing(TABLE) as file:
            file.write(text.encode())
        print(f"{row.name}: {line['differ']} of {line['outputs compared']} differ", flush=True)
    return differ > 0


if __name__ == "__main__":
    sys.exit(main())
