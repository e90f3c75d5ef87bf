"""Appendix F, act one: SmolLM2-135M-Instruct learns to be brief from pairs of its own draws.

Asked "What is gravity? Answer briefly.", the model lectures: about one answer of five is a single
finished sentence. That is the behavior. Of eight own answers to a prompt a program calls the ones
that have it better (`is_brief`), `judge` takes one of those against one of the others, `train` runs
DPO on the pairs, and `eval --behavior` asks prompts that no pair was made of. Every step is a
command; this script only says them in turn, and one that was made is not made again.

**Registered before the first run.** Of the 231 questions 120 are trained on, 24 choose the setting,
60 are held out. Tried on seed 0: rates 2e-5, 5e-5 and 1e-4, beta .1 and .05, 12 updates of 8 pairs;
then, at the best of the six, 24 updates. Best is: the largest share drawn on the 24 prompts, of
those that end at least `ENDS` of their answers at a KL below `MOST_KL` (of all, if none does). The
chosen setting runs with three seeds of draws, adapters and order. It succeeds if on the held-out
prompts, in the mean over seeds,

- the share that has the behavior at least doubles, drawn at temperature 1 *and* greedy,
- at least .85 of the drawn answers end,
- the KL divergence is below 3 nats (and is shown beside -log p, the least for all answers),
- of 30 plain facts no fewer than two less are right than before (greedy; a program counts).

Controls, with the same pairs and setting: SFT on the chosen answers, flipped labels; without
training, the best of eight draws. Then a second round, on the draws of the first round's model.

python -m dpo_lib.experiments.own_draws [FOLDER]    goes on from what is in FOLDER (some hours) and
                                                    writes dpo_lib/results/own_draws.json
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_lib.cli.drawn import read_drawn
from dpo_lib.data import read_jsonl
from dpo_lib.experiments.by_commands import (
    CHOSEN_BY,
    DRAWS,
    HELD_OUT,
    LONGEST,
    TRAINED,
    Setting,
    Work,
    flip,
    row_of,
    sentences,
    split_prompts,
    work_from_arguments,
)
from dpo_lib.experiments.store import store

MODULE = "dpo_lib.experiments.own_draws"  # also where it is run as a program
ASKED = " Answer briefly."
SEEDS = range(3)
RATES, BETAS = (2e-5, 5e-5, 1e-4), (0.1, 0.05)
STEPS, LONGER = 12, 24
ENDS, MOST_KL, FACTS_LESS = 0.85, 3.0, 2
JUDGE = f"{MODULE}:is_brief"
FACTS = {
    "What is the capital of France?": "paris",
    "What is the capital of Italy?": "rome",
    "What is the capital of Japan?": "tokyo",
    "What is the capital of Egypt?": "cairo",
    "What is the capital of Spain?": "madrid",
    "What is the capital of Germany?": "berlin",
    "What is the capital of Russia?": "moscow",
    "What is the capital of China?": "beijing",
    "What is the largest planet of the solar system?": "jupiter",
    "Which planet is closest to the Sun?": "mercury",
    "What is the largest ocean on Earth?": "pacific",
    "What is the longest river in Africa?": "nile",
    "What is the highest mountain on Earth?": "everest",
    "On which continent is Brazil?": "south america",
    "On which continent is Kenya?": "africa",
    "What is the chemical symbol of gold?": "au",
    "What is the chemical formula of water?": "h2o|h₂o",
    "What gas do plants take in from the air?": "carbon dioxide|co2",
    "Who wrote Romeo and Juliet?": "shakespeare",
    "Who painted the Mona Lisa?": "leonardo|da vinci",
    "Who was the first president of the United States?": "washington",
    "Who developed the theory of relativity?": "einstein",
    "In which year did the Second World War end?": "1945",
    "In which year did people first land on the Moon?": "1969",
    "How many days are in a leap year?": "366",
    "How many minutes are in an hour?": "60|sixty",
    "How many legs does a spider have?": "8|eight",
    "How many sides does a hexagon have?": "6|six",
    "What is the opposite of hot?": "cold",
    "What language is spoken in Brazil?": "portuguese",
}


def is_brief(prompt: str, answer: str, ended: bool) -> bool:
    """Whether an answer is one finished sentence of three words at least."""
    text = answer.strip()
    if not ended or "\n" in text or len(text.split()) < 3:
        return False
    return len(sentences(text)) == 1


def is_right(prompt: str, answer: str) -> bool:
    """Whether an answer to one of the facts holds the word that it must."""
    words = FACTS[prompt.removesuffix(ASKED)]
    return re.search(rf"\b({words})\b", answer.lower()) is not None


def prompts() -> dict[str, list[str]]:
    """The prompts by what they are for; none is for two things."""
    return {**split_prompts(ASKED), "facts": [question + ASKED for question in FACTS]}


def pairs_row(seed: int, pairs: Path) -> dict[str, Any]:
    """How many pairs a seed has, and in which share the rejected answer has more characters."""
    longer = [len(pair.rejected) > len(pair.chosen) for pair in read_jsonl(pairs)]
    share = sum(longer) / len(longer)
    return {"arm": "pairs", "seed": seed, "pairs": len(longer), "rejected_longer": share}


def is_allowed(found: dict[str, Any]) -> bool:
    """Whether a setting may be chosen at all."""
    return found["after"]["ends"]["share"] >= ENDS and found["kl"]["mean"] < MOST_KL


def choose(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the largest share drawn, among those allowed (of all, if none is)."""
    allowed = [row for row in rows if is_allowed(row)] or rows
    return max(allowed, key=lambda row: row["after"]["drawn"]["share"])


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float, bool]]:
    """Each point of the rule: before (or its limit), after, and whether it is met."""

    def mean(arm: str, *path: str) -> float:
        values = [row for row in rows if row["arm"] == arm]
        for key in path:
            values = [value[key] for value in values]
        return sum(values) / len(values)

    found = {}
    for way in ("drawn", "greedy"):
        before, after = (mean("dpo", side, way, "share") for side in ("before", "after"))
        found[way] = before, after, after >= 2 * before
    ends, kl = mean("dpo", "after", "ends", "share"), mean("dpo", "kl", "mean")
    found["ends"] = ENDS, ends, ends >= ENDS
    found["kl"] = MOST_KL, kl, kl < MOST_KL
    shares = (mean("facts", side, "greedy", "share") for side in ("before", "after"))
    before, after = (round(len(FACTS) * share, 3) for share in shares)  # stored with six digits
    found["facts"] = before, after, after >= before - FACTS_LESS
    return found


