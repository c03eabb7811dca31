"""Readers of pictures that FFmpeg does not give as they are.

WebP and plain GIF by Pillow; HEIF pictures of several coded items by FFmpeg, item by item.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from vqa.media.color.convert import FrameConverter, on_white
from vqa.media.containers.ffmpeg import open_container
from vqa.media.containers.heif import Plane, primary_image
from vqa.media.containers.images import pillow_pictures
from vqa.media.packets import PacketTable
from vqa.media.storage.open import open_source
from vqa.types import MediaInfo, Pixels


def read_pillow(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], *, thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """A `Reader` (base.py) of WebP files, and of GIFs without control blocks."""
    with open_source(info.uri) as file:
        for entry, pixels in pillow_pictures(file, [int(entry) for entry in wanted if not table.is_damaged[entry]]):
            yield entry, av.VideoFrame.from_ndarray(pixels, format="rgb24")


def read_heif(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], *, thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """A `Reader` (base.py) of composite HEIF pictures: tiles pasted, alpha on white.

    Nothing is yielded where an item is lost.
    """
    with open_source(info.uri) as file:
        heif = primary_image(file)
        with open_container(info.uri, file) as container:
            coded = dict(_decoded(container))
    planes = [plane for plane in (heif.colours, heif.alpha) if plane] if heif else []
    if heif is None or not len(wanted) or any(item not in coded for plane in planes for item in plane.items):
        return
    pixels = _pasted(heif.colours, [_coloured(info, coded[item]) for item in heif.colours.items])
    if heif.alpha:
        alpha = _pasted(heif.alpha, [_grey(coded[item]) for item in heif.alpha.items])
        if alpha.shape[:2] != pixels.shape[:2]:
            frame = av.VideoFrame.from_ndarray(alpha[..., 0], format="gray")
            alpha = _grey(frame.reformat(width=pixels.shape[1], height=pixels.shape[0], threads=1))
        pixels = on_white(np.concatenate([pixels, alpha], axis=2))
    yield int(wanted[0]), av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def _decoded(container: av.container.InputContainer) -> Iterator[tuple[int, av.VideoFrame]]:
    """(item, frame) of each coded item that can be decoded."""
    for packet in container.demux(video=tuple(range(len(container.streams.video)))):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
                yield packet.stream.id, frame


def _coloured(info: MediaInfo, frame: av.VideoFrame) -> Pixels:
    tile = replace(info, width=frame.width, height=frame.height, rotation_degrees=0, is_mirrored=False, crop=None)
    return FrameConverter(info=tile).convert(frame, None)


def _grey(frame: av.VideoFrame) -> Pixels:
    """Luma of full range, [height, width, 1]."""
    return cast(Pixels, frame.to_ndarray(format="gray"))[..., None]


def _pasted(plane: Plane, tiles: list[Pixels]) -> Pixels:
    """The tiles in rows, cut to the plane's size."""
    rows = [tiles[at : at + plane.columns] for at in range(0, len(tiles), plane.columns)]
    whole = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    return whole[: plane.height, : plane.width]
