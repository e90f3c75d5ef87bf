r"""DPO and its relatives: thirteen losses in one form (chapter 9 and Appendix D).

A loss takes four log-probabilities of one shape and ``beta``, and returns unreduced losses with
the rewards that it compares. The log-probabilities are always *summed* over the tokens of a
response (`get_sequence_log_probs`). Losses on means divide the sums themselves: they, and others
that count tokens, also take ``chosen_lengths`` and ``rejected_lengths`` (see `takes_lengths`).

In the formulas :math:`\rho_w = \log\pi_\theta(y_w\mid x) - \log\pi_{\mathrm{ref}}(y_w\mid x)` is
the log-ratio of the chosen response, :math:`\rho_l` that of the rejected one,
:math:`h = \rho_w - \rho_l` their gap in nats, without :math:`\beta`, and :math:`|y|` a length in
tokens.

=====================  =======================  =========  =======
name in `LOSSES`       compares                 reference  lengths
=====================  =======================  =========  =======
``dpo``                sums                     yes        no
``cdpo``               sums                     yes        no
``robust``             sums                     yes        no
``ipo``                sums                     yes        no
``hinge``              sums                     yes        no
``r_dpo``              sums, with lengths       yes        yes
``length_normalized``  means                    yes        yes
``simpo``              means                    no         yes
``orpo``               means, and chosen alone  no         yes
``kto``                sums, with one level     yes        no
``dpop``               sums, and chosen alone   yes        no
``rpo``                sums, and chosen's mean  yes        yes
``reference_free``     sums                     no         no
=====================  =======================  =========  =======

Losses without a reference take its log-probabilities all the same, to share the form.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dpo_lib._validation import (
    as_float_tensor,
    check_finite,
    check_label_smoothing,
    check_paired_log_probs,
    check_positive,
    check_same_shape,
)
from dpo_lib.preference import preference_nll
from dpo_lib.rewards import dpo_reward

__all__ = [
    "LOSSES",
    "PreferenceLoss",
    "as_loss_function",
    "cdpo_loss",
    "dpo_loss",
    "dpop_loss",
    "hinge_loss",
    "ipo_loss",
    "kto_loss",
    "length_normalized_dpo_loss",
    "naive_loss",
    "orpo_loss",
    "r_dpo_loss",
    "robust_dpo_loss",
    "rpo_loss",
    "simpo_loss",
    "takes_lengths",
]


class PreferenceLoss(NamedTuple):
    """What a preference loss returns: unreduced losses and detached rewards, one shape."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def dpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    r"""DPO loss of each pair: :math:`-\log\sigma(z)` with the reward margin :math:`z`.

    The margin is :math:`z = \hat r(x, y_w) - \hat r(x, y_l)`. With label smoothing
    :math:`\varepsilon` (conservative DPO) the loss is
    :math:`-(1-\varepsilon)\log\sigma(z) - \varepsilon\log\sigma(-z)`.

    Parameters
    ----------
    policy_chosen_logps, policy_rejected_logps : Tensor or float
        Summed log-probabilities (nats) of each response under the policy, one shape.
    reference_chosen_logps, reference_rejected_logps : Tensor or float
        The same responses under the frozen reference, same shape.
    beta : float
        Inverse temperature of the KL penalty, above 0; 0.1 to 0.5 is usual.
    label_smoothing : float
        Assumed share of flipped labels, in [0, 0.5).

    Returns
    -------
    PreferenceLoss
        ``losses`` (nats, with gradient), ``chosen_rewards`` and ``rejected_rewards`` (detached).

    Raises
    ------
    ValueError
        If shapes differ, a log-probability is NaN, infinite or above 0, ``beta`` is not above
        0, or ``label_smoothing`` is outside [0, 0.5).

    References
    ----------
    Rafailov et al. (2023), eq. 7 (arXiv:2305.18290); Mitchell (2023), "A note on DPO with noisy
    preferences", eq. 3 for the smoothing; chapter 9.
    """
    epsilon = check_label_smoothing(label_smoothing)
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = _checked(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    chosen_rewards = dpo_reward(policy_chosen, reference_chosen, beta)
    rejected_rewards = dpo_reward(policy_rejected, reference_rejected, beta)
    losses = (1 - epsilon) * preference_nll(chosen_rewards, rejected_rewards)
    if epsilon > 0:
        losses = losses + epsilon * preference_nll(rejected_rewards, chosen_rewards)
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def cdpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
    *,
    label_smoothing: float = 0.1,
) -> PreferenceLoss:
    r"""Conservative DPO: `dpo_loss` with label smoothing, 0.1 unless given.

    It is the cross-entropy against a label of :math:`1-\varepsilon`: on a pair that is always
    labelled alike it stops at :math:`\beta h = \operatorname{logit}(1-\varepsilon)`. All
    arguments, rewards and errors are those of `dpo_loss`.

    References
    ----------
    Mitchell (2023), "A note on DPO with noisy preferences", eq. 3.
    """
    return dpo_loss(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        beta,
        label_smoothing,
    )


def robust_dpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
    *,
    label_smoothing: float = 0.1,
) -> PreferenceLoss:
    r"""Robust DPO: on average over flipped labels, the DPO loss on the labels before the flips.

    .. math::
        \frac{-(1-\varepsilon)\log\sigma(\beta h) + \varepsilon\log\sigma(-\beta h)}{1-2\varepsilon}

    Log-probabilities are summed; inputs, rewards and errors are those of `dpo_loss`.

    Parameters
    ----------
    label_smoothing : float
        Known share :math:`\varepsilon` of flipped labels, in [0, 0.5).

    Notes
    -----
    The estimate is unbiased, not bounded: the loss of one pair falls below 0 without end as h
    grows, with a slope that tends to :math:`-\beta\varepsilon/(1-2\varepsilon)` and not to 0.

    References
    ----------
    Chowdhury, Kini and Natarajan (2024), sect. 3.1 (arXiv:2403.00409).
    """
    chosen, rejected = _log_ratios(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    epsilon = check_label_smoothing(label_smoothing)
    chosen_rewards, rejected_rewards = _times(beta, chosen, rejected)
    as_labelled = preference_nll(chosen_rewards, rejected_rewards)
    flipped = preference_nll(rejected_rewards, chosen_rewards)
    losses = ((1 - epsilon) * as_labelled - epsilon * flipped) / (1 - 2 * epsilon)
    return _result(losses, chosen_rewards, rejected_rewards)


def ipo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
) -> PreferenceLoss:
    r"""IPO: the square :math:`(h - \frac{1}{2\tau})^2`, with ``beta`` in the place of :math:`\tau`.

    The gap h stands there without :math:`\beta`, and its log-probabilities are summed, as in the
    paper (TRL divides each log-ratio by its length first). Inputs and errors are those of
    `dpo_loss`.

    Parameters
    ----------
    beta : float
        The paper's :math:`\tau`, above 0: the loss pulls h to ``1 / (2 * beta)`` nats.

    Returns
    -------
    PreferenceLoss
        Losses (nats squared) and the rewards of `dpo_loss`, here :math:`\tau\rho`: where the loss
        is 0 the reward margin is one half.

    References
    ----------
    Azar et al. (2023), eq. 17 (arXiv:2310.12036).
    """
    chosen, rejected = _log_ratios(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    rewards = _times(beta, chosen, rejected)
    return _result((chosen - rejected - 1 / (2 * beta)).square(), *rewards)


def hinge_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
) -> PreferenceLoss:
    r"""SLiC's hinge on the reward margin: :math:`\max(0, 1 - \beta h)`.

    A pair whose margin has reached 1 has no gradient. Log-probabilities are summed; inputs,
    rewards and errors are those of `dpo_loss`.

    Notes
    -----
    SLiC compares :math:`\log\pi_\theta` without a reference and adds a term that keeps the model
    near its start. The form here, relative to a reference, is the "hinge-norm" of RSO.

    References
    ----------
    Zhao et al. (2023), sect. 2 (arXiv:2305.10425); Liu et al. (2023) (arXiv:2309.06657).
    """
    chosen, rejected = _log_ratios(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    chosen_rewards, rejected_rewards = _times(beta, chosen, rejected)
    losses = torch.relu(1 - (chosen_rewards - rejected_rewards))
    return _result(losses, chosen_rewards, rejected_rewards)


def r_dpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
    *,
    alpha: float = 0.01,
    chosen_lengths: object,
    rejected_lengths: object,
) -> PreferenceLoss:
    r"""R-DPO, with a price on length: :math:`-\log\sigma(\beta h + \alpha(|y_w| - |y_l|))`.

    It is DPO for the reward :math:`r - \alpha|y|`: a longer winner owes part of its win to its
    length, which leaves less for the policy to learn. Log-probabilities are summed, not divided;
    other inputs and errors are those of `dpo_loss`.

    Parameters
    ----------
    alpha : float
        Price of one token in units of reward, at least 0; 0 is DPO.
    chosen_lengths, rejected_lengths : Tensor or int
        Scored tokens of each response, in the shape of the log-probabilities.

    Returns
    -------
    PreferenceLoss
        Losses (nats) and the rewards of `dpo_loss`, without the length term.

    Notes
    -----
    The sign follows from the reward: where the loss is printed with a minus before
    :math:`\alpha`, it would push longer winners further instead.

    References
    ----------
    Park et al. (2024), eq. 9 (arXiv:2403.19159).
    """
    chosen, rejected = _log_ratios(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    chosen_length, rejected_length = _lengths(chosen, chosen_lengths, rejected_lengths)
    price = _check_weight(alpha, "alpha")
    chosen_rewards, rejected_rewards = _times(beta, chosen, rejected)
    losses = preference_nll(
        chosen_rewards + price * chosen_length, rejected_rewards + price * rejected_length
    )
    return _result(losses, chosen_rewards, rejected_rewards)


def length_normalized_dpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 5.0,
    *,
    chosen_lengths: object,
    rejected_lengths: object,
) -> PreferenceLoss:
    r"""DPO on log-ratios per token: :math:`-\log\sigma(\beta(\rho_w/|y_w| - \rho_l/|y_l|))`.

    Give summed log-probabilities: the loss divides them. Other inputs and errors are those of
    `dpo_loss`.

    Parameters
    ----------
    beta : float
        Above 0. Means are smaller than sums, so it stands higher than in DPO.
    chosen_lengths, rejected_lengths : Tensor or int
        Scored tokens of each response, in the shape of the log-probabilities.

    Returns
    -------
    PreferenceLoss
        Losses (nats) and as rewards :math:`\beta\rho/|y|`.

    References
    ----------
    Lambert et al. (2024), "Tulu 3", sect. 5, where ``beta`` is 5 (arXiv:2411.15124).
    """
    chosen, rejected = _log_ratios(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    means = _per_token(chosen, rejected, chosen_lengths, rejected_lengths)
    chosen_rewards, rejected_rewards = _times(beta, *means)
    losses = preference_nll(chosen_rewards, rejected_rewards)
    return _result(losses, chosen_rewards, rejected_rewards)


def simpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 2.0,
    *,
    gamma: float = 1.0,
    chosen_lengths: object,
    rejected_lengths: object,
) -> PreferenceLoss:
    r"""SimPO: log-probabilities per token, without a reference, and a margin to win by.

    .. math::
        -\log\sigma\Bigl(\frac{\beta}{|y_w|}\log\pi_\theta(y_w\mid x)
        - \frac{\beta}{|y_l|}\log\pi_\theta(y_l\mid x) - \gamma\Bigr)

    Give summed log-probabilities: the loss divides the policy's, and only checks the reference's.
    Other inputs and errors are those of `dpo_loss`.

    Parameters
    ----------
    beta : float
        Above 0; 2 to 2.5 in the paper.
    gamma : float
        Reward margin to reach, at least 0.
    chosen_lengths, rejected_lengths : Tensor or int
        Scored tokens of each response, in the shape of the log-probabilities.

    Returns
    -------
    PreferenceLoss
        Losses (nats) and as rewards :math:`\beta\log\pi_\theta/|y|`, without :math:`\gamma`.

    References
    ----------
    Meng, Xia and Chen (2024), eq. 6 (arXiv:2405.14734).
    """
    chosen, rejected, *_ = _checked(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    margin = _check_weight(gamma, "gamma")
    means = _per_token(chosen, rejected, chosen_lengths, rejected_lengths)
    chosen_rewards, rejected_rewards = _times(beta, *means)
    losses = preference_nll(chosen_rewards, rejected_rewards + margin)
    return _result(losses, chosen_rewards, rejected_rewards)


def orpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
    *,
    chosen_lengths: object,
    rejected_lengths: object,
) -> PreferenceLoss:
    r"""ORPO: fine-tuning on the chosen response, plus the odds of the chosen over the rejected.

    With the mean log-probability :math:`\ell = \log\pi_\theta(y\mid x)/|y|` and the odds
    :math:`o = e^\ell/(1 - e^\ell)` the loss is
    :math:`-\ell_w - \beta\log\sigma(\log o_w - \log o_l)`. Give summed log-probabilities: the
    loss divides the policy's, and only checks the reference's. Other inputs and errors are those
    of `dpo_loss`.

    Parameters
    ----------
    beta : float
        The paper's weight :math:`\lambda` of the second term, above 0; not a temperature.
    chosen_lengths, rejected_lengths : Tensor or int
        Scored tokens of each response, in the shape of the log-probabilities.

    Returns
    -------
    PreferenceLoss
        Losses (nats) and as rewards :math:`\beta\ell`, as in TRL; the paper defines none.

    Notes
    -----
    Odds stop at one over the machine epsilon: from there on :math:`\ell` counts as certain, and
    the odds pass no gradient.

    References
    ----------
    Hong, Lee and Thorne (2024), eq. 6 and 7 (arXiv:2403.07691).
    """
    chosen, rejected, *_ = _checked(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    means = _per_token(chosen, rejected, chosen_lengths, rejected_lengths)
    rewards = _times(beta, *means)
    chosen_odds, rejected_odds = (_log_odds(mean) for mean in means)
    return _result(beta * preference_nll(chosen_odds, rejected_odds) - means[0], *rewards)


def kto_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
    *,
    kl: object = None,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> PreferenceLoss:
    r"""KTO in the form of pairs: each response against one level, not against the other response.

    A pair holds one desirable and one undesirable example; its loss is their mean

    .. math::
        \tfrac12\bigl[\lambda_D\,\sigma(\beta(z_0 - \rho_w))
        + \lambda_U\,\sigma(\beta(\rho_l - z_0))\bigr],

    so the mean over pairs is the paper's mean over examples. Log-probabilities are summed; other
    inputs, rewards and errors are those of `dpo_loss`.

    Parameters
    ----------
    kl : Tensor or float, optional
        The level :math:`z_0` (nats), at least 0: one number, or one for each pair. Absent, it is
        estimated, see the notes.
    desirable_weight, undesirable_weight : float
        :math:`\lambda_D` and :math:`\lambda_U`, above 0.

    Notes
    -----
    In the paper :math:`z_0` is the KL divergence of policy from reference, estimated without
    gradient by responses that are put to the *wrong* prompt of the batch: the mean of their
    log-ratios, or 0 if that is negative. TRL does the same. Pass that number as ``kl`` if you
    have it. The four arguments do not hold it, so without ``kl`` the mean runs over the log-ratios
    at hand, all chosen and all rejected ones of this call:
    :math:`z_0 = \max(0, \operatorname{mean}(\rho_w, \rho_l))`. Neither set of responses is drawn
    from the policy, so both only stand in for the divergence; the paper avoids the responses at
    hand because they were picked for being good or bad. Either way a loss depends on the other
    pairs of its batch. With ``kl=0`` it does not: that is APO-zero (arXiv:2408.06266), halved.

    References
    ----------
    Ethayarajh et al. (2024), sect. 4.1, eq. 8 of its fifth version (arXiv:2402.01306).
    """
    chosen, rejected = _log_ratios(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    good = check_positive(desirable_weight, "desirable_weight")
    bad = check_positive(undesirable_weight, "undesirable_weight")
    level = _reference_point(kl, chosen, rejected)
    # 1 - sigmoid(x) is computed as sigmoid(-x), which keeps its digits for large x
    desirable, undesirable = _times(beta, level - chosen, rejected - level)
    losses = (good * torch.sigmoid(desirable) + bad * torch.sigmoid(undesirable)) / 2
    return _result(losses, *_times(beta, chosen, rejected))


def dpop_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.3,
    *,
    penalty: float = 50.0,
) -> PreferenceLoss:
    r"""DPO-positive: :math:`-\log\sigma(\beta(h - \lambda\max(0, -\rho_w)))`.

    The added term takes margin away wherever the chosen response has become less likely than
    under the reference. Log-probabilities are summed; other inputs and errors are those of
    `dpo_loss`.

    Parameters
    ----------
    beta : float
        As in `dpo_loss`; 0.3 in the paper.
    penalty : float
        :math:`\lambda`, at least 0; 0 is DPO, 50 the paper's value.

    Returns
    -------
    PreferenceLoss
        Losses (nats) and the rewards of `dpo_loss`, without the penalty.

    References
    ----------
    Pal et al. (2024), eq. 3 (arXiv:2402.13228).
    """
    chosen, rejected = _log_ratios(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    weight = _check_weight(penalty, "penalty")
    chosen_rewards, rejected_rewards = _times(beta, chosen, rejected)
    losses = preference_nll(chosen_rewards - weight * torch.relu(-chosen_rewards), rejected_rewards)
    return _result(losses, chosen_rewards, rejected_rewards)


def rpo_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 0.1,
    *,
    alpha: float = 1.0,
    chosen_lengths: object,
    rejected_lengths: object,
) -> PreferenceLoss:
    r"""DPO + NLL: :math:`-\log\sigma(\beta h) - \alpha\log\pi_\theta(y_w\mid x)/|y_w|`.

    The added term is supervised fine-tuning on the chosen response. It is a mean over the tokens
    of each response (TRL: over the tokens of the batch). Log-probabilities are summed; other
    inputs, rewards and errors are those of `dpo_loss`.

    Parameters
    ----------
    alpha : float
        Weight of the added term, at least 0; 0 is DPO, 1 the paper's value.
    chosen_lengths, rejected_lengths : Tensor or int
        Scored tokens of each response, in the shape of the log-probabilities.

    References
    ----------
    Pang et al. (2024), eq. 1 (arXiv:2404.19733). The name, regularized preference optimization,
    is that of Liu et al. (2024), who derive such a term (arXiv:2405.16436).
    """
    chosen, rejected, *_ = _checked(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    mean, _ = _per_token(chosen, rejected, chosen_lengths, rejected_lengths)
    weight = _check_weight(alpha, "alpha")
    dpo = dpo_loss(chosen, rejected, reference_chosen_logps, reference_rejected_logps, beta)
    return dpo._replace(losses=dpo.losses - weight * mean)


def naive_loss(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
    beta: float = 1.0,
) -> PreferenceLoss:
    r"""Preference loss on the naive reward: DPO with a reference that is flat over responses.

    The margin is :math:`\beta\,(\log\pi_\theta(y_w\mid x) - \log\pi_\theta(y_l\mid x))`; the
    reference log-probabilities are taken only to share the form of `dpo_loss`.

    Parameters, results and errors are those of `dpo_loss`; the rewards are ``beta`` times the
    policy's log-probabilities.

    Notes
    -----
    Chapter 6 trains with it to see what it does. The usual name is "reference-free" DPO.
    """
    policy_chosen, policy_rejected, *reference = _checked(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    flat = (torch.zeros_like(logps) for logps in reference)
    return dpo_loss(policy_chosen, policy_rejected, *flat, beta)


LOSSES: dict[str, Callable[..., PreferenceLoss]] = {
    "dpo": dpo_loss,
    "cdpo": cdpo_loss,
    "robust": robust_dpo_loss,
    "ipo": ipo_loss,
    "hinge": hinge_loss,
    "r_dpo": r_dpo_loss,
    "length_normalized": length_normalized_dpo_loss,
    "simpo": simpo_loss,
    "orpo": orpo_loss,
    "kto": kto_loss,
    "dpop": dpop_loss,
    "rpo": rpo_loss,
    "reference_free": naive_loss,
}
"""Every loss of this module by name."""


def as_loss_function(loss: str | Callable[..., PreferenceLoss]) -> Callable[..., PreferenceLoss]:
    """The loss itself, or the one of that name in `LOSSES`; another name is a ``ValueError``."""
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss must be a function or one of {[*LOSSES]}, got {loss!r}")
    return LOSSES[loss]


def takes_lengths(loss: Callable[..., PreferenceLoss]) -> bool:
    """Whether ``loss`` needs ``chosen_lengths`` and ``rejected_lengths`` as keywords."""
    return "chosen_lengths" in inspect.signature(loss).parameters


def _checked(
    policy_chosen_logps: object,
    policy_rejected_logps: object,
    reference_chosen_logps: object,
    reference_rejected_logps: object,
) -> list[Tensor]:
    """Return the four log-probabilities as tensors of one shape; errors name them."""
    return check_paired_log_probs(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )


def _log_ratios(*logps: object) -> tuple[Tensor, Tensor]:
    """Log-ratios of policy over reference (nats), of the chosen and the rejected responses."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = _checked(*logps)
    return policy_chosen - reference_chosen, policy_rejected - reference_rejected


