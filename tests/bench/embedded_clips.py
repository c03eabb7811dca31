"""What else the embedded model learns opinions from: pans over people's pictures, enlarged pictures, moving ladders."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.bench.embedded_material import BELOW, WHOLE, Picture, look_at_picture, native_windows
from tests.bench.people_models import PAN_FRAMES, pan, write_frames
from vqa.data.people import find_people_set, read_opinions
from vqa.data.synthetic.demo import VISUALLY_LOSSLESS
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.encoding import encode_video, vmaf
from vqa.data.synthetic.ladder import read_ladder
from vqa.data.synthetic.picture_ladder import PRISTINE
from vqa.data.synthetic.sources import read_pristine
from vqa.errors import UsageError
from vqa.light.config import DistillConfig
from vqa.light.material import Embeddings
from vqa.light.student import Line, Student
from vqa.train.scratch.crops import CROP, cut
from vqa.types import Clip, Pixels, Score, Views
from vqa.views import ViewsConfig, look

# Copies of a moving original: distortion or codec, and its severity, which is drawn within 0.2 of this.
COPIES = (
    *(("x264", 0.35), ("x264", 0.75), ("x265", 0.6), ("defocus", 0.25), ("defocus", 0.7), ("noise", 0.5)),
    *(("scaling", 0.5), ("transmission_loss", 0.5)),
)
# Copies that stand still for a while, for the text model alone; what each repeated frame takes of the opinion above 1.
FREEZES = (("frozen", 0.5), ("frozen", 1.0), ("dropped_frames", 0.7), ("judder", 0.8))
PER_REPEAT, MOST_LOST = 0.05, 0.5
POINTS_PER_VMAF = 0.014  # what a copy loses by the student for each of VMAF's 100, mean of 810 copies
# Heights of a picture that is enlarged, CRFs below the last, and its size then: as of avt-image-quality.
SMALL, QUALITIES, ENLARGED = range(144, 897, 16), (0, 44), (2160, 2160)
LIKE_PEOPLE = "enlarged"  # in place of a set of people's opinions


def windows_of_mosaic(mosaic: Pixels, generator: np.random.Generator) -> list[Pixels]:
    """WHOLE windows: its corners, which are the attention windows that the tower sees, and others."""
    height, width, _ = mosaic.shape
    corners = itertools.product((0, height - CROP), (0, width - CROP)) if min(height, width) >= CROP else ()
    found = [mosaic[top : top + CROP, left : left + CROP] for top, left in corners]
    return found + [cut(mosaic, generator) for _ in range(WHOLE - len(found))]


def _windows_of_clip(shown: Views, generator: np.random.Generator) -> Pixels:
    return np.stack(native_windows(shown, generator) + windows_of_mosaic(shown.global_pictures[0], generator))


def gather_pans(
    config: DistillConfig, stills: Sequence[Picture], views: ViewsConfig, folder: Path
) -> Iterator[Picture]:
    """A slow pan over each of people's pictures among these, with the opinion of its picture, shown at its size."""
    known = {one.name: one for one in stills if one.people}
    for wanted in config.opinions:
        for k, one in enumerate(read_opinions(find_people_set(wanted.people), config.folder)):
            if (still := known.get(str(one.path))) is None:
                continue
            shown_to_people = views.model_copy(update={"shown_size": one.shown_size})
            yield _panned(still, one.read(), shown_to_people, folder / "seen.mp4", np.random.default_rng((5, k)))


def _panned(still: Picture, pixels: Pixels, views: ViewsConfig, path: Path, generator: np.random.Generator) -> Picture:
    write_frames(pan(pixels, PAN_FRAMES), path)
    shown = look(Clip(clip_id=path.stem, uri=str(path)), views)
    windows = _windows_of_clip(shown, generator)
    return replace(still, name=f"{still.name} (pan)", windows=windows, views=shown, embedding=None)


def gather_enlarged(
    photographs: Sequence[Path], embeddings: Embeddings, head: Line, views: ViewsConfig, folder: Path
) -> Iterator[Picture]:
    """Two pictures, and a pan over the first, of each photograph that is large enough: its middle made small, coded
    and enlarged as a test of people does (avt-image-quality), on the opinion of a student that is told how far."""
    shown_to_people, path = views.model_copy(update={"shown_size": ENLARGED}), folder / "seen.mp4"
    for k, photograph in enumerate(photographs):
        with Image.open(photograph) as image:
            side = min(image.size)
            if side < max(SMALL):
                continue
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        generator = np.random.default_rng((41, k))
        for which in range(2):
            height, quality = int(generator.choice(SMALL)), int(generator.integers(*QUALITIES))
            small = np.asarray(square.resize((height, height), Image.Resampling.LANCZOS))
            encode_video(small[None], path, codec="x265", quality=quality)
            with av.open(str(path)) as file:
                coded = Image.fromarray(next(file.decode(video=0)).to_ndarray(format="rgb24"))
            pixels = np.asarray(coded.resize(ENLARGED, Image.Resampling.BICUBIC))
            row = embeddings.of_picture(pixels).astype(np.float64)
            windows, shown = look_at_picture(pixels, folder / "seen.png", views, k)
            still = Picture(
                name=f"{photograph.name}/enlarged/{which}",
                windows=windows,
                views=shown,
                opinion=float(head.opinions(row[None], [ENLARGED[1] / height])[0].clip(1, 5)),
                embedding=row,
                people=LIKE_PEOPLE,
            )
            yield still
            if not which:
                yield _panned(still, pixels, shown_to_people, path, generator)


