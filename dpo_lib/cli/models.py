"""Models by name, with adapters, and the folders they are saved in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib.cli.records import write_json
from dpo_lib.data import Tokenizer
from dpo_lib.models.pretrained import (
    load_adapter,
    load_pretrained,
    quiet_transformers,
    set_end_token,
)

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
    start: dict[str, Tensor] = field(default_factory=dict)  # of the adapters that are trained
    continued: bool = False  # whether they were there before

    @property
    def adapter_rank(self) -> int | None:
        """Rank of the adapters that the model has."""
        return None if self.wrapper is None else self.wrapper.active_peft_config.r

    @property
    def context(self) -> int:
        """Longest sequence that the model can read."""
        config: Any = self.model.config
        for name in ("max_position_embeddings", "n_positions", "context_length"):
            if isinstance(getattr(config, name, None), int):
                return getattr(config, name)
        return sys.maxsize

    @property
    def vocab_size(self) -> int:
        """Number of ids that the model knows."""
        if is_tiny(self.model):
            return len(self.tokenizer)
        return self.model.get_input_embeddings().weight.shape[0]

    def prepare(self, lora: int | None, seed: int) -> None:
        """Choose what is trained: every weight, or adapters in all linear layers.

        Parameters
        ----------
        lora : int or None
            None: every weight; adapters that the model has become part of them. A rank: the
            adapters that it has, or new ones, which change nothing until they are trained.
        seed : int
            Of new adapters.
        """
        if lora is None:
            self.merge()
            self.model.requires_grad_(True)
            return
        if self.wrapper is None:
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(seed)
            config = LoraConfig(
                r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            self.wrapper = get_peft_model(self.model, config)
            self.model = self.wrapper.get_base_model().eval()
        else:
            self.wrapper.set_adapter(self.wrapper.active_adapter)  # its parameters learn again
            self.continued = True
        trained = ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)
        self.start = {name: parameter.detach().clone() for name, parameter in trained}

    def merge(self) -> None:
        """Put the adapters into the weights; nothing happens if there are none."""
        if self.wrapper is not None:
            self.model, self.wrapper = self.wrapper.merge_and_unload(safe_merge=True).eval(), None

    @contextlib.contextmanager
    def as_it_was(self) -> Iterator[nn.Module]:
        """The model before training: the adapters' old values, or loaded once more."""
        if not self.start:
            yield open_model(self.name, self.options).model
            return
        parameters = dict(self.model.named_parameters())
        now = {name: parameters[name].detach().clone() for name in self.start}
        try:
            self._set(self.start)
            yield self.model
        finally:
            self._set(now)

    def start_digest(self) -> str:
        """SHA-256 of the adapters' old values."""
        digest = hashlib.sha256()
        for name, value in sorted(self.start.items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, value in values.items():
            parameters[name].copy_(value)

    def save(self, folder: Path) -> None:
        """Write the files that transformers (or peft, or `open_model` for a tiny model) loads."""
        folder.mkdir()
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
    if (folder / "adapter_config.json").is_file():
        wrapper, tokenizer = load_adapter(folder, options=options)
        base = wrapper.get_base_model()
        return OpenModel(name, base, tokenizer, dict(options or {}), wrapper)
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

    write_json(folder / TINY_FILES[0], dataclasses.asdict(model.config))
    save_file(model.state_dict(), folder / TINY_FILES[1])


def load_tiny(folder: Path) -> nn.Module:
    """Read what `save_tiny` wrote."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from dpo_lib.models import TinyGPT, TinyGPTConfig

    try:
        sizes = json.loads((folder / TINY_FILES[0]).read_bytes())
        weights = load_file(folder / TINY_FILES[1])
        model = TinyGPT(TinyGPTConfig(**sizes)).to(next(iter(weights.values())).dtype)
        model.load_state_dict(weights)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, StopIteration) as error:
        reason = str(error) or "it holds no weights"
        raise ValueError(f"{folder} is damaged: {reason.splitlines()[0]}") from error
    return model.eval()
