"""What the embedded model learns opinions from: pictures with people's opinions, ladders of stills, moving ladders.

All labels are on one scale, the student's of the light tier: people's opinions are moved to its mean and spread, and
ladders and variants of people's pictures are read by a student that saw no test fold, but no copy stands as high as its
original; half of what a moving copy loses is VMAF's (embedded_clips.py). People's pictures are clips, too: a slow pan
has the opinion of its picture. Neither the student nor the tower sees damage in time; of that there are copies that
stand still, as the question tells (`views.count_repeats`).
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqa.data.people import Opinion, find_people_set, read_opinions, without_folds
from vqa.data.synthetic.degradations import DEGRADATIONS, LEVELS, degrade
from vqa.data.synthetic.encoding import still_figures
from vqa.data.synthetic.patches import PAIRS, draw_pairs
from vqa.data.synthetic.picture_ladder import PRISTINE, find_pictures, steps
from vqa.errors import UsageError
from vqa.files import replacing
from vqa.light.config import DistillConfig
from vqa.light.distill import fit_head
from vqa.light.material import Embeddings, Material, first_look, gather
from vqa.light.student import Line
from vqa.prompt import PROMPTS, PromptName, answer_text, grade_of
from vqa.train.clips.ladder import CLASSES, NAMES, ladder_reason
from vqa.train.scratch.crops import CROP, cut
from vqa.types import Clip, Pixels, Views
from vqa.views import ViewsConfig, look

# What of NAMES a degradation of a still looks like; none of them: left out of the lessons on kinds.
LOOKS_LIKE = {
    **{name: name for name in NAMES},
    **dict.fromkeys(("jpeg", "jpeg2000", "webp"), "x264"),
    **dict.fromkeys(("gaussian_blur", "lens_blur", "denoised"), "defocus"),
    **dict.fromkeys(("white_noise", "colour_noise", "impulse_noise", "multiplicative_noise"), "noise"),
    **dict.fromkeys(("brighten", "darken", "mean_shift"), "exposure"),
    **dict.fromkeys(("upscaled", "upscaled_jpeg"), "scaling"),
    **dict.fromkeys(("colour_shift", "underwater"), "colour_cast"),
    "less_contrast": "contrast",
    "quantise": "banding",
}
NOISE = np.array([0.4, 0.12])  # standard deviations of grade and numbers in an answer to learn from
FROZEN = ("frozen",)
VARIED = "pcuid"  # whose pictures have variants: few of other sets are like them
CROPS, DEGRADED = 3, 7  # variants of a picture
BELOW = 0.4  # a copy is at least so many points times its severity below its original
SALIENT, RANDOM, WHOLE = 12, 4, 6  # windows of a picture: crops as scored, others at native size, of the whole
NATIVE = SALIENT + RANDOM


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One picture or clip to learn from."""

    name: str
    windows: Pixels  # [22, 112, 112, 3]: NATIVE, then WHOLE of the whole picture, or of a clip's mosaic
    views: Views  # as scored
    opinion: float  # 1-5
    embedding: NDArray[np.float64] | None = None  # the student's
    content: str = ""  # of a ladder; "" for people's pictures
    is_variant: bool = False  # of people's picture `content`, or that picture among its variants
    people: str = ""  # the set of people's opinions, and its fold; of a picture or a pan over it
    fold: int = -1
    kinds: tuple[str, ...] = ()  # of its damage
    level: float = 0.0  # 0-1, of the worst

    @property
    def is_clip(self) -> bool:
        """Whether it moves."""
        return self.embedding is None

    @property
    def damage(self) -> tuple[str, ...]:
        """Keys of NAMES."""
        return tuple(LOOKS_LIKE[one] for one in self.kinds if one in LOOKS_LIKE)

    @property
    def shown(self) -> NDArray[np.float32]:
        """[11], 1 for its class of damage."""
        return np.array([any(NAMES[name] == one for name in self.damage) for one in CLASSES], np.float32)

    @property
    def is_known(self) -> bool:
        """Whether its damage is one of CLASSES, or none."""
        return self.kinds == (PRISTINE,) or bool(self.damage)

    def answer(self, generator: np.random.Generator, prompt: PromptName) -> str:
        """A reason whose grade, and numbers which, lie about the opinion, each by itself.

        So the numbers are not read off the grade, and their digits' chances spread as opinions do.
        """
        graded, said = np.clip(self.opinion + NOISE * generator.standard_normal(2), 1, 5).tolist()
        if self.is_known:
            reason = ladder_reason(generator, graded, self.damage, [self.level] * len(self.damage))
        else:
            grade = grade_of(graded)
            reason = str(
                generator.choice([f"{what} {grade}." for what in ("It looks", "The quality is", "The picture is")])
            )
        return answer_text(reason, [said] * PROMPTS[prompt].dimensions, PROMPTS[prompt].form)


