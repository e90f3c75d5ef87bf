"""The command ``label``: two answers side by side in a page of this machine, and you choose."""

from __future__ import annotations

import argparse
import errno
import json
import os
import secrets
import shlex
import sys
import threading
import webbrowser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dpo_lib.cli.drawn import Answer, read_drawn
from dpo_lib.cli.judgements import Judgements, OutOfStep, Plan, count, make_plan
from dpo_lib.data.files import digest_files
from dpo_lib.widgets import join

TEMPLATE = Path(__file__).with_name("label.html")
HOST = "127.0.0.1"
LONGEST = 1000  # bytes of what the page may send
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def run_label(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, then say what came of it."""
    out = Path(args.out)
    drawn = read_drawn(args.drawn, args.encoding)
    plan = make_plan(drawn, args.per_prompt, args.repeats, args.seed)
    settings = {"sha256": digest_files(args.drawn)}
    settings |= {name: getattr(args, name) for name in ("seed", "per_prompt", "repeats")}
    judgements = Judgements(out, plan.pairs, settings)
    try:
        server = Server(judgements, args.port)
    except BaseException:
        judgements.close()
        raise
    try:  # whoever reads the address may press Ctrl-C at once
        for line in _opening(plan, judgements):
            print(line)
        print(f"label them at {server.address} (this machine only); Ctrl-C ends", flush=True)
        if not args.no_browser and _has_browser():
            threading.Thread(target=webbrowser.open, args=[server.address], daemon=True).start()
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
        server.lock.acquire()  # what is being kept is kept, and nothing after it
        judgements.close()
    for line in summary(judgements):
        print(line)
    if judgements.trouble:
        raise OSError(judgements.trouble)
    return 0


def _opening(plan: Plan, judgements: Judgements) -> list[str]:
    """What there is to judge; a sentence each."""
    lines = [f"note   {note}" for note in plan.notes]
    if judgements.torn:
        lines.append(
            "note   a judgment that was being written when the last run was killed is asked again"
        )
    if judgements.judged:
        lines.append(f"{len(judgements.judged)} judged before, {judgements.left} left")
    else:
        pairs = count(len(plan.pairs) - plan.repeats, "pair")
        lines.append(f"{pairs}, {plan.repeats} of them asked twice")
    return lines


def _has_browser() -> bool:
    """Whether one can open in a window of its own; one in the terminal would take it."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def summary(judgements: Judgements) -> list[str]:
    """What came of it, and what to do next; a sentence each."""
    rows, ties = judgements.rows, judgements.number("tie")
    skipped, left = judgements.number("skip"), judgements.left
    lines = [
        f"{count(len(judgements.judged), 'judgment')}: {count(rows, 'preference')}, "
        f"{count(ties, 'tie')}, {skipped} skipped, {left} left."
    ]
    seconds = judgements.median_seconds()
    if seconds is not None:
        lines.append(f"Half of them took at most {seconds:.1f} seconds.")
    lines += judgements.habits()
    if left:
        lines.append("The same command goes on where you stopped.")
    if rows:
        lines.append(f"Next: {next_command(judgements.out)}")
    return lines


def next_command(out: Path) -> str:
    """How to train on the rows."""
    return f"python -m dpo_lib train --data {shlex.quote(str(out))} --out runs/mine"


class Server(ThreadingHTTPServer):
    """Answers this machine, and of its programs only those that know the token.

    Parameters
    ----------
    judgements : Judgements
    port : int
        0 for a free one.

    Raises
    ------
    ValueError
        If the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, judgements: Judgements, port: int = 0) -> None:
        self.judgements = judgements
        self.lock = threading.Lock()
        self.token = secrets.token_urlsafe()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
            raise ValueError(f"--port {port} {why}; without --port a free one is used") from error
        self.hosts = tuple(f"{name}:{self.server_port}" for name in (HOST, "localhost"))
        page = TEMPLATE.read_text(encoding="utf-8")
        self.files = {
            "": ("text/html", page),
            "label.css": ("text/css", join.page_css("label.js")),
            "label.js": ("text/javascript", join.classic("label.js", "module_label.start();")),
        }

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, *of: Any) -> None:
        """Say nothing of a browser that hung up; anything else is a fault of ours."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(*of)

    def state(self) -> dict[str, Any]:
        """What the page shows now."""
        now = self.judgements
        found: dict[str, Any] = {
            "event": now.events,
            "seen": len(now.judged),
            "left": now.left,
            "rows": now.rows,
            "ties": now.number("tie"),
            "skipped": now.number("skip"),
            "median": now.median_seconds(),
            "out": str(now.out),
            "trouble": now.trouble,
            "pair": None,
        }
        if now.place < len(now.plan):
            pair = now.plan[now.place]
            sides = {"first": _shown(pair.first), "second": _shown(pair.second)}
            found["pair"] = {"prompt": pair.prompt, **sides}
        else:
            found["summary"] = now.habits()
            found["next"] = next_command(now.out) if now.rows else ""
        return found


def _shown(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "ended": answer.ended}


class _Refused(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dpo_lib", ""
    error_content_type, error_message_format = "text/plain; charset=utf-8", "%(message)s\n"
    timeout = 60  # seconds in which an open connection says something

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, *_: object) -> None:
        """Leave the terminal alone."""

    def _answer(self, how: Any) -> None:
        try:
            kind, text = how(self._name())
            status = HTTPStatus.OK
        except OutOfStep:  # the page catches up
            with self.server.lock:
                kind, text = _json(self.server.state())
            status = HTTPStatus.CONFLICT
        except _Refused as error:
            kind, text, status = "text/plain", f"{error}\n", error.status
            self.close_connection = True  # what it sent may not have been read
        data = text.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _name(self) -> str:
        """What is asked for, if whoever asks may."""
        # Another name means that a page of elsewhere let its name lead to this machine.
        if self.headers["Host"] not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN, "not by this name")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _Refused(HTTPStatus.FORBIDDEN, "not from another page")
        token, _, name = self.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND, "not without the token that the terminal shows")
        return name

    def _get(self, name: str) -> tuple[str, str]:
        if name == "state":
            with self.server.lock:
                return _json(self.server.state())
        if name not in self.server.files:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        return self.server.files[name]

    def _post(self, name: str) -> tuple[str, str]:
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise _Refused(HTTPStatus.FORBIDDEN, "not from another page")
        if name not in ("judge", "undo"):
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        sent = self._sent()
        judgements = self.server.judgements
        with self.server.lock:
            try:
                if name == "undo":
                    judgements.undo(sent["event"])
                else:
                    judgements.judge(sent["event"], sent["choice"], sent["seconds"])
            except OutOfStep:
                raise
            except (KeyError, ValueError) as error:
                raise _Refused(HTTPStatus.BAD_REQUEST, f"not a judgment: {error}") from error
            except OSError as error:
                why = f"The judgment cannot be kept: {error.strerror}."
                raise _Refused(HTTPStatus.INSUFFICIENT_STORAGE, why) from error
            return _json(self.server.state())

    def _sent(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LONGEST} bytes")
        try:
            sent = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"not JSON: {error}") from error
        if not isinstance(sent, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "not an object")
        return sent


def _json(value: object) -> tuple[str, str]:
    return "application/json", json.dumps(value)
