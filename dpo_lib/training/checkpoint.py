"""Checkpoints: the whole state of a run in one file, which belongs to that run alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpo_lib._files import load_tensors, replacing
from dpo_lib.losses import loss_name
from dpo_lib.reference import fingerprint
from dpo_lib.training.config import DPOConfig

if TYPE_CHECKING:
    from dpo_lib.data import PreferenceDataset


def trained_parameters(policy: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters in training, by name; one with two names (tied embeddings) once."""
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}


def run_identity(
    config: DPOConfig,
    loss: Callable[..., Any],
    dataset: PreferenceDataset,
    policy: nn.Module,
    reference: object,
) -> dict[str, Any]:
    """What makes a run this one: settings, loss, data, and what a checkpoint does not hold.

    Parameters
    ----------
    config, loss, dataset, policy, reference
        As `train_dpo` got them, before the first update.

    Returns
    -------
    dict
        Names and plain values; runs are the same if these are.
    """
    trained = trained_parameters(policy)
    frozen = {name for name, _ in policy.named_parameters()} - {*trained}
    shapes = [(name, tuple(p.shape)) for name, p in trained.items()]
    settings = asdict(config)
    del settings["force_dtype"]  # it decides whether, not what, is computed
    return {
        **settings,
        "loss": loss_name(loss),
        "data": f"{len(dataset)} {dataset.unit} {_digest([*dataset])}",
        "trained parameters": f"{len(trained)} {_digest(shapes)}",
        "frozen parameters": f"{len(frozen)} {fingerprint(policy, frozen)[:12]}" if frozen else "0",
        "reference": "given" if reference is not None else "the policy at its start",
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How one run differs from another, in words, a line a setting; empty if they are the same."""
    return [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]


def write_checkpoint(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write the state of a run to ``path``, where there is always a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        torch.save({"run": dict(identity), **state}, file)


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote.

    Parameters
    ----------
    path : Path
        The file.
    identity : mapping
        Of the run that wants to go on, from `run_identity`.

    Returns
    -------
    dict
        The state, on the CPU.

    Raises
    ------
    ValueError
        If the file is not a whole checkpoint, or that of another run, saying what differs.
    """
    state = _load(path)
    if changed := differences(state.pop("run"), identity):
        raise ValueError(f"checkpoint {path} is of another run: {'; '.join(changed)}")
    return state


def updates_in(path: Path) -> int:
    """How many updates the run had made when `write_checkpoint` wrote this file."""
    return len(json.loads(_load(path, checked=False)["history"])[0])


def trained_weights(path: Path) -> dict[str, Tensor]:
    """The trained parameters that `write_checkpoint` wrote, by name, on the CPU."""
    return _load(path)["policy"]


def _load(path: Path, checked: bool = True) -> dict[str, Any]:
    try:
        state = load_tensors(path, checked=checked)
        return {**state, "run": dict(state["run"])}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"checkpoint {path} is empty, cut off, damaged or no checkpoint of this version: "
            "delete it (train --restart does) to train from the start"
        ) from error


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
