"""The table of processors, threads and versions: which rows there are, and how a line gets in."""

import pytest

from tools import everywhere
from tools.everywhere import HEAD, TABLE, Row, count, has, merged

LINE = dict.fromkeys(HEAD, "x")


def test_each_row_is_held_to_what_it_says(monkeypatch):
    monkeypatch.setattr(everywhere, "has", lambda instructions: instructions != "avx512")
    names = [row.name for row in everywhere.rows()]
    one, two = (f"{everywhere.PYTHON}-{packages}" for packages in ("pinned", "newest"))
    pinned = [f"{one}-{name}-{threads}" for name in ("default", "avx2") for threads in (1, 2)]
    assert names == [*pinned, f"{two}-avx2-1"]
    seen = Row("avx2", 2).environment()
    assert (seen["ATEN_CPU_CAPABILITY"], seen["ONEDNN_MAX_CPU_ISA"]) == ("avx2", "AVX2")
    assert (seen["OMP_NUM_THREADS"], seen["MKL_NUM_THREADS"]) == ("2", "2")


def test_what_the_processor_has_not_is_no_row(monkeypatch):
    assert has("default")
    monkeypatch.setitem(everywhere.ONEDNN, "avx9000", "AVX2")
    assert not has("avx9000")


def test_a_line_takes_the_place_of_the_old_one():
    head = TABLE.read_text(encoding="utf-8").split("|---")[0] + "|---|\n"
    first, second = ({**LINE, "run": name} for name in ("a-1", "a-12"))
    text = merged(merged(head, first), second)
    assert text.endswith(f"|---|\n| a-1 |{' x |' * 10}\n| a-12 |{' x |' * 10}\n")
    assert merged(text, {**first, "day": "y"}) == text.replace(
        f"| a-1 |{' x |' * 10}", f"| a-1 |{' x |' * 9} y |"
    )


def test_what_failed_is_counted(tmp_path):
    report = tmp_path / "report.xml"
    suite = '<testsuite tests="{}" failures="2" errors="1"/>'
    report.write_text(f"<testsuites>{suite.format(9)}</testsuites>")
    assert count(report) == (9, 3)
    report.write_text(f"<testsuites>{suite.format(0)}</testsuites>")
    with pytest.raises(ValueError, match="no output was compared"):
        count(report)


def test_the_table_has_the_heads_of_a_line():
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [*HEAD]
    assert all(line.count("|") == len(HEAD) + 1 for line in lines)
