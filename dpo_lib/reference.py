"""The frozen reference model and its three invariants (chapter 7)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection

import torch
from torch import nn


def make_reference(policy: nn.Module) -> nn.Module:
    """Copy a policy into a frozen reference: own storage, eval mode, no gradients.

    Parameters
    ----------
    policy : nn.Module
        The model as it stands before preference training, usually the SFT model. Unchanged.

    Returns
    -------
    nn.Module
        The copy. Eval mode switches dropout off; train the policy with dropout off too, or its
        log-probabilities will not start equal to the reference's.

    Raises
    ------
    ValueError
        If ``policy`` is not an ``nn.Module``.
    """
    if not isinstance(policy, nn.Module):
        raise ValueError(f"policy must be an nn.Module, got {type(policy).__name__}")
    return copy.deepcopy(policy).eval().requires_grad_(False)


def fingerprint(model: nn.Module, names: Collection[str] | None = None) -> str:
    """Digest of every parameter and buffer, to prove later that none has changed.

    Parameters
    ----------
    model : nn.Module
        Any model.
    names : collection of str, optional
        Keys of the state dict to which the digest is limited.

    Returns
    -------
    str
        SHA-256 over names, shapes, dtypes and bytes, as 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if names is not None and name not in names:
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def assert_reference_invariants(
    policy: nn.Module,
    reference: nn.Module,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    start: str | None = None,
    at_start: bool = False,
) -> None:
    """Check what DPO takes for granted about the reference.

    Parameters
    ----------
    policy, reference : nn.Module
        The model in training and its frozen copy.
    optimizer : torch.optim.Optimizer, optional
        If given, it must hold no parameter of the reference.
    start : str, optional
        The reference's ``fingerprint`` before training; it must be the same now.
    at_start : bool
        Before the first step the policy must also equal the reference exactly.

    Raises
    ------
    AssertionError
        Naming the first invariant that does not hold, and the parameter.
    """
    for name, module in reference.named_modules():
        if module.training:
            part = f"reference module {name}" if name else "the reference"
            raise AssertionError(f"{part} is in training mode: dropout would change its values")
    policy_storage = {p.untyped_storage().data_ptr() for p in policy.parameters() if p.numel()}
    trained = (
        {id(p) for group in optimizer.param_groups for p in group["params"]} if optimizer else ()
    )
    for name, parameter in reference.named_parameters():
        if parameter.requires_grad or parameter.grad is not None:
            raise AssertionError(f"reference parameter {name} receives gradients")
        if parameter.untyped_storage().data_ptr() in policy_storage:
            raise AssertionError(f"reference parameter {name} shares its memory with the policy")
        if id(parameter) in trained:
            raise AssertionError(f"reference parameter {name} is in the optimizer")
    if start is not None and fingerprint(reference) != start:
        raise AssertionError("the reference has changed since its fingerprint was taken")
    if at_start and fingerprint(policy) != fingerprint(reference):
        raise AssertionError("the policy does not start as an exact copy of the reference")
