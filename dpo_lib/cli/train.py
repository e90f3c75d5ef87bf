"""The command ``train``: from a file of preferences to a model, a report and its numbers."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import platform
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dpo_lib.cli import data, records
from dpo_lib.cli.answers import answer_before, answers_and_kl
from dpo_lib.cli.held_out import HeldOut, lengths, make_loss
from dpo_lib.cli.live import Live
from dpo_lib.cli.models import OpenModel, is_tiny, open_model
from dpo_lib.cli.report import advice, write_report
from dpo_lib.data import PreferenceDataset
from dpo_lib.losses import as_loss_function
from dpo_lib.models.pretrained import cache_folder
from dpo_lib.training import DPOConfig, train_dpo
from dpo_lib.training.checkpoint import differences
from dpo_lib.training.processes import Processes

# What may differ when a run is taken up again: it does not change what is computed.
_FREE = ("out", "restart", "quiet", "command", "data", "samples", "max_new_tokens")


def run_train(args: argparse.Namespace) -> int:
    """Train, or go on with a run that was interrupted."""
    out = Path(args.out)
    read = data.read_pairs(data.DataSettings.of(args))
    make_loss(args.loss or "dpo", dict(args.option))  # wrong names are found before the model
    machines = Processes.launched()
    with machines.quiet_others(), _locked(out, machines):
        opened = open_model(args.model, read.settings.tokenizer())
        machines.place(opened.model)
        pairs = data.fit_to_model(read, opened)
        _complete(args, opened, round(len(pairs.dataset) * (1 - args.held_out)))
        loss = make_loss(args.loss, dict(args.option))
        train, held_out = _split(pairs.dataset, args)
        dataset = _used(train, args)
        counts = {
            "pairs": len(pairs.dataset),
            "held_out": len(held_out or ()),
            "skipped": pairs.skipped,
        }
        if _take_up(out, args, counts, machines):
            machines.say(f"{out} is finished already; --restart trains again")
            return 0
        if args.lora:
            opened.add_lora(args.lora, args.seed)
        machines.say(_introduction(args, opened, pairs, len(train), len(held_out or ())))

        watch = None
        if held_out:
            kept = out / "held_out.json"
            watch = HeldOut(held_out, loss, args.beta, args.dtype, kept, machines.main)
        prompts = list(dict.fromkeys(record.prompt for record in (held_out or train).records))
        if machines.main:
            answer_before(out, opened, prompts[: args.samples], args.max_new_tokens)

        config = DPOConfig(
            beta=args.beta,
            learning_rate=args.lr,
            steps=args.steps,
            batch_size=args.batch_size,
            accumulate=args.accumulate,
            schedule=args.schedule,
            warmup_steps=args.warmup,
            eval_every=args.eval_every,
            dtype=args.dtype,
            seed=args.seed,
        )
        live = Live(out, config.steps, show=not args.quiet, write=machines.main)
        started = time.monotonic()

        def evaluate(policy: torch.nn.Module) -> dict[str, Any]:
            found = watch(policy, first=args.eval_pairs)
            row = {f"held_out_{name}": value for name, value in found.items()}
            live.evaluated(row)
            return row

        with contextlib.closing(live):
            history = train_dpo(
                opened.model,
                None,
                dataset,
                config,
                loss=loss,
                evaluate=None if watch is None else evaluate,
                on_step=live.updated,
                checkpoint=out / "checkpoint.pt",
                reference_cache=_reference_cache(),
                progress=False,
                accelerator=machines.accelerator,
            )
        if machines.main:
            if machines.sharded:
                opened = _in_whole(opened, out, args)
            final = None if watch is None else watch(opened.model)
            live.metrics.finish(history)
            results = {"seconds": round(time.monotonic() - started, 1), "held_out": final}
            results["tokens"] = dict(zip(("chosen", "rejected"), lengths(dataset), strict=True))
            results |= answers_and_kl(out, opened, prompts, args.max_new_tokens, args.seed)
            _finish(out, args, opened, history, results)
        machines.wait()
    return 0


def _complete(args: argparse.Namespace, opened: OpenModel, pairs: int) -> None:
    """Fill in the defaults that depend on the model, the loss and the size of the data."""
    tiny = is_tiny(opened.model)
    if tiny and args.lora:
        raise ValueError("--lora is for models of transformers; tiny is trained in full")
    if not (tiny or args.full or args.lora):
        args.lora = 8
    args.full = not args.lora
    args.loss = args.loss or ("rpo" if args.full and not tiny else "dpo")
    if args.beta is None:
        usual = inspect.signature(as_loss_function(args.loss)).parameters["beta"].default
        args.beta = 1.0 if tiny and usual == 0.1 else usual
    args.lr = args.lr or (5e-6 if args.full and not tiny else 2e-4)
    args.batch_size = args.batch_size or (32 if tiny else 8)
    args.steps = args.steps or min(100, max(1, pairs // args.batch_size))
    args.eval_every = args.eval_every or max(1, args.steps // 5)


def _split(
    found: PreferenceDataset, args: argparse.Namespace
) -> tuple[PreferenceDataset, PreferenceDataset | None]:
    if args.held_out == 0:
        return found, None
    train, held_out = found.split(args.held_out, args.seed)
    order = [*range(len(held_out))]
    random.Random(args.seed).shuffle(order)  # the first ones are scored while training
    return train, held_out.take(order)


def _reference_cache() -> Path | None:
    """Where reference log-probabilities are kept between runs, if it can be written to."""
    own = os.environ.get("DPO_LIB_REFERENCES")
    folder = Path(own) if own else cache_folder() / "references"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _used(train: PreferenceDataset, args: argparse.Namespace) -> PreferenceDataset:
    """The pairs that the run will come to, so that the reference scores no others."""
    number = args.steps * args.batch_size
    if number >= len(train):
        return train
    return train.take(random.Random(args.seed).sample(range(len(train)), number))


@contextlib.contextmanager
def _locked(out: Path, machines: Processes) -> Iterator[None]:
    """Let one process at a time write into the folder."""
    from filelock import FileLock, Timeout

    if not machines.main:
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"another process is training in {out}") from error
    except OSError as error:
        raise ValueError(f"cannot write to {out}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _take_up(
    out: Path, args: argparse.Namespace, counts: dict[str, Any], machines: Processes
) -> bool:
    """Note what is run, or check that the folder holds the same run; whether it is finished."""
    settings = {key: value for key, value in vars(args).items() if key not in _FREE}
    settings["data_sha256"] = data.DataSettings.of(args).digest()
    settings = json.loads(json.dumps(settings))  # as `run.json` gives them back
    if machines.main and args.restart:
        records.clear(out)
    machines.wait()
    before = records.read_json(out / "run.json")
    machines.wait()
    if before is None:
        if machines.main:
            run = {"settings": settings, "data": args.data, **counts, "finished": False}
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


def _introduction(
    args: argparse.Namespace,
    opened: OpenModel,
    pairs: data.Pairs,
    train: int,
    held_out: int,
) -> str:
    weights = [p.numel() for p in opened.model.parameters()]
    trained = [p.numel() for p in opened.model.parameters() if p.requires_grad]
    used = args.steps * args.batch_size
    size = f"LoRA of rank {args.lora}" if args.lora else "every weight"
    passes = f"{used / train:.1f} passes" if used >= train else f"{used} are used, once each"
    return (
        f"data   {data.describe(pairs.records, pairs.skipped)}\n"
        f"       {train} to train on ({passes}), {held_out} held out by prompt\n"
        f"{pairs.introduce()}\n"
        f"model  {args.model}: {sum(weights):,} weights, {sum(trained):,} trained ({size})\n"
        f"how    loss {args.loss}, beta {args.beta:g}, learning rate {args.lr:g}, "
        f"{args.steps} updates of {args.batch_size} pairs, seed {args.seed}"
    )


def _in_whole(opened: OpenModel, out: Path, args: argparse.Namespace) -> OpenModel:
    """The trained model in one process, after its parameters were spread over many (FSDP)."""
    state = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)["policy"]
    whole = open_model(opened.name, opened.options)
    if args.lora:
        whole.add_lora(args.lora, args.seed)
    names = {name for name, _ in whole.model.named_parameters()}
    found = {name if name in names else name.removeprefix("model."): x for name, x in state.items()}
    _, unknown = whole.model.load_state_dict(found, strict=False)
    if unknown:
        raise ValueError(f"the checkpoint has parameters that the model lacks: {unknown[:3]}")
    return whole


def _finish(
    out: Path, args: argparse.Namespace, opened: OpenModel, history: Any, results: dict[str, Any]
) -> None:
    """Save the model and the report; the run counts as finished when both are there."""
    import shutil

    target, partial = out / "model", out / "model.partial"
    for folder in (target, partial):
        shutil.rmtree(folder, ignore_errors=True)
    opened.save(partial)
    (partial / "README.md").write_text(_card(args, opened), encoding="utf-8")
    partial.rename(target)
    run = records.read_json(out / "run.json")
    run |= {"finished": True, "results": results, "advice": advice(history, results, args.loss)}
    write_report(out / "report.html", run, history, records.read_json(out / "samples.json"))
    records.write_json(out / "run.json", run)
    for name in records.UNFINISHED:
        (out / name).unlink(missing_ok=True)
    print(_summary(out, run))


def _card(args: argparse.Namespace, opened: OpenModel) -> str:
    how = f"LoRA of rank {args.lora}" if args.lora else "all weights"
    license_line = ""
    if "smollm2" in args.model.lower():
        license_line = "license: apache-2.0\n"
    base = getattr(getattr(opened.model, "config", None), "_name_or_path", args.model)
    return (
        f"---\n{license_line}library_name: {'peft' if args.lora else 'transformers'}\n---\n\n"
        f"# {args.model}, trained on preferences\n\n"
        f"Trained by dpo_lib from `{args.model}` ({Path(str(base)).name}) with the loss "
        f"`{args.loss}`: beta {args.beta:g}, learning rate {args.lr:g}, {args.steps} updates of "
        f"{args.batch_size} pairs, {how}, seed {args.seed}. The license of the model it started "
        "from holds for it too.\n"
    )


def _summary(out: Path, run: dict[str, Any]) -> str:
    results, lines = run["results"], []
    final = results["held_out"]
    if final:
        lines.append(
            f"held out: accuracy {final['accuracy']:.2f}, margin {final['margin']:.2f}, "
            f"log-probability of chosen {final['chosen_logp']:+.1f}, "
            f"of rejected {final['rejected_logp']:+.1f} nats"
        )
    if results.get("tokens_after") is not None:
        lines.append(
            f"answers: {results['tokens_before']:.1f} tokens before, "
            f"{results['tokens_after']:.1f} after"
        )
    lines += [f"note: {line}" for line in run["advice"]]
    lines += [f"model  {out / 'model'}", f"report {out / 'report.html'}"]
    return "\n".join(lines)
