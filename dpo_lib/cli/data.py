"""From a file to pairs that a model can read, with every pair that cannot be used named."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping

from dpo_lib.cli.models import DEFAULT_LENGTH, OpenModel
from dpo_lib.data import PreferenceRecord
from dpo_lib.data.formats import PreferenceFile, Problem, read_preferences


def read_pairs(
    path: str, rename: Mapping[str, str], skip_bad: bool
) -> tuple[PreferenceFile, dict[str, int]]:
    """Read a file; what is bad stops with an error, or is counted and left out.

    Returns
    -------
    file, skipped
        Without problems; and the number of rows of each kind that were left out.
    """
    return _without_bad(read_preferences(path, rename), path, skip_bad)


def fit_to_model(
    file: PreferenceFile, path: str, opened: OpenModel, max_length: int | None, skip_bad: bool
) -> tuple[list[PreferenceRecord], dict[str, int]]:
    """The records that the model can read whole; the others are bad rows too."""
    limit = min(max_length or DEFAULT_LENGTH, opened.context)
    if max_length is not None and max_length > opened.context:
        raise ValueError(
            f"--max-length {max_length} is above what the model can read ({opened.context})"
        )
    records, lines, problems = [], [], []
    for record, line in zip(file.records, file.lines, strict=True):
        try:
            length = _length(record, opened)
        except ValueError as error:  # words that the model does not know
            problems.append(Problem(line, "unknown words", str(error)))
            continue
        if length > limit:
            reason = f"prompt and response have {length} tokens, above {limit} (--max-length)"
            problems.append(Problem(line, "too long", reason))
            continue
        records.append(record)
        lines.append(line)
    whole, skipped = _without_bad(
        PreferenceFile(records, lines, problems, file.unit), path, skip_bad
    )
    return whole.records, skipped


def describe(records: list[PreferenceRecord], skipped: Mapping[str, int]) -> str:
    """Counts of what is used and what is not, in a line."""
    prompts = len({record.prompt for record in records})
    same = Counter((record.prompt, record.chosen, record.rejected) for record in records)
    repeated = sum(number - 1 for number in same.values())
    parts = [f"{len(records)} pairs, {prompts} prompts"]
    if repeated:
        parts.append(f"{repeated} of them repeat another one (kept)")
    if skipped:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(skipped.items()))
        parts.append(f"skipped: {kinds}")
    return "; ".join(parts)


def _length(record: PreferenceRecord, opened: OpenModel) -> int:
    encode = opened.tokenizer.encode_response
    prompt = len(opened.tokenizer.encode_prompt(record.prompt))
    return prompt + max(len(encode(record.chosen)), len(encode(record.rejected)))


def _without_bad(
    file: PreferenceFile, path: str, skip_bad: bool
) -> tuple[PreferenceFile, dict[str, int]]:
    if not file.problems:
        return file, {}
    text = f"{path}: {file.describe_problems()}"
    if not skip_bad:
        raise ValueError(f"{text}\n--skip-bad leaves them out")
    if not file.records:
        raise ValueError(f"{text}\nno row is left")
    print(f"{text}\nskipped (--skip-bad)", file=sys.stderr)
    return file._replace(problems=[]), dict(Counter(p.kind for p in file.problems))
