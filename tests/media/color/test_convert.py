"""What a decoded frame looks like as a picture: shape, direction, fields, range, colours, highlights."""

import gc
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.support import clips
from vqa.errors import ClipError
from vqa.media import decode, probe
from vqa.media.color.convert import FrameConverter
from vqa.media.color.tonemap import HLG, PQ, to_sdr

# --- shape and direction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ("4/3", (213, 96)),  # wide pixels: wider
        ("8/9", (160, 108)),  # high pixels: higher
        ("1000/1001", (160, 96)),  # rounding in some encoders
        ("10/1", (160, 96)),  # a broken header
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pixels_are_made_square_by_stretching_the_axis_they_are_too_short_on(tmp_path, ratio, size, suffix) -> None:
    plain = clips.write_video(tmp_path / f"plain.{suffix}", frames=3, noise=0.0)
    path = tmp_path / f"ratio.{suffix}"
    clips.ffmpeg("-i", plain, "-c", "copy", "-bsf:v", f"h264_metadata=sample_aspect_ratio={ratio}", path)
    info, _ = probe(str(path))
    assert (info.width, info.height) == size
    native, asked = decode(str(path), [0.08, 0.08], sizes=[None, (80, 48)]).pixels
    assert (native.shape[1], native.shape[0]) == size
    assert clips.read_number(native) == 2
    np.testing.assert_array_equal(asked, decode(str(plain), [0.08], sizes=[(80, 48)]).pixels[0])


