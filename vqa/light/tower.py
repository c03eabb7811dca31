"""Vision tower of a transformers model as a student's encoder.

Of CLIP, SigLIP, DINOv2 and the like, or of a video MLLM such as the Qwen-VLs.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa.config import build
from vqa.errors import ModelError, UsageError
from vqa.imports import uncollected
from vqa.light.card import TowerConfig
from vqa.model._compat import forget_attention
from vqa.model.card import ModelCard, find_card
from vqa.model.load import loading
from vqa.model.resolve import Location, locate_model
from vqa.types import Pixels

with uncollected():
    import transformers

hf: Any = transformers  # its types do not hold what it does
_DEPTHS = 4  # hidden states that are taken: those at a quarter, half, three quarters and all of the layers
_THINNEST = 100  # times as long as wide; Qwen's processors refuse pictures thinner than 200
_PROBES = ((48, 64), (200, 96))  # height and width of pictures that an encoder is tried with


class TowerEncoder(nn.Module):
    """Means and deviations over a picture of hidden states at several depths."""

    def __init__(self, config: TowerConfig, weights: Mapping[str, Tensor]) -> None:
        """Build the tower with its weights.

        Raises:
            ModelError: Weights, config and processor do not fit each other, or this transformers does not know them.
        """
        super().__init__()
        self.config = config
        with loading("encoder"):
            kind = hf.MODEL_MAPPING[type(settings := hf.AutoConfig.for_model(**config.vision))]
            self.tower, report = kind.from_pretrained(
                None, config=settings, state_dict=dict(weights), dtype=torch.float32, output_loading_info=True
            )
            self._processor = _processor_class(config.processor)(**config.processor)
        if lost := sorted([*report["missing_keys"], *report["unexpected_keys"]]):
            raise ModelError(f"encoder: {len(lost)} weights are missing or not of it, such as {lost[0]}")
        self.eval().requires_grad_(False)
        self._takes = inspect.signature(kind.forward).parameters

    @cached_property
    def size(self) -> int:
        """How many features a picture has. Raises ModelError where it cannot look at any."""
        with loading("encoder"):
            return self._features(np.zeros((*_PROBES[0], 3), np.uint8)).size

    def encode(self, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        """Features [N, size] of pictures, uint8 [H, W, 3] RGB, each by itself."""
        return np.stack([self._features(one) for one in pictures])

    def _features(self, picture: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            states = self.hidden_states(picture)
            places = [_places(states[depth]) for depth in self.config.depths]
            moments = [part for one in places for part in (one.mean(0), one.std(0, correction=0))]
            return np.asarray(torch.cat(moments).float().numpy())

    def hidden_states(self, picture: Pixels) -> Sequence[Tensor]:
        """What enters the first layer and what each layer gives, of one picture."""
        least = -(-max(picture.shape[:2]) // _THINNEST)
        margins = [(0, max(0, least - side)) for side in picture.shape[:2]]
        picture = np.pad(picture, [*margins, (0, 0)], mode="edge")
        given = self._processor(images=[picture], input_data_format="channels_last", return_tensors="pt")
        pixels = given["pixel_values"]
        if "grid_thw" in self._takes:  # the Qwen families: patches of any number of pictures in one row
            found = self.tower(pixels, grid_thw=given["image_grid_thw"], output_hidden_states=True)
        else:
            rest = {name: one for name, one in given.items() if name in self._takes and name != "pixel_values"}
            pixels = pixels.flatten(0, 1) if pixels.ndim == 5 else pixels  # pieces of the picture
            found = self.tower(pixel_values=pixels, output_hidden_states=True, **rest)
        states: Sequence[Tensor] = found.hidden_states
        return states


def _places(state: Tensor) -> Tensor:
    """[places, channels] of states [..., channels], or of maps [N, channels, h, w]."""
    return (state.movedim(1, 3) if state.ndim == 4 else state).flatten(0, -2)


def _processor_class(settings: Mapping[str, Any]) -> Any:
    """The class of an image processor's settings. Raises ValueError for any other."""
    name = str(settings.get("image_processor_type"))
    found = getattr(hf, name, None)
    if not (isinstance(found, type) and issubclass(found, hf.BaseImageProcessor)):
        raise ValueError(f"{name} is no image processor of transformers {hf.__version__}")
    return found


