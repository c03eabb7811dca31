"""Loading, saving and export of weights."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import transformers
import yaml
from accelerate import PartialState
from safetensors import SafetensorError
from torch import nn
from transformers import ProcessorMixin

from vqa.errors import ModelError
from vqa.files import discard
from vqa.model.card import CARD, CARRIED, ModelCard
from vqa.model.load import load_model
from vqa.train._compat import source_of
from vqa.train.context import nobody_else
from vqa.train.guarded import disk_full
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
        raise ModelError(disk_full("the model", model, folder.parent, error)) from error
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


@contextmanager
def without_rename_warnings() -> Iterator[None]:
    """Context manager without the warnings about old names for checkpointing.

    They are transformers', about methods that trl calls.
    """
    with warnings.catch_warnings():
        message = r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated"
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        yield