def test_a_rotated_clip_of_wide_pixels_becomes_a_high_picture(tmp_path) -> None:
    plain = clips.write_video(tmp_path / "plain.mp4", frames=3, rotation_degrees=90)
    path = tmp_path / "ratio.mp4"
    clips.ffmpeg("-i", plain, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=4/3", path)
    info, _ = probe(str(path))
    assert (info.width, info.height, info.rotation_degrees) == (96, 213, 90)
    assert decode(str(path), [0.0], sizes=[None]).pixels[0].shape == (213, 96, 3)


def test_the_inches_of_a_photograph_do_not_stretch_it(tmp_path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(clips.picture(0)).save(path, dpi=(72, 144))
    info, _ = probe(str(path))
    assert (info.width, info.height) == (160, 96)


@pytest.mark.parametrize("orientation", [2, 4, 5, 7])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
def test_mirrored_photographs_are_shown_unmirrored(tmp_path, suffix, orientation) -> None:
    path = clips.write_image(tmp_path / f"i.{suffix}", exif_orientation=orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    info, _ = probe(str(path))
    assert (info.height, info.width) == upright.shape[:2]
    pixels = decode(str(path), [0.0], sizes=[None]).pixels[0]
    assert np.abs(pixels - upright).mean() <= (2 if suffix in ("jpg", "avif") else 0)


@pytest.mark.parametrize("suffix", ["png", "apng", "jpg", "webp", "tif"])
def test_a_colour_profile_harms_nobody(tmp_path, suffix) -> None:
    """Photographs have one, often beside EXIF; PyAV dies of PNG's where it is asked for side data."""
    path, exif = tmp_path / f"photo.{suffix}", Image.Exif()
    exif[0x010E] = "a photograph"
    shown, profile = Image.fromarray(clips.picture(0)), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    more = {"save_all": True, "append_images": [shown]} if suffix == "apng" else {}
    shown.save(path, {"apng": "PNG"}.get(suffix), exif=exif, icc_profile=profile.tobytes(), **more)
    decoded = decode(str(path), [0.0], sizes=[None]).pixels[0].astype(int)
    gc.collect()
    stored = np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(decoded - stored).mean() <= (2 if suffix in ("jpg", "webp") else 0)


# (a, b, c, d) of a display matrix, x = a p + c q, y = b p + d q -> what it does to a picture
MATRICES = {
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    (0, 1, -1, 0): lambda p: np.rot90(p, k=-1),
}


CODECS = {"libx264": "yuv420p", "png": "rgb24", "mjpeg": "yuvj420p", "qtrle": "rgb24", "prores_ks": "yuv422p10le"}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mp4"), *((codec, "mov") for codec in CODECS), ("png", "mp4"), ("mjpeg", "mp4")]
)
def test_a_display_matrix_is_applied_in_full(tmp_path, matrix, codec, suffix) -> None:
    plain = clips.write_video(tmp_path / f"plain.{suffix}", codec=codec, frames=3, pixel_format=CODECS[codec])
    path = tmp_path / f"turned.{suffix}"
    a, b, c, d = (value << 16 for value in matrix)
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    expected = MATRICES[matrix](decode(str(plain), [0.04], sizes=[None]).pixels[0])
    info, _ = probe(str(path))
    assert (info.height, info.width) == expected.shape[:2]
    np.testing.assert_array_equal(decode(str(path), [0.04], sizes=[None]).pixels[0], expected)


# Name of a turn -> options of FFmpeg (the turn in degrees is counterclockwise), what it does to a picture
TURNS = {
    "h": (["-display_hflip"], lambda p: p[:, ::-1]),
    "v": (["-display_vflip"], lambda p: p[::-1]),
    "90": (["-display_rotation", "90"], lambda p: np.rot90(p, k=1)),
    "180": (["-display_rotation", "180"], lambda p: np.rot90(p, k=2)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("codec", ["png", "libx264"])
def test_the_projection_of_a_matroska_track_turns_and_mirrors(tmp_path, codec, turn) -> None:
    words, expected = TURNS[turn]
    plain = clips.write_video(tmp_path / "plain.mov", codec=codec, frames=3, pixel_format=CODECS[codec])
    clips.ffmpeg(*words, "-i", plain, "-c", "copy", tmp_path / "turned.mkv")
    shown = decode(str(tmp_path / "turned.mkv"), [0.04], sizes=[None]).pixels[0]
    np.testing.assert_array_equal(shown, expected(decode(str(plain), [0.04], sizes=[None]).pixels[0]))


@pytest.mark.parametrize("codec", ["png", "libx264"])
def test_the_matrix_of_the_movie_mirrors_as_well_as_that_of_the_track(tmp_path, codec) -> None:
    plain = clips.write_video(tmp_path / "plain.mov", codec=codec, frames=3, pixel_format=CODECS[codec])
    data, expected = bytearray(plain.read_bytes()), decode(str(plain), [0.04], sizes=[None]).pixels[0]
    for box, offset in ((b"mvhd", 4 + 36), (b"tkhd", 4 + 40)):  # the movie alone, then both
        struct.pack_into(">i", data, data.index(box) + offset, -1 << 16)
        path = tmp_path / f"{box.decode()}.mov"
        path.write_bytes(data)
        shown = decode(str(path), [0.04], sizes=[None]).pixels[0]
        np.testing.assert_array_equal(shown, expected[:, ::-1] if box == b"mvhd" else expected)


@pytest.mark.parametrize("turn", ["h", "90"])
def test_decord_shows_a_mirrored_video_unmirrored(tmp_path, turn) -> None:
    pytest.importorskip("decord")
    words, expected = TURNS[turn]
    plain = clips.write_video(tmp_path / "plain.mp4", frames=3)
    clips.ffmpeg(*words, "-i", plain, "-c", "copy", tmp_path / "turned.mp4")
    shown = decode(str(tmp_path / "turned.mp4"), [0.04], sizes=[None], backend="decord").pixels[0]
    upright = expected(decode(str(plain), [0.04], sizes=[None]).pixels[0])
    assert np.abs(shown.astype(int) - upright).mean() < 4


# What FFmpeg's filter writes into the SEI, counterclockwise after the flip
ORIENTATIONS = {
    "flip=horizontal": lambda p: p[:, ::-1],
    "flip=vertical": lambda p: p[::-1],
    "rotate=90": lambda p: np.rot90(p, k=1),
    "rotate=180": lambda p: np.rot90(p, k=2),
    "rotate=270:flip=horizontal": lambda p: np.rot90(p[:, ::-1], k=3),
    "rotate=90:flip=horizontal+vertical": lambda p: np.rot90(p, k=3),
}


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_orientation_inside_the_h264_stream_goes_before_the_containers(
    tmp_path, orientation, suffix, backend
) -> None:
    pytest.importorskip(backend.replace("pyav", "av"))
    plain = clips.write_video(tmp_path / "plain.mp4", frames=3)
    container = ["-display_rotation", "180"] if suffix == "mp4" else []
    path, written = tmp_path / f"turned.{suffix}", f"h264_metadata=display_orientation=insert:{orientation}"
    clips.ffmpeg(*container, "-i", plain, "-c", "copy", "-bsf:v", written, path)
    expected = ORIENTATIONS[orientation](decode(str(plain), [0.04], sizes=[None]).pixels[0])
    info, _ = probe(str(path))
    assert (info.height, info.width) == expected.shape[:2]
    np.testing.assert_array_equal(decode(str(path), [0.04], sizes=[None], backend=backend).pixels[0], expected)


def test_an_orientation_inside_the_hevc_stream_is_applied(tmp_path) -> None:
    plain = clips.write_video(
        tmp_path / "plain.hevc", codec="libx265", frames=3, options={"x265-params": "log-level=0"}
    )
    data = plain.read_bytes()
    bits = f"010{0x4000:016b}00000"  # flipped from left to right, then a quarter turn counterclockwise
    message = int(bits, 2).to_bytes(3, "big")
    sei = bytes([0, 0, 1, 39 << 1, 1, 47, 3]) + message.replace(b"\0\0", b"\0\0\3") + b"\x80"
    first = next(at for at in range(len(data)) if data[at : at + 3] == b"\0\0\1" and data[at + 3] >> 1 & 63 in (19, 20))
    path = tmp_path / "turned.hevc"
    path.write_bytes(data[:first] + sei + data[first:])
    upright = decode(str(plain), [0.0], sizes=[None]).pixels[0]
    np.testing.assert_array_equal(decode(str(path), [0.0], sizes=[None]).pixels[0], np.rot90(upright[:, ::-1], k=1))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(("suffix", "container"), [("jpg", "mov"), ("png", "mov"), ("png", "mkv"), ("tif", "mkv")])
def test_exif_inside_the_packets_of_a_video_goes_before_its_containers_matrix(
    tmp_path, suffix, container, orientation
) -> None:
    picture = clips.write_image(tmp_path / f"i.{suffix}", exif_orientation=orientation)
    path = tmp_path / f"video.{container}"
    clips.ffmpeg("-display_rotation", "90", "-i", picture, "-c", "copy", path)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(picture)).convert("RGB")).astype(int)
    shown = decode(str(path), [0.0], sizes=[None]).pixels[0]
    assert shown.shape == upright.shape
    assert np.abs(shown - upright).mean() <= (2 if suffix == "jpg" else 0)


def test_when_the_size_changes_in_mid_stream_all_frames_come_at_the_first_size(tmp_path) -> None:
    path = tmp_path / "sizes.h264"
    parts = [
        clips.write_video(tmp_path / f"{n}.h264", frames=5, width=width, height=height, container="h264", noise=0.0)
        for n, (width, height) in enumerate([(160, 96), (320, 240), (80, 48)])
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    info, table = probe(str(path))
    assert (info.width, info.height, info.frame_count) == (160, 96, 15)
    frames = decode(str(path), table.seconds, sizes=[None] * 15)
    assert {pixels.shape for pixels in frames.pixels} == {(96, 160, 3)}
    assert [clips.read_number(pixels) for pixels in frames.pixels] == [0, 1, 2, 3, 4] * 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "2"],
        ["-c:v", "libx264", "-x264-params", "tff=1", "-crf", "5"],
    ],
    ids=["mpeg2", "h264"],
)
def test_interlaced_frames_are_shown_as_stored_both_fields_in_full(tmp_path, arguments) -> None:
    """Two fields of different greys: every other line keeps its own."""
    path = tmp_path / "fields.mkv"
    rows = "if(mod(Y,2),60,180)"
    source = ["-f", "lavfi", "-i", f"color=gray:s=160x96:r=25:d=0.4,geq=lum='{rows}':cb=128:cr=128,setfield=tff"]
    clips.ffmpeg(*source, *arguments, "-pix_fmt", "yuv420p", path)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    pixels = decode(str(path), [0.0], sizes=[None]).pixels[0].astype(int)
    assert np.abs(pixels[0::2] - 191).max() <= 8  # (180 - 16) * 255 / 219
    assert np.abs(pixels[1::2] - 51).max() <= 8


