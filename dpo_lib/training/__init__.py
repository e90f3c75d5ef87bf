"""DPO training: one step, and the loop around it (chapter 10)."""

from dpo_lib.training.config import DPOConfig
from dpo_lib.training.loop import TrainingHistory, train_dpo
from dpo_lib.training.step import dpo_training_step

__all__ = ["DPOConfig", "TrainingHistory", "dpo_training_step", "train_dpo"]
