"""Ours, the peers and TRL, each as a function that takes its steps when it is its turn.

What is timed of each is its own step as it stands in its own loop. Putting a batch together is
part of ours, which packs it within the step. The peers' and TRL's batches are padded before the
clock runs.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dpo_lib.benchmarks.peers import PEERS, make_optimizer, take_step
from dpo_lib.benchmarks.turns import Implementation, Turn
from dpo_lib.benchmarks.workloads import InOrder, Workload, as_transformers, load_model
from dpo_lib.reference import make_reference
from dpo_lib.training import DPOConfig, train_dpo

FLOAT32_TOLERANCE = 1e-5  # nats: how far losses may lie from each other, after every update
# The layers read weights rounded to 8 bits, so updates of this size arrive by chance only.
BFLOAT16_TOLERANCE = 0.03


# --- ours ----------------------------------------------------------------------------------------


def run_ours(
    turn: Turn,
    workloads: Sequence[Workload],
    transformers_model: bool = False,
    options: Mapping[str, Any] | None = None,
) -> None:
    """`train_dpo` in its own loop; the policy as it starts is the reference."""
    model = _load(workloads, transformers_model)
    turn.loaded()
    for workload in workloads:
        steps = len(workload.batches)
        config = DPOConfig(
            beta=workload.beta,
            learning_rate=workload.learning_rate,
            steps=steps,
            batch_size=workload.batch_size,
            eval_every=steps,
            **(options or {}),
        )
        _train(turn, model, InOrder(workload), config)


def _train(turn: Turn, model: nn.Module, dataset: InOrder, config: DPOConfig) -> None:
    """The clock runs from a turn's beginning until `train_dpo` reports the update."""
    done = 0

    def before_the_first(policy: nn.Module) -> dict[str, float]:
        if done == 0:
            turn.begin()
        return {}

    def after(row: dict[str, float]) -> None:
        nonlocal done
        turn.end(row["loss"])
        done += 1
        if done < config.steps:
            turn.begin()

    train_dpo(
        model, None, dataset, config, evaluate=before_the_first, on_step=after, progress=False
    )


# --- the peers -----------------------------------------------------------------------------------


def run_peer(turn: Turn, workloads: Sequence[Workload], peer: str) -> None:
    """One of `PEERS`, in the plainest loop."""
    policy = _load(workloads)
    turn.loaded()
    for workload in workloads:
        reference = make_reference(policy)
        optimizer = make_optimizer(policy, workload.learning_rate)
        for rows in workload.batches:
            batch = PEERS[peer].collate(rows)
            turn.begin()
            loss = take_step(
                PEERS[peer].log_probs, policy, reference, optimizer, batch, workload.beta
            )
            turn.end(loss.item)


# --- TRL -----------------------------------------------------------------------------------------


def run_trl(
    turn: Turn, workloads: Sequence[Workload], options: Mapping[str, Any] | None = None
) -> None:
    """TRL's `DPOTrainer` in its own loop, blocked between its steps by a callback."""
    model = _load(workloads, transformers_model=True)
    turn.loaded()
    for workload in workloads:
        _trl_loop(turn, model, workload, options or {})


def _trl_loop(turn: Turn, model: nn.Module, workload: Workload, options: Mapping[str, Any]) -> None:
    import datasets
    import trl
    from transformers import TrainerCallback

    losses: list[torch.Tensor] = []

    class Recording(trl.DPOTrainer):
        """The trainer, which also keeps each loss: its log rounds them."""

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.detach())
            return loss

    class Turns(TrainerCallback):
        """Waits before and reports after each step."""

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            turn.begin()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            turn.end(losses[-1].item)

    words = trl_tokenizer(model.config.vocab_size, workload.eos_id)
    rows = [row for batch in workload.batches for row in batch]
    keep_reference = not options.get("precompute_ref_log_probs")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Recording(
            model=model,
            ref_model=copy.deepcopy(model) if keep_reference else None,
            args=trl.DPOConfig(
                output_dir=folder,
                beta=workload.beta,
                learning_rate=workload.learning_rate,
                lr_scheduler_type="constant",
                max_steps=len(workload.batches),
                per_device_train_batch_size=workload.batch_size,
                train_sampling_strategy="sequential",
                max_length=None,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **options,
            ),
            train_dataset=datasets.Dataset.from_list(
                [{name: as_text(ids) for name, ids in row.items()} for row in rows]
            ),
            processing_class=words,
            callbacks=[Turns()],
        )
        for name in ("prompt", "chosen", "rejected"):
            if [*trainer.train_dataset[f"{name}_ids"]] != [row[name] for row in rows]:
                raise ValueError(f"TRL's tokens of {name} are not those of the workload")
        trainer.train()


def as_text(ids: Sequence[int]) -> str:
    """Words that `trl_tokenizer` turns back into the ids."""
    return "".join(f"<{i}>" for i in ids)


def trl_tokenizer(vocab_size: int, eos_id: int) -> Any:
    """A tokenizer of transformers for the words <0>, <1>, ..."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(vocab_size)}, unk_token="<0>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("<[0-9]+>"), "isolated")
    eos = f"<{eos_id}>"
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=eos, pad_token=eos)


def _load(workloads: Sequence[Workload], transformers_model: bool = False) -> nn.Module:
    """The one model of all workloads."""
    kinds = {workload.model for workload in workloads}
    if len(kinds) != 1:
        raise ValueError(f"workloads must share one model, got {kinds}")
    model = load_model(kinds.pop())
    return as_transformers(model) if transformers_model else model


# --- everybody -----------------------------------------------------------------------------------

_FLOAT32 = {"bf16": False, "gradient_checkpointing": False}
_PRECOMPUTED = {"precompute_ref_log_probs": True}


def implementations(
    workloads: Sequence[Workload], float32_tolerance: float = FLOAT32_TOLERANCE
) -> dict[str, Implementation]:
    """All that are measured, by name."""

    def ours(title: str, transformers_model: bool = False, **options: Any) -> Implementation:
        tolerance = BFLOAT16_TOLERANCE if options.get("dtype") == "bfloat16" else float32_tolerance
        return Implementation(
            f"Ours: {title}",
            run_ours,
            tolerance,
            {
                "workloads": workloads,
                "transformers_model": transformers_model,
                "options": options,
            },
        )

    def trl(title: str, options: Mapping[str, Any]) -> Implementation:
        tolerance = float32_tolerance if options.get("bf16") is False else BFLOAT16_TOLERANCE
        return Implementation(
            f"TRL: {title}", run_trl, tolerance, {"workloads": workloads, "options": options}
        )

    return {
        "ours": ours("float32"),
        "ours_stock": ours("transformers' own forward pass", True, lean=False),
        "ours_padded": ours("padded, not packed", packed=False),
        "ours_bfloat16": ours("bfloat16", dtype="bfloat16"),
        "trl_default": trl("default (bfloat16, checkpointing)", {}),
        "trl_float32": trl("float32", _FLOAT32),
        "trl_precomputed": trl("float32, precomputed", _FLOAT32 | _PRECOMPUTED),
        "trl_bfloat16": trl(
            "bfloat16, precomputed", {"gradient_checkpointing": False} | _PRECOMPUTED
        ),
        **{
            name: Implementation(
                peer.title, run_peer, float32_tolerance, {"workloads": workloads, "peer": name}
            )
            for name, peer in PEERS.items()
        },
    }
