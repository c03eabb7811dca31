"""A probe and machines of which plans and simulations can be told by hand."""

from typing import Any

import numpy as np

from jobs.plan import Hardware
from jobs.probe import Probe

EVEN = Probe(
    files=100_000,
    file_bytes=np.full(50, 4e6),
    read_share=0.5,
    clips=np.full(50, 1.0),
    decode_seconds=np.full(50, 0.5),
    score_seconds=np.full(40, 0.1),
    scored_share=0.8,
    view_bytes=1e6,
    load_seconds=30.0,
    driver_seconds=0.001,
    seconds=60.0,
    probed=50,
    rows=50,
    failed={"corrupt": 10},
    example="a.mp4: damaged",
    decode_bytes=300_000_000,
    score_bytes=2_000_000_000,
)
EIGHT = Hardware(cores=40, memory_gb=100, cards=8, price_per_hour=20.0, read_gbit=1.0)
TWO = Hardware(cores=2, memory_gb=16)


def replace_hardware(**changes: Any) -> Hardware:
    """EIGHT, some of it changed."""
    return EIGHT.model_copy(update=changes)
