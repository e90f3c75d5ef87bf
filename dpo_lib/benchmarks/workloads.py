"""What is trained: two models, and batches of pairs as token ids."""

from __future__ import annotations

import functools
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset, PreferenceRecord, read_jsonl
from dpo_lib.fast.prefix_tree import Row
from dpo_lib.models import TinyGPT, TinyGPTConfig

SMOLLM2_DATA = Path(__file__).resolve().parents[1] / "experiments/data/plain_answers.jsonl"
SHORTEST, LONGEST = 20, 60  # tokens of SmolLM2's responses
SEED = 0  # of the tiny model's weights and of the order of the pairs


@dataclass(frozen=True)
class Workload:
    """A model and its batches, one for each round."""

    model: TinyGPTConfig | str  # or the name of a pretrained one
    batches: list[list[Row]] = field(repr=False)
    eos_id: int  # the last token of every response
    learning_rate: float
    beta: float = 0.1

    @property
    def batch_size(self) -> int:
        """Pairs a step."""
        return len(self.batches[0])

    def rounds(self, start: int, stop: int) -> Workload:
        """The same with these batches only."""
        return replace(self, batches=self.batches[start:stop])


def smollm2(steps: int, batch_size: int = 4) -> Workload:
    """SmolLM2-135M-Instruct and pairs of appendix F: real questions, the model's own answers."""
    from transformers import AutoTokenizer

    from dpo_lib.models.pretrained import PretrainedTokenizer, smollm2_folder

    tokenizer = PretrainedTokenizer(AutoTokenizer.from_pretrained(smollm2_folder()))
    dataset = PreferenceDataset(read_jsonl(SMOLLM2_DATA), tokenizer)
    rows = [
        row
        for row in dataset.rows
        if all(SHORTEST <= len(row[side]) <= LONGEST for side in ("chosen", "rejected"))
    ]
    return Workload("smollm2", _batches(rows, steps, batch_size), tokenizer.eos_id, 1e-6)


def tiny(steps: int, batch_size: int = 12, vocabulary: int = 4096) -> Workload:
    """A small TinyGPT and random ids, in lengths like those of SmolLM2's pairs."""
    model = TinyGPTConfig(vocabulary, context_length=128, width=128, heads=4, layers=4)
    rng = random.Random(SEED)
    rows = []
    for seed in range(steps * batch_size):
        lengths = [rng.randint(35, 45), *(rng.randint(SHORTEST, LONGEST) for _ in range(2))]
        rows += random_pairs(1, *lengths, model.vocab_size, seed)
    return Workload(model, _batches(rows, steps, batch_size), 0, 2e-6)


# A vocabulary as it is trained for small models, and single bytes: it decides about the ratios.
WORKLOADS = {
    "smollm2": smollm2,
    "tiny": tiny,
    "tiny_bytes": functools.partial(tiny, vocabulary=260),
}


def _batches(rows: Sequence[Row], steps: int, batch_size: int) -> list[list[Row]]:
    """Every row once before any is used again, each time in another order."""
    generator = torch.Generator().manual_seed(SEED)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += torch.randperm(len(rows), generator=generator).tolist()
    return [
        [rows[i] for i in order[step * batch_size : (step + 1) * batch_size]]
        for step in range(steps)
    ]


def random_pairs(
    number: int, prompt: int, chosen: int, rejected: int, vocab_size: int, seed: int = SEED
) -> list[Row]:
    """Pairs of random ids of these lengths with nothing in common; each text ends with id 0."""
    rng = random.Random(seed)

    def ids(length: int) -> list[int]:
        return [rng.randrange(1, vocab_size) for _ in range(length)]

    return [
        {
            "prompt": ids(prompt),
            "chosen": [*ids(chosen - 1), 0],
            "rejected": [*ids(rejected - 1), 0],
        }
        for _ in range(number)
    ]


def token_statistics(workload: Workload) -> dict[str, Any]:
    """Smallest, median and largest number of tokens of prompts and responses."""
    rows = [row for batch in workload.batches for row in batch]
    found = {}
    for name in ("prompt", "chosen", "rejected"):
        lengths = [len(row[name]) for row in rows]
        found[name] = [min(lengths), statistics.median(lengths), max(lengths)]
    return found