# --- range and matrix -------------------------------------------------------------------------------------------------


def patch(
    path: Path,
    code: tuple[float, float, float],
    *,
    encoder: list[str],
    matrix: str = "bt2020nc",
    primaries: str = "bt2020",
    transfer: str = "bt2020-10",
    full: bool = False,
    depth: int = 10,
) -> Path:
    """Two frames of one colour given as R'G'B' code of 0 to 1, tagged as told."""
    kr, kb = {"bt2020nc": (0.2627, 0.0593), "bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}[matrix]
    red, green, blue = code
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    scale, top = 1 << (depth - 8), (1 << depth) - 1
    if full:
        values = [top * luma, *(128 * scale + top * c for c in chroma)]
    else:
        values = [scale * (16 + 219 * luma), *(scale * (128 + 224 * c) for c in chroma)]
    dtype = np.uint16 if depth > 8 else np.uint8
    counts = (64 * 64, 32 * 32, 32 * 32)
    raw = path.with_suffix(".yuv")
    raw.write_bytes(b"".join(np.full(n, round(v), dtype).tobytes() for n, v in zip(counts, values, strict=True)) * 2)
    layout = "yuv420p10le" if depth > 8 else "yuv420p"
    colours = (
        f"setparams=range={'pc' if full else 'tv'}:colorspace={matrix}:color_primaries={primaries}:color_trc={transfer}"
    )
    source = ["-f", "rawvideo", "-pix_fmt", layout, "-s", "64x64", "-r", "25", "-i", raw]
    clips.ffmpeg(*source, "-vf", colours, *encoder, path)
    return path


X265_10 = ["-c:v", "libx265", "-x265-params", "log-level=none:pools=none:qp=4"]
VP9_10 = ["-c:v", "libvpx-vp9", "-profile:v", "2", "-crf", "4", "-b:v", "0", "-cpu-used", "8"]
AV1_10 = ["-c:v", "libsvtav1", "-preset", "12", "-crf", "4"]
TEN_BIT = {"hevc": ("p.mp4", X265_10), "vp9": ("p.webm", VP9_10), "av1": ("p.mkv", AV1_10)}


@pytest.mark.parametrize(
    ("codec", "matrix", "full"),
    [(codec, matrix, True) for codec, matrix in zip(TEN_BIT, ["bt709", "smpte170m", "bt2020nc"], strict=True)]
    + [("hevc", matrix, False) for matrix in ["bt709", "smpte170m", "bt2020nc"]],
)
def test_matrix_and_range_are_those_that_the_stream_names(tmp_path, codec, matrix, full) -> None:
    name, encoder = TEN_BIT[codec]
    code = (0.8, 0.15, 0.2)
    tags = {"matrix": matrix, "primaries": "bt709", "transfer": "bt709"}
    path = patch(tmp_path / name, code, encoder=encoder, full=full, **tags)
    pixels = decode(str(path), [0.0], sizes=[None]).pixels[0].astype(int)
    assert np.abs(pixels - np.rint(255 * np.array(code))).max() <= 3


def test_one_converter_follows_frames_that_change_their_colours_and_format(tmp_path) -> None:
    info, _ = probe(str(clips.write_video(tmp_path / "c.mp4", frames=1)))
    one = FrameConverter(info=info)
    for seed, (layout, matrix, transfer) in enumerate(
        [("yuv420p", 1, 1), ("yuv420p", 5, 6), ("yuv420p", 9, PQ), ("yuv420p10le", 9, HLG), ("yuv420p", 1, 1)]
    ):
        frame = av.VideoFrame.from_ndarray(clips.picture(seed), format="rgb24").reformat(format=layout)
        frame.colorspace, frame.color_trc = matrix, transfer
        np.testing.assert_array_equal(one.convert(frame, (80, 48)), FrameConverter(info=info).convert(frame, (80, 48)))


def test_a_matrix_that_cannot_be_shown_is_unsupported(tmp_path) -> None:
    path = clips.write_video(tmp_path / "c.mp4", frames=2, options={"x264-params": "colormatrix=YCgCo"})
    with pytest.raises(ClipError, match=r"c\.mp4.*YCgCo") as caught:
        decode(str(path), [0.0], sizes=[None])
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(("profile", "base_layer"), [(5, 0), (8, 1)])
def test_dolby_vision_is_shown_by_its_base_layer_or_not_at_all(tmp_path, profile, base_layer) -> None:
    """A configuration box (Dolby Vision streams within ISOBMFF, 3.2) put into a real HEVC file."""
    plain = patch(tmp_path / "plain.mp4", (0.5, 0.5, 0.5), encoder=[*X265_10, "-tag:v", "hvc1"], transfer="smpte2084")
    data = bytearray(plain.read_bytes())
    box = struct.pack(">I4s2BHB19x", 32, b"dvcC", 1, 0, profile << 9 | 6 << 3 | 0b101, base_layer << 4)
    start = data.index(b"hvc1", data.index(b"stsd")) - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"):  # the boxes around it grow
        at = data.rindex(name, 0, start + 8) - 4
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + len(box)).to_bytes(4, "big")
    data[end:end] = box
    path = tmp_path / "dolby.mp4"
    path.write_bytes(data)
    if base_layer:
        np.testing.assert_array_equal(*(decode(str(p), [0.0], sizes=[None]).pixels[0] for p in (plain, path)))
        return
    with pytest.raises(ClipError, match=r"dolby\.mp4.*Dolby Vision.*profile 5") as caught:
        probe(str(path))
    assert caught.value.kind == "unsupported"


