"""Execute notebooks and store their outputs in one canonical form.

python tools/notebooks.py run notebooks/02_bradley_terry.ipynb   execute, normalize, store
python tools/notebooks.py tidy notebooks/02_bradley_terry.ipynb  normalize, store: text was edited
python tools/notebooks.py check -j 2 notebooks/*.ipynb           execute again, compare every byte

A notebook runs in its own folder with one thread. Its file is replaced only when every cell ran
without an error and without a word on stderr (a warning, a progress bar), and when no output holds
something that differs from run to run: a memory address, a path of this machine, random ids.
`make test` runs each notebook once, under nbval; ``tools/nbval_whole.py`` lets that run compare as
much as ``check`` does.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from dpo_lib._files import replacing

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
KEPT_CELL_METADATA = ("jupyter", "mystnb", "tags")
KEPT_NOTEBOOK_METADATA = ("mystnb",)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|work|var|opt|mnt)/[\w.-]+")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
PATIENCE = 1800
"""Seconds after which a cell, or the start of a kernel, counts as one that never ends.

No time is measured with it: the slowest cell takes seconds, and a machine that is busy with
something else may take many times as long without making the notebook wrong.
"""


class NotebookError(Exception):
    """A notebook that cannot be stored, with the cell and the reason."""


def environment(home: Path | str) -> dict[str, str]:
    """Return the environment of a kernel: one thread, this library, nothing personal.

    ``home`` becomes IPython's folder: a fresh one has no start-up files, and no history that two
    kernels share.
    """
    found = {**os.environ, **dict.fromkeys(THREADS, "1"), "IPYTHONDIR": str(home)}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for name in ("PYTHONWARNINGS", "MPLBACKEND", "PYTEST_CURRENT_TEST"):
        found.pop(name, None)
    return found


def sockets(home: Path | str) -> dict[str, str]:
    """Return a kernel manager's settings: sockets that are files in ``home``.

    The usual network ports are picked before the kernel opens them, and two kernels that start at
    once may pick the same: one of them dies.
    """
    return {"transport": "ipc", "ip": str(Path(home) / "kernel")}


def execute(notebook: nbformat.NotebookNode, folder: Path, timeout: int = PATIENCE) -> None:
    """Run every cell in ``folder`` with one thread; raise `NotebookError` when a cell fails."""
    notebook.metadata.setdefault("kernelspec", METADATA["kernelspec"])
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as log:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            startup_timeout=PATIENCE,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
            config=Config(KernelManager=sockets(home)),
        )
        try:
            client.execute(env=environment(home), stderr=log, stdout=subprocess.DEVNULL)
        except CellExecutionError as error:
            number = _last_run(notebook)
            raise NotebookError(f"cell {number} failed\n{ANSI.sub('', str(error))}") from None
        except (TimeoutError, CellTimeoutError) as error:
            raise NotebookError(f"cell {_last_run(notebook)} took too long: {error}") from None
        except DeadKernelError as error:
            log.seek(0)
            raise NotebookError(f"{error} after cell {_last_run(notebook)}\n{log.read()}") from None


def _last_run(notebook: nbformat.NotebookNode) -> int:
    """Return the number, counted over all cells from 1, of the cell that ran last."""
    ran = [
        number
        for number, cell in enumerate(notebook.cells, 1)
        if cell.cell_type == "code" and (cell.execution_count or cell.outputs)
    ]
    return ran[-1] if ran else 1


def normalize(notebook: nbformat.NotebookNode) -> str:
    """Return the notebook as canonical text; raise `NotebookError` for outputs that cannot be."""
    metadata = {
        key: notebook.metadata[key] for key in KEPT_NOTEBOOK_METADATA if key in notebook.metadata
    }
    notebook.metadata = nbformat.from_dict({**METADATA, **metadata})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter[str] = Counter()
    count = 0
    for number, cell in enumerate(notebook.cells, 1):
        cell.source = cell.source.strip("\n")
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        )
        cell.pop("attachments", None)
        if cell.cell_type != "code":
            continue
        if not cell.source.strip():
            raise NotebookError(f"cell {number} is an empty code cell; remove it")
        count += 1
        settle(cell, count)
        for output in cell.outputs:
            if output.output_type == "error":
                raise NotebookError(f"cell {number} ended with {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                raise NotebookError(
                    f"cell {number} wrote to stderr, which must not be stored:\n{output.text}"
                )
        for text in texts(cell):
            for pattern, what in ((ADDRESS, "a memory address"), (MACHINE_PATH, "a machine path")):
                if match := pattern.search(text):
                    raise NotebookError(
                        f"cell {number} prints {what}, {match[0]}, which differs from run to run"
                    )
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def settle(cell: nbformat.NotebookNode, count: int) -> None:
    """Give a code cell's outputs their canonical form; it is the ``count``-th that was run."""
    cell.execution_count = count
    cell.outputs = merge_streams(cell.outputs)
    for output in cell.outputs:
        if "execution_count" in output:
            output.execution_count = count
    _rename_models(cell)


