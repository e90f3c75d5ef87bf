r"""The relatives of DPO (Appendix D): each a formula, with its paper.

:math:`\rho_w` and :math:`\rho_l`, here ``chosen`` and ``rejected``, are the log-ratios of policy
over reference (nats), :math:`h = \rho_w - \rho_l` is their gap, without :math:`\beta`, and
:math:`\ell = \log\pi_\theta(y\mid x)/|y|` a log-probability per token. Log-probabilities come in
as sums. What every loss takes, checks and returns stands in `dpo_lib.losses`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo_lib.losses.dpo import nll
from dpo_lib.losses.form import (
    Loss,
    coupled,
    on_both,
    on_log_ratios,
    on_mean_log_probs,
    on_mean_log_ratios,
)

# --- labels that may be wrong, margins that should end -------------------------------------------


@on_log_ratios
def cdpo_loss(
    chosen: Tensor, rejected: Tensor, beta: float = 0.1, *, label_smoothing: float = 0.1
) -> Tensor:
    r"""Conservative DPO, which takes a label for right with :math:`1-\varepsilon`.

    .. math:: -(1-\varepsilon)\log\sigma(\beta h) - \varepsilon\log\sigma(-\beta h)

    On a pair that is always labeled alike it stops at
    :math:`\beta h = \operatorname{logit}(1-\varepsilon)`.

    Parameters
    ----------
    label_smoothing : float
        Assumed share :math:`\varepsilon` of flipped labels, in [0, 0.5).

    References
    ----------
    Mitchell (2023), "A note on DPO with noisy preferences", eq. 3.
    """
    margin = beta * chosen - beta * rejected
    return (1 - label_smoothing) * nll(margin) + label_smoothing * nll(-margin)


@on_log_ratios
def robust_dpo_loss(
    chosen: Tensor, rejected: Tensor, beta: float = 0.1, *, label_smoothing: float = 0.1
) -> Tensor:
    r"""Robust DPO: on average over flipped labels, the DPO loss on the labels before the flips.

    .. math::
        \frac{-(1-\varepsilon)\log\sigma(\beta h) + \varepsilon\log\sigma(-\beta h)}{1-2\varepsilon}

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
    margin, epsilon = beta * chosen - beta * rejected, label_smoothing
    return ((1 - epsilon) * nll(margin) - epsilon * nll(-margin)) / (1 - 2 * epsilon)


@on_log_ratios
def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""IPO: the square :math:`(h - \frac{1}{2\tau})^2`, with ``beta`` in the place of :math:`\tau`.

    The gap h stands there without :math:`\beta`, in nats, and the loss is in nats squared. Where
    it is 0 the reward margin is one half.

    Parameters
    ----------
    beta : float
        The paper's :math:`\tau`, above 0: the loss pulls h to ``1 / (2 * beta)`` nats.

    Notes
    -----
    On sums, as the paper writes it. Its results were obtained per token: `ipo_per_token_loss`.

    References
    ----------
    Azar et al. (2023), eq. 17 (arXiv:2310.12036).
    """
    return (chosen - rejected - 1 / (2 * beta)).square()


@on_mean_log_ratios
def ipo_per_token_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""IPO on log-ratios per token: :math:`(\rho_w/|y_w| - \rho_l/|y_l| - \frac{1}{2\tau})^2`.

    Parameters
    ----------
    beta : float
        The paper's :math:`\tau`, above 0, now for means: ``1 / (2 * beta)`` nats a token.

    Notes
    -----
    The paper does not speak of the division. TRL divides, and says in its source that the authors
    confirmed this form for the paper's results.

    References
    ----------
    Azar et al. (2023), eq. 17 (arXiv:2310.12036), read so by TRL's ``loss_type="ipo"``.
    """
    return (chosen - rejected - 1 / (2 * beta)).square()


