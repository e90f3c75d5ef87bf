"""The reference's values between runs: a cache that cannot be written costs a warning, no more."""

import contextlib
import resource
import warnings

import pytest
import torch

from dpo_lib.fast.cache import cache_reference_log_probs
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
