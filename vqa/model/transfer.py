"""Inputs on their way to the device: pinned, and on a GPU beside its work."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # loaded with the model, not before
    from transformers import BatchFeature


def to_device(inputs: "BatchFeature", device: torch.device, dtype: torch.dtype) -> "BatchFeature":
    """The inputs on the device, floats as `dtype`; they are changed in place.

    For a GPU they are cast and pinned before: a copy that also casts goes through memory that is not pinned, and waits.
    """
    if device.type == "cuda":
        _pin(inputs, dtype)
    return inputs.to(device, dtype=dtype, non_blocking=True)


def _pin(inputs: "BatchFeature", dtype: torch.dtype) -> None:
    inputs.to(dtype=dtype)
    inputs.update({name: one.pin_memory() for name, one in inputs.items() if isinstance(one, Tensor) and one.is_cpu})


@dataclass(frozen=True, slots=True)
class Sent:
    """Inputs whose copy to the GPU is under way, or was not begun."""

    inputs: "BatchFeature"
    event: torch.cuda.Event | None  # None: they are where they were

    def ready(self) -> "BatchFeature":
        """The inputs, for which the calling thread's stream waits, not the thread."""
        if self.event is not None:
            stream = torch.cuda.current_stream(self.inputs["input_ids"].device)
            stream.wait_event(self.event)
            for one in self.inputs.values():
                if isinstance(one, Tensor):
                    one.record_stream(stream)  # else its memory is free for the next copy while the model reads it
        return self.inputs


class Sender:
    """Copies inputs to a GPU on a stream of its own, from any one thread."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make the stream; floats are sent as `dtype`."""
        self._device, self._dtype = device, dtype
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, inputs: "BatchFeature") -> Sent:
        """Pin inputs and begin their copy; where the GPU has no room, only pin them."""
        _pin(inputs, self._dtype)
        try:
            with torch.cuda.stream(self._stream):
                inputs.to(self._device, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self._stream)
        except torch.OutOfMemoryError:  # tried again with the batch, which is halved where that fails
            return Sent(inputs, None)
        return Sent(inputs, event)
