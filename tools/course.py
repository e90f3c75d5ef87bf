"""Write the chapters for a class: without the solutions, and with them.

python tools/course.py            both, into course/exercises and course/solutions
python tools/course.py FOLDER     into another folder

In `exercises` every ``{solution}`` and every cell that begins with ``# Solution`` is gone, and all
outputs are: a student's first run is their own. In `solutions` a notebook is as it stands in the
book. A class also needs the library, which brings the results that chapters draw.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = re.compile(r"^(`{3,})\{solution\}.*?^\1[ \t]*$\n*", re.MULTILINE | re.DOTALL)
BEGINS = "# Solution"


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook with its exercises only, no cell of it run.

    Raises
    ------
    ValueError
        If a solution is left that the pattern did not understand.
    """
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if cell.source.startswith(BEGINS):
                continue
            cells.append(nbformat.from_dict({**cell, "outputs": [], "execution_count": None}))
            continue
        text = SOLUTION.sub("", cell.source).strip("\n")
        if "{solution}" in text:
            raise ValueError(f"cell {cell.id} has a solution whose fence does not close")
        if text:
            cells.append(nbformat.from_dict({**cell, "source": text}))
    return nbformat.from_dict({**notebook, "cells": cells})


def write(folder: Path) -> list[Path]:
    """Write all chapters twice below ``folder`` and return the files."""
    written = []
    for name in ("exercises", "solutions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        bare = without_solutions(nbformat.read(path, as_version=4))
        written += [folder / "exercises" / path.name, folder / "solutions" / path.name]
        nbformat.write(bare, written[-2])
        shutil.copyfile(path, written[-1])
    return written


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "course")
    folder = parser.parse_args(arguments).folder
    count = len(write(folder)) // 2
    print(f"{count} notebooks without solutions: {folder / 'exercises'}")
    print(f"{count} notebooks with solutions:    {folder / 'solutions'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
