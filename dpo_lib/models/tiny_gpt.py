"""A decoder-only transformer small enough to read in one sitting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpo_lib._validation import as_number, check_whole


@dataclass(frozen=True)
class TinyGPTConfig:
    """Sizes of a `TinyGPT`."""

    vocab_size: int  # V, number of token ids
    context_length: int = 48  # longest sequence that has a position embedding
    width: int = 48  # D, features per position
    heads: int = 4  # H, attention heads; each sees D / H features
    layers: int = 2  # transformer blocks
    dropout: float = 0.0  # share of features zeroed, in training mode only

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "width", "heads", "layers"):
            object.__setattr__(self, name, check_whole(getattr(self, name), name, 1))
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")
        if not 0 <= as_number(self.dropout, "dropout") < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class Attention(nn.Module):
    """Multi-head self-attention: each position gathers from the positions it may see."""

    def __init__(self, config: TinyGPTConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Mix positions: (B, T, D) to (B, T, D); ``visible`` None means all before."""
        B, T, D = x.shape
        qkv = self.query_key_value(x).view(B, T, 3, self.heads, D // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D / H) each
        gathered = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=visible,
            is_causal=visible is None,
            dropout_p=self.dropout if self.training else 0.0,
        )  # (B, H, T, D / H)
        return self.output(gathered.transpose(1, 2).reshape(B, T, D))  # (B, T, D)


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to what came in."""

    def __init__(self, config: TinyGPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, 4 * config.width),
            nn.ReLU(),
            nn.Linear(4 * config.width, config.width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Refine every position: (B, T, D) to (B, T, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), visible))  # (B, T, D)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # (B, T, D)


class TinyGPT(nn.Module):
    """Causal language model: logits for the next token at every position.

    Parameters
    ----------
    config : TinyGPTConfig
        Sizes. Weights are drawn from torch's global generator, so seed it first.

    References
    ----------
    Radford et al. (2019), the GPT-2 layout: norms before each half of a block, learned
    positions, and one matrix that both embeds tokens and scores them. Used from chapter 1 on.
    """

    def __init__(self, config: TinyGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.context_length, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.apply(_initialize)

    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Score every possible next token after each position.

        Parameters
        ----------
        tokens : Tensor of int, shape (B, T)
        attention_mask : Tensor, shape (B, T) or (B, T, T), optional
            1 on real tokens, 0 on padding. Padding is never attended to. With three dimensions
            it says itself which position (row) sees which (column), as packed texts need it;
            ``position_ids`` must then be given.
        position_ids : Tensor of int, shape (B, T), optional
            Place of each token in its own text. By default counted over the real tokens, so
            that padding on the left does not move a text.

        Returns
        -------
        Tensor, shape (B, T, V)
            Logits. Those at padded positions mean nothing.

        Raises
        ------
        ValueError
            If shapes disagree, an id is outside the vocabulary, or T exceeds the context.
        """
        hidden = self.hidden_states(tokens, attention_mask, position_ids)  # (B, T, D)
        return F.linear(hidden, self.token_embedding.weight)  # (B, T, V)

    def hidden_states(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """What `forward` turns into logits by the token embedding: shape (B, T, D)."""
        self._check(tokens, attention_mask, position_ids)
        B, T = tokens.shape
        visible = None  # plain causal attention
        if attention_mask is not None:
            real = attention_mask.bool()  # (B, T) or (B, T, T)
        if attention_mask is not None and real.ndim == 3:
            visible = real[:, None]  # (B, 1, T, T)
        elif attention_mask is not None:
            before = torch.ones(T, T, dtype=torch.bool, device=tokens.device).tril()  # (T, T)
            itself = torch.eye(T, dtype=torch.bool, device=tokens.device)  # (T, T)
            # A padded position sees itself: a softmax over nothing would be NaN.
            visible = (before & real[:, None, :] | itself)[:, None]  # (B, 1, T, T)
        if position_ids is None:
            if attention_mask is None:
                position_ids = torch.arange(T, device=tokens.device).expand(B, T)
            else:
                position_ids = (real.cumsum(dim=1) - 1).clamp(min=0)  # (B, T)
        x = self.token_embedding(tokens) + self.position_embedding(position_ids)  # (B, T, D)
        for block in self.blocks:
            x = block(x, visible)  # (B, T, D)
        return self.final_norm(x)

    def _check(
        self, tokens: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> None:
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise ValueError(f"tokens must have shape (batch, time), got {tuple(tokens.shape)}")
        context, vocab = self.config.context_length, self.config.vocab_size
        three = attention_mask is not None and attention_mask.ndim == 3  # many texts in a row
        if three and position_ids is None:
            raise ValueError("position_ids must be given with an attention_mask (B, T, T)")
        if tokens.shape[1] > context and not three:
            raise ValueError(f"tokens has {tokens.shape[1]} positions, context_length is {context}")
        low, high = tokens.aminmax()
        if low < 0 or high >= vocab:
            raise ValueError(f"tokens must lie in [0, {vocab}), got {int(low)} to {int(high)}")
        B, T = tokens.shape
        for name, value, shape in (
            ("attention_mask", attention_mask, (B, T, T) if three else (B, T)),
            ("position_ids", position_ids, (B, T)),
        ):
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"{name} must have the shape of tokens, {shape}, got {tuple(value.shape)}"
                )
        if position_ids is not None:
            low, high = position_ids.aminmax()
            if low < 0 or high >= context:
                raise ValueError(
                    f"position_ids must lie in [0, {context}), got {int(low)} to {int(high)}"
                )


def _initialize(module: nn.Module) -> None:
    """Start small, so that a new model is close to uniform over its vocabulary."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
