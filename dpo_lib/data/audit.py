"""What to know about preference pairs, or thumbs, before training on them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dpo_lib.data.records import PreferenceRecord, UnpairedRecord, normalize_prompt
from dpo_lib.rewards import reward_auc

Record = PreferenceRecord | UnpairedRecord

LONGER = 0.7  # share of pairs with the same side longer that is worth a warning
ONE_WORD = 0.9  # share of pairs that one word tells apart
FEWEST = 8  # pairs below which shares mean nothing
_EMPTY_CELLS = ("nan", "none", "null", "n/a")  # as other programs write them
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_FOREIGN = re.compile(
    r"<\|(?:im_start|im_end|start_header_id|end_header_id|eot_id|user|assistant|system|end|eot)\|>"
    r"|<(?:start|end)_of_turn>|<｜(?:User|Assistant)｜>|\[/?INST\]|<<SYS>>"
    r"|### (?:Instruction|Response):"
)


def audit_pairs(
    records: Sequence[PreferenceRecord],
    rows: Sequence[dict[str, list[int]]] | None = None,
    known: Sequence[str] = (),
) -> list[str]:
    """Warnings about a set of pairs, a sentence each; none if nothing stands out.

    Parameters
    ----------
    records : sequence of PreferenceRecord
    rows : sequence of dict, optional
        Their token ids, by which length is measured; by characters without.
    known : sequence of str
        Control strings of the model's own template.

    Returns
    -------
    list of str
    """
    found = [
        *_repeats(records),
        *_contradictions(records),
        *_lengths(records, rows),
        *_words(records),
        *_foreign(records, known),
        *_beginnings(records),
        *_scores(records),
        *_empty_cells(records),
    ]
    return found


def audit_thumbs(
    records: Sequence[UnpairedRecord],
    rows: Sequence[dict[str, Any]] | None = None,
    known: Sequence[str] = (),
) -> list[str]:
    """`audit_pairs` for thumbs."""
    return [
        *_repeats(records),
        *_both_ways(records),
        *_lengths_of_thumbs(records, rows),
        *_words_of_thumbs(records),
        *_foreign(records, known),
        *_beginnings(records),
    ]


def about_weights(up: int, down: int, up_weight: float = 1.0, down_weight: float = 1.0) -> str:
    """What the paper says of KTO's weights for so many thumbs; empty where it is kept, about.

    Ethayarajh et al. (2024) keep the weight of all thumbs up between 1 and 4/3 times that of all
    thumbs down (arXiv:2402.01306; 3/2 in its fifth version, eq. 9). A little less is let pass.
    """
    if not up or not down:
        return f"all thumbs point {'up' if up else 'down'}: nothing is told apart"
    ratio = up * up_weight / (down * down_weight)
    if 0.8 <= ratio <= 1.5:
        return ""
    if ratio > 1:  # what is heavier keeps its weight, the other one gets more
        name, least, most = "undesirable_weight", down_weight * ratio * 3 / 4, down_weight * ratio
    else:
        name, least, most = "desirable_weight", up_weight / ratio, up_weight / ratio * 4 / 3
    return (
        f"thumbs up weigh {ratio:.2g} times what thumbs down do ({up:,} and {down:,}); KTO's paper "
        f"keeps that between 1 and 4/3: --option {name}={(least + most) / 2:.2g} "
        f"({least:.2f} to {most:.2f})"
    )


def _repeats(records: Sequence[Record]) -> Iterator[str]:
    """Identical prompts, and prompts that hardly differ."""
    thumbs = isinstance(records[0], UnpairedRecord)
    what = "thumbs" if thumbs else "pairs"
    number = Counter(record.prompt for record in records)
    forms: dict[str, set[str]] = defaultdict(set)
    for prompt in number:
        forms[normalize_prompt(prompt)].add(prompt)
    if len(records) >= FEWEST and len(number) == 1:
        yield f"all {len(records):,} {what} have one prompt: {records[0].prompt!r:.60}"
    elif len(records) > len(number) and not thumbs:  # of thumbs it is usual
        often, times = number.most_common(1)[0]
        some = sum(n for n in number.values() if n > 1)
        yield (
            f"{some:,} pairs have a prompt that another pair has too ({len(number):,} prompts in "
            f"all; most often, {times} times, {str(often)!r:.50})"
        )
    near = sorted(sorted(found) for found in forms.values() if len(found) > 1)
    if near:
        yield (
            f"{len(near):,} prompts are there in forms that differ in case, white space or last "
            f"marks alone, such as {near[0][0]!r:.50} and {near[0][1]!r:.50}; they stay on one "
            "side of the split"
        )


def _contradictions(records: Sequence[PreferenceRecord]) -> Iterator[str]:
    keys = [(normalize_prompt(r.prompt), r.chosen.strip(), r.rejected.strip()) for r in records]
    there = set(keys)
    against = {key for key in there if key[1] < key[2] and (key[0], key[2], key[1]) in there}
    if against:
        prompt, a, b = min(against)
        yield (
            f"{len(against):,} pairs are there both ways round, once with each response chosen, "
            f"such as {a!r:.40} and {b!r:.40} to {prompt!r:.50}"
        )


def _lengths(
    records: Sequence[PreferenceRecord], rows: Sequence[dict[str, list[int]]] | None
) -> Iterator[str]:
    if len(records) < FEWEST:
        return
    if rows is None:
        sizes = [(len(record.chosen), len(record.rejected)) for record in records]
    else:
        sizes = [(len(row["chosen"]), len(row["rejected"])) for row in rows]
    for name, i in (("chosen", 0), ("rejected", 1)):
        longer = sum(pair[i] > pair[1 - i] for pair in sizes)
        if longer > LONGER * len(sizes):
            yield (
                f"the {name} response is the longer one in {longer / len(sizes):.0%} of the pairs: "
                "the model may learn the length"
            )


def _words(records: Sequence[PreferenceRecord]) -> Iterator[str]:
    """A word that stands on one side only tells the sides apart without any understanding."""
    if len(records) < FEWEST:
        return
    number: dict[str, Counter[str]] = {"chosen": Counter(), "rejected": Counter()}
    for record in records:
        words = [{*_WORD.findall(text.casefold())} for text in (record.chosen, record.rejected)]
        number["chosen"].update(words[0] - words[1])
        number["rejected"].update(words[1] - words[0])
    best: list[tuple[int, str, str]] = []
    for name, other in (("chosen", "rejected"), ("rejected", "chosen")):
        for word, times in number[name].items():
            right = times - number[other][word]
            if right >= ONE_WORD * len(records):
                best.append((right, word, name))
    if best:
        right, word, name = min(best, key=lambda entry: (-entry[0], entry[1]))
        more = f" (and {len(best) - 1} more words do)" if len(best) > 1 else ""
        yield (
            f"the word {word!r} alone tells the {name} response in {right / len(records):.0%} of "
            f"the pairs{more}: accuracy will be high whatever else is learned"
        )


def _responses(record: Record) -> tuple[str, ...]:
    if isinstance(record, UnpairedRecord):
        return (record.response,)
    return record.chosen, record.rejected


def _both_ways(records: Sequence[UnpairedRecord]) -> Iterator[str]:
    verdicts: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for record in records:
        verdicts[normalize_prompt(record.prompt), record.response.strip()].add(record.desired)
    against = [key for key, found in verdicts.items() if len(found) > 1]
    if against:
        prompt, response = min(against)
        yield (
            f"{len(against):,} responses have thumbs both up and down, such as {response!r:.40} "
            f"to {prompt!r:.50}"
        )


def _lengths_of_thumbs(
    records: Sequence[UnpairedRecord], rows: Sequence[dict[str, Any]] | None
) -> Iterator[str]:
    up = torch.tensor([record.desired for record in records])
    if len(records) < FEWEST or up.all() or not up.any():
        return
    texts = [r.response for r in records] if rows is None else [row["response"] for row in rows]
    longer = reward_auc(torch.tensor([float(len(text)) for text in texts]), up).item()
    for name, share in (("up", longer), ("down", 1 - longer)):
        if share > LONGER:
            yield (
                f"a response with a thumb {name} is longer than one of the other kind in "
                f"{share:.0%} of all couples: the model may learn the length"
            )


def _words_of_thumbs(records: Sequence[UnpairedRecord]) -> Iterator[str]:
    """A word that tells thumbs up from thumbs down, both counted alike whatever their number."""
    number = Counter(record.desired for record in records)
    if len(records) < FEWEST or len(number) < 2:
        return
    times: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for record in records:
        times[record.desired].update({*_WORD.findall(record.response.casefold())})
    best: list[tuple[float, str, str]] = []
    for kind, name in ((True, "up"), (False, "down")):
        for word, there in times[kind].items():
            absent = 1 - times[not kind][word] / number[not kind]
            right = (there / number[kind] + absent) / 2
            if right >= ONE_WORD:
                best.append((right, word, name))
    if best:
        right, word, name = min(best, key=lambda entry: (-entry[0], entry[1]))
        more = f" (and {len(best) - 1} more words do)" if len(best) > 1 else ""
        yield (
            f"the word {word!r} alone tells thumbs {name} in {right:.0%} of the cases{more}: AUC "
            "will be high whatever else is learned"
        )


def _foreign(records: Sequence[Record], known: Sequence[str]) -> Iterator[str]:
    """Marks of a chat template that is not the model's."""
    marks: Counter[str] = Counter()
    for record in records:
        text = "\n".join((record.prompt, *_responses(record)))
        marks.update({*_FOREIGN.findall(text)} - {*known})
    if marks:
        shown = ", ".join(mark for mark, _ in marks.most_common(3))
        most = _count(max(marks.values()), records)
        yield (
            f"{most} hold marks of a chat template that is not this model's ({shown}): they are "
            "read as text"
        )


