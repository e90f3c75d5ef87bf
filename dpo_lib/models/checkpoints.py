"""The project's own trained models, committed next to this file."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dpo_lib._files import replacing
from dpo_lib.models.tiny_gpt import TinyGPT, TinyGPTConfig

WEIGHTS = Path(__file__).parent / "weights"


def load_base(dtype: torch.dtype = torch.float64) -> TinyGPT:
    """The base model: trained on the tiny world's plain text only (chapter 1)."""
    return _load("base", dtype)


def load_sft(dtype: torch.dtype = torch.float64) -> TinyGPT:
    """The SFT model: the base model trained further on demonstrations (chapter 1)."""
    return _load("sft", dtype)


@cache
def training_record() -> dict[str, Any]:
    """Settings and metrics of the training of both models, as ``make models`` wrote them."""
    return json.loads((WEIGHTS / "training.json").read_text(encoding="utf-8"))


def save_weights(model: TinyGPT, name: str, folder: Path = WEIGHTS) -> Path:
    """Store a model's weights as float32 safetensors, replacing the file in one move."""
    from safetensors.torch import save

    path = folder / f"{name}.safetensors"
    weights = {key: value.float().contiguous() for key, value in model.state_dict().items()}
    with replacing(path) as file:
        file.write(save(weights))
    return path


def _load(name: str, dtype: torch.dtype) -> TinyGPT:
    from safetensors.torch import load

    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating type, got {dtype}")
    path, record = WEIGHTS / f"{name}.safetensors", training_record()
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record[name]["sha256"]:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is not that of the trained weights; install dpo_lib "
            "again"
        )
    model = TinyGPT(TinyGPTConfig(**record["config"]))
    model.load_state_dict(load(data))
    return model.to(dtype).eval()
