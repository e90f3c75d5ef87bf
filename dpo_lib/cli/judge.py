"""The command ``judge``: scores of drawn answers, and pairs of those that differ."""

from __future__ import annotations

import argparse
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dpo_lib._files import replacing
from dpo_lib.cli.draw import settings_beside, train_as_drawn
from dpo_lib.cli.drawn import Answer, Drawn, is_readable, pair_row, read_drawn
from dpo_lib.cli.judges import Case, as_number, by_command, by_function, load_function
from dpo_lib.cli.records import read_json

FAR = 1.25  # times as long is worth a word
Scores = Mapping[int, float]  # of the answers to one prompt, by their place


class Pair(NamedTuple):
    """Two answers to one prompt, the better one first."""

    prompt: str
    chosen: Answer
    rejected: Answer
    chosen_score: float
    rejected_score: float

    @property
    def difference(self) -> int:
        """By how much the chosen answer is the longer one."""
        return self.chosen.length - self.rejected.length


def run_judge(args: argparse.Namespace) -> int:
    """Judge what was drawn, write the pairs, and say what comes next."""
    write_pairs(args)
    print(f"next   {_next(args, Path(args.out))}")
    return 0


def write_pairs(args: argparse.Namespace) -> None:
    """Judge what was drawn, and write the pairs."""
    out = Path(args.out)
    if out.resolve() == Path(args.drawn).resolve():
        raise ValueError(f"--out {out} is what was drawn, which stays as it is")
    if out.with_name(f"{out.name}.judgements").exists():
        raise ValueError(f"--out {out} holds pairs that `label` made; use another --out")
    drawn = read_drawn(args.drawn)
    scores = _field(drawn, args.scores) if args.scores else _judged(args, drawn)
    pairs, without = make_pairs(drawn, scores, args.pairs, args.match_length)
    numbers = [number for one in scores for number in one.values()]
    if not pairs:
        why = _listed(without)
        raise ValueError(f"{args.drawn}: no prompt gives a pair ({why}); nothing is written")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        for pair in pairs:
            row = pair_row(pair.prompt, pair.chosen, pair.rejected)
            row |= {"chosen_score": pair.chosen_score, "rejected_score": pair.rejected_score}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    print(
        f"{args.drawn}: {len(numbers)} answers judged, from {min(numbers):g} to "
        f"{max(numbers):g}, {sum(numbers) / len(numbers):.3g} on average"
    )
    print(_told(out, pairs, len(drawn), without))


def _told(out: Path, pairs: Sequence[Pair], prompts: int, without: Mapping[str, int]) -> str:
    lines = [f"{out}: {len(pairs)} pairs of {prompts - sum(without.values())} prompts"]
    if without:
        lines[0] += f"; {sum(without.values())} prompts gave none ({_listed(without)})"
    unit = "tokens" if all(a.tokens is not None for p in pairs for a in p[1:3]) else "characters"
    sides = {
        "chosen": [pair.chosen for pair in pairs],
        "rejected": [pair.rejected for pair in pairs],
    }
    means = {side: sum(a.length for a in sides[side]) / len(pairs) for side in sides}
    lines.append(
        "; ".join(
            f"{side} {means[side]:.1f} {unit}, {sum(a.ended for a in answers) / len(pairs):.0%} end"
            for side, answers in sides.items()
        )
    )
    shorter, longer = sorted(means, key=means.__getitem__)
    if means[longer] > FAR * means[shorter]:
        lines.append(
            f"look   the {longer} answers are {means[longer] / means[shorter]:.1f} times as long: "
            "length may be all that is learned (--match-length takes pairs that are nearer)"
        )
    return "\n".join(lines)


