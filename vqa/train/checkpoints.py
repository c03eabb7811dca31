"""Loading, atomic checkpoints and export of weights, and a stop at the first NaN."""

import json
import logging
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import torch
import transformers
import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy
from transformers import ProcessorMixin, TrainerState
from transformers.trainer_utils import rotate_checkpoints

from vqa.errors import ModelError
from vqa.files import discard
from vqa.model.card import CARD, CARRIED, ModelCard
from vqa.model.load import load_model
from vqa.train._compat import source_of
from vqa.train.context import nobody_else
from vqa.train.hardware import WHOLE, HardwareConfig
from vqa.train.lora import is_lora, merge_lora
from vqa.train.sharding import is_sent_weights, loading_once, reserve_weights, tie_as_read
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
        ModelError: as `vqa.model.load.load_model`.
    """
    is_alone = torch.cuda.is_available() and processes.num_processes == 1
    place = "auto" if is_alone else str(processes.device)
    _forget_deepspeed()
    policy = load_model(card.model_copy(update={"dtype": "auto", "device_map": place, "cpu_threads": threads}))
    return policy.model, policy.processor


def load_for_training(
    card: ModelCard,
    *,
    threads: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    hardware: HardwareConfig = WHOLE,
) -> tuple[Model, ProcessorMixin]:
    """Load a model to train.

    Args:
        card: of the model.
        threads: of torch.
        dtype: of the weights.
        hardware: of the recipe.

    Returns:
        The model on the CPU (the trainer moves it), all weights trained, and the processor. Under FSDP 2 one process
        per machine holds the weights, the others empty ones.

    Raises:
        ModelError: as `vqa.model.load.load_model`.
    """
    _forget_deepspeed()
    with loading_once(hardware):
        place = "meta" if is_sent_weights() else "cpu"
        policy = load_model(card.model_copy(update={"dtype": dtype, "device_map": place, "cpu_threads": threads}))
        tie_as_read(policy.model)
    reserve_weights(policy.model)
    return policy.model.requires_grad_(True).train(), policy.processor


def _forget_deepspeed() -> None:
    """Drop the DeepSpeed configuration that an earlier stage left.

    Under it transformers shards what it loads over all processes and waits for them. DeepSpeed itself shards the
    weights that are trained later.
    """
    hf.integrations.unset_hf_deepspeed_config()


def save_model(
    trained: Trained,
    processor: ProcessorMixin,
    folder: Path,
    *,
    processes: PartialState,
    before_write: Callable[[], None] = nobody_else,
) -> None:
    """Save a model into a folder, whole or not at all; every process calls it.

    Args:
        trained: a model, or the trainer that holds its shards on all processes.
        processor: saved beside it.
        folder: replaced by the new one.
        processes: the first one writes.
        before_write: as of StageContext.

    Raises:
        ModelError: where the disk is full.
    """
    draft = folder.with_name("unfinished")
    if processes.is_main_process:
        before_write()
        discard(draft)
    is_trainer = hasattr(trained, "save_model")
    model = trained.accelerator.unwrap_model(trained.model) if is_trainer else trained
    processor.tokenizer.padding_side = "right"  # trl sets left, which must not reach whoever loads the folder
    try:
        if is_trainer:
            _save_from(trained, draft)
        elif processes.is_main_process:
            model.save_pretrained(draft)
        processes.wait_for_everyone()
        if processes.is_main_process:
            processor.save_pretrained(draft)
            before_write()
            _finish(draft, folder)
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
        shutil.rmtree(draft, ignore_errors=True)
        raise ModelError(_disk_full("the model", model, folder.parent, error)) from error
    processes.wait_for_everyone()


def _save_from(trainer: Trained, draft: Path) -> None:
    """Save a trainer's model whole, with LoRA's additions merged into its weights."""
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not is_lora(model):
        if trainer.is_deepspeed_enabled:
            whole = master_weights(model, keeps=trainer.args.should_save)
            if trainer.args.should_save:
                model.save_pretrained(draft, state_dict=whole)
            return
        trainer.save_model(str(draft))  # gathers what is sharded
        return
    # Merged in float32, with what the run began from: sums in bfloat16 would lose most of what was added.
    added = draft.with_name("additions")
    if trainer.args.should_save:
        discard(added)
    trainer.save_model(str(added))
    if trainer.args.should_save:
        _forget_deepspeed()
        source = hf.AutoModelForImageTextToText.from_pretrained(source_of(model), dtype=torch.float32)
        merge_lora(source, added).save_pretrained(draft)
        shutil.rmtree(added)


def master_weights(model: nn.Module, *, keeps: bool) -> dict[str, torch.Tensor]:
    """Gather the float32 weights of ZeRO-3; its own saving rounds to 16 bits.

    Args:
        model: whose shards all processes hold, and who all call this.
        keeps: whether this process gets them; empty on others.
    """
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    found: dict[str, torch.Tensor] = {}
    for name, own in model.named_parameters():
        if own.requires_grad:
            whole = safe_get_full_fp32_param(own)
        else:
            with GatheredParameters([own]):
                whole = own.detach().float().clone()
        if keeps:
            found[name] = whole.detach().cpu().clone()
    return found


def export_model(made: Path, folder: Path, *, dtype: torch.dtype, card: ModelCard) -> None:
    """Write a model for scoring: safetensors in `dtype`, processor and vqa.yaml.

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
        discard(draft)
        hf.AutoModelForImageTextToText.from_pretrained(made, dtype=dtype).save_pretrained(draft)
        hf.AutoProcessor.from_pretrained(made).save_pretrained(draft)
        asked = card.model_dump(mode="json", include=set(CARRIED), exclude_none=True)
        (draft / CARD).write_text(yaml.safe_dump(asked, sort_keys=False))
        _finish(draft, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder} could not be written ({error}). Make room; {made} is whole.") from error


def _finish(draft: Path, folder: Path) -> None:
    """Put the draft in the folder's place, its weights readable as its other files.

    safetensors makes files that only the owner reads, and the workers of a cluster may run as another user.
    """
    mode = (draft / "config.json").stat().st_mode
    for path in draft.glob("*.safetensors"):
        path.chmod(mode)
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)


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
            raise ModelError(f"{self.what}: {_disk_full(name, self.model, out, error)}") from error
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
def without_rename_warnings() -> Iterator[None]:
    """Context manager without the warnings about old names for checkpointing.

    They are transformers', about methods that trl calls.
    """
    with warnings.catch_warnings():
        message = r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated"
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        yield
