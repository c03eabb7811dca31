"""What models say for people.py: of pictures with opinions, of distorted clips, of photographs and their copies."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bench.rivals import pictures, sharpness
from vqa import Scorer
from vqa.data.people import Opinion
from vqa.data.synthetic.degradations import degrade
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.ladder import Label, read_ladder
from vqa.data.synthetic.picture_ladder import LadderConfig, find_pictures, steps
from vqa.errors import ClipError
from vqa.light.student import Student
from vqa.metrics.correlation import srcc
from vqa.metrics.intervals import interval, replicates
from vqa.model.card import settle
from vqa.types import Clip, Pixels
from vqa.views import ViewsConfig, look

Numbers = NDArray[np.float64]
CLIPS = ("scaling", "defocus", "motion_blur", "noise", "exposure", "contrast", "colour_cast", "banding")  # unseen code
PICTURES = ("jpeg", "jpeg2000", "webp", "x264", "x265", "haze")
SEVERITIES = {"mild": (0.3, 2), "severe": (0.8, 4)}  # of CLIPS, and level of PICTURES
PANNED = 0.94  # of a picture's sides: what a frame shows of it where it is a clip
PAN_FRAMES = 20
FEWEST = 10  # clips of a kind, for a line of its own


def line(
    what: str,
    scores: Numbers,
    opinions: Numbers,
    *,
    expected: int,
    goal: str = "",
    groups: NDArray[np.int64] | None = None,
) -> None:
    """One of the table; the interval is over groups, where there are any."""
    if groups is None:
        values = replicates(scores, opinions, resamples=2000)["srcc"]
    else:
        rows = [np.flatnonzero(groups == one) for one in np.unique(groups)]
        draws = np.random.default_rng(0).integers(len(rows), size=(2000, len(rows)))
        drawn = (np.concatenate([rows[k] for k in draw]) for draw in draws.tolist())
        values = np.array([srcc(scores[some], opinions[some]) for some in drawn])
    found = interval(values) or (float("nan"),) * 2
    value = f"{srcc(scores, opinions):6.3f}  {found[0]:6.3f} to {found[1]:.3f}"
    print(f"{what:58} {value}  {len(scores):4} of {expected}  {goal}", flush=True)


def pan(pixels: Pixels, frames: int) -> list[Pixels]:
    """So many frames of a pan over a picture, from one corner to the other."""
    height, width = (round(PANNED * side) for side in pixels.shape[:2])
    down, right = pixels.shape[0] - height, pixels.shape[1] - width
    corners = [(round(down * step), round(right * step)) for step in np.linspace(0, 1, frames)]
    return [pixels[top : top + height, left : left + width] for top, left in corners]


def write_frames(frames: Sequence[Pixels], path: Path) -> None:
    """A clip of 10 frames a second of which nothing is seen to be lost."""
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"crf": "6", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        for frame in frames:
            whole = np.ascontiguousarray(frame[:height, :width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(whole, format="rgb24")))
        file.mux(stream.encode())


class Model:
    """A model by a card's name or folder, or the carried student ("light"), asked as `vqa score` asks."""

    def __init__(self, name: str) -> None:
        """Load it."""
        self.name = name
        self._scorer = Student.load() if name == "light" else Scorer.load(name)
        card = self._scorer.card.views if isinstance(self._scorer, Student) else settle(name, {})[0].views
        self._views = ViewsConfig.model_validate(card)

    def of(self, clips: Sequence[Clip], shown_size: tuple[int, int] | None = None) -> Numbers:
        """A score of each clip; nan where it has none."""
        views = self._views.model_copy(update={"shown_size": shown_size})
        found: list[float] = []
        for clip in clips:  # one at a time: what is seen of a thousand pictures is gigabytes
            try:
                (said,) = self._scorer.score([look(clip, views)])
            except ClipError as error:
                said = error
            found.append(float("nan") if isinstance(said, ClipError) or said.score is None else said.score)
        return np.array(found)

    def of_opinions(self, opinions: Sequence[Opinion]) -> Numbers:
        """A score of each picture, at the size that it was shown at."""
        clips = [Clip(clip_id=one.path.stem, uri=str(one.path)) for one in opinions]
        return self.of(clips, opinions[0].shown_size)

    def of_pans(self, opinions: Sequence[Opinion]) -> Numbers:
        """A score of a slow pan over each picture, at the size that it was shown at."""
        with tempfile.TemporaryDirectory() as folder:
            clips = [Clip(clip_id=f"{k}", uri=str(Path(folder) / f"{k}.mp4")) for k in range(len(opinions))]
            for one, clip in zip(opinions, clips, strict=True):
                write_frames(pan(one.read(), PAN_FRAMES), Path(clip.uri))
            return self.of(clips, opinions[0].shown_size)

    def of_pictures(self, pictures: Sequence[Pixels]) -> Numbers:
        """A score of each picture."""
        with tempfile.TemporaryDirectory() as folder:
            clips = []
            for k, picture in enumerate(pictures):
                path = Path(folder) / f"{k}.png"
                Image.fromarray(picture).save(path, compress_level=1)
                clips.append(Clip(clip_id=path.stem, uri=str(path)))
            return self.of(clips)


