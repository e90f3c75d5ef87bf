"""The reference's values between runs: a cache that cannot be written costs a warning, no more."""

import contextlib
import resource
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

from dpo_lib.fast.cache import cache_reference_log_probs, read_cache, write_cache
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

    cache_reference_log_probs(model, rows, folder=tmp_path)  # there is room again
    (file,) = tmp_path.iterdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cache_reference_log_probs(model, rows, folder=tmp_path)
    assert torch.equal(torch.cat(found), torch.cat(expected))
    assert file.exists()


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
