"""The reference's values between runs: a cache that cannot be written costs a warning, no more."""

import contextlib
import re
import resource
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from torch import nn

from dpo_lib import make_reference
from dpo_lib.data import PreferenceDataset, make_preferences
from dpo_lib.fast.cache import cache_file, cache_reference_log_probs, read_cache, write_cache
from dpo_lib.models import InstructionTokenizer, TinyGPT, TinyGPTConfig
from dpo_lib.training import DPOConfig, train_dpo
from tests.fast.packed import random_rows, tiny


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond a hundred bytes: what is written fails half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_survived(tmp_path):
    rows, model = random_rows(9), tiny()
    expected = cache_reference_log_probs(model, rows)
    with full_disk(), pytest.warns(UserWarning, match="not kept for the next run") as caught:
        found = cache_reference_log_probs(model, rows, folder=tmp_path)
    assert torch.equal(torch.cat(found), torch.cat(expected))
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert [*tmp_path.iterdir()] == []

    folder = tmp_path / "one" / "in another"
    cache_reference_log_probs(model, rows, folder=folder)  # there is room again
    (file,) = folder.iterdir()
    assert re.fullmatch(r"reference-[0-9a-f]{24}\.pt", file.name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cache_reference_log_probs(model, rows, folder=folder)
    assert torch.equal(torch.cat(found), torch.cat(expected))


def test_an_error_of_torch_while_it_writes(monkeypatch, tmp_path):
    def save(values, file):
        raise RuntimeError("[enforce fail at inline_container.cc:858] unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", save)
    with pytest.warns(UserWarning, match=r"not kept .*: the file cannot be written$"):
        write_cache(tmp_path / "a.pt", (torch.ones(9), torch.ones(9)))
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="not kept for the next run: .*Not a directory"):
        cache_reference_log_probs(tiny(), random_rows(3), folder=tmp_path / "file" / "cache")


def test_a_changed_number_is_not_read(tmp_path):
    values, file = (torch.arange(1, 10.0), torch.arange(9.0)), tmp_path / "a.pt"
    write_cache(file, values)
    assert all(map(torch.equal, read_cache(file, 9), values))
    data, numbers = file.read_bytes(), values[0].numpy().tobytes()
    assert data.count(numbers) == 1
    file.write_bytes(data.replace(numbers, b"\x01" + numbers[1:]))
    assert read_cache(file, 9) is None


def test_only_the_values_of_all_rows_are_read(tmp_path):
    file = tmp_path / "a.pt"
    assert read_cache(file, 9) is None
    write_cache(file, (torch.ones(9), torch.ones(9)))
    assert read_cache(file, 8) is None
    write_cache(file, (torch.ones(9), torch.ones(8)))
    assert read_cache(file, 9) is read_cache(file, 8) is None


def test_as_many_pairs_at_a_time_as_asked_for(tmp_path):
    rows, model, seen = random_rows(9), tiny(), []
    model.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    whole = cache_reference_log_probs(model, rows, batch_size=9)
    assert seen == [9, 9]  # with the chosen, then with the rejected responses
    parts = cache_reference_log_probs(model, rows, batch_size=4)
    assert sorted(seen[2:]) == [1, 1, 4, 4, 4, 4]
    torch.testing.assert_close(parts, whole)
    with pytest.raises(ValueError, match=r"^dataset holds no pairs$"):
        cache_reference_log_probs(model, [])


def test_two_processes_keep_their_values_in_one_file(tmp_path):
    """One of them is this one."""
    code = textwrap.dedent("""
        import pathlib, sys, torch
        from dpo_lib.fast.cache import write_cache

        for _ in range(100):
            write_cache(pathlib.Path(sys.argv[1]), (torch.full((9,), 2.0), torch.full((9,), 2.0)))
    """)
    file, seen = tmp_path / "a.pt", set()
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as other:
        while other.poll() is None:
            write_cache(file, (torch.ones(9), torch.ones(9)))
            for values in (read_cache(file, 9) for _ in range(3)):
                assert values is not None
                seen.add(tuple(torch.cat(values).tolist()))
        assert other.returncode == 0, other.stderr.read()
    assert seen == {(1.0,) * 18, (2.0,) * 18}
    assert [left.name for left in tmp_path.iterdir()] == ["a.pt"]


