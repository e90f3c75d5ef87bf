"""``eval --behavior``: what a model does in its answers, before and after training, and the price.

The price is the KL divergence from the model before. Whatever is trained, and however, answers of
which a share p has the behavior cannot all have it for less than -log p nats.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dpo_lib.cli.answers import as_data_row, room_for_answers, scored_rows
from dpo_lib.cli.draw import as_answer, in_groups
from dpo_lib.cli.judges import answers_of, as_number, load_function, takes
from dpo_lib.cli.models import OpenModel, open_model
from dpo_lib.cli.progress import Progress
from dpo_lib.cli.records import write_json
from dpo_lib.cli.sample import options_of, read_prompts
from dpo_lib.data.formats import with_system
from dpo_lib.evaluation import clustered_share, estimate, least_kl
from dpo_lib.fast.pair_log_probs import PairLogProbs, log_probs_of_rows
from dpo_lib.models import Reply

Replies = list[list[Reply]]  # to each prompt
Z = 1.959964  # of the normal distribution 2.5% lie above


class Written(NamedTuple):
    """What one model has written."""

    drawn: Replies  # at temperature 1
    greedy: Replies  # one a prompt


def measure_behavior(
    args: argparse.Namespace,
    run: dict[str, Any] | None,
    base: str | None,
    held_out: Callable[[], Sequence[str]],
) -> int:
    """Answer prompts with a model and with what it started from, and compare.

    Parameters
    ----------
    args : Namespace
        Of ``eval``.
    run : dict or None
        What the run of the model has noted down.
    base : str or None
        The model before; without one there is nothing to compare with.
    held_out : callable
        Gives the prompts that the run held out.
    """
    if args.data is not None:
        raise ValueError("--behavior takes prompts (--prompts), not pairs (--data)")
    shows = load_function(args.behavior, "--behavior")
    judge = None if args.judge is None else load_function(args.judge)
    if judge is not None and base is None:
        raise ValueError("--judge compares with the model before: --reference names it")
    given = _prompts(args, run) if args.prompts else held_out()
    prompts = list(dict.fromkeys(given))
    if args.prompts and len(prompts) < len(given):
        again = len(given) - len(prompts)
        args.progress.say(f"note   {again} prompts of {args.prompts} repeat others: asked once")
    if len(prompts) < 2:
        raise ValueError("--behavior needs two prompts at least: intervals are over prompts")
    options = options_of(args, run)
    after, kept = _write(args, args.model, options, prompts)
    found: dict[str, Any] = {
        "model": args.model,
        "reference": base,
        "behavior": args.behavior,
        "prompts": len(prompts),
        "per_prompt": args.per_prompt,
        "max_new_tokens": args.max_new_tokens,
        "seed": args.seed,
    }
    policy = _log_probs(kept, after.drawn, args.progress)
    del kept  # only one model is in memory
    seen = {"after": _seen(args, shows, after)}
    found["after"] = _means(after, seen["after"])
    if base is not None:
        before, kept = _write(args, base, options, prompts)
        reference = _log_probs(kept, after.drawn, args.progress)
        del kept
        seen["before"] = _seen(args, shows, before)
        found["before"] = _means(before, seen["before"])
        found["change"] = {way: _change(*(seen[w][way] for w in seen)) for way in Written._fields}
        found["kl"] = _kl(policy, reference, args.per_prompt)
        found["price"] = _price(found)
        if judge is not None:
            found["wins"] = _wins(args, judge, after.drawn, before.drawn)
    if args.out:
        written = {"after": after} if base is None else {"before": before, "after": after}
        answers = [
            {**as_data_row(prompt), **{when: _kept(by, i) for when, by in written.items()}}
            for i, prompt in enumerate(prompts)
        ]
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(args.out), {**found, "answers": answers})
    print(json.dumps(found) if args.json else _table(found))
    return 0


def _kept(written: Written, i: int) -> dict[str, Any]:
    return {
        "drawn": [as_answer(reply) for reply in written.drawn[i]],
        "greedy": as_answer(written.greedy[i][0]),
    }


def _prompts(args: argparse.Namespace, run: dict[str, Any] | None) -> list[str]:
    prompts = read_prompts(args.prompts, args.encoding)
    if not prompts:
        raise ValueError(f"{args.prompts} holds no prompt")
    system = args.system or (run and run["settings"].get("system"))
    return [with_system(prompt, system) for prompt in prompts] if system else prompts


# --- what is written -----------------------------------------------------------------------------


def _write(
    args: argparse.Namespace, name: str, options: dict[str, Any], prompts: Sequence[str]
) -> tuple[Written, OpenModel]:
    with args.progress.loading(name):
        opened = open_model(name, options)
    new = min(args.max_new_tokens, room_for_answers(opened, prompts))

    def replies(each: int, temperature: float, what: str) -> Replies:
        with args.progress.stage(f"{what} of {name}", len(prompts) * each) as stage:
            groups = in_groups(opened, prompts, each, new, temperature, args.seed, stage)
            return [one for _, one in groups]

    drawn = replies(args.per_prompt, 1.0, "draws")
    return Written(drawn, replies(1, 0.0, "greedy answers")), opened


def _log_probs(opened: OpenModel, replies: Replies, progress: Progress) -> Tensor:
    """Log-probabilities (nats) of all replies under a model, shape (N,)."""
    rows = scored_rows(opened, (reply for one in replies for reply in one))
    with progress.stage(f"log-probabilities under {opened.name}"):
        (found,) = log_probs_of_rows(PairLogProbs(opened.model), rows)
    return found


# --- what is seen in it --------------------------------------------------------------------------


def _seen(
    args: argparse.Namespace, shows: Callable[..., Any], written: Written
) -> dict[str, list[list[float]]]:
    """Whether each reply has the behavior: 1 or 0, by way of writing and prompt."""
    knows, asked = takes(shows, "ended"), []
    for way, replies in written._asdict().items():
        for one in replies:
            for reply in one:
                more = {"ended": reply.finished} if knows else {}
                place = f"a {way} answer to {str(reply.prompt)!r:.60}"
                asked.append(((reply.prompt, reply.text), more, place))
    with args.progress.stage("looking for the behavior", len(asked), "answers") as stage:
        given = answers_of(shows, args.behavior, asked, args.timeout, stage)
        values = [
            _as_truth(v, args.behavior, case[2]) for v, case in zip(given, asked, strict=True)
        ]
    rest = iter(values)
    return {
        way: [[next(rest) for _ in one] for one in replies]
        for way, replies in written._asdict().items()
    }


def _as_truth(value: Any, name: str, place: str) -> float:
    number = as_number(value, name, place)
    if number not in (0.0, 1.0):
        raise ValueError(f"{name} must give true or false, gives {value!r:.60} for {place}")
    return number


def _means(written: Written, seen: dict[str, list[list[float]]]) -> dict[str, Any]:
    replies = [reply for one in written.drawn for reply in one]
    greedy = [one[0] for one in written.greedy]
    return {
        **{way: clustered_share(values)._asdict() for way, values in seen.items()},
        "ends": clustered_share([[r.finished for r in one] for one in written.drawn])._asdict(),
        "tokens": sum(reply.length for reply in replies) / len(replies),
        "greedy_ends": sum(reply.finished for reply in greedy) / len(greedy),
        "greedy_tokens": sum(reply.length for reply in greedy) / len(greedy),
    }


def _change(after: list[list[float]], before: list[list[float]]) -> dict[str, float]:
    """By how much a share has grown, prompt by prompt, with Student's 95% interval."""
    means = [
        sum(new) / len(new) - sum(old) / len(old) for new, old in zip(after, before, strict=True)
    ]
    mean, error = estimate(means)
    half = _student(len(means) - 1) * error
    return {"mean": mean, "low": max(-1.0, mean - half), "high": min(1.0, mean + half)}


