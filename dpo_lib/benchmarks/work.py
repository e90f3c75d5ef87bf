"""The floating-point operations that no implementation of a step gets around.

Counted are multiplications and additions of matrix products, two for each entry of a matrix and
row of its input; a gradient needs twice as many as the values. Each distinct token in its context
goes through the layers once, attention looks at visible pairs only, the vocabulary is computed
where a response token is predicted, and the reference's log-probabilities are known. Norms,
activations, softmax and the optimizer's update are left out: they are few operations, though they
take time. So is that the last layer need not finish the positions that predict nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dpo_lib.fast.prefix_tree import Row, pack_pairs


@dataclass(frozen=True)
class Sizes:
    """What of a model's shape decides about the operations."""

    layer_weights: int  # in the matrices of all layers, vocabulary and embeddings left out
    head_weights: int  # of the matrix that scores the vocabulary
    layers: int
    attention_width: int  # heads times features of a head


@dataclass(frozen=True)
class Tokens:
    """What of some pairs decides about the operations."""

    total: int  # in the sequences as they stand, each prompt twice
    unique: int  # distinct (token, everything before it): nodes of the prefix tree
    readers: int  # nodes at which response tokens are predicted
    visible: int  # (node, node it may look at)


def sizes_of(model: nn.Module) -> Sizes:
    """Sizes of a `TinyGPT` or of a Hugging Face decoder."""
    config = model.config
    if hasattr(model, "token_embedding"):
        layers, width, head = config.layers, config.width, model.token_embedding.weight
    else:
        layers, width = config.num_hidden_layers, config.hidden_size
        width = (getattr(config, "head_dim", None) or width // config.num_attention_heads) * (
            config.num_attention_heads
        )
        head = model.get_output_embeddings().weight
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | {id(head)}
    matrices = {id(p): p.numel() for p in model.parameters() if p.ndim == 2}
    inner = sum(size for key, size in matrices.items() if key not in tables)
    return Sizes(inner, head.numel(), layers, width)


def tokens_of(rows: Sequence[Row]) -> Tokens:
    """Count the tokens of pairs, as one tree of prefixes."""
    total = sum(2 * len(row["prompt"]) + len(row["chosen"]) + len(row["rejected"]) for row in rows)
    packed = pack_pairs(rows, row_length=total)  # in one row every common prefix is merged
    return Tokens(
        total=total,
        unique=packed.tokens.numel(),
        readers=len(packed.readers),
        visible=int(torch.sum(packed.positions + 1)),  # its ancestors and itself
    )


def unavoidable_flops(sizes: Sizes, tokens: Tokens) -> int:
    """Operations of one step: values and gradients."""
    layers = 6 * sizes.layer_weights * tokens.unique
    vocabulary = 6 * sizes.head_weights * tokens.readers
    attention = 12 * sizes.layers * sizes.attention_width * tokens.visible
    return layers + vocabulary + attention
