"""The notebooks as files: canonical and complete; and what runs and compares them.

`make test` runs each notebook once, under nbval with ``tools/nbval_whole.py``. Together with the
canonical form, which is checked here without a run, that run sees every byte of the file.
"""

import copy
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from dpo_lib.figures import PALETTE
from tools import notebooks as tool

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("notebooks", "book/appendices")
PATHS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.ipynb"))
SVG = "image/svg+xml"
WIDGET = tool.WIDGET_VIEW
WEAK = ("nbval-ignore-output", "nbval-skip", "raises-exception", "skip-execution")
MOST_LINES = 30

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@pytest.fixture
def read():
    return lambda path: nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [(n, cell) for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# --- what is asked of a notebook: each function returns what is wrong ----------------------------


def run_problems(notebook):
    """Unrun cells, wrong order, errors, stderr, tags that weaken the comparison."""
    for expected, (n, cell) in enumerate(code_cells(notebook), 1):
        if (count := cell.get("execution_count")) != expected:
            yield f"cell {n} was run as number {count}, not as {expected}"
        if any(output.output_type == "error" for output in cell.outputs):
            yield f"cell {n} ended with an error"
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {n} wrote to stderr"
        for tag in set(WEAK) & set(cell.metadata.get("tags", [])):
            yield f"cell {n} has the tag {tag}"
        if "NBVAL_" in cell.source:
            yield f"cell {n} silences nbval"


def cell_problems(notebook):
    """Long cells, machine paths, no use of the library."""
    for n, cell in code_cells(notebook):
        lines = cell.source.count("\n") + 1
        if lines > MOST_LINES:
            yield f"cell {n} has {lines} lines, more than {MOST_LINES}"
    source = "\n".join(cell.source for _, cell in code_cells(notebook))
    if not re.search(r"^\s*(?:from|import) dpo_lib\b", source, re.MULTILINE):
        yield "nothing is imported from dpo_lib"
    if not re.match(r"(?:\([\w-]+\)=\n)?# \S", notebook.cells[0].source):
        yield "the first cell is no title"


def widget_problems(notebook):
    """Widgets that the built book could not show."""
    if "widgets" in notebook.metadata:
        yield "the state of widgets is stored in the metadata"
    for n, cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            if WIDGET in data and "data-dpo-widget" not in data.get("text/html", ""):
                yield f"cell {n}: a widget without the text/html form that the book shows"


def figure_problems(notebook):
    """Figures without words, figures that are no SVG, figures that nobody mentions."""
    text = prose(notebook)
    names = []
    for n, cell in code_cells(notebook):
        images = [
            (mime, content)
            for output in cell.outputs
            for mime, content in output.get("data", {}).items()
            if mime.startswith("image/")
        ]
        if not images:
            continue
        if len(images) > 1:
            yield f"cell {n} shows {len(images)} figures; one cell, one figure"
        settings = cell.metadata.get("mystnb", {})
        name = settings.get("figure", {}).get("name", "")
        names.append(name)
        if not name.startswith("fig-"):
            yield f"cell {n}: the figure has no name fig-… in metadata.mystnb.figure"
        elif name not in text:
            yield f"cell {n}: the text never refers to {name}"
        if len(settings.get("figure", {}).get("caption", "")) < 20:
            yield f"cell {n}: the figure has no caption in metadata.mystnb.figure"
        if len(settings.get("image", {}).get("alt", "")) < 20:
            yield f"cell {n}: the figure has no alt text in metadata.mystnb.image"
        for mime, content in images:
            if mime != SVG:
                yield f"cell {n}: a figure is stored as {mime}, not as SVG"
            else:
                yield from (f"cell {n}: {problem}" for problem in svg_problems(content))
    if len(names) != len(set(names)):
        yield f"two figures share a name: {sorted(names)}"


def svg_problems(svg):
    """Bad XML, numbers that are none, colors that do not follow the theme, links to outside."""
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        yield f"the SVG is not well formed: {error}"
        return
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    if len(identifiers) != len(set(identifiers)):
        yield "the SVG uses an id twice"
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        if tag in ("image", "script", "style", "foreignObject", "metadata"):
            yield f"the SVG holds <{tag}>"
        for name, value in element.attrib.items():
            for link in re.findall(r"url\(([^)]*)\)", value) + [value] * name.endswith("href"):
                if link.removeprefix("#") not in identifiers:
                    yield f"the SVG refers to {link}, which it does not define"
            if name in ("d", "points", "x", "y", "width", "height", "transform", "viewBox"):
                words = re.findall(r"[-+\w.]+", re.sub(r"(?<=[\d.])pt\b|\b[a-z]+(?=\()", "", value))
                if bad := [word for word in words if not _finite(word, name)]:
                    yield f"the SVG has {name} with {bad[0]!r}, which is no finite number"
            if name in ("style", "fill", "stroke", "color"):
                colors = re.findall(r"(?:fill|stroke|color):\s*([^;]+)", f"{name}: {value}")
                for color in {color.strip() for color in colors}:
                    if color not in PALETTE.values() and color != "none" and "url(" not in color:
                        yield f"the SVG uses the color {color}, which is not in the palette"


def _finite(word, name):
    if name == "d" and word in "MLCQHVZAzmlcqhva":
        return True
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


CHECKS = [run_problems, cell_problems, widget_problems, figure_problems]


# --- the notebooks -------------------------------------------------------------------------------


@every_notebook
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.partition("_")[0])
def test_notebook(path, check, read):
    problems = list(check(read(path)))
    assert not problems, "\n" + "\n".join(problems)


