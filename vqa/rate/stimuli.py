"""Clips as a browser shows them: PNG, playable or transcoded video, or refused.

Pictures are decoded as for scoring (orientation, colours, size shown) in the guarded child, which imports this module.
"""

import io
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from PIL import Image

from vqa.errors import ClipError
from vqa.files import replacing
from vqa.media.decode import decode
from vqa.media.probe import probe
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint
from vqa.media.storage.open import local_path
from vqa.media.storage.stores import is_remote
from vqa.types import Clip, MediaInfo

PLAYED: frozenset[tuple[str, str]] = frozenset(  # suffix and codec that Chromium, Firefox and Safari play
    {
        (".mp4", "h264"),
        (".m4v", "h264"),
        (".mov", "h264"),
        (".mp4", "av1"),
        (".webm", "av1"),
        (".webm", "vp9"),
        (".webm", "vp8"),
    }
)
DEADLINE_SECONDS, MEMORY_BYTES, TRANSCODE_SECONDS = 60.0, 4 * 2**30, 1800
CRF = 4  # of x264: next to no loss, at several times the bytes of a clip as delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Stimulus:
    """A clip, and the file that a browser is given for it."""

    clip_id: str
    fingerprint: str  # of the clip's own file
    path: Path
    kind: Literal["image", "video"]
    width: int  # as shown, pixels
    height: int


def prepare_stimuli(
    clips: Sequence[Clip], folder: Path, *, tell: Callable[[str], None] = lambda _: None
) -> tuple[list[Stimulus], dict[str, str]]:
    """Make what browsers show of clips; files made before are used again.

    Args:
        clips: The clips, whole files on this machine.
        folder: Where pictures and transcoded videos are written, named by the digest of the clip's content.
        tell: Called with a line before a video is transcoded, which takes long.

    Returns:
        The stimuli, and by clip_id why a clip is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Stimulus] = []
    refused: dict[str, str] = {}
    with Guard(deadline_seconds=DEADLINE_SECONDS, memory_bytes=MEMORY_BYTES) as guard:
        for clip in clips:
            try:
                found.append(_prepared(clip, folder, guard, tell))
            except ClipError as error:
                refused[clip.clip_id] = f"{error.kind}: {error}"
    return found, refused


def _prepared(clip: Clip, folder: Path, guard: Guard, tell: Callable[[str], None]) -> Stimulus:
    if is_remote(clip.uri) or clip.start_seconds is not None or clip.end_seconds is not None:
        raise ClipError("unsupported", f"{clip.uri}: only whole files on this machine are shown. Copy or cut it first.")
    digest = guard.run(fingerprint, clip.uri)
    info, png = guard.run(inspect, clip.uri)
    source = Path(local_path(clip.uri))
    path = source
    if info.is_image:
        path = folder / f"{digest}.png"
        with replacing(path) as draft:
            draft.write_bytes(png)
    elif (source.suffix.lower(), info.codec) not in PLAYED:
        path = folder / f"{digest}.mp4"
        if not path.is_file():
            tell(f"transcoding {clip.clip_id} ({info.codec} in {source.suffix or 'a file without suffix'})")
            _transcode(source, path, info)
    kind: Literal["image", "video"] = "image" if info.is_image else "video"
    return Stimulus(
        clip_id=clip.clip_id, fingerprint=digest, path=path, kind=kind, width=info.width, height=info.height
    )


def inspect(uri: str) -> tuple[MediaInfo, bytes]:
    """Facts of a file, and a still as PNG; in the guarded child. Raises ClipError."""
    info, packets = probe(uri)
    if not info.is_image:
        return info, b""
    frames = decode(uri, [0.0], sizes=[None], info=info, packets=packets)
    file = io.BytesIO()
    Image.fromarray(frames.pixels[0]).save(file, format="PNG", compress_level=1)
    return info, file.getvalue()


def _transcode(source: Path, path: Path, info: MediaInfo) -> None:
    """Write `path` whole or not at all. Raises ClipError."""
    what = f"{source}: browsers do not play {info.codec} in {source.suffix or 'such files'}"
    if find_spec("imageio_ffmpeg") is None:
        raise ClipError("unsupported", f"{what}. Encode it as H.264 in .mp4, or `pip install 'vqa[rate]'`.")
    import imageio_ffmpeg

    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-nostdin",
        "-loglevel",
        "error",
        "-y",
        "-i",
        f"file:{source}",
        "-map",
        "0:v:0",
    ]
    command += ["-an", "-c:v", "libx264", "-preset", "fast", "-crf", str(CRF), "-pix_fmt", "yuv420p"]
    command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-movflags", "+faststart", "-f", "mp4"]
    with replacing(path) as draft:
        command.append(f"file:{draft}")
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TRANSCODE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ClipError("timeout", f"{what}, and transcoding took over {TRANSCODE_SECONDS} s. Cut it.") from error
        if done.returncode:
            said = " ".join(done.stderr.split())[-200:]
            way_out = "Encode it as H.264 in .mp4."
            raise ClipError("unsupported", f"{what}, and it could not be transcoded ({said}). {way_out}")