# --- HDR to SDR: the formulas of the standards once more, for one colour, in double precision -------------------------


def pq_of_nits(nits: float) -> float:
    """ST 2084, inverse EOTF."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def nits_of_pq(code: float) -> float:
    """ST 2084, EOTF, by bisection of its inverse."""
    low, high = 0.0, 10000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if pq_of_nits(middle) < code else (low, middle)
    return low


def nits_of_hlg(code: tuple[float, ...]) -> list[float]:
    """BT.2100-2 table 5: inverse OETF, OOTF with gamma 1.2 at 1000 cd/m2."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = [e**2 / 3 if e <= 0.5 else (np.exp((e - c) / a) + b) / 12 for e in code]
    luma = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2]
    return [float(1000 * luma**0.2 * e) for e in scene]


def sdr_of_nits(nits: list[float]) -> np.ndarray:
    """BT.2390 5.4.1 from 1000 to 203 cd/m2 on the greatest, BT.2407's matrix, gamma 2.4; 0 to 255."""
    nits = [min(value, 1000.0) for value in nits]
    most = max(nits)
    if most > 0:
        e1, top = pq_of_nits(most) / pq_of_nits(1000), pq_of_nits(203) / pq_of_nits(1000)
        knee = 1.5 * top - 0.5
        if e1 >= knee:
            t = (e1 - knee) / (1 - knee)
            p = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * top
            nits = [value * nits_of_pq(p * pq_of_nits(1000)) / most for value in nits]
    matrix = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    return 255 * np.clip(matrix @ (np.array(nits) / 203), 0, 1) ** (1 / 2.4)