@every_notebook
def test_the_file_is_in_canonical_form(path, read):
    text = path.read_text(encoding="utf-8")
    assert tool.normalize(read(path)) == text, f"python tools/notebooks.py tidy {path.name}"


def test_names_of_figures_are_unique_in_the_book(read):
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in PATHS
        for _, cell in code_cells(read(path))
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert sorted(names) == sorted(set(names))


# --- the checks themselves, on small notebooks ---------------------------------------------------

GOOD_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" viewBox="0 0 9 9"><defs><path id="a-1" '
    'd="M 0 0 L 3.5 -1 z"/></defs><g clip-path="url(#a-1)"><use href="#a-1" x="1.5" '
    'transform="rotate(-90 1 2)" style="fill: #0072b2; stroke: none; opacity: 0.2"/></g></svg>'
)


@pytest.fixture
def good():
    """A small notebook with a figure and a widget, and nothing wrong with it."""
    v4 = nbformat.v4
    notebook = v4.new_notebook()
    figure = v4.new_output("display_data", {SVG: GOOD_SVG, "text/plain": "<Figure>"})
    view = {"model_id": "5" * 32, "version_major": 2, "version_minor": 0}
    html = '<div data-dpo-widget="a"></div>'
    widget = v4.new_output("display_data", {WIDGET: view, "text/html": html, "text/plain": "W()"})
    notebook.cells = [
        v4.new_markdown_cell("# Title\n\nSee {numref}`fig-a`."),
        v4.new_code_cell("from dpo_lib import figures", execution_count=1),
        v4.new_code_cell("plot()", outputs=[figure], execution_count=2),
        v4.new_code_cell("W()", outputs=[widget], execution_count=3),
    ]
    notebook.cells[2].metadata["mystnb"] = {
        "figure": {"name": "fig-a", "caption": "A line that falls as it should."},
        "image": {"alt": "A line that falls to the right."},
    }
    return notebook


def found(notebook):
    return [problem for check in CHECKS for problem in check(notebook)]


def test_a_good_notebook_has_no_problems(good):
    assert found(good) == []


def change(path, value):
    """Return a function that sets one thing in a notebook, given as a chain of keys."""

    def act(notebook):
        *keys, last = path
        target = notebook
        for key in keys:
            target = (
                getattr(target, key) if isinstance(key, str) and key == "cells" else target[key]
            )
        if value is None:
            del target[last]
        else:
            target[last] = value

    return act


SVG_OF = ("cells", 2, "outputs", 0, "data", SVG)
ERROR = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
HOME = "/".join(["", "home", "me"])
STDERR = nbformat.v4.new_output("stream", name="stderr", text="warning")


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (change(("cells", 2, "execution_count"), None), "run as number"),
        (change(("cells", 3, "execution_count"), 7), "cell 4 was run as number 7"),
        (change(("cells", 1, "outputs"), [ERROR]), "ended with an error"),
        (change(("cells", 1, "outputs"), [STDERR]), "wrote to stderr"),
        (change(("cells", 1, "metadata", "tags"), ["nbval-skip"]), "tag nbval-skip"),
        (change(("cells", 1, "source"), "import dpo_lib # NBVAL_SKIP"), "silences nbval"),
        (change(("cells", 1, "source"), "import dpo_lib" + "\n1" * 30), "31 lines"),
        (change(("cells", 1, "source"), "import torch"), "nothing is imported"),
        (change(("cells", 0, "source"), "No title fig-a"), "no title"),
        (change(("metadata", "widgets"), {}), "metadata"),
        (change(("cells", 3, "outputs", 0, "data", "text/html"), None), "without the text/html"),
        (change(("cells", 3, "outputs", 0, "data", "text/html"), "<div>"), "without the text/html"),
        (change(("cells", 0, "source"), "# Title"), "never refers to fig-a"),
        (change(("cells", 2, "metadata", "mystnb", "figure", "name"), "a"), "no name fig-"),
        (change(("cells", 2, "metadata", "mystnb", "figure", "caption"), ""), "no caption"),
        (change(("cells", 2, "metadata", "mystnb", "image"), {}), "no alt text"),
        (change(("cells", 2, "metadata", "mystnb"), None), "no alt text"),
        (change(("cells", 2, "outputs", 0, "data", "image/png"), "iVBO"), "stored as image/png"),
        (change(SVG_OF, GOOD_SVG[:-1]), "not well formed"),
        (change(SVG_OF, GOOD_SVG.replace("3.5", "nan")), "with 'nan'"),
        (change(SVG_OF, GOOD_SVG.replace('x="1.5"', 'x="inf"')), "with 'inf'"),
        (change(SVG_OF, GOOD_SVG.replace("#0072b2", "#ff0000")), "#ff0000"),
        (change(SVG_OF, GOOD_SVG.replace("#0072b2", "red")), "the color red"),
        (change(SVG_OF, GOOD_SVG.replace("url(#a-1)", "url(#b)")), "refers to #b"),
        (change(SVG_OF, GOOD_SVG.replace('"#a-1"', '"http://a.b/c.svg"')), "refers to http"),
        (change(SVG_OF, GOOD_SVG.replace("</svg>", "<script/></svg>")), "<script>"),
        (change(SVG_OF, GOOD_SVG.replace("<g ", '<g id="a-1" ')), "id twice"),
    ],
)
def test_each_breakage_is_found(good, breakage, message):
    breakage(good)
    assert any(message in problem for problem in found(good)), found(good)


