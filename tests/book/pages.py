"""The pages of the book, as its table of contents has them."""

import dpo_contents

ROOT = dpo_contents.ROOT
HTML = ROOT / "_build" / "html"

DOCUMENTS = dpo_contents.PAGES
PAGES = [f"{name}.html" for name in DOCUMENTS]
CHAPTERS = list(dpo_contents.CHAPTERS.values())
APPENDICES = list(dpo_contents.APPENDICES.values())
NOTEBOOKS = dpo_contents.NOTEBOOKS
EVERY_PAGE = [*PAGES, "search.html", "genindex.html"]
