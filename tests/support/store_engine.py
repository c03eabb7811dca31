"""New weights to a vLLM server over torch's TCPStore in place of NCCL, which needs GPUs on both sides.

All else of their way is trl's and vLLM's own. The server's worker imports this by `--worker-extension-cls`.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from vllm.distributed.utils import StatelessProcessGroup
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine


class StoreEngine(NCCLWeightTransferEngine):  # type: ignore[misc]  # vLLM is no dependency: mypy does not see it
    """The server's side."""

    def init_transfer_engine(self, init_info: Any) -> None:
        """Meets the trainer."""
        self._group = _meet(init_info.master_address, init_info.master_port, rank=init_info.rank_offset)

    def receive_weights(self, update_info: Any) -> None:
        """Tensor after tensor."""
        for name in update_info.names:
            self.model.load_weights([(name, self._group.broadcast(None, src=0))])


class Import:
    """Has nothing; vLLM wants a class."""


def meet(init_info: dict[str, Any]) -> Any:
    """The trainer's side, in place of vLLM's `trainer_init`."""
    group = _meet(init_info["master_address"], init_info["master_port"], rank=0)
    return SimpleNamespace(group=group)  # where trl looks for it at the end


def send(iterator: Iterator[Any], group: Any, src: int, post_iter_func: Callable[[Any], Any]) -> None:
    """The same, in place of vLLM's `packed_nccl_broadcast_producer`."""
    for item in iterator:
        group.group.broadcast(post_iter_func(item).detach(), src)


def _meet(host: str, port: int, *, rank: int) -> Any:
    return StatelessProcessGroup.create(host, port, rank=rank, world_size=2)


WeightTransferEngineFactory.register_engine("store", StoreEngine)
