"""How many inputs a property is tried on: few in the suite, and as many as EXAMPLES says by hand.

    EXAMPLES=10000 python -m pytest tests/properties

The suite tries the same inputs each time; a run by hand draws anew, and shrinks what it finds.
"""

import os

from hypothesis import HealthCheck, settings

from tests.helpers import deterministic

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def tried(few, parts=1):
    """Settings of a property that the suite tries on ``few`` inputs, in each of its ``parts``."""
    if not EXAMPLES:
        return settings(deterministic, max_examples=few, suppress_health_check=_SLOW)
    return settings(
        deterministic,
        max_examples=-(-EXAMPLES // parts),
        derandomize=False,
        print_blob=True,
        suppress_health_check=_SLOW,
    )


def outcome(function, *arguments, **named):
    """What a call returns, and the sentence with which it refuses its input; one of the two."""
    try:
        return function(*arguments, **named), ""
    except ValueError as error:
        return None, str(error) or "nothing said"
