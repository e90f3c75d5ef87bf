"""What the fast path asks of a model: its hidden states for prefix trees, and its output layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpo_lib.fast import kernels
from dpo_lib.fast import lean as lean_passes
from dpo_lib.fast.prefix_tree import Packed


class Parts(NamedTuple):
    """A model, cut below the vocabulary."""

    run: Callable[[Packed, str], tuple[Tensor, Tensor]]  # hidden states (R * T, D), and the head
    head: Tensor  # (V, D)
    bias: Tensor | None  # (V,)
    limits: dict[str, int]  # longest sequence, by the name of what limits it
    row_length: int  # at which rows of nodes are cheapest
    window: int | None = None  # longest sequence for which every token sees all before it


def parts_of(model: object, lean: bool) -> Parts | str:
    """The parts of a model that takes packed rows, or why it does not."""
    config = getattr(model, "config", None)
    if hasattr(model, "hidden_states") and hasattr(model, "token_embedding"):  # TinyGPT
        tiny_head = model.token_embedding.weight

        def run_lean_tiny(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
            tokens, positions = packed.tokens.flatten(), packed.positions.flatten()
            kind = torch.bfloat16 if dtype == "bfloat16" else None
            states = lean_passes.tiny_states(
                model, tokens, positions, packed.paths, packed.homes, kind
            )
            return states, tiny_head

        def run_tiny(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
            states = model.hidden_states(packed.tokens, packed.visible(), packed.positions)
            return states.flatten(0, 1), tiny_head

        limits = {"context_length": config.context_length}
        if lean and not lean_passes.reason_against_tiny(model):
            return Parts(run_lean_tiny, tiny_head, None, limits, 1 << 30)
        return Parts(run_tiny, tiny_head, None, limits, max(256, 2 * tiny_head.shape[1]))

    if hasattr(model, "get_base_model"):  # a PEFT model; its adapters sit in the layers
        model = model.get_base_model()
    if not (hasattr(model, "get_output_embeddings") and hasattr(model, "base_model")):
        return f"{type(model).__name__} is neither a TinyGPT nor a Hugging Face model"
    head, backbone = model.get_output_embeddings(), model.base_model
    if type(head) is not nn.Linear:
        return f"its output layer is {type(head).__name__}, not a plain linear layer"
    if backbone is model:
        return "its output layer cannot be told from its backbone"
    takes = inspect.signature(backbone.forward).parameters
    missing = [name for name in ("attention_mask", "position_ids") if name not in takes]
    if missing:
        return f"its backbone does not take {' and '.join(missing)}"
    attention = getattr(config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        return f"its attention ({attention}) takes no mask of our own"
    kinds = {*(getattr(config, "layer_types", None) or ["full_attention"])}
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown:
        return f"it has layers of type {', '.join(sorted(unknown))}"
    limits = {}
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(getattr(config, name, None), int):
            limits[name] = getattr(config, name)
    window = getattr(config, "sliding_window", None)
    if "sliding_attention" not in kinds and getattr(config, "layer_types", None):
        window = None  # set, but used by no layer

    if lean and not lean_passes.reason_against_llama(backbone):
        table = backbone.embed_tokens

        def run_lean(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
            tokens = packed.tokens.flatten()  # (R * T,)
            if table.weight is head.weight:
                embedded, weight = kernels.tied_embedding(head.weight, tokens, table.padding_idx)
            else:
                embedded, weight = table(tokens), head.weight
            positions, kind = packed.positions.flatten(), getattr(torch, dtype)
            states = lean_passes.llama_states(
                backbone, embedded, positions, packed.paths, packed.homes, kind
            )
            return states, weight

        return Parts(run_lean, head.weight, head.bias, limits, 1 << 30, window)

    def run(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
        mask = packed.visible()[:, None]  # (R, 1, T, T)
        if attention == "eager":  # adds the mask to the scores
            scores = torch.zeros(mask.shape, dtype=head.weight.dtype, device=mask.device)
            mask = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        output = backbone(
            packed.tokens,
            attention_mask=mask,
            position_ids=packed.positions,
            use_cache=False,
        )
        states = output[0] if isinstance(output, tuple) else output.last_hidden_state
        return states.flatten(0, 1), head.weight

    row_length = max(256, 2 * head.in_features)
    return Parts(run, head.weight, head.bias, limits, row_length, window)
