"""What trainers here add to transformers' Trainer: checkpoints whole or not at all, and a stop at the first NaN."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.trainer_utils import rotate_checkpoints

from vqa.errors import ModelError


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint-* in the folder; being there, it is whole."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return found[-1] if found else None


class Guarded:
    """To stand before transformers' Trainer among the bases of a class; `what` names the stage in messages."""

    what = "training"
    args: Any
    model: Any
    state: Any
    accelerator: Any
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP or DeepSpeed keeps the weights."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def checked(self, loss: Tensor) -> Tensor:
        """The loss, unless it is NaN or infinite: then ModelError."""
        if not torch.isfinite(loss):
            step = self.state.global_step
            raise ModelError(
                f"{self.what}: the loss is {loss.item()} at step {step}; lower `learning_rate` and {self.go_on()}"
            )
        return loss

    def go_on(self) -> str:
        """Where a run with other settings continues, in words."""
        kept = last_checkpoint(Path(self.args.output_dir))
        return f"go on from {kept} (as `start`, in another --out)" if kept else "begin again"

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        if self.accelerator.scaler is None and norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise ModelError(
                f"{self.what}: the gradient's norm is {float(norm)} at step {self.state.global_step}; "
                f"lower `learning_rate` and {self.go_on()}"
            )
        return norm

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        if not restored(self, checkpoint):
            super()._load_from_checkpoint(checkpoint, model)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Written aside, then renamed. Raises ModelError where the disk is full."""
        out, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        draft = out / "unfinished"
        self.args.output_dir = str(draft)
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
            shutil.rmtree(draft, ignore_errors=True)
            self.args.output_dir = str(out)
            raise ModelError(f"{self.what}: {cannot_write(name, self.model, out, error)}") from error
        finally:
            self.args.output_dir = str(out)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(out / name, ignore_errors=True)
            (draft / name).replace(out / name)
            shutil.rmtree(draft)
            rotate_checkpoints(str(out), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()


def restored(trainer: Any, checkpoint: str) -> bool:
    """Puts a checkpoint's weights into the trainer's model; False where its own way must do it (sharded, LoRA).

    transformers' Trainer reads the names as they are on disk, which for Qwen2.5-VL are not those of the model: it then
    goes on from the weights it began with, and only warns.
    """
    if trainer.is_sharded or not (Path(checkpoint) / "config.json").is_file():
        return False
    model = trainer.model
    model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=model.dtype).state_dict())
    return True


def cannot_write(name: str, model: Any, out: Path, error: Exception) -> str:
    """The sentence for a disk that took no more."""
    size = 3 * sum(one.numel() * one.element_size() for one in model.parameters()) / 2**30
    free = shutil.disk_usage(out).free / 2**30
    kept = last_checkpoint(out)
    return (
        f"{name} could not be written to {out} ({' '.join(str(error).split())[:200]}); a checkpoint takes about "
        f"{size:.2g} GB, {free:.2g} GB are free there; make room and give the same command again"
        + (f", it goes on from {kept.name}" if kept else "")
    )