def _beginnings(records: Sequence[Record]) -> Iterator[str]:
    some = sum(
        len(r.prompt) > 20 and all(text.startswith(r.prompt) for text in _responses(r))
        for r in records
    )
    if some:
        both = "the response begins"
        if isinstance(records[0], PreferenceRecord):
            both = "both responses begin"
        yield f"in {_count(some, records)} {both} with the whole prompt, which is there twice"


def _scores(records: Sequence[PreferenceRecord]) -> Iterator[str]:
    """Columns of scores that say the opposite."""
    against: Counter[tuple[str, str]] = Counter()
    for record in records:
        for name, value in record.extra.items():
            other = name.replace("chosen", "rejected")
            if "chosen" in name and "rank" not in name.lower():
                scores = _number(value), _number(record.extra.get(other))
                if None not in scores and scores[0] < scores[1]:
                    against[name, other] += 1
    for (name, other), times in against.items():
        some = _count(times, records)
        yield f"in {some} {name} is below {other}; --score {name} turns them round"


def _empty_cells(records: Sequence[PreferenceRecord]) -> Iterator[str]:
    """Texts that are only what an empty cell is written as."""
    some = [
        text
        for record in records
        for text in (record.prompt, record.chosen, record.rejected)
        if text.strip().lower() in _EMPTY_CELLS
    ]
    if some:
        yield f"{len(some):,} texts are only {some[0].strip()!r}: was their cell empty?"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _count(number: int, records: Sequence[Record]) -> str:
    one = "thumb" if isinstance(records[0], UnpairedRecord) else "pair"
    return f"{number:,} {one}{'s' * (number != 1)}"
