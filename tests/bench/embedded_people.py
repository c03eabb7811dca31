"""Teach the embedded model what people say: `python tests/bench/embedded_people.py SOURCES --out runs/people`.

A student of the light tier, trained without the test folds of configs/people, labels ladders of photographs below
SOURCES (`tests/bench/embedded_sources.py` fetches some), still and moving, enlarged photographs, and variants of
people's pictures. From these, and from people's opinions on the other folds, of pictures and of pans over them, the
embedded model's vision tower learns to read an opinion off native crops and off the whole. Both readings, and one of
each kind of damage, are handed to the text model as channels, and opinions are put in order along ladders; the cold
start learns to write what the channels say. Nothing of a test fold is used. What the tower learnt is kept below --out
and resumed. Skips where the opinions are absent.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.embedded_clips import (
    LIKE_PEOPLE,
    gather_clips,
    gather_enlarged,
    gather_ladders,
    gather_pans,
    photograph_of,
)
from tests.bench.embedded_material import FROZEN, Picture, gather_crops, gather_stills, learn_labels
from tests.bench.embedded_order import ladders_of, put_in_order
from tests.bench.embedded_text import channels_of, fit_reader, lesson, lessons_of
from tests.bench.embedded_tower import hand_over, teach_tower
from tests.support.people import PEOPLE
from vqa.config import load_config
from vqa.data.synthetic.picture_ladder import find_pictures
from vqa.light.card import StudentCard
from vqa.light.config import DistillConfig
from vqa.light.material import Embeddings
from vqa.light.student import Student
from vqa.model.card import settle
from vqa.train.checkpoints import load_for_training, save_model
from vqa.train.clips.ladder import CLASSES
from vqa.train.context import StageContext
from vqa.train.hardware import WHOLE as WHOLE_COPIES
from vqa.train.metrics_log import MetricsLog
from vqa.train.recipe import ColdStart
from vqa.train.sft.trainer import cold_start
from vqa.views import ViewsConfig

HELD = 16  # contents of each kind of ladder that are not learnt from


def main(
    sources: Path,
    out: Path,
    *,
    contents: int,
    moving: int,
    enlarged: int,
    tower_steps: int,
    text_steps: int,
    lessons: int,
    text_alone: bool,
    order_steps: int,
    crops: int,
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
    embeddings = Embeddings(config)
    student = Student(embeddings.network, labels, named, usual=material.usual)
    unseen = {path.name for path in without.iterdir()} if without else set()
    photographs = [one for one in find_pictures([sources], seed=77) if one.name not in unseen]
    clips = list(gather_clips(photographs[:moving], views, out, student))
    ladders = list(gather_ladders(config.moving.ladders if config.moving else [], views, student))
    made = gather_enlarged(photographs[:enlarged], embeddings, labels, views, out)
    teach(
        stills,
        [*gather_pans(config, stills, views, out), *made],
        clips,
        ladders,
        out,
        tower_steps=tower_steps,
        text_steps=text_steps,
        most_lessons=lessons,
        text_alone=text_alone,
        order_steps=order_steps,
        crops=gather_crops(photographs, crops, out / "crops"),
    )


def teach(
    stills: Sequence[Picture],
    shown: Sequence[Picture],
    moves: Sequence[Picture],
    ladders: Sequence[Picture],
    out: Path,
    *,
    tower_steps: int,
    text_steps: int,
    most_lessons: int,
    text_alone: bool,
    order_steps: int = 0,
    crops: Sequence[Path] = (),
) -> None:
    """Teach tower and text model on what `embedded_material` and `embedded_clips` gather; save the model.

    Shown: pans, and what is enlarged.
    """
    card, clips = settle("embedded", {})[0], [*shown, *moves, *ladders]
    model, processor = load_for_training(card, threads=torch.get_num_threads(), dtype="float32", hardware=WHOLE_COPIES)
    kinds = ([one for one in stills if not one.is_variant], moves, ladders)
    held = {one for some in kinds for one in sorted({one.content for one in some} - {""})[-HELD:]}
    judged = []  # with pictures held out: chooses the weights
    for some in (stills, shown):
        judged += [one for one in some if one.people and one.fold == 1][::2]
    kept_out = held | {one.name for one in judged}
    photographs = {one.removesuffix(" (moving)") for one in held}
    kept_out |= {one.name for one in shown if one.people == LIKE_PEOPLE and photograph_of(one) in photographs}
    to_learn = [one for one in [*stills, *clips] if kept_out.isdisjoint((one.content, one.name))]
    learned = [one for one in to_learn if one.kinds != FROZEN]
    head = None if text_alone else teach_tower(model.eval(), processor, learned, out, max_steps=tower_steps, rate=7e-4)
    generator = np.random.default_rng(11)
    people, of_stills, of_clips, freezes, variants = (
        [one for one in to_learn if is_of(one)]
        for is_of in (
            lambda one: one.people,
            lambda one: one.content and not one.is_clip and not one.is_variant,
            lambda one: one.content and one.is_clip and one.kinds != FROZEN,
            lambda one: one.kinds == FROZEN,
            lambda one: one.is_variant,
        )
    )
    few_stills, few_clips, few_variants = (
        [some[k] for k in generator.choice(len(some), min(most_lessons, len(some)), replace=False)]
        for some in (of_stills, of_clips, variants)
    )
    if head is not None:
        hand_over(model, processor, head, few_stills[:80] + few_clips[:100] + people[::4] + few_variants[:60])
    if order_steps:
        put_in_order(model, processor, ladders_of(learned, crops), max_steps=order_steps)
    judged += [one for one in [*stills, *clips] if one.content in held][::4]
    rest = few_stills + few_clips + few_variants + freezes + people
    settings = ColdStart(
        name="coldstart",
        kind="coldstart",
        max_steps=text_steps,
        global_batch_size=16,
        learning_rate=6e-4,
        vision_learning_rate=0,
        cache_features=True,
        feature_noise=1.0,
        handed_channels=2 + len(CLASSES),
        answer_weight=1.5,
        rare_oversampling=4.0,  # of freezes, which are then named
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
    kept = [lesson(one, one.views) for one in judged]
    channels = [channels_of(model, processor, one.views) for one in rest]
    lessons = lessons_of(rest, channels, fit_reader(rest, channels))
    trained = cold_start(model, processor, lessons, kept, settings=settings, context=context)
    save_model(trained, processor, out / "model", processes=context.processes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without", type=Path, help="folder of photographs whose names no moving ladder is made of")
    parser.add_argument("--contents", type=int, default=191, help="photographs of the ladders of stills")
    parser.add_argument("--moving", type=int, default=100, help="photographs of the moving ladders")
    parser.add_argument("--enlarged", type=int, default=200, help="photographs made small, coded and enlarged")
    parser.add_argument("--tower-steps", type=int, default=900)
    parser.add_argument("--text-steps", type=int, default=600)
    parser.add_argument("--order-steps", type=int, default=0, help="of the tower, see embedded_order.py")
    parser.add_argument("--crops", type=int, default=0, help="files of 256 damaged crops in these steps")
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
            enlarged=given.enlarged,
            tower_steps=given.tower_steps,
            text_steps=given.text_steps,
            lessons=given.lessons,
            text_alone=given.text_alone,
            order_steps=given.order_steps,
            crops=given.crops,
            without=given.without,
            changes=given.set,
        )
