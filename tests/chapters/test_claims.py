"""Every number in the text of the book is computed: the rows of claims.yaml, and the machine."""

import functools
import importlib
import inspect
import json
import textwrap
from pathlib import Path

import dpo_api
import pytest

from tools import claims
from tools.claims import ClaimError, File, Place, agrees, read_number

FILES = claims.book_files()


@functools.cache
def rows():
    return claims.load_claims()


# --- the book ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_what_the_text_says_is_what_the_code_gives(name):
    problems = claims.open_file(name, rows()).problems()
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("name", FILES)
def test_every_number_in_the_text_has_a_row(name):
    missing = claims.open_file(name, rows()).uncovered()
    assert not missing, "\n" + "\n".join(missing)


def test_sections_are_files_of_the_book_in_order():
    names = list(rows())
    assert not set(names) - set(FILES), "sections for files that are not in the book"
    assert names == sorted(names), "keep the sections in the order of their paths"
    assert all(isinstance(section, list) and section for section in rows().values())


# --- the machine: numbers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "half"),
    [
        ("0.8455", 0.8455, 0.5e-4),
        (".5", 0.5, 0.05),
        ("1.70", 1.7, 0.005),
        ("-1.7", -1.7, 0.05),
        ("−1.7", -1.7, 0.05),  # U+2212
        ("+0.9", 0.9, 0.05),
        ("50", 50, 0.5),
        ("25,600", 25600, 0.5),
        ("25{,}600", 25600, 0.5),
        (r"25\,600", 25600, 0.5),
        ("25\u202f600", 25600, 0.5),
        ("1,234,567.8", 1234567.8, 0.05),
        ("72.5 %", 72.5, 0.05),
        (r"72.5\,\%", 72.5, 0.05),
        (r"36.8\%", 36.8, 0.05),
        ("1e-9", 1e-9, 0.5e-9),
        ("2.5e3", 2500, 50),
        ("10^{-9}", 1e-9, 0.5e-9),
        ("10^6", 1e6, 0.5e6),
        (r"2\times10^{-7}", 2e-7, 0.5e-7),
        (r"1.5 \cdot 10^{3}", 1500, 50),
        ("3·10⁻⁴", 3e-4, 0.5e-4),
        ("2.1 × 10^5", 2.1e5, 0.5e4),
        ("$0.34$", 0.34, 0.005),
        (r"\mathbf{0.34}", 0.34, 0.005),
        ("**0.34**", 0.34, 0.005),
        ("3/4", 0.75, 1e-9),
        ("¾", 0.75, 1e-9),
        (r"-\tfrac14", -0.25, 1e-9),
        (r"\frac{5}{16}", 0.3125, 1e-9),
        ("five", 5, 1e-9),
        ("Twelve", 12, 1e-9),
        ("twice", 2, 1e-9),
        ("A third", 1 / 3, 1e-9),
    ],
)
def test_printed_numbers_are_read(text, value, half):
    number, ulp = read_number(text)
    assert number == pytest.approx(value, rel=1e-12)
    assert ulp == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("text", ["", "P", "0.1 0.2", "1.2.3", "0.5 to 0.6", "5 10^3", "-"])
def test_what_is_not_one_number_is_refused(text):
    with pytest.raises(ValueError, match="cannot read"):
        read_number(text)


@pytest.mark.parametrize(
    ("text", "value", "fits"),
    [
        ("0.846", 0.84553, True),
        ("0.845", 0.84553, False),
        ("0.845", 0.8455, True),  # a tie may go either way
        ("0.846", 0.8455, True),
        ("0.155", 0.15447, False),
        ("0.154", 0.15447, True),
        ("0", 0.49, True),
        ("1.0", 0.94, False),
        ("25,600", 25_600.4, True),
        ("10^{-9}", 1.4e-9, True),
        ("10^{-9}", 1.6e-9, False),
        ("−0.5", 0.5, False),
        ("0.5", float("nan"), False),
        ("5", float("inf"), False),
    ],
)
def test_a_value_is_rounded_as_it_is_printed(text, value, fits):
    assert agrees(text, value) is fits