@on_log_ratios
def hinge_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""SLiC's hinge on the reward margin: :math:`\max(0, 1 - \beta h)`.

    A pair whose margin has reached 1 has no gradient.

    Notes
    -----
    SLiC compares :math:`\log\pi_\theta` without a reference and adds a term that keeps the model
    near its start. The form here, relative to a reference, is the "hinge-norm" of RSO.

    References
    ----------
    Zhao et al. (2023), sect. 2 (arXiv:2305.10425); Liu et al. (2023) (arXiv:2309.06657).
    """
    return torch.relu(1 - (beta * chosen - beta * rejected))


@on_log_ratios
def odpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1, *, offset: Tensor) -> Tensor:
    r"""DPO with an offset: :math:`-\log\sigma(\beta h - \Delta)`, a margin to win by.

    DPO hears only which response won. If it is known by how much, the offset says so: a pair
    with a wide gap has to be told apart by more.

    Parameters
    ----------
    offset : Tensor or float
        :math:`\Delta` in units of reward: one number, or one for each pair. In the paper it is
        :math:`\alpha\log` of the difference of two scores.

    References
    ----------
    Amini, Vieira and Cotterell (2024), sect. 3 (arXiv:2402.10571).
    """
    return nll(beta * chosen - beta * rejected - offset)


# --- the length of a response --------------------------------------------------------------------


@on_log_ratios
def r_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    beta: float = 0.1,
    *,
    alpha: float = 0.01,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
) -> Tensor:
    r"""R-DPO, with a price on length: :math:`-\log\sigma(\beta h + \alpha(|y_w| - |y_l|))`.

    It is DPO for the reward :math:`r - \alpha|y|`: a longer winner owes part of its win to its
    length, which leaves less for the policy to learn. Log-probabilities are summed, not divided.

    Parameters
    ----------
    alpha : float
        Price of one token in units of reward, at least 0; 0 is DPO.

    Notes
    -----
    The sign follows from the reward: where the loss is printed with a minus before
    :math:`\alpha`, it would push longer winners further instead.

    References
    ----------
    Park et al. (2024), eq. 9 (arXiv:2403.19159).
    """
    return nll(
        beta * chosen + alpha * chosen_lengths - (beta * rejected + alpha * rejected_lengths)
    )


@on_mean_log_ratios
def length_normalized_dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 5.0) -> Tensor:
    r"""DPO on log-ratios per token: :math:`-\log\sigma(\beta(\rho_w/|y_w| - \rho_l/|y_l|))`.

    Parameters
    ----------
    beta : float
        Above 0. Means are smaller than sums, so it stands higher than in DPO.

    References
    ----------
    Lambert et al. (2024), "Tulu 3", sect. 5, where ``beta`` is 5 (arXiv:2411.15124).
    """
    return nll(beta * chosen - beta * rejected)


@on_mean_log_probs
def simpo_loss(
    chosen: Tensor, rejected: Tensor, beta: float = 2.0, *, gamma: float = 1.0
) -> Tensor:
    r"""SimPO: log-probabilities per token, without a reference, and a margin to win by.

    .. math::
        -\log\sigma\Bigl(\frac{\beta}{|y_w|}\log\pi_\theta(y_w\mid x)
        - \frac{\beta}{|y_l|}\log\pi_\theta(y_l\mid x) - \gamma\Bigr)

    Parameters
    ----------
    beta : float
        Above 0; 2 to 2.5 in the paper.
    gamma : float
        Reward margin to reach, at least 0.

    References
    ----------
    Meng, Xia and Chen (2024), eq. 6 (arXiv:2405.14734).
    """
    return nll(beta * chosen - (beta * rejected + gamma))


@on_mean_log_probs
def orpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""ORPO: fine-tuning on the chosen response, plus the odds of the chosen over the rejected.

    With the odds :math:`o = e^\ell/(1 - e^\ell)` the loss is
    :math:`-\ell_w - \beta\log\sigma(\log o_w - \log o_l)`.

    Parameters
    ----------
    beta : float
        The paper's weight :math:`\lambda` of the second term, above 0; not a temperature.

    Notes
    -----
    Odds stop at one over the machine epsilon: from there on :math:`\ell` counts as certain, and
    the odds pass no gradient. The rewards are TRL's; the paper defines none.

    References
    ----------
    Hong, Lee and Thorne (2024), eq. 6 and 7 (arXiv:2403.07691).
    """
    return beta * nll(_log_odds(chosen) - _log_odds(rejected)) - chosen


def _log_odds(log_prob: Tensor) -> Tensor:
    """Log of p / (1 - p); expm1 keeps the digits of 1 - p, and the clamp keeps it above 0."""
    log_prob = log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps)
    return log_prob - torch.log(-torch.expm1(log_prob))


