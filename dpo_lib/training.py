"""DPO training: one step, and the loop around it (chapter 10)."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpo_lib._validation import check_positive
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import PreferenceLoss, dpo_loss
from dpo_lib.reference import cache_reference_log_probs, fingerprint
from dpo_lib.rewards import reward_accuracy

if TYPE_CHECKING:
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
    learning_rate: float = 1e-4  # of Adam, at its highest
    steps: int = 100  # optimizer updates
    batch_size: int = 32  # pairs an update
    schedule: str = "constant"  # after the warm-up: "constant", or "linear" or "cosine" to 0
    warmup_steps: int = 0  # updates over which the learning rate rises from 0
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this length; inf: never
    eval_every: int = 10  # updates between evaluations
    seed: int = 0  # decides the order of the pairs

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate"):
            check_positive(getattr(self, name), name)
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm!r}")
        for name, least in (
            ("steps", 1), ("batch_size", 1), ("eval_every", 1), ("warmup_steps", 0)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
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
    reference: Callable[..., Any],
    dataset: PreferenceDataset,
    config: DPOConfig | None = None,
    *,
    loss: Callable[..., PreferenceLoss] = dpo_loss,
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> TrainingHistory:
    """Train a policy on preference pairs, in place.

    Dropout stays off (the policy is in eval mode while it trains, as the reference is), and the
    reference log-probabilities are computed once, before the first update.

    Parameters
    ----------
    policy : nn.Module
        The model to train.
    reference : callable
        Its frozen reference, usually ``make_reference(policy)``.
    dataset : PreferenceDataset
        Preference pairs as token ids.
    config : DPOConfig, optional
        Settings; the defaults if absent.
    loss : callable
        A loss with the arguments of `dpo_loss`, four log-probabilities and ``beta``.
    evaluate : callable, optional
        Maps the policy to named results. Called before the first update, every
        ``config.eval_every`` updates and after the last one.
    checkpoint : path, optional
        File that holds the whole state of the run, written at every evaluation. If it exists,
        the run goes on from there and ends with the same bits as one never interrupted.
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
        parameters yet give different log-probabilities, or the checkpoint is of another run.
    FloatingPointError
        If a loss or gradient is not finite, naming the update; that update is not made.

    Notes
    -----
    Adam without weight decay. Every pair is used once before any is used again. Chapter 10.
    """
    from tqdm.auto import tqdm  # looks for a notebook when imported, so not at the top

    config = config or DPOConfig()
    if reference is policy:
        raise ValueError("reference must be a frozen copy of policy, not the same object")
    run = _Run(
        policy=policy,
        dataset=dataset,
        loss=loss,
        reference_logps=cache_reference_log_probs(reference, dataset),
        optimizer=torch.optim.Adam(policy.parameters(), lr=config.learning_rate),
        history=TrainingHistory(config),
    )
    was_training = policy.training
    policy.eval()
    try:
        _check_start(policy, reference, dataset, run.reference_logps)
        if checkpoint is not None and Path(checkpoint).exists():
            run.load(Path(checkpoint))
        done = len(run.history.steps)
        steps = range(done, config.steps)
        for step in tqdm(steps, initial=done, total=config.steps, disable=not progress):
            if step % config.eval_every == 0:
                run.evaluate(step, evaluate, checkpoint)
            run.update(step)
        run.evaluate(config.steps, evaluate, checkpoint)
    finally:
        policy.train(was_training)
    return run.history


@dataclass
class _Run:
    """The state of one call of `train_dpo`."""

    policy: nn.Module
    dataset: PreferenceDataset
    loss: Callable[..., PreferenceLoss]
    reference_logps: tuple[Tensor, Tensor]  # of the chosen and the rejected responses, (N,) each
    optimizer: torch.optim.Optimizer
    history: TrainingHistory

    def update(self, step: int) -> None:
        """Make one update and append its row to the history."""
        config = self.history.config
        pairs = _pairs_of_step(step, len(self.dataset), config)  # (B,)
        chosen, rejected = get_pair_log_probs(self.policy, self.dataset.batch(pairs))
        _check_number(step, "a log-probability", torch.cat([chosen, rejected]).detach().sum())
        reference_chosen, reference_rejected = (logps[pairs] for logps in self.reference_logps)
        losses, chosen_rewards, rejected_rewards = self.loss(
            chosen, rejected, reference_chosen, reference_rejected, config.beta
        )
        mean_loss = losses.mean()
        self.optimizer.zero_grad()
        mean_loss.backward()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), config.max_grad_norm)
        _check_number(step, "the loss", mean_loss.detach())
        _check_number(step, "the gradient", norm)
        rate = config.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        # The cached reference was computed in other batches: equal values differ by rounding.
        largest = reference_chosen.abs().max().maximum(reference_rejected.abs().max())
        tie = 16 * torch.finfo(largest.dtype).eps * config.beta * largest.item()
        numbers = {
            "loss": mean_loss.detach(),
            "reward_accuracy": reward_accuracy(chosen_rewards, rejected_rewards, tie),
            "margin": (chosen_rewards - rejected_rewards).mean(),
            "chosen_logp": (chosen.detach() - reference_chosen).mean(),
            "rejected_logp": (rejected.detach() - reference_rejected).mean(),
            "grad_norm": norm,
        }
        row = {name: value.item() for name, value in numbers.items()}
        self.history.steps.append({"step": step, **row, "learning_rate": rate})

    def evaluate(
        self,
        step: int,
        evaluate: Callable[[nn.Module], Mapping[str, Any]] | None,
        checkpoint: str | Path | None,
    ) -> None:
        """Evaluate the policy as it stands before update ``step``, then save the run."""
        done = self.history.evaluations
        if evaluate is not None and not (done and done[-1]["step"] == step):
            with torch.no_grad():
                done.append({"step": step, **evaluate(self.policy)})
        if checkpoint is not None:
            self.save(Path(checkpoint))

    def save(self, path: Path) -> None:
        """Write the state beside ``path``, then rename: the file is always a whole one."""
        state = {
            "run": self._identity(),
            "history": json.dumps([self.history.steps, self.history.evaluations]),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def load(self, path: Path) -> None:
        """Take up the state that `save` wrote, if it is of this run."""
        state = torch.load(path, weights_only=True)
        if state["run"] != self._identity():
            raise ValueError(
                f"checkpoint {path} is of another run: it has {state['run']}, "
                f"this run has {self._identity()}"
            )
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history.steps, self.history.evaluations = json.loads(state["history"])

    def _identity(self) -> str:
        """Settings, loss and a digest of the reference values, which depend on model and data."""
        logps = torch.cat(self.reference_logps).double().cpu().numpy()
        digest = hashlib.sha256(logps).hexdigest()[:12]
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        return f"{self.history.config}, loss {loss}, reference log-probabilities {digest}"


def _pairs_of_step(step: int, n_pairs: int, config: DPOConfig) -> Tensor:
    """Indices of the pairs of one update, a function of seed and step alone."""
    places = torch.arange(step * config.batch_size, (step + 1) * config.batch_size)  # (B,)
    epochs = places // n_pairs
    order = {
        epoch: torch.randperm(n_pairs, generator=_generator(config.seed, epoch))
        for epoch in epochs.unique().tolist()
    }
    return torch.stack(
        [
            order[epoch][place % n_pairs]
            for epoch, place in zip(epochs.tolist(), places, strict=True)
        ]
    )


def _generator(seed: int, epoch: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def _check_start(
    policy: nn.Module,
    reference: Callable[..., Any],
    dataset: PreferenceDataset,
    reference_logps: tuple[Tensor, Tensor],
) -> None:
    """A policy that is a copy of its reference must give its values, or no reward starts at 0."""
    if not isinstance(reference, nn.Module) or fingerprint(policy) != fingerprint(reference):
        return
    pairs = torch.arange(min(8, len(dataset)))
    with torch.no_grad():
        logps = get_pair_log_probs(policy, dataset.batch(pairs))
    gap = max(
        (new - old[pairs]).abs().max().item()
        for new, old in zip(logps, reference_logps, strict=True)
    )
    if gap > 1e-3:
        raise ValueError(
            "policy and reference hold the same parameters, yet their log-probabilities differ "
            f"by {gap:.3g} nats, so the first loss would not be log 2: is dropout on in the "
            "reference, or does the model draw random numbers?"
        )


def _check_number(step: int, what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"{what} is {value.item()} at update {step}, which was not made; "
            "a lower learning rate or a higher beta usually helps"
        )
