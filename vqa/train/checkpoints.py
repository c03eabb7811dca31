"""Checkpoints of a training run: weights in and out, whole or not at all, and a stop at the first NaN."""

import json
import logging
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import torch
import transformers
import yaml
from accelerate import Accelerator, PartialState
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import ProcessorMixin, Trainer, TrainerState
from transformers.trainer_utils import rotate_checkpoints
from trl.models.utils import unwrap_model_for_generation

from vqa.errors import ModelError, UsageError
from vqa.model.card import CARD, CARRIED, ModelCard
from vqa.model.load import load
from vqa.train.types import Model

hf: Any = transformers
Trained: TypeAlias = Any  # a Model, or the trainer that holds its shards


def load_for_generation(
    card: ModelCard, *, threads: int | None = None, processes: PartialState
) -> tuple[Model, ProcessorMixin]:
    """Load a model to write answers with.

    Returns:
        The model in its stored precision, spread over all GPUs where there is one process and on the process's own
        device otherwise, and the processor.

    Raises:
        ModelError: as `vqa.model.load.load`.
    """
    is_alone = torch.cuda.is_available() and processes.num_processes == 1
    place = "auto" if is_alone else str(processes.device)
    _forget_deepspeed()
    policy = load(card.model_copy(update={"dtype": "auto", "device_map": place, "cpu_threads": threads}))
    return policy.model, policy.processor


def load_for_training(card: ModelCard, *, threads: int | None = None) -> tuple[Model, ProcessorMixin]:
    """Load a model to train.

    Returns:
        The model in float32 on the CPU (the trainer moves it), all weights trained, and the processor.

    Raises:
        ModelError: as `vqa.model.load.load`.
    """
    _forget_deepspeed()
    policy = load(card.model_copy(update={"dtype": "float32", "device_map": "cpu", "cpu_threads": threads}))
    return policy.model.requires_grad_(True).train(), policy.processor


def _forget_deepspeed() -> None:
    """Drop the configuration that an earlier stage left: under it transformers shards what it loads over all processes
    and waits for them. DeepSpeed itself shards the weights that are trained later."""
    hf.integrations.unset_hf_deepspeed_config()


def save_model(trained: Trained, processor: ProcessorMixin, folder: Path, *, processes: PartialState) -> None:
    """Save a model into a folder, whole or not at all; every process calls it.

    Args:
        trained: a model, or the trainer that holds its shards on all processes.
        processor: saved beside it.
        folder: replaced by the new one.
        processes: the first one writes.

    Raises:
        ModelError: where the disk is full.
    """
    draft = folder.with_name("unfinished")
    is_trainer = hasattr(trained, "save_model")
    model = trained.accelerator.unwrap_model(trained.model) if is_trainer else trained
    processor.tokenizer.padding_side = "right"  # trl sets left, which must not reach whoever loads the folder
    try:
        if is_trainer:
            trained.save_model(str(draft))  # gathers what is sharded
        elif processes.is_main_process:
            model.save_pretrained(draft)
        processes.wait_for_everyone()
        if processes.is_main_process:
            processor.save_pretrained(draft)
            _finish(draft, folder)
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
        shutil.rmtree(draft, ignore_errors=True)
        raise ModelError(_disk_full("the model", model, folder.parent, error)) from error
    processes.wait_for_everyone()


def export_model(made: Path, folder: Path, *, dtype: torch.dtype, card: ModelCard) -> None:
    """Write a trained model for scoring: safetensors in `dtype`, the processor, and vqa.yaml.

    Args:
        made: the last stage's model.
        folder: replaced; `vqa score --model FOLDER` uses the prompt and views of training, which are in its vqa.yaml.
        dtype: of the stored weights.
        card: with prompt and views.

    Raises:
        ModelError: where the disk is full.
    """
    draft = folder.with_name("unfinished")
    _forget_deepspeed()
    try:
        hf.AutoModelForImageTextToText.from_pretrained(made, dtype=dtype).save_pretrained(draft)
        hf.AutoProcessor.from_pretrained(made).save_pretrained(draft)
        asked = card.model_dump(mode="json", include=set(CARRIED), exclude_none=True)
        (draft / CARD).write_text(yaml.safe_dump(asked, sort_keys=False))
        _finish(draft, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder} could not be written ({error}). Make room; {made} is whole.") from error


