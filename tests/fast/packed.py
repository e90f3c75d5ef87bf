"""Models, pairs and comparisons for tests of the packed path."""

import random

import torch
from torch.testing import assert_close

from dpo_lib.fast.pair_log_probs import packed_pair_log_probs
from dpo_lib.logprobs import get_response_log_probs, pad_rows, responses_of
from dpo_lib.models import TinyGPT, TinyGPTConfig

VOCAB = 13


def tiny(dtype=torch.float64, **options):
    torch.manual_seed(1)
    sizes = {"context_length": 40, "width": 16, "heads": 2, "layers": 2, **options}
    model = TinyGPT(TinyGPTConfig(VOCAB, **sizes)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # as sharp as a trained one
    return model


def random_rows(n, seed=0, prompts=3, longest=9, vocab=VOCAB):
    """Pairs that share prompts, starts of prompts and starts of responses."""
    draw = random.Random(seed)

    def ids(least=1):
        return [draw.randrange(vocab) for _ in range(draw.randint(least, longest))]

    system = ids(3)
    asked = [system + ids() for _ in range(prompts)]
    rows = []
    for _ in range(n):
        start = ids(0)[:4]
        rows.append(
            {"prompt": draw.choice(asked), "chosen": start + ids(), "rejected": start + ids()}
        )
    return rows


def random_thumbs(n, seed=0, names=("response", "mismatched")):
    """Rows of thumbs in the place of pairs, with some of their responses."""
    sides = dict(zip(("response", "mismatched"), ("chosen", "rejected"), strict=True))
    return [
        {"prompt": row["prompt"], "desirable": True, **{name: row[sides[name]] for name in names}}
        for row in random_rows(n, seed)
    ]


def values_and_gradients(function, model, weights):
    model.zero_grad()
    logps = torch.cat(function())
    (logps * weights.to(logps)).sum().backward()
    return logps.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_equal_paths(model, rows, atol, slope_atol=None, **options):
    names = responses_of(rows[0])
    weights = torch.randn(len(names) * len(rows), generator=torch.Generator().manual_seed(0))
    expected, slopes = values_and_gradients(
        lambda: get_response_log_probs(model, pad_rows(rows)), model, weights
    )
    found, ours = values_and_gradients(
        lambda: packed_pair_log_probs(model, rows, **options), model, weights
    )
    scale = max(1.0, expected.abs().max().item())
    assert_close(found, expected, atol=atol * scale, rtol=0)
    assert ours.keys() == slopes.keys()
    largest = max(g.abs().max().item() for g in slopes.values())
    for name, slope in slopes.items():
        assert_close(
            ours[name], slope, atol=(slope_atol or atol) * max(1.0, largest), rtol=0, msg=name
        )


def hugging_face(kind, attention="sdpa", dtype=torch.float64, **options):
    import transformers

    torch.manual_seed(2)
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "head_dim": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **options,
    }
    if kind in ("GPT2", "GPTNeoX", "Bloom", "Phi"):
        for name in ("num_key_value_heads", "head_dim"):
            del sizes[name]
    if kind in ("GPT2", "Bloom"):
        sizes.pop("intermediate_size")
    config = getattr(transformers, f"{kind}Config")(**sizes)
    auto = transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation=attention).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model