def native_windows(shown: Views, generator: np.random.Generator, whole: Pixels | None = None) -> list[Pixels]:
    """NATIVE windows: of the local pictures, and RANDOM ones of the whole picture where there is one."""
    count = NATIVE if whole is None else SALIENT
    found = [cut(one, generator) for one in itertools.islice(itertools.cycle(shown.local_pictures), count)]
    return found + ([] if whole is None else [cut(whole, generator) for _ in range(RANDOM)])


def look_at_picture(picture: Pixels, path: Path, views: ViewsConfig, seed: int) -> tuple[Pixels, Views]:
    """Windows of a picture, and its views."""
    Image.fromarray(picture).save(path, compress_level=1)
    shown = look(Clip(clip_id=path.stem, uri=str(path)), views)
    path.unlink()
    generator = np.random.default_rng(seed)
    wholes = [cut(shown.global_pictures[0], generator) for _ in range(WHOLE)]
    return np.stack(native_windows(shown, generator, picture) + wholes), shown


def learn_labels(config: DistillConfig) -> tuple[Material, Line]:
    """What a student learns from without the test folds, and its head."""
    kept = [
        one.model_copy(update={"without_folds": [find_people_set(one.people).test_fold]}) for one in config.opinions
    ]
    config = config.model_copy(update={"opinions": kept})
    material = gather(config, Embeddings(config, print), print)
    head = fit_head(config, material)
    if not isinstance(head, Line) or config.ladders is None:
        raise UsageError("the config has steps of rali, or no ladders. Give ladders.sources, and rali=null.")
    return material, head


def gather_stills(
    config: DistillConfig, material: Material, head: Line, views: ViewsConfig, folder: Path
) -> Iterator[Picture]:
    """People's pictures outside the test folds, variants of VARIED's, and ladders.

    What material and head are: `learn_labels`.
    """
    embeddings = Embeddings(config)  # tuned by then: `learn_labels`
    for wanted, own in zip(config.opinions, material.lessons, strict=True):
        people = find_people_set(wanted.people)
        places = head.regressor.along(own.embeddings)
        standard = (own.labels - own.labels.mean()) / own.labels.std()
        labels = head.map.opinions(places.mean() + places.std() * standard).tolist()
        kept = without_folds(read_opinions(people, config.folder), [people.test_fold])
        for k, (one, label, row) in enumerate(zip(kept, labels, own.embeddings, strict=True)):
            windows, shown = look_at_picture(one.read(), folder / "seen.png", views, k)
            yield Picture(
                name=str(one.path),
                windows=windows,
                views=shown,
                opinion=label,
                embedding=row,
                people=wanted.people,
                fold=one.fold,
            )
            if wanted.people == VARIED:
                yield from _variants(one, label, row, embeddings, head, views, folder)
    assert config.ladders is not None  # learn_labels
    sources = find_pictures(config.ladders.sources, most=config.ladders.contents, seed=config.ladders.seed)
    for k, (source, ladder) in enumerate(zip(sources, material.ladders, strict=True)):
        labels = head.opinions(ladder.pictures.embeddings).tolist()
        top = labels[[kind for kind, _ in ladder.steps].index(PRISTINE)]
        for j, (step, (kind, level)) in enumerate(zip(steps(source, config.ladders), ladder.steps, strict=True)):
            windows, shown = look_at_picture(step.pixels, folder / "seen.png", views, 1000 * k + j)
            yield Picture(
                name=f"{source.name}/{j}",
                windows=windows,
                views=shown,
                opinion=labels[j] if kind == PRISTINE else max(1.0, min(labels[j], top - BELOW * level / 5)),
                embedding=ladder.pictures.embeddings[j],
                content=source.name,
                kinds=(kind,),
                level=level / 5,
            )


