"""Exact results where every response can be listed (chapters 6, 7, 9 and appendix A).

A policy over K responses is a tensor of log-probabilities ``(..., K)`` that sums to one after
``exp``; leading dimensions are prompts. All expectations are sums, nothing is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dpo_lib._validation import (
    as_float_tensor,
    check_finite,
    check_log_probs,
    check_positive,
    check_same_shape,
)
from dpo_lib.losses import PreferenceLoss, dpo_loss
from dpo_lib.preference import bradley_terry_probability


def log_partition(reference_logps: object, rewards: object, beta: float) -> Tensor:
    r"""Log of :math:`Z(x) = \sum_y \pi_{\mathrm{ref}}(y\mid x)\,e^{r(x,y)/\beta}`.

    Parameters
    ----------
    reference_logps : Tensor or sequence of float
        Reference policy (nats), shape ``(..., K)``.
    rewards : Tensor or sequence of float
        Rewards, same shape.
    beta : float
        Inverse temperature of the KL penalty, above 0.

    Returns
    -------
    Tensor
        :math:`\log Z(x)` (nats), shape ``(...)``.

    Raises
    ------
    ValueError
        If the shapes differ, the reference does not sum to one, a reward is not finite, or
        ``beta`` is not above 0.

    References
    ----------
    Rafailov et al. (2023), eq. 4 and appendix A.1.
    """
    return _tilted(reference_logps, rewards, beta).logsumexp(dim=-1)


def optimal_policy(reference_logps: object, rewards: object, beta: float) -> Tensor:
    r"""Log-probabilities of :math:`\pi^*(y\mid x) = \pi_{\mathrm{ref}}\,e^{r/\beta} / Z(x)`.

    Parameters, errors and source as for `log_partition`.

    Returns
    -------
    Tensor
        :math:`\log\pi^*` (nats), shape ``(..., K)``: the maximum of `rlhf_objective`.
    """
    return _tilted(reference_logps, rewards, beta).log_softmax(dim=-1)


def entropy(logps: object) -> Tensor:
    """Entropy (nats) of policies ``(..., K)``, shape ``(...)``.

    Raises ``ValueError`` if a policy does not sum to one.
    """
    policy = _check_policy(logps, "logps")
    return -(policy.exp() * policy).sum(dim=-1)


def kl_divergence(logps: object, other_logps: object) -> Tensor:
    r"""Exact :math:`\mathrm{KL}(\pi\,\|\,\pi')` in nats.

    Parameters
    ----------
    logps, other_logps : Tensor or sequence of float
        Log-probabilities of :math:`\pi` and :math:`\pi'`, shape ``(..., K)``.

    Returns
    -------
    Tensor
        Divergences, shape ``(...)``; the expectation is over the first policy.

    Raises
    ------
    ValueError
        If the shapes differ or a policy does not sum to one.
    """
    policy, other = _check_policy(logps, "logps"), _check_policy(other_logps, "other_logps")
    check_same_shape(logps=policy, other_logps=other)
    return (policy.exp() * (policy - other)).sum(dim=-1)


def total_variation(logps: object, other_logps: object) -> Tensor:
    """Half the summed absolute difference of two policies ``(..., K)``: 0 if equal, at most 1.

    Raises ``ValueError`` if the shapes differ or a policy does not sum to one.
    """
    policy, other = _check_policy(logps, "logps"), _check_policy(other_logps, "other_logps")
    check_same_shape(logps=policy, other_logps=other)
    return 0.5 * (policy.exp() - other.exp()).abs().sum(dim=-1)


def rlhf_objective(
    policy_logps: object, reference_logps: object, rewards: object, beta: float
) -> Tensor:
    r"""KL-regularized reward :math:`E_\pi[r] - \beta\,\mathrm{KL}(\pi\,\|\,\pi_{\mathrm{ref}})`.

    Parameters
    ----------
    policy_logps, reference_logps : Tensor or sequence of float
        Policies (nats), shape ``(..., K)``.
    rewards : Tensor or sequence of float
        Rewards, same shape.
    beta : float
        Inverse temperature of the KL penalty, above 0.

    Returns
    -------
    Tensor
        Objective, shape ``(...)``. Its maximum is :math:`\beta\log Z`, at `optimal_policy`.

    Raises
    ------
    ValueError
        As in `log_partition`.

    References
    ----------
    Rafailov et al. (2023), eq. 3.
    """
    policy = _check_policy(policy_logps, "policy_logps")
    reference = _check_policy(reference_logps, "reference_logps")
    reward = _check_rewards(rewards)
    check_same_shape(policy_logps=policy, reference_logps=reference, rewards=reward)
    penalty = check_positive(beta, "beta") * kl_divergence(policy, reference)
    return (policy.exp() * reward).sum(dim=-1) - penalty


def expected_dpo_loss(
    policy_logps: object, reference_logps: object, rewards: object, beta: float
) -> Tensor:
    r"""DPO loss averaged over all ordered pairs of different responses and their labels.

    The label of a pair follows the Bradley–Terry model of the true ``rewards``, so each ordered
    pair (i, j) weighs :math:`\sigma(r_i - r_j)`.

    Parameters
    ----------
    policy_logps, reference_logps : Tensor or sequence of float
        Policies (nats), shape ``(K,)`` or ``(..., K)``.
    rewards : Tensor or sequence of float
        True rewards, same shape.
    beta : float
        Inverse temperature of the KL penalty, above 0.

    Returns
    -------
    Tensor
        Loss (nats), shape ``(...)``; minimal where the policy is `optimal_policy`.

    Raises
    ------
    ValueError
        As in `log_partition`, or if there are fewer than two responses.
    """
    policy = _check_policy(policy_logps, "policy_logps")
    reference = _check_policy(reference_logps, "reference_logps")
    reward = _check_rewards(rewards)
    check_same_shape(policy_logps=policy, reference_logps=reference, rewards=reward)
    n_responses = reward.shape[-1]
    if n_responses < 2:
        raise ValueError(f"rewards must hold at least two responses, got {n_responses}")
    # Each unordered pair once, in both of its labelings.
    i, j = torch.triu_indices(n_responses, n_responses, offset=1)
    total = torch.zeros(policy.shape[:-1], dtype=policy.dtype)
    for won, lost in ((i, j), (j, i)):
        weight = bradley_terry_probability(reward[..., won], reward[..., lost])
        losses = dpo_loss(
            policy[..., won], policy[..., lost], reference[..., won], reference[..., lost], beta
        ).losses
        total = total + (weight * losses).sum(dim=-1)
    return total / len(i)


def optimal_margin(
    loss: Callable[..., PreferenceLoss], probability: object, beta: float = 0.1, **options: Any
) -> Tensor:
    r"""Log-ratio gap h at which a pair's expected loss is least, for a loss on h alone.

    With :math:`h = \log\frac{\pi_\theta(y_w)}{\pi_{\mathrm{ref}}(y_w)} -
    \log\frac{\pi_\theta(y_l)}{\pi_{\mathrm{ref}}(y_l)}` and labels that prefer the first
    response with probability p, minimizes :math:`p\,\ell(h) + (1-p)\,\ell(-h)`.

    Parameters
    ----------
    loss : callable
        A convex loss in the form of `dpo_loss` whose value depends on h only.
    probability : Tensor or float
        Label probability p in [0, 1], any shape.
    beta : float
        Passed to the loss, above 0.
    **options
        Passed to the loss.

    Returns
    -------
    Tensor
        h* (nats), float64, shape of ``probability``; where many values are best, the one
        nearest to 0. Infinite where the loss still falls at :math:`|h| = 30/\beta`, which in
        double precision is where it has no minimum.

    Raises
    ------
    ValueError
        If a probability is outside [0, 1], or ``beta`` is not above 0 or so small that the
        margin would be beyond double precision.

    References
    ----------
    Appendix D, where the closed forms stand.
    """
    p = as_float_tensor(probability, "probability").double()
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probability must be in [0, 1], got {p.flatten()[:3].tolist()}")
    reach = 30 / check_positive(beta, "beta")
    if math.isinf(2 * reach):
        raise ValueError(f"beta is too small for the margin to be a number, got {beta!r}")
    floor = torch.full_like(p, -reach)  # far enough below 0 for every log-probability

    def slope(gap: Tensor) -> Tensor:
        with torch.enable_grad():
            half = gap.clone().requires_grad_() / 2
            up, down = floor + half, floor - half
            for_first = loss(up, down, floor, floor, beta=beta, **options).losses
            for_second = loss(down, up, floor, floor, beta=beta, **options).losses
            expected = p * for_first + (1 - p) * for_second
            return torch.autograd.grad(expected.sum(), half)[0] / 2

    at_zero = slope(torch.zeros_like(p))
    # The loss is convex: its least value lies on the side to which it falls at 0.
    sign = -at_zero.sign()
    near, far = torch.zeros_like(p), sign * reach
    unbounded = sign * slope(far) < 0
    for _ in range(64):  # to the last bit
        middle = (near + far) / 2
        falls = sign * slope(middle) < 0
        near, far = torch.where(falls, middle, near), torch.where(falls, far, middle)
    return torch.where(unbounded, sign * torch.inf, far)


def fit_policy(
    loss: Callable[[Tensor], Tensor], start_logps: object, max_steps: int = 500
) -> Tensor:
    """Minimize a loss over all policies on K responses, starting from one of them.

    Parameters
    ----------
    loss : callable
        Maps log-probabilities ``(..., K)`` to losses of any shape; their sum is minimized.
    start_logps : Tensor or sequence of float
        Policy to start from (nats), shape ``(..., K)``.
    max_steps : int
        L-BFGS iterations allowed.

    Returns
    -------
    Tensor
        Log-probabilities of the fitted policy, float64, shape ``(..., K)``.

    Raises
    ------
    ValueError
        If the start does not sum to one or the loss stops being finite.
    """
    logits = _check_policy(start_logps, "start_logps").detach().double().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=max_steps,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logits.log_softmax(dim=-1)).sum()
        check_finite(value, "loss")
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().log_softmax(dim=-1)


def _tilted(reference_logps: object, rewards: object, beta: float) -> Tensor:
    """Sum of reference log-probability and reward / beta: the optimum before normalization."""
    reference = _check_policy(reference_logps, "reference_logps")
    reward = _check_rewards(rewards)
    check_same_shape(reference_logps=reference, rewards=reward)
    return reference + reward / check_positive(beta, "beta")


def _check_rewards(rewards: object) -> Tensor:
    tensor = as_float_tensor(rewards, "rewards")
    check_finite(tensor, "rewards")
    return tensor


def _check_policy(logps: object, name: str) -> Tensor:
    """Return log-probabilities ``(..., K)`` whose exponentials sum to one."""
    tensor = check_log_probs(logps, name)
    if tensor.ndim == 0 or tensor.shape[-1] == 0:
        raise ValueError(f"{name} must list the responses in its last dimension, got a scalar")
    total = tensor.detach().exp().sum(dim=-1)
    if not torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-4):
        raise ValueError(
            f"{name} must sum to one over responses, got {total.flatten()[:3].tolist()}"
        )
    return tensor
