"""Fixtures that tests share: a real browser, and a cache of their own."""

import os
import shutil
import socket
import subprocess

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HEADLESS_SHELL = "chromium-headless-shell"
CHROMIUM_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
# Chromium looks up its maker's hosts by itself unless it is told not to.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


FIREFOX_NAMES = ("firefox-esr", "firefox", "/Applications/Firefox.app/Contents/MacOS/firefox")


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


@pytest.fixture(scope="session", autouse=True)
def own_references(tmp_path_factory):
    """Nothing that an earlier version of the code computed is read, or left to the user."""
    os.environ["DPO_LIB_REFERENCES"] = str(tmp_path_factory.mktemp("references"))


@pytest.fixture
def no_network(monkeypatch):
    """No socket can be made, and no program run that might make one."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, one for each test process: Playwright cannot be started twice in one."""
    from playwright.sync_api import sync_playwright

    chromium = find_headless_chromium()
    if chromium is None:
        pytest.fail("Chromium is missing: run tools/system.sh chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=list(QUIET), chromium_sandbox=False
        )
        yield browser
        browser.close()
