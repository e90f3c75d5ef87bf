"""Drawing responses from a language model, token by token."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpo_lib._validation import as_number, check_whole
from dpo_lib.data import Tokenizer, pad


class Reply(NamedTuple):
    """A sampled response as text."""

    prompt: str
    text: str
    finished: bool  # whether it ended with EOS
    tokens: tuple[int, ...]  # EOS included

    @property
    def length(self) -> int:
        """Number of tokens, EOS included."""
        return len(self.tokens)


class Samples(NamedTuple):
    """Responses, padded on the right; EOS, where reached, is inside the mask."""

    tokens: Tensor  # (B, R)
    mask: Tensor  # (B, R), 1 on the tokens of the response
    finished: Tensor  # (B,), True where the response ended with EOS


@torch.no_grad()
def sample(
    model: Callable,
    prompt_tokens: Tensor,
    prompt_mask: Tensor | None = None,
    max_new_tokens: int = 24,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    *,
    eos_id: int,
    pad_id: int,
) -> Samples:
    """Continue each prompt until EOS or ``max_new_tokens``.

    Parameters
    ----------
    model : callable
        ``model(tokens, attention_mask=..., position_ids=...)`` giving logits (B, T, V), or an
        object with ``.logits``.
    prompt_tokens : Tensor of int, shape (B, P)
        Prompts, padded on the left.
    prompt_mask : Tensor, shape (B, P), optional
        1 on real tokens; all ones by default.
    max_new_tokens : int
        Longest response, EOS included.
    temperature : float
        Logits are divided by it; 0 takes the most likely token (greedy decoding).
    top_k : int, optional
        Draw among the k most likely tokens only.
    generator : torch.Generator or sequence of B of them, optional
        Source of randomness; torch's global one by default. With one for each prompt, what is
        drawn for it does not depend on the others.

    Returns
    -------
    Samples
        tokens and mask of shape (B, R) with R <= max_new_tokens, finished of shape (B,).

    Raises
    ------
    ValueError
        If the temperature is negative, or top_k or max_new_tokens is below 1, or there are not as
        many generators as prompts.
    """
    temperature = as_number(temperature, "temperature")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 or positive and finite, got {temperature}")
    if top_k is not None:
        top_k = check_whole(top_k, "top_k", 1)
    max_new_tokens = check_whole(max_new_tokens, "max_new_tokens", 1)
    if not isinstance(prompt_tokens, Tensor) or prompt_tokens.ndim != 2:
        raise ValueError(
            f"prompt_tokens must be a tensor of shape (B, P), got {prompt_tokens!r:.60}"
        )
    if prompt_tokens.dtype not in (torch.int64, torch.int32) or not prompt_tokens.numel():
        raise ValueError(
            f"prompt_tokens must hold integer ids, got {tuple(prompt_tokens.shape)} of dtype "
            f"{prompt_tokens.dtype}"
        )
    if isinstance(generator, Sequence) and len(generator) != len(prompt_tokens):
        raise ValueError(
            f"generator must be one for each of {len(prompt_tokens)} prompts, got {len(generator)}"
        )
    if prompt_mask is None:
        prompt_mask = torch.ones_like(prompt_tokens)
    if not isinstance(prompt_mask, Tensor) or prompt_mask.is_complex():
        raise ValueError(f"prompt_mask must be a tensor, got {prompt_mask!r:.60}")
    if prompt_mask.shape != prompt_tokens.shape:
        raise ValueError(
            f"prompt_mask must have the shape of prompt_tokens, {tuple(prompt_tokens.shape)}, "
            f"got {tuple(prompt_mask.shape)}"
        )
    tokens, mask = prompt_tokens, prompt_mask.long()  # (B, T), T grows by one a round
    running = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)  # (B,)
    read = _Reader(model)
    for _ in range(max_new_tokens):
        rows = running.nonzero().flatten()  # finished responses cost nothing more
        logits = read(tokens, mask, rows)  # (rows, V)
        added = torch.full_like(tokens[:, :1], pad_id)  # (B, 1)
        drawn = None if temperature == 0 else _uniform(rows, generator)
        added[rows, 0] = _choose(logits, temperature, top_k, drawn)
        tokens = torch.cat([tokens, added], dim=1)
        mask = torch.cat([mask, running[:, None].long()], dim=1)
        running = running & (added[:, 0] != eos_id)
        if not running.any():
            break
    start = prompt_tokens.shape[1]
    return Samples(tokens[:, start:], mask[:, start:], ~running)


class _Reader:
    """Logits of the next token; a model of transformers keeps what it has read already."""

    def __init__(self, model: Callable) -> None:
        self.model = model
        # Models of transformers can generate, and keep keys and values between calls.
        self.keeps = hasattr(model, "generate") and hasattr(model, "config")
        takes = inspect.signature(model.forward).parameters if self.keeps else ()
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self.past: Any = None
        self.rows: Tensor | None = None  # those that are in ``past``

    def __call__(self, tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        tokens, mask = tokens[rows], mask[rows]  # (rows, T)
        again = None
        if self.keeps and self.past is None:  # several answers to one prompt: it is read once
            both, again = torch.cat([tokens, mask], dim=1).unique(dim=0, return_inverse=True)
            if len(both) < len(rows):
                tokens, mask = both.chunk(2, dim=1)  # (prompts, T)
            else:
                again = None
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # (rows, T)
        if not self.keeps:
            output = self.model(tokens, attention_mask=mask, position_ids=positions)
            return getattr(output, "logits", output)[:, -1]
        if self.past is not None:
            if len(self.rows) > len(rows):
                self.past.batch_select_indices(torch.isin(self.rows, rows).nonzero().flatten())
            tokens, positions = tokens[:, -1:], positions[:, -1:]
        output = self.model(
            tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.past,
            use_cache=True,
            **self.last_only,
        )
        self.past, self.rows = output.past_key_values, rows
        if again is None:
            return output.logits[:, -1]
        self.past.batch_select_indices(again)
        return output.logits[again, -1]


def _uniform(rows: Tensor, generator: Any) -> Tensor:
    """A number in [0, 1) for each of these rows, shape (rows, 1)."""
    if isinstance(generator, Sequence):
        one = {"dtype": torch.float64}
        return torch.stack([torch.rand(1, generator=generator[i], **one) for i in rows.tolist()])
    return torch.rand(len(rows), 1, dtype=torch.float64, generator=generator)


def _choose(logits: Tensor, temperature: float, top_k: int | None, drawn: Tensor | None) -> Tensor:
    """One token a row: the likeliest, or a draw by the inverse of the cumulative distribution."""
    if drawn is None:
        return logits.argmax(dim=-1)
    logits = logits.double() / temperature  # (B, V)
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1).indices  # (B, k)
        outside = torch.ones_like(logits, dtype=torch.bool).scatter(-1, kept, False)
        logits = logits.masked_fill(outside, float("-inf"))
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    # Uniform draws are the same on every processor; torch.multinomial's are not promised to be.
    drawn = drawn.to(logits.device) * cumulative[:, -1:]  # (B, 1)
    return (cumulative <= drawn).sum(dim=-1)  # (B,)


def respond(
    model: Callable,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int = 24,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | Sequence[int] = 0,
) -> list[Reply]:
    """Sample one reply to each prompt; repeat a prompt to get several.

    Parameters
    ----------
    model, max_new_tokens, temperature, top_k
        As in `sample`.
    tokenizer : WordTokenizer or InstructionTokenizer
        Turns prompts into tokens and replies into text.
    prompts : sequence of str
    seed : int or sequence of int
        Of a generator made for this call; or one for each prompt, whose reply then is a matter
        of its own prompt and seed.

    Returns
    -------
    list of Reply
        In the order of the prompts.
    """
    rows = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    tokens, mask = pad(rows, tokenizer.pad_id, side="left")  # (B, P)
    one = isinstance(seed, int)
    generators = [torch.Generator().manual_seed(number) for number in ([seed] if one else seed)]
    samples = sample(
        model,
        tokens,
        mask,
        max_new_tokens,
        temperature,
        top_k,
        generators[0] if one else generators,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )
    kept = [
        tuple(row[:length])
        for row, length in zip(
            samples.tokens.tolist(), samples.mask.sum(dim=1).tolist(), strict=True
        )
    ]
    return [
        Reply(prompt, tokenizer.decode(row), finished, row)
        for prompt, row, finished in zip(prompts, kept, samples.finished.tolist(), strict=True)
    ]
