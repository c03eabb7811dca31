"""Weights in shards over processes (FSDP 2, ZeRO-3), by the block `hardware:`.

accelerate takes its settings from the environment, where `accelerate launch` puts those of its file; `begin_sharding`
puts the recipe's there, so that any launcher will do that starts processes: Ray Train, torchrun, accelerate. Where the
recipe shards nothing, the launcher's file counts.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from trl.models.utils import unwrap_model_for_generation

from vqa.errors import UsageError
from vqa.imports import require
from vqa.train.hardware import HardwareConfig
from vqa.train.types import Model

if TYPE_CHECKING:
    from vqa.train.guarded import Guarded

LOADS_ONCE = "FSDP_CPU_RAM_EFFICIENT_LOADING"  # under which accelerate takes weights from the first process
_READS_ONCE = ContextVar("reads_once", default=False)  # a launcher may set the variable, for all that is loaded


def launch_environment(hardware: HardwareConfig) -> dict[str, str]:
    """The variables that `accelerate launch` would set for these shards."""
    if hardware.sharding == "fsdp2":
        return {
            "ACCELERATE_USE_DEEPSPEED": "false",
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
            "FSDP_RESHARD_AFTER_FORWARD": "true",
            "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
            "FSDP_OFFLOAD_PARAMS": str(hardware.offload == "parameters").lower(),
        }
    kept = {True: "cpu", False: "none"}
    return {
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": kept[hardware.offload != "none"],
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": kept[hardware.offload == "parameters"],
    }


def begin_sharding(hardware: HardwareConfig) -> None:
    """Prepare this process for its shards, before accelerate is used.

    Where the recipe shards nothing, it only checks that packages are there.

    Raises:
        UsageError: for a package that is missing, and in a process that no launcher has started.
    """
    if hardware.optimizer_bits == 8:
        require("lowbit", "torchao", doing="hardware.optimizer_bits: 8")
    if hardware.lora:
        require("train", "peft", doing="hardware.lora")
    if not hardware.is_sharded:
        return
    if hardware.sharding == "zero3":
        require("zero3", "deepspeed", doing="hardware.sharding: zero3")
    if "LOCAL_RANK" not in os.environ:
        raise UsageError(
            f"hardware.sharding is {hardware.sharding}, which needs a group of processes, and this is one alone. Give "
            "--workers N, start it by accelerate launch or torchrun, or set hardware.sharding: none."
        )
    os.environ |= launch_environment(hardware)
    if not hardware.master_weights:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # under which accelerate leaves the weights as they are
    has_gpus = torch.cuda.is_available()
    if hardware.sharding == "fsdp2" and not torch.distributed.is_initialized():
        # Shards are gathered on GPUs, and what is offloaded or saved on CPUs.
        torch.distributed.init_process_group("cuda:nccl,cpu:gloo" if has_gpus else "gloo")
    elif hardware.sharding == "zero3" and not has_gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        deepspeed.comm.init_distributed("gloo", auto_mpi_discovery=False)


@contextmanager
def loading_once(hardware: HardwareConfig) -> Iterator[None]:
    """Context manager in which one process per machine reads weights (FSDP 2 only).

    FSDP 2 sends them to the others in shards.
    """
    if hardware.sharding != "fsdp2":
        yield
        return
    os.environ[LOADS_ONCE] = "true"
    token = _READS_ONCE.set(True)
    try:
        yield
    finally:
        _READS_ONCE.reset(token)
        os.environ[LOADS_ONCE] = "false"


def is_sent_weights() -> bool:
    """Whether another process of the machine reads the weights and sends them."""
    return _READS_ONCE.get() and os.environ.get("LOCAL_RANK", "0") != "0"


def tie_as_read(model: Model) -> None:
    """Tie a model's head to its embedding as in the process that reads weights.

    transformers ties what is equal in a folder, which only values can tell. All processes of a launch call it.
    """
    if not _READS_ONCE.get():
        return
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    found: list[object] = [head.weight is words.weight]
    torch.distributed.broadcast_object_list(found, src=0)
    if found[0] and head.weight is not words.weight:
        model.tie_weights()


def reserve_weights(model: nn.Module) -> None:
    """Give unread weights addresses of their own, by which accelerate knows them.

    The memory is never written, so that the system never provides it.
    """
    places: dict[nn.Parameter, nn.Parameter] = {}
    for part in model.modules():
        for name, own in part.named_parameters(recurse=False):
            if own.is_meta:
                if own not in places:  # tied weights stay tied
                    places[own] = nn.Parameter(torch.empty_like(own, device="cpu"), requires_grad=own.requires_grad)
                setattr(part, name, places[own])


@contextmanager
def unsharded(trainer: "Guarded") -> Iterator[Model]:
    """Context manager with all weights on every process, the model in eval mode.

    Yields the trainer's model, under FSDP 2 and ZeRO-3 too. Inside, each process runs at its own pace. All processes
    must enter, and each needs memory for all weights.

    Raises:
        UsageError: under FSDP 1.
    """
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise UsageError(
            "fsdp_version is 1, under which processes can generate only in step. Set fsdp_version: 2, as in "
            "configs/train/accelerate/fsdp.yaml."
        )
    kwargs = trainer.args.gradient_checkpointing_kwargs
    with unwrap_model_for_generation(  # gathers what ZeRO-3 shards, and switches gradient checkpointing off
        trainer.model_wrapped, trainer.accelerator, gradient_checkpointing_kwargs=kwargs
    ) as model:
        shards = [one for one in model.modules() if isinstance(one, FSDPModule)]
        for shard in shards:
            shard.set_reshard_after_forward(False, recurse=False)
            shard.unshard()
        was_training = model.training
        model.eval()
        yield model
        model.train(was_training)
        for shard in shards:
            plan = trainer.accelerator.state.fsdp_plugin.reshard_after_forward
            shard.set_reshard_after_forward(plan, recurse=False)
            shard.reshard()
