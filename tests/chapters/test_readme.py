"""The README: its example prints what stands beside it, and what it names is there."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from dpo_lib.cli.parser import make_parser
from tools.wheel import differences, example

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "book/how_to_run.md")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(code):
    """Run code and return the lines that it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    return printed.getvalue().splitlines()


def test_the_example_prints_what_stands_beside_it():
    assert differences(example(), run(example())) == []


def test_a_comment_begins_with_the_whole_line():
    code = "print(a)  # 0.693  log 2\nprint(b)  # [1, 2]\n"
    assert differences(code, ["0.693", "[1, 2]"]) == []
    assert differences(code, ["0.69", ""]) == [("0.69", "0.693  log 2"), ("", "[1, 2]")]


@pytest.mark.parametrize("number", ["0.8455", "2.5, 0.8):.4f", "0.20 -0.10", "-0.0426", "beta=0.1"])
def test_a_changed_number_is_noticed(number):
    code = example()
    last = max(i for i, c in enumerate(number) if c.isdigit())
    changed = number[:last] + str((int(number[last]) + 1) % 10) + number[last + 1 :]
    assert number in code
    code = code.replace(number, changed, 1)
    assert differences(code, run(code)) != []


def test_the_example_has_ten_lines():
    assert len([s for s in example().splitlines() if s.strip() and not s.startswith("#")]) == 10


@pytest.mark.parametrize("page", PAGES)
def test_code_on_the_page_runs(page):
    for code in blocks((ROOT / page).read_text(encoding="utf-8"), "python"):
        run(code)


@pytest.mark.parametrize("page", PAGES)
def test_commands_named_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`|/chromium )make ([a-z]+)", text, re.MULTILINE))
    assert {"book", "test", "lab"} <= named
    missing = {name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)}
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_command_line_can_be_typed(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(r"^\s*python -m dpo_lib (.+?)(?:  +#.*)?$", text, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        assert make_parser().parse_args(shlex.split(command)).command == command.split()[0]


def test_every_command_stands_in_the_table_of_commands():
    text = (ROOT / "book" / "how_to_run.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| `python -m dpo_lib …` \|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row)]
    (commands,) = (a.choices for a in make_parser()._actions if a.choices)
    assert sorted(named) == sorted(commands)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("https://"):
            assert ((ROOT / page).parent / target).exists(), target


def test_every_folder_is_on_the_map():
    named = set(re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE))
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert named <= folders
    assert {"notebooks", "dpo_lib", "book", "tests", "tools"} <= named


def test_the_picture_is_there_and_described():
    alt, path = re.search(r"!\[([^\]]*)\]\(([^)]+)\)", README).groups()
    picture = ROOT / path
    assert len(alt) > 40
    assert picture.stat().st_size <= 200_000
    width = int.from_bytes(picture.read_bytes()[16:20], "big")  # of a PNG
    assert width >= 1000
