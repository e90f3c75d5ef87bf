"""``python -m dpo_lib``: the command line."""

from dpo_lib.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