# --- each response on its own --------------------------------------------------------------------


@coupled
@on_log_ratios
def kto_loss(
    chosen: Tensor,
    rejected: Tensor,
    beta: float = 0.1,
    *,
    kl: Tensor | None = None,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    r"""KTO in the form of pairs: each response against one level, not against the other response.

    A pair holds one desirable and one undesirable example; its loss is their mean

    .. math::
        \tfrac12\bigl[\lambda_D\,\sigma(\beta(z_0 - \rho_w))
        + \lambda_U\,\sigma(\beta(\rho_l - z_0))\bigr],

    so the mean over pairs is the paper's mean over examples. Thumbs without pairs:
    `unpaired_kto_loss`, which is what `train_dpo` takes for "kto" on an `UnpairedDataset`.

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
    pairs of its batch. With ``kl=0`` it does not: that is `apo_zero_loss`, halved.

    References
    ----------
    Ethayarajh et al. (2024), sect. 4.1, eq. 8 of its fifth version, 7 of the first ones
    (arXiv:2402.01306).
    """
    level = _level(chosen, rejected) if kl is None else kl
    # 1 - sigmoid(x) is computed as sigmoid(-x), which keeps its digits for large x
    desirable = desirable_weight * torch.sigmoid(beta * (level - chosen))
    undesirable = undesirable_weight * torch.sigmoid(beta * (rejected - level))
    return (desirable + undesirable) / 2


def _level(chosen: Tensor, rejected: Tensor) -> Tensor:
    """KTO's level from the batch, without gradient."""
    return (chosen + rejected).detach().mean().clamp(min=0) / 2


@on_log_ratios
def apo_zero_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""APO-zero, chosen up and rejected down: :math:`\sigma(-\beta\rho_w) + \sigma(\beta\rho_l)`.

    For pairs whose chosen response is better than what the model would say.

    References
    ----------
    D'Oosterlinck et al. (2024), eq. 7, without its constant (arXiv:2408.06266).
    """
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


@on_log_ratios
def apo_down_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""APO-down, both down, the rejected further: :math:`\sigma(\beta\rho_w) + \sigma(-\beta h)`.

    For pairs whose chosen response is worse than what the model would say.

    References
    ----------
    D'Oosterlinck et al. (2024), eq. 8, without its constant (arXiv:2408.06266).
    """
    return torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected - beta * chosen)


@on_log_ratios
def bco_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1, *, shift: float = 0.0) -> Tensor:
    r"""BCO: :math:`-\log\sigma(\beta\rho_w - \delta) - \log\sigma(\delta - \beta\rho_l)`.

    A classifier of single responses, good or bad.

    Parameters
    ----------
    shift : Tensor or float
        :math:`\delta` in units of reward. In the paper it is the running mean of all rewards,
        which a loss of four arguments does not know; 0, as in TRL's ``bco_pair``, unless given.

    References
    ----------
    Jung et al. (2024), sect. 4 (arXiv:2404.04656).
    """
    return nll(beta * chosen - shift) + nll(shift - beta * rejected)


@on_log_ratios
def nca_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""NCA for pairs: :math:`-\log\sigma(\beta\rho_w) - \frac12\sum_{y}\log\sigma(-\beta\rho_y)`.

    The sum is over both responses: each is held at an absolute level, and on a response that wins
    always :math:`\beta\rho_w` stops at log 2.

    References
    ----------
    Chen et al. (2024), sect. 4, with two responses and rewards of all or nothing
    (arXiv:2402.05369).
    """
    return nll(beta * chosen) + nll(-beta * chosen) / 2 + nll(-beta * rejected) / 2


@on_log_ratios
def sppo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""Hard SPPO: :math:`(\rho_w - \frac{1}{2\beta})^2 + (\rho_l + \frac{1}{2\beta})^2`.

    An absolute target for each response, in nats squared, where IPO has one for their gap.

    Parameters
    ----------
    beta : float
        One over the paper's :math:`\eta`: the log-ratios are pulled to ``±1 / (2 * beta)`` nats.

    References
    ----------
    Wu et al. (2024), eq. 4.7, with win probabilities of 1 and 0 (arXiv:2405.00675).
    """
    return (chosen - 1 / (2 * beta)).square() + (rejected + 1 / (2 * beta)).square()


