"""Appendix F: forty pairs that somebody labeled, and a model that answers as they like.

An annotator stands in for you. Two of the model's own answers to a question are shown, one of them
is preferred, and that forty times; one judgment in ten is a slip. What they like is told neither to
the model nor in the appendix: it stands at the end of this file. Guess it from the pairs first.

**The first annotator.** Registered before the first run: act one's rate, beta and updates, three
seeds of draws, labels, adapters and order. Then 46 held-out questions are answered twice, before
and after, and the annotator (without slips) says which answer of the two they like better. It
succeeds if with every seed the 95 % interval of the win rate lies above one half, and if, in the
mean, the share that ends has not fallen by more than .05 and the KL divergence is below 3 nats.
Control: flipped labels, with the first seed. It failed: the win rates were .61, .39 and .56, though
after 12 updates each pair that was trained on was ranked right. What they like shows a little in
many words, and forty pairs at random differ in much else.

**The second annotator.** Registered then: somebody whose taste shows in every sentence, by the same
rule. 12 or 24 updates, whichever wins more on 24 other questions with the first seed. Control:
flipped labels, with the first seed.

**The third annotator.** Registered when the second one had won .45 and .56 on those 24 questions:
somebody who likes what a single token decides. The first one's setting, rule and control.

python -m dpo_lib.experiments.annotator [FOLDER]    goes on from what is in FOLDER, which may be
                                                    that of own_draws (the draws are the same);
                                                    writes dpo_lib/results/annotator.json and the
                                                    pairs of the third one's first seed,
                                                    data/annotator.jsonl
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpo_lib._files import replacing
from dpo_lib.cli.drawn import read_drawn
from dpo_lib.cli.judgements import Judgements, make_plan
from dpo_lib.experiments.by_commands import (
    Setting,
    Work,
    flip,
    row_of,
    split_prompts,
    work_from_arguments,
)
from dpo_lib.experiments.own_draws import ASKED as BRIEFLY
from dpo_lib.experiments.store import store

MODULE = "dpo_lib.experiments.annotator"  # also where it is run as a program
LABELED = Path(__file__).parent / "data" / "annotator.jsonl"  # by the third, first seed
SETTINGS = Setting(rate=1e-4, beta=0.1, steps=12), Setting(rate=1e-4, beta=0.1, steps=24)
SEEDS = range(3)
PAIRS, SLIPS = 40, 0.1
ASKED, EACH = 46, 2  # held-out prompts, and draws to each
ENDS_LESS, MOST_KL = 0.05, 3.0


def label(drawn: Path, out: Path, seed: int, likes: Callable[[str, str, bool], float]) -> Path:
    """What `label` writes when an annotator sits before it and stops after `PAIRS` preferences."""
    if out.exists():
        return out
    asked = {"seed": seed, "per_prompt": 1, "repeats": 0.0}
    plan = make_plan(read_drawn(drawn), asked["per_prompt"], asked["repeats"], seed)
    slips = random.Random(f"{seed}: slips")
    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder) / out.name
        with contextlib.closing(Judgements(begun, plan.pairs, asked)) as judgements:
            while judgements.rows < PAIRS:
                prompt, *sides, _ = plan.pairs[judgements.place]
                first, second = (likes(prompt, side.text, side.ended) for side in sides)
                better = ["first", "second"] if first > second else ["second", "first"]
                choice = "tie" if first == second else better[slips.random() < SLIPS]
                judgements.judge(judgements.events, choice, 0.0)
        with replacing(out) as file:
            file.write(begun.read_bytes())
    return out


def ranked(run: Path) -> float:
    """The share of the last update's pairs that the trained model ranks right."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    updates = [row for row in map(json.loads, lines) if row["kind"] == "update"]
    return updates[-1]["reward_accuracy"]


def verdict(rows: list[dict[str, Any]], who: str) -> dict[str, bool]:
    """Which points of the rule are met."""
    after = [row for row in rows if (row["who"], row["arm"]) == (who, "dpo")]

    def mean(side: str) -> float:
        return sum(row[side]["ends"]["share"] for row in after) / len(after)

    return {
        "wins": all(row["wins"]["low"] > 0.5 for row in after),
        "ends": mean("after") >= mean("before") - ENDS_LESS,
        "kl": sum(row["kl"]["mean"] for row in after) / len(after) < MOST_KL,
    }


