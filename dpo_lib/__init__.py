"""Direct Preference Optimization, one module per step of the derivation."""

from dpo_lib.logprobs import get_pair_log_probs, get_sequence_log_probs, get_token_log_probs
from dpo_lib.losses import PreferenceLoss, dpo_loss, naive_loss
from dpo_lib.preference import (
    bradley_terry_probability,
    fit_bradley_terry,
    preference_nll,
    sample_comparisons,
)
from dpo_lib.reference import (
    assert_reference_invariants,
    cache_reference_log_probs,
    fingerprint,
    make_reference,
)
from dpo_lib.rewards import dpo_reward, naive_reward, reward_accuracy
from dpo_lib.training import DPOConfig, TrainingHistory, dpo_training_step, train_dpo

__all__ = [
    "DPOConfig",
    "PreferenceLoss",
    "TrainingHistory",
    "assert_reference_invariants",
    "bradley_terry_probability",
    "cache_reference_log_probs",
    "dpo_loss",
    "dpo_reward",
    "dpo_training_step",
    "fingerprint",
    "fit_bradley_terry",
    "get_pair_log_probs",
    "get_sequence_log_probs",
    "get_token_log_probs",
    "make_reference",
    "naive_loss",
    "naive_reward",
    "preference_nll",
    "reward_accuracy",
    "sample_comparisons",
    "train_dpo",
]
