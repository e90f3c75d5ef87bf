"""The training loop around the step of chapter 10: one update after the other, and its numbers."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpo_lib._validation import Checks, gathered_checks
from dpo_lib.fast.cache import cache_file, read_cache, write_cache
from dpo_lib.fast.pair_log_probs import PairLogProbs, Row, keep_freed_memory, log_probs_of_rows
from dpo_lib.losses import (
    PreferenceLoss,
    UnpairedLoss,
    as_loss_function,
    dpo_loss,
    looks_across_pairs,
)
from dpo_lib.losses.unpaired import check_kind, mismatched_level
from dpo_lib.reference import fingerprint
from dpo_lib.scores import (
    PairScores,
    Scores,
    apply_loss,
    detach_scores,
    join_scores,
    move_scores,
    pair_scores,
    read_numbers,
    summarize,
    unpaired_scores,
)
from dpo_lib.training.checkpoint import (
    read_checkpoint,
    run_identity,
    trained_parameters,
    write_checkpoint,
)
from dpo_lib.training.config import DPOConfig
from dpo_lib.training.processes import Processes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dpo_lib.data import PreferenceDataset


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


def train_dpo(
    policy: nn.Module,
    reference: Callable[..., Any] | None,
    dataset: PreferenceDataset,
    config: DPOConfig | None = None,
    *,
    loss: str | Callable[..., PreferenceLoss | UnpairedLoss] = dpo_loss,
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
    on_step: Callable[[dict[str, float]], None] | None = None,
    checkpoint: str | Path | None = None,
    reference_cache: str | Path | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
    log_probs: PairLogProbs | None = None,
) -> TrainingHistory:
    """Train a policy on preference pairs, or on thumbs, in place.

    Dropout stays off (the policy is in eval mode while it trains, as the reference is), and the
    reference log-probabilities are computed once, before the first update.

    Parameters
    ----------
    policy : nn.Module
        The model to train: those of its parameters that require gradients.
    reference : callable or None
        Its frozen reference, usually ``make_reference(policy)``. None: the policy as it starts;
        no second model is held.
    dataset : PreferenceDataset or UnpairedDataset
        Preference pairs, or thumbs, as token ids.
    config : DPOConfig, optional
        Settings; the defaults if absent.
    loss : callable or str
        A loss with the arguments of `dpo_loss`, four log-probabilities and ``beta``, or its name
        in `dpo_lib.losses.LOSSES`. One that needs the lengths of the responses gets them. Thumbs
        take "kto", or a loss with the arguments of `unpaired_kto_loss`.
    evaluate : callable, optional
        Maps the policy to named results. Called before the first update, every
        ``config.eval_every`` updates and after the last one.
    on_step : callable, optional
        Called after every update with its row of the history, to show or log it.
    checkpoint : path, optional
        File that holds the whole state of the run, written at every evaluation and at Ctrl-C. If
        it exists, the run goes on from there and ends with the same bits as one never interrupted.
    reference_cache : path, optional
        Folder in which reference log-probabilities are kept between runs, as in
        `cache_reference_log_probs`.
    accelerator : accelerate.Accelerator, optional
        Of a run that ``accelerate launch`` or ``torchrun`` has started in many processes, in the
        way of its own configuration (DDP, FSDP). Each batch is shared out, numbers are those of
        the whole batch, and the main process alone writes, shows and reports.
    progress : bool
        Show a progress bar.
    log_probs : PairLogProbs, optional
        Of the policy, if there is one already: it has checked itself, and can be watched.

    Returns
    -------
    TrainingHistory
        Per update, over its batch and before the update: ``loss`` (nats), ``reward_accuracy``,
        ``margin`` (reward difference), ``chosen_logp`` and ``rejected_logp`` (nats, minus the
        reference's), ``grad_norm`` (before clipping), ``learning_rate``. For thumbs the means are
        those of `summarize`, and a batch in which all point one way has none that takes both.

    Raises
    ------
    ValueError
        If the data set is empty, ``config.dtype`` is bfloat16, not forced, and the device only
        emulates it, ``reference`` is the policy itself, the two hold the same
        parameters yet give different log-probabilities, no parameter requires gradients, the
        loss is not known or is not one of such data, all thumbs have one prompt, or the
        checkpoint is of another run.
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
    unpaired = _is_unpaired(dataset)
    loss = as_loss_function(loss, unpaired)
    check_kind(loss, unpaired)
    was_training = policy.training
    policy.eval()
    run = None
    try:
        run = _Run(policy, reference, dataset, loss, config, Processes(accelerator))
        run.start(checkpoint, reference_cache, log_probs)
        done, main = len(run.history.steps), run.processes.main
        bar = {"initial": done, "total": config.steps, "disable": not (progress and main)}
        for step in tqdm(range(done, config.steps), **bar):
            if step % config.eval_every == 0:
                run.evaluate(step, evaluate)
            run.update(step)
            if on_step is not None and main:
                on_step(run.history.steps[-1])
        run.evaluate(config.steps, evaluate)
    except KeyboardInterrupt:  # between two updates, whenever it comes
        if run and run.history.steps and run.path is not None and run.processes.number == 1:
            run.save()
        raise
    finally:
        policy.train(was_training)
    return run.history


class _Run:
    """One call of `train_dpo`: what its updates change, and what they need."""

    def __init__(
        self,
        policy: nn.Module,
        reference: Callable[..., Any] | None,
        dataset: PreferenceDataset,
        loss: Callable[..., PreferenceLoss | UnpairedLoss],
        config: DPOConfig,
        processes: Processes,
    ) -> None:
        self.policy, self.reference, self.dataset, self.loss = policy, reference, dataset, loss
        self.config, self.processes, self.history = config, processes, TrainingHistory(config)
        self.parts = processes.number * config.accumulate  # of a batch
        if self.parts > config.batch_size:
            raise ValueError(
                f"batch_size must be at least accumulate times the number of processes "
                f"({config.accumulate} * {processes.number}), got {config.batch_size}"
            )
        self.unpaired = _is_unpaired(dataset)
        if self.unpaired and "mismatched" not in dataset[0]:
            raise ValueError(
                "all thumbs have one prompt, but KTO's level takes responses to other prompts"
            )
        self.trained = trained_parameters(policy)
        if not self.trained:
            raise ValueError("policy has no parameter that requires gradients")

    def log_probs_of(self, model: Callable[..., Any]) -> PairLogProbs:
        """How this run computes the log-probabilities of a model."""
        config = self.config
        return PairLogProbs(
            model, config.packed, config.dtype, config.lean, force_dtype=config.force_dtype
        )

    def start(
        self,
        checkpoint: str | Path | None,
        reference_cache: str | Path | None,
        log_probs: PairLogProbs | None,
    ) -> None:
        """Take up the state of an interrupted run, or compute the reference's values."""
        policy, reference, config = self.policy, self.reference, self.config
        if config.keep_memory:
            keep_freed_memory()
        # What is asked of whole parameters comes before they are sharded.
        self.path = None if checkpoint is None else Path(checkpoint)
        if self.path is not None:
            self.identity = run_identity(config, self.loss, self.dataset, policy, reference)
        file = None
        if reference_cache is not None:
            model = policy if reference is None else reference
            file = cache_file(reference_cache, model, [*self.dataset], config.dtype)
        starts_equal = isinstance(reference, nn.Module) and (
            fingerprint(policy) == fingerprint(reference)
        )
        self.log_probs, self.optimizer = self.processes.prepare(
            log_probs or self.log_probs_of(policy),
            _make_optimizer([*self.trained.values()], config),
        )
        self.trained = trained_parameters(policy)  # sharding puts other parameters in their places
        of_reference = self.log_probs if reference is None else self.log_probs_of(reference)
        if self.path is not None and self.path.exists():
            self.take_up(read_checkpoint(self.path, self.identity), of_reference)
            return
        self.reference_logps = _reference_logps(of_reference, self.dataset, file, self.processes)
        if starts_equal and (gap := self.gap_to_reference(self.log_probs)) > 1e-3:
            raise ValueError(
                "policy and reference hold the same parameters, yet their log-probabilities "
                f"differ by {gap:.3g} nats, so the first loss would not be log 2: is dropout "
                "on in the reference, or does the model draw random numbers?"
            )

    def take_up(self, state: Mapping[str, Any], of_reference: nn.Module) -> None:
        """Go on from the state that `save` wrote."""
        self.reference_logps = state["reference_logps"]
        if self.reference is not None and (gap := self.gap_to_reference(of_reference)) > 1e-3:
            raise ValueError(
                f"checkpoint {self.path} is of another run: its reference log-probabilities "
                f"differ from those of this reference by {gap:.3g} nats"
            )
        self.processes.restore(state, self.log_probs, self.optimizer, self.trained)
        self.history.steps, self.history.evaluations = json.loads(state["history"])

    @torch.no_grad()
    def gap_to_reference(self, log_probs: nn.Module) -> float:
        """Largest difference between a model's values of some pairs and the reference's."""
        rows = [self.dataset[i] for i in range(min(8, len(self.dataset)))]
        return max(
            float((new.cpu() - old[: len(rows)]).abs().max())
            for new, old in zip(log_probs(rows), self.reference_logps, strict=True)
        )

    def update(self, step: int) -> None:
        """Make one update and append its row to the history."""
        config, processes = self.config, self.processes
        batch = self.dataset.pairs_of_step(step, config.batch_size, config.seed)  # (B,)
        first = processes.rank * config.accumulate
        own = batch.tensor_split(self.parts)[first : first + config.accumulate]
        others, level = self.score_whole_batch(own), self.level_of_batch(own)
        scored = []
        with gathered_checks() as checks:
            self.optimizer.zero_grad()
            for i, part in enumerate(own):
                with processes.exchange(self.log_probs, now=i == len(own) - 1):
                    scores = self.score(part, level)
                    loss = self.share_of_loss(scores, others, first + i)
                    processes.backward(loss)
                scored.append(detach_scores(scores))
            norm = processes.clip([*self.trained.values()], config.max_grad_norm)
            means = summarize(self.loss, join_scores(self.gather(scored)), config.beta)
        row = _read(step, scored, {**means, "grad_norm": norm}, checks)
        row["learning_rate"] = config.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = row["learning_rate"]
        with _uninterrupted():
            self.optimizer.step()
            self.history.steps.append(row)

    def score(self, places: Tensor, level: Tensor | None = None) -> Scores:
        """All that a loss may ask about these pairs, or thumbs."""
        rows = [self.dataset[int(i)] for i in places]
        reference_logps = [logps[places] for logps in self.reference_logps]
        if level is None:
            return pair_scores(self.log_probs(rows), reference_logps, rows)
        (policy_logps,) = self.log_probs([_only(row, "response") for row in rows])
        return unpaired_scores(policy_logps, reference_logps[0], rows, level)

    @torch.no_grad()
    def level_of_batch(self, own: Sequence[Tensor]) -> Tensor | None:
        """KTO's level of the whole batch, in all parts and processes; None for pairs.

        With it a loss of thumbs looks at one response at a time.
        """
        if not self.unpaired:
            return None
        gathered: list[tuple[Tensor, Tensor]] = []
        for places in own:
            rows = [_only(self.dataset[int(i)], "mismatched") for i in places]
            (policy_logps,) = self.log_probs(rows)
            reference_logps = self.reference_logps[1][places]
            gathered.append((policy_logps, reference_logps.to(policy_logps.device)))
        if self.processes.number > 1:
            gathered = self.processes.gather([(p.cpu(), r.cpu()) for p, r in gathered])
        return mismatched_level(*map(torch.cat, zip(*gathered, strict=True)))

    @torch.no_grad()
    def score_whole_batch(self, own: Sequence[Tensor]) -> list[PairScores]:
        """Scores of all parts of the batch, for a loss that looks across them; else nothing."""
        if self.parts == 1 or self.unpaired or not looks_across_pairs(self.loss):
            return []
        return self.gather([self.score(part) for part in own])

    def share_of_loss(self, scores: Scores, batch: list[PairScores], part: int) -> Tensor:
        """What one part adds to the mean loss of its batch; the gradients of all parts add up."""
        if batch:
            scores = join_scores([*batch[:part], scores, *batch[part + 1 :]])
        losses = apply_loss(self.loss, scores, self.config.beta).losses
        # Counted by the scores: a loss of one's own may have taken the mean already.
        return losses.mean() * (len(scores[0]) / self.config.batch_size)

    def gather(self, own: list[Scores]) -> list[Scores]:
        """Scores of all parts of the batch, from every process."""
        if self.processes.number == 1:
            return own
        kind, device = type(own[0]), own[0][0].device
        parts = self.processes.gather([tuple(move_scores(scores, "cpu")) for scores in own])
        return [move_scores(kind(*scores), device) for scores in parts]

    def evaluate(
        self, step: int, evaluate: Callable[[nn.Module], Mapping[str, Any]] | None
    ) -> None:
        """Evaluate the policy as it stands before update ``step``, then save the run."""
        done = self.history.evaluations
        if evaluate is not None and not (done and done[-1]["step"] == step):
            with torch.no_grad(), self.processes.whole(self.log_probs):
                done.append({"step": step, **evaluate(self.policy)})
        if self.path is not None:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        started = bool(self.history.steps)
        state = {
            "reference_logps": self.reference_logps,
            "history": json.dumps([self.history.steps, self.history.evaluations]),
            **self.processes.state(self.log_probs, self.optimizer, self.trained, started),
        }
        if self.processes.main:
            write_checkpoint(self.path, self.identity, state)


def _is_unpaired(dataset: PreferenceDataset) -> bool:
    """Whether the rows are thumbs, not pairs."""
    return len(dataset) > 0 and "desirable" in dataset[0]


def _reference_logps(
    log_probs: nn.Module, dataset: PreferenceDataset, file: Path | None, processes: Processes
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the whole data set, (N,) each; each process computes its share."""
    n_pairs = len(dataset)
    kept = None if file is None else read_cache(file, n_pairs)
    if kept is not None:
        return kept
    share = -(-n_pairs // processes.number)
    # The last process repeats a pair: where parameters are sharded, all must make equal calls.
    places = range(processes.rank * share, (processes.rank + 1) * share)
    rows = [dataset[min(i, n_pairs - 1)] for i in places]
    own = [x.cpu() for x in log_probs_of_rows(log_probs, rows)]
    first, second = zip(*processes.gather([own]), strict=True)
    values = torch.cat(first)[:n_pairs], torch.cat(second)[:n_pairs]
    if file is not None and processes.main:
        write_cache(file, values)
    return values


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came = []
    signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


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


def _read(
    step: int, scored: Sequence[Scores], numbers: Mapping[str, Tensor], checks: Checks
) -> dict[str, float]:
    """The row of an update, if it may be made: the one time that the device is waited for."""
    total = sum(logps.sum() for scores in scored for logps in scores.policy)
    found = read_numbers({**numbers, "total": total, "failed": checks.failed()})
    watched = (("a log-probability", "total"), ("the loss", "loss"), ("the gradient", "grad_norm"))
    for what, name in watched:
        if not math.isfinite(found[name]):
            raise FloatingPointError(
                f"{what} is {found[name]} at update {step}, which was not made; "
                "a lower learning rate or a higher beta usually helps"
            )
    if found["failed"]:
        checks.settle()
    # NaN stands for what a batch of thumbs does not have: a mean over thumbs that it lacks.
    return {"step": step, **{n: found[n] for n in numbers if not math.isnan(found[n])}}


def _only(row: Row, response: str) -> Row:
    """A row with one of its responses."""
    return {"prompt": row["prompt"], response: row[response]}
