"""What the engine calls the kind of an answer, said with the world's own judge."""

import re

from dpo_lib.world import find_prompt, judge, reward


def kind_of(prompt, text, finished=True):
    judgment = judge(prompt, text, finished)
    if judgment.malformed:
        return "malformed"
    asked = find_prompt(prompt)
    whole = f"{prompt} {text}" if asked and asked.is_completion else text
    kinds = {reward._parse(part.strip())[0] for part in re.findall(r"[^.?]*[.?]|[^.?]+$", whole)}
    if "rude" in kinds:
        return "rude"
    if not kinds & reward._ANSWERS:
        return "no answer"
    return "right" if judgment.correct else "wrong"
