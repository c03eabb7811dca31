"""How much of a repetitive proof is run: a part of it in the gate, all of it in `make test-all`."""

import os

FULL = bool(os.environ.get("VQA_TEST_FULL"))


def full(whole: int, *, gate: int) -> int:
    """`whole` in `make test-all`, else `gate`."""
    return whole if FULL else gate
