r"""DPO and its relatives: all losses in one form (chapter 9 and Appendix D).

A loss takes four log-probabilities of one shape and ``beta``, and returns unreduced losses (nats,
unless it says otherwise) with the rewards that it compares, as a `PreferenceLoss`. The
log-probabilities are always *summed* over the tokens of a response (`get_sequence_log_probs`).
Losses on means divide the sums themselves: they, and others that count tokens, also take
``chosen_lengths`` and ``rejected_lengths``. Bad input is a ``ValueError``, as in `dpo_loss`.

In the formulas :math:`\rho_w = \log\pi_\theta(y_w\mid x) - \log\pi_{\mathrm{ref}}(y_w\mid x)` is
the log-ratio of the chosen response, :math:`\rho_l` that of the rejected one,
:math:`h = \rho_w - \rho_l` their gap in nats, without :math:`\beta`, and :math:`|y|` a length in
tokens. Rewards are :math:`\beta` times what is compared.

{table}

Losses without a reference take its log-probabilities all the same, to share the form. A loss that
looks across pairs is declared by the decorator `coupled`. To add a loss, write its formula in
``relatives.py`` and name it there in ``RELATIVES``; its tests take one row.
"""

from __future__ import annotations

from dpo_lib.losses.dpo import LogProbs, PreferenceLoss, dpo_loss, naive_loss
from dpo_lib.losses.form import (
    Lengths,
    Loss,
    coupled,
    looks_across_pairs,
    loss_name,
    takes_lengths,
    uses_reference,
    weighted_sum,
)
from dpo_lib.losses.relatives import *  # noqa: F403  (the losses that RELATIVES names)
from dpo_lib.losses.relatives import RELATIVES
from dpo_lib.losses.unpaired import UNPAIRED, UnpairedLoss, unpaired_kto_loss

LOSSES: dict[str, Loss] = {
    loss.__name__.removesuffix("_loss"): loss for loss in (dpo_loss, naive_loss, *RELATIVES)
}
"""Every loss of pairs by name, which is that of its function without ``_loss``."""

ALIASES = {
    "robust": "robust_dpo",
    "length_normalized": "length_normalized_dpo",
    "reference_free": "naive",
}
"""Names of the first edition, which stored runs carry."""

__all__ = [
    "ALIASES",
    "LOSSES",
    "Lengths",
    "LogProbs",
    "Loss",
    "PreferenceLoss",
    "UnpairedLoss",
    "as_loss_function",
    "coupled",
    "looks_across_pairs",
    "loss_name",
    "takes_lengths",
    "unpaired_kto_loss",
    "uses_reference",
    "weighted_sum",
    *(loss.__name__ for loss in LOSSES.values()),
]


def as_loss_function(loss: str | Loss, unpaired: bool = False) -> Loss:
    """The loss itself, or the one of that name in `LOSSES`; another name is a ``ValueError``.

    For thumbs, which are ``unpaired``, a name in `UNPAIRED` is looked up there.
    """
    if not isinstance(loss, str):
        return loss
    name = ALIASES.get(loss, loss)
    if unpaired and name in UNPAIRED:
        return UNPAIRED[name]
    if name not in LOSSES:
        raise ValueError(f"loss must be a function or one of {[*LOSSES]}, got {loss!r}")
    return LOSSES[name]


def _table() -> str:
    """The losses as a table of the documentation, with what each says of itself."""
    rows = [("name in `LOSSES`", "what it is", "reference", "lengths", "looks across pairs")]
    for name, loss in LOSSES.items():
        first = (loss.__doc__ or "").partition("\n")[0]
        asked = (uses_reference(loss), takes_lengths(loss), looks_across_pairs(loss))
        rows.append((f"``{name}``", first, *("yes" if answer else "" for answer in asked)))
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines)


__doc__ = (__doc__ or "").replace("{table}", _table())
