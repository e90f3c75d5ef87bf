"""Direct Preference Optimization, one module per step of the derivation."""

import importlib

# Imported on first use: `import dpo_lib` costs nothing, and the command line can say what it is
# doing, or be interrupted, while torch loads.
_PUBLIC = {
    "logprobs": ("get_pair_log_probs", "get_sequence_log_probs", "get_token_log_probs"),
    "losses": (
        "LOSSES",
        "PreferenceLoss",
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
    ),
    "preference": (
        "bradley_terry_probability",
        "fit_bradley_terry",
        "preference_nll",
        "sample_comparisons",
    ),
    "reference": ("assert_reference_invariants", "fingerprint", "make_reference"),
    "rewards": ("dpo_reward", "naive_reward", "reward_accuracy"),
    "training": ("DPOConfig", "TrainingHistory", "dpo_training_step", "train_dpo"),
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

__all__ = [name for names in _PUBLIC.values() for name in names]


def __getattr__(name: str) -> object:
    for module, names in _PUBLIC.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
        if name == module:
            return importlib.import_module(f"{__name__}.{module}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
