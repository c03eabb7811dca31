"""Clips that more than one file of these tests looks at."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vqa.data.synthetic.encoding import encode_video


@pytest.fixture(scope="session")
def freezing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A slow pan of a pixel a frame, the same with frames 10 to 21 frozen, and its first frame 32 times."""
    folder = tmp_path_factory.mktemp("views")
    scene = gaussian_filter(np.random.default_rng(0).integers(0, 256, (96, 192, 3)).astype(np.float32), (2, 2, 0))
    scene = ((scene - scene.min()) / np.ptp(scene) * 255).astype(np.uint8)
    moving = np.stack([scene[:, k : k + 160] for k in range(32)])
    shown = {"moving": range(32), "frozen": [*range(10), *[10] * 12, *range(22, 32)], "still": [0] * 32}
    for name, places in shown.items():
        encode_video(moving[list(places)], folder / f"{name}.mp4", codec="x264", quality=18)
    return {name: folder / f"{name}.mp4" for name in shown}
