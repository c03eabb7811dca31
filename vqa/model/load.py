"""Load a model's weights and processor, or say what is wrong with them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
import transformers
from safetensors import SafetensorError

from vqa import machine
from vqa.errors import MachineError, ModelError
from vqa.imports import require, uncollected
from vqa.model._compat import forget_attention, late_imports, named_attention
from vqa.model.card import ModelCard
from vqa.model.encode import encode_chat
from vqa.model.resolve import Location, locate_model
from vqa.model.vocabulary import Vocabulary
from vqa.prompt import Layout, messages

if TYPE_CHECKING:  # loaded with the model, not before
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

hf: Any = transformers  # its types do not hold what it does: from_pretrained returns a pair when asked to
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # values of device_map that several GPUs share


class LoadReport(TypedDict):
    """Weights that do not fit the config; mismatched ones as name, found, wanted."""

    mismatched_keys: set[tuple[str, Sequence[int], Sequence[int]]]
    missing_keys: set[str]
    unexpected_keys: set[str]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A loaded model with its processor and the roles of its tokens."""

    location: Location
    model: "PreTrainedModel"  # a transformers image-text-to-text model, in eval mode
    processor: "ProcessorMixin"
    vocabulary: Vocabulary

    @property
    def device(self) -> torch.device:
        """The device that its inputs go to."""
        return torch.device(self.model.device)


def load_model(card: ModelCard, *, alone: bool = False) -> Policy:
    """Load a card's model; sets torch's threads if the card or a CPU quota does.

    Args:
        card: the model, its data type, attention, device and processor limits.
        alone: whether this process will only ever run models by itself: it loads sooner, and transformers can
            share none of them between processes afterwards.

    Returns:
        The model in eval mode, without gradients, on the card's device: by default the first GPU, else the CPU.

    Raises:
        ModelError: not found, not image-text-to-text, no safetensors, weights that are incomplete or not the
            config's, no chat template, no such device or attention.
        UsageError: a device_map for several GPUs without accelerate.
    """
    location = locate_model(card.source, revision=card.revision, subfolder=card.subfolder)
    if (threads := card.cpu_threads or machine.cores()) < torch.get_num_threads() or card.cpu_threads:
        torch.set_num_threads(threads)
    device = card.device_map or ("cuda:0" if torch.cuda.is_available() else "cpu")
    if device in SPREAD:
        require("train", "accelerate", doing=f"device_map {device}")
    options = _options(card, location)
    where = f"model {location.model_id}"
    with loading(where):
        config = late_imports(lambda: hf.AutoConfig.from_pretrained(location.place, **options), alone=alone)
        mapping = hf.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if type(config) not in mapping and "AutoModelForImageTextToText" not in getattr(config, "auto_map", {}):
        raise ModelError(f"{where}: {config.model_type} does not take pictures and write text. A scorer must do both.")
    _settle_attention(config, card)
    with loading(where):
        # transformers places weights by accelerate, which scoring can do without: they are moved where it is missing.
        is_placed = device != "cpu" and find_spec("accelerate") is not None
        model, report = late_imports(
            lambda: hf.AutoModelForImageTextToText.from_pretrained(
                location.place,
                config=config,
                use_safetensors=True,
                dtype=card.dtype if card.dtype == "auto" else getattr(torch, card.dtype),
                attn_implementation=None if card.attention == "auto" else card.attention,
                device_map=device if is_placed else None,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, in words
                **options,
            ),
            alone=alone,
        )
        if not is_placed and device != "cpu":
            model.to(device)
    _check_weights(report, where)
    processor = load_processor(card, location)
    model.eval().requires_grad_(False)
    ends = model.generation_config.eos_token_id
    vocabulary = Vocabulary.of(
        processor.tokenizer, config, size=model.get_output_embeddings().weight.shape[0], ends=ends
    )
    return Policy(location=location, model=model, processor=processor, vocabulary=vocabulary)


def load_processor(card: ModelCard, location: Location) -> "ProcessorMixin":
    """Load a model's processor with the card's limits; ModelError if unusable."""
    where = f"model {location.model_id}"
    with loading(where):
        processor: ProcessorMixin = late_imports(
            lambda: hf.AutoProcessor.from_pretrained(location.place, **_options(card, location))
        )
    _check_processor(processor, where)
    _limit_pixels(processor, card, where)
    _try_picture(processor, card.layout.is_video, where)
    return processor


def _options(card: ModelCard, location: Location) -> dict[str, bool | str]:
    options: dict[str, bool | str] = {"trust_remote_code": card.trust_remote_code}
    if location.commit:
        options["revision"] = location.commit
    if location.subfolder:
        options["subfolder"] = location.subfolder
    return options


