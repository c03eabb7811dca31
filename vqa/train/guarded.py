"""Atomic checkpoints, resuming from them, and a stop at the first NaN."""

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy
from transformers import TrainerState
from transformers.trainer_utils import rotate_checkpoints

from vqa.errors import ModelError
from vqa.files import discard
from vqa.train.context import nobody_else
from vqa.train.types import Model


def last_checkpoint(folder: Path) -> Path | None:
    """Newest whole checkpoint-* in a folder, or None; newer damaged ones are logged."""
    for path in _newest_first(folder):
        if not (damage := _damage_of(path)):
            return path
        logging.getLogger(__name__).warning("%s is damaged (%s) and is not used", path, damage)
    return None


def resume_from(folder: Path) -> str | None:
    """Checkpoint that a stage resumes from, None to begin.

    Raises:
        ModelError: where there are checkpoints, all damaged.
    """
    saved = last_checkpoint(folder)
    if saved is None and (found := _newest_first(folder)):
        raise ModelError(
            f"{folder}: none of its {len(found)} checkpoints can be read; of {found[0].name}, {_damage_of(found[0])}. "
            "Delete them to begin again."
        )
    return str(saved) if saved else None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))


def _damage_of(checkpoint: Path) -> str:
    """Damage of a checkpoint by its headers, "" for a whole one.

    Sharded ones have folders of states.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"trainer_state.json: {error}"
    index = checkpoint / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
        for name in sorted(shards | {path.name for path in checkpoint.glob("*.safetensors")}):
            with safe_open(checkpoint / name, "pt"):
                pass
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError) as error:
        return f"weights: {error!r}"
    # transformers' Trainer takes a missing state for a run without one, and resumes with a fresh optimizer.
    states = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
    if not any(path.is_dir() for path in checkpoint.iterdir()):
        states += [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"]
        if not list(checkpoint.glob("*.safetensors")):
            return "no weights (*.safetensors)"
    for path in states:
        if not path.is_file():
            return f"{path.name} is missing"
        if not zipfile.is_zipfile(path):  # as torch.save writes them; the directory is at the end
            return f"{path.name} is cut off"
    return ""


class Guarded:
    """Trainer mixin: atomic checkpoints, no step on a non-finite loss or gradient.

    It goes before transformers' Trainer; `what` names the stage in messages.
    """

    what = "training"
    before_write: Callable[[], None] = staticmethod(nobody_else)  # as of StageContext
    args: Any  # each trainer has a class of its own
    model: Model
    model_wrapped: Model
    state: TrainerState
    accelerator: Accelerator
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP or DeepSpeed holds the weights."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator, in which FSDP shards over CPUs too.

        There a small model shows that a recipe runs.
        """
        is_on_cpus = self.args.device.type == "cpu" and os.environ.get("ACCELERATE_USE_FSDP") == "true"
        if is_on_cpus:
            self.args.distributed_state.distributed_type = DistributedType.MULTI_GPU
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        if is_on_cpus and isinstance(self.accelerator.state.fsdp_plugin.cpu_offload, CPUOffloadPolicy):
            self.accelerator.state.fsdp_plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)

    def checked(self, loss: Tensor) -> Tensor:
        """Return the loss; ModelError where it is NaN or infinite."""
        if not torch.isfinite(loss):
            self._stop(f"the loss is {loss.item()}")
        return loss

    def _stop(self, what: str) -> NoReturn:
        saved = last_checkpoint(Path(self.args.output_dir))
        way = f"resume from {saved} (as `start`, in another --out)" if saved else "begin again"
        raise ModelError(f"{self.what}: {what} at step {self.state.global_step}. Lower `learning_rate` and {way}.")

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None:
        norm: Tensor | float | None = super()._clip_grad_norm(model)  # type: ignore[misc]
        if self.accelerator.scaler is None and norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            self._stop(f"the gradient's norm is {float(norm)}")
        return norm

    def _load_from_checkpoint(self, checkpoint: str, model: nn.Module | None = None) -> None:
        if not _restored(self, checkpoint):
            super()._load_from_checkpoint(checkpoint, model)  # type: ignore[misc]

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Write aside, then rename. Raises ModelError where the disk is full."""
        out, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        draft = out / "unfinished"
        if self.args.should_save:
            self.before_write()
            discard(draft)
        self.accelerator.wait_for_everyone()  # each process has files of its own to put there
        self.args.output_dir = str(draft)
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
            shutil.rmtree(draft, ignore_errors=True)
            self.args.output_dir = str(out)
            raise ModelError(f"{self.what}: {disk_full(name, self.model, out, error)}") from error
        finally:
            self.args.output_dir = str(out)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.before_write()
            shutil.rmtree(out / name, ignore_errors=True)
            (draft / name).replace(out / name)
            shutil.rmtree(draft)
            rotate_checkpoints(str(out), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()


def _restored(trainer: Guarded, checkpoint: str) -> bool:
    """Load a checkpoint's weights; False where the trainer must (sharded, LoRA).

    transformers' Trainer reads the names as they are on disk, which for Qwen2.5-VL are not those of the model: it then
    resumes from the weights it began with, and only warns (https://github.com/QwenLM/Qwen3-VL/issues/1763).
    """
    if trainer.is_sharded or not (Path(checkpoint) / "config.json").is_file():
        return False
    model = trainer.model
    model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=model.dtype).state_dict())
    return True


def disk_full(name: str, model: nn.Module, out: Path, error: Exception) -> str:
    """The message for a disk that takes no more."""
    size = 3 * sum(one.numel() * one.element_size() for one in model.parameters()) / 2**30
    free = shutil.disk_usage(out).free / 2**30
    saved = last_checkpoint(out)
    return (
        f"{name} could not be written to {out} ({' '.join(str(error).split())[:200]}). A checkpoint takes about "
        f"{size:.2g} GB, {free:.2g} GB are free there. Make room and run the same command again"
        + (f"; it resumes from {saved.name}." if saved else ".")
    )