def run(work: Work) -> list[dict[str, Any]]:
    """All of it; a row an evaluation."""
    rows: list[dict[str, Any]] = []

    def labeled(who: str, seed: int) -> Path:
        drawn = work.draw(f"drawn-{seed}", seed)
        return label(drawn, work.folder / f"{who}-labeled-{seed}.jsonl", seed, LIKES[who][0])

    def add(
        who: str, arm: str, setting: Setting, seed: int, pairs: Path, asked: str = "asked"
    ) -> dict[str, Any]:
        trained_as = arm.replace("grid", "dpo")
        trained = work.train(f"{who}-{trained_as}-{setting.steps}-{seed}", pairs, setting, seed)
        likes, shows = (f"{MODULE}:{function.__name__}" for function in LIKES[who])
        found = work.evaluate(trained, asked, EACH, seed, shows, "--judge", likes)
        row = {"who": who, **row_of(arm, seed, setting, found), "wins": found["wins"]}
        rows.append(row | {"ranked": ranked(trained)})
        return rows[-1]

    def add_all(who: str, setting: Setting) -> None:
        for seed in SEEDS:
            add(who, "dpo", setting, seed, labeled(who, seed))
        add(who, "flipped", setting, SEEDS[0], flip(labeled(who, SEEDS[0])))

    add_all("first", SETTINGS[0])
    tried = [
        add("second", "grid", setting, 0, labeled("second", 0), "choose") for setting in SETTINGS
    ]
    best = max(tried, key=lambda row: row["wins"]["share"])
    add_all("second", Setting.of(best))
    add_all("third", SETTINGS[0])
    return rows


def prompts() -> dict[str, list[str]]:
    """Act one's prompts to draw from, and some that are held out."""
    found = split_prompts(BRIEFLY)
    return {"train": found["train"], "choose": found["choose"], "asked": found["held_out"][:ASKED]}


def main() -> None:
    """Go on from what is in the folder."""
    work = work_from_arguments(__doc__, "own_draws", prompts())
    rows = run(work)
    with replacing(LABELED) as file:
        file.write((work.folder / "third-labeled-0.jsonl").read_bytes())
    settings = {"settings": SETTINGS, "seeds": SEEDS, "pairs": PAIRS, "slips": SLIPS}
    settings |= {"asked": ASKED, "each": EACH}
    store("annotator", settings, rows)
    for who in LIKES:
        for name, met in verdict(rows, who).items():
            print(f"{who:7} {name:5} {'met' if met else 'not met'}")


# --- what they like -------------------------------------------------------------------------------

LONG_WORD, LONG_SHARE = 8, 1 / 7  # letters; share of the words
SHORT_SENTENCE, FEW_WORDS = 15, 25  # words
NOTHING = -100.0  # below all that an answer can get
_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


def plain_words(prompt: str, answer: str, ended: bool) -> float:
    """The smaller the share of long words, the better."""
    words = re.findall(r"[A-Za-z']+", answer)
    return -sum(len(word) >= LONG_WORD for word in words) / max(1, len(words))


def has_plain_words(prompt: str, answer: str, ended: bool) -> bool:
    """Whether at most one word in seven is long."""
    return -plain_words(prompt, answer, ended) <= LONG_SHARE


def short_sentences(prompt: str, answer: str, ended: bool) -> float:
    """The fewer words a sentence has on average, one that was cut included, the better."""
    sentences = [part for part in _END.split(answer) if re.search(r"[A-Za-z]{2}", part)]
    return -len(answer.split()) / len(sentences) if sentences else NOTHING


def has_short_sentences(prompt: str, answer: str, ended: bool) -> bool:
    """Whether a sentence has at most 15 words on average."""
    return -short_sentences(prompt, answer, ended) <= SHORT_SENTENCE


def to_the_point(prompt: str, answer: str, ended: bool) -> float:
    """An answer that ends is better than one that was cut; the fewer words it has, the better."""
    return -len(answer.split()) if ended else NOTHING


def is_to_the_point(prompt: str, answer: str, ended: bool) -> bool:
    """Whether an answer ends, and within 25 words."""
    return -to_the_point(prompt, answer, ended) <= FEW_WORDS


LIKES = {
    "first": (plain_words, has_plain_words),
    "second": (short_sentences, has_short_sentences),
    "third": (to_the_point, is_to_the_point),
}


if __name__ == "__main__":
    main()
