"""Teach the embedded model what people say: `python tests/bench/embedded_people.py SOURCES --out runs/people`.

A student of the light tier, trained without the test folds of configs/people, labels ladders of photographs below
SOURCES (`tests/bench/embedded_sources.py` fetches some), still and moving, and variants of people's pictures. From
these, and from people's opinions on the other folds, the embedded model's vision tower learns to read an opinion off
native crops and off the whole. Both readings, and one of each kind of damage, are handed to the text model as channels;
its cold start learns to write them. Nothing of a test fold is used. What the tower learnt is kept below --out and
resumed. Skips where the opinions are absent.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.embedded_material import (
    FROZEN,
    NATIVE,
    WHOLE,
    Picture,
    gather_clips,
    gather_ladders,
    gather_stills,
    learn_labels,
)
from tests.bench.embedded_order import ladders_of, put_in_order
from tests.support.people import PEOPLE
from vqa.config import load_config
from vqa.data.synthetic.picture_ladder import PRISTINE, find_pictures
from vqa.light.card import StudentCard
from vqa.light.config import DistillConfig
from vqa.light.material import published_encoder
from vqa.light.student import Student
from vqa.model.card import settle
from vqa.train.checkpoints import load_for_training, save_model
from vqa.train.clips.dataset import TrainingClip
from vqa.train.clips.ladder import CLASSES
from vqa.train.context import StageContext
from vqa.train.hardware import WHOLE as WHOLE_COPIES
from vqa.train.metrics_log import MetricsLog
from vqa.train.recipe import ColdStart
from vqa.train.scratch.warmup import LOUDNESS, QUIET, pooled, rate_at, responses
from vqa.train.sft.trainer import cold_start
from vqa.train.types import Model, Tower
from vqa.types import Pixels, Views
from vqa.views import ViewsConfig

HELD = 16  # contents of each kind of ladder that are not learnt from
AXES = 32  # of the student's embeddings, which the tower also learns to tell
# Pictures a step: of each set; contents of stills, of people's with variants and of clips, and their copies.
OF_SET, OF_LADDERS = 3, ((2, 3), (2, 3), (4, 2))
SEEN = (4, 2)  # windows of each: native crops, and of the whole


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
    whole = NATIVE + generator.choice(WHOLE, SEEN[1], replace=False)
    windows = picture.windows[np.concatenate([native, whole])]
    across, down = generator.random(2)
    windows = windows[:, :, ::-1] if across < 0.5 else windows
    return windows[:, ::-1] if down < 0.25 else windows


@dataclass(frozen=True, eq=False)
class Lesson:
    """Labels of B pictures."""

    opinion: Tensor  # [B] 0-1, without 0.5
    kinds: Tensor  # [B, 11]
    known: Tensor  # [B] 1 where `kinds` says all
    embedding: Tensor  # [B, AXES]
    embedded: Tensor  # [B] 1 where there is one
    contents: tuple[slice, ...]  # of ladders; the first of each is the original


def loss_of(read: tuple[Tensor, Tensor, Tensor], lesson: Lesson) -> Tensor:
    """Opinions, differences of an original and its copies, kinds of damage, the student's embedding."""
    native, whole, told = read
    opinions = (native[:, 0], whole[:, 0], (native[:, 0] + whole[:, 0]) / 2)
    opinion = sum(functional.smooth_l1_loss(one, lesson.opinion, beta=0.2) for one in opinions)
    order = sum(
        functional.smooth_l1_loss(one[:1] - one[1:], label[:1] - label[1:], beta=0.1)
        for place in lesson.contents
        for one, label in ((own[place], lesson.opinion[place]) for own in opinions[:2])
    )
    named = partial(functional.binary_cross_entropy_with_logits, target=lesson.kinds, reduction="none")
    kinds = ((named(native[:, 1:]) + 2 * named(whole[:, 1:])).mean(1) * lesson.known).mean()
    embedding = functional.smooth_l1_loss(told, lesson.embedding, reduction="none").mean(1) * lesson.embedded
    shares = max(1, len(lesson.contents) // 2)
    return 10 * opinion + 5 * order / shares + kinds + 2 * embedding.sum() / lesson.embedded.sum()


class Lessons:
    """Draws of a step's pictures, and their labels."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures
        sets = sorted({one.people for one in pictures} - {""})
        self.sets = [[one for one in pictures if one.people == name] for name in sets]
        by_content: dict[str, list[Picture]] = {}
        for one in pictures:
            if one.content:
                by_content.setdefault(one.content, []).append(one)
        ladders = [sorted(some, key=lambda one: one.kinds != (PRISTINE,)) for some in by_content.values()]
        kinds = {some[0].content: (some[0].is_variant, some[0].embedding is None) for some in ladders}
        self.ladders = [
            [some for some in ladders if kinds[some[0].content] == kind]
            for kind in ((False, False), (True, False), (False, True))
        ]
        rows = np.stack([one.embedding for one in pictures if one.embedding is not None])
        self.middle, self.spread = rows.mean(0), rows.std(0) + 1e-6
        rows = (rows - self.middle) / self.spread
        self.axes = np.linalg.svd(rows[::3], full_matrices=False)[2][:AXES].T
        self.axes /= (rows @ self.axes).std(0)

    def draw(self, generator: np.random.Generator) -> tuple[list[Picture], Lesson]:
        """Pictures of every set, and originals with some of their copies."""
        picks = [some[k] for some in self.sets for k in generator.choice(len(some), OF_SET, replace=False)]
        places = []
        for ladders, (count, copies) in zip(self.ladders, OF_LADDERS, strict=True):
            for ladder in generator.choice(len(ladders), min(count, len(ladders)), replace=False):
                first, *others = ladders[ladder]
                chosen = generator.choice(len(others), min(copies, len(others)), replace=False)
                places.append(slice(len(picks), len(picks) + 1 + len(chosen)))
                picks += [first, *(others[k] for k in chosen)]
        told = np.stack([self._axes_of(one) for one in picks]).clip(-4, 4)
        return picks, Lesson(
            opinion=torch.tensor([(one.opinion - 1) / 4 - 0.5 for one in picks]),
            kinds=torch.from_numpy(np.stack([one.shown for one in picks])),
            known=torch.tensor([float(one.is_known) for one in picks]),
            embedding=torch.from_numpy(told).float(),
            embedded=torch.tensor([float(one.embedding is not None) for one in picks]),
            contents=tuple(places),
        )

    def _axes_of(self, picture: Picture) -> NDArray[np.float64]:
        if picture.embedding is None:
            return np.zeros(AXES)
        found: NDArray[np.float64] = (picture.embedding - self.middle) / self.spread @ self.axes
        return found


def teach_tower(
    model: Model, processor: object, pictures: Sequence[Picture], folder: Path, *, max_steps: int, rate: float
) -> Readings:
    """Train the tower and its readings, saved every 150 steps; what is left is a mean of the last steps' weights."""
    visual: Tower = model.model.visual
    visual.patch_embed.requires_grad_(False)
    last = visual.merger.mlp[-1]
    with torch.no_grad():
        last.bias[2 + len(CLASSES) :] /= QUIET  # as before an earlier edition's were handed over
        last.weight[2 + len(CLASSES) :] /= QUIET
    torch.manual_seed(0)
    head = Readings(visual.config.out_hidden_size)
    taught = nn.ModuleList([visual, head])
    mean = AveragedModel(taught, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    parameters = [one for one in taught.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    lessons = Lessons(pictures)
    saved, begin = folder / "tower.pt", 0
    if saved.exists():
        state = torch.load(saved, map_location="cpu", weights_only=True)
        taught.load_state_dict(state["taught"])
        mean.load_state_dict(state["mean"])
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
        picks, lesson = lessons.draw(generator)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=max_steps, peak=rate)
        natives, wholes = pooled_of(model, processor, [drawn(one, generator) for one in picks], SEEN[0])
        loss = loss_of(head(natives, wholes), lesson)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimiser.step()
        mean.update_parameters(taught)
        if (step + 1) % 150 == 0 or step + 1 == max_steps:
            print(f"tower: step {step + 1} of {max_steps}, loss {loss.item():.3f}", flush=True)
            state = {"taught": taught.state_dict(), "mean": mean.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"step": step + 1}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    taught.load_state_dict(mean.module.state_dict())
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
    both = (natives + wholes) / 2
    read_off = [natives, wholes, *[both] * len(kinds)]
    reach = torch.stack([(one @ weight).std() for one, weight in zip(read_off, weights, strict=True)]).clamp(min=1e-3)
    loud = LOUDNESS * both.std(0).mean() / reach
    loud[2:] /= 2
    loud[2:][torch.from_numpy(np.sum([one.shown for one in pictures], axis=0) == 0)] = 0
    readings = weights * loud[:, None]
    last = model.model.visual.merger.mlp[-1]
    bias = torch.stack([one @ (last.bias - off.mean(0)) for one, off in zip(readings, read_off, strict=True)])
    weight = readings @ last.weight
    last.bias *= QUIET
    last.weight *= QUIET
    last.bias[: len(bias)], last.weight[: len(bias)] = bias, weight


def lessons_of(pictures: Sequence[Picture]) -> list[TrainingClip]:
    """Each of people's pictures and each freeze twice, once with fewer crops; of the others a third so."""
    found = []
    for k, one in enumerate(pictures):
        count = int(np.random.default_rng(k).integers(1, len(one.views.local_pictures) + 1))
        few = replace(one.views, local_pictures=one.views.local_pictures[:count])
        chosen = (one.views, few) if one.people or one.kinds == FROZEN else (one.views if k % 3 else few,)
        found += [_lesson(one, views) for views in chosen]
    return found


def _lesson(picture: Picture, views: Views) -> TrainingClip:
    return TrainingClip(
        clip_id=picture.name,
        dataset=picture.people or "ladder",
        opinion=picture.opinion,
        load=partial(_same, views),
        write_answer=picture.answer,
        distortions=picture.damage,
    )


def _pool(processor: object, model: Model, windows: Sequence[Pixels]) -> tuple[Tensor, Tensor]:
    return pooled_of(model, processor, windows, SEEN[0])


def _same(views: Views) -> Views:
    return views


def main(
    sources: Path,
    out: Path,
    *,
    contents: int,
    moving: int,
    tower_steps: int,
    text_steps: int,
    lessons: int,
    text_alone: bool,
    order_steps: int,
    without: Path | None,
    changes: Sequence[str] = (),
) -> None:
    """Teach it, and save the model below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    own = [f"folder={PEOPLE}", f"ladders.sources=[{sources}]", f"ladders.contents={contents}", *changes]
    config = load_config(Path("configs/light/embedded.yaml"), DistillConfig, own)
    card = settle("embedded", {})[0]
    views = ViewsConfig.model_validate(card.views)
    material, labels = learn_labels(config)
    stills = list(gather_stills(config, material, labels, views, out))
    named = StudentCard(views=config.views(), embedding=config.embedding, name="labels", trained_on=[])
    student = Student(published_encoder(), labels, named, usual=material.usual)
    unseen = {path.name for path in without.iterdir()} if without else set()
    photographs = [one for one in find_pictures([sources], seed=77) if one.name not in unseen][:moving]
    clips = list(gather_clips(photographs, views, out, student))
    ladders = list(gather_ladders(config.moving.ladders if config.moving else [], views, student))
    teach(
        stills,
        clips,
        ladders,
        out,
        tower_steps=tower_steps,
        text_steps=text_steps,
        lessons=lessons,
        text_alone=text_alone,
        order_steps=order_steps,
    )


def teach(
    stills: Sequence[Picture],
    moves: Sequence[Picture],
    ladders: Sequence[Picture],
    out: Path,
    *,
    tower_steps: int,
    text_steps: int,
    lessons: int,
    text_alone: bool,
    order_steps: int = 0,
) -> None:
    """Teach tower and text model on what `embedded_material` gathers, and save the model below `out`."""
    card, clips = settle("embedded", {})[0], [*moves, *ladders]
    model, processor = load_for_training(card, threads=torch.get_num_threads(), dtype="float32", hardware=WHOLE_COPIES)
    kinds = ([one for one in stills if not one.is_variant], moves, ladders)
    held = {one for some in kinds for one in sorted({one.content for one in some} - {""})[-HELD:]}
    judged = [one for one in stills if one.people and one.fold == 1][::2]  # with pictures held out: chooses the weights
    kept_out = held | {one.name for one in judged}
    to_learn = [one for one in [*stills, *clips] if kept_out.isdisjoint((one.content, one.name))]
    learned = [one for one in to_learn if one.kinds != FROZEN]
    head = None if text_alone else teach_tower(model.eval(), processor, learned, out, max_steps=tower_steps, rate=7e-4)
    generator = np.random.default_rng(11)
    people, of_stills, of_clips, freezes, variants = (
        [one for one in to_learn if is_of(one)]
        for is_of in (
            lambda one: one.people,
            lambda one: one.content and one.embedding is not None and not one.is_variant,
            lambda one: one.embedding is None and one.kinds != FROZEN,
            lambda one: one.kinds == FROZEN,
            lambda one: one.is_variant,
        )
    )
    few_stills, few_clips, few_variants = (
        [some[k] for k in generator.choice(len(some), min(lessons, len(some)), replace=False)]
        for some in (of_stills, of_clips, variants)
    )
    if head is not None:
        hand_over(model, processor, head, few_stills[:80] + few_clips[:100] + people[::4] + few_variants[:60])
    judged += [one for one in [*stills, *clips] if one.content in held][::4]
    rest = few_stills + few_clips + few_variants + freezes + people
    settings = ColdStart(
        name="coldstart",
        kind="coldstart",
        max_steps=text_steps,
        global_batch_size=16,
        learning_rate=3e-4 if text_alone else 7e-4,
        vision_learning_rate=0,
        cache_features=True,
        feature_noise=1.0,
        handed_channels=2 + len(CLASSES),
        answer_weight=1.5,
        ema_decay=0.98,
        save_steps=50,
        eval_steps=100,
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
    kept = [_lesson(one, one.views) for one in judged]
    trained = cold_start(model, processor, lessons_of(rest), kept, settings=settings, context=context)
    if order_steps:
        pool = partial(_pool, processor)
        put_in_order(trained.eval(), ladders_of(learned), pooled_of=pool, drawn=drawn, max_steps=order_steps)
    save_model(trained, processor, out / "model", processes=context.processes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without", type=Path, help="folder of photographs whose names no moving ladder is made of")
    parser.add_argument("--contents", type=int, default=191, help="photographs of the ladders of stills")
    parser.add_argument("--moving", type=int, default=100, help="photographs of the moving ladders")
    parser.add_argument("--tower-steps", type=int, default=900)
    parser.add_argument("--text-steps", type=int, default=600)
    parser.add_argument("--order-steps", type=int, default=0, help="of the tower at the end, see embedded_order.py")
    parser.add_argument("--lessons", type=int, default=800, help="pictures of either kind of ladder in the cold start")
    parser.add_argument(
        "--text-alone", action="store_true", help="go on from the embedded model, whose tower has been taught"
    )
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
            moving=given.moving,
            tower_steps=given.tower_steps,
            text_steps=given.text_steps,
            lessons=given.lessons,
            text_alone=given.text_alone,
            order_steps=given.order_steps,
            without=given.without,
            changes=given.set,
        )
