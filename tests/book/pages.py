"""The pages of the book, as its table of contents has them."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"


def _files(node):
    """Every document named in a part of the table of contents."""
    for key in ("root", "file"):
        if key in node:
            yield node[key]
    for key in ("parts", "chapters", "sections"):
        for child in node.get(key, []):
            yield from _files(child)


DOCUMENTS = list(_files(yaml.safe_load((ROOT / "_toc.yml").read_text())))
PAGES = [f"{name}.html" for name in DOCUMENTS]
CHAPTERS = [name for name in DOCUMENTS if name.startswith("notebooks/")]
APPENDICES = [name for name in DOCUMENTS if name.startswith("book/appendices/")]
NOTEBOOKS = [name for name in CHAPTERS + APPENDICES if (ROOT / f"{name}.ipynb").is_file()]
EVERY_PAGE = [*PAGES, "search.html", "genindex.html"]
