"""``python -m dpo_lib``: the command line."""

import signal
import sys


def _start() -> int:
    try:
        from dpo_lib.cli import main

        return main()
    except KeyboardInterrupt:  # before the command itself has begun
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    code = _start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is Python's own tidying up
    raise SystemExit(code)
