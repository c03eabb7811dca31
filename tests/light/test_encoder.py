"""The encoder against the published one."""

import numpy as np
import pytest
import torch

from vqa.light import encoder
from vqa.light.encoder import CHANNELS, EfficientNetLite0
from vqa.light.material import PACKAGE, published_encoder
from vqa.light.student import rounded


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


def picture(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 3, 131, 97), dtype=np.uint8))


def test_one_pass_gives_what_torchs_own_operations_give(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = rounded(EfficientNetLite0()), picture(0)
    with torch.inference_mode():
        found = network(seen)
        monkeypatch.setattr(encoder, "_FUSES", False)
        wanted = network(seen)
    assert encoder._FUSES is False
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def test_weights_that_come_later_count() -> None:
    network, other, seen = rounded(EfficientNetLite0()), EfficientNetLite0().eval(), picture(1)
    with torch.inference_mode():
        wanted, before = other(seen)[-1], network(seen)[-1]
        network.load_state_dict(other.state_dict())
        torch.testing.assert_close(network(seen)[-1], wanted)
        assert not torch.allclose(before, wanted)
        fresh = EfficientNetLite0().eval()
        fresh.load_state_dict(rounded(network).state_dict())
        torch.testing.assert_close(network(seen)[-1], fresh(seen)[-1], rtol=0, atol=0)
