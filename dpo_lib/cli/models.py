"""Models by name, with adapters, and the folders they are saved in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpo_lib.data import Tokenizer
from dpo_lib.models.pretrained import load_pretrained, quiet_transformers, set_end_token

TINY = "tiny"  # the SFT model of the tiny world; reads its 150 words only
TINY_FILES = ("tiny_gpt.json", "tiny_gpt.safetensors")
DEFAULT_LENGTH = 512  # tokens of a prompt with its response


@dataclass
class OpenModel:
    """A model that is ready to train or to answer."""

    name: str
    model: nn.Module
    tokenizer: Tokenizer
    options: dict[str, Any] = field(default_factory=dict)  # of the tokenizer
    wrapper: Any = None  # the model with adapters, as peft sees it

    @property
    def context(self) -> int:
        """Longest sequence that the model can read."""
        config: Any = self.model.config
        for name in ("max_position_embeddings", "n_positions", "context_length"):
            if isinstance(getattr(config, name, None), int):
                return getattr(config, name)
        return 1 << 30

    @property
    def vocab_size(self) -> int:
        """Number of ids that the model knows."""
        if is_tiny(self.model):
            return len(self.tokenizer)
        return self.model.get_input_embeddings().weight.shape[0]

    def add_lora(self, rank: int, seed: int) -> None:
        """Freeze the model and put adapters of this rank into all its linear layers."""
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        self.wrapper = get_peft_model(self.model, config)
        self.model = self.wrapper.get_base_model().eval()

    @contextlib.contextmanager
    def as_it_was(self) -> Iterator[nn.Module]:
        """The model before training: adapters off, or loaded once more."""
        if self.wrapper is not None:
            with self.wrapper.disable_adapter():
                yield self.model
        else:
            yield open_model(self.name, self.options).model

    def save(self, folder: Path) -> None:
        """Write the files that transformers (or peft, or `open_model` for a tiny model) loads."""
        folder.mkdir(parents=True)
        if is_tiny(self.model):
            save_tiny(self.model, folder)
        else:
            set_end_token(self.model, self.tokenizer.eos_id)
            with quiet_transformers():
                (self.wrapper or self.model).save_pretrained(str(folder))
                self.tokenizer.save(folder)
                if self.wrapper is not None and self.model.generation_config is not None:
                    self.model.generation_config.save_pretrained(str(folder))
            license_file = Path(str(self.model.config._name_or_path)) / "LICENSE"
            if license_file.is_file():  # as Apache-2.0 asks for
                (folder / "LICENSE").write_bytes(license_file.read_bytes())
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors writes 0600


def open_model(name: str, options: Mapping[str, Any] | None = None) -> OpenModel:
    """Load a model by the name that was typed: see the help of ``--model``.

    Parameters
    ----------
    name : str
    options : mapping, optional
        Settings of its `PretrainedTokenizer`, such as ``{"chat": False}``.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    folder = Path(name)
    if (folder / "run.json").is_file():
        folder = folder / "model"
        if not folder.is_dir():
            raise ValueError(f"the run {name} is not finished: it has no model yet")
    if name == TINY or (folder / TINY_FILES[0]).is_file():
        from dpo_lib.models import load_sft
        from dpo_lib.world import world_tokenizer

        model = load_sft() if name == TINY else load_tiny(folder)
        return OpenModel(name, model, world_tokenizer())
    found = load_pretrained(str(folder) if folder.is_dir() else name, options=options)
    return OpenModel(name, *found, dict(options or {}))


def is_tiny(model: nn.Module) -> bool:
    """Whether this is a model of the book and not one of transformers."""
    from dpo_lib.models import TinyGPT

    return isinstance(model, TinyGPT)


def save_tiny(model: nn.Module, folder: Path) -> None:
    """Write a tiny model's sizes and weights."""
    import dataclasses

    from safetensors.torch import save_file

    sizes = dataclasses.asdict(model.config)
    (folder / TINY_FILES[0]).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    save_file(model.state_dict(), folder / TINY_FILES[1])


def load_tiny(folder: Path) -> nn.Module:
    """Read what `save_tiny` wrote."""
    from safetensors.torch import load_file

    from dpo_lib.models import TinyGPT, TinyGPTConfig

    sizes = json.loads((folder / TINY_FILES[0]).read_text(encoding="utf-8"))
    weights = load_file(folder / TINY_FILES[1])
    model = TinyGPT(TinyGPTConfig(**sizes)).to(next(iter(weights.values())).dtype)
    model.load_state_dict(weights)
    return model.eval()