def test_about_needs_a_tolerance():
    assert not agrees("50", 51.3)
    assert agrees("50", 51.3, tolerance=2)
    assert not agrees("50", 53, tolerance=2)


# --- the machine: which numbers need a row -------------------------------------------------------


def needed(text, **options):
    return [match[0] for match in Place("", textwrap.dedent(text), **options).numbers]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("The probability is 0.8455, or 84.6 %.", ["0.8455", "84.6"]),
        ("| 1.7 | 0.846 |", ["1.7", "0.846"]),
        (r"$e^{-1.7} = 0.1827$ and $x\times10^{-7}$", ["1.7", "0.1827", "10", "7"]),
        ("$$\n\\sigma(5) = .993\n$$", ["5", ".993"]),
        ("25,600 or $25{,}600$ or 1e-9", ["25,600", "25{,}600", "1e-9"]),
        ("[1, 4, 50257]", ["4", "50257"]),
        ("7B, 20×, −6, 10 %, 2 %, 1%, ¾", ["7", "20", "6", "10", "2", "1", "¾"]),
        ("0, 1, 2 and ½; $1 - x^2$", []),
        (r"$\frac12 + \tfrac{1}{2}$", []),
        ("1.0 and 2.0", ["1.0", "2.0"]),
        ("see chapters 3, 4 and 6, chapter 9, Chapters 4–6, Figure 3, Table 5, Appendix 7", []),
        ("exercise 5, Section 3.4, step 7; step size 0.1; 7 steps", ["0.1", "7"]),
        ("chapter 3, 50 times more", ["50"]),
        ("`x = 3.5` and ``a ` 4`` but 4.5", ["4.5"]),
        ("{numref}`fig-3`, {cite:p}`key2017` and {math}`x = 3.5`", ["3.5"]),
        (
            "<https://a.b/3.4> https://a.b/35?x=77 [text 5](page_8.md) <img width=300 alt='x'>",
            ["5"],
        ),
        ("$a<b, c = 0.3, d>4$", ["0.3", "4"]),
        ("Python 3.11, torch==2.13.0, v1.2.3, arXiv:2305.18290, 02_bradley_terry.ipynb", []),
        ("float32, GPT-2, UTF-8, 64-bit, k1, r_10, $r_{10}$, $y_3$", []),
        ("(sec-12)=\n# 3. Title\n## 2.1 More\n### Chapter 4\n1. one\n10) ten\n", []),
        ("## 50 times more", ["50"]),
        ("<!-- 3.5 -->\n% 4.5\n[^5]", []),
        ("_0.35_ and **0.45**", ["0.35", "0.45"]),
        ("The price of 5 apples\\. It takes 25 minutes.", ["5", "25"]),
        (
            "Five seeds; in three of five held-out runs,\ntwelve prompts",
            ["Five", "three", "five", "twelve"],
        ),
        (
            "Four times as large, ten times the KL; twice as many,\nhalf as many, five times that",
            ["Four", "ten", "twice", "half", "five"],
        ),
        ("done four times, the three times of a run, twice a day, half of the page", []),
        ("two runs, four reasons, `five seeds`, one of the seeds, a twenty-five seeds mix", []),
    ],
)
def test_numbers_that_need_a_row(text, numbers):
    assert needed(text) == numbers


def test_directives():
    text = """\
    ---
    title: 33
    ---
    ```{figure} a33.png
    :width: 33
    :name: fig-33

    A caption with 0.1.
    ```
    ````{admonition} Title with 0.2
    ---
    class: 33
    ---
    Body with 0.3.

    ```python
    x = 33
    ```
    after the code 0.4
    ````
    :::{note}
    0.5
    :::
    ```{code-cell}
    33
    ```
    ```{math}
    :label: eq-33
    x = 0.6
    ```
    ```
    33
    ```
    ~~~text
    ```
    33
    ~~~
    ```{list-table} 0.7
    * - 0.8
    ```
    0.9
    """
    assert needed(text) == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]