def _settle_attention(config: "PreTrainedConfig", card: ModelCard) -> None:
    """Drop config.json's attention where the card has one or its package is missing."""
    named = named_attention(config)
    is_missing = (named or "").startswith("flash_attention") and not find_spec("flash_attn")
    if named and (card.attention != "auto" or is_missing):
        forget_attention(config)


def _check_weights(report: LoadReport, where: str) -> None:
    """Refuse weights that transformers made up or left unused, which it only logs."""
    if other := sorted(report["mismatched_keys"]):
        name, found, wanted = other[0]
        raise ModelError(
            f"{where}: its config.json belongs to other weights: {len(other)} have other sizes, e.g. {name} is "
            f"{list(found)} in the files, {list(wanted)} by the config. Give the folder as save_pretrained wrote it."
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{where}: {len(missing)} weights are not in its files, e.g. {missing[0]}. Download it again.")
    if unused := sorted(report["unexpected_keys"]):
        way = "Give the folder as save_pretrained wrote it, or remove them"
        if any("lora_" in name for name in unused):
            way = "They are of an adapter: merge it into the weights (peft's merge_and_unload), and give that folder"
        raise ModelError(f"{where}: {len(unused)} tensors in its files are not of this model, e.g. {unused[0]}. {way}.")


def _check_processor(processor: "ProcessorMixin", where: str) -> None:
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(
            f"{where}: its processor is a {type(processor).__name__}, without pictures or without text. Give "
            "a model of both."
        )
    if not getattr(processor, "chat_template", None):  # older folders have it in tokenizer_config.json alone
        processor.chat_template = getattr(processor.tokenizer, "chat_template", None)
    if not processor.chat_template:
        raise ModelError(f"{where}: no chat template, so that it cannot be asked. Add chat_template.jinja.")


def _limit_pixels(processor: "ProcessorMixin", card: ModelCard, where: str) -> None:
    """Set the least and most pixels of a picture, which only the Qwen families have."""
    edges = {"shortest_edge": card.min_pixels, "longest_edge": card.max_pixels}
    wanted = {name: area for name, area in edges.items() if area is not None}
    images = processor.image_processor
    if card.modality == "video":
        images = getattr(processor, "video_processor", None)
        if images is None:
            raise ModelError(f"{where}: its processor takes no video. Set modality to images.")
        images.cap_pixels_per_frame = False
    if wanted and "max_pixels" not in getattr(images.valid_kwargs, "__annotations__", {}):
        raise ModelError(
            f"{where}: {type(images).__name__} has no min_pixels and max_pixels. Leave them out of the card."
        )
    if wanted:
        images.size = type(images.size)(**(dict(images.size) | wanted))


def _try_picture(processor: "ProcessorMixin", is_video: bool, where: str) -> None:
    """Refuse a processor that takes no picture (or video), before every clip fails."""
    size = dict(getattr(processor.image_processor, "size", None) or {})
    low, high = size.get("shortest_edge"), size.get("longest_edge")
    if low and high and low > high:
        raise ModelError(
            f"{where}: pictures of at least {low} and at most {high} pixels. Swap min_pixels and max_pixels."
        )
    try:
        picture = np.zeros((56, 56, 3), np.uint8)
        chat = messages("visualquality_r1", Layout(is_video=is_video), global_count=1, local_count=0)
        encode_chat(processor, chat, [] if is_video else [picture], videos=[[picture, picture]] * is_video)
    except Exception as error:  # whatever a processor with odd settings raises
        words = " ".join(str(error).split())[:300]
        kind = "video" if is_video else "picture"
        raise ModelError(
            f"{where}: its processor takes no {kind} ({type(error).__name__}: {words}). Correct its settings."
        ) from error


@contextmanager
def loading(where: str) -> Iterator[None]:
    """Turn errors of transformers into ModelError; hide its bars and weight tables."""
    bars = hf.utils.logging
    shown, loudness = bars.is_progress_bar_enabled(), bars.get_verbosity()
    bars.disable_progress_bar()
    bars.set_verbosity_error()
    try:
        with uncollected():  # most classes are imported on the way
            yield
    except SafetensorError as error:
        raise ModelError(f"{where}: its weights cannot be read ({error}). Copy or download them again.") from error
    except Exception as error:  # a broken folder raises anything: KeyError, JSONDecodeError, SafetensorError, ...
        if what := machine.shortage(error):
            raise MachineError(f"{where} cannot be loaded: {what}") from error
        raise ModelError(f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:500]}") from error
    finally:
        bars.set_verbosity(loudness)
        if shown:
            bars.enable_progress_bar()
