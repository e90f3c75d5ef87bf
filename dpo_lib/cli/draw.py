"""The command ``draw``: several answers of a model to each prompt, in a file.

A line of the file is a prompt with its answers, ``{"prompt": ..., "answers": [{"text": ...,
"ended": ..., "tokens": ...}, ...]}``. An answer follows from the seed, from its prompt's place and
from its own, so that a file that was begun is gone on with, and ends with the same bits. Beside it,
in ``FILE.settings``, stands how it was drawn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dpo_lib._files import writing_alone
from dpo_lib.cli import records, threads
from dpo_lib.cli.answers import answer, answer_seed, as_data_row, room_for_answers
from dpo_lib.cli.models import OpenModel, open_model
from dpo_lib.cli.progress import Stage, counted
from dpo_lib.cli.sample import options_of, prompts_of
from dpo_lib.models import Reply
from dpo_lib.training.checkpoint import differences

TOGETHER = 32  # answers that are drawn at a time: on it the last bits depend


def run_draw(args: argparse.Namespace) -> int:
    """Draw answers, or go on with a file that was begun."""
    out, say = Path(args.out), args.progress.say
    run = records.read_run(Path(args.model))
    prompts, options = prompts_of(args, run), options_of(args, run)
    if not 0 <= args.temperature < float("inf"):
        raise ValueError(f"--temperature must be 0 or positive and finite, got {args.temperature}")
    with writing_alone(out, f"drawing into {out}"):
        settings = _settings(args, options)
        before = 0 if args.restart else _begun(out, settings, prompts)
        if before == len(prompts):
            say(f"{out} is whole already ({before} prompts); --restart draws again")
            return 0
        kept = records.read_json(settings_beside(out)) if before else None
        with threads.chosen(args.threads, say, kept and kept["threads"]):
            with args.progress.loading(args.model):
                opened = open_model(args.model, options)
            new = _cut(args, opened, prompts)
            if kept is None:
                out.unlink(missing_ok=True)
                kept = {**settings, "cut": new, "threads": torch.get_num_threads()}
                records.write_json(settings_beside(out), kept)
            elif kept["cut"] != new:
                raise ValueError(f"{out} was drawn with answers cut at {kept['cut']}, not {new}")
            _draw(args, opened, prompts, before, new)
    print(_summary(out))
    return 0


def settings_beside(drawn: Path) -> Path:
    """The file in which it stands how answers were drawn."""
    return drawn.with_name(f"{drawn.name}.settings")


def train_as_drawn(drawn: Path) -> list[str]:
    """Options of ``train`` that make tokens of texts as when the answers were drawn."""
    settings = records.read_json(settings_beside(drawn)) or {}
    words = ["--plain"] if settings.get("chat") is False else []
    words += ["--control-tokens"] if settings.get("control_tokens") else []
    if prefix := settings.get("answer_prefix"):
        words.append(f"--answer-prefix={prefix}")
    variables = settings.get("template") or {}
    return words + [f"--template={name}={json.dumps(value)}" for name, value in variables.items()]


def _draw(
    args: argparse.Namespace, opened: OpenModel, prompts: Sequence[str], before: int, new: int
) -> None:
    """Append the rows that are missing."""
    each = args.per_prompt
    with (
        args.progress.stage("answers", len(prompts) * each, resumed=before * each) as stage,
        Path(args.out).open("ab") as file,
    ):
        how = (each, new, args.temperature, args.seed)
        for prompt, replies in in_groups(opened, prompts, *how, stage, first=before):
            row = {**as_data_row(prompt), "answers": [as_answer(reply) for reply in replies]}
            file.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode())
            file.flush()


def in_groups(
    opened: OpenModel,
    prompts: Sequence[str],
    each: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    stage: Stage,
    first: int = 0,
) -> Iterator[tuple[str, list[Reply]]]:
    """Each prompt with its replies, from the prompt at ``first`` on; ``stage`` counts replies.

    Groups of prompts are drawn together, always the same ones: to the last bit, a reply depends on
    what is beside it.
    """
    group = max(1, TOGETHER // each)
    for start in range(first - first % group, len(prompts), group):
        some = prompts[start : start + group]
        asked = [prompt for prompt in some for _ in range(each)]
        places = [(start + i, j) for i in range(len(some)) for j in range(each)]
        seeds = [answer_seed(seed, *place) for place in places]
        done = stage.done
        with counted(opened.model, stage, min(len(asked), TOGETHER) / max_new_tokens):
            replies = answer(opened, asked, max_new_tokens, temperature, seeds, TOGETHER)
        stage.done = done  # what was counted on the way is a guess: some end early
        for i, prompt in enumerate(some):
            if start + i >= first:
                stage.advance(each)
                yield prompt, replies[i * each : (i + 1) * each]


def as_answer(reply: Reply) -> dict[str, Any]:
    """An answer as the file has it."""
    return {"text": reply.text, "ended": reply.finished, "tokens": reply.length}


def _summary(out: Path) -> str:
    answers = [a for line in _lines(out.read_bytes()) for a in json.loads(line)["answers"]]
    tokens = sum(a["tokens"] for a in answers) / len(answers)
    ended = sum(a["ended"] for a in answers) / len(answers)
    return f"{out}: {len(answers)} answers, {tokens:.1f} tokens each, {ended:.0%} end"


# --- what is there already -----------------------------------------------------------------------


def _settings(args: argparse.Namespace, options: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the answers, the prompts aside."""
    names = ("model", "per_prompt", "temperature", "max_new_tokens", "seed")
    found = {name: getattr(args, name) for name in names}
    found |= {"model_sha256": _digest(Path(args.model)), "together": TOGETHER}
    return json.loads(json.dumps(found | dict(options)))


