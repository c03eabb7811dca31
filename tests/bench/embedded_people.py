"""Teach the embedded model what people say: `python tests/bench/embedded_people.py SOURCES --out runs/people`.

A student of the light tier, trained without the test folds of configs/people, labels ladders of photographs below
SOURCES (`tests/bench/embedded_sources.py` fetches some). From these, and from people's opinions on the other folds, the
embedded model's vision tower learns to read an opinion off native crops and off whole pictures. Both readings, and one
of each kind of damage, are handed to the text model as channels; its cold start learns to write them. Nothing of a test
fold is used. The command resumes: windows and the tower are kept below --out. Skips where the opinions are absent.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.people import PEOPLE
from vqa.config import load
from vqa.data.people import find_people_set, read_opinions
from vqa.data.synthetic.picture_ladder import PRISTINE, find_pictures, plan, steps
from vqa.light.config import DistillConfig
from vqa.light.distill import joined
from vqa.light.material import Embeddings
from vqa.light.regression import LabelledSet, fit
from vqa.light.student import OpinionMap
from vqa.model.card import settle
from vqa.prompt import PROMPTS, PromptName, answer_text
from vqa.train.checkpoints import load_for_training, save_model
from vqa.train.clips.dataset import TrainingClip
from vqa.train.clips.ladder import CLASSES, GRADES, NAMES, ladder_answer
from vqa.train.context import StageContext
from vqa.train.hardware import WHOLE
from vqa.train.metrics_log import MetricsLog
from vqa.train.recipe import ColdStart
from vqa.train.scratch.crops import cut
from vqa.train.scratch.warmup import LOUDNESS, QUIET, pooled, rate_at, responses
from vqa.train.sft import features
from vqa.train.sft.trainer import cold_start
from vqa.train.types import Model, Tower
from vqa.types import Clip, Pixels, Views
from vqa.views import ViewsConfig, look

# What of NAMES a degradation looks like; none of them: left out of the lessons on kinds.
LOOKS_LIKE = {
    **dict.fromkeys(("jpeg", "jpeg2000", "webp", "x264", "x265"), "x264"),
    **dict.fromkeys(("gaussian_blur", "lens_blur", "denoised", "motion_blur"), "defocus"),
    **dict.fromkeys(("white_noise", "colour_noise", "impulse_noise", "multiplicative_noise"), "noise"),
    **dict.fromkeys(("brighten", "darken", "mean_shift"), "exposure"),
    **dict.fromkeys(("upscaled", "upscaled_jpeg"), "scaling"),
    **dict.fromkeys(("colour_shift", "underwater"), "colour_cast"),
    "less_contrast": "contrast",
    "quantise": "banding",
}
SALIENT, RANDOM, OF_WHOLE, TILES = (
    12,
    4,
    3,
    3,
)  # windows of a picture: crops as scored, others; of it whole, of its mosaic
NATIVE = SALIENT + RANDOM
HELD = 10  # contents of ladders that are not learnt from
AXES = 32  # of the student's embeddings, which the tower also learns to tell
OF_SET, OF_LADDERS = 3, 9  # pictures a step
SEEN = (4, 2)  # windows of each: native crops, and of the whole or of the mosaic


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One picture to learn from."""

    name: str
    windows: Pixels  # [22, 112, 112, 3]
    views: Views  # as scored
    opinion: float  # 1-5
    embedding: NDArray[np.float64]  # the student's
    content: str  # of a ladder; "" for people's pictures
    people: str = ""  # the set of people's opinions, and its fold
    fold: int = -1
    kind: str = ""  # of its degradation
    level: int = 0

    @property
    def shown(self) -> NDArray[np.float32]:
        """[11], 1 for its class of damage."""
        found = np.zeros(len(CLASSES), np.float32)
        if self.kind in LOOKS_LIKE:
            found[CLASSES.index(NAMES[LOOKS_LIKE[self.kind]])] = 1
        return found

    @property
    def is_known(self) -> bool:
        """Whether its damage is one of CLASSES, or none."""
        return self.kind == PRISTINE or self.kind in LOOKS_LIKE

    def answer(self, generator: np.random.Generator, prompt: PromptName) -> str:
        """A true reason, and the opinion for every number."""
        if self.is_known:
            harms = [LOOKS_LIKE[self.kind]] if self.kind in LOOKS_LIKE else []
            return ladder_answer(generator, prompt, self.opinion, harms, [self.level / 5] * len(harms))
        grade = GRADES[min(4, int(self.opinion - 0.5))]
        reason = str(
            generator.choice([f"{what} {grade}." for what in ("It looks", "The quality is", "The picture is")])
        )
        return answer_text(reason, [self.opinion] * PROMPTS[prompt].dimensions, PROMPTS[prompt].form)


