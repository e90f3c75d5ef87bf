"""The command ``train``: from a file of preferences to a model, a report and its numbers."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dpo_lib._files import one_at_a_time
from dpo_lib.cli import data, records, threads
from dpo_lib.cli.answers import BATCH, answer_before, answers_after, kl_from_start
from dpo_lib.cli.held_out import HeldOut, Loss, Plan, lengths, make_loss, plan, say_scores
from dpo_lib.cli.live import Live
from dpo_lib.cli.models import OpenModel, is_tiny, open_model
from dpo_lib.cli.parser import EVAL_PAIRS
from dpo_lib.cli.progress import Progress, counted
from dpo_lib.cli.settings import RunSettings
from dpo_lib.cli.trackers import Trackers
from dpo_lib.data import PreferenceDataset
from dpo_lib.data.records import normalize_prompt
from dpo_lib.fast.pair_log_probs import PairLogProbs, check_dtype
from dpo_lib.logprobs import responses_of
from dpo_lib.models.pretrained import cache_folder
from dpo_lib.training import TrainingHistory, train_dpo
from dpo_lib.training.checkpoint import differences, trained_weights, updates_in
from dpo_lib.training.processes import Processes


def run_train(args: argparse.Namespace) -> int:
    """Train, or go on with a run that was interrupted."""
    settings, progress = RunSettings.typed(args), args.progress
    out = Path(settings.out)
    with _interruptible(out):
        with progress.stage(f"reading {', '.join(settings.data)}"):
            files = _read(settings)
        unpaired = files[0].file.unpaired
        usual = "kto" if unpaired else "dpo"
        make_loss(settings.loss or usual, dict(settings.option), unpaired)  # before the model
        trackers = Trackers(settings.log_with, out)
        machines = Processes.launched()
        with (
            machines.quiet_others(),
            _locked(out, machines),
            threads.chosen(settings.threads, machines.say, _threads_before(settings)),
        ):
            with progress.loading(settings.model):
                opened = open_model(settings.model, settings.data_settings().tokenizer())
                machines.place(opened.model)
            device = next(opened.model.parameters()).device
            check_dtype(device, settings.dtype, settings.force_dtype)
            with progress.stage("encoding the pairs"):
                job = _job(settings, opened, files)
            if _take_up(job, machines):
                machines.say(f"{out} is finished already; --restart trains again")
                return 0
            if machines.main:
                progress.say(_introduction(job))
                trackers.start(job.settings.identity())
            with contextlib.closing(trackers):
                _train(job, machines, progress, trackers)
    return 0


# --- what is trained on what ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Job:
    """A run with all that was undecided decided."""

    settings: RunSettings
    opened: OpenModel
    loss: Loss
    pairs: data.Pairs  # all of the data
    train: int  # pairs to train on
    used: PreferenceDataset  # those of them that the run comes to
    held_out: PreferenceDataset | None  # those that are scored
    counts: dict[str, Any]  # for run.json
    plan: Plan | None  # of the evaluations
    notes: tuple[str, ...]

    @property
    def out(self) -> Path:
        return Path(self.settings.out)

    @property
    def prompts(self) -> list[str]:
        """Of the pairs that are not trained on, if there are any."""
        return list(dict.fromkeys(r.prompt for r in (self.held_out or self.used).records))


def _read(settings: RunSettings) -> list[data.ReadPairs]:
    """The data, and the files to evaluate on, if there are any."""
    found = [data.read_pairs(settings.data_settings())]
    if settings.eval_data:
        found.append(data.read_pairs(settings.data_settings(evaluation=True)))
        kinds = ["thumbs" if read.file.unpaired else "pairs" for read in found]
        if kinds[0] != kinds[1]:
            raise ValueError(f"--data holds {kinds[0]}, --eval-data {kinds[1]}")
    return found


def _job(settings: RunSettings, opened: OpenModel, read: list[data.ReadPairs]) -> _Job:
    found = [data.fit_to_model(file, opened) for file in read]
    pairs, train, held_out = found[0], found[0].dataset, None
    skipped, notes = pairs.skipped, ()
    if settings.eval_data:
        held_out = found[1].dataset
        skipped = dict(Counter(skipped) + Counter(found[1].skipped))
        known = {normalize_prompt(r.prompt) for r in train.records}
        both = {r.prompt for r in held_out.records if normalize_prompt(r.prompt) in known}
        if both:
            notes = (
                f"look   {len(both)} prompts of --eval-data are in --data too, with the same words",
            )
    elif settings.held_out:
        train, held_out = train.split(settings.held_out, settings.seed)
    if held_out is not None:
        order = [*range(len(held_out))]
        random.Random(settings.seed).shuffle(order)  # the first ones are scored while training
        held_out = held_out.take(order)
    typed = settings
    unpaired = read[0].file.unpaired
    settings = settings.completed(is_tiny(opened.model), len(train), opened.adapter_rank, unpaired)
    loss = make_loss(settings.loss, dict(settings.option), unpaired)
    if unpaired and (about := data.about_thumbs(train.records, dict(settings.option))):
        notes += (f"look   {about}",)
    elif not unpaired and settings.loss == "kto":
        notes += ("note   kto on pairs: each counts as one thumb up and one thumb down",)
    opened.prepare(settings.lora, settings.seed)
    used = train
    if (number := settings.steps * settings.batch_size) < len(train):  # no others need a reference
        used = train.take(random.Random(settings.seed).sample(range(len(train)), number))
    counts: dict[str, Any] = {"pairs": len(pairs.dataset), "unit": train.unit}
    counts |= {"held_out": len(held_out or ()), "skipped": skipped}
    chosen = None
    if held_out is not None:
        chosen = _plan(settings, used, held_out)
        if typed.eval_pairs or typed.eval_every:  # the user has taken it in hand
            first = min(len(held_out), typed.eval_pairs or EVAL_PAIRS)
            chosen = Plan(len(held_out), first, settings.eval_every)
        settings = dataclasses.replace(settings, eval_every=chosen.every, eval_pairs=chosen.first)
        held_out = held_out.take(range(chosen.final))
    return _Job(settings, opened, loss, pairs, len(train), used, held_out, counts, chosen, notes)


def _plan(settings: RunSettings, used: PreferenceDataset, held_out: PreferenceDataset) -> Plan:
    def tokens(pairs: PreferenceDataset) -> float:
        names = ("prompt", *responses_of(pairs.rows[0]))
        return sum(len(row[name]) for row in pairs.rows for name in names) / len(pairs)

    longer, lora = tokens(held_out) / tokens(used), settings.lora is not None
    return plan(settings.steps, settings.batch_size, lora, longer, len(held_out))


def _introduction(job: _Job) -> str:
    s, parameters = job.settings, [*job.opened.model.parameters()]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    used = s.steps * s.batch_size
    size = f"LoRA of rank {s.lora}" if s.lora else "every weight"
    train, held_out = job.train, job.counts["held_out"]
    passes = f"{used / train:.1f} passes" if used >= train else f"{used} are used, once each"
    how = f"in {', '.join(s.eval_data)}" if s.eval_data else "held out by prompt"
    lines = [
        f"data   {data.describe(job.pairs.records, job.counts['skipped'])}",
        f"       {train} to train on ({passes}), {held_out} {how}",
        job.pairs.introduce(),
        *job.notes,
        f"model  {s.model}: {sum(p.numel() for p in parameters):,} weights, {trained:,} trained "
        f"({size})",
        f"how    loss {s.loss}, beta {s.beta:g}, learning rate {s.lr:g}, "
        f"{s.steps} updates of {s.batch_size} {job.used.unit}, seed {s.seed}",
    ]
    if job.plan:
        lines.append(f"eval   {_say_plan(job)}")
    return "\n".join(lines)


def _say_plan(job: _Job) -> str:
    final, first, every = job.plan
    number = len(range(every, job.settings.steps, every))
    way = f"{first} {job.used.unit} {number} times on the way, " if number else ""
    said = f"{way}{final} at the end"
    if final < job.counts["held_out"] or first < min(EVAL_PAIRS, final) or not number:
        said += ": at most a fifth of the time (--eval-pairs and --eval-every take more)"
    return said


# --- the run -------------------------------------------------------------------------------------


def _train(job: _Job, machines: Processes, progress: Progress, trackers: Trackers) -> None:
    out, settings, opened = job.out, job.settings, job.opened
    dataset = job.used
    log_probs = _log_probs(job)
    checkpoint = out / "checkpoint.pt"
    fresh = not checkpoint.exists()
    watch = None
    if job.held_out is not None:
        rows = job.held_out.rows
        kept = out / "held_out.json"
        watch = HeldOut(rows, job.loss, settings.beta, log_probs, kept, machines.main)
    if machines.main and not opened.start:  # else the adapters' old values are at hand later
        _answers_before(job, opened.model, progress)
    live = Live(out, settings.steps, len(dataset), progress, trackers, machines.main, dataset.unit)
    started = time.monotonic()

    def evaluate(policy: torch.nn.Module) -> dict[str, Any]:
        nonlocal fresh
        with live.evaluating(len(watch.rows) if fresh else job.plan.first):
            found = watch.at_start(job.plan.first) if fresh else watch(job.plan.first)
        fresh = False
        row = {f"held_out_{name}": value for name, value in found.items()}
        live.evaluated(row)
        return row

    with live.watching(log_probs):
        history = train_dpo(
            opened.model,
            None,
            dataset,
            settings.config(),
            loss=job.loss,
            evaluate=None if watch is None else evaluate,
            on_step=live.updated,
            checkpoint=checkpoint,
            reference_cache=_reference_cache(),
            progress=False,
            log_probs=log_probs,
            accelerator=machines.accelerator,
        )
    if machines.main:
        if machines.sharded:
            job = dataclasses.replace(job, opened=_in_whole(job))
            log_probs = _log_probs(job)
        final = None
        if watch is not None and job.plan.first == job.plan.final:  # scored a moment ago
            last = history.evaluations[-1]
            final = {k.removeprefix("held_out_"): v for k, v in last.items() if k != "step"}
        elif watch is not None:
            with live.evaluating(len(watch.rows)):
                final = watch(log_probs=log_probs)
        live.metrics.finish(history)
        results = {"seconds": round(time.monotonic() - started, 1), "held_out": final}
        results["tokens"] = lengths(dataset.rows)
        results |= _answers(job, progress)
        _finish(job, history, results, progress)
    machines.wait()


def _log_probs(job: _Job) -> PairLogProbs:
    settings = job.settings
    return PairLogProbs(job.opened.model, dtype=settings.dtype, force_dtype=settings.force_dtype)


def _answers_before(job: _Job, model: torch.nn.Module, progress: Progress) -> None:
    prompts, new = job.prompts[: job.settings.samples], job.settings.max_new_tokens
    calls = new * -(-len(prompts) // BATCH)
    with progress.stage("answers before", calls, "tokens") as stage, counted(model, stage):
        answer_before(job.out, dataclasses.replace(job.opened, model=model), prompts, new)


def _answers(job: _Job, progress: Progress) -> dict[str, Any]:
    """Answers of the trained model, of the untrained one if they are missing, and the KL."""
    opened, new = job.opened, job.settings.max_new_tokens
    if opened.start:
        with opened.as_it_was() as model:
            _answers_before(job, model, progress)
    calls = new * (-(-min(job.settings.samples, len(job.prompts)) // BATCH) + 1)
    with progress.stage("answers after", calls, "tokens") as stage, counted(opened.model, stage):
        means, drawn = answers_after(job.out, opened, job.prompts, new, job.settings.seed)
    with progress.stage("KL of the answers"):  # uncounted: a hook would keep off the lean pass
        return {**means, **kl_from_start(opened, drawn)}


def _reference_cache() -> Path:
    """Where reference log-probabilities are kept between runs."""
    own = os.environ.get("DPO_LIB_REFERENCES")
    return Path(own) if own else cache_folder() / "references"


@contextlib.contextmanager
def _locked(out: Path, machines: Processes) -> Iterator[None]:
    """Let one process at a time write into the folder."""
    with contextlib.ExitStack() as held:
        if machines.main:
            try:
                out.mkdir(parents=True, exist_ok=True)
                held.enter_context(one_at_a_time(out / ".lock", f"training in {out}"))
            except OSError as error:
                raise ValueError(f"cannot write to {out}: {error}") from error
        yield


@contextlib.contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Say of an interruption in one sentence what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_where_it_stands(out)) from None


def _where_it_stands(out: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
        run = records.read_run(out)
        if run and run["finished"]:
            return f"the run is finished, its report is {out / 'report.html'}"
        file = out / "checkpoint.pt"
        if run and file.exists():
            done = updates_in(file)
            return (
                f"{done} of {run['settings']['steps']} updates are kept in {out}; the same "
                "command goes on from there"
            )
    return "no update was made yet; the same command begins again"


def _threads_before(settings: RunSettings) -> int | None:
    """Of a run that is taken up again: with as many threads it ends with the same bits."""
    run = None if settings.restart else records.read_run(Path(settings.out))
    return run["machine"]["threads"] if run else None


def _take_up(job: _Job, machines: Processes) -> bool:
    """Note what is run, or check that the folder holds the same run; whether it is finished."""
    out, settings = job.out, job.settings.identity()
    settings["data_sha256"] = job.settings.data_settings().digest()
    if job.settings.eval_data:
        settings["eval_data_sha256"] = job.settings.data_settings(evaluation=True).digest()
    if job.opened.start and job.opened.continued:
        settings["adapter_sha256"] = job.opened.start_digest()
    if machines.main and job.settings.restart:
        records.clear(out)
    machines.wait()
    before = records.read_run(out)
    machines.wait()
    if before is None:
        if machines.main:
            run = {"settings": settings, "data": job.settings.data, **job.counts}
            run |= {"eval_data": job.settings.eval_data, "finished": False}
            run["machine"] = {
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "processes": machines.number,
                "python": platform.python_version(),
            }
            records.write_json(out / "run.json", run)
        return False
    old = before["settings"]
    if changed := differences(old, settings):
        raise ValueError(
            f"{out} holds another run ({'; '.join(changed)}); "
            "use another --out, or --restart to drop it"
        )
    now = torch.get_num_threads()
    if before["machine"]["threads"] != now:
        machines.say(
            f"threads were {before['machine']['threads']}, are {now}: last bits may differ"
        )
    return before["finished"]


def _in_whole(job: _Job) -> OpenModel:
    """The trained model in one process, after its parameters were spread over many (FSDP)."""
    state = trained_weights(job.out / "checkpoint.pt")
    whole = open_model(job.opened.name, job.opened.options)
    whole.prepare(job.settings.lora, job.settings.seed)
    names = {name for name, _ in whole.model.named_parameters()}
    found = {name if name in names else name.removeprefix("model."): x for name, x in state.items()}
    _, unknown = whole.model.load_state_dict(found, strict=False)
    if unknown:
        raise ValueError(f"the checkpoint has parameters that the model lacks: {unknown[:3]}")
    return whole


def _finish(
    job: _Job, history: TrainingHistory, results: dict[str, Any], progress: Progress
) -> None:
    """Save the model and the report; the run counts as finished when both are there."""
    with progress.stage("saving the model and drawing the report"):
        run = _write(job, history, results)
    print(_summary(job.out, run))


def _write(job: _Job, history: TrainingHistory, results: dict[str, Any]) -> dict[str, Any]:
    from dpo_lib.cli.report import advice, write_report  # Matplotlib is not needed before

    out = job.out
    target, partial = out / "model", out / "model.partial"
    for folder in (target, partial):
        shutil.rmtree(folder, ignore_errors=True)
    job.opened.save(partial)
    card = _card(job.settings, job.opened, job.used.unit)
    (partial / "README.md").write_text(card, encoding="utf-8")
    partial.rename(target)
    run = records.read_json(out / "run.json")
    run |= {
        "finished": True,
        "results": results,
        "advice": advice(history, results, job.settings.loss),
    }
    write_report(out / "report.html", run, history, records.read_json(out / "samples.json"))
    records.write_json(out / "run.json", run)
    for name in records.UNFINISHED:
        (out / name).unlink(missing_ok=True)
    return run


def _card(s: RunSettings, opened: OpenModel, unit: str) -> str:
    how = f"LoRA of rank {s.lora}" if s.lora else "all weights"
    license_line = ""
    if "smollm2" in s.model.lower():
        license_line = "license: apache-2.0\n"
    base = getattr(getattr(opened.model, "config", None), "_name_or_path", s.model)
    return (
        f"---\n{license_line}library_name: {'peft' if s.lora else 'transformers'}\n---\n\n"
        f"# {s.model}, trained on preferences\n\n"
        f"Trained by dpo_lib from `{s.model}` ({Path(str(base)).name}) with the loss "
        f"`{s.loss}`: beta {s.beta:g}, learning rate {s.lr:g}, {s.steps} updates of "
        f"{s.batch_size} {unit}, {how}, seed {s.seed}. The license of the model it started "
        "from holds for it too.\n"
    )


def _summary(out: Path, run: dict[str, Any]) -> str:
    results, lines = run["results"], []
    final = results["held_out"]
    if final:
        lines.append(f"held out: {say_scores(final)}")
    if results.get("tokens_after") is not None:
        lines.append(
            f"answers: {results['tokens_before']:.1f} tokens before, "
            f"{results['tokens_after']:.1f} after"
        )
    lines += [f"note: {line}" for line in run["advice"]]
    lines += [f"model  {out / 'model'}", f"report {out / 'report.html'}"]
    return "\n".join(lines)