def photograph_of(picture: Picture) -> str:
    """Name of the file that an enlarged picture, or the pan over it, was made of."""
    return picture.name.partition("/")[0]


def gather_clips(photographs: Sequence[Path], views: ViewsConfig, folder: Path, student: Student) -> Iterator[Picture]:
    """Of each photograph a camera move, COPIES of it, and those FREEZES in which more frames repeat: one content after
    the other, the original first."""
    seen_by_student = ViewsConfig.model_validate(student.card.views)
    path = folder / "seen.mp4"
    for k, photograph in enumerate(photographs):
        generator = np.random.default_rng((99, k))
        frames = read_pristine(photograph, generator)
        original, best, still = 0.0, 0.0, 0
        for kind, middle in ((PRISTINE, 0.0), *COPIES, *FREEZES):
            level = float(np.clip(middle + generator.uniform(-0.2, 0.2), 0.1, 1)) if middle else 0.0
            if kind == PRISTINE:
                encode_video(frames, path, codec="x264", quality=VISUALLY_LOSSLESS)
            elif kind in DISTORTIONS:
                damaged = DISTORTIONS[kind](frames, level, generator)
                encode_video(damaged, path, codec="x264", quality=VISUALLY_LOSSLESS)
            else:
                encode_video(frames, path, codec=kind, quality=round(26 + 22 * level))
            clip = Clip(clip_id=f"{photograph.name}/{kind}/{level:.2f}", uri=str(path))
            read = _score_of(student, clip, seen_by_student)
            shown = look(clip, views)
            reached = float(np.mean(vmaf(frames, path)))
            path.unlink()
            if kind == PRISTINE:
                original, still, opinion = read, shown.told_repeats or 0, read
                best = reached
            elif (kind, middle) in FREEZES:
                more = (shown.told_repeats or 0) - still
                if more <= (kind != "frozen"):
                    continue
                lost = min(MOST_LOST, PER_REPEAT * more)
                kind, opinion = "frozen", min(read, original - lost * (original - 1))
            else:
                lost = (original - read + POINTS_PER_VMAF * (best - reached)) / 2
                opinion = max(1.0, original - max(lost, BELOW * level))
            yield Picture(
                name=clip.clip_id,
                windows=_windows_of_clip(shown, generator),
                views=shown,
                opinion=opinion,
                content=f"{photograph.name} (moving)",
                kinds=(kind,),
                level=level,
            )


def gather_ladders(folders: Sequence[Path], views: ViewsConfig, student: Student) -> Iterator[Picture]:
    """Clips of `vqa data synth`, of each content the best by VMAF first; VMAF has a say in their order alone."""
    seen_by_student = ViewsConfig.model_validate(student.card.views)
    for folder in folders:
        rows = [row for row in read_ladder(folder) if {kind for kind, _ in FREEZES}.isdisjoint(row["distortions"])]
        clips = [Clip(clip_id=row["clip_id"], uri=str(folder / row["uri"])) for row in rows]
        read = np.array([_score_of(student, clip, seen_by_student) for clip in clips])
        contents = np.unique([row["content_id"] for row in rows], return_inverse=True)[1]
        places = [np.flatnonzero(contents == k) for k in range(contents.max() + 1)]
        by_vmaf = np.array([row["opinion"] for row in rows])
        changes, by_student = (
            np.concatenate([one[place] - one[place].mean() for place in places]) for one in (by_vmaf, read)
        )
        slope = by_student.std() / changes.std()
        for place in places:
            told = read[place].mean() + slope * (by_vmaf[place] - by_vmaf[place].mean())
            for k in np.argsort(-by_vmaf[place]).tolist():
                row, clip = rows[place[k]], clips[place[k]]
                shown, generator = look(clip, views), np.random.default_rng(row["seed"])
                yield Picture(
                    name=clip.clip_id,
                    windows=_windows_of_clip(shown, generator),
                    views=shown,
                    opinion=float(np.clip((read[place[k]] + told[k]) / 2, 1, 5)),
                    content=f"{row['content_id']} (ladder)",
                    kinds=tuple(row["distortions"]) or (PRISTINE,),
                    level=max(row["severities"], default=0.0),
                )


def _score_of(student: Student, clip: Clip, views: ViewsConfig) -> float:
    read = student.score([look(clip, views)])[0]
    if not isinstance(read, Score) or read.score is None:
        raise UsageError(f"{clip.clip_id}: the student gives no score. Leave its source out.")
    return read.score