@pytest.mark.parametrize(
    "code",
    [(0.8, 0.15, 0.2), (0.1, 0.7, 0.25), (0.75,) * 3, (1.0,) * 3, (0.0,) * 3, (0.55, 0.6, 0.4), (0.3, 0.2, 0.25)],
)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_tone_mapping_is_that_of_the_standards(code, transfer) -> None:
    expected = sdr_of_nits([nits_of_pq(c) for c in code] if transfer == PQ else nits_of_hlg(code))
    got = to_sdr(np.rint(65535 * np.full((3, 5, 3), code)).astype(np.uint16), transfer=transfer)
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("transfer", [PQ, HLG, 1])
def test_greys_stay_grey_and_brighter_stays_brighter(transfer) -> None:
    codes = np.append(np.arange(0, 65535, 16), 65535).astype(np.uint16)  # of 12 bits
    ramp = np.repeat(codes[:, None, None], 3, axis=2)
    shown = to_sdr(ramp, transfer=transfer).astype(int)
    assert np.ptp(shown, axis=2).max() <= 1  # the rows of the published matrix add up to 1 within 0.0001
    assert (np.diff(shown[:, 0, 1]) >= 0).all()
    assert (shown[0].max(), shown[-1].min()) == (0, 255)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
@pytest.mark.parametrize("codec", TEN_BIT)
def test_hdr_streams_are_shown_as_an_sdr_screen_shows_them(tmp_path, codec, transfer) -> None:
    name, encoder = TEN_BIT[codec]
    code = (0.55, 0.6, 0.4)
    path = patch(tmp_path / name, code, encoder=encoder, transfer=transfer)
    expected = sdr_of_nits([nits_of_pq(c) for c in code] if transfer == "smpte2084" else nits_of_hlg(code))
    for pixels in decode(str(path), [0.0, 0.0], sizes=[None, (20, 10)]).pixels:
        assert np.abs(pixels - expected).max() <= 4  # the encoder, and steps of 10 bits


