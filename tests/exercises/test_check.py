"""Exercises that check themselves: what is right passes, what is wrong is named."""

import json
import math

import pytest
import torch

from dpo_lib.exercises import check
from dpo_lib.exercises.all import EXERCISES, exercise_of
from dpo_lib.exercises.diagnosis import NOT_YET, diagnose, near, show
from dpo_lib.exercises.sheet import make_sheet, path_of, read_sheet

NUMBERS = [*EXERCISES]
MISTAKES = [(e.number, i) for e in EXERCISES.values() for i in range(len(e.mistakes))]


def words_of(number, function):
    verdict = check(number, function, seed=0)
    assert not verdict.right
    return verdict.words


@pytest.mark.parametrize("number", NUMBERS)
class TestSheets:
    def test_the_file_holds_what_the_library_gives_now(self, number):
        def agree(stored, made):
            if isinstance(stored, dict):
                return stored.keys() == made.keys() and all(agree(stored[k], made[k]) for k in made)
            if isinstance(stored, list):
                return len(stored) == len(made) and all(map(agree, stored, made))
            return near(stored, made) if isinstance(made, float) else stored == made

        made = json.loads(json.dumps(make_sheet(EXERCISES[number]), allow_nan=False))
        assert agree(read_sheet(number), made), "run python -m dpo_lib.exercises.all"

    def test_each_chapter_has_at_least_six_known_mistakes(self, number):
        assert len(EXERCISES[number].mistakes) >= 6

    def test_the_solution_is_right_and_sees_the_librarys_line(self, number):
        verdict = check(number, EXERCISES[number].solution, seed=0)
        assert verdict.right
        assert read_sheet(number)["line"].splitlines()[0].strip() in repr(verdict)

    def test_an_answer_that_is_not_yet_there_is_not_called_wrong(self, number):
        assert words_of(number, lambda *arguments: ...) == NOT_YET
        assert "return" in words_of(number, lambda *arguments: None)

    def test_an_answer_learned_by_heart_does_not_pass(self, number):
        exercise, sheet = EXERCISES[number], read_sheet(number)
        if exercise.probe and exercise.name != "fit_scores":
            return  # judged by what it does to a model, whose number changes
        known = [(exercise.tensors(case["arguments"]), case["value"]) for case in sheet["cases"]]

        def same(a, b):
            a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
            return a.shape == b.shape and bool((a == b).all())

        def by_heart(*given):
            for arguments, value in known:
                if all(map(same, arguments, given)):
                    return torch.tensor(value, dtype=torch.float64)
            return torch.tensor(0.0)

        assert "fresh" in words_of(number, by_heart)

    def test_a_wrong_number_of_arguments_is_said(self, number):
        assert "argument" in words_of(number, lambda: 0.0)


@pytest.mark.parametrize(("number", "i"), MISTAKES)
def test_each_known_mistake_gets_its_own_words(number, i):
    exercise = EXERCISES[number]
    mistake = exercise.mistakes[i]
    found = words_of(number, mistake.function)
    assert found.startswith(mistake.words)
    line = read_sheet(number)["line"]
    assert not [part for part in line.splitlines() if len(part) > 12 and part.strip() in found]


def test_an_unknown_exercise_and_no_function_are_refused():
    with pytest.raises(ValueError, match=r"number must be one of 1\.1, .*, 10\.1, got '99'"):
        check("99", abs)
    with pytest.raises(ValueError, match="function must be a function, got 3"):
        check("9.2", 3)


def test_values_without_gradients_are_not_enough_where_gradients_must_flow():
    exercise = exercise_of("9.2")
    assert "no gradient" in words_of("9.2", lambda *a: exercise.solution(*a).detach())
    assert "no gradient" in words_of(
        "8.1", lambda p, r, beta: torch.tensor((beta * (p - r)).tolist())
    )
    half = words_of("8.1", lambda p, r, beta: beta * (p - r.detach()))
    assert "gradients are not" in half


def loss(function):
    return words_of("9.2", function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda c, r, rc, rr, b: torch.stack([c, r]), "You return 2 values where one number"),
        (lambda c, r, rc, rr, b: "0.69", "A number is wanted, not '0.69'"),
        (lambda c, r, rc, rr, b: c > r, "A number is wanted, not False"),
        (
            lambda c, r, rc, rr, b: EXERCISES["9.2"].solution(c, r, rc, rr, b) * 2,
            "2 times the right",
        ),
        (lambda c, r, rc, rr, b: EXERCISES["9.2"].solution(c, r, rc, rr, b) + 1, "value plus 1,"),
        (
            lambda c, r, rc, rr, b: EXERCISES["9.2"].solution(c, r, rc, 0 * rc - 5, b),
            "ref_rejected changes nothing",
        ),
        (
            lambda c, r, rc, rr, b: EXERCISES["9.2"].solution(c, r, rc, rr, 0.1),
            "beta changes nothing",
        ),
        (
            lambda c, r, rc, rr, b: EXERCISES["9.2"].solution(r, c, rc, rr, b),
            "chosen and rejected are",
        ),
        (lambda c, r, rc, rr, b: math.nan * c, "NaN came out"),
        (lambda c, r, rc, rr, b: undefined, "misspelled, or not imported"),  # noqa: F821
        (lambda c, r, rc, rr, b: torch.tensor(0.3), "The arguments change nothing"),
        (
            lambda c, r, rc, rr, b: EXERCISES["9.2"].solution(c, r, rc, rr, b).round(decimals=3),
            "Nearly",
        ),
    ],
)
def test_what_nobody_foresaw_is_still_described(function, words):
    found = loss(function)
    assert words in found
    assert "it should be" in found  # and the first case that differs, with its numbers


def test_a_function_that_changes_its_arguments_changes_nothing_for_the_next_case():
    def impatient(values):
        values.append(0.5)
        return sum(values)

    sheet = {"name": "f", "arguments": ["values"], "mistakes": []}
    sheet["cases"] = [{"what": "one", "arguments": [[1.0]], "value": 1.5}] * 2
    assert diagnose(impatient, sheet) == (True, "", [])


def test_numbers_are_shown_as_a_reader_writes_them():
    assert show([-0.12345678, 3, math.inf, None, "a"]) == "[−0.1235, 3, inf, None, 'a']"
    assert show(-1e-12) == "−1e−12"
    assert show([0.0] * 9).endswith("…]")


def test_infinite_values_are_told_from_large_ones():
    assert near(math.inf, "inf")
    assert not near(18.4, "inf")
    assert near(math.nan, "nan")
    assert not near(1.0, "nan")


def test_every_sheet_belongs_to_an_exercise():
    folder = path_of("1.1").parent
    assert {p.stem for p in folder.glob("*.json")} == set(EXERCISES)