# --- the tool: the canonical form ----------------------------------------------------------------


def test_normalizing_is_stable_and_canonical(good):
    good.metadata = nbformat.from_dict(
        {"widgets": {"x": 1}, "language_info": {"version": "3.11.7"}, "mystnb": {"a": 1}}
    )
    good.cells[1].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    good.cells[1].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="one\n"),
        nbformat.v4.new_output("stream", name="stdout", text="two\n"),
    ]
    for number, cell in enumerate(good.cells):
        cell.id = f"random-{number}"
        if cell.cell_type == "code":
            cell.execution_count = 40 + number
    text = tool.normalize(copy.deepcopy(good))
    again = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    assert tool.normalize(again) == text
    assert text.endswith("}\n")
    stored = json.loads(text)
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert stored["metadata"].keys() == {"kernelspec", "language_info", "mystnb"}
    assert "version" not in stored["metadata"]["language_info"]
    assert [cell.get("execution_count") for cell in stored["cells"]] == [None, 1, 2, 3]
    assert stored["cells"][1]["metadata"] == {}
    (stream,) = stored["cells"][1]["outputs"]
    assert stream["text"] == ["one\n", "two\n"]
    assert "random-" not in text
    assert list(stored) == sorted(stored)
    del good.cells[2]  # the ids of the other cells do not depend on it
    assert stored["cells"][3]["id"] == json.loads(tool.normalize(good))["cells"][2]["id"]


def test_equal_cells_have_different_ids(good):
    good.cells[2].source = good.cells[3].source = "x = 1"
    cells = json.loads(tool.normalize(good))["cells"]
    assert cells[3]["id"] == cells[2]["id"] + "-2"


def test_model_ids_are_derived_from_the_cell_wherever_they_stand(good):
    def stored(model_id):
        notebook = copy.deepcopy(good)
        data = notebook.cells[3].outputs[0].data
        data[WIDGET]["model_id"] = model_id
        data["text/html"] += f"<script>{model_id}</script>"
        return tool.normalize(notebook)

    assert stored("1" * 32) == stored("2" * 32)
    assert "1" * 32 not in stored("1" * 32)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (STDERR, "cell 2 wrote to stderr"),
        (ERROR, "cell 2 ended with E"),
        (
            nbformat.v4.new_output("stream", name="stdout", text="<object at 0x7f2ddf3a7250>"),
            "memory address, 0x7f2ddf3a7250",
        ),
        (
            nbformat.v4.new_output("display_data", {"text/html": f"in {HOME}/x.py"}),
            f"machine path, {HOME}",
        ),
    ],
)
def test_outputs_that_must_not_be_stored_are_refused(good, output, message):
    good.cells[1].outputs = [output]
    with pytest.raises(tool.NotebookError, match=re.escape(message)):
        tool.normalize(good)


def test_empty_code_cells_are_refused(good):
    good.cells[1].source = " "
    with pytest.raises(tool.NotebookError, match="cell 2 is an empty"):
        tool.normalize(good)


# --- the tool: running ---------------------------------------------------------------------------

PLOT = """\
import os, matplotlib.pyplot as plt
from dpo_lib import figures
figures.use_book_style()
fig, ax = plt.subplots()
_ = ax.plot([1 / 3, 2], [3, 4])"""
WORDS = "import sys\nprint('one', flush=True)\nprint('threads', os.environ['OMP_NUM_THREADS'])"


