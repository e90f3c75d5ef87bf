"""Lean forward passes over packed prefixes, for TinyGPT and for models with the layers of Llama.

The weights are read where they are: nothing is converted, adapters stay in their places, and a
model is trained, saved and sampled as before. Against the model's own pass, linear layers run on
rows without padding by the faster of two libraries, norms, gates and rotations are one step each,
and every sequence attends to itself alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpo_lib.fast import kernels

LLAMAS = ("llama", "mistral", "qwen2")  # model types of transformers with these layers
TINY = "dpo_lib.models.tiny_gpt.TinyGPT"  # itself; what is derived from it may differ
_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def reason_against_llama(backbone: nn.Module) -> str:
    """Why `llama_states` cannot stand in for a backbone's own forward pass; empty if it can."""
    kind = getattr(getattr(backbone, "config", None), "model_type", None)
    if kind not in LLAMAS:
        return f"its layers are not those of Llama ({kind or type(backbone).__name__})"
    if type(backbone.embed_tokens) is not nn.Embedding:
        return f"its embedding is {type(backbone.embed_tokens).__name__}"
    if backbone.config.hidden_act != "silu":
        return f"its gate is {backbone.config.hidden_act}, not silu"
    for layer in backbone.layers:
        for part, names in ((layer, _LAYER), (layer.self_attn, _ATTENTION), (layer.mlp, _MLP)):
            found = {name for name, _ in part.named_children()}
            if found != names:
                return f"its {type(part).__name__} has other parts: {', '.join(sorted(found))}"
    found = (parameter for part in _modules(backbone) for parameter in part._parameters.values())
    kinds = {parameter.dtype for parameter in found if parameter is not None}
    if kinds != {torch.float32}:
        return f"its weights are {', '.join(sorted(map(str, kinds)))}"
    return _reason_of_this_moment(backbone, backbone.config.attention_dropout)


def reason_against_tiny(model: nn.Module) -> str:
    """Why `tiny_states` cannot stand in for a model's own forward pass; empty if it can."""
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    if name != TINY:
        return f"{name} is not {TINY}"
    return _reason_of_this_moment(model, model.config.dropout)


def _reason_of_this_moment(model: nn.Module, dropout: float) -> str:
    """What speaks against any lean pass, and may have changed since the last one."""
    if model.training and dropout:
        return "dropout is on"
    for module in _modules(model):
        forward = module._forward_hooks or module._forward_pre_hooks
        if forward or module._backward_hooks or module._backward_pre_hooks:
            name = next(name for name, other in model.named_modules() if other is module)
            return f"{name or 'the model'} has hooks, which the lean pass would not call"
    return ""


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """What `nn.Module.modules` yields, without the names that cost most of its time.

    Asked at every call, since a hook or an adapter may come at any time. With LoRA on SmolLM2,
    2,499 modules, a call asks for 4 ms; by names it was 6.
    """
    waiting = [model]
    while waiting:
        module = waiting.pop()
        yield module
        waiting += [child for child in module._modules.values() if child is not None]


def llama_states(
    backbone: nn.Module,
    embedded: Tensor,
    positions: Tensor,
    paths: Tensor,
    homes: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Hidden states of the nodes of prefix trees, as the backbone would give for each sequence.

    Parameters
    ----------
    backbone : nn.Module
        Model without its head, for which `reason_against_llama` is empty.
    embedded : Tensor, shape (N, D)
        Embedding of each node's token.
    positions : Tensor of int, shape (N,)
        Place of each node in its own sequences.
    paths : Tensor of int, shape (S, L)
        Node at each place of each sequence; behind its end any node, which is not read.
    homes : Tensor of int, shape (N,)
        A place, counted over ``S * L``, at which each node stands.
    dtype : torch.dtype
        Of the linear layers and what stands between them, rotations and attention apart.

    Returns
    -------
    Tensor, shape (N, D)
    """
    x = embedded
    angles = backbone.rotary_emb(x[None], positions[None])  # cosines and sines, (1, N, d) each
    turns = tuple(part[0, :, None] for part in angles)  # (N, 1, d)
    for layer in backbone.layers:
        norm, attention = layer.input_layernorm, layer.self_attn
        seen = kernels.rms_norm(x, norm.weight, norm.variance_epsilon, dtype)  # (N, D)
        query, key, value = (
            _linear(projection, seen).to(x.dtype).unflatten(1, (-1, attention.head_dim))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )  # (N, H, d), keys and values of fewer heads
        query, key = kernels.rotate(query, *turns), kernels.rotate(key, *turns)
        mixed = _attend(query, key, value, paths, homes, attention.scaling)  # (N, D)
        x = x + _linear(attention.o_proj, mixed.to(dtype))
        norm, mlp = layer.post_attention_layernorm, layer.mlp
        seen = kernels.rms_norm(x, norm.weight, norm.variance_epsilon, dtype)  # (N, D)
        gated = kernels.swiglu(_linear(mlp.gate_proj, seen), _linear(mlp.up_proj, seen))  # (N, F)
        x = x + _linear(mlp.down_proj, gated)
    return kernels.rms_norm(x, backbone.norm.weight, backbone.norm.variance_epsilon, x.dtype)


def tiny_states(
    model: nn.Module,
    tokens: Tensor,
    positions: Tensor,
    paths: Tensor,
    homes: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Hidden states of the nodes of prefix trees under a `TinyGPT`, as in `llama_states`."""
    x = model.token_embedding(tokens) + model.position_embedding(positions)  # (N, D)
    dtype = dtype or x.dtype
    for block in model.blocks:
        attention = block.attention
        seen = block.attention_norm(x).to(dtype)  # (N, D)
        together = _linear(attention.query_key_value, seen).to(x.dtype)  # (N, 3 D)
        query, key, value = together.unflatten(1, (3, attention.heads, -1)).unbind(1)  # (N, H, d)
        mixed = _attend(query, key, value, paths, homes)  # (N, D)
        x = x + _linear(attention.output, mixed.to(dtype))
        first, _, second = block.mlp
        x = x + _linear(second, _linear(first, block.mlp_norm(x).to(dtype)).relu())
    return model.final_norm(x)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    paths: Tensor,
    homes: Tensor,
    scale: float | None = None,
) -> Tensor:
    """Causal attention within each sequence, of which shared nodes are copies: (N, H * d)."""

    def spread(nodes: Tensor) -> Tensor:
        copies = nodes.index_select(0, paths.flatten())  # (S * L, H, d)
        return copies.unflatten(0, paths.shape).transpose(1, 2)  # (S, H, L, d)

    query, key, value = spread(query), spread(key), spread(value)
    repeats = query.shape[1] // key.shape[1]  # query heads that share a key head
    if repeats > 1:
        key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
    with torch.autocast(query.device.type, enabled=False):  # on CPUs bfloat16 is slower here
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    return mixed.transpose(1, 2).flatten(0, 1).index_select(0, homes).flatten(1)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    if type(layer) is nn.Linear:
        return kernels.linear(x, layer.weight, layer.bias)
    return layer(x)  # with an adapter, for example
