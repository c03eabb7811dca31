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

    def checked(self, loss: Tensor) -> Tensor:
        """The loss, unless it is NaN or infinite: then ModelError."""
        if not torch.isfinite(loss):
            raise ModelError(f"{self.what}: the loss is {loss.item()} at step {self.state.global_step}; {self._way()}")
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise ModelError(
                f"{self.what}: the gradient's norm is {float(norm)} at step {self.state.global_step}; {self._way()}"
            )
        return norm

    def _way(self) -> str:
        kept = last_checkpoint(Path(self.args.output_dir))
        return f"lower `rate`; the last good weights are in {kept}" if kept else "lower `rate` and begin again"

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