def ladder_lines(ladder: Path, score: Callable[[Sequence[Label]], Numbers], who: str, *, goal: str = ">= 0.75") -> None:
    """Lines of agreement with VMAF on clips of `vqa data synth` or unseen.py: all, by codec or not, each kind."""
    rows = read_ladder(ladder)
    scores, labels = score(rows), np.array([row["opinion"] for row in rows])
    groups = np.unique([row["content_id"] for row in rows], return_inverse=True)[1]
    has = np.isfinite(scores)

    def of(what: str, wanted: NDArray[np.bool_], goal: str = "") -> None:
        kept = has & wanted
        line(f"VMAF, {who}, {what}", scores[kept], labels[kept], expected=wanted.sum(), goal=goal, groups=groups[kept])

    of(f"clips of {groups.max() + 1} contents", np.ones(len(rows), bool), goal)
    coded = np.array([row["codec"] in row["distortions"] for row in rows])
    of("damaged by a codec (too)", coded)
    of("by no codec", ~coded)
    for kind in sorted({kind for row in rows for kind in row["distortions"]}):
        with_it = np.array([kind in row["distortions"] for row in rows])
        if with_it.sum() >= FEWEST:
            of(kind, with_it)


def clips_by_model(ladder: Path, model: Model) -> None:
    """`ladder_lines` of what a model says."""

    def score(rows: Sequence[Label]) -> Numbers:
        return model.of([Clip(clip_id=row["clip_id"], uri=str(ladder / row["uri"])) for row in rows])

    ladder_lines(ladder, score, model.name)


def clip_baselines(ladder: Path) -> None:
    """`ladder_lines` of what needs no model: sharpness of up to eight frames, and bits a pixel of the file."""

    def sharp(rows: Sequence[Label]) -> Numbers:
        frames = (pictures(ladder / row["uri"]) for row in rows)
        return np.array([np.mean([sharpness(one) for one in some]) for some in frames])

    def bits(rows: Sequence[Label]) -> Numbers:
        pixels = np.array([row["width"] * row["height"] * row["frames"] for row in rows])
        return np.array([8 * (ladder / row["uri"]).stat().st_size for row in rows]) / pixels

    for name, score in (("sharpness alone", sharp), ("bits a pixel alone", bits)):
        ladder_lines(ladder, score, name, goal="")


def orders(judge: Callable[[Sequence[Pixels]], Numbers], held_out: Path, contents: int, who: str) -> None:
    """Lines of how often a pristine photograph is judged above its copies; what has no score is no right order."""
    sources = find_pictures([held_out], most=contents) if held_out.is_dir() and contents else []
    if not sources:
        return
    right: dict[str, list[bool]] = {severity: [] for severity in SEVERITIES}
    for source in sources:
        pristine = next(steps(source, LadderConfig())).pixels
        made = list(copies(pristine))
        best, *others = judge([pristine, *(copy for _, copy in made)]).tolist()
        for (severity, _), value in zip(made, others, strict=True):
            right[severity].append(value < best)
    by_content = np.array([own for pairs in right.values() for own in pairs]).reshape(len(SEVERITIES), len(sources), -1)
    draws = np.random.default_rng(0).integers(len(sources), size=(2000, len(sources)))
    for pairs, (severity, goal) in zip(by_content, (("mild", ">= 0.90"), ("severe", ">= 0.97")), strict=True):
        low, high = np.quantile(pairs.mean(1)[draws].mean(1), (0.025, 0.975))
        what = f"order of pristine and {severity} copy, {who}, {len(sources)} contents"
        value = f"{pairs.mean():6.3f}  {low:6.3f} to {high:.3f}"
        print(f"{what:58} {value}  {pairs.size:4} of {pairs.size}  {goal}", flush=True)


def copies(pristine: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Each distorted copy and how severe it is."""
    for severity, (share, level) in SEVERITIES.items():
        for name in CLIPS:
            yield severity, DISTORTIONS[name](pristine[None], share, np.random.default_rng(1))[0]
        for name in PICTURES:
            yield severity, degrade(pristine, name, level, np.random.default_rng(1))
