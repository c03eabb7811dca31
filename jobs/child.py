"""Functions of the guarded child, apart from all that imports Arrow or torch."""

import pickle
from functools import lru_cache

from vqa.media.packets import PacketTable
from vqa.media.probe import probe
from vqa.types import Clip, MediaInfo
from vqa.views import ViewsConfig, look


@lru_cache(maxsize=1)
def _probe_once(
    uri: str, stamp: tuple[int, int] | None, max_frames: int, max_pixels: int
) -> tuple[MediaInfo, PacketTable]:
    """Demux a file once for all its windows, and anew when its stamp has changed."""
    return probe(uri, max_frames=max_frames, max_pixels=max_pixels)


def media_info(uri: str, stamp: tuple[int, int] | None, max_frames: int, max_pixels: int) -> MediaInfo:
    """The file's facts. Raises ClipError."""
    return _probe_once(uri, stamp, max_frames, max_pixels)[0]


def pickled_views(
    clip: Clip, stamp: tuple[int, int] | None, max_frames: int, config: ViewsConfig, *, seed: int
) -> bytes:
    """The clip's Views, pickled; the same file is not demuxed twice in a row.

    Raises ClipError as `look`.
    """
    views = look(clip, config, seed=seed, probed=_probe_once(clip.uri, stamp, max_frames, config.max_pixels))
    return pickle.dumps(views, protocol=5)
