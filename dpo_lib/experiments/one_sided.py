"""Appendix F, what a pair says: two sentences are asked for, and which answers are rejected.

Asked "What is gravity? Answer in two sentences.", SmolLM2-135M-Instruct obeys about one time in
five. Pairs of its own draws are made in two ways. In both the chosen answer is two finished
sentences. *One side*: the rejected answer is one finished sentence. *Both sides*: it is one
finished sentence in half of the pairs; in the other half it has three or more, or was cut.

**Registered before the first run.** Both ways get act one's rate and beta, 24 updates of 8 pairs,
and three seeds of draws, adapters and order. On held-out prompts, in the mean over seeds, we expect

- of one side that answers with three or more sentences or cut become more: it has learned "more",
- of both sides that the share of two sentences grows, drawn and greedy, and that answers with three
  or more sentences or cut do not become more.

python -m dpo_lib.experiments.one_sided [FOLDER]    goes on from what is in FOLDER (an hour and a
                                                    half on one core) and writes
                                                    dpo_lib/results/one_sided.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_lib.data import PreferenceRecord, read_jsonl, write_jsonl
from dpo_lib.experiments.by_commands import (
    DRAWS,
    IN_TWO,
    LONGEST,
    TRAINED,
    Setting,
    Work,
    row_of,
    sentences,
    split_prompts,
    work_from_arguments,
)
from dpo_lib.experiments.store import store

MODULE = "dpo_lib.experiments.one_sided"  # also where it is run as a program
SETTING = Setting(rate=1e-4, beta=0.1, steps=24)
SEEDS = range(3)
ASKED, EACH = 46, 2  # held-out prompts, and draws to each
KINDS = ("one", "two", "more", "cut", "other")  # of answers


def kind(answer: str, ended: bool) -> str:
    """Which of `KINDS` an answer is: by its finished sentences, or cut, or in another form."""
    if not ended:
        return "cut"
    number = len(sentences(answer))
    if "\n" in answer.strip() or not number:
        return "other"
    return {1: "one", 2: "two"}.get(number, "more")


def is_two(prompt: str, answer: str, ended: bool) -> bool:
    """Whether an answer is two finished sentences."""
    return kind(answer, ended) == "two"


def over_less(prompt: str, answer: str, ended: bool) -> int:
    """Two sentences are best, one is worst."""
    return {"two": 2, "one": 0}.get(kind(answer, ended), 1)


def over_more(prompt: str, answer: str, ended: bool) -> int:
    """Two sentences are best, more and cut answers are worst."""
    return {"two": 2, "more": 0, "cut": 0}.get(kind(answer, ended), 1)


def _decided(pairs: Path) -> list[PreferenceRecord]:
    """The pairs whose chosen answer is as good, and whose rejected one as bad, as it can be."""
    scores = ("chosen_score", "rejected_score")
    return [
        pair for pair in read_jsonl(pairs) if [pair.extra[name] for name in scores] == [2.0, 0.0]
    ]


def make_pairs(work: Work, drawn: Path) -> dict[str, Path]:
    """A file of pairs for each way: rejected answers on one side, and on both."""
    less, more = (
        _decided(work.judge(drawn, f"{MODULE}:{judge}", judge))
        for judge in ("over_less", "over_more")
    )
    by_prompt = {pair.prompt: pair for pair in more}
    both: list[PreferenceRecord] = []
    taken = Counter({"less": 0, "more": 0})
    for pair in less:  # the side that has fewer so far, where the prompt has it
        side = "more" if pair.prompt in by_prompt and taken["more"] <= taken["less"] else "less"
        taken[side] += 1
        both.append(by_prompt[pair.prompt] if side == "more" else pair)
    found = {"one side": less, "both sides": both}
    paths = {arm: drawn.with_name(f"{drawn.stem}-{arm.replace(' ', '-')}.jsonl") for arm in found}
    for arm, path in paths.items():
        if not path.exists():
            write_jsonl(path, found[arm])
    return paths


def pairs_row(arm: str, seed: int, pairs: Sequence[PreferenceRecord]) -> dict[str, Any]:
    """How many pairs there are, what their rejected answers are, and how much longer these are."""
    kinds = Counter(kind(pair.rejected, pair.rejected_ended) for pair in pairs)
    words = [[len(text.split()) for text in (pair.chosen, pair.rejected)] for pair in pairs]
    means = [sum(side) / len(pairs) for side in zip(*words, strict=True)]
    row = {"arm": f"pairs, {arm}", "seed": seed, "pairs": len(pairs), "rejected": dict(kinds)}
    return row | {"chosen_words": means[0], "rejected_words": means[1]}


def shares_of_kinds(found: dict[str, Any], side: str) -> dict[str, dict[str, float]]:
    """The share of each of `KINDS` among the drawn answers, and among the greedy ones."""
    answers = [answer[side] for answer in found["answers"]]
    by_way = {
        "drawn": [one for answer in answers for one in answer["drawn"]],
        "greedy": [answer["greedy"] for answer in answers],
    }
    return {
        way: {
            name: sum(kind(one["text"], one.get("ended", True)) == name for one in these)
            / len(these)
            for name in KINDS
        }
        for way, these in by_way.items()
    }


def run(work: Work) -> list[dict[str, Any]]:
    """All of it; a row an evaluation, and one for the pairs of each."""
    rows = []
    for seed in SEEDS:
        for arm, pairs in make_pairs(work, work.draw(f"drawn-{seed}", seed)).items():
            rows.append(pairs_row(arm, seed, read_jsonl(pairs)))
            trained = work.train(f"{arm.replace(' ', '-')}-{seed}", pairs, SETTING, seed)
            found = work.evaluate(trained, "held_out", EACH, seed, f"{MODULE}:is_two")
            kinds = {side: shares_of_kinds(found, side) for side in ("before", "after")}
            rows.append({**row_of(arm, seed, SETTING, found), "kinds": kinds})
    return rows


def prompts() -> dict[str, list[str]]:
    """The prompts that pairs are made of, and some that are held out."""
    found = split_prompts(IN_TWO)
    return {"train": found["train"], "held_out": found["held_out"][:ASKED]}


def main() -> None:
    """Go on from what is in the folder."""
    work = work_from_arguments(__doc__, "one_sided", prompts())
    settings = {**SETTING._asdict(), "seeds": SEEDS, "trained": TRAINED, "asked": ASKED}
    settings |= {"each": EACH, "draws": DRAWS, "longest": LONGEST}
    store("one_sided", settings, run(work))


if __name__ == "__main__":
    main()
