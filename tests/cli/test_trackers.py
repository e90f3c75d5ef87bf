"""``--log-with``: which trackers there are, and what they are told."""

import re

import accelerate
import pytest
import torch
from accelerate import tracking

from dpo_lib.cli.trackers import Trackers


class Own(tracking.GeneralTracker):
    """Keeps what it is told; Accelerate asks no package for it."""

    name = "wandb"
    requires_logging_directory = False
    tracker = None

    def __init__(self, run_name, **where):
        self.told = [(run_name, where)]
        super().__init__()

    def start(self):
        self.told.append("start")

    def store_init_configuration(self, values):
        self.told.append(values)

    def log(self, values, step=None):
        self.told.append((step, values))

    def finish(self):
        self.told.append("end")


class OwnFiles(Own):
    requires_logging_directory = True


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What Accelerate is asked for; one tracker's package is there."""
    asked = []
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [tracking.LoggerType.AIM])
    monkeypatch.setattr(accelerate, "PartialState", lambda **how: asked.append(how))
    return asked


def test_a_tracker_must_be_known_and_installed(tmp_path):
    names = sorted(str(name) for name in tracking.LOGGER_TYPE_TO_CLASS)
    for name, reason in (
        ("paper", f"--log-with must be one of {names}, got 'paper'"),
        ("wandb", "--log-with wandb needs the Python package wandb, which is not installed"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
            Trackers(name, tmp_path)
    assert Trackers("aim", tmp_path).kind is tracking.AimTracker


@pytest.mark.parametrize(("kind", "has_files"), [(Own, False), (OwnFiles, True)])
def test_a_tracker_is_told_the_settings_once_and_each_row_at_its_step(
    tmp_path, monkeypatch, kind, has_files
):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, tracking.LoggerType.WANDB, kind)
    trackers = Trackers("wandb", tmp_path)
    trackers.start({"lr": 0.1, "steps": 2, "full": True, "out": "o", "data": ("a",), "map": None})
    tracker = trackers.tracker
    trackers.log({"step": 3.0, "loss": 0.5, "margin": 1.0})
    trackers.close()
    trackers.log({"step": 4.0, "loss": 0.4})
    trackers.close()
    assert tracker.told == [
        ("dpo", {"logging_dir": str(tmp_path / "logs")} if has_files else {}),
        "start",
        {"lr": 0.1, "steps": 2, "full": True, "out": "o", "data": "('a',)", "map": "None"},
        (3, {"loss": 0.5, "margin": 1.0}),
        "end",
    ]


@pytest.mark.parametrize("has_gpu", [True, False])
def test_accelerate_takes_the_processor_where_there_is_no_gpu(
    tmp_path, monkeypatch, asked, has_gpu
):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, tracking.LoggerType.WANDB, Own)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    Trackers("wandb", tmp_path).start({})
    assert asked == [{"cpu": not has_gpu}]


def test_without_a_tracker_nothing_is_logged(tmp_path):
    trackers = Trackers(None, tmp_path)
    trackers.start({"steps": 2})
    trackers.log({"step": 0, "loss": 0.5})
    trackers.close()
    assert trackers.tracker is None
    assert not [*tmp_path.iterdir()]