def write(path, *sources):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, path)
    return path


def test_run_then_check_then_corrupt(tmp_path, capsys, monkeypatch):
    path = write(tmp_path / "a.ipynb", PLOT, WORDS)
    assert tool.main(["run", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert '"threads 1\\n"' in text
    assert "<svg" in text
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left
    assert tool.main(["check", str(path)]) == 0
    assert "the same, byte by byte" in capsys.readouterr().out

    monkeypatch.setattr(tool, "rerun", lambda *_: text)  # what a third run would give
    corruptions = [('"one\\n"', '"two\\n"'), ("#0072b2", "#d55e00"), (" L ", " M "), ("}\n", "}")]
    for old, new in corruptions:
        assert old in text
        path.write_text(new.join(text.rsplit(old, 1)), encoding="utf-8")
        assert tool.main(["check", str(path)]) == 1
        message = capsys.readouterr().err
        assert "another file" in message
        if old == " L ":
            assert re.search(r"^-.* M .*\n\+.* L ", message, re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n1 / 0", "cell 2 failed"),
        ("import warnings\nwarnings.warn('careful')", "cell 2 wrote to stderr"),
        ("import os; os._exit(1)", "Kernel died"),
        ("import time; time.sleep(60)", "cell 2 took too long"),
    ],
)
def test_a_failing_notebook_is_left_as_it_was(tmp_path, capsys, source, message):
    path = write(tmp_path / "a.ipynb", "print(1)", source)
    before = path.read_bytes()
    assert tool.main(["run", "--timeout", "5", str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "a.ipynb" in error
    if "failed" in message:
        assert "ZeroDivisionError" in error
        assert "\x1b[" not in error
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- nbval, which makes the only run of `make test` ----------------------------------------------

SHOW = """\
from uuid import uuid4
from IPython.display import display
VIEW = {"model_id": uuid4().hex, "version_major": 2, "version_minor": 0}
def show(**data):
    data["text/plain"] = ""
    display({key.replace("__", "/"): value for key, value in data.items()}, raw=True)"""
WIDGET_CELL = f"display({{'{WIDGET}': VIEW, 'text/plain': 'W()'}}, raw=True)"
DISPLAYED = nbformat.v4.new_output("display_data", {"text/plain": "2"})
# Each cell, and what is changed in its stored outputs; None: nothing.
CHANGES = [
    (SHOW, None),
    (WIDGET_CELL, None),  # another model id in each run
    ("print('a')\nshow(text__html='<p>')\nprint('b')", None),
    ("show(image__png='iVBORw0=')\n1", None),
    (WIDGET_CELL + "  # 2", lambda outputs: outputs[0].data.pop(WIDGET)),
    ("print('c')\nshow(text__html='<p>')\nprint('d')", lambda outputs: outputs.reverse()),
    ("show(image__png='iVBORw0=')", lambda outputs: outputs[0].data.update({"image/png": "iVBO"})),
    ("show(image__svg='<g/>')", lambda outputs: outputs[0].data.update({"image/svg": "<p/>"})),
    ("show(text__html='<b>')", lambda outputs: outputs[0].metadata.update(isolated=True)),
    ("2", lambda outputs: outputs.insert(0, DISPLAYED) or outputs.pop()),
    ("import sys\nprint('e', file=sys.stderr)", lambda outputs: outputs.clear()),
    ("print('f')", lambda outputs: outputs.append(outputs[0])),
    ("3", lambda outputs: outputs[0].data.update({"text/plain": "4"})),
    ("import os\nos._exit(1)", None),
]


def validate(path):
    """Run nbval as `make test` does: the outcome and the message of each cell."""
    report = path.with_suffix(".xml")
    options = ["-p", "tools.nbval_whole", "--nbval", "--nbval-current-env", f"--junitxml={report}"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(path)],
        cwd=ROOT,
        capture_output=True,
        timeout=tool.PATIENCE,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name},
    )
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return ["".join(failure.text for failure in case.iter("failure")) for case in cases]


def test_nbval_sees_every_difference(tmp_path):
    path = write(tmp_path / "a.ipynb", *(source for source, _ in CHANGES[:-1]))
    notebook = nbformat.read(path, as_version=4)
    tool.execute(notebook, tmp_path)
    for cell, (_, change) in zip(notebook.cells, CHANGES, strict=False):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        if change and cell.outputs:
            change(cell.outputs)
    notebook.cells.append(nbformat.v4.new_code_cell(CHANGES[-1][0]))
    path.write_text(tool.normalize(notebook), encoding="utf-8")
    messages = validate(path)
    for (source, change), message in zip(CHANGES[:-1], messages, strict=False):
        assert bool(message) == bool(change), (source, message)
    assert "the kernel died" in messages[len(CHANGES) - 1]
    assert re.search(r"^-.*isolated", messages[8], re.MULTILINE)
