"""tools/book.py: the book is built when its sources have changed, and until that has worked."""

import pytest

from tools import book as builder


def test_what_was_built_from_these_sources_stays_and_a_failure_does_not(tmp_path, monkeypatch):
    built, sources = [], "first"

    def run():
        built.append(sources)
        if sources == "broken":
            raise SystemExit("error")

    monkeypatch.setattr(builder, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(builder, "DIGEST", tmp_path / "_build" / "book.sha256")
    monkeypatch.setattr(builder, "source_digest", lambda: sources)
    monkeypatch.setattr(builder, "run_jupyter_book", run)
    assert builder.build() == builder.build() == builder.HTML / "index.html"
    assert built == ["first"]
    builder.build(force=True)
    assert built == ["first"] * 2
    sources = "broken"
    for _ in range(2):
        with pytest.raises(SystemExit):
            builder.build()
    sources = "first"  # what the failure left is not the book of the first build
    builder.build()
    assert built == ["first", "first", "broken", "broken", "first"]


def test_styles_and_extensions_are_sources_and_what_python_leaves_is_not():
    found = {path.relative_to(builder.ROOT).as_posix() for path in builder.source_files()}
    assert {"_toc.yml", "book/_static/book.css", "book/_ext/dpo_book.py"} <= found
    assert {"dpo_lib/losses/dpo.py", "dpo_lib/widgets/js/ui.js"} <= found
    assert not [name for name in found if "__pycache__" in name or "/." in name]
