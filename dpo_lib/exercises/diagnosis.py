"""What a reader's function returns, compared with what it should: in words, never the solution.

Plain Python without imports but `math`, so that a page of the book runs this very file in
MicroPython. A sheet is the content of one file in ``cases``; values are numbers, None, strings,
and lists of them.
"""

import math

NOT_YET = "Not written yet: put your own line in place of the dots."


def diagnose(function: object, sheet: dict, call: object = None) -> tuple:
    """Judge a function by the cases of a sheet.

    Parameters
    ----------
    function : callable
        The reader's.
    sheet : dict
        ``name``, ``arguments`` (names), ``cases`` and ``mistakes``; see `sheet.py`.
    call : callable, optional
        ``call(function, arguments)`` returns a plain value; by default the bare call.

    Returns
    -------
    right : bool
    words : str
        What is wrong, or "" where nothing is.
    wrong : list of int
        Which cases differ.
    """
    cases = sheet["cases"]
    expected = [case["value"] for case in cases]
    got = [observe(function, case["arguments"], call) for case in cases]
    wrong = [i for i in range(len(cases)) if not near(got[i], expected[i], sheet)]
    if not wrong:
        return True, "", wrong
    if all(x is Ellipsis for x in got):
        return False, NOT_YET, wrong
    words = _unfinished(function, got, sheet) or _known(got, expected, sheet)
    if not words and not sheet.get("facts"):  # facts that differ are named one by one
        words = (
            _uncalled(got)
            or _unsteady(function, got, sheet, call)
            or _only_extremes(got, wrong, sheet)
            or _fails(function, got[wrong[0]], sheet)
            or _other_kind(got, expected, wrong, sheet)
            or _exchanged(function, sheet, call)
            or _ignored(function, got, sheet, call)
            or _transformed(got, expected, sheet)
        )
    return False, " ".join(x for x in (words, _first(got, wrong, sheet)) if x), wrong


# --- values --------------------------------------------------------------------------------------


