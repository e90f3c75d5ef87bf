"""The chapters for a class: nothing of a solution is left, nothing else is lost, and both run."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from dpo_lib import figures
from tools import course
from tools.notebooks import execute

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    assert len(course.write(folder)) == 2 * len(PATHS) == 20
    return folder


def read(path):
    return nbformat.read(path, as_version=4)


def names(cell, context):
    tree = ast.parse(cell.source)
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}
    if context is ast.Store:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {alias.asname or alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_exercises_stay_and_their_solutions_go(folder, path):
    whole, bare = read(path), read(folder / "exercises" / path.name)
    assert (folder / "solutions" / path.name).read_bytes() == path.read_bytes()
    nbformat.validate(bare)
    text = "\n".join(cell.source for cell in bare.cells)
    assert not re.search(r"\{solution\}|^# Solution", text, re.MULTILINE)
    before = "\n".join(cell.source for cell in whole.cells)
    assert re.findall(r"^`{3,}\{exercise\}.*$", text, re.M) == re.findall(
        r"^`{3,}\{exercise\}.*$", before, re.M
    )
    assert re.findall(r"^#+ .*$", text, re.M) == [
        line for line in re.findall(r"^#+ .*$", before, re.M) if not line.startswith("# Solution")
    ]
    assert not any(cell.get("outputs") for cell in bare.cells)


def test_the_page_for_teachers_tells_the_folders_apart(folder):
    text = " ".join((ROOT / "book" / "course.md").read_text(encoding="utf-8").split())
    bare, whole = re.search(
        r"In `course/(\w+)` every solution and every output is gone, .*? "
        r"In `course/(\w+)` they are whole\.",
        text,
    ).groups()
    assert {bare, whole} == {path.name for path in folder.iterdir()}
    for name, solved in ((bare, False), (whole, True)):
        cells = [cell for path in (folder / name).iterdir() for cell in read(path).cells]
        assert any(cell.source.startswith(course.BEGINS) for cell in cells) is solved
        assert any(cell.get("outputs") for cell in cells) is solved


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_cell_that_stays_needs_one_that_goes(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    kept, gone = set(), set()
    for cell in cells:
        made = names(cell, ast.Store)
        if cell.source.startswith(course.BEGINS):
            gone |= made
        else:
            assert (names(cell, ast.Load) & gone) - made - kept == set(), cell.source
            kept |= made


def test_a_chapter_without_solutions_runs(folder):
    (path,) = (folder / "exercises").glob("02_*.ipynb")
    execute(read(path), path.parent)


def test_the_results_that_chapters_need_are_in_the_library():
    found = set()
    for path in PATHS:
        code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
        found |= {*re.findall(r'read_results\("(\w+)"\)', code)}
    assert {"coin_flip", "preference_runs"} <= found
    for name in found:
        assert figures.read_results(name)["rows"]


def test_a_fence_that_does_not_close_is_told():
    cell = nbformat.v4.new_markdown_cell("Before.\n\n````{solution} ex-a\n\nText\n```")
    with pytest.raises(ValueError, match="fence"):
        course.without_solutions(nbformat.v4.new_notebook(cells=[cell]))


def test_a_solution_goes_with_its_inner_fences_and_nothing_around_it():
    text = "Before.\n\n````{solution} ex-a\n```python\nx = 1\n```\n````\n\nAfter."
    cell = nbformat.v4.new_markdown_cell(text)
    (left,) = course.without_solutions(nbformat.v4.new_notebook(cells=[cell])).cells
    assert left.source == "Before.\n\nAfter."
