"""bfloat16 where a device has it, and not where it would only be slower."""

import dataclasses
import os
import platform
import subprocess
import sys

import pytest
import torch

from dpo_lib.fast import precision
from dpo_lib.fast.cache import cache_reference_log_probs
from dpo_lib.fast.pair_log_probs import PairLogProbs
from tests.fast.packed import random_rows, tiny

CPU = torch.device("cpu")


@pytest.fixture
def cost(monkeypatch):
    """Set what the measurement finds."""
    asked = []

    def measure(found):
        monkeypatch.setattr(
            precision, "bfloat16_cost", lambda device: asked.append(device) or found
        )
        return asked

    return measure


@pytest.mark.parametrize(("found", "refused"), [(0.5, False), (1.5, False), (5.2, True)])
def test_what_is_slower_is_refused_with_its_factor(cost, found, refused):
    cost(found)
    precision.check_dtype("cpu", "float32")
    precision.check_dtype("cpu", "bfloat16", force=True)
    if not refused:
        precision.check_dtype("cpu", "bfloat16")
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole of it below
        precision.check_dtype("cpu", "bfloat16")
    assert str(error.value) == (
        "dtype 'bfloat16' would only be slower: this processor emulates it, and a matrix product "
        "takes 5.2 times as long as in float32, measured just now; take float32, or force it "
        "(force_dtype=True, on the command line --force-dtype)"
    )


def test_the_device_is_measured_and_named(cost):
    asked = cost(3)
    assert precision.reason_against_bfloat16().startswith("this processor emulates it")
    assert precision.reason_against_bfloat16("cuda").startswith("this cuda device emulates it")
    assert asked == [CPU, torch.device("cuda")]


def test_nothing_is_measured_for_float32(cost):
    asked = cost(9.0)
    PairLogProbs(tiny())(random_rows(2))
    precision.check_dtype("cpu", "bfloat16", force=True)
    assert not asked


@pytest.mark.parametrize("packed", [True, False])
def test_log_probs_are_refused_at_the_first_call(cost, packed):
    cost(20.0)
    model, rows = tiny(torch.float32), random_rows(2)
    logps = PairLogProbs(model, packed, "bfloat16")
    for _ in range(2):
        with pytest.raises(ValueError, match="takes 20 times as long"):
            logps(rows)
    forced = PairLogProbs(model, packed, "bfloat16", force_dtype=True)
    assert torch.cat(forced(rows)).isfinite().all()


def test_the_reference_too(cost):
    cost(20.0)
    rows, model = random_rows(2), tiny(torch.float32)
    with pytest.raises(ValueError, match="takes 20 times as long"):
        cache_reference_log_probs(model, rows, dtype="bfloat16")
    cache_reference_log_probs(model, rows, dtype="bfloat16", force_dtype=True)


def test_a_run_is_refused_before_its_first_update_unless_forced(cost):
    from dpo_lib.data import PreferenceDataset, make_preferences
    from dpo_lib.models import InstructionTokenizer, TinyGPT, TinyGPTConfig
    from dpo_lib.training import DPOConfig, train_dpo
    from dpo_lib.training.checkpoint import run_identity

    cost(125.0)
    tokenizer = InstructionTokenizer()
    dataset = PreferenceDataset(make_preferences(), tokenizer)
    model = TinyGPT(TinyGPTConfig(len(tokenizer), context_length=128, width=16))
    config = DPOConfig(steps=1, batch_size=4, dtype="bfloat16")
    rows = []
    with pytest.raises(ValueError, match="takes 125 times as long"):
        train_dpo(model, None, dataset, config, on_step=rows.append, progress=False)
    assert not rows
    forced = dataclasses.replace(config, force_dtype=True)
    one, other = (run_identity(c, print, dataset, model, None) for c in (config, forced))
    assert one == other  # a run may go on where its precision is not native
    train_dpo(model, None, dataset, forced, on_step=rows.append, progress=False)
    assert len(rows) == 1


def test_an_unknown_dtype_is_refused_even_if_forced():
    with pytest.raises(ValueError, match=r"dtype must be one of .*'float16'"):
        precision.check_dtype("cpu", "float16", force=True)


def test_the_cost_is_measured_once_and_is_a_ratio(monkeypatch):
    precision.bfloat16_cost.cache_clear()
    clock, calls = iter(range(10**6)), []

    def now():
        return next(clock)

    def linear(x, weight):
        calls.append(x.dtype)
        for _ in range(8 if x.dtype == torch.bfloat16 else 1):  # ticks while it multiplies
            now()

    monkeypatch.setattr(precision.kernels, "linear", linear)
    monkeypatch.setattr(precision.time, "perf_counter", now)
    assert precision.bfloat16_cost(CPU) == 9 / 2
    assert calls == [torch.float32, torch.bfloat16] * precision._ROUNDS
    precision.bfloat16_cost(CPU)
    assert len(calls) == 2 * precision._ROUNDS
    precision.bfloat16_cost.cache_clear()


def test_a_processor_held_to_older_instructions_is_seen():
    code = "from dpo_lib.fast.precision import *; print(bfloat16_cost(torch.device('cpu')))"
    older = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=older, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    if platform.machine() in ("x86_64", "AMD64"):  # elsewhere the variable means nothing
        assert float(run.stdout) > precision.TOO_SLOW