def _student(freedom: int) -> float:
    """Above which 2.5% of Student's distribution lie; Abramowitz and Stegun (1964), 26.7.5.

    For three prompts that series is 3% short, for two 28%: those are from the table.
    """
    few = {1: 12.706, 2: 4.303}
    terms = (
        Z,
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
    )
    series = sum(term / freedom**power for power, term in enumerate(terms))
    return few.get(freedom, series)


def _kl(policy: Tensor, reference: Tensor, each: int) -> dict[str, float]:
    """The KL divergence of the model from the one before, from what it has drawn."""
    ratios = (policy - reference).reshape(-1, each).mean(dim=1)  # (prompts,)
    mean, error = estimate(ratios)
    return {"mean": mean, "error": error}


def _price(found: dict[str, Any]) -> dict[str, float]:
    """What the behavior costs at least, in nats, by the shares that were drawn.

    Where none was seen before, the upper end of its interval stands in, as far as it must.
    """
    before, after = found["before"]["drawn"], found["after"]["drawn"]["share"]
    share = before["share"] or before["high"]
    if not before["share"]:
        after = max(share, after)
    return {"share": share, "all": -math.log(share), "this_share": least_kl(share, after)}


def _wins(
    args: argparse.Namespace, judge: Callable[..., Any], after: Replies, before: Replies
) -> dict[str, Any]:
    """How often the judge likes the reply after better; ties, and what turns round, count half."""
    pairs = [
        (new.prompt, new, old)
        for one, other in zip(after, before, strict=True)
        for new, old in zip(one, other, strict=True)
    ]
    knows = takes(judge, "ended")
    compares = _positional(judge) > 2

    def place(prompt: str) -> str:
        return f"an answer to {str(prompt)!r:.60}"

    asked = []
    for prompt, *both in pairs:
        for first, second in (both, both[::-1]):
            if compares:
                asked.append(((prompt, first.text, second.text), {}, place(prompt)))
            else:
                more = {"ended": first.finished} if knows else {}
                asked.append(((prompt, first.text), more, place(prompt)))
    with args.progress.stage("judging", len(asked), "verdicts") as stage:
        given = list(answers_of(judge, args.judge, asked, args.timeout, stage))
    values, turned = [], 0
    for i in range(len(pairs)):
        first, second = given[2 * i : 2 * i + 2]
        where = asked[2 * i][2]
        if compares:
            ahead, behind = (_as_verdict(v, args.judge, where) for v in (first, second))
            turned += ahead * behind > 0
            verdict = (ahead > behind) - (ahead < behind) if ahead * behind <= 0 else 0
        else:
            new, old = (as_number(v, args.judge, where) for v in (first, second))
            verdict = (new > old) - (new < old)
        values.append((verdict + 1) / 2)
    each = len(after[0])
    clusters = [values[i : i + each] for i in range(0, len(values), each)]
    found = clustered_share(clusters)._asdict() | {"ties": values.count(0.5) / len(values)}
    return found | ({"turned": turned / len(pairs)} if compares else {})