# --- the model -----------------------------------------------------------------------------------


def load_model(model: TinyGPTConfig | str) -> nn.Module:
    """The model in float32 and eval mode; the same weights every time."""
    if isinstance(model, TinyGPTConfig):
        return new_tiny(model)
    from dpo_lib.models.pretrained import load_pretrained

    loaded = load_pretrained(model).model
    loaded.config.use_cache = False  # keys and values are kept for sampling, not for training
    _off_the_grid(loaded)
    return loaded


@torch.no_grad()
def _off_the_grid(model: nn.Module) -> None:
    """Move each weight by up to a thousandth.

    Weights out of a 4-bit file lie on a grid: eight in a hundred stand exactly half-way between
    two numbers of bfloat16. The first update would tip all of these at once, each the way its
    gradient points, and the losses in bfloat16 would say nothing about the implementation.
    """
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        noise = torch.rand(parameter.shape, generator=generator).sub_(0.5)  # within a half
        parameter.mul_(noise.mul_(2e-3).add_(1))


def new_tiny(config: TinyGPTConfig) -> TinyGPT:
    """Random weights, larger than a new model's so that its log-probabilities differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = TinyGPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model.eval()


def as_transformers(model: nn.Module) -> nn.Module:
    """The model as one of transformers': a `TinyGPT` becomes a GPT-2 with the same logits."""
    if not isinstance(model, TinyGPT):
        return model
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    converted = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.width,
            n_head=config.heads,
            n_layer=config.layers,
            activation_function="relu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    ours = model.state_dict()
    names = {"token_embedding": "wte", "position_embedding": "wpe", "final_norm": "ln_f"}
    for i in range(config.layers):
        for mine, theirs in (
            ("attention_norm", "ln_1"),
            ("attention.query_key_value", "attn.c_attn"),
            ("attention.output", "attn.c_proj"),
            ("mlp_norm", "ln_2"),
            ("mlp.0", "mlp.c_fc"),
            ("mlp.2", "mlp.c_proj"),
        ):
            names[f"blocks.{i}.{mine}"] = f"h.{i}.{theirs}"
    weights = {}
    for name, value in ours.items():
        module, kind = name.rsplit(".", 1)
        # GPT-2 keeps the matrices of its layers transposed.
        turned = value.ndim == 2 and module.startswith("blocks")
        weights[f"transformer.{names[module]}.{kind}"] = value.T if turned else value
    weights["lm_head.weight"] = ours["token_embedding.weight"]
    converted.load_state_dict(weights)
    return converted.eval()


# --- the same ids for those who want texts -------------------------------------------------------


class Ids:
    """A tokenizer whose texts are ids between blanks, for `PreferenceDataset`."""

    pad_id = 0

    def __init__(self, eos_id: int) -> None:
        self.eos_id = eos_id

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt."""
        return [int(word) for word in text.split()]

    def encode_response(self, text: str) -> list[int]:
        """Ids of a response, ended by EOS."""
        return [*self.encode_prompt(text), self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return " ".join(map(str, ids))


class InOrder(PreferenceDataset):
    """The pairs of a workload; update number n of `train_dpo` takes its batch number n."""

    def __init__(self, workload: Workload) -> None:
        tokenizer = Ids(workload.eos_id)
        rows = [row for batch in workload.batches for row in batch]
        super().__init__(
            [
                PreferenceRecord(
                    tokenizer.decode(row["prompt"]),
                    tokenizer.decode(row["chosen"][:-1]),
                    tokenizer.decode(row["rejected"][:-1]),
                )
                for row in rows
            ],
            tokenizer,
        )
        if self.rows != [{**row} for row in rows]:
            raise ValueError(f"every response must end with eos_id ({workload.eos_id})")

    def pairs_of_step(self, step: int, batch_size: int, seed: int) -> torch.Tensor:
        """As in `PreferenceDataset`, but in the order of the rows."""
        return torch.arange(step * batch_size, (step + 1) * batch_size)