def test_minutes_need_no_row_in_the_heads_of_chapters_and_exercises():
    assert needed("Takes about 20–25 minutes, not 3 hours.", header=True) == ["3"]
    assert needed("About 45 minutes, and 40 more with all the exercises.", header=True) == []
    exercise = """\
    ````{exercise} Recover from 6 (12 minutes)
    :label: ex-7

    *Difficulty 3 of 5, 15 min.*
    It takes 8 minutes.
    ````
    It takes 9 minutes.
    """
    assert needed(exercise) == ["6", "8", "9"]


# --- the machine: rows ---------------------------------------------------------------------------

PROSE = (
    "The winner scores 2.5 and the loser 0.8, so that "
    "$P = \\sigma(2.5 - 0.8) = 0.8455$\nor about 85 % {cite}`bradley1952rank`."
)
GIVEN = {"given": "winner scores 2.5 and the loser 0.8"}
VALUE = {
    "words": r"$P = \sigma(2.5 - 0.8) = [[0.8455]]$ or",
    "value": "bradley_terry_probability(2.5, 0.8)",
}
PERCENT = {"words": "about [[85]] %", "value": "100 * bradley_terry_probability(2.5, 0.8)"}


@pytest.fixture
def write(tmp_path):
    """A function that writes a small notebook and returns it with its rows."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "references.bib").write_text("@article{bradley1952rank,\n}\n")

    def write(*rows, text=PROSE, output="", metadata=None):
        code = {
            "cell_type": "code",
            "source": [],
            "metadata": metadata or {},
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": output.splitlines(True)},
                {"output_type": "execute_result", "data": {"text/plain": ["0.375"]}},
            ],
        }
        first = {"cell_type": "markdown", "source": ["# Title"], "metadata": {}}
        prose = {"cell_type": "markdown", "source": text.splitlines(True), "metadata": {}}
        (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [first, first, prose, code]}))
        return claims.open_file("a.ipynb", {"a.ipynb": list(rows)}, tmp_path)

    return write


def test_right_rows_pass(write):
    file = write(GIVEN, VALUE, PERCENT)
    assert file.problems() == []
    assert file.uncovered() == []


def test_a_wrong_number_in_the_text_fails(write):
    file = write(GIVEN, VALUE, PERCENT, text=PROSE.replace("0.8455", "0.8465"))
    assert "stand nowhere" in file.problems()[0]
    wrong = {**VALUE, "words": VALUE["words"].replace("0.8455", "0.8465")}
    file = write(GIVEN, wrong, PERCENT, text=PROSE.replace("0.8455", "0.8465"))
    assert len(file.problems()) == 1
    assert "the text says 0.8465" in file.problems()[0]
    assert "0.84553" in file.problems()[0]


def test_a_number_without_a_row_fails_and_is_told_where(write):
    (message,) = write(GIVEN, VALUE).uncovered()
    assert "a.ipynb, cell 3: 85 lies in no row" in message
    assert "or about 85 % {cite}" in message
    assert "words: 'or about [[85]] %'" in message


def test_the_advice_keeps_the_sign_and_whole_words(write):
    (message,) = write(
        text="up to a gap of $-8$ and further on from there, step by step"
    ).uncovered()
    assert "words: 'up to a gap of $[[-8]]$ and further on'" in message


def test_lines_are_told_in_markdown_files(tmp_path):
    (tmp_path / "b.md").write_text("# A\n\nOne\ntwo 3.5\n")
    (message,) = claims.open_file("b.md", {}, tmp_path).uncovered()
    assert message.startswith("b.md, line 4: 3.5 lies in no row")


def test_inputs_are_covered_only_when_the_expression_has_them(write):
    other = {**VALUE, "value": "bradley_terry_probability(1.7, 0.0)"}
    file = write(GIVEN, other, PERCENT)
    assert file.problems() == []
    (message,) = file.uncovered()
    assert "2.5, 0.8 lie in no row" in message
    assert r"[[2.5]] - [[0.8]]" in message


def test_inputs_may_come_from_let_rows_and_percentages(write):
    text = "With 1.7 the result is 0.8455; at 30 % it is 0.3."
    row = {"words": "With 1.7 the result is [[0.8455]]", "value": "sigma"}
    share = {"words": "at 30 % it is [[0.3]]", "value": "0.3 * 1"}
    let = {"let": {"gap": "1.7 + 0", "sigma": "1 / (1 + math.exp(-gap))"}}
    file = write(let, row, share, text=text)
    assert file.problems() == file.uncovered() == []
    assert "NameError" in write(row, share, let, text=text).problems()[0]


def test_code_rows_define_functions(write):
    code = {"code": "def double(x):\n    return 2 * x\nstart = 3.5\n"}
    row = {"words": "doubling 3.5 gives [[7]]", "value": "double(start)"}
    file = write(code, row, text="doubling 3.5 gives 7")
    assert file.problems() == file.uncovered() == []
    assert "ZeroDivisionError" in write({"code": "1 / 0"}, text="").problems()[0]
    broken = write({"code": "1 /"}, text="3.5")
    assert "SyntaxError" in broken.problems()[0]
    assert len(broken.uncovered()) == 1


def test_counts_in_words_are_computed_too(write):
    row = {"words": "in [[three]] of [[five]] seeds", "value": ["1 + 2", "len(range(5))"]}
    text = "It falls in three of five seeds."
    file = write(row, text=text)
    assert file.problems() == file.uncovered() == []
    assert len(write(text=text).uncovered()) == 1
    wrong = {**row, "words": "in [[four]] of [[five]] seeds"}
    file = write(wrong, text=text.replace("three", "four"))
    (message,) = file.problems()
    assert "the text says four, but 1 + 2 gives 3.0" in message


def test_words_match_whole_numbers_only(write):
    row = {"words": "[[0.5]] nats", "value": "1 / 2"}
    text = "0.5 nats, then 10.5 nats, −0.5 nats and -0.5 nats"
    (message,) = write(row, text=text).uncovered()
    assert "10.5, 0.5, 0.5 lie in no row" in message
    row = {"words": "is [[0.5]]", "value": "1 / 2"}
    for text in ("is 0.55", "is 0.5e-3", "is 0.5 %", r"is 0.5\times10^3", "is 0.5,1"):
        assert "nowhere" in write(row, text=text).problems()[0]


def test_all_occurrences_are_covered_and_white_space_is_free(write):
    row = {"words": "the mean is [[0.5]]", "value": "1 / 2"}
    file = write(row, text="Here the mean is 0.5. There the\n  mean is\n0.5.")
    assert file.problems() == file.uncovered() == []


def test_words_that_say_which_way_rest_on_what_decides_it(write):
    row = {"words": "a larger beta ends nearer", "holds": "abs(1 / 3.0) < abs(1 / 0.5)"}
    text = "At 3.0 and 0.5, a larger beta ends nearer."
    file = write(row, text=text)
    assert file.problems() == []
    assert len(file.uncovered()) == 1  # no number is covered by a direction
    (message,) = write(row, text=text.replace("nearer", "farther")).problems()
    assert "stand nowhere" in message
    for holds, said in [
        ("abs(1 / 3.0) > abs(1 / 0.5)", "is false"),
        (["1 < len('ab')", "torch.tensor(1.0) > 1"], "torch.tensor(1.0) > 1 is false"),
        ("True", "'True' is no computation"),
        ("3 > 2", "'3 > 2' is no computation"),
        ("len('a')", "gives 1, not True or False"),
    ]:
        (message,) = write({**row, "holds": holds}, text=text).problems()
        assert said in message
    (message,) = write({**row, "words": "a larger beta ends [[nearer]]"}, text=text).problems()
    assert "a holds row has none" in message


def test_captions_and_alt_texts_are_text(write):
    settings = {"mystnb": {"image": {"alt": "falls to 0.3"}, "figure": {"caption": "up to 0.4"}}}
    messages = write(text="", metadata=settings).uncovered()
    assert [message.split(":")[0] for message in messages] == [
        "a.ipynb, cell 4, caption",
        "a.ipynb, cell 4, alt text",
    ]


def test_what_a_bet_says_is_text(tmp_path):
    spec = {"title": "Your bet: more than 3.5?", "data": {"said": "It is 4.5.", "why": ["5.5"]}}
    html = '<div data-dpo-widget="bet"><script type="application/json">{}</script></div>'
    shown = {"output_type": "display_data", "data": {"text/html": [html.format(json.dumps(spec))]}}
    cell = {"cell_type": "code", "source": [], "metadata": {}, "outputs": [shown]}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    (place,) = claims.read_places(tmp_path / "a.ipynb")
    assert place.name == "cell 1, bet"
    assert place.text == "Your bet: more than 3.5?\nIt is 4.5.\n5.5"


def test_a_question_of_a_quiz_is_text_with_its_verdicts(tmp_path):
    asked = {"question": "How many?", "right": ["3.5", "Count."], "wrong": [["4.5", "No."]]}
    (tmp_path / "1.json").write_text(json.dumps([asked]))
    (place,) = claims.read_places(tmp_path / "1.json")
    assert place.name == "question 1"
    assert place.text == "How many?\nRight: 3.5 -> Count.\nWrong: 4.5 -> No."


MODULE = '''\
"""A module of 3.1."""

BETA: float = 0.1
"""Above 3.2; `BETA = 3.3`."""
_BETA = 0.1  # 33
RATE = 33  # of 3.4
PLAIN = 33


class Sizes:
    """Of 3.5."""

    width: int = 33  # of 3.6

    def __init__(self):
        """Take 33."""

    @property
    def half(self):
        """Half of 3.7."""


def loss(x, y, *terms):
    r"""The loss of 3.8: :math:`x^2 + 3.9` (Author, arXiv:2305.18290).

    >>> loss(33)
    33

    Parameters
    ----------
    x, y : Tensor of 33
        Above 4.1.
    *terms : tuple
        At most 4.2.

    References
    ----------
    Author (1933), eq. 33.

    Notes
    -----
    .. math:: x = 4.3
    """
    """33"""


def _loss():
    """Of 33."""
'''


def test_docstrings_of_public_names_are_text(tmp_path):
    (tmp_path / "a.py").write_text(MODULE)
    places = {place.name: place for place in claims.read_places(tmp_path / "a.py")}
    assert [*places] == ["", "BETA", "RATE", "Sizes", "Sizes.width", "Sizes.half", "loss"]
    found = " ".join(match[0] for place in places.values() for match in place.numbers)
    assert found == "3.1 3.2 3.4 3.5 3.6 3.7 3.8 3.9 4.1 4.2 4.3"
    assert places["Sizes.width"].text == "width: of 3.6"
    assert "x, y :\n    Above 4.1." in places["loss"].text


def test_the_docstrings_that_are_read_are_those_of_the_api_page():
    texts = {name: claims.read_places(claims.ROOT / name) for name in claims.DOCUMENTED}
    files = set()
    for module, names in dpo_api.public_names().items():
        home = importlib.import_module(module)
        for name in names:
            value = inspect.unwrap(getattr(home, name))
            defined = inspect.isroutine(value) or inspect.isclass(value)
            path = inspect.getsourcefile(value if defined else home)
            file = Path(path).relative_to(claims.ROOT).as_posix()
            files.add(file)
            said = value.__doc__ if defined else dpo_api.descriptions(home).get(name)
            if said and file in texts:
                assert name in {place.name for place in texts[file]}, file
    assert files >= {*claims.DOCUMENTED}


def test_a_row_may_read_the_code_that_draws_a_figure(write):
    settings = {"mystnb": {"figure": {"caption": "Left: a.", "name": "fig-a"}}}
    row = {"words": "Left: a.", "holds": "figure('fig-a') == ''"}
    assert write(row, metadata=settings).problems() == []
    (message,) = write({**row, "holds": "figure('fig-b') == ''"}, metadata=settings).problems()
    assert "no figure 'fig-b'" in message


def test_numbers_from_outputs(write):
    text = "The error falls from 0.34 to 0.02; N = 100; three eighths: 0.375."
    rows = [
        {
            "words": "falls from [[0.34]] to [[0.02]]; N = 100",
            "output": [r"N = 100: RMSE (\S+)", r"N = 9999: RMSE (\S+)"],
        },
        {"words": "eighths: [[0.375]]", "value": r"printed('^(0\.375)$')"},
    ]
    output = "N = 100: RMSE 0.3412\nN = 9999: RMSE 0.0199\n"
    file = write(*rows, text=text, output=output)
    assert file.problems() == file.uncovered() == []
    wrong = write(*rows, text=text, output=output.replace("0.3412", "0.3512"))
    assert "the text says 0.34" in wrong.problems()[0]
    assert "finds 0" in write(*rows, text=text).problems()[0]
    twice = write(*rows, text=text, output=output + "N = 100: RMSE 0.3\n")
    assert "finds 2 different" in twice.problems()[0]


def test_stored_experiments(write, tmp_path):
    (tmp_path / "x.json").write_text('{"kl": 0.123}')
    row = {"words": "the KL is [[0.12]]", "value": "stored('x.json')['kl']"}
    assert write(row, text="the KL is 0.12").problems() == []


def test_cited_numbers_need_a_source_that_the_text_cites(write):
    text = "In 72.5 % of the cases {cite}`bradley1952rank`"
    row = {"cited": "In 72.5 % of the cases", "source": "bradley1952rank"}
    file = write(row, text=text)
    assert file.problems() == file.uncovered() == []
    assert "not in" in write({**row, "source": "nobody"}, text=text).problems()[0]
    assert "does not cite" in write(row, text="In 72.5 % of the cases").problems()[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"given": "the winner scores 9.9"}, "stand nowhere"),
        ({"given": "The winner scores"}, "no number"),
        ({"given": "winner scores [[2.5]]"}, "has none"),
        ({**PERCENT, "words": "about 85 %"}, "in [[ ]]"),
        ({**PERCENT, "words": "[[85]]"}, "some text around"),
        ({**PERCENT, "value": "85"}, "no computation"),
        ({**PERCENT, "value": 85}, "no computation"),
        ({**PERCENT, "value": "-85.0"}, "no computation"),
        ({**PERCENT, "value": ["1 + 1", "2 + 2"]}, "1 numbers in"),
        ({**PERCENT, "value": "85 +"}, "SyntaxError"),
        ({**PERCENT, "value": "nobody(1)"}, "NameError"),
        ({**PERCENT, "value": "1 / 0"}, "ZeroDivisionError"),
        ({**PERCENT, "value": "bool(1)"}, "no number"),
        ({**PERCENT, "value": "torch.ones(2) * 1"}, "no single number"),
        ({**PERCENT, "output": "x"}, "none of"),
        ({"words": "about [[85]] %"}, "none of"),
        ({"words": "about [[85 %]] {cite}", "output": "(a)(b)"}, "one group"),
        ({"words": "about [[85 %]] {cite}", "output": "("}, "missing )"),
        ({"words": 85, "value": "80 + 5"}, "quoted text"),
        ("about 85 %", "mapping"),
    ],
)
def test_rows_that_are_no_good(write, row, message):
    (problem,) = write(row).problems()
    assert message in problem
    assert problem.startswith("a.ipynb, row 1 (")


def test_tolerance(write):
    row = {"words": "about [[85]] %", "value": "86.3 + 0", "tolerance": 2}
    assert write(row).problems() == []
    assert write({**row, "tolerance": 1}).problems()


def test_tensors_and_arrays_of_one_element_are_numbers(write):
    row = {"words": "about [[85]] %", "value": "torch.tensor([85.2])"}
    assert write(row).problems() == []
    assert write({**row, "value": "np.array(85.2)"}).problems() == []


def test_a_section_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text("a.md:\n  - given: x 3\nb.md: []\na.md: []\n")
    with pytest.raises(ClaimError, match=r"a\.md stands twice"):
        claims.load_claims(path)


def test_an_empty_file_of_rows_is_fine(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text("# nothing\n")
    assert claims.load_claims(path) == {}
    assert File("a.md", [Place("", "no numbers")], []).uncovered() == []
