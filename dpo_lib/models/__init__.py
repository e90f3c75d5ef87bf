"""Language models of the book: a tiny transformer, its tokenizers, sampler and weights."""

from dpo_lib.models.checkpoints import load_base, load_sft, training_record
from dpo_lib.models.sampling import Reply, Samples, respond, sample
from dpo_lib.models.tiny_gpt import TinyGPT, TinyGPTConfig
from dpo_lib.models.tokenizers import InstructionTokenizer, WordTokenizer

__all__ = [
    "InstructionTokenizer",
    "Reply",
    "Samples",
    "TinyGPT",
    "TinyGPTConfig",
    "WordTokenizer",
    "load_base",
    "load_sft",
    "respond",
    "sample",
    "training_record",
]