def mosaic(picture: Pixels, side: int) -> Pixels:
    """The picture as a video of it would be shown: 4x4 times, the long side `side`."""
    height, width, _ = picture.shape
    scale = side / 4 / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.tile(np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)), (4, 4, 1))


def seen(picture: Pixels, path: Path, views: ViewsConfig, seed: int) -> tuple[Pixels, Views]:
    """Windows of a picture, and its views."""
    Image.fromarray(picture).save(path, compress_level=1)
    shown = look(Clip(clip_id=path.stem, uri=str(path)), views)
    path.unlink()
    generator = np.random.default_rng(seed)
    natives = [cut(one, generator) for one in itertools.islice(itertools.cycle(shown.local_pictures), SALIENT)]
    natives += [cut(picture, generator) for _ in range(RANDOM)]
    small = [cut(shown.global_pictures[0], generator) for _ in range(OF_WHOLE)]
    small += [cut(mosaic(picture, views.global_pixels), generator) for _ in range(TILES)]
    return np.stack(natives + small), shown


def gather(config: DistillConfig, views: ViewsConfig, folder: Path) -> Iterator[Picture]:
    """People's pictures outside the test folds, and ladders labelled by a student that never saw these."""
    embeddings = Embeddings(config)
    ladders = config.ladders
    if ladders is None:
        raise ValueError("the config has no ladders")
    sources = find_pictures(ladders.sources, most=ladders.contents, seed=ladders.seed)
    sets, opinions = [], []
    for wanted in config.opinions:
        people = find_people_set(wanted.people)
        kept = [one for one in read_opinions(people, config.folder) if one.fold != people.test_fold]
        rows = embeddings.of_opinions(kept, print)
        sets.append(LabelledSet(embeddings=rows, labels=np.array([one.opinion for one in kept]), weight=wanted.weight))
        opinions.append(kept)
    made = [embeddings.of_ladder(source, ladders) for source in sources]
    direction = fit([*sets, joined(made, config.regression)], config.regression)
    scale = OpinionMap.fit(direction.along(sets[0].embeddings), sets[0].labels)
    for wanted, some, own in zip(config.opinions, opinions, sets, strict=True):
        places = direction.along(own.embeddings)  # people's opinions, with the mean and spread that the student gives
        standard = (own.labels - own.labels.mean()) / own.labels.std()
        labels = scale.opinions(places.mean() + places.std() * standard)
        for k, (one, label, row) in enumerate(zip(some, labels.tolist(), own.embeddings, strict=True)):
            windows, shown = seen(one.read(), folder / "seen.png", views, k)
            yield Picture(
                name=str(one.path),
                windows=windows,
                views=shown,
                opinion=label,
                embedding=row,
                content="",
                people=wanted.people,
                fold=one.fold,
            )
    for k, (source, ladder) in enumerate(zip(sources, made, strict=True)):
        labels = scale.opinions(direction.along(ladder.embeddings)).tolist()
        planned = plan(source.name, ladders)[1]
        for j, (step, label, (kind, level)) in enumerate(zip(steps(source, ladders), labels, planned, strict=True)):
            windows, shown = seen(step.pixels, folder / "seen.png", views, 1000 * k + j)
            yield Picture(
                name=f"{source.name}/{j}",
                windows=windows,
                views=shown,
                opinion=label,
                embedding=ladder.embeddings[j],
                content=source.name,
                kind=kind,
                level=level,
            )


