"""Kinds of faults met in the field, made here: alpha, encryption, starts between keyframes, clock jumps, plain GIFs."""

import io
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.support import clips
from tests.support.structure import find
from vqa.errors import ClipError
from vqa.media import decode, probe
from vqa.media.containers.images import exif_turn

# --- alpha: what is hidden is not shown -------------------------------------------------------------------------------


def layered(hidden: int) -> np.ndarray:
    """A disc of picture 3; outside, under alpha 0, noise or grey."""
    y, x = np.mgrid[0:96, 0:160]
    outside = (y - 48) ** 2 + (x - 80) ** 2 > 40**2
    pixels = np.dstack([clips.picture(3, noise=0.0), np.where(outside, 0, 255).astype(np.uint8)])
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3))
    pixels[outside, :3] = noise[outside] if hidden < 0 else hidden
    return pixels


def saved(path: Path, hidden: int, mode: str) -> Path:
    image = Image.fromarray(layered(hidden), "RGBA")
    options = {"lossless": True} if path.suffix == ".webp" else {"quality": 100} if path.suffix == ".avif" else {}
    image.convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "RGBA"), ("png", "LA"), ("webp", "RGBA"), ("avif", "RGBA"), ("tif", "RGBA")]
)
def test_pictures_that_look_alike_are_alike(tmp_path: Path, suffix: str, mode: str) -> None:
    shown = []
    for hidden in (-1, 90):
        path = saved(tmp_path / f"{hidden}.{suffix}", hidden, mode)
        # Scaling mixes in no hidden colour either.
        shown += [decode(str(path), [0.0], sizes=[size]).pixels[0].astype(int) for size in (None, (60, 36))]
    for one, other in (shown[::2], shown[1::2]):
        difference = np.abs(one - other)
        assert difference.mean() < 1 if suffix == "avif" else difference.max() == 0  # AVIF is lossy at the edge
    assert (shown[0][:5, :5] == 255).all()
    middle = clips.picture(3, noise=0.0)[48, 80] if mode == "RGBA" else None
    if middle is not None:
        assert np.abs(shown[0][48, 80] - middle).max() <= (8 if suffix == "avif" else 0)


