"""A trainer's model to write with: all its weights on every process, however they are parted while it learns."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.fsdp import FSDPModule
from trl.models.utils import unwrap_model_for_generation

from vqa.errors import UsageError

# trl calls transformers by names that are going away, which nobody who trains can help.
warnings.filterwarnings(
    "ignore", message=r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated", category=FutureWarning
)


@contextmanager
def whole(trainer: Any) -> Iterator[Any]:
    """The model in eval mode; inside, each process goes at its own pace. Under FSDP and ZeRO-3 all must come, and each
    needs memory for all weights. Raises UsageError under FSDP 1."""
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise UsageError(
            "fsdp_version is 1, under which processes can write only in step; set fsdp_version: 2, as in "
            "configs/train/accelerate/fsdp.yaml"
        )
    kwargs = trainer.args.gradient_checkpointing_kwargs
    with unwrap_model_for_generation(  # gathers what ZeRO-3 parts, and leaves recomputing out
        trainer.model_wrapped, trainer.accelerator, gradient_checkpointing_kwargs=kwargs
    ) as model:
        parts = [one for one in model.modules() if isinstance(one, FSDPModule)]
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        was_training = model.training
        model.eval()
        yield model
        model.train(was_training)
        for part in parts:
            plan = trainer.accelerator.state.fsdp_plugin.reshard_after_forward
            part.set_reshard_after_forward(plan, recurse=False)
            part.reshard()
