"""Fixtures that tests share: a real browser, and a cache of their own."""

import gc
import os
import signal
import socket
import subprocess

import pytest

from tools.browser import MISSING, chromium, find_headless_chromium

gc.disable()  # what is collected stays: to look for garbage in it takes a third of that time


def pytest_collection_finish():
    """From now on there is garbage, but not in what has been collected."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_references(tmp_path_factory):
    """Nothing that an earlier version of the code computed is read, or left to the user."""
    os.environ["DPO_LIB_REFERENCES"] = str(tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard():
    """A shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    if find_headless_chromium() is None:
        pytest.fail(MISSING, pytrace=False)
    with chromium() as browser:
        yield browser
