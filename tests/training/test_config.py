"""Settings: the learning rate of each update, and what is refused."""

import dataclasses
import math

import pytest

from dpo_lib.training import DPOConfig
from tests.training.runs import CONFIG, run


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_schedules(dataset, schedule, expected):
    config = dataclasses.replace(CONFIG, learning_rate=1.0, warmup_steps=2, schedule=schedule)
    rates = [config.learning_rate_at(step) for step in range(6)]
    assert rates == pytest.approx(expected, abs=1e-6)
    low = dataclasses.replace(config, learning_rate=1e-4)
    _, history = run(dataset, config=low)
    assert history.column("learning_rate") == pytest.approx([1e-4 * x for x in expected], abs=1e-9)


def test_gradients_are_clipped_to_one_and_nothing_decays_unless_asked_for():
    usual = DPOConfig()
    assert usual == DPOConfig(
        beta=0.1, max_grad_norm=1.0, weight_decay=0.0, schedule="constant", warmup_steps=0
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"beta": 0.0}, "beta must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"accumulate": 6}, r"accumulate must be at most batch_size \(5\), got 6"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"weight_decay": math.nan}, "weight_decay must be at least 0"),
        ({"eval_every": 0}, "eval_every must be at least 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm must be above 0"),
        ({"dtype": "float16"}, r"dtype must be one of .*'bfloat16'.*got 'float16'"),
        ({"schedule": "step"}, "schedule must be one of .*'cosine'.*got 'step'"),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **setting)
