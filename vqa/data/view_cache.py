"""Cache of decoded views: what `vqa prepare` writes and training reads.

    DIR/clips.parquet                  one row per clip of the manifest: opinion, status, and where its pictures are
    DIR/pictures/part-000001.parquet   one row per views, in a row group of its own; never rewritten
    DIR/files/part-000001.parquet      one row per file, as in a scores table: fingerprint, size, time, what went wrong
    DIR/failed.csv, DIR/run.json       the clips without pictures and why; settings, counts, versions

Two clips with the same content (or uri) share one row of pictures. Pictures are lossless WebP: of real keyframes and
crops it made files a quarter smaller than PNG's, in less time for both writing and reading.
"""

import io
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vqa.config import Values
from vqa.data.score_table import ScoreRow, schema_of
from vqa.errors import UsageError
from vqa.types import Clip, CropBox, MediaInfo, Pixels, Views

FILES = "files"
CLIPS = pa.schema(
    [
        *((name, pa.string()) for name in ("clip_id", "uri", "dataset", "split", "content_id")),
        ("opinion", pa.float64()),  # 1-5
        ("distortions", pa.list_(pa.string())),
        ("severities", pa.list_(pa.float64())),
        *((name, pa.string()) for name in ("reason", "status", "error_kind", "error", "run_key", "part")),
        ("row", pa.int32()),
    ]
)
WEBP_LONGEST = 16383  # pixels of a side


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedViews:
    """Views with their pictures compressed, without loss."""

    facts: str  # JSON of the Views without clip and pictures
    global_pictures: tuple[bytes, ...]
    local_pictures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRow(ScoreRow):
    """The row of a file, and its views where there are any."""

    views: PackedViews | None = None


PICTURES = pa.schema([("run_key", pa.string()), *schema_of(PackedViews)])


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedClip:
    """One clip whose pictures can be loaded without its file."""

    clip_id: str
    uri: str
    dataset: str
    split: str | None
    content_id: str
    opinion: float | None  # 1-5
    distortions: tuple[str, ...] = ()  # of a synthetic ladder, in the order in which they struck
    severities: tuple[float, ...] = ()  # 0-1, one for each of them
    reason: str | None = None  # the manifest's own words, where it has a column of that name
    path: Path  # the part with its pictures, and the row there
    row: int
    run_key: str

    def load(self) -> Views:
        """Load the views from their row. Raises UsageError, naming the part and way out.

        Nothing but the open part is kept in memory: a batch asks once for each of its clips, and the system's cache
        holds the bytes.
        """
        try:
            status = self.path.stat()
            part = _part(self.path, status.st_ino, status.st_mtime_ns)
            stored = part.read_row_group(self.row, use_threads=False).to_pylist()[0]
            if stored.pop("run_key") != self.run_key:
                raise ValueError("another clip is in its place")
            return unpack(PackedViews(**stored), Clip(clip_id=self.clip_id, uri=self.uri))
        except (OSError, ValueError, IndexError) as error:  # Arrow's and Pillow's are of these kinds
            _part.cache_clear()
            raise UsageError(
                f"clip {self.clip_id}: its pictures in {self.path}, row {self.row}, cannot be read ({error}); remove "
                "that file and run the same `vqa prepare` again"
            ) from error


@lru_cache(maxsize=32)
def _part(path: Path, inode: int, mtime_ns: int) -> pq.ParquetFile:
    """Open, as long as it is the same file: `--fresh` may put another in its place."""
    return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)


def read_prepared(folder: Path) -> list[PreparedClip]:
    """Clips with pictures, in manifest order. Raises UsageError before `vqa prepare`."""
    path = folder / "clips.parquet"
    if not path.is_file():
        raise UsageError(
            f"{path} does not exist; give a folder that `vqa prepare` has finished, or a ladder (vqa data synth)"
        )
    try:
        rows = pq.read_table(path, schema=CLIPS).to_pylist()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); run the same `vqa prepare` again") from error
    names = ("clip_id", "uri", "dataset", "split", "content_id", "opinion", "reason", "run_key", "row")
    return [
        PreparedClip(
            **{name: row[name] for name in names},
            distortions=tuple(row["distortions"] or ()),
            severities=tuple(row["severities"] or ()),
            path=folder / "pictures" / row["part"],
        )
        for row in rows
        if row["part"] is not None
    ]


def prepared_with(folder: Path) -> Values:
    """How a folder was sampled: `views` (ViewsConfig), `seed`; empty if unprepared."""
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["sampling"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not written by `vqa prepare` ({error}); choose another folder") from error


# --- views of one clip ----------------------------------------------------------------------------------------------


def pack(views: Views) -> PackedViews:
    """Compress the pictures of views, without loss."""
    left_out = ("clip", "global_pictures", "local_pictures")
    facts = {name: getattr(views, name) for name in Views.__dataclass_fields__ if name not in left_out}
    facts |= {"info": asdict(views.info), "crop_boxes": [asdict(box) for box in views.crop_boxes]}
    return PackedViews(
        facts=json.dumps(facts),
        global_pictures=tuple(map(_encoded, views.global_pictures)),
        local_pictures=tuple(map(_encoded, views.local_pictures)),
    )


def unpack(packed: PackedViews, clip: Clip) -> Views:
    """The views that `pack` has packed, as those of `clip`."""
    facts = json.loads(packed.facts)
    if "repeats" in facts:  # by a version that told none of 0
        facts["told_repeats"] = facts.pop("repeats") or None
    return Views(
        **facts
        | {
            "clip": clip,
            "info": MediaInfo(**facts["info"] | {"uri": clip.uri}),
            "crop_boxes": tuple(CropBox(**box) for box in facts["crop_boxes"]),
            "keyframe_seconds": tuple(facts["keyframe_seconds"]),
            "global_pictures": tuple(map(_decoded, packed.global_pictures)),
            "local_pictures": tuple(map(_decoded, packed.local_pictures)),
        }
    )


def _encoded(pixels: Pixels) -> bytes:
    """Lossless; more effort than this takes many times as long for a few per cent."""
    data, image = io.BytesIO(), Image.fromarray(pixels)
    if max(image.size) > WEBP_LONGEST:
        image.save(data, "PNG", compress_level=1)
    else:
        image.save(data, "WEBP", lossless=True, method=0, quality=50)
    return data.getvalue()


def _decoded(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)
