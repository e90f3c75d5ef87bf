"""The Content-Security-Policy of every page: nothing is asked of another host."""

import http.server
import threading

import pytest

from tests.book.pages import HTML, PAGES, parsed

CHARSET = b'<meta charset="utf-8" />'
SEEN_FOR_CHARSET = 1024  # bytes of a page that browsers look through
# What a page might do to reach another host, by the directive that forbids it. The form comes last:
# it may lead away.
WAYS = {
    "script-src-elem": "add('script', { src: outside + 'script' })",
    "style-src-elem": "add('link', { rel: 'stylesheet', href: outside + 'style' })",
    "img-src": "add('img', { src: outside + 'image' })",
    "connect-src": "fetch(outside + 'fetch', { mode: 'no-cors' }).catch(() => {})",
    "frame-src": "add('iframe', { src: outside + 'frame' })",
    "form-action": "add('form', { method: 'post', action: outside + 'form' }).submit()",
}
REFUSED = """() => {
    window.refused = [];
    const note = (event) => window.refused.push(event.effectiveDirective);
    document.addEventListener("securitypolicyviolation", note);
}"""
ADD = """const add = (tag, fields) =>
    document.body.appendChild(Object.assign(document.createElement(tag), fields));"""


class Listener(http.server.BaseHTTPRequestHandler):
    """Another host: it notes what is asked of it."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def outside():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        server.asked, server.address = [], f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_every_page_begins_with_the_policy(book):
    static = HTML / "_static"  # which has templates of the theme
    pages = [file for file in HTML.rglob("*.html") if not file.is_relative_to(static)]
    assert pages
    for file in pages:
        text = file.read_bytes()
        page = parsed(file)
        first = (page.head or page).find()
        assert first.get("http-equiv") == "Content-Security-Policy", file
        assert first["content"].startswith("default-src 'none'; "), file
        assert page.head is None or CHARSET in text[:SEEN_FOR_CHARSET], file


@pytest.mark.parametrize("name", PAGES)
def test_no_text_of_the_book_brings_a_script(book, name):
    article = parsed(HTML / name).find("article")
    assert article.select("script:not([type='application/json'])") == []


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("without", [False, True])
def test_a_page_reaches_no_other_host(browser, site, outside, scheme, without):
    context = browser.new_context(bypass_csp=without)
    page = context.new_page()
    page.goto(site[scheme] + "book/how_to_run.html")
    page.evaluate(REFUSED)
    for way in WAYS.values():
        page.evaluate(f"(outside) => {{ {ADD} {way}; }}", outside.address)
    page.wait_for_timeout(1000)
    refused = page.evaluate("window.refused")
    context.close()
    assert len(outside.asked) == (len(WAYS) if without else 0), outside.asked
    assert sorted(refused) == ([] if without else sorted(WAYS))


def test_a_page_runs_no_script_but_the_books(open_page):
    page = open_page("book/how_to_run.html")
    page.evaluate(REFUSED)
    page.evaluate(f"() => {{ {ADD} add('script', {{ textContent: 'window.ran = true' }}); }}")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<p onclick=\"ran = true\">.</p>')"
    )
    page.evaluate("document.body.lastElementChild.click()")
    page.wait_for_timeout(200)
    assert page.evaluate("window.refused") == ["script-src-elem", "script-src-attr"]
    assert page.evaluate("window.ran") is None