def test_wide_gamut_sdr_is_shown_in_bt709_colours(tmp_path) -> None:
    """A BT.709 colour written in BT.2020 colours comes back as itself."""
    wanted = np.array([0.8, 0.3, 0.25])
    matrix = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    wide = np.linalg.solve(matrix, wanted**2.4) ** (1 / 2.4)
    path = patch(tmp_path / "wide.mp4", tuple(wide), encoder=X265_10)
    pixels = decode(str(path), [0.0], sizes=[None]).pixels[0]
    assert np.abs(pixels - 255 * wanted).max() <= 4


def test_hdr_without_a_named_matrix_is_taken_as_bt2020(tmp_path) -> None:
    info, _ = probe(str(clips.write_video(tmp_path / "c.mp4", frames=1)))
    frame = av.VideoFrame.from_ndarray(clips.picture(3), format="rgb24").reformat(format="yuv420p10le")
    frame.color_trc, frame.colorspace = PQ, 2
    unnamed = FrameConverter(info=info).convert(frame, None)
    frame.colorspace = 9
    np.testing.assert_array_equal(unnamed, FrameConverter(info=info).convert(frame, None))


KR_KB = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}


def yuv(colour: tuple[int, int, int], matrix: str, *, is_full: bool) -> tuple[int, int, int]:
    """ITU-R BT.601 / BT.709: 8-bit Y'CbCr of an R'G'B' colour."""
    red, green, blue = (value / 255 for value in colour)
    kr, kb = KR_KB[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    if is_full:
        return round(255 * luma), round(128 + 255 * cb), round(128 + 255 * cr)
    return round(16 + 219 * luma), round(128 + 224 * cb), round(128 + 224 * cr)


def write_colour(
    path: Path, planes: tuple[int, int, int], *, size: tuple[int, int], is_full: bool, options: dict[str, str]
) -> Path:
    """Three frames of one colour, given as stored, without loss."""
    width, height = size
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"qp": "0", **options})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.color_range = 2 if is_full else 1
        for _ in range(3):
            luma, *chroma = planes
            stored = [np.full(width * height, luma), *(np.full(width * height // 4, plane) for plane in chroma)]
            shaped = np.concatenate(stored).astype(np.uint8).reshape(height * 3 // 2, width)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(shaped, format="yuv420p")))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 30, 40), (20, 180, 60), (128, 128, 128)])
@pytest.mark.parametrize(
    ("matrix", "is_full", "size", "is_named"),
    [
        ("bt709", False, (64, 64), True),
        ("smpte170m", False, (64, 64), True),
        ("bt709", True, (64, 64), True),
        ("smpte170m", False, (1280, 720), True),
        ("smpte170m", False, (64, 64), False),  # unnamed and small: BT.601
        ("bt709", False, (1280, 720), False),  # unnamed and large: BT.709
    ],
)
def test_colours_follow_the_named_matrix_and_range_or_the_size(
    tmp_path, colour, matrix, is_full, size, is_named
) -> None:
    path = write_colour(
        tmp_path / "c.mp4",
        yuv(colour, matrix, is_full=is_full),
        size=size,
        is_full=is_full,
        options={"preset": "ultrafast"} | ({"x264-params": f"colormatrix={matrix}"} if is_named else {}),
    )
    for wanted_size in (None, (32, 32)):
        frames = decode(str(path), [0.0], sizes=[wanted_size])
        # limited Y'CbCr of 8 bits has fewer levels than R'G'B', and swscale computes in integers
        assert np.abs(frames.pixels[0].astype(int) - colour).max() <= 3
