"""What several tests of the core share: a model small enough to enumerate, and plain arithmetic."""

import contextlib
import itertools
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from hypothesis import settings
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

# Every run tries the same examples, and nothing is written to disk.
deterministic = settings(derandomize=True, deadline=None, max_examples=60, database=None)


class PrefixModel(nn.Module):
    """Causal toy in float64: each logit depends on every earlier token and on its position."""

    def __init__(self, vocab_size=4, context=10, hidden=5, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = {"table": (context, vocab_size, hidden), "head": (hidden, vocab_size)}
        for name, shape in shapes.items():
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(values))

    def logits(self, tokens, attention_mask=None, position_ids=None):
        if position_ids is None:
            position_ids = torch.arange(tokens.shape[1]).expand_as(tokens)
        vectors = self.table[position_ids, tokens]  # (B, T, H)
        if attention_mask is not None:
            vectors = vectors * attention_mask.unsqueeze(-1)
        return torch.tanh(vectors.cumsum(dim=1)) @ self.head  # (B, T, V)

    def forward(self, tokens):
        return self.logits(tokens)


def callables(model):
    """The same model behind every signature that a caller may bring."""

    def masked(tokens, attention_mask):
        return model.logits(tokens, attention_mask)

    def positioned(tokens, position_ids):
        return model.logits(tokens, position_ids=position_ids)

    def complete(tokens, attention_mask=None, position_ids=None):
        return SimpleNamespace(logits=model.logits(tokens, attention_mask, position_ids))

    def keeping(tokens, attention_mask, position_ids, logits_to_keep=0):
        logits = model.logits(tokens, attention_mask, position_ids)
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])

    def hidden(*args, **kwargs):
        return model.logits(*args, **kwargs)

    return {
        "module": model,
        "plain": lambda tokens: model.logits(tokens),
        "masked": masked,
        "positioned": positioned,
        "complete": complete,
        "keeping": keeping,
        "hidden": hidden,
    }


def log_probs_by_hand(model, prompt, response):
    """Log-probability of each token of one unpadded response: log-softmax, then look up."""
    logits = model(torch.tensor([[*prompt, *response]]))
    logits = getattr(logits, "logits", logits)[0]  # (T, V)
    if logits.dtype == torch.bfloat16:
        logits = logits.float()
    table = F.log_softmax(logits, dim=-1)
    return torch.stack([table[len(prompt) + t - 1, token] for t, token in enumerate(response)])


def pad(prompts, responses, pad_id=0):
    """Prompts padded on the left and responses on the right, with their masks."""
    width, length = max(map(len, prompts)), max(map(len, responses))
    return (
        torch.tensor([[pad_id] * (width - len(p)) + p for p in prompts]),
        torch.tensor([r + [pad_id] * (length - len(r)) for r in responses]),
        torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in responses]),
    )


def every_response(vocab_size, length, eos=None):
    """All responses of ``length`` tokens; with ``eos`` those that end earlier stop there."""
    responses = set()
    for tokens in itertools.product(range(vocab_size), repeat=length):
        end = tokens.index(eos) + 1 if eos in tokens else length
        responses.add(tokens[:end])
    return sorted(responses)


class looks_at_values(TorchDispatchMode):
    """Counts how often a program asks for values: on a GPU it would wait for the device.

    Whole numbers do not count: they are places in the data set, which stand on the CPU.
    """

    WAITING = ("_local_scalar_dense", "nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.number, self._paused = 0, False

    def __enter__(self):
        self._tolist = torch.Tensor.tolist

        def counted(tensor):  # on the CPU it reads the memory and dispatches nothing
            self._count(tensor)
            with self.paused():
                return self._tolist(tensor)

        torch.Tensor.tolist = counted
        return super().__enter__()

    def __exit__(self, *error):
        torch.Tensor.tolist = self._tolist
        return super().__exit__(*error)

    @contextlib.contextmanager
    def paused(self):
        before, self._paused = self._paused, True
        yield
        self._paused = before

    def _count(self, tensor):
        whole = not (tensor.is_floating_point() or tensor.dtype == torch.bool)
        self.number += not (whole or self._paused)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.__name__.startswith(self.WAITING):
            self._count(args[0])
        return function(*args, **(kwargs or {}))