class Failed:
    """An error in place of a value."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __str__(self) -> str:
        text = str(self.error)
        return f"{type(self.error).__name__}: {text}" if text else type(self.error).__name__


def near(got: object, expected: object, sheet: dict | None = None) -> bool:
    """Whether two values are equal but for rounding, in the whole of a nested list."""
    if isinstance(got, Failed) or isinstance(expected, Failed):
        return False
    if _is_list(expected) or _is_list(got):
        if not (_is_list(expected) and _is_list(got)) or len(got) != len(expected):
            return False
        return all(near(a, b, sheet) for a, b in zip(got, expected))
    got, expected = _finite_or_not(got), _finite_or_not(expected)
    if not _is_number(expected) or not _is_number(got):
        return type(got) is type(expected) and _equal(got, expected)
    if got != got or expected != expected:  # NaN
        return got != got and expected != expected
    if abs(got) == math.inf or abs(expected) == math.inf:
        return got == expected
    tolerance = (sheet or {}).get("tolerance", 1e-6)
    return abs(got - expected) <= tolerance * (1 + abs(expected))


def _equal(one: object, other: object) -> bool:
    """Whether two values of one type are equal; such as tensors in a dict cannot be told apart."""
    try:
        return bool(one == other)
    except Exception:
        return True


def _finite_or_not(value: object) -> object:
    """JSON has no ∞ and no NaN: a sheet holds their names."""
    return float(value) if isinstance(value, str) and value in ("inf", "-inf", "nan") else value


def show(value: object, digits: int = 4) -> str:
    """A value as a reader would write it, four digits of each number."""
    if _is_list(value):
        shown = [show(part, digits) for part in value[:8]]
        return "[" + ", ".join(shown + (["…"] if len(value) > 8 else [])) + "]"
    if isinstance(value, Failed):
        return str(value)
    if callable(value):  # its repr holds an address
        return "a function"
    if isinstance(value, bool) or not _is_number(value):
        return repr(value)
    if isinstance(value, int) or value != value or abs(value) == math.inf:
        return str(value).replace("-", "−")
    text = ("%." + str(digits) + "g") % value
    return ("0" if float(text) == 0 else text).replace("-", "−")


def _bare(function: object, arguments: list) -> object:
    return function(*arguments)


def observe(function: object, arguments: list, call: object = None) -> object:
    """What a function returns, or `Failed`; by default of the bare call."""
    try:
        return (call or _bare)(function, [_copy(argument) for argument in arguments])
    except Exception as error:  # whatever the reader's code raises is an answer
        return Failed(error)


def _copy(value: object) -> object:
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _is_number(value: object) -> bool:
    if isinstance(value, int) and abs(value) > 1e300:  # more than a float can hold
        return False
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shape(value: object) -> list:
    shape = []
    while _is_list(value):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _flat(value: object) -> list:
    if not _is_list(value):
        return [value]
    return [x for part in value for x in _flat(part)]


# --- what may be wrong, the surest first ---------------------------------------------------------


def _unfinished(function: object, got: list, sheet: dict) -> str:
    """The code has not come to an answer in any case."""
    if all(x is None for x in got):
        return f"{sheet['name']} returns None: is the return missing?"
    if all(isinstance(x, Failed) for x in got):
        return _fails(function, got[0], sheet)
    return ""


def _fails(function: object, value: object, sheet: dict) -> str:
    """An error came in place of a value: what it means, if it is a common one."""
    if not isinstance(value, Failed):
        return ""
    return f"Your code stops with an error. {hint(value.error, function, sheet)}".strip()


HINTS = (  # kind of error, part of its text, what it means
    ("NameError", "", "A name is misspelled, or not imported."),
    ("RecursionError", "", "The function calls itself without end."),
    ("RuntimeError", "recursion", "The function calls itself without end."),
    ("ZeroDivisionError", "", "Something is divided by 0."),
    ("ValueError", "math domain", "The logarithm of 0, or of a number below 0, is asked for."),
    ("RuntimeError", "is ambiguous", "if, and, or, not want one truth; a tensor holds many."),
    ("RuntimeError", "in-place", "An argument is changed in place: make a new tensor."),
    ("RuntimeError", "numpy() on", "NumPy keeps no gradients: stay with PyTorch's functions."),
    ("", "one element tensors", "One number is wanted there, and a whole tensor comes."),
    ("", "converted to Scalar", "One number is wanted there, and a whole tensor comes."),
    ("RuntimeError", "does not require grad", "Nothing with gradients reaches what you derive."),
    (
        "RuntimeError",
        "scalar outputs",
        "backward() starts at one number, not at one for each pair.",
    ),
    ("RuntimeError", "same number of dim", "The index needs as many axes as what it picks from."),
    ("", "match", "Two shapes do not fit together: print both."),
    ("RuntimeError", "out of bounds", "The index runs over another axis than its numbers mean."),
    ("AttributeError", "PreferenceLoss", "dpo_loss returns three things: take the one you need."),
    ("AttributeError", "'float'", "A number has no such method: there is one in math."),
    ("TypeError", "list", "A list does not calculate as a whole: go through its numbers."),
)


def hint(error: Exception, function: object, sheet: dict) -> str:
    """What a common error means, or ""."""
    kind, text = type(error).__name__, str(error)
    name = getattr(function, "__name__", "") or sheet["name"]
    if kind == "TypeError" and "argument" in text and (name + "()" in text or "function" in text):
        names = sheet.get("called", sheet["arguments"])
        return f"It is called with {len(names)}: {', '.join(names)}."
    for of, part, words in HINTS:
        if kind == (of or kind) and part in text:
            return words
    if kind == "TypeError" and "Tensor" in text and "float" in text:
        return "A function for tensors was given a number, or the other way round."
    return ""


def _known(got: list, expected: list, sheet: dict) -> str:
    """The values are those of a mistake that we know: in every case, or in every ordinary one."""
    ordinary = [i for i, case in enumerate(sheet["cases"]) if not case.get("extreme")]
    for places in (range(len(got)), ordinary):
        if all(near(got[i], expected[i], sheet) for i in places):
            continue
        for mistake in sheet["mistakes"]:
            if all(same(mistake["values"][i], got[i], sheet) for i in places):
                return mistake["words"]
    return ""


def _uncalled(got: list) -> str:
    """A function came in place of a value."""
    if any(callable(value) for value in got):
        return "You return a function, not its value: are the parentheses missing?"
    return ""


def _unsteady(function: object, got: list, sheet: dict, call: object) -> str:
    """The same arguments give another value the second time."""
    for value, case in zip(got, sheet["cases"]):
        again = observe(function, case["arguments"], call)
        if not isinstance(value, Failed) and not near(again, value, sheet):
            return "Asked twice, it gives two answers: is something random, or kept between calls?"
    return ""


def same(stored: object, got: object, sheet: dict) -> bool:
    """Whether a mistake's stored value is what was found; errors are alike if their kind is."""
    if isinstance(stored, dict):
        return isinstance(got, Failed) and type(got.error).__name__ == stored["error"]
    return near(got, stored, sheet)


