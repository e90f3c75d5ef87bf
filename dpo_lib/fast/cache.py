"""Reference log-probabilities, computed once and kept between runs."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib._files import load_tensors, replacing
from dpo_lib.data import PreferenceDataset
from dpo_lib.fast.pair_log_probs import PairLogProbs, Row, log_probs_of_rows
from dpo_lib.logprobs import responses_of
from dpo_lib.reference import fingerprint


def cache_reference_log_probs(
    reference: Callable[..., Any],
    dataset: PreferenceDataset,
    batch_size: int = 64,
    *,
    packed: bool = False,
    dtype: str = "float32",
    force_dtype: bool = False,
    folder: str | Path | None = None,
) -> tuple[Tensor, Tensor]:
    """Reference log-probabilities of every pair, computed once: they never change.

    Parameters
    ----------
    reference : callable
        The frozen reference model.
    dataset : PreferenceDataset
        N preference pairs.
    batch_size : int
        Pairs in one forward pass.
    packed, dtype, force_dtype
        As in `PairLogProbs`: common prefixes are computed once, in which precision, and whether
        even where it is only slower.
    folder : path, optional
        Where the values are kept between runs, in a file named by a digest of the model, the
        token ids and ``dtype``: where one of them has changed, they are computed anew.

    Returns
    -------
    chosen, rejected : Tensor
        Nats, shape ``(N,)`` each, without gradients.

    Raises
    ------
    ValueError
        If the data set is empty, or as in `get_sequence_log_probs` and `check_dtype`.
    """
    if len(dataset) == 0:
        raise ValueError("dataset holds no pairs")
    rows = [dataset[i] for i in range(len(dataset))]
    file = None if folder is None else cache_file(folder, reference, rows, dtype)
    values = None if file is None else read_cache(file, len(rows))
    if values is None:
        log_probs = PairLogProbs(reference, packed, dtype, force_dtype=force_dtype)
        values = log_probs_of_rows(log_probs, rows, batch_size)
        if file is not None:
            write_cache(file, values)
    return values


def cache_file(folder: str | Path, model: object, rows: Sequence[Row], dtype: str) -> Path:
    """Name of the file that keeps a model's log-probabilities of some rows."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"folder needs a reference with weights, got {type(model).__name__}")
    # One set of weights can give other values with another configuration.
    config = f"{type(model).__name__} {getattr(model, 'config', None)}"
    names = ("prompt", *responses_of(rows[0]))
    ids = [[list(row[name]) for name in names] for row in rows]
    key = json.dumps([fingerprint(model), config, ids, dtype])
    return Path(folder) / f"reference-{hashlib.sha256(key.encode()).hexdigest()[:24]}.pt"


def read_cache(file: Path, n_pairs: int) -> tuple[Tensor, Tensor] | None:
    """What `write_cache` wrote; None if there is no such file, or no whole one."""
    try:
        first, second = load_tensors(file)
    except (OSError, ValueError):
        return None
    return (first, second) if len(first) == len(second) == n_pairs else None


def write_cache(file: Path, values: tuple[Tensor, Tensor]) -> None:
    """Keep the values in a file that is always a whole one; where that fails, say so and go on."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as whole:
            torch.save(tuple(x.cpu() for x in values), whole)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
        reason = getattr(error, "strerror", None) or "the file cannot be written"
        warnings.warn(
            f"the reference's log-probabilities are not kept for the next run: {file.parent}: "
            f"{reason}",
            stacklevel=3,
        )
