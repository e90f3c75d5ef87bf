"""``--log-with``: the numbers of a run in a tracker of Accelerate, beside the run's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Trackers:
    """The tracker that was asked for, or none.

    Parameters
    ----------
    name : str or None
        As Accelerate calls it, such as "tensorboard"; None: nothing is logged.
    out : path
        The run's folder: trackers that keep files have them in ``out/logs``.

    Raises
    ------
    ValueError
        If Accelerate knows no such tracker, or its package is not installed.
    """

    def __init__(self, name: str | None, out: Path) -> None:
        self.name, self.tracker = name, None
        if name is None:
            return
        from accelerate import tracking

        known = {str(key): kind for key, kind in tracking.LOGGER_TYPE_TO_CLASS.items()}
        if name not in known:
            raise ValueError(f"--log-with must be one of {sorted(known)}, got {name!r}")
        self.kind = known[name]
        available = {str(key) for key in tracking.get_available_trackers()}
        if self.kind.__module__ == tracking.__name__ and name not in available:
            raise ValueError(
                f"--log-with {name} needs the Python package {name}, which is not installed"
            )
        self.folder = out / "logs"

    def start(self, settings: dict[str, Any]) -> None:
        """Open the tracker and tell it the settings of the run."""
        if self.name is None:
            return
        from accelerate import PartialState

        PartialState(cpu=not _has_gpu())  # trackers ask it which process is the main one
        where = {"logging_dir": str(self.folder)} if self.kind.requires_logging_directory else {}
        self.tracker = self.kind("dpo", **where)
        self.tracker.start()
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in settings.items()
        }
        self.tracker.store_init_configuration(plain)

    def log(self, row: dict[str, Any]) -> None:
        """Log a row of numbers at its step."""
        if self.tracker is not None:
            values = {key: value for key, value in row.items() if key != "step"}
            self.tracker.log(values, step=int(row["step"]))

    def close(self) -> None:
        """Close the tracker."""
        if self.tracker is not None:
            self.tracker.finish()
            self.tracker = None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