def _digest(folder: Path) -> str | None:
    """SHA-256 of the files of a model's folder: a run of the same name may be another one."""
    if (folder / "run.json").is_file():
        folder = folder / "model"
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def _begun(out: Path, settings: Mapping[str, Any], prompts: Sequence[str]) -> int:
    """How many prompts have their answers already; a line that a kill has cut is taken away."""
    beside = settings_beside(out)
    kept, data = records.read_json(beside), out.read_bytes() if out.is_file() else b""
    if not data:
        return 0
    if kept is None:
        raise ValueError(
            f"{out} is there, and {beside.name}, which tells how it was drawn, is not; use "
            "another --out, or --restart to drop it"
        )
    own = {name: value for name, value in kept.items() if name not in ("threads", "cut")}
    if changed := differences(own, settings):
        raise ValueError(
            f"{out} was drawn otherwise ({'; '.join(changed)}); use another --out, or --restart "
            "to drop it"
        )
    lines = _lines(data)
    if len(lines) > len(prompts):
        raise ValueError(f"{out} has {len(lines)} prompts, now there are {len(prompts)}")
    for i, line in enumerate(lines):
        wanted = json.dumps(as_data_row(prompts[i]), ensure_ascii=False)[:-1]
        if not line.startswith(f"{wanted}, ".encode()):
            raise ValueError(f"{out}, line {i + 1}, is not of the prompt {str(prompts[i])!r:.60}")
    whole = sum(len(line) + 1 for line in lines)
    if whole < len(data):
        with out.open("r+b") as file:
            file.truncate(whole)
    return len(lines)


def _lines(data: bytes) -> list[bytes]:
    """The lines that are whole."""
    return data.split(b"\n")[:-1]


def _cut(args: argparse.Namespace, opened: OpenModel, prompts: Sequence[str]) -> int:
    """Tokens at which an answer is cut: as asked for, or what the model can read."""
    room = room_for_answers(opened, prompts)
    if room < args.max_new_tokens:
        args.progress.say(
            f"note   answers are cut at {room} tokens: the model reads {opened.context}, the "
            f"longest prompt has {opened.context - room}"
        )
    return min(args.max_new_tokens, room)