def _listed(without: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {why}" for why, number in without.items())


def _next(args: argparse.Namespace, out: Path) -> str:
    """How to train on the pairs the model that has drawn the answers."""
    words = ["python", "-m", "dpo_lib", "train", "--data", str(out)]
    drawn = Path(args.drawn)
    if settings := read_json(settings_beside(drawn)):
        words += ["--model", settings["model"], *train_as_drawn(drawn)]
    return shlex.join([*words, "--out", "runs/mine"])


# --- scores --------------------------------------------------------------------------------------


def _judged(args: argparse.Namespace, drawn: Sequence[Drawn]) -> list[dict[int, float]]:
    """What the judge says of every answer; of those that are alike it is asked once."""
    cases, where = [], []
    for i, row in enumerate(drawn):
        seen: dict[tuple[str, bool], int] = {}
        for j, answer in enumerate(row.answers):
            key = answer.text, answer.ended
            if key not in seen and answer.text.strip():
                seen[key] = len(cases)
                place = f"{row.place}, answer {j + 1}"
                cases.append(Case(row.prompt, answer.text, answer.ended, place))
            if key in seen:
                where.append((i, j, seen[key]))
    function = None if args.judge is None else load_function(args.judge)
    with args.progress.stage("judging", len(cases), "answers") as stage:
        if function is None:
            numbers = by_command(args.shell, cases, args.timeout, stage)
        else:
            numbers = by_function(function, args.judge, cases, args.timeout, stage)
    found: list[dict[int, float]] = [{} for _ in drawn]
    for i, j, case in where:
        found[i][j] = numbers[case]
    return found


def _field(drawn: Sequence[Drawn], name: str) -> list[dict[int, float]]:
    """Scores that stand in the file; of ranks the lowest is the best."""
    sign, found = -1.0 if "rank" in name.lower() else 1.0, []
    for row in drawn:
        values = row.fields.get(name)
        if values is None:
            values = [answer.fields.get(name) for answer in row.answers]
        if not isinstance(values, list) or len(values) != len(row.answers):
            raise ValueError(
                f"{row.place}: {name} must be {len(row.answers)} numbers, one for each answer, "
                f"got {values!r:.60}"
            )
        found.append(
            {
                j: sign * as_number(value, f"--scores {name}", f"{row.place}, answer {j + 1}")
                for j, value in enumerate(values)
                if row.answers[j].text.strip()
            }
        )
    return found


# --- pairs ---------------------------------------------------------------------------------------


def make_pairs(
    drawn: Sequence[Drawn], scores: Sequence[Scores], which: str, match_length: bool
) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of answers to one prompt that differ in score.

    Parameters
    ----------
    drawn : sequence of Drawn
    scores : sequence of mapping
        Of the answers to each prompt that can be in a pair; the higher the better.
    which : str
        ``best-worst`` takes of each prompt the best answer and the worst, of equal ones the first;
        ``all`` takes every two that differ in score.
    match_length : bool
        With ``best-worst``, take of all two answers that differ in score those whose lengths are
        nearest; with ``all``, take the nearest two first, and every answer once at most. Among
        equally near ones the mean lengths of both sides decide, so that they stay together, then
        the larger difference in score.

    Returns
    -------
    pairs : list of Pair
    without : dict
        How many prompts gave none, by the reason.
    """
    pairs: list[Pair] = []
    without: Counter[str] = Counter()
    total = 0  # of the differences in length so far
    for row, known in zip(drawn, scores, strict=True):
        texts: dict[tuple[str, bool], int] = {}
        for j in known:
            texts.setdefault((row.answers[j].text, row.answers[j].ended), j)
        possible = [
            Pair(row.prompt, row.answers[i], row.answers[j], known[i], known[j])
            for i in texts.values()
            for j in texts.values()
            if known[i] > known[j] and is_readable(row.prompt, row.answers[i], row.answers[j])
        ]
        if not possible:
            alike = len({row.answers[j].text for j in known}) > 1 and len({*known.values()}) == 1
            without["whose answers score alike" if alike else "without two that differ"] += 1
        elif match_length:
            for pair in _nearest(possible, total, 1 if which == "best-worst" else len(known)):
                total += pair.difference
                pairs.append(pair)
        elif which == "all":
            pairs += possible
        else:
            pairs.append(max(possible, key=lambda pair: (pair.chosen_score, -pair.rejected_score)))
    return pairs, dict(without)


def _nearest(possible: Sequence[Pair], total: int, most: int) -> Iterator[Pair]:
    """Pairs of which no two share an answer, those nearest in length first."""
    left = list(possible)
    for _ in range(most):
        if not left:
            return
        found = min(
            left,
            key=lambda p: (
                abs(p.difference),
                abs(total + p.difference),
                p.rejected_score - p.chosen_score,
            ),
        )
        total += found.difference
        yield found
        used = {(answer.text, answer.ended) for answer in found[1:3]}
        left = [p for p in left if not {(a.text, a.ended) for a in p[1:3]} & used]