def _times(beta: float, *values: Tensor) -> tuple[Tensor, ...]:
    scale = check_positive(beta, "beta")
    return tuple(scale * value for value in values)


def _result(losses: Tensor, chosen_rewards: Tensor, rejected_rewards: Tensor) -> PreferenceLoss:
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def _lengths(
    logps: Tensor, chosen_lengths: object, rejected_lengths: object
) -> tuple[Tensor, Tensor]:
    """Return both lengths, checked, in the dtype and on the device of ``logps``."""
    return (
        _check_length(logps, chosen_lengths, "chosen_lengths"),
        _check_length(logps, rejected_lengths, "rejected_lengths"),
    )


def _check_length(logps: Tensor, value: object, name: str) -> Tensor:
    lengths = as_float_tensor(value, name)
    check_same_shape(policy_chosen_logps=logps, **{name: lengths})
    bad = lengths[(lengths < 1) | (lengths != lengths.round()) | ~lengths.isfinite()]
    if len(bad):
        raise ValueError(
            f"{name} must be whole numbers of tokens, at least 1, got {bad[:3].tolist()}"
        )
    return lengths.to(logps)


def _per_token(
    chosen: Tensor, rejected: Tensor, chosen_lengths: object, rejected_lengths: object
) -> tuple[Tensor, Tensor]:
    chosen_length, rejected_length = _lengths(chosen, chosen_lengths, rejected_lengths)
    return chosen / chosen_length, rejected / rejected_length


def _log_odds(log_prob: Tensor) -> Tensor:
    """Log of p / (1 - p); expm1 keeps the digits of 1 - p, and the clamp keeps it above 0."""
    log_prob = log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps)
    return log_prob - torch.log(-torch.expm1(log_prob))


def _reference_point(kl: object, chosen: Tensor, rejected: Tensor) -> Tensor:
    """KTO's level as given, or estimated from the batch; without gradient."""
    if kl is None:
        return (chosen + rejected).detach().mean().clamp(min=0) / 2
    level = as_float_tensor(kl, "kl").detach()
    check_finite(level, "kl")
    if (level < 0).any():
        raise ValueError(f"kl must be at least 0, got {level.min().item():g}")
    if level.ndim > 0:
        check_same_shape(policy_chosen_logps=chosen, kl=level)
    return level.to(chosen)


def _check_weight(value: object, name: str) -> float:
    weight = as_float_tensor(value, name)
    check_finite(weight, name)
    if weight.numel() != 1 or weight < 0:
        raise ValueError(f"{name} must be a number, at least 0, got {value!r}")
    return weight.item()
