"""A real browser, and what it asks for: what tools and tests share.

Playwright is imported by what starts a browser alone: most tests need none.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HEADLESS_SHELL = "chromium-headless-shell"
CHROMIUM_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
FIREFOX_NAMES = ("firefox-esr", "firefox", "/Applications/Firefox.app/Contents/MacOS/firefox")
MISSING = "Chromium is missing: run tools/system.sh chromium"
# Chromium looks up its maker's hosts by itself unless it is told not to.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
AT_REST = 0.25  # seconds without a request after which a page has come to rest


# --- programs ---------------------------------------------------------------------------------


def find_chromium() -> str | None:
    """Return the path of Chromium: the one named by CHROMIUM, or the first that is installed."""
    return first_program(os.environ.get("CHROMIUM", ""), *CHROMIUM_NAMES, CHROMIUM_ON_MACOS)


def find_headless_chromium() -> str | None:
    """Return the path of Chromium's shell without windows, or else Chromium's.

    It draws and runs pages as Chromium does, and takes half the processor's time.
    """
    return first_program(os.environ.get("CHROMIUM", ""), HEADLESS_SHELL) or find_chromium()


def find_firefox() -> str | None:
    """Return the path of Firefox: the one named by FIREFOX, or the first that is installed."""
    return first_program(os.environ.get("FIREFOX", ""), *FIREFOX_NAMES)


def first_program(*names: str) -> str | None:
    """Return the path of the first of these programs that is there."""
    return next((path for name in names if name and (path := shutil.which(name))), None)


@contextlib.contextmanager
def chromium(find: Callable[[], str | None] = find_headless_chromium) -> Iterator[Browser]:
    """Start Chromium without a window; `find_chromium` takes the whole one, to measure it."""
    path = find()
    if path is None:
        raise SystemExit(f"error: {MISSING}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=list(QUIET), chromium_sandbox=False
        )
        yield browser
        browser.close()


# --- pages ------------------------------------------------------------------------------------


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without writing a log."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback address; its address."""
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def stay_inside(page: Page) -> None:
    """Fail at the first request to another host."""

    def refuse(route: Any) -> None:
        raise SystemExit(f"error: the book asked for {route.request.url}")

    page.route(re.compile(r"^(?!file:|data:|blob:)"), refuse)


class Watch:
    """Collects what a page requests and what it complains about; ``base`` is where the book is."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.outside, self.errors, self.responses = [], [], []
        self.last = time.monotonic()  # when a request was heard of

    def __call__(self, page: Page) -> None:
        """Watch a page that is about to be opened."""
        page.on("request", self._requested)
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        page.on("response", lambda response: self.responses.append(response))
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("console", self._said)

    def _requested(self, request: Any) -> None:
        self.last = time.monotonic()
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.outside.append(request.url)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text}")

    def rest(self, page: Page) -> None:
        """Wait until nothing has been asked for during a quarter of a second."""
        page.wait_for_timeout(1)  # what has happened is heard of
        while (left := self.last + AT_REST - time.monotonic()) > 0:
            page.wait_for_timeout(1000 * left)

    def problems(self) -> list[str]:
        """Return what was asked for outside, what failed, and what the page complained about."""
        bad = [f"status {r.status}: {r.url}" for r in self.responses if r.status >= 400]
        return [*(f"outside: {url}" for url in self.outside), *self.errors, *bad]

    def weight(self) -> dict[str, int]:
        """Bytes of all responses but fonts."""
        return {
            response.url.removeprefix(self.base): len(response.body())
            for response in self.responses
            if response.request.resource_type != "font"
        }
