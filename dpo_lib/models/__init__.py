"""Language models of the book: a tiny transformer, its tokenizers and its sampler."""

from dpo_lib.models.sampling import Samples, sample
from dpo_lib.models.tiny_gpt import TinyGPT, TinyGPTConfig
from dpo_lib.models.tokenizers import InstructionTokenizer, WordTokenizer

__all__ = [
    "InstructionTokenizer",
    "Samples",
    "TinyGPT",
    "TinyGPTConfig",
    "WordTokenizer",
    "sample",
]
