"""Weights in and out: loaded to be trained, saved whole after a stage, shipped at the end."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from accelerate import PartialState
from safetensors import SafetensorError

from vqa.errors import ModelError
from vqa.model.card import CARD, CARRIED, ModelCard
from vqa.model.load import load
from vqa.train.guarded import cannot_write

hf: Any = transformers


def load_to_write(card: ModelCard, *, threads: int | None = None, processes: PartialState) -> tuple[Any, Any]:
    """(model as stored, processor): spread over all GPUs for one process, else on the process's own device."""
    is_alone = torch.cuda.is_available() and processes.num_processes == 1
    place = "auto" if is_alone else str(processes.device)
    _forget_deepspeed()
    policy = load(card.model_copy(update={"dtype": "auto", "device_map": place, "cpu_threads": threads}))
    return policy.model, policy.processor


def load_for_training(card: ModelCard, *, threads: int | None = None) -> tuple[Any, Any]:
    """(model in float32 on the CPU, processor); the trainer moves it. Raises ModelError, as scoring does."""
    _forget_deepspeed()
    policy = load(card.model_copy(update={"dtype": "float32", "device_map": "cpu", "cpu_threads": threads}))
    return policy.model.requires_grad_(True).train(), policy.processor


def _forget_deepspeed() -> None:
    """What a stage before has left: under it transformers would part what it loads over all processes, and wait for
    them. DeepSpeed itself parts the weights that are to be trained later."""
    hf.integrations.unset_hf_deepspeed_config()


def save(trained: Any, processor: Any, folder: Path, *, processes: PartialState) -> None:
    """A model, or what a trainer holds of it on all processes, into the folder: whole or not at all."""
    draft = folder.with_name("unfinished")
    is_trainer = hasattr(trained, "save_model")
    model = trained.accelerator.unwrap_model(trained.model) if is_trainer else trained
    processor.tokenizer.padding_side = "right"  # trl turns it about; nobody who loads the folder should notice
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
        raise ModelError(cannot_write("the model", model, folder.parent, error)) from error
    processes.wait_for_everyone()


def ship(made: Path, folder: Path, *, dtype: torch.dtype, card: ModelCard) -> None:
    """The model as it is given away: safetensors in `dtype`, and in vqa.yaml how it wants to be asked: `vqa score
    --model FOLDER` sees what the training saw."""
    draft = folder.with_name("unfinished")
    _forget_deepspeed()
    try:
        hf.AutoModelForImageTextToText.from_pretrained(made, dtype=dtype).save_pretrained(draft)
        hf.AutoProcessor.from_pretrained(made).save_pretrained(draft)
        asked = card.model_dump(mode="json", include=set(CARRIED), exclude_none=True)
        (draft / CARD).write_text(yaml.safe_dump(asked, sort_keys=False))
        _finish(draft, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder} could not be written ({error}); make room; {made} is whole") from error


def _finish(draft: Path, folder: Path) -> None:
    """Puts the draft in the folder's place. safetensors writes for the owner's eyes alone: the workers of a cluster may
    run as somebody else."""
    mode = (draft / "config.json").stat().st_mode
    for path in draft.glob("*.safetensors"):
        path.chmod(mode)
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)
