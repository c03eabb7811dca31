"""Real media files for the tests: small, seeded, made by real encoders; frame n carries the number n in its pixels.

Nothing here fakes a decoder: wrong files are good files, damaged.
"""

import hashlib
import itertools
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from PIL import Image

from tests.support.kept import ROOT, kept
from vqa.data.synthetic.encoding import without_realtime

Pixels = NDArray[np.uint8]

NUMBER_BITS = 10  # black and white squares along the top edge, most significant first
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # else memory alignment shows
TICKS = 90_000  # per second, for frames with times of their own


# --- pictures -------------------------------------------------------------------------------------------------------


def picture(number: int, *, width: int = 160, height: int = 96, seed: int = 0, noise: float = 8.0) -> Pixels:
    """Frame `number` of a moving texture with noise; uint8 [height, width, 3] RGB; `read_number` reads it back."""
    rng = np.random.default_rng([seed, number])
    y, x = np.arange(height)[:, None], np.arange(width)
    shift, pixels = 2.0 * number, np.empty((height, width, 3))
    # Sines of all that may be summed, picked by the sums: there are a hundredth as many of them as pixels.
    pixels[..., 0] = np.sin((x + shift) / 7.0) + np.cos(y / 11.0)
    pixels[..., 1] = np.sin((np.arange(width + height - 1) - shift) / 13.0)[x + y]
    pixels[..., 2] = np.cos((np.arange(-2 * (height - 1), width) + shift) / 17.0)[x - 2 * y + 2 * (height - 1)]
    pixels *= 55.0
    pixels += 128.0
    pixels += rng.normal(0.0, noise, (height, width, 1))
    strip = max(4, height // 6)
    bits = [(number >> bit) & 1 for bit in reversed(range(NUMBER_BITS))]
    edges = np.linspace(0, width, NUMBER_BITS + 1).astype(int)
    for bit, left, right in zip(bits, edges[:-1], edges[1:], strict=True):
        pixels[:strip, left:right] = 235.0 if bit else 20.0
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def read_number(pixels: Pixels) -> int:
    """The number written into a picture by `picture`, at any size that keeps the whole frame."""
    height, width = pixels.shape[:2]
    row = pixels[max(4, height // 6) // 2].astype(np.float64).mean(axis=-1)
    edges = np.linspace(0, width, NUMBER_BITS + 1)
    number = 0
    for left, right in itertools.pairwise(edges):
        number = 2 * number + int(row[int((left + right) / 2)] > 128)
    return number


# --- good files -----------------------------------------------------------------------------------------------------


def write_video(
    path: Path | str,
    *,
    codec: str = "libx264",
    width: int = 160,
    height: int = 96,
    fps: int = 25,
    frames: int = 50,
    seconds: Sequence[float] | None = None,
    options: Mapping[str, str] | None = None,
    pixel_format: str = "yuv420p",
    rotation_degrees: int = 0,
    audio: bool = False,
    container_options: Mapping[str, str] | None = None,
    container: str | None = None,
    seed: int = 0,
    noise: float = 8.0,
) -> Path:
    """Encode `frames` pictures (numbers 0, 1, ...) into the container that the suffix names.

    `seconds` gives each frame a time of its own (variable frame rate). `rotation_degrees` is a turn clockwise for
    display, written as a display matrix. `options` go to the encoder (x264: "g", "bf", "x264-params", ...),
    `container_options` to the muxer (mp4: {"movflags": "faststart"} puts the index in front, so that a cut-off file can
    be opened). One thread, so bytes repeat.
    """
    settings = {name: value for name, value in locals().items() if name != "path"}
    encode = _encode_in_child if codec == "libsvtav1" else _encode
    return kept(Path(path), lambda draft: encode(draft, **settings), "write_video", settings)


def _encode_in_child(path: Path, **settings: object) -> None:
    """As `_encode`, in a process that cannot become real-time, as SVT-AV1 makes the one that root encodes in."""
    child = without_realtime([sys.executable, "-m", __name__])
    where = {"cwd": ROOT, "env": os.environ | {"SVT_LOG": "1"}}
    subprocess.run(child, input=pickle.dumps((path.absolute(), settings)), check=True, **where)


def _encode(
    path: Path,
    *,
    codec: str,
    width: int,
    height: int,
    fps: int,
    frames: int,
    seconds: Sequence[float] | None,
    options: Mapping[str, str] | None,
    pixel_format: str,
    rotation_degrees: int,
    audio: bool,
    container_options: Mapping[str, str] | None,
    container: str | None,
    seed: int,
    noise: float,
) -> None:
    steady = {"mbtree": "0"} if codec == "libx264" else {}  # x264's macroblock tree does not repeat itself to the bit
    with av.open(str(path), "w", format=container, options=dict(container_options or {})) as output:
        stream = output.add_stream(codec, rate=fps, options={**steady, **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS if seconds is not None else fps)
        if rotation_degrees:
            stream.set_display_rotation(-rotation_degrees)  # FFmpeg counts counterclockwise
        sound = output.add_stream("aac", rate=16_000, layout="mono") if audio else None
        for number in range(frames if seconds is None else len(seconds)):
            frame = av.VideoFrame.from_ndarray(
                picture(number, width=width, height=height, seed=seed, noise=noise), format="rgb24"
            ).reformat(format=pixel_format, interpolation=_EXACT, threads=1)
            frame.pts = number if seconds is None else round(seconds[number] * TICKS)
            frame.time_base = stream.codec_context.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None:
            duration = frames / fps if seconds is None else seconds[-1]
            _encode_tone(output, sound, duration)


def ffmpeg(*arguments: object) -> None:
    """Run the FFmpeg that imageio-ffmpeg brings along: other versions of the encoders and muxers than PyAV's.

    The last argument is the file to write; those before that are files count by their content.
    """
    *words, out = map(str, arguments)

    def make(draft: Path) -> None:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
        command += [*words, str(draft)]
        subprocess.run(without_realtime(command) if "libsvtav1" in words else command, check=True)

    kept(Path(out), make, "ffmpeg", [_digest(Path(word)) if Path(word).is_file() else word for word in words])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _encode_tone(output: av.container.OutputContainer, stream: av.AudioStream, duration_seconds: float) -> None:
    rate, step = 16_000, 1024
    for start in range(0, int(duration_seconds * rate), step):
        tone = np.sin(2 * np.pi * 440.0 * np.arange(start, start + step) / rate).astype(np.float32) * 0.3
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, start
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def write_audio(path: Path | str, *, duration_seconds: float = 1.0, cover: bool = False) -> Path:
    """A tone and nothing else (.mp3, .m4a); with `cover`, an .mp3 that carries a JPEG as cover art."""
    path = Path(path)
    with av.open(str(path), "w") as output:
        codec = "libmp3lame" if path.suffix == ".mp3" else "aac"
        stream = output.add_stream(codec, rate=16_000, layout="mono")
        _encode_tone(output, stream, duration_seconds)
    if cover:
        art = path.with_suffix(".cover.jpg")
        Image.fromarray(picture(0)).save(art)
        path.write_bytes(_id3_cover(art.read_bytes()) + path.read_bytes())
        art.unlink()
    return path


def _id3_cover(jpeg: bytes) -> bytes:
    """An ID3v2.3 tag with one attached picture (APIC, front cover)."""
    body = b"\x00image/jpeg\x00\x03\x00" + jpeg
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\x00\x00" + body
    size = len(frame)
    return b"ID3\x03\x00\x00" + bytes([(size >> shift) & 0x7F for shift in (21, 14, 7, 0)]) + frame


def write_image(
    path: Path | str, *, width: int = 160, height: int = 96, number: int = 0, seed: int = 0, exif_orientation: int = 1
) -> Path:
    """A still picture in the format that the suffix names (.png, .jpg, .webp, .bmp, ...)."""
    path = Path(path)
    exif = Image.Exif()
    exif[0x0112] = exif_orientation
    options = {"exif": exif} if exif_orientation != 1 else {}
    Image.fromarray(picture(number, width=width, height=height, seed=seed)).save(path, **options)
    return path


def write_animation(
    path: Path | str,
    *,
    width: int = 160,
    height: int = 96,
    frames: int = 8,
    durations_ms: int | Sequence[int] = 40,
    lossless: bool = True,
    seed: int = 0,
) -> Path:
    """An animated .gif or .webp; GIF keeps times in hundredths of a second."""
    path = Path(path)
    pictures = [Image.fromarray(picture(n, width=width, height=height, seed=seed, noise=0.0)) for n in range(frames)]
    times = durations_ms if isinstance(durations_ms, int) else list(durations_ms)
    options = {"lossless": lossless} if path.suffix == ".webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0, **options)
    return path


# --- wrong files ----------------------------------------------------------------------------------------------------


def write_text(path: Path | str, *, lines: int = 200) -> Path:
    """Plain text, whatever the name says."""
    path = Path(path)
    path.write_text("".join(f"line {n}: this is not a video\n" for n in range(lines)), encoding="utf-8")
    return path


def write_header_only(path: Path | str) -> Path:
    """A good .mp4 or .mkv cut off where its first frame would begin: a full header, a track, no frame."""
    path = write_video(
        path, frames=5, container_options={"movflags": "faststart"} if Path(path).suffix == ".mp4" else {}
    )
    data = path.read_bytes()
    mark = b"mdat" if path.suffix == ".mp4" else bytes.fromhex("1f43b675")  # the media box; the first Matroska cluster
    path.write_bytes(data[: data.index(mark) + 4])
    return path


def cut_off(path: Path | str, share: float, *, out: Path | str | None = None) -> Path:
    """Keep the first `share` of the bytes (in place, or written to `out`)."""
    data = Path(path).read_bytes()
    target = Path(out or path)
    target.write_bytes(data[: int(len(data) * share)])
    return target


def flip_bits(
    path: Path | str,
    *,
    seed: int,
    count: int,
    start_share: float = 0.1,
    end_share: float = 1.0,
    out: Path | str | None = None,
) -> Path:
    """Flip `count` seeded bits between two shares of the file (in place, or written to `out`)."""
    data = bytearray(Path(path).read_bytes())
    rng = np.random.default_rng(seed)
    for position in rng.integers(int(len(data) * start_share), int(len(data) * end_share), count):
        data[int(position)] ^= 1 << int(rng.integers(8))
    target = Path(out or path)
    target.write_bytes(bytes(data))
    return target


def rename_codec(path: Path | str, *, old: bytes = b"avc1", new: bytes = b"zzz9") -> Path:
    """Rename the codec tag of an .mp4 into one that nobody knows."""
    path = Path(path)
    data = path.read_bytes()
    path.write_bytes(data[:64] + data[64:].replace(old, new))  # the first 64 bytes name the brands
    return path


if __name__ == "__main__":
    place, its_settings = pickle.load(sys.stdin.buffer)
    _encode(place, **its_settings)
