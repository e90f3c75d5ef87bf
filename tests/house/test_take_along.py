"""What one takes along: the wheel is the whole library, is small and enough for every notebook.

`make wheel` tries the wheel out; tests/book opens the zip's pages.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from dpo_contents import NOTEBOOKS

from tools import book, wheel

ROOT = Path(__file__).resolve().parents[2]
FOR_AUTHORS = {"dpo_lib/widgets/README.md"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return wheel.build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_every_file_of_the_library_and_nothing_else(built):
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "dpo_lib"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    library = {name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()}
    names = zipfile.ZipFile(built).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == library - FOR_AUTHORS
    kinds = {Path(name).suffix for name in inside}
    assert kinds >= {".py", ".js", ".css", ".html", ".json", ".jsonl", ".safetensors", ".wasm"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


# What a notebook imports, with nothing of the project at hand but the wheel.
IMPORTS = """
import ast, json, sys
for name in json.loads(sys.argv[1]):
    cells = json.load(open(name, encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), name, "exec"), {})
print(*{m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "dpo_lib"}, sep="\\n")
"""


def test_notebooks_need_of_the_project_the_wheel_alone(built, tmp_path):
    zipfile.ZipFile(built).extractall(tmp_path / "wheel")
    (tmp_path / "empty").mkdir()
    names = json.dumps([str(ROOT / f"{page}.ipynb") for page in NOTEBOOKS])
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS, names],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "wheel")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    files = [Path(line) for line in run.stdout.split()]
    assert tmp_path / "wheel/dpo_lib/experiments/ppo.py" in files
    assert [path for path in files if not path.is_relative_to(tmp_path / "wheel")] == []


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_notebook_looks_for_nothing_beside_it(page):
    cells = json.loads((ROOT / f"{page}.ipynb").read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert re.findall(r"sys\.path|\.\./|\b(?:Path|open)\(f?[\"'].*", code) == []


def test_the_wheel_is_small_and_for_any_machine(built):
    assert built.name.endswith("-py3-none-any.whl")
    assert built.stat().st_size <= wheel.LIMIT


def test_equal_sources_make_equal_wheels(built):
    assert {entry.date_time[:3] for entry in zipfile.ZipFile(built).infolist()} == {(2020, 1, 1)}


def test_a_line_that_prints_something_else_is_seen():
    code = 'print("a")  # a  the letter\nprint(1)  # 1\n'
    assert wheel.differences(code, ["a", "1"]) == []
    assert wheel.differences(code, ["a", "2"]) == [("2", "1")]
    with pytest.raises(ValueError, match="argument"):
        wheel.differences(code, ["a"])


@pytest.fixture
def pages(tmp_path):
    """A folder as Sphinx leaves it; names that are kept, then names that are not."""
    kept = [
        "_static/book.js",
        "_static/x.js.LICENSE.txt",
        "a/b.html",
        "index.html",
        "searchindex.js",
    ]
    left = ["_static/book.js.map", "_static/locales/de/x.po", ".buildinfo", "objects.inv"]
    left += ["_static/locales/de/x.mo", "_static/webpack-macros.html", "a/styles/x.css.map"]
    for name in reversed(kept + left):
        path = tmp_path / "html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path / "html", kept


def test_the_zip_holds_what_is_read_in_one_folder_in_order(pages, tmp_path):
    folder, kept = pages
    packed = zipfile.ZipFile(book.pack(folder, tmp_path / "dist" / "x.zip"))
    assert packed.namelist() == [f"x/{name}" for name in sorted([*kept, "LICENSE"])]
    assert packed.read("x/a/b.html") == b"a/b.html"
    assert packed.testzip() is None


def test_the_same_book_makes_the_same_zip(pages, tmp_path):
    folder, _ = pages
    first = book.pack(folder, tmp_path / "x.zip").read_bytes()
    for path in folder.rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700)
    assert book.pack(folder, tmp_path / "x.zip").read_bytes() == first