# --- when values are read back -------------------------------------------------------------------


def tiny_reference(context=128):
    torch.manual_seed(0)
    sizes = {"context_length": context, "width": 16, "heads": 2, "layers": 1}
    return make_reference(TinyGPT(TinyGPTConfig(260, **sizes)).double())


def pairs(winners="shorter"):
    return PreferenceDataset(make_preferences(winners), InstructionTokenizer())


def count_calls(reference):
    calls = []
    reference.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_kept_values_are_read_back(tmp_path):
    reference = tiny_reference()
    calls = count_calls(reference)
    first = cache_reference_log_probs(reference, pairs(), folder=tmp_path)
    assert len(calls) == 2
    again = cache_reference_log_probs(tiny_reference(), pairs(), folder=tmp_path)
    cache_reference_log_probs(reference, pairs(), folder=tmp_path)
    assert len(calls) == 2
    assert all(map(torch.equal, first, again))
    assert len([*tmp_path.iterdir()]) == 1


def other_weights(folder):
    reference = tiny_reference()
    reference.final_norm.bias.data[0] += 1e-9
    cache_reference_log_probs(reference, pairs(), folder=folder)


def other_heads(folder):
    reference = tiny_reference()
    reference.config = TinyGPTConfig(260, context_length=128, width=16, heads=4, layers=1)
    cache_reference_log_probs(reference, pairs(), folder=folder)


def other_pairs(folder):
    cache_reference_log_probs(tiny_reference(), pairs("longer"), folder=folder)


def other_precision(folder):
    cache_reference_log_probs(
        tiny_reference(), pairs(), dtype="bfloat16", force_dtype=True, folder=folder
    )


def other_class(folder):
    reference = tiny_reference()
    reference.__class__ = type("Other", (TinyGPT,), {})
    cache_reference_log_probs(reference, pairs(), folder=folder)


@pytest.mark.parametrize(
    "change", [other_weights, other_heads, other_class, other_pairs, other_precision]
)
def test_values_of_something_else_are_computed_anew(tmp_path, change):
    cache_reference_log_probs(tiny_reference(), pairs(), folder=tmp_path)
    change(tmp_path)
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""])
def test_a_damaged_file_is_written_anew(tmp_path, damage):
    first = cache_reference_log_probs(tiny_reference(), pairs(), folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    again = cache_reference_log_probs(tiny_reference(), pairs(), folder=tmp_path)
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, first, torch.load(file, weights_only=True)))


def test_only_weights_can_be_kept(tmp_path):
    message = "^folder needs a reference with weights, got function$"
    with pytest.raises(ValueError, match=message):
        cache_reference_log_probs(lambda tokens: tokens, pairs(), folder=tmp_path)
    plain = nn.Linear(1, 1)  # weights, and no configuration
    files = {cache_file(tmp_path, plain, random_rows(1, seed), "float32") for seed in (0, 0, 1)}
    assert len(files) == 2


@pytest.mark.parametrize("given", [True, False])
def test_a_second_run_does_not_call_the_reference(tmp_path, given):
    config = DPOConfig(steps=2, batch_size=4, packed=False)
    histories, calls = [], []
    for _ in range(2):
        policy = tiny_reference().requires_grad_(True)
        reference = tiny_reference() if given else None
        calls.append(count_calls(reference or policy))
        options = {"reference_cache": tmp_path, "progress": False}
        histories.append(train_dpo(policy, reference, pairs(), config, **options))
    assert histories[0].steps == histories[1].steps
    assert len(calls[0]) == len(calls[1]) + 2
