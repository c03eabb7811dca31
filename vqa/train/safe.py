"""trl's GRPOTrainer that stops before it does damage: no step along a gradient that is none, no torn checkpoint."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.trainer_utils import rotate_checkpoints
from trl import GRPOTrainer

from vqa.errors import ModelError
from vqa.train.usage import peak_memory_gb


class SafeTrainer(GRPOTrainer):  # type: ignore[misc]  # trl has no types
    """See the module; it also logs clips a second and the peak of memory."""

    def go_on(self) -> str:
        """Where a stopped run continues, in words."""
        kept = sorted(Path(self.args.output_dir).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        return f"go on from {kept[-1]}" if kept else "begin again"

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if self.accelerator.scaler is None and norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise ModelError(
                f"grpo: the gradient's norm is {float(norm)} at step {self.state.global_step}; lower `rate` and "
                f"{self.go_on()}"
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """trl's, with clips a second and the peak of memory."""
        if seconds := self._metrics["train"].get("step_time"):
            clips = self.args.generation_batch_size // self.num_generations / self.num_iterations
            logs["clips_per_second"] = clips * len(seconds) / sum(seconds)
            logs["peak_memory_gb"] = peak_memory_gb()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """trl's, whole or not at all: written aside, then renamed. Raises ModelError where the disk is full."""
        out, name = self.args.output_dir, f"checkpoint-{self.state.global_step}"
        draft = Path(out) / "unfinished"
        self.args.output_dir = str(draft)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
            shutil.rmtree(draft, ignore_errors=True)
            self.args.output_dir = out  # for `go_on`
            size = 3 * sum(one.numel() * one.element_size() for one in self.model.parameters()) / 2**30
            raise ModelError(
                f"grpo: {name} could not be written to {out} ({' '.join(str(error).split())[:200]}); a checkpoint "
                f"takes about {size:.2g} GB, {shutil.disk_usage(out).free / 2**30:.2g} GB are free there; make room, "
                f"then {self.go_on()}"
            ) from error
        finally:
            self.args.output_dir = out
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(Path(out) / name, ignore_errors=True)
            (draft / name).replace(Path(out) / name)
            shutil.rmtree(draft)
            rotate_checkpoints(out, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
