"""Let nbval compare everything that a notebook stores, in the one run that it makes.

python -m pytest -p tools.nbval_whole --nbval --nbval-current-env notebooks

nbval leaves out what differs from run to run in notebooks at large: PNG pictures, which widget
is shown, the kind and the metadata of an output, and the order of outputs of different kinds. Ours
are stored in a canonical form in which none of this may differ; whatever nbval finds equal must
have the same canonical form too. What no run is needed for (ids of cells, metadata, the order in
which cells were run) is checked by ``tests/chapters/test_notebooks.py`` in the stored file.

nbval also gives up on a kernel that is slow to answer, after 5 seconds in one place. Here it waits
for as long as the kernel is alive, and no longer.
"""

import copy
import functools
import json
import tempfile
import time
from queue import Empty
from typing import Any

import nbformat
import nbval.kernel
import nbval.plugin
import pytest

from tools import notebooks

GLANCE = 5  # seconds between two looks at whether the kernel is alive


def unlike(cell: nbformat.NotebookNode, outputs: list) -> str:
    """Return how new outputs of a stored cell differ from its own, or nothing if they do not."""
    new = copy.deepcopy(cell)
    new.outputs = [nbformat.from_dict(output) for output in outputs]
    notebooks.settle(new, cell.execution_count)
    texts = [
        json.dumps(outputs, indent=1, sort_keys=True, ensure_ascii=False).replace("\\n", "\n")
        for outputs in (cell.outputs, new.outputs)
    ]
    return "" if texts[0] == texts[1] else notebooks.difference(*texts)


@pytest.hookimpl
def pytest_itemcollected(item: pytest.Item) -> None:
    """Let a cell compare all, and wait for what it has printed."""
    if not isinstance(item, nbval.plugin.IPyNbCell):
        return
    as_nbval_does = item.compare_outputs

    def compare_outputs(test: list, ref: list, skip_compare: Any = None) -> bool:
        if not as_nbval_does(test, ref, skip_compare):
            return False
        if message := unlike(item.cell, test):
            item.comparison_traceback.append(message)
        return not message

    item.compare_outputs = compare_outputs
    item.output_timeout = notebooks.PATIENCE


class PatientKernel(nbval.kernel.RunningKernel):
    """A kernel with the environment of `tools.notebooks`, waited for while it is alive."""

    def __init__(self, *arguments: Any, startup_timeout: float, **options: Any) -> None:
        self.home = tempfile.TemporaryDirectory()
        manager, start = nbval.kernel.KernelManager, nbval.kernel.start_new_kernel
        environment = notebooks.environment(self.home.name)
        with pytest.MonkeyPatch.context() as patch:  # nbval hands nothing on to them
            settings = notebooks.sockets(self.home.name)
            patch.setattr(nbval.kernel, "KernelManager", functools.partial(manager, **settings))
            patch.setattr(
                nbval.kernel, "start_new_kernel", functools.partial(start, env=environment)
            )
            super().__init__(*arguments, startup_timeout=notebooks.PATIENCE, **options)

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Wait for the answer to a message."""
        end = time.monotonic() + notebooks.PATIENCE
        while True:
            try:
                return super().await_reply(msg_id, timeout=GLANCE)
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the kernel died") from None
                if time.monotonic() > end:
                    raise

    def stop(self) -> None:
        """End the kernel and remove its files."""
        super().stop()
        self.home.cleanup()


nbval.plugin.RunningKernel = PatientKernel
# Its own joins what was printed before a figure and after it.
nbval.plugin.coalesce_streams = notebooks.merge_streams