def _other_kind(got: list, expected: list, wrong: list, sheet: dict) -> str:
    """Another kind of thing is returned: words, True, a list of another shape, NaN."""
    i = wrong[0]
    value, right = got[i], expected[i]
    if isinstance(value, Failed):
        return ""
    shape, wanted = _shape(value), _shape(right)
    if shape != wanted:
        if wanted and not shape and _is_number(value):
            return "You return one number where one for each row is wanted: no mean, no sum."
        if shape and not wanted:
            many = len(value)
            if many == 1:
                many = max(len(got[k]) for k in wrong if _is_list(got[k]))
            if many == 1:
                return "You return a list that holds one number: return the number itself."
            return f"You return {many} values where one number is wanted."
        if not shape:
            return f"A list is wanted, not {show(value)}."
        return f"The shape is {tuple(shape)} and should be {tuple(wanted)}."
    parts, rights = _flat(value), _flat(right)
    for part, other in zip(parts, rights):
        if _is_number(other) and not _is_number(part):
            return f"A number is wanted, not {show(part)}."
    if any(x != x and y == y for x, y in zip(parts, rights)):
        return "NaN came out: somewhere 0 is divided by 0, or infinities are subtracted."
    return ""


def _exchanged(function: object, sheet: dict, call: object) -> str:
    """The function is right if two of its arguments change places."""
    names, cases = sheet["arguments"], sheet["cases"]
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            if not all(_shape(c["arguments"][i]) == _shape(c["arguments"][j]) for c in cases):
                continue
            values = [observe(function, _swap(c["arguments"], i, j), call) for c in cases]
            if all(near(value, c["value"], sheet) for value, c in zip(values, cases)):
                return f"{names[i]} and {names[j]} are exchanged somewhere."
    return ""


def _swap(arguments: list, i: int, j: int) -> list:
    swapped = list(arguments)
    swapped[i], swapped[j] = arguments[j], arguments[i]
    return swapped


def _ignored(function: object, got: list, sheet: dict, call: object) -> str:
    """An argument changes nothing in what is returned, where it should."""
    cases, unused = sheet["cases"], []
    for j, name in enumerate(sheet["arguments"]):
        seen = changes = False
        for i, case in enumerate(cases):
            for k, other in enumerate(cases):
                there = other["arguments"][j]
                if k == i or isinstance(got[i], Failed) or near(case["arguments"][j], there):
                    continue
                if _shape(case["arguments"][j]) != _shape(there):
                    continue
                moved = list(case["arguments"])
                moved[j] = there
                value = observe(function, moved, call)
                if isinstance(value, Failed):
                    continue
                seen = True
                changes = changes or not near(value, got[i], {"tolerance": 1e-12})
                if changes:
                    break
            if changes:
                break
        if seen and not changes:
            unused.append(name)
    if not unused:
        return ""
    if len(unused) == len(sheet["arguments"]):
        return "The arguments change nothing in what you return."
    if len(unused) > 1:
        return f"{', '.join(unused[:-1])} and {unused[-1]} change nothing in what you return."
    return f"{unused[0]} changes nothing in what you return."


