"""Direct Preference Optimization, one module per step of the derivation."""

import importlib

from dpo_lib.logprobs import get_pair_log_probs, get_sequence_log_probs, get_token_log_probs
from dpo_lib.losses import (
    LOSSES,
    PreferenceLoss,
    cdpo_loss,
    dpo_loss,
    dpop_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    length_normalized_dpo_loss,
    naive_loss,
    orpo_loss,
    r_dpo_loss,
    robust_dpo_loss,
    rpo_loss,
    simpo_loss,
    takes_lengths,
)
from dpo_lib.preference import (
    bradley_terry_probability,
    fit_bradley_terry,
    preference_nll,
    sample_comparisons,
)
from dpo_lib.reference import (
    assert_reference_invariants,
    fingerprint,
    make_reference,
)
from dpo_lib.rewards import dpo_reward, naive_reward, reward_accuracy
from dpo_lib.training import DPOConfig, TrainingHistory, dpo_training_step, train_dpo

# Imported on first use, so that `import dpo_lib` costs no more than `import torch`.
_LATER = {
    "fast.cache": ("cache_reference_log_probs",),
    "data": (
        "PreferenceDataset",
        "PreferenceRecord",
        "make_preferences",
        "read_jsonl",
        "split_by_prompt",
        "write_jsonl",
    ),
    "evaluation": ("estimate_kl", "evaluate_margins", "evaluate_samples"),
    "models": (
        "InstructionTokenizer",
        "TinyGPT",
        "TinyGPTConfig",
        "WordTokenizer",
        "load_base",
        "load_sft",
        "respond",
        "sample",
    ),
}

__all__ = [
    "LOSSES",
    "DPOConfig",
    "PreferenceLoss",
    "TrainingHistory",
    "assert_reference_invariants",
    "bradley_terry_probability",
    "cdpo_loss",
    "dpo_loss",
    "dpo_reward",
    "dpo_training_step",
    "dpop_loss",
    "fingerprint",
    "fit_bradley_terry",
    "get_pair_log_probs",
    "get_sequence_log_probs",
    "get_token_log_probs",
    "hinge_loss",
    "ipo_loss",
    "kto_loss",
    "length_normalized_dpo_loss",
    "make_reference",
    "naive_loss",
    "naive_reward",
    "orpo_loss",
    "preference_nll",
    "r_dpo_loss",
    "reward_accuracy",
    "robust_dpo_loss",
    "rpo_loss",
    "sample_comparisons",
    "simpo_loss",
    "takes_lengths",
    "train_dpo",
    *(name for names in _LATER.values() for name in names),
]


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
