"""DPO training: one step, and the loop around it (chapter 10)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpo_lib._files import replacing
from dpo_lib._validation import check_positive
from dpo_lib.fast.cache import cache_file, read_cache, write_cache
from dpo_lib.fast.pair_log_probs import (
    DTYPES,
    PairLogProbs,
    keep_freed_memory,
    log_probs_of_rows,
)
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import PreferenceLoss, as_loss_function, dpo_loss, takes_lengths
from dpo_lib.reference import fingerprint
from dpo_lib.rewards import reward_accuracy
from dpo_lib.scores import PairScores, apply_loss, join_scores, pair_scores, summarize

if TYPE_CHECKING:
    from accelerate import Accelerator
    from matplotlib.figure import Figure

    from dpo_lib.data import PreferenceDataset


def dpo_training_step(
    policy_model: nn.Module,
    ref_model: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    beta: float = 0.1,
) -> tuple[float, float]:
    """Take one optimizer step on the DPO loss of a batch.

    Parameters
    ----------
    policy_model : nn.Module
        The model in training.
    ref_model : callable
        Its frozen reference, from `make_reference`; called without gradients.
    optimizer : torch.optim.Optimizer
        Over the policy's parameters.
    batch : mapping
        Token ids ``prompt``, ``chosen``, ``rejected``, each ``(batch, length)``; if rows were
        padded, also ``prompt_mask``, ``chosen_mask``, ``rejected_mask``.
    beta : float
        Inverse temperature of the KL penalty, above 0.

    Returns
    -------
    loss, reward_accuracy : float
        Mean loss (nats) and share of pairs whose chosen response has the higher reward, both
        before the update; ties count one half, so the first step shows 0.5.

    Raises
    ------
    ValueError
        If a key is missing, ``ref_model`` is the policy itself, or the inputs are malformed
        (see `get_sequence_log_probs` and `dpo_loss`). Nothing has been updated then.
    """
    if ref_model is policy_model:
        raise ValueError("ref_model must be a frozen copy of policy_model, not the same object")

    policy_chosen, policy_rejected = get_pair_log_probs(policy_model, batch)
    with torch.no_grad():
        reference_chosen, reference_rejected = get_pair_log_probs(ref_model, batch)
    losses, chosen_rewards, rejected_rewards = dpo_loss(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
    )
    loss = losses.mean()

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), reward_accuracy(chosen_rewards, rejected_rewards).item()


@dataclass(frozen=True)
class DPOConfig:
    """Settings of one training run."""

    beta: float = 0.1  # inverse temperature of the KL penalty
    learning_rate: float = 1e-4  # of AdamW, at its highest
    steps: int = 100  # optimizer updates
    batch_size: int = 32  # pairs an update
    accumulate: int = 1  # parts of a batch, one after the other: less memory, the same update
    schedule: str = "constant"  # after the warm-up: "constant", or "linear" or "cosine" to 0
    warmup_steps: int = 0  # updates over which the learning rate rises from 0
    weight_decay: float = 0.0  # of AdamW, on matrices; biases and norms are left alone
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this length; inf: never
    eval_every: int = 10  # updates between evaluations
    seed: int = 0  # decides the order of the pairs
    packed: bool = True  # common prefixes computed once, no padding; the same up to rounding
    lean: bool = True  # models that dpo_lib.fast.lean knows, by its pass; the same up to rounding
    keep_memory: bool = True  # glibc: freed memory stays with the process, for the next update
    dtype: str = "float32"  # or "bfloat16": of the layers; log-probs, weights stay as they are

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate"):
            check_positive(getattr(self, name), name)
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay!r}")
        for name, least in (
            ("steps", 1), ("batch_size", 1), ("accumulate", 1), ("eval_every", 1),
            ("warmup_steps", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate must be at most batch_size ({self.batch_size}), got {self.accumulate}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {[*DTYPES]}, got {self.dtype!r}")
        if self.schedule not in _SCHEDULES:
            raise ValueError(f"schedule must be one of {[*_SCHEDULES]}, got {self.schedule!r}")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of update number ``step``, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * _SCHEDULES[self.schedule](done)


_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


@dataclass
class TrainingHistory:
    """What a run left behind: a row of numbers for each update and for each evaluation."""

    config: DPOConfig
    steps: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def column(self, name: str) -> list[Any]:
        """One number over the run, from ``steps`` or, if they lack it, from ``evaluations``."""
        for rows in (self.steps, self.evaluations):
            if rows and name in rows[0]:
                return [row[name] for row in rows]
        known = sorted({*(self.steps or [{}])[0], *(self.evaluations or [{}])[0]})
        raise ValueError(f"the history has no column {name!r}; it has {known}")

    def plot(self) -> Figure:
        """Draw every column over the updates."""
        from dpo_lib.figures import plot_history  # drawing needs matplotlib, training does not

        return plot_history(self)


def train_dpo(
    policy: nn.Module,
    reference: Callable[..., Any] | None,
    dataset: PreferenceDataset,
    config: DPOConfig | None = None,
    *,
    loss: str | Callable[..., PreferenceLoss] = dpo_loss,
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
    on_step: Callable[[dict[str, float]], None] | None = None,
    checkpoint: str | Path | None = None,
    reference_cache: str | Path | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
) -> TrainingHistory:
    """Train a policy on preference pairs, in place.

    Dropout stays off (the policy is in eval mode while it trains, as the reference is), and the
    reference log-probabilities are computed once, before the first update.

    Parameters
    ----------
    policy : nn.Module
        The model to train: those of its parameters that require gradients.
    reference : callable or None
        Its frozen reference, usually ``make_reference(policy)``. None: the policy as it starts;
        no second model is held.
    dataset : PreferenceDataset
        Preference pairs as token ids.
    config : DPOConfig, optional
        Settings; the defaults if absent.
    loss : callable or str
        A loss with the arguments of `dpo_loss`, four log-probabilities and ``beta``, or its name
        in `dpo_lib.losses.LOSSES`. One that needs the lengths of the responses gets them.
    evaluate : callable, optional
        Maps the policy to named results. Called before the first update, every
        ``config.eval_every`` updates and after the last one.
    on_step : callable, optional
        Called after every update with its row of the history, to show or log it.
    checkpoint : path, optional
        File that holds the whole state of the run, written at every evaluation. If it exists,
        the run goes on from there and ends with the same bits as one never interrupted.
    reference_cache : path, optional
        Folder in which reference log-probabilities are kept between runs, as in
        `cache_reference_log_probs`.
    accelerator : accelerate.Accelerator, optional
        Of a run that ``accelerate launch`` or ``torchrun`` has started in many processes, in the
        way of its own configuration (DDP, FSDP). Each batch is shared out, numbers are those of
        the whole batch, and the main process alone writes, shows and reports.
    progress : bool
        Show a progress bar.

    Returns
    -------
    TrainingHistory
        Per update, over its batch and before the update: ``loss`` (nats), ``reward_accuracy``,
        ``margin`` (reward difference), ``chosen_logp`` and ``rejected_logp`` (nats, minus the
        reference's), ``grad_norm`` (before clipping), ``learning_rate``.

    Raises
    ------
    ValueError
        If the data set is empty, ``reference`` is the policy itself, the two hold the same
        parameters yet give different log-probabilities, no parameter requires gradients, the
        loss is not known, or the checkpoint is of another run.
    FloatingPointError
        If a loss or gradient is not finite, naming the update; that update is not made.

    Notes
    -----
    With ``config.keep_memory`` the C library of Linux is told, for the rest of the process, to
    keep what is freed: else every update begins with pages that the system has to clear.

    AdamW, by default without weight decay. Every pair is used once before any is used again. A
    checkpoint holds the trained parameters only: with frozen ones, as under LoRA, it is small
    and the run must be resumed on the same frozen model. With an accelerator, ``evaluate`` is
    called in every process, and FSDP leaves the policy sharded. Chapter 10.
    """
    from tqdm.auto import tqdm  # looks for a notebook when imported, so not at the top

    config = config or DPOConfig()
    if reference is policy:
        raise ValueError("reference must be a frozen copy of policy, or None, not the same object")
    loss = as_loss_function(loss)
    was_training = policy.training
    policy.eval()
    try:
        machines = _Machines(accelerator)
        run = _Run(policy, reference, dataset, loss, config, checkpoint, reference_cache, machines)
        run.start()
        main = run.machines.main
        done = len(run.history.steps)
        steps = range(done, config.steps)
        hidden = not (progress and main)
        for step in tqdm(steps, initial=done, total=config.steps, disable=hidden):
            if step % config.eval_every == 0:
                run.evaluate(step, evaluate)
            run.update(step)
            if on_step is not None and main:
                on_step(run.history.steps[-1])
        run.evaluate(config.steps, evaluate)
    finally:
        policy.train(was_training)
    return run.history


class _Machines:
    """The processes that share a run: one, or those of an Accelerator."""

    def __init__(self, accelerator: Accelerator | None) -> None:
        self.accelerator = accelerator
        self.number = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.main = self.rank == 0
        self.sharded = accelerator is not None and "FSDP" in str(accelerator.distributed_type)

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Module and optimizer as this kind of run needs them."""
        if self.accelerator is None:
            return module, optimizer
        return self.accelerator.prepare(module, optimizer)

    def gather(self, own: list[Any]) -> list[Any]:
        """What all processes have, in their order."""
        if self.number == 1:
            return own
        from accelerate.utils import gather_object

        return gather_object(own)

    def backward(self, loss: Tensor) -> None:
        if self.accelerator is None:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradients down to ``max_norm``; their norm before."""
        if self.accelerator is None:
            return nn.utils.clip_grad_norm_(parameters, max_norm)
        if hasattr(parameters[0], "full_tensor"):  # FSDP 2: torch sees the shards of all
            return nn.utils.clip_grad_norm_(parameters, max_norm).full_tensor()
        return self.accelerator.clip_grad_norm_(parameters, max_norm)

    def last(self, module: nn.Module, last: bool) -> contextlib.AbstractContextManager:
        """Exchange gradients with the last part of a batch only."""
        if self.number == 1 or last:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(module)

    @contextlib.contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """Let the policy within ``module`` be called by itself, though it be sharded."""
        if not self.sharded:
            yield
        elif hasattr(module, "unshard"):  # FSDP 2
            module.unshard()
            yield
            module.reshard()
        else:
            from torch.distributed.fsdp import FullyShardedDataParallel

            with FullyShardedDataParallel.summon_full_params(module, writeback=False):
                yield


class _Run:
    """The state of one call of `train_dpo`."""

    def __init__(
        self,
        policy: nn.Module,
        reference: Callable[..., Any] | None,
        dataset: PreferenceDataset,
        loss: Callable[..., PreferenceLoss],
        config: DPOConfig,
        checkpoint: str | Path | None,
        reference_cache: str | Path | None,
        machines: _Machines,
    ) -> None:
        if config.keep_memory:
            keep_freed_memory()
        self.policy, self.reference, self.dataset, self.loss = policy, reference, dataset, loss
        self.history = TrainingHistory(config)
        self.machines = machines
        self.path = None if checkpoint is None else Path(checkpoint)
        # A parameter with two names (tied embeddings) is listed once.
        self.trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ValueError("policy has no parameter that requires gradients")
        self.parts = machines.number * config.accumulate  # of a batch
        if self.parts > config.batch_size:
            raise ValueError(
                f"batch_size must be at least accumulate times the number of processes "
                f"({config.accumulate} * {machines.number}), got {config.batch_size}"
            )
        self.starts_equal = isinstance(reference, nn.Module) and (
            fingerprint(policy) == fingerprint(reference)
        )
        self.whole_batch = self.parts > 1 and _looks_across_pairs(loss, config.beta)
        if self.path is not None:
            self.identity = self.describe_run()
        self.cache_file = None
        if reference_cache is not None:
            model = policy if reference is None else reference
            self.cache_file = cache_file(reference_cache, model, [*dataset], config.dtype)
        self.log_probs, self.optimizer = machines.prepare(
            self.log_probs_of(policy),
            _make_optimizer([*self.trained.values()], config),
        )
        # Sharding puts other parameters in their places.
        self.trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}

    def log_probs_of(self, model: Callable[..., Any]) -> PairLogProbs:
        """How this run computes the log-probabilities of a model."""
        config = self.history.config
        return PairLogProbs(model, config.packed, config.dtype, config.lean)

    def start(self) -> None:
        """Take up the state of an interrupted run, or compute the reference's values."""
        if self.path is not None and self.path.exists():
            self.load(self.path)
            return
        log_probs = self.log_probs
        if self.reference is not None:
            log_probs = self.log_probs_of(self.reference)
        self.reference_logps = self.cache(log_probs)
        if self.starts_equal:
            gap = self.gap_to_reference(self.log_probs)
            if gap > 1e-3:
                raise ValueError(
                    "policy and reference hold the same parameters, yet their log-probabilities "
                    f"differ by {gap:.3g} nats, so the first loss would not be log 2: is dropout "
                    "on in the reference, or does the model draw random numbers?"
                )

    def cache(self, log_probs: nn.Module) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the whole data set, (N,) each; each process computes its share."""
        n_pairs = len(self.dataset)
        kept = None if self.cache_file is None else read_cache(self.cache_file, n_pairs)
        if kept is not None:
            return kept
        share = -(-n_pairs // self.machines.number)
        # The last process repeats a pair: where parameters are sharded, all must make equal calls.
        places = range(self.machines.rank * share, (self.machines.rank + 1) * share)
        rows = [self.dataset[min(i, n_pairs - 1)] for i in places]
        own = [x.cpu() for x in log_probs_of_rows(log_probs, rows)]
        chosen, rejected = zip(*self.machines.gather([own]), strict=True)
        values = torch.cat(chosen)[:n_pairs], torch.cat(rejected)[:n_pairs]
        if self.cache_file is not None and self.machines.main:
            write_cache(self.cache_file, values)
        return values

    def update(self, step: int) -> None:
        """Make one update and append its row to the history."""
        config = self.history.config
        pairs = self.dataset.pairs_of_step(step, config.batch_size, config.seed)  # (B,)
        parts = pairs.tensor_split(self.parts)
        first = self.machines.rank * config.accumulate
        own = parts[first : first + config.accumulate]
        others = []
        if self.whole_batch:
            with torch.no_grad():
                others = self.gather([self.score(part) for part in own])
        self.optimizer.zero_grad()
        scored = []
        for i, part in enumerate(own, start=first):
            with self.machines.last(self.log_probs, part is own[-1]):
                scores = self.score(part)
                total = (scores.chosen + scores.rejected).detach().sum()
                _check_number(step, "a log-probability", total)
                scored.append(scores.detach())
                if others:  # this part's share in the loss of the whole batch
                    whole = join_scores([*others[:i], scores, *others[i + 1 :]])
                    loss = apply_loss(self.loss, whole, config.beta).losses.mean()
                else:
                    loss = apply_loss(self.loss, scores, config.beta).losses.mean() * (
                        len(part) / len(pairs)
                    )
                # The processes' gradients are averaged, but the shares add up.
                self.machines.backward(loss * self.machines.number)
        norm = self.machines.clip([*self.trained.values()], config.max_grad_norm)
        scored = self.gather(scored)
        row = summarize(self.loss, join_scores(scored), config.beta)
        _check_number(step, "the loss", row["loss"])
        _check_number(step, "the gradient", norm)
        rate = config.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        numbers = {name: value.item() for name, value in {**row, "grad_norm": norm}.items()}
        self.history.steps.append({"step": step, **numbers, "learning_rate": rate})

    def score(self, pairs: Tensor) -> PairScores:
        """All that a loss may ask about these pairs."""
        rows = [self.dataset[int(i)] for i in pairs]
        reference_logps = [logps[pairs] for logps in self.reference_logps]
        return pair_scores(self.log_probs(rows), reference_logps, rows)

    def evaluate(
        self, step: int, evaluate: Callable[[nn.Module], Mapping[str, Any]] | None
    ) -> None:
        """Evaluate the policy as it stands before update ``step``, then save the run."""
        done = self.history.evaluations
        if evaluate is not None and not (done and done[-1]["step"] == step):
            with torch.no_grad(), self.machines.whole(self.log_probs):
                done.append({"step": step, **evaluate(self.policy)})
        if self.path is not None:
            self.save(self.path)

    def save(self, path: Path) -> None:
        """Write the state to ``path``, where there is always a whole file or none."""
        state = {
            "run": self.identity,
            "reference_logps": self.reference_logps,
            "history": json.dumps([self.history.steps, self.history.evaluations]),
            **self.tensors(),
        }
        if not self.machines.main:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        """Take up the state that `save` wrote, if it is of this run."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["run"] != self.identity:
            raise ValueError(
                f"checkpoint {path} is of another run: it has {state['run']}, "
                f"this run has {self.identity}"
            )
        self.reference_logps = state["reference_logps"]
        if self.reference is not None:
            gap = self.gap_to_reference(self.log_probs_of(self.reference))
            if gap > 1e-3:
                raise ValueError(
                    f"checkpoint {path} is of another run: its reference log-probabilities differ "
                    f"from those of this reference by {gap:.3g} nats"
                )
        self.take_tensors(state)
        self.history.steps, self.history.evaluations = json.loads(state["history"])

    @torch.no_grad()
    def gap_to_reference(self, log_probs: nn.Module) -> float:
        """Largest difference between a model's values of some pairs and the reference's."""
        rows = [self.dataset[i] for i in range(min(8, len(self.dataset)))]
        return max(
            float((new.cpu() - old[: len(rows)]).abs().max())
            for new, old in zip(log_probs(rows), self.reference_logps, strict=True)
        )

    def tensors(self) -> dict[str, Any]:
        """Trained parameters and the optimizer's state, in whole."""
        if not self.machines.sharded:
            policy = {name: parameter.detach() for name, parameter in self.trained.items()}
            return {"policy": policy, "optimizer": self.optimizer.state_dict()}
        from torch.distributed.checkpoint import state_dict as whole

        options = whole.StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=True
        )
        policy = whole.get_model_state_dict(self.log_probs, options=options)
        if not self.history.steps:  # asked now, it would make up a state, one step old
            return {"policy": policy, "optimizer": None}
        inner = self.optimizer.optimizer
        optimizer = whole.get_optimizer_state_dict(self.log_probs, inner, options=options)
        return {"policy": policy, "optimizer": optimizer}

    def take_tensors(self, state: dict[str, Any]) -> None:
        """Set what `tensors` gave."""
        if not self.machines.sharded:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(state["policy"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            return
        from torch.distributed.checkpoint import state_dict as whole

        options = whole.StateDictOptions(full_state_dict=True, strict=False)
        whole.set_model_state_dict(self.log_probs, state["policy"], options=options)
        if state["optimizer"] is not None:
            whole.set_optimizer_state_dict(
                self.log_probs, self.optimizer.optimizer, state["optimizer"], options=options
            )

    def gather(self, own: list[PairScores]) -> list[PairScores]:
        """Scores of all parts of the batch, from every process."""
        if self.machines.number == 1:
            return own
        device = own[0].chosen.device
        parts = self.machines.gather([tuple(scores.to("cpu")) for scores in own])
        return [PairScores(*scores).to(device) for scores in parts]

    def describe_run(self) -> str:
        """Settings, loss, data, and what the checkpoint does not hold of the policy."""
        config, policy = self.history.config, self.policy
        shapes = [(name, tuple(p.shape)) for name, p in self.trained.items()]
        frozen = {name for name, _ in policy.named_parameters()} - {*self.trained}
        parts = [
            f"{config}",
            f"loss {_name_of(self.loss)}",
            f"{len(self.dataset)} pairs {_digest([*self.dataset])}",
            f"{len(shapes)} trained parameters {_digest(shapes)}",
            f"reference {'given' if self.reference is not None else 'the policy at its start'}",
        ]
        if frozen:
            parts.append(f"{len(frozen)} frozen parameters {fingerprint(policy, frozen)[:12]}")
        return ", ".join(parts)


@torch.no_grad()
def _looks_across_pairs(loss: Callable[..., PreferenceLoss], beta: float) -> bool:
    """Whether the loss of a pair depends on its batch: tried on three pairs of numbers."""
    columns = torch.tensor(
        [[-3.0, -1.0, -4.0], [-1.5, -5.0, -9.0], [-2.0, -6.0, -5.0], [-3.5, -8.0, -9.5]],
        dtype=torch.float64,
    )
    lengths = (torch.tensor([2, 3, 4]), torch.tensor([5, 6, 3])) if takes_lengths(loss) else ()
    names = ("chosen_lengths", "rejected_lengths")

    def losses(pairs: slice) -> Tensor:
        extra = {name: x[pairs] for name, x in zip(names, lengths, strict=False)}
        return loss(*(x[pairs] for x in columns), beta, **extra).losses

    alone = torch.cat([losses(slice(i, i + 1)) for i in range(3)])
    return not torch.allclose(alone, losses(slice(0, 3)), rtol=1e-9, atol=1e-9)


def _make_optimizer(parameters: list[nn.Parameter], config: DPOConfig) -> torch.optim.Optimizer:
    """AdamW, in one kernel where the parameters' device has it; decay on matrices only."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    try:
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    except RuntimeError:  # a device or dtype without the kernel
        return torch.optim.AdamW(groups, lr=config.learning_rate)


def _name_of(loss: Callable[..., Any]) -> str:
    """Name of a loss, with the options that `functools.partial` has fixed."""
    if isinstance(loss, functools.partial):
        options = [*map(repr, loss.args), *(f"{k}={v!r}" for k, v in loss.keywords.items())]
        return f"{_name_of(loss.func)}({', '.join(options)})"
    return getattr(loss, "__name__", type(loss).__name__)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def _check_number(step: int, what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"{what} is {value.item()} at update {step}, which was not made; "
            "a lower learning rate or a higher beta usually helps"
        )
