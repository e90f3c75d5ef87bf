"""The recipes of CONTRIBUTING.md: what they name is there."""

import re
from pathlib import Path

import pytest

from dpo_lib.losses import form, relatives

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = ("token_bars", "11_name")  # files that the reader makes
SPANS = [span for code in re.findall(r"`([^`]+)`", TEXT) for span in code.split()]
PATHS = sorted(
    {span for span in SPANS if re.fullmatch(r"(?:[\w.]+/)+[\w.]*|\w[\w.]*\.(?:md|yml|toml)", span)}
)


@pytest.mark.parametrize("path", [p for p in PATHS if not any(e in p for e in EXAMPLES)])
def test_a_path_that_is_named_exists(path):
    assert (ROOT / path).exists()


def test_the_environment_is_renewed_with_all_that_it_is_made_of():
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    made_of = {"requirements.txt", "pyproject.toml", *re.findall(r"^-[cr] (\S+)", required, re.M)}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (renewed,) = re.findall(r"^\$\(READY\): (.+)$", makefile, re.M)
    assert {*renewed.split()} == made_of


def test_there_are_recipes_with_files_and_a_command():
    recipes = dict(
        re.findall(r"^## (An? [^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    )
    assert len(recipes) >= 5
    for name, recipe in recipes.items():
        assert any(path in recipe for path in PATHS), name
        assert re.search(r"`pytest tests/\w+", recipe), name


def test_the_decorators_of_losses_are_named_in_full():
    named = {span for span in SPANS if span.startswith("on_")}
    assert named == {name for name in vars(form) if name.startswith("on_")}
    assert isinstance(relatives.RELATIVES, tuple)


def test_commands_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"`make (\w+)", TEXT):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
    assert "CPU=avx2" in TEXT
    assert "ifneq ($(CPU),)" in makefile