def merge_streams(outputs: list) -> list:
    """Join neighbouring pieces of one stream: where it is cut depends on timing."""
    merged: list = []
    for output in outputs:
        last = merged[-1] if merged else None
        if output.output_type == "stream" and last and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _rename_models(cell: nbformat.NotebookNode) -> None:
    """Replace the random model ids of widgets by ids derived from the cell, wherever they stand."""
    names: dict[str, str] = {}
    for output in cell.outputs:
        view = output.get("data", {}).get(WIDGET_VIEW)
        if view and view["model_id"] not in names:
            key = f"{cell.id} widget {len(names)}"
            names[view["model_id"]] = hashlib.sha256(key.encode()).hexdigest()[:32]
    for output in cell.outputs:
        for mime, content in output.get("data", {}).items():
            for old, new in names.items():
                if isinstance(content, str):
                    output.data[mime] = content = content.replace(old, new)
                elif mime == WIDGET_VIEW and content["model_id"] == old:
                    content["model_id"] = new


def texts(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yield every text output of a code cell: streams, plain text, HTML, Markdown and LaTeX."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        for mime, content in output.get("data", {}).items():
            if mime.startswith("text/") and isinstance(content, str):
                yield content


def rerun(path: Path, timeout: int = PATIENCE) -> str:
    """Execute a fresh copy of the notebook and return its canonical text."""
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path.resolve().parent, timeout)
    return normalize(notebook)


def run(path: Path, timeout: int = PATIENCE) -> str:
    """Execute the notebook and replace the file; return a line for the screen."""
    return _store(path, lambda: rerun(path, timeout))


def tidy(path: Path, timeout: int = PATIENCE) -> str:
    """Give the file its canonical form again after an edit of its text; nothing is executed."""
    return _store(path, lambda: normalize(nbformat.read(path, as_version=4)))


def _store(path: Path, make: Callable[[], str]) -> str:
    start = time.perf_counter()
    text = make()
    old = path.read_text(encoding="utf-8")
    if text != old:
        with replacing(path) as file:
            file.write(text.encode())
    state = "unchanged" if text == old else "written"
    return f"{path}: {state}, {len(text) / 1000:.0f} kB, {time.perf_counter() - start:.1f} s"


def check(path: Path, timeout: int = PATIENCE) -> str:
    """Execute the notebook again; raise `NotebookError` with a diff if the file would change."""
    start = time.perf_counter()
    text = rerun(path, timeout)
    old = path.read_bytes().decode("utf-8")
    if text != old:
        raise NotebookError(
            "a new run gives another file "
            f"(to store it: python tools/notebooks.py run {path})\n{difference(old, text)}"
        )
    return f"{path}: the same, byte by byte, {time.perf_counter() - start:.1f} s"


def difference(old: str, new: str, most: int = 60) -> str:
    """Return the lines in which two texts differ, long ones cut."""
    lines = list(
        difflib.unified_diff(
            old.splitlines(), new.splitlines(), "stored", "new run", lineterm="", n=1
        )
    )
    cut = [line if len(line) <= 160 else line[:157] + "..." for line in lines[:most]]
    if len(lines) > most:
        cut.append(f"... {len(lines) - most} more lines")
    return "\n".join(cut) or "(only the end of the file or its line ends differ)"


def _job(command: str, path: Path, timeout: int) -> tuple[bool, str]:
    try:
        return True, {"run": run, "tidy": tidy, "check": check}[command](path, timeout)
    except NotebookError as error:
        return False, f"{path}: {error}"
    except Exception as error:
        return False, f"{path}: {type(error).__name__}: {error}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "tidy", "check"))
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="notebooks at a time")
    parser.add_argument("--timeout", type=int, default=PATIENCE, help="seconds a cell may take")
    options = parser.parse_args(arguments)
    count = len(options.paths)
    work = ([options.command] * count, options.paths, [options.timeout] * count)
    failed = 0
    if options.jobs > 1 and count > 1:
        with ProcessPoolExecutor(options.jobs) as pool:
            results = list(pool.map(_job, *work))
    else:
        results = map(_job, *work)
    for succeeded, message in results:
        failed += not succeeded
        print(message, file=sys.stdout if succeeded else sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
