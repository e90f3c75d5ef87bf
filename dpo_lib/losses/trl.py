"""The names that TRL's options give to losses, and which loss of this library each one is."""

from __future__ import annotations

from typing import NamedTuple


class TrlOption(NamedTuple):
    """One value of an option of TRL's trainers."""

    trainer: str  # and option
    value: str
    ours: str  # key of `LOSSES`, name of a function, or "" where we have none
    note: str = ""


_DPO, _DIVERGENCE = "DPOTrainer loss_type", "DPOTrainer f_divergence_type"
_CPO, _KTO = "CPOTrainer loss_type", "KTOTrainer loss_type"

TRL_OPTIONS = (
    TrlOption(_DPO, "sigmoid", "dpo"),
    TrlOption(_DPO, "hinge", "hinge"),
    TrlOption(_DPO, "ipo", "ipo_per_token", "on means; ipo is the paper's, on sums"),
    TrlOption(_DPO, "exo_pair", "", "left out"),
    TrlOption(_DPO, "nca_pair", "nca"),
    TrlOption(_DPO, "robust", "robust_dpo"),
    TrlOption(_DPO, "bco_pair", "bco", "without the paper's shift"),
    TrlOption(_DPO, "sppo_hard", "sppo"),
    TrlOption(_DPO, "aot", "", "left out"),
    TrlOption(_DPO, "aot_unpaired", "", "left out"),
    TrlOption(_DPO, "apo_zero", "apo_zero"),
    TrlOption(_DPO, "apo_down", "apo_down"),
    TrlOption(_DPO, "discopop", "", "left out"),
    TrlOption(_DPO, "sft", "sft", "a mean over the batch's tokens there, over responses here"),
    TrlOption(_DPO, "sigmoid_norm", "length_normalized_dpo"),
    TrlOption(_DIVERGENCE, "reverse_kl", "dpo"),
    TrlOption(_DIVERGENCE, "forward_kl", "forward_kl_dpo"),
    TrlOption(_DIVERGENCE, "js_divergence", "js_dpo"),
    TrlOption(_DIVERGENCE, "alpha_divergence", "alpha_dpo", "its coefficient is 1 - order"),
    TrlOption(_CPO, "sigmoid", "naive", "CPO adds a term of fine-tuning"),
    TrlOption(_CPO, "hinge", "hinge", "with a flat reference"),
    TrlOption(_CPO, "ipo", "ipo_per_token", "with a flat reference"),
    TrlOption(_CPO, "simpo", "simpo"),
    TrlOption(_CPO, "alphapo", "", "left out"),
    TrlOption(_KTO, "kto", "unpaired_kto_loss", "its mismatched responses are those of the batch"),
    TrlOption(_KTO, "apo_zero_unpaired", "unpaired_kto_loss", "with kl=0"),
)
"""Every value of these options in TRL 1.16; a test compares the list with the installed TRL."""

LEFT_OUT = {
    "CPO": ("arXiv:2401.08417", "the naive loss plus the likelihood of the chosen response: a "
            "`weighted_sum` of `naive_loss` and `sft_loss`"),
    "LD-DPO": ("arXiv:2409.06411", "DPO with the tokens beyond the shorter response's length "
               "weighed down, which sums over whole responses do not hold"),
    "TR-DPO": ("arXiv:2404.09656", "DPO whose reference follows the policy: a rule for the "
               "loop, not for the loss"),
    "β-DPO": ("arXiv:2407.08639", "DPO with a β for each batch, set from its margins, and a "
              "filter of pairs"),
    "EXO": ("arXiv:2402.00856", "the KL from smoothed labels turned around, so that the policy's "
            "guess stands in front of the logarithm"),
    "BCO": ("arXiv:2404.04656", "here with a fixed shift alone; the running mean of rewards and "
            "the weighting of prompts are a state of the loop"),
    "AOT": ("arXiv:2406.05882", "sorts the log-ratios of a batch and compares distributions, "
            "not pairs"),
    "DiscoPOP": ("arXiv:2406.08414", "a blend of logistic and exponential loss that a language "
                 "model proposed; it is not convex and has no derivation"),
    "TDPO": ("arXiv:2404.11999", "adds the KL at each token, which needs the whole "
             "distributions and not only the responses' log-probabilities"),
    "AlphaPO": ("arXiv:2501.03884", "SimPO with a power of the likelihood for its logarithm"),
}  # fmt: skip
"""What else one meets, with its paper: one sentence each on what it does and why it is not here."""
