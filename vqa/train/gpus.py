"""GPUs to plan a recipe for: of configs/hardware, by `--gpus`, or this machine's.

Files there that name cores are machines for `vqa plan --hardware`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from vqa.config import Strict, configs_folder, load_config, read_yaml
from vqa.errors import UsageError
from vqa.machine import memory_bytes

RESERVED_GB = 2.0  # of a GPU, for the CUDA context, NCCL and the libraries' workspaces
FOLDER = "hardware"


class Gpu(Strict):
    """Schema of the GPUs of configs/hardware: each as its vendor publishes it."""

    name: str = Field(description="a part of the name that its driver reports")
    memory_gb: float = Field(gt=0, description="gigabytes by the vendor")
    bandwidth_gb_per_second: float = Field(gt=0, description="of its memory, in 10^9 bytes")
    bfloat16_teraflops: float = Field(gt=0, description="of dense matrix products, without sparsity")
    gpus_per_node: int = Field(8, ge=1, description="that share a host")
    host_memory_gb: float | None = Field(None, gt=0, description="of such a host; default: not known, not compared")

    @property
    def usable(self) -> float:
        """Bytes for a run, at 10^9 per gigabyte.

        The vendor's gigabytes are 2^30 bytes; the 7 % above 10^9 go to the allocator's gaps.
        """
        return (self.memory_gb - RESERVED_GB) * 1e9


@dataclass(frozen=True, slots=True)
class GpuFleet:
    """Equal GPUs that a run is planned for."""

    gpu: Gpu
    count: int
    label: str

    @property
    def nodes(self) -> int:
        """Number of hosts."""
        return -(-self.count // self.gpu.gpus_per_node)

    @property
    def host(self) -> float | None:
        """Bytes of memory of a host, None where not known."""
        return None if self.gpu.host_memory_gb is None else self.gpu.host_memory_gb * 1e9


def is_machine(path: Path) -> bool:
    """Whether a file of configs/hardware is one of `vqa plan`. Raises UsageError."""
    return "cores" in read_yaml(path)


def _files() -> list[Path]:
    """Those of GPUs."""
    return [path for path in sorted((configs_folder() / FOLDER).glob("*.yaml")) if not is_machine(path)]


def parse_gpus(text: str) -> GpuFleet:
    """Read `8xh100`, or `h100` for one.

    Raises:
        UsageError: for another form, and for a GPU that configs/hardware does not have.
    """
    known = {path.stem: path for path in _files()}
    found = re.fullmatch(r"(?:(\d{1,5})x)?(\S+)", text.lower())
    count = int(found[1] or 1) if found else 0
    if found is None or found[2] not in known or count < 1:
        raise UsageError(f"--gpus {text}: not a count and a GPU such as 8xh100. GPUs: {', '.join(sorted(known))}.")
    gpu = load_config(known[found[2]], Gpu)
    return GpuFleet(gpu, count, f"{count} x {found[2]}")


def detect_gpus(count: int | None = None) -> GpuFleet | None:
    """GPUs of this machine, `count` of them where given; None without any.

    Their memory is what the driver says.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    known = [load_config(path, Gpu) for path in _files()]
    like = next((gpu for gpu in known if gpu.name in found.name), known[0])
    here = torch.cuda.device_count()
    gpu = like.model_copy(
        update={
            "memory_gb": found.total_memory / 2**30,
            "gpus_per_node": here,
            "host_memory_gb": memory_bytes() / 1e9,
        }
    )
    return GpuFleet(gpu, count or here, f"{count or here} x {found.name}")
