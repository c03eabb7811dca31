"""CLIP's vision tower as a student's encoder, as in RALI; imports transformers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa.imports import uncollected
from vqa.light.card import ClipConfig
from vqa.types import Pixels

with uncollected():
    import transformers

hf: Any = transformers  # its types do not hold what it does
_NO_SETTINGS = (
    "model_type",
    "transformers_version",
    "image_processor_type",
    "processor_class",
    "feature_extractor_type",
)


class ClipEncoder(nn.Module):
    """Projected, not normalised features of frames: `CLIPModel.get_image_features`."""

    def __init__(self, config: ClipConfig) -> None:
        """Build the tower; `load_state_dict` adds weights. Raises ValueError, TypeError."""
        super().__init__()
        vision, processor = (
            {key: value for key, value in part.items() if key not in _NO_SETTINGS}
            for part in (config.vision, config.processor)
        )
        with torch.device("meta"):
            self.tower = hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**vision))
        embeddings = self.tower.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions)[None]  # a buffer that no file holds
        self._processor = hf.CLIPImageProcessorPil(**processor)
        self.size = int(self.tower.config.projection_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] as the preprocessor makes them -> [N, size]."""
        found: Tensor = self.tower(pixel_values=pictures).image_embeds
        return found

    def embed(self, frames: Sequence[Pixels]) -> NDArray[np.float32]:
        """Mean features [size] of frames, uint8 [H, W, 3] RGB; of one, exactly its own."""
        pictures = self._processor(images=list(frames), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return np.asarray(self(pictures).mean(0).numpy())