def read_tower(name: str) -> tuple[TowerEncoder, str, str]:
    """Load a model's vision tower, rounded to float16 as a student holds it.

    Args:
        name: `embedded` or another card of configs/models, a folder, or an id of the hub. Code that comes with a model
            is never run, and weights are read from safetensors alone.

    Returns:
        The encoder, the revision of its files, and what it is in words.

    Raises:
        UsageError: There is no such model, it does not take pictures, or cannot be loaded.
    """
    try:
        card = build(ModelCard, find_card(name), where=f"model {name}")
        location = locate_model(card.source, revision=card.revision, subfolder=card.subfolder)
        encoder = _read(location)
        known = name if location.commit else card.name
        licence = card.licence or "not stated here, see where it comes from"
        words = f"{known} ({location.revision}), {type(encoder.tower).__name__}; licence: {licence}"
        return encoder, location.revision, words
    except (ModelError, UsageError) as error:
        raise UsageError(
            f"encoder {name}: {str(error).rstrip('.')}. Give a vision model as save_pretrained of transformers writes "
            "it (CLIP, SigLIP, DINOv2, a Qwen-VL), embedded, or null for EfficientNet-Lite0."
        ) from error


def _read(location: Location) -> TowerEncoder:
    """Load a tower. Raises ModelError."""
    options: dict[str, Any] = {"trust_remote_code": False}
    options |= {"revision": location.commit} if location.commit else {}
    options |= {"subfolder": location.subfolder} if location.subfolder else {}
    where = f"model {location.model_id}"
    try:
        with loading(where):
            config = hf.AutoConfig.from_pretrained(location.place, **options)
    except ModelError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ModelError(f"{where}: needs code of its own, which is never run") from error
    vision = getattr(config, "vision_config", None) or config
    kind = hf.MODEL_MAPPING.get(type(vision), None)
    forward = getattr(kind, "forward", None)
    if forward is None or not {"pixel_values", "grid_thw"} & set(inspect.signature(forward).parameters):
        raise ModelError(f"{where}: {config.model_type} has no vision tower that transformers can run by itself")
    forget_attention(config)  # one that needs a package or a GPU would be no use here
    with loading(where):
        processor = hf.AutoImageProcessor.from_pretrained(location.place, **options)
        model, report = hf.AutoModel.from_pretrained(
            location.place,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    tower = model if vision is config else model.get_encoder(modality="image")
    place = next((f"{path}." if path else "" for path, one in model.named_modules() if one is tower), None)
    if place is None or not isinstance(tower, kind):
        raise ModelError(f"{where}: {type(tower).__name__} is not its {kind.__name__}")
    weights = tower.state_dict()
    for one in sorted(one.removeprefix(place) for one in report["missing_keys"] if one.startswith(place)):
        if "pooler" not in one:  # which classifiers come without; no hidden state depends on it
            raise ModelError(f"{where}: weights {one} are not in its files; copy or download them again")
        weights[one] = torch.zeros_like(weights[one])
    settings = TowerConfig(
        vision=json.loads(vision.to_json_string(use_diff=True)),
        processor=json.loads(processor.to_json_string()),
        depths=[],
    )
    encoder = TowerEncoder(settings, {name: _rounded(one) for name, one in weights.items()})
    with loading(where), torch.inference_mode():
        layers = len(encoder.hidden_states(np.zeros((*_PROBES[0], 3), np.uint8))) - 1
        depths = np.unique(np.linspace(0, layers, _DEPTHS + 1)[1:].round().astype(int)).tolist()
        encoder.config = settings.model_copy(update={"depths": depths})
        (other,) = encoder.encode([np.zeros((*_PROBES[1], 3), np.uint8)])
    if other.size != encoder.size or not np.isfinite(other).all():
        raise ModelError(f"{where}: {other.size} features of one picture, {encoder.size} of another, or not finite")
    return encoder


def _rounded(weights: Tensor) -> Tensor:
    return weights.half().float() if weights.is_floating_point() else weights
