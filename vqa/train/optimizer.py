"""AdamW by the block `hardware:`, its moments in 8 bits or in host memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

if TYPE_CHECKING:
    from vqa.train.hardware import HardwareConfig


class OffloadedAdamW(AdamW):
    """AdamW with moments in host memory, on the device for one weight at a time."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update weights one by one; `closure` gives the loss once before, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        whole = [list(group["params"]) for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["params"] = []
            for group, weights in zip(self.param_groups, whole, strict=True):
                for weight in weights:
                    self.place_moments(weight, weight.device)
                    group["params"] = [weight]
                    super().step()
                    group["params"] = []
                    self.place_moments(weight, torch.device("cpu"))
        finally:
            for group, weights in zip(self.param_groups, whole, strict=True):
                group["params"] = weights
        return loss

    def place_moments(self, weight: Parameter, device: torch.device) -> None:
        """Move the moments of a weight, of which a process has its shard, to a device."""
        for value in self.state[weight].values():
            if isinstance(value, torch.Tensor) and value.dim():
                local = value.to_local() if isinstance(value, DTensor) else value
                local.data = local.data.to(device)


def optimizer_class(hardware: "HardwareConfig") -> Callable[..., Optimizer]:
    """AdamW's class for the hardware; DeepSpeed moves what it offloads by itself."""
    if hardware.optimizer_bits == 8:
        from torchao.optim import AdamW8bit

        return AdamW8bit  # type: ignore[no-any-return]
    return OffloadedAdamW if hardware.offload == "optimizer" and hardware.sharding != "zero3" else AdamW