def search(work: Work, pairs: Path) -> list[dict[str, Any]]:
    """Every setting of the grid on seed 0, then the best with twice the updates."""

    def tried(setting: Setting) -> dict[str, Any]:
        name = f"try-{setting.rate:g}-{setting.beta:g}-{setting.steps}"
        run = work.train(name, pairs, setting, 0)
        return row_of("grid", 0, setting, work.evaluate(run, "choose", 2, 0, JUDGE))

    rows = [tried(Setting(rate, beta, STEPS)) for rate in RATES for beta in BETAS]
    best = choose(rows)
    return [*rows, tried(Setting(best["rate"], best["beta"], LONGER))]


def best_of(drawn: Path, number: int) -> dict[str, Any]:
    """The share of prompts that have a brief answer among their first draws; no model changes."""
    rows = read_drawn(drawn)
    found = [
        any(is_brief(row.prompt, answer.text, answer.ended) for answer in row.answers[:number])
        for row in rows
    ]
    return {"arm": "best of 8", "prompts": len(rows), "share": sum(found) / len(rows)}


def run(work: Work) -> list[dict[str, Any]]:
    """All of it; a row an evaluation."""
    pairs = {0: work.judge(work.draw("drawn-0", 0), JUDGE)}
    rows = search(work, pairs[0])
    best = choose(rows)
    setting = Setting.of(best)

    def add(arm: str, seed: int, run: Path, each: int = 4) -> None:
        rows.append(row_of(arm, seed, setting, work.evaluate(run, "held_out", each, seed, JUDGE)))

    runs = {}
    for seed in SEEDS:
        pairs[seed] = work.judge(work.draw(f"drawn-{seed}", seed), JUDGE)
        rows.append(pairs_row(seed, pairs[seed]))
        runs[seed] = work.train(f"dpo-{seed}", pairs[seed], setting, seed)
        add("dpo", seed, runs[seed])
        facts = work.evaluate(runs[seed], "facts", 1, seed, f"{MODULE}:is_right")
        rows.append(row_of("facts", seed, setting, facts))
    for seed in SEEDS:
        add("sft", seed, work.train(f"sft-{seed}", pairs[seed], setting, seed, "--loss", "sft"), 2)
        turned = flip(pairs[seed])
        add("flipped", seed, work.train(f"flipped-{seed}", turned, setting, seed), 2)
    rows.append(best_of(work.draw("best-of", 0, "held_out"), DRAWS))
    drawn = work.draw("drawn-second", 0, model=runs[0])
    second = work.train("second", work.judge(drawn, JUDGE), setting, 0, model=runs[0])
    add("second round", 0, second)
    return rows


def main() -> None:
    """Go on from what is in the folder."""
    work = work_from_arguments(__doc__, "own_draws", prompts())
    rows = run(work)
    settings = {"asked": ASKED, "draws": DRAWS, "longest": LONGEST, "seeds": SEEDS}
    settings |= {"rates": RATES, "betas": BETAS, "steps": STEPS, "longer": LONGER}
    settings |= {"trained": TRAINED, "chosen_by": CHOSEN_BY, "held_out": HELD_OUT}
    settings["seconds"] = work.seconds()
    store("own_draws", settings, rows)
    for name, (before, after, met) in verdict(rows).items():
        print(f"{name:8} {before:6.2f} {after:6.2f} {'met' if met else 'not met'}")


if __name__ == "__main__":
    main()
