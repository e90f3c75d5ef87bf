"""The command line: train, show, eval, sample, compare, demo."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Sequence

from dpo_lib.cli.parser import make_parser

_COMMANDS = {  # imported when called: the help page needs no torch
    "train": "dpo_lib.cli.train",
    "show": "dpo_lib.cli.show",
    "eval": "dpo_lib.cli.evaluate",
    "sample": "dpo_lib.cli.sample",
    "compare": "dpo_lib.cli.sample",
    "demo": "dpo_lib.cli.demo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 if all went well; 2 for wrong usage or data, 1 if training broke down, 130 if it was
        interrupted, each with one message on stderr.
    """
    args = make_parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("dpo_lib").setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft and transformers to each other
            module = importlib.import_module(_COMMANDS[args.command])
            return getattr(module, f"run_{args.command}")(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        then = "; the same command goes on where it stopped" if args.command == "train" else ""
        print(f"interrupted{then}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        sys.stderr.close()
        return 0