@on_log_ratios
def cal_dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""Cal-DPO: :math:`-\log\sigma(h)`, without :math:`\beta`, plus the squares of `sppo_loss`.

    Parameters
    ----------
    beta : float
        Sets the targets alone: the log-ratios are pulled to ``±1 / (2 * beta)`` nats.

    Notes
    -----
    The squares count in full. The code that the authors published halves them.

    References
    ----------
    Xiao et al. (2024), sect. 4 (arXiv:2412.14516).
    """
    target = 1 / (2 * beta)
    return nll(chosen - rejected) + (chosen - target).square() + (rejected + target).square()


@on_log_ratios
def dpop_loss(
    chosen: Tensor, rejected: Tensor, beta: float = 0.3, *, penalty: float = 50.0
) -> Tensor:
    r"""DPO-positive: :math:`-\log\sigma(\beta(h - \lambda\max(0, -\rho_w)))`.

    The added term takes margin away wherever the chosen response has become less likely than
    under the reference.

    Parameters
    ----------
    beta : float
        As in `dpo_loss`; 0.3 in the paper.
    penalty : float
        :math:`\lambda`, at least 0; 0 is DPO, 50 the paper's value.

    References
    ----------
    Pal et al. (2024), eq. 3 (arXiv:2402.13228).
    """
    return nll(beta * chosen - penalty * torch.relu(-beta * chosen) - beta * rejected)


# --- another divergence in the place of KL -------------------------------------------------------
#
# RLHF with an f-divergence has the reward beta f'(u) + constant, at the ratio u = exp(rho).


@on_log_ratios
def forward_kl_dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""f-DPO with forward KL: :math:`-\log\sigma(\beta(e^{-\rho_l} - e^{-\rho_w}))`.

    The link is :math:`f'(u) = -1/u` at :math:`u = \pi_\theta/\pi_{\mathrm{ref}} = e^\rho`.
    Exponents stop at 60, and pass no gradient beyond.

    References
    ----------
    Wang et al. (2023), table 1 (arXiv:2309.16240).
    """
    return nll(beta * (_exp(-rejected) - _exp(-chosen)))