def test_a_transparent_entry_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4), "P")
    image.putpalette([255, 0, 255] * 256)
    image.save(tmp_path / "a.png", transparency=7)
    pixels = decode(str(tmp_path / "a.png"), [0.0], sizes=[None]).pixels[0]
    assert pixels[1, 3].tolist() == [255, 255, 255] and pixels[1, 2].tolist() == [255, 0, 255]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "png", "rgba"),
    ],
)
def test_videos_that_look_alike_are_alike(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    shown = []
    for hidden in (-1, 90):
        raw = tmp_path / "raw.rgba"
        raw.write_bytes(layered(hidden).tobytes() * 5)
        path = tmp_path / f"{hidden}{name}"
        lossless = ("-lossless", "1") if codec == "libvpx-vp9" else ()
        source = ("-f", "rawvideo", "-pix_fmt", "rgba", "-s", "160x96", "-i", raw)
        clips.ffmpeg(*source, "-c:v", codec, "-pix_fmt", pixel_format, *lossless, path)
        info, table = probe(str(path))
        assert info.has_alpha and len(table.seconds) == 5
        shown.append(decode(str(path), [0.16], sizes=[None]).pixels[0].astype(int))
    assert np.abs(shown[0] - shown[1]).mean() < 1.5  # chroma of neighbours at the edge
    assert (shown[0][:5, :5] > 250).all()


# --- encryption -------------------------------------------------------------------------------------------------------


def test_a_scrambled_transport_stream_is_unsupported(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.ts", frames=25)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        pid = container.streams.video[0].id
    for at in range(0, len(data), 188):
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == pid:
            data[at + 3] |= 0x80  # even key
    path.write_bytes(data)
    with pytest.raises(ClipError, match="encrypted") as error:
        probe(str(path))
    assert error.value.kind == "unsupported"


@pytest.mark.parametrize("fragmented", [False, True])
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_an_encrypted_mp4_is_unsupported(tmp_path: Path, codec: str, fragmented: bool) -> None:
    plain = clips.write_video(tmp_path / "a.mp4", codec=codec, frames=10)
    key = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0" * 32, "-encryption_kid", "1" * 32)
    pieces = ("-movflags", "frag_keyframe+empty_moov") if fragmented else ()
    path = tmp_path / "b.mp4"
    clips.ffmpeg("-i", plain, "-c", "copy", *key, *pieces, path)
    with pytest.raises(ClipError, match="its video is encrypted") as error:
        probe(str(path))
    assert error.value.kind == "unsupported"


def element(kind: str, *inner: bytes) -> bytes:
    """An element of Matroska (RFC 8794) of less than 127 bytes."""
    body = b"".join(inner)
    return bytes.fromhex(kind) + bytes([0x80 | len(body)]) + body


def with_in_track(path: Path, out: Path, added: bytes, nth: int = 0) -> Path:
    """A copy of a Matroska file with an element added to its nth track; only the sizes of its parents change."""
    data = bytearray(path.read_bytes())
    entry = find(bytes(data), "ae", nth=nth)
    for parent in (entry, find(bytes(data), "1654ae6b"), find(bytes(data), "18538067")):
        size = int.from_bytes(data[parent.size_at : parent.body], "big") + len(added)
        data[parent.size_at : parent.body] = size.to_bytes(parent.size_bytes, "big")
    data[entry.stop : entry.stop] = added
    out.write_bytes(data)
    return out


AES = element("47e1", b"\5")  # ContentEncAlgo
KEY = element("47e2", bytes(range(16)))  # ContentEncKeyID
ENCRYPTION = element("5033", b"\1")  # ContentEncodingType
COMPRESSION = element("6240", element("5034", element("4254", b"\3"), element("4255", b"\0")))  # a header taken off


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize(
    "encodings",
    [
        element("6240", ENCRYPTION, element("5035", AES, KEY)),
        element("6240", ENCRYPTION, element("5035", AES)),
        element("6240", element("5031", b"\1"), ENCRYPTION, element("5035")) + COMPRESSION,
    ],
)
def test_an_encrypted_matroska_file_is_unsupported(tmp_path: Path, encodings: bytes, suffix: str) -> None:
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    plain = clips.write_video(tmp_path / f"a{suffix}", codec=codec, frames=10)
    path = with_in_track(plain, tmp_path / f"b{suffix}", element("6d80", encodings))
    with pytest.raises(ClipError, match="its video is encrypted") as error:
        probe(str(path))
    assert error.value.kind == "unsupported"


def test_only_the_encryption_of_the_video_counts(tmp_path: Path) -> None:
    plain = clips.write_video(tmp_path / "a.mkv", frames=10, audio=True)
    encrypted = element("6d80", element("6240", ENCRYPTION, element("5035", AES, KEY)))
    assert len(probe(str(with_in_track(plain, tmp_path / "b.mkv", encrypted, nth=1)))[1].seconds) == 10
    with pytest.raises(ClipError, match="its video is encrypted"):
        probe(str(with_in_track(plain, tmp_path / "c.mkv", encrypted)))


def test_encryption_is_found_behind_a_long_index(tmp_path: Path) -> None:
    plain = clips.write_video(tmp_path / "a.mkv", frames=10)
    encrypted = element("6d80", element("6240", ENCRYPTION, element("5035", AES, KEY)))
    data = bytearray(with_in_track(plain, tmp_path / "b.mkv", encrypted).read_bytes())
    segment, space = find(bytes(data), "18538067"), 1 << 21
    size = int.from_bytes(data[segment.size_at : segment.body], "big") + 9 + space
    data[segment.size_at : segment.body] = size.to_bytes(segment.size_bytes, "big")
    data[segment.body : segment.body] = b"\xec\x01" + space.to_bytes(7, "big") + bytes(space)  # a void
    path = tmp_path / "c.mkv"
    path.write_bytes(data)
    with pytest.raises(ClipError, match="its video is encrypted"):
        probe(str(path))


# --- starts between keyframes -----------------------------------------------------------------------------------------


def without_first(path: Path, out: Path, count: int) -> Path:
    """A copy without the first packets of its video."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in itertools.islice(source.demux(video=0), count, None):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return out


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "mpeg4"),
        ("a.mp4", "mpeg4"),
        ("a.avi", "msmpeg4"),
        ("a.wmv", "wmv2"),
        ("a.avi", "h263p"),
        ("a.flv", "flv"),
    ],
)
def test_frames_before_the_first_keyframe_are_lost(tmp_path: Path, name: str, codec: str) -> None:
    path = clips.write_video(tmp_path / name, codec=codec, frames=40, width=176, height=144, options={"g": "20"})
    cut = without_first(path, tmp_path / f"cut-{name}", 5)
    _, table = probe(str(cut))
    frames = decode(str(cut), table.seconds, sizes=[None] * len(table.seconds))
    assert [clips.read_number(pixels) for pixels in frames.pixels] == list(range(20, 40))
    whole = decode(str(path), probe(str(path))[1].seconds, sizes=[None] * 40)
    assert len(whole.pixels) == 40  # nothing of a sound file counts as lost


# --- clocks of transport streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("second_start", [50_000.0, 12.0, 0.2])
def test_a_clock_that_jumps_goes_on(tmp_path: Path, second_start: float) -> None:
    parts = []
    for start in (20.0, second_start):
        seconds = (start + np.arange(40) / 25).tolist()
        parts.append(
            clips.write_video(
                tmp_path / f"{start}.ts", seconds=seconds, options={"g": "20"}, container_options={"mpegts_copyts": "1"}
            )
        )
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    info, table = probe(str(path))
    assert (len(table.seconds), table.is_damaged.sum()) == (80, 0)
    assert info.duration_seconds == pytest.approx(3.2, abs=0.09)
    frames = decode(str(path), table.seconds, sizes=[None] * 80)
    assert [clips.read_number(pixels) for pixels in frames.pixels] == [*range(40), *range(40)]


def test_a_loss_of_some_seconds_is_a_gap(tmp_path: Path) -> None:
    seconds = [*np.arange(25) / 25, *(4 + np.arange(25) / 25)]
    info, _ = probe(str(clips.write_video(tmp_path / "gap.ts", seconds=seconds)))
    assert info.duration_seconds == pytest.approx(5.0, abs=0.05)


# --- Matroska, GIF, sizes ---------------------------------------------------------------------------------------------


def test_a_block_that_names_no_track_is_lost(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mkv", frames=50, options={"g": "10"})
    data = bytearray(path.read_bytes())
    block = find(bytes(data), "a3", nth=20)
    body = next(at for at in range(block.start, block.stop) if data[at] == 0x81)
    data[body] ^= 0x04  # track 1 becomes track 5
    path.write_bytes(data)
    _, table = probe(str(path))
    assert table.is_damaged.any() and len(table.seconds) == pytest.approx(50, abs=1)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("byte", [0, 1, 2])
def test_a_block_with_a_damaged_head_leaves_no_wrong_picture(tmp_path: Path, byte: int, bit: int) -> None:
    """Its id, its size: FFmpeg leaves the block out, and decodes what refers to it without an error."""
    path = clips.write_video(tmp_path / "a.mkv", frames=50, options={"g": "10"})
    data = bytearray(path.read_bytes())
    data[find(bytes(data), "a3", nth=23).start + byte] ^= 1 << bit
    path.write_bytes(data)
    _, table = probe(str(path))
    assert len(table.seconds) == 50
    frames = decode(str(path), table.seconds, sizes=[None] * 50)
    assert 30 <= len(frames.pixels) < 50
    assert [clips.read_number(pixels) for pixels in frames.pixels] == frames.requested.tolist()


def test_a_gif_without_control_blocks_has_all_its_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(clips.picture(n)).quantize(32) for n in range(7)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    data = out.getvalue()
    path = tmp_path / "a.gif"
    path.write_bytes(data)
    info, table = probe(str(path))
    assert (info.codec, info.frame_count, info.fps, info.is_image) == ("gif", 7, pytest.approx(10), False)
    shown = decode(str(path), table.seconds, sizes=[None] * 7).pixels
    assert [clips.read_number(pixels) for pixels in shown] == list(range(7))
    path.write_bytes(data[: len(data) * 2 // 3])
    _, table = probe(str(path))
    assert len(table.seconds) < 7 and table.is_damaged.sum() == 1


def test_the_largest_picture_is_what_the_setting_says(tmp_path: Path) -> None:
    side = 8200  # above the default of 2**26 pixels
    path = tmp_path / "a.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ClipError, match=r"raise views\.max_pixels"):
        probe(str(path))
    info, _ = probe(str(path), max_pixels=side * side)
    assert (info.width, info.height) == (side, side)


def test_pillows_own_limit_turns_no_photograph() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("L", (16, 8)).save(out, "JPEG", exif=exif)
    data = out.getvalue()
    at = data.index(b"\xff\xc0") + 5  # height and width: 220 megapixels
    large = data[:at] + (10_500).to_bytes(2, "big") + (21_000).to_bytes(2, "big") + data[at + 4 :]
    assert exif_turn(io.BytesIO(large)) == exif_turn(io.BytesIO(data)) == (90, False)
    assert Image.MAX_IMAGE_PIXELS is not None  # as it was