def _finish(draft: Path, folder: Path) -> None:
    """Put the draft in the folder's place. safetensors makes files that only the owner reads, and the workers of a
    cluster may run as another user."""
    mode = (draft / "config.json").stat().st_mode
    for path in draft.glob("*.safetensors"):
        path.chmod(mode)
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint-* in the folder that is whole, None without one; newer damaged ones are reported."""
    for path in _newest_first(folder):
        if not (damage := _damage_of(path)):
            return path
        logging.getLogger(__name__).warning("%s is damaged (%s) and is not used", path, damage)
    return None


def resume_from(folder: Path) -> str | None:
    """The checkpoint that a stage resumes from, None to begin. Raises ModelError where all there are damaged."""
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
    """What is wrong with a checkpoint, by its headers; "" for a whole one. Sharded ones have folders of states."""
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
    """Mixin before transformers' Trainer: atomic checkpoints, and no step on a loss or gradient that is not finite.

    `what` names the stage in messages.
    """

    what = "training"
    args: Any  # each trainer has a class of its own
    model: Model
    state: TrainerState
    accelerator: Accelerator
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP or DeepSpeed holds the weights."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def checked(self, loss: Tensor) -> Tensor:
        """The loss as given. Raises ModelError where it is NaN or infinite."""
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
        self.args.output_dir = str(draft)
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
            shutil.rmtree(draft, ignore_errors=True)
            self.args.output_dir = str(out)
            raise ModelError(f"{self.what}: {_disk_full(name, self.model, out, error)}") from error
        finally:
            self.args.output_dir = str(out)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(out / name, ignore_errors=True)
            (draft / name).replace(out / name)
            shutil.rmtree(draft)
            rotate_checkpoints(str(out), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()


def _restored(trainer: Guarded, checkpoint: str) -> bool:
    """Load a checkpoint's weights into the trainer's model; False where the trainer must do it (sharded, LoRA).

    transformers' Trainer reads the names as they are on disk, which for Qwen2.5-VL are not those of the model: it then
    resumes from the weights it began with, and only warns (https://github.com/QwenLM/Qwen3-VL/issues/1763).
    """
    if trainer.is_sharded or not (Path(checkpoint) / "config.json").is_file():
        return False
    model = trainer.model
    model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=model.dtype).state_dict())
    return True


def _disk_full(name: str, model: nn.Module, out: Path, error: Exception) -> str:
    """The message for a disk that takes no more."""
    size = 3 * sum(one.numel() * one.element_size() for one in model.parameters()) / 2**30
    free = shutil.disk_usage(out).free / 2**30
    saved = last_checkpoint(out)
    return (
        f"{name} could not be written to {out} ({' '.join(str(error).split())[:200]}). A checkpoint takes about "
        f"{size:.2g} GB, {free:.2g} GB are free there. Make room and run the same command again"
        + (f"; it resumes from {saved.name}." if saved else ".")
    )


@contextmanager
def unsharded(trainer: Trainer) -> Iterator[Model]:
    """Context manager that yields the trainer's model in eval mode with all weights on every process (FSDP2, ZeRO-3).

    Inside, each process runs at its own pace. All processes must enter, and each needs memory for all weights.

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


@contextmanager
def without_rename_warnings() -> Iterator[None]:
    """Context manager that drops the warnings about transformers' old names for checkpointing, which trl calls."""
    with warnings.catch_warnings():
        message = r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated"
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        yield
