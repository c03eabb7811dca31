"""Small good files of many containers and codecs, by real encoders: what wrong files are made from."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.support import clips

Maker = Callable[[Path], Path]


def _video(codec: str = "libx264", *, frames: int = 20, muxer: str = "", **more: Any) -> Maker:
    """A key frame every 8 frames; `muxer`: flags of the mp4 muxer. No random numbers in headers: bytes repeat."""
    container_options = {"fflags": "bitexact"} | ({"movflags": muxer} if muxer else {})
    more = {"width": 96, "height": 64, "options": {"g": "8"}, "container_options": container_options} | more
    return partial(clips.write_video, codec=codec, frames=frames, **more)


_HEVC = {"x265-params": "keyint=8:pools=1:frame-threads=1:log-level=0"}
_AV1 = {"preset": "12", "svtav1-params": "lp=1"}
_PICTURE = {"width": 96, "height": 64}
GOOD: dict[str, Maker] = {
    "h264.mp4": _video(),
    "index in front.mp4": _video(muxer="faststart"),
    "fragments.mp4": _video(options={"g": "5", "bf": "0"}, muxer="frag_keyframe+empty_moov"),
    "sound too.mp4": _video(audio=True),
    "hevc.mp4": _video("libx265", options=_HEVC),
    "prores.mov": _video("prores_ks", frames=6, pixel_format="yuv422p10le", options={}),
    "h264.mkv": _video(),
    "hevc of 10 bit.mkv": _video("libx265", pixel_format="yuv420p10le", options=_HEVC),
    "vp9.webm": _video("libvpx-vp9"),
    "av1.mkv": _video("libsvtav1", frames=10, options=_AV1),
    "mpeg4.avi": _video("mpeg4"),
    "mjpeg.avi": _video("mjpeg", frames=8, pixel_format="yuvj420p", options={}),
    "h264.ts": _video(),
    "flv1.flv": _video("flv"),
    "mpeg2.mpg": _video("mpeg2video", container="mpeg"),
    "vp8.ogv": _video("libvpx", container="ogg"),
    "raw.y4m": _video("rawvideo", frames=6, container="yuv4mpegpipe", options={}),
    "bare.h264": _video(),
    "moving.gif": partial(clips.write_animation, **_PICTURE, frames=6),
    "moving.webp": partial(clips.write_animation, **_PICTURE, frames=6),
    "still.png": partial(clips.write_image, **_PICTURE),
    "still.jpg": partial(clips.write_image, **_PICTURE),
    "still.webp": partial(clips.write_image, **_PICTURE),
    "sound.m4a": clips.write_audio,
}


@cache
def good(name: str) -> bytes:
    """The bytes of a file of `GOOD`, made once a process."""
    with TemporaryDirectory() as folder:
        return GOOD[name](Path(folder) / f"good{Path(name).suffix}").read_bytes()


class Wrong(NamedTuple):
    """One wrong file: its name says what was done, to the good file `good` ("": made from nothing); `outcome` is a
    status (ok, partial) or an error kind."""

    name: str
    outcome: str
    good: str
    edit: Callable[[bytes], bytes]

    def make(self) -> bytes:
        """The bytes of the wrong file."""
        return self.edit(good(self.good) if self.good else b"")
