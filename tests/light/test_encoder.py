"""The encoder against the published one."""

import numpy as np
import pytest
import torch

from vqa.light.encoder import CHANNELS, EfficientNetLite0
from vqa.light.material import PACKAGE, published_encoder


def test_stages_halve_the_picture_and_widen() -> None:
    maps = EfficientNetLite0().eval()(torch.zeros(1, 3, 97, 130))
    assert tuple(one.shape[1] for one in maps) == CHANNELS
    assert [tuple(one.shape[2:]) for one in maps][:3] == [(49, 65), (25, 33), (13, 17)]


def test_published_weights_give_the_published_features() -> None:
    pytest.importorskip(PACKAGE)
    y, x, channel = np.mgrid[:96, :128, :3]
    picture = ((x * 3 + y * 5 + channel * 40 + (x * y) % 17 * 4) % 256).astype(np.float32)
    with torch.inference_mode():
        found = published_encoder().eval()(torch.from_numpy(picture).permute(2, 0, 1)[None])[-1]
    # By efficientnet-lite-pytorch 0.1.0, the network that the weights were published for.
    assert found.mean().item() == pytest.approx(0.441589, rel=1e-4)
    assert found[0, [624, 853, 879, 1149]].mean((1, 2)).tolist() == pytest.approx(
        [4.71073, 4.77756, 4.76055, 5.02282], rel=1e-3
    )