def _transformed(got: list, expected: list, sheet: dict) -> str:
    """The right value, but for a sign, a factor, a constant, a logarithm."""
    pairs = []
    for value, right, case in zip(got, expected, sheet["cases"]):
        if isinstance(value, Failed) or case.get("extreme"):
            continue
        pairs.extend(zip(_flat(value), _flat(right)))
    pairs = [(x, y) for x, y in pairs if _is_number(x) and _is_number(y)]
    if len(pairs) < 2 or any(x != x or abs(x) == math.inf for x, _ in pairs):
        return ""
    if all(x == pairs[0][0] for x, _ in pairs):
        return f"You return {show(pairs[0][0])} in every case."
    for change, words in (
        (lambda y: -y, "The sign is turned round: you return minus the right value."),
        (lambda y: 1 - y, "You return 1 minus the right value."),
        (math.log, "You return the logarithm of the right value."),
        (math.exp, "You return exp of the right value."),
        (lambda y: -math.log(y), "You return minus the logarithm of the right value."),
        (lambda y: math.exp(-y), "You return exp of minus the right value: a probability?"),
        (lambda y: 1 / y, "You return 1 over the right value."),
        (lambda y: y * y, "You return the square of the right value."),
        (abs, "The size is right and the sign is lost."),
        (lambda y: max(y, 0), "Negative values have become 0."),
        (lambda y: -math.log(1 - math.exp(-y)), "It is −log(1 − P) where −log P is wanted."),
        (lambda y: y / math.log(2), "The logarithm has base 2: nats are wanted, so base e."),
        (lambda y: y / math.log(10), "The logarithm has base 10: nats are wanted, so base e."),
    ):
        if _all(pairs, change, sheet):
            return words
    (x, y) = max(pairs, key=lambda pair: abs(pair[1]))
    if y and x:
        factor = x / y
        if abs(factor - 1) > 1e-3 and _all(pairs, lambda y: factor * y, sheet):
            return f"You return {show(factor)} times the right value, in every case."
    offset = x - y
    if _all(pairs, lambda y: y + offset, sheet):
        return f"You return the right value plus {show(offset)}, in every case."
    moved = [(x, y) for x, y in pairs if not near(y, 0.0, sheet)]
    short = all(x * y > 0 and abs(x) < 1.05 * abs(y) for x, y in moved)
    if "short" in sheet and short:
        return sheet["short"]
    if all(abs(x - y) <= 0.02 * abs(y) + 1e-4 for x, y in pairs):
        return "Nearly right: something is rounded, or clipped, or a small constant is added."
    if len(moved) > 1 and all(x * y < 0 for x, y in moved):
        return "Every value has the wrong sign, and another size."
    return ""


def _all(pairs: list, change: object, sheet: dict) -> bool:
    try:
        return all(near(x, change(y), sheet) for x, y in pairs)
    except (ValueError, ZeroDivisionError, OverflowError):
        return False


def _only_extremes(got: list, wrong: list, sheet: dict) -> str:
    """Right for ordinary numbers, wrong for large ones, ties, empty rows."""
    if not all(sheet["cases"][i].get("extreme") for i in wrong):
        return ""
    where = f"Right for ordinary numbers, but not {sheet['cases'][wrong[0]]['extreme']}"
    if all(_is_number(x) and abs(x) < math.inf for x in _flat(got[wrong[0]])):
        return where + ": is something clipped, or a small constant added?"
    return where + "."


def _first(got: list, wrong: list, sheet: dict) -> str:
    """The first case that differs, with its numbers."""
    case, value, digits = sheet["cases"][wrong[0]], got[wrong[0]], 4
    if sheet.get("facts"):
        return _first_facts(case, value, sheet)
    if isinstance(value, Failed):
        came = f"your code raises {value}"
    else:
        while digits < 16 and show(value, digits) == show(case["value"], digits):
            digits += 4
        came = f"you return {show(value, digits)}"
    given = ", ".join(_given(n, v) for n, v in zip(sheet["arguments"], case["arguments"]))
    many = f"{len(wrong)} of {len(sheet['cases'])} cases differ. " if len(wrong) > 1 else ""
    what = case["what"][0].upper() + case["what"][1:]
    return f"{many}{what} ({given}): {came}, it should be {show(case['value'], digits)}."


def _given(name: str, value: object) -> str:
    """An argument, or its shape where the numbers would fill the page."""
    if len(_flat(value)) > 20 and _is_list(value[0]):
        return f"{name} of shape {tuple(_shape(value))}"
    return f"{name} = {show(value)}"


def _first_facts(case: dict, value: object, sheet: dict) -> str:
    """What is not as it should be, where not a value is judged but what was done."""
    if isinstance(value, Failed):
        return f"It raises {value}."
    if not _is_list(value):
        return "" if value is None else f"You return {value}."
    differ = [
        f"{name}: {_fact(fact)}, it should be {_fact(right)}"
        for name, fact, right in zip(sheet["facts"], value, case["value"])
        if not near(fact, right, sheet)
    ]
    return case["what"][0].upper() + case["what"][1:] + " – " + "; ".join(differ[:4]) + "."


def _fact(value: object) -> str:
    return value if isinstance(value, str) else show(value)
