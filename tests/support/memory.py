"""Peak of the memory that torch allocates, measured on a GPU or, by the profiler, on a CPU."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile


class Peak:
    """Bytes beyond those allocated at the start; set when the block ends."""

    bytes: float = 0.0


@contextmanager
def measured() -> Iterator[Peak]:
    """The peak of what the block allocates, over what there was before it."""
    peak = Peak()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated() - before
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        yield peak
    results = profiled.profiler.kineto_results
    assert results is not None
    events = sorted((one for one in results.events() if one.name() == "[memory]"), key=lambda one: one.start_ns())
    now = 0
    for event in events:
        now += event.nbytes()
        peak.bytes = max(peak.bytes, now)
