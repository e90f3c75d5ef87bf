"""``show``: the whole of what it prints, and how token ids become text."""

import json

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from dpo_lib.cli import show
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.progress import Progress
from dpo_lib.models.chat import PretrainedTokenizer
from dpo_lib.models.tokenizers import InstructionTokenizer


def run(tmp_path, capsys, rows, *more):
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
    words = ["show", "--data", str(path), "--model", "tiny", *more]
    args = make_parser().parse_args(words)
    args.progress = Progress(False)
    assert show.run_show(args) == 0
    return capsys.readouterr().out.replace(str(path), "FILE")


def test_pairs_are_shown_as_the_model_reads_them(tmp_path, capsys):
    rows = [
        {"prompt": "List two metals.", "chosen": "gold.", "rejected": "iron."},
        {"prompt": "List two fruits.", "chosen": "red.", "rejected": "Zeppelin."},
        {"prompt": "List two colors.", "chosen": "red.", "rejected": "blue gold."},
        {"prompt": "List two fruits.", "chosen": "red.", "rejected": "blue."},
    ]
    assert (
        run(tmp_path, capsys, rows, "--rows", "2", "--skip-bad")
        == """\
FILE: 3 pairs, 3 prompts; skipped: 1 unknown words

pair 1 (line 2)
  prompt, not scored: 4 tokens
    List two metals.
  chosen, scored: 3 tokens
    ‹gold›‹.›‹<eos>›
  rejected, scored: 3 tokens
    ‹iron›‹.›‹<eos>›

pair 2 (line 4)
  prompt, not scored: 4 tokens
    List two colors.
  chosen, scored: 3 tokens
    ‹red›‹.›‹<eos>›
  rejected, scored: 4 tokens
    ‹blue›‹gold›‹.›‹<eos>›

tokens prompt up to 4, chosen up to 3, rejected up to 4; no chat template
       every column is used
"""
    )


def test_thumbs_are_shown_with_what_their_weights_come_to(tmp_path, capsys):
    rows = [
        {"prompt": f"List two {things}.", "completion": f"{answer}.", "label": answer == "red"}
        for things in ("metals", "colors")
        for answer in ("gold", "red", "iron")
    ]
    assert (
        run(tmp_path, capsys, rows, "--rows", "2")
        == """\
FILE: 6 thumbs (33% up), 2 prompts (2 with both kinds)

thumb 1 (line 2)
  prompt, not scored: 4 tokens
    List two metals.
  response, thumb down, scored: 3 tokens
    ‹gold›‹.›‹<eos>›

thumb 2 (line 3)
  prompt, not scored: 4 tokens
    List two metals.
  response, thumb up, scored: 3 tokens
    ‹red›‹.›‹<eos>›

tokens prompt up to 4, response up to 3; no chat template
       every column is used
look   thumbs up weigh 0.5 times what thumbs down do (2 and 4); KTO's paper keeps that between \
1 and 4/3: --option desirable_weight=2.3 (2.00 to 2.67)
"""
    )
    assert "weigh" not in run(tmp_path, capsys, rows[:2])


BYTES = InstructionTokenizer()


def shown(text, marked=False):
    head, *lines = show._shown("text", BYTES.encode_response(text), BYTES, marked).split("\n")
    assert head == f"  text: {len(text.encode()) + 1:,} tokens"
    return [line.removeprefix("    ") for line in lines]


def test_scored_tokens_stand_between_marks_and_others_together():
    assert shown("a\né") == ["a⏎", "é<eos>"]
    assert shown("a\né", marked=True) == ["‹a›‹⏎›‹\ufffd›‹\ufffd›‹<eos>›"]


def test_lines_fit_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(show, "WIDTH", 8)
    parts = ["no ", "on-off  ", "⏎", "⏎", "  x⏎", "yyyyyyyy", "yyyyyyyy", "yyyy ", "<eos>"]
    assert shown("no on-off  \n\n  x\n" + "y" * 20 + " ") == parts


def test_of_a_long_text_it_tells_how_much_it_leaves_out(monkeypatch):
    monkeypatch.setattr(show, "LONGEST", 4)
    assert shown("abc") == ["abc<eos>"]
    assert shown("abcdef") == ["ab [... 3 more tokens ...] f<eos>"]
    assert shown("abc", marked=True) == ["‹a›‹b›‹c›‹<eos>›"]
    assert shown("abcdef", marked=True) == ["‹a›‹b› [... 3 more tokens ...] ‹f›‹<eos>›"]
    (line,) = shown("a" * 4321)[:1]
    assert " [... 4,318 more tokens ...] " in line


def test_words_stay_apart_whose_space_a_tokenizer_drops_at_the_start():
    backend = Tokenizer(models.WordLevel({"▁Good": 0, "▁day": 1}, "▁day"))
    backend.decoder = decoders.Metaspace()  # as sentencepiece does
    tokenizer = PretrainedTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=".")
    )
    assert show._shown("text", [0, 1], tokenizer) == "  text: 2 tokens\n    Good day"