class Readings(nn.Module):
    """Pooled windows [B, width] -> opinion (0-1, without 0.5) and kinds of damage off native crops [B, 12] and off the
    whole [B, 12], and the student's embedding [B, AXES]."""

    middle: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.native, self.whole = (nn.Linear(width, 1 + len(CLASSES)) for _ in range(2))
        self.embedding = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, AXES))
        for one in (self.native, self.whole):
            nn.init.zeros_(one.weight)
            nn.init.zeros_(one.bias)

    def forward(self, natives: Tensor, wholes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        native, whole = ((one - self.middle) / self.spread for one in (natives, wholes))
        return self.native(native), self.whole(whole), self.embedding(torch.cat([natives, wholes], 1))


def pooled_of(model: Model, processor: object, windows: Sequence[Pixels], natives: int) -> tuple[Tensor, Tensor]:
    """[B, width] twice: means of the tower's features over each picture's native windows, and over the others."""
    visual: Tower = model.model.visual
    found = pooled(visual, responses(visual, processor.image_processor, np.concatenate(windows)))  # type: ignore[attr-defined]
    found = found.view(len(windows), len(windows[0]), -1)
    return found[:, :natives].mean(1), found[:, natives:].mean(1)


def drawn(picture: Picture, generator: np.random.Generator) -> Pixels:
    """SEEN windows of a picture, mirrored as may be."""
    native = generator.choice(NATIVE, SEEN[0], replace=False)
    first = NATIVE + OF_WHOLE * int(generator.integers(2))
    windows = picture.windows[np.concatenate([native, first + generator.choice(OF_WHOLE, SEEN[1], replace=False)])]
    across, down = generator.random(2)
    windows = windows[:, :, ::-1] if across < 0.5 else windows
    return windows[:, ::-1] if down < 0.25 else windows


def teach_tower(
    model: Model, processor: object, pictures: Sequence[Picture], folder: Path, *, max_steps: int, rate: float
) -> Readings:
    """Train the tower and its readings; saved every 150 steps."""
    visual: Tower = model.model.visual
    visual.patch_embed.requires_grad_(False)
    torch.manual_seed(0)
    head = Readings(visual.config.out_hidden_size)
    parameters = [one for one in (*visual.parameters(), *head.parameters()) if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    ladders = [one for one in pictures if one.content]
    groups = [
        [one for one in pictures if one.people == name] for name in sorted({one.people for one in pictures} - {""})
    ]
    rows = np.stack([one.embedding for one in pictures])
    middle, spread = rows.mean(0), rows.std(0) + 1e-6
    axes = np.linalg.svd((rows[::3] - middle) / spread, full_matrices=False)[2][:AXES].T
    size = ((rows - middle) / spread @ axes).std(0)
    saved, begin = folder / "tower.pt", 0
    if saved.exists():
        state = torch.load(saved, map_location="cpu", weights_only=True)
        visual.load_state_dict(state["visual"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        begin = state["step"]
    else:
        generator = np.random.default_rng(5)
        some = generator.choice(len(pictures), 64, replace=False)
        with torch.no_grad():
            first = torch.cat(pooled_of(model, processor, [drawn(pictures[k], generator) for k in some], SEEN[0]))
            head.middle.copy_(first.mean(0))
            head.spread.copy_(first.std(0).clamp(min=1e-3))
    for step in range(begin, max_steps):
        generator = np.random.default_rng((7, step))
        counts = [(group, OF_SET) for group in groups] + [(ladders, OF_LADDERS)]
        picks = [group[k] for group, count in counts for k in generator.choice(len(group), count, replace=False)]
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=max_steps, peak=rate)
        natives, wholes = pooled_of(model, processor, [drawn(one, generator) for one in picks], SEEN[0])
        native, whole, told = head(natives, wholes)
        wanted = torch.tensor([(one.opinion - 1) / 4 - 0.5 for one in picks])
        kinds = torch.from_numpy(np.stack([one.shown for one in picks]))
        known = torch.tensor([float(one.is_known) for one in picks])
        close = partial(functional.smooth_l1_loss, target=wanted, beta=0.2)
        opinion = close(native[:, 0]) + close(whole[:, 0]) + close((native[:, 0] + whole[:, 0]) / 2)
        names = sum(
            (functional.binary_cross_entropy_with_logits(one[:, 1:], kinds, reduction="none").mean(1) * known).mean()
            for one in (native, whole)
        )
        seen_by_student = ((np.stack([one.embedding for one in picks]) - middle) / spread @ axes / size).clip(-4, 4)
        embedding = functional.smooth_l1_loss(told, torch.from_numpy(seen_by_student).float())
        loss = 10 * opinion + names + 2 * embedding
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimiser.step()
        if (step + 1) % 150 == 0 or step + 1 == max_steps:
            print(f"tower: step {step + 1} of {max_steps}, loss {loss.item():.3f}", flush=True)
            state = {"visual": visual.state_dict(), "head": head.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"step": step + 1}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    return head


@torch.no_grad()
def hand_over(model: Model, processor: object, head: Readings, pictures: Sequence[Picture]) -> None:
    """Write the readings into the tower's first channels (see `vqa.train.scratch.warmup.hand_over`): the opinion off
    native crops, the opinion off the whole, then the kinds of damage, by the mean of both readings."""
    kinds = (head.native.weight[1:] + head.whole.weight[1:]) / 2
    weights = torch.cat([head.native.weight[:1], head.whole.weight[:1], kinds]) / head.spread
    natives, wholes = (
        torch.cat(part)
        for part in zip(*(pooled_of(model, processor, [one.windows], NATIVE) for one in pictures), strict=True)
    )
    means = (natives + wholes) / 2
    middles = [natives.mean(0), wholes.mean(0), *[means.mean(0)] * len(kinds)]
    reach = (means @ weights.T).std(0).clamp(min=1e-3)
    reach[0], reach[1] = (natives @ weights[0]).std(), (wholes @ weights[1]).std()
    loud = LOUDNESS * means.std(0).mean() / reach
    loud[2:] /= 2
    loud[2:][torch.from_numpy(np.sum([one.shown for one in pictures], axis=0) == 0)] = 0
    readings = weights * loud[:, None]
    last = model.model.visual.merger.mlp[-1]
    bias = torch.stack([one @ (last.bias - middle) for one, middle in zip(readings, middles, strict=True)])
    weight = readings @ last.weight
    last.bias *= QUIET
    last.weight *= QUIET
    last.bias[: len(bias)], last.weight[: len(bias)] = bias, weight


def lessons_of(pictures: Sequence[Picture], side: int) -> list[TrainingClip]:
    """Each picture twice: whole as a still is shown, and as a mosaic, with fewer crops."""
    found = []
    for k, one in enumerate(pictures):
        count = int(np.random.default_rng(k).integers(1, SALIENT + 1))
        tiles = mosaic(one.views.global_pictures[0], side)
        few = replace(one.views, global_pictures=(tiles,), local_pictures=one.views.local_pictures[:count])
        for views in (one.views, few):
            kinds = (LOOKS_LIKE[one.kind],) if one.kind in LOOKS_LIKE else ()
            found.append(
                TrainingClip(
                    clip_id=one.name,
                    dataset="ladder" if one.content else "people",
                    opinion=one.opinion,
                    load=partial(_same, views),
                    write_answer=one.answer,
                    distortions=kinds,
                )
            )
    return found


def _same(views: Views) -> Views:
    return views


def main(
    sources: Path,
    out: Path,
    *,
    contents: int,
    tower_steps: int,
    text_steps: int,
    lessons: int,
    changes: Sequence[str] = (),
) -> None:
    """Teach it, and save the model below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    own = [f"folder={PEOPLE}", f"ladders.sources=[{sources}]", f"ladders.contents={contents}", *changes]
    config = load(Path("configs/light/embedded.yaml"), DistillConfig, own)
    card = settle("embedded", {})[0]
    views = ViewsConfig.model_validate(card.views)
    pictures = list(gather(config, views, out))
    model, processor = load_for_training(card, threads=torch.get_num_threads(), dtype="float32", hardware=WHOLE)
    held = sorted({one.content for one in pictures})[-HELD:]
    learned = [one for one in pictures if one.content not in held]
    head = teach_tower(model.eval(), processor, learned, out, max_steps=tower_steps, rate=7e-4)
    generator = np.random.default_rng(11)
    of_ladders = [k for k, one in enumerate(learned) if one.content]
    some = generator.choice(of_ladders, min(lessons, len(of_ladders)), replace=False).tolist()
    people = [k for k, one in enumerate(learned) if one.people]
    hand_over(model, processor, head, [learned[k] for k in some[:120] + people[::4]])
    features.HANDED = 2 + len(CLASSES)  # one more reading than a warm-up on ladders of clips hands over
    judged = [one for one in learned if one.fold == 1][::2]  # chooses the weights
    judged += [one for one in pictures if one.content in held][::10]
    rest = [learned[k] for k in some + people if not any(learned[k] is one for one in judged)]
    settings = ColdStart(
        name="coldstart",
        kind="coldstart",
        max_steps=text_steps,
        global_batch_size=16,
        learning_rate=7e-4,
        vision_learning_rate=0,
        cache_features=True,
        feature_noise=1.0,
        answer_weight=1.5,
        ema_decay=0.98,
        save_steps=50,
        eval_steps=75,
        max_new_tokens=96,
    )
    context = StageContext(
        prompt=card.prompt,
        readout="expected",
        precision=torch.float32,
        seed=3,
        folder=out / "coldstart",
        log=MetricsLog(out / "log.jsonl", "coldstart"),
        processes=PartialState(cpu=True),
    )
    trained = cold_start(
        model,
        processor,
        lessons_of(rest, views.global_pixels),
        [replace(one, distortions=()) for one in lessons_of(judged, views.global_pixels)[::2]],
        settings=settings,
        context=context,
    )
    save_model(trained, processor, out / "model", processes=context.processes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contents", type=int, default=191)
    parser.add_argument("--tower-steps", type=int, default=900)
    parser.add_argument("--text-steps", type=int, default=225)
    parser.add_argument("--lessons", type=int, default=700, help="pictures of ladders in the cold start")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of configs/light/embedded.yaml"
    )
    given = parser.parse_args()
    if not PEOPLE.is_dir():
        print(f"{PEOPLE} is not here: nothing learnt")
    else:
        main(
            given.sources,
            given.out,
            contents=given.contents,
            tower_steps=given.tower_steps,
            text_steps=given.text_steps,
            lessons=given.lessons,
            changes=given.set,
        )
