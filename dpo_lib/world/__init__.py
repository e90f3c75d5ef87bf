"""The tiny world: a closed vocabulary, its prompts, its texts and its truth.

It has a room of its own, apart from ``data`` (which reads and batches preference pairs of any
origin), because it is the experiment and not the method: nothing in the derivation needs it.
"""

from dpo_lib.world.corpus import base_documents, demonstrate, demonstrations
from dpo_lib.world.families import (
    SEASONS_QUESTION,
    Prompt,
    all_prompts,
    find_prompt,
    prompts_of,
    world_tokenizer,
)
from dpo_lib.world.pairs import (
    Pair,
    label_both_ways,
    label_by_correctness,
    label_by_reward,
    load_pairs,
    on_policy_pairs,
    preference_prompts,
    split_by_length,
    write_pairs,
)
from dpo_lib.world.reward import Judgment, judge, true_reward

__all__ = [
    "SEASONS_QUESTION",
    "Judgment",
    "Pair",
    "Prompt",
    "all_prompts",
    "base_documents",
    "demonstrate",
    "demonstrations",
    "find_prompt",
    "judge",
    "label_both_ways",
    "label_by_correctness",
    "label_by_reward",
    "load_pairs",
    "on_policy_pairs",
    "preference_prompts",
    "prompts_of",
    "split_by_length",
    "true_reward",
    "world_tokenizer",
    "write_pairs",
]
