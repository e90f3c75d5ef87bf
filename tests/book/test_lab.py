"""JupyterLab can show the notebooks: the extensions that they need load in this version of it."""

import re
import subprocess
import sys

NEEDED = ("jupyterlab-myst", "anywidget", "@jupyter-widgets/jupyterlab-manager")


def test_the_extensions_that_the_notebooks_need_are_compatible():
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = re.sub(r"\x1b\[[\d;]*m", "", result.stdout + result.stderr)
    for name in NEEDED:
        line = next((line for line in listed.splitlines() if f"{name} v" in line), "")
        assert re.search(r"enabled\s+OK", line), f"{name}: {line or 'not installed'}\n{listed}"