def _variants(
    one: Opinion,
    opinion: float,
    embedding: NDArray[np.float64],
    embeddings: Embeddings,
    head: Line,
    views: ViewsConfig,
    folder: Path,
) -> Iterator[Picture]:
    """A picture and parts of it, some degraded; where the student errs on the whole, it is taken to err on those."""
    generator, picture = np.random.default_rng((31, int.from_bytes(one.path.stem.encode()[-6:], "big"))), one.read()
    wrong = opinion - float(head.opinions(embedding[None])[0])

    def part(shares: tuple[float, float], sizes: tuple[float, float]) -> Pixels:
        height, width = (round(side * generator.uniform(*shares) ** 0.5) for side in picture.shape[:2])
        top, left = (int(generator.integers(a - b + 1)) for a, b in zip(picture.shape, (height, width), strict=False))
        scale = generator.uniform(*sizes)
        size = (max(2 * CROP, round(width * scale)), max(2 * CROP, round(height * scale)))
        found = Image.fromarray(picture[top : top + height, left : left + width])
        return np.asarray(found.resize(size, Image.Resampling.LANCZOS))

    made = [(picture, 0.0)] + [(part((0.35, 0.9), (0.7, 1.2)), 0.0) for _ in range(CROPS)]
    for k, kind in enumerate(generator.choice(list(DEGRADATIONS), DEGRADED, replace=False).tolist()):
        rung = int(generator.integers(1, LEVELS + 1 if k < DEGRADED // 2 else 3))
        whole = part((0.6, 1.0), (0.7, 1.0)) if generator.random() < 0.6 else picture
        made.append((degrade(whole, kind, rung, generator), rung / LEVELS))
    for k, (pixels, level) in enumerate(made):
        row = embedding if k == 0 else embeddings.of_picture(pixels).astype(np.float64)
        windows, shown = look_at_picture(pixels, folder / "seen.png", views, k)
        yield Picture(
            name=f"{one.path}/{k}",
            windows=windows,
            views=shown,
            opinion=opinion if k == 0 else float(np.clip(head.opinions(row[None])[0] + wrong, 1, 5)),
            embedding=row,
            content=str(one.path),
            is_variant=True,
            level=level,
        )


def gather_crops(sources: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Files of damaged crops of pictures and clips, each: crops uint8 [G, 1 + C, SIDE, SIDE, 3], a clean one and copies
    of it, and their vmaf [G, C] in 0-1. What is there is kept."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:05}.npz" for number in range(count)]
    wanted = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_crops, sources), wanted))
    return paths


def _crops(sources: Sequence[Path], wanted: tuple[int, Path]) -> None:
    number, path = wanted
    clean, damaged = draw_pairs(sources, 32 * PAIRS, seed=77, number=number, read=first_look)
    vmaf = still_figures(clean, damaged)[:, 0].reshape(-1, PAIRS // 2, 2).swapaxes(1, 2).reshape(-1, PAIRS // 2)
    clean, damaged = (
        one.reshape(-1, PAIRS // 2, 2, *one.shape[1:]).swapaxes(1, 2).reshape(-1, PAIRS // 2, *one.shape[1:])
        for one in (clean, damaged)
    )
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, crops=np.concatenate([clean[:, :1], damaged], 1), vmaf=vmaf)