@on_log_ratios
def js_dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""f-DPO with JS: :math:`-\log\sigma(\beta(\log\sigma(\rho_w) - \log\sigma(\rho_l)))`.

    The link of the Jensen–Shannon divergence is :math:`f'(u) = \log\frac{2u}{1+u}`, at
    :math:`u = e^\rho`. It is bounded above, and
    half as steep as DPO's at u = 1: twice the ``beta`` of DPO pulls as hard at the start.

    References
    ----------
    Wang et al. (2023), table 1 (arXiv:2309.16240).
    """
    return nll(beta * (F.logsigmoid(chosen) - F.logsigmoid(rejected)))


@on_log_ratios
def alpha_dpo_loss(
    chosen: Tensor, rejected: Tensor, beta: float = 0.1, *, order: float = 0.5
) -> Tensor:
    r"""f-DPO with an α-divergence, whose link is :math:`f'(u) = (1 - u^{-\alpha})/\alpha`.

    At :math:`u = e^\rho`; between DPO, its limit at :math:`\alpha \to 0`, and forward KL at 1.
    Exponents stop at 60, and pass no gradient beyond.

    Parameters
    ----------
    order : float
        :math:`\alpha`, above 0; in (0, 1) in the paper. TRL counts from the other end:
        its coefficient is :math:`1 - \alpha`.

    References
    ----------
    Wang et al. (2023), table 1 (arXiv:2309.16240).
    """
    return nll(beta * (_exp(-order * rejected) - _exp(-order * chosen)) / order)


@on_log_ratios
def chi_po_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    r"""χPO: :math:`-\log\sigma(\beta(\phi(u_w) - \phi(u_l)))` with the link :math:`u + \log u`.

    At :math:`u = \pi_\theta/\pi_{\mathrm{ref}} = e^\rho`: KL and χ² together. Exponents stop at
    60, and pass no gradient beyond.

    Notes
    -----
    The link is twice as steep as DPO's at u = 1: half the ``beta`` of DPO pulls as hard at the
    start. The paper clips the margin at twice the largest reward; here it is left as it is.

    References
    ----------
    Huang et al. (2024), algorithm 1 (arXiv:2407.13399).
    """
    # In this order: beside exp(60) the log-ratios themselves would be lost.
    return nll(beta * ((chosen - rejected) + (_exp(chosen) - _exp(rejected))))


def _exp(x: Tensor) -> Tensor:
    return torch.exp(x.clamp(max=60.0))  # float32 has room up to 88


# --- sums with other terms, and weights ----------------------------------------------------------


@on_mean_log_probs
def sft_loss(chosen: Tensor, rejected: Tensor, beta: float = 1.0) -> Tensor:
    r"""Fine-tuning on the chosen response: :math:`-\log\pi_\theta(y_w\mid x)/|y_w|`.

    A mean over the tokens of each response (TRL: over the tokens of the batch). The rejected one
    counts for nothing, and ``beta`` for the rewards alone. The rival that every preference loss
    has to beat, and a term of `rpo_loss`, `orpo_loss` and `mpo_loss`.
    """
    return -chosen


@on_both
def rpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_mean: Tensor,
    rejected_mean: Tensor,
    beta: float = 0.1,
    *,
    alpha: float = 1.0,
) -> Tensor:
    r"""DPO + NLL: :math:`-\log\sigma(\beta h) - \alpha\log\pi_\theta(y_w\mid x)/|y_w|`.

    The added term is `sft_loss`.

    Parameters
    ----------
    alpha : float
        Weight of the added term, at least 0; 0 is DPO, 1 the paper's value.

    References
    ----------
    Pang et al. (2024), eq. 1 (arXiv:2404.19733). The name, regularized preference optimization,
    is that of Liu et al. (2024), who derive such a term (arXiv:2405.16436).
    """
    return nll(beta * chosen - beta * rejected) - alpha * chosen_mean


@on_both
def mpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_mean: Tensor,
    rejected_mean: Tensor,
    beta: float = 0.1,
    *,
    preference: float = 0.8,
    quality: float = 0.2,
    generation: float = 1.0,
) -> Tensor:
    r"""MPO, a weighted sum of `dpo_loss`, `bco_loss` and `sft_loss`.

    Parameters
    ----------
    preference, quality, generation : float
        Weights of the three terms, at least 0; the paper's unless given.

    References
    ----------
    Wang et al. (2024), "Enhancing the reasoning ability of multimodal large language models via
    mixed preference optimization", sect. 3 (arXiv:2411.10442), with its shift δ at 0.
    """
    which_is_better = nll(beta * chosen - beta * rejected)
    is_good = nll(beta * chosen) + nll(-beta * rejected)
    return preference * which_is_better + quality * is_good - generation * chosen_mean


@on_both
def wpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_mean: Tensor,
    rejected_mean: Tensor,
    beta: float = 0.1,
) -> Tensor:
    r"""WPO: DPO, weighted by how much the policy would say these responses itself.

    .. math:: -e^{\ell_w + \ell_l}\log\sigma(\beta h)

    The weight, without gradient, corrects for pairs that come from another model.

    Notes
    -----
    The paper divides each token's probability in the weight by :math:`\sum_v\pi_\theta(v)^2`, so
    that the policy's own draws weigh about 1 (its alignment). Sums over responses do not hold that
    number, so it is missing here: these weights are smaller.

    References
    ----------
    Zhou et al. (2024), eq. 2 (arXiv:2406.11827), without its alignment.
    """
    weight = torch.exp(chosen_mean + rejected_mean).detach()
    return weight * nll(beta * chosen - beta * rejected)


RELATIVES: tuple[Loss, ...] = (
    cdpo_loss, robust_dpo_loss, ipo_loss, ipo_per_token_loss, hinge_loss, odpo_loss,
    r_dpo_loss, length_normalized_dpo_loss, simpo_loss, orpo_loss,
    kto_loss, apo_zero_loss, apo_down_loss, bco_loss, nca_loss, sppo_loss, cal_dpo_loss, dpop_loss,
    forward_kl_dpo_loss, js_dpo_loss, alpha_dpo_loss, chi_po_loss,
    sft_loss, rpo_loss, mpo_loss, wpo_loss,
)  # fmt: skip
"""Every loss of this module; `dpo_lib.losses` makes names and the table of them."""

__all__ = [loss.__name__ for loss in RELATIVES]