def _positional(function: Callable[..., Any]) -> int:
    """How many arguments a function needs in their order."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    needed = (p for p in parameters if p.default is p.empty and p.name != "ended")
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in needed)


def _as_verdict(value: Any, name: str, place: str) -> int:
    """1 where the first is better, -1 where the second is, 0 for a tie."""
    if isinstance(value, bool):
        return 1 if value else -1
    number = as_number(value, name, place)
    return (number > 0) - (number < 0)


# --- what is told --------------------------------------------------------------------------------


def _table(found: dict[str, Any]) -> str:
    before, after, change = found.get("before"), found["after"], found.get("change")
    against = f", before: {found['reference']}" if before else ""
    lines = [
        f"{found['model']}{against}",
        f"behavior {found['behavior']}; {found['prompts']} prompts, {found['per_prompt']} answers "
        "each drawn at temperature 1, one greedy; in brackets 95% intervals",
        _line("", "before" if before else "", "after", "change" if before else ""),
    ]
    for way in Written._fields:
        old = _interval(before[way]) if before else ""
        grown = _interval(change[way], "+") if change else ""
        lines.append(_line(f"{way} share", old, _interval(after[way]), grown))
    old = _interval(before["ends"]) if before else ""
    lines.append(_line("ends", old, _interval(after["ends"])))
    for name in ("tokens", "greedy_tokens"):
        old = f"{before[name]:.1f}" if before else ""
        lines.append(_line(name.replace("_", " "), old, f"{after[name]:.1f}"))
    if wins := found.get("wins"):
        turned = f"; {wins['turned']:.0%} turn with the order" if "turned" in wins else ""
        lines.append(_line("wins", "", f"{_interval(wins)}, {wins['ties']:.0%} ties{turned}"))
    if price := found.get("price"):
        kl = found["kl"]
        lines.append(_line("KL in nats", "0", f"{kl['mean']:.2f} ± {kl['error']:.2f}"))
        least = "" if before["drawn"]["share"] else "at least "
        lines.append(
            f"price: no model has this share for less than {price['this_share']:.2f} nats, nor "
            f"the behavior in every answer for less than {least}-log {price['share']:.3f} = "
            f"{price['all']:.2f} nats"
        )
    return "\n".join(lines)


def _line(name: str, *cells: str) -> str:
    return f"{name:<15}{''.join(f'{cell:<22}' for cell in cells)}".rstrip()


def _interval(value: dict[str, float], sign: str = "") -> str:
    middle = value["mean"] if "mean" in value else value["share"]
    return f"{middle:{sign}.2f} [{value['low']:{sign}.2f}, {value['high']:{sign}.2f}]"
