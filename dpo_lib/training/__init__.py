"""DPO training: one step, and the loop around it (chapter 10)."""

from dpo_lib.training.loop import DPOConfig, TrainingHistory, dpo_training_step, train_dpo

__all__ = ["DPOConfig", "TrainingHistory", "dpo_training_step", "train_dpo"]
