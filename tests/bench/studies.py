"""Do the papers' claims hold on a small model? `python -m tests.bench.studies configs/studies/NAME.yaml [--table]`.

A study trains the embedded model, by one start and the same steps of GRPO, in some variants that differ in one thing
each, on pictures with people's opinions (configs/people). Fold 0 of each set judges (`--judge validation`: fold 1, by
which settings were chosen), the other folds teach. One start a seed: a cold start that teaches short answers, with its
opinions from the teaching folds, the tower frozen.

A JSON line in OUT/NAME.jsonl for each variant and seed, so that a killed study goes on where it was. The table: mean
SRCC over seeds and the difference to the first variant, each with a 95 % interval over seeds and contents (both drawn
with replacement, the same draws for both variants); standard deviation of the scores, and their error.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from accelerate import PartialState
from numpy.typing import NDArray
from pydantic import Field

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.people import PEOPLE
from vqa.config import Strict, Values, load_config, merge_values
from vqa.data.people import Opinion, find_people_set, read_opinions
from vqa.data.view_cache import CLIPS, PICTURES, pack
from vqa.files import replacing
from vqa.metrics import srcc
from vqa.model.card import settle
from vqa.prompt import PROMPTS
from vqa.train.checkpoints import load_for_generation
from vqa.train.clips.dataset import list_training_clips, load_clips
from vqa.train.recipe import Recipe, load_recipe
from vqa.train.runner import run_recipe
from vqa.train.validation import score_clips
from vqa.types import Clip
from vqa.views import ViewsConfig, look

Numbers = NDArray[np.float64]
Labels = Literal["given", "minmax", "zscore"]
SPLITS = {0: "test", 1: "validation"}  # by fold; others teach
VIEWS = {
    "temporal": "uniform",
    "keyframes": 1,
    "global_kind": "frames",
    "global_pixels": 112,
    "spatial": "grid",
    "local_pictures": 4,
    "crop_pixels": 112,
}
REASON = "Seen."  # short answers, and a short question, make short steps
QUESTION = "How good?"
DRAWS = 1000


class Variant(Strict):
    """What one variant of a study does after the start."""

    labels: Labels = Field("minmax", description="how each set's opinions become 1-5; see `mapped`")
    stages: list[dict[str, object]] = Field([{}], description="of a recipe, each over the study's `stage`")


class Study(Strict):
    """Schema of configs/studies/*.yaml."""

    claim: str = Field(description="what the paper says, with its source")
    sets: list[str] = Field(description="of configs/people, trained on")
    judged: list[str] = Field([], description="of configs/people, beside `sets`")
    start: dict[str, object] = Field(description="keys of the cold start")
    stage: dict[str, object] = Field(description="keys of a stage of GRPO that the variants share")
    variants: dict[str, Variant] = Field(min_length=2, description="the first is what the paper does")


def mapped(values: Numbers, *, low: float, high: float, how: Labels) -> Numbers:
    """Opinions of one set on 1-5.

    given: the ends of the scale that people were shown are 1 and 5. minmax: the set's lowest and highest opinion are,
    as in the data files of VisualQuality-R1 and PreResQ-R1. zscore: 3 and one point for each standard deviation,
    clipped.
    """
    if how == "zscore":
        return np.clip(3 + (values - values.mean()) / values.std(), 1, 5)
    if how == "minmax":
        low, high = values.min(), values.max()
    return np.asarray(1 + 4 * (values - low) / (high - low))


def prepare(name: str, how: Labels, out: Path) -> Path:
    """A folder as `vqa prepare` makes it, of one set: its pictures once, its opinions in each mapping once."""
    people = find_people_set(name)
    opinions = read_opinions(people, PEOPLE)
    pictures, folder = out / name / "pictures", out / name / how
    if not pictures.is_dir():
        views = ViewsConfig(**VIEWS, shown_size=people.shown_size)
        pictures.parent.mkdir(parents=True, exist_ok=True)
        with replacing(pictures) as draft:
            draft.mkdir()
            with pq.ParquetWriter(draft / "part-000001.parquet", PICTURES) as file:
                for one in opinions:
                    clip = Clip(clip_id=name_of(name, one), uri=str(one.path))
                    packed = pack(look(clip, views))
                    row = {"run_key": clip.clip_id} | {
                        key: getattr(packed, key) for key in PICTURES.names if key != "run_key"
                    }
                    file.write_table(pa.Table.from_pylist([row], PICTURES))
    if not (folder / "clips.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        labels = mapped(np.array([one.opinion for one in opinions]), low=people.low, high=people.high, how=how)
        rows = [
            {
                "clip_id": name_of(name, one),
                "uri": str(one.path),
                "dataset": name,
                "split": SPLITS.get(one.fold, "train"),
                "content_id": one.group,
                "opinion": label,
                "reason": REASON,
                "status": "ok",
                "run_key": name_of(name, one),
                "part": "part-000001.parquet",
                "row": place,
            }
            for place, (one, label) in enumerate(zip(opinions, labels.tolist(), strict=True))
        ]
        (folder / "pictures").symlink_to(pictures.resolve(), target_is_directory=True)
        pq.write_table(pa.Table.from_pylist(rows, CLIPS), folder / "clips.parquet")
    return folder


def name_of(name: str, one: Opinion) -> str:
    """A picture's id: folders of PCUID hold files of one name."""
    return f"{name}:{one.path.parent.name}/{one.path.name}"


def recipe_of(*, start: str, stages: Sequence[Values], seed: int, path: Path) -> Recipe:
    """Write a recipe of these stages to `path`, and read it as users' are."""
    whole = {
        "start": start,
        "card": "embedded",
        "prompt": "preresq_video",
        "views": VIEWS,
        "validation_clips": 0,
        "threads": 1,
        "seed": seed,
        "export": "float32",
        "stages": list(stages),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return load_recipe(path)


def stages_of(study: Study, variant: Variant) -> list[Values]:
    """A variant's stages as a recipe's: those of GRPO over the study's own, others as they are."""
    made = []
    for number, own in enumerate(variant.stages):
        kind = own.get("kind", "grpo")
        shared = {"kind": "grpo", "save_steps": 10_000, "eval_steps": 10_000} | study.stage if kind == "grpo" else {}
        made.append(merge_values({"name": f"stage{number}"} | shared, own))
    return made


def judge(model: Path, folders: Sequence[Path], split: str) -> Values:
    """By clip of the split: the model's score (None: not parsed), the opinion, and what was pictured."""
    card, generation = settle(str(model), {})
    loaded, processor = load_for_generation(card.model_copy(update={"dtype": "float32"}), processes=PartialState())
    found: Values = {}
    for folder in folders:
        listed = [clip for clip in list_training_clips([str(folder)]) if clip.split == split]
        clips = load_clips(listed, views=ViewsConfig(**VIEWS), seed=0)
        scores = score_clips(
            loaded, processor, clips, prompt="preresq_video", readout=generation.readout, max_new_tokens=48
        )
        for clip, score in zip(listed, scores, strict=True):
            found[clip.clip_id] = [score, clip.opinion, clip.content_id]
    return found


def run(study: Study, name: str, *, seeds: int, out: Path, split: str) -> None:
    """Run what is missing of a study."""
    path, kept = out / f"{name}.jsonl", out / "sets"
    rows = results(path)
    if rows:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))  # without a torn last line
    done = {(row["variant"], row["seed"]) for row in rows}
    used = list(dict.fromkeys([*study.sets, *study.judged]))
    folders = [prepare(one, "minmax", kept) for one in used]

    def keep(variant: str, seed: int, judged: Values, seconds: float = 0.0, rewards: Sequence[float] = ()) -> None:
        row = {"variant": variant, "seed": seed, "seconds": round(seconds), "judged": judged, "reward": list(rewards)}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        found = {one: round(agreement(of_set(judged, one)), 3) for one in used}
        print(f"{time.strftime('%H:%M:%S')} {name}: {variant}, seed {seed}: {found} {seconds:.0f} s", flush=True)

    for seed in range(seeds):
        begun = start_of(study, seed, out)
        if ("before", seed) not in done:
            before = begun / f"{split}-{'-'.join(used)}.json"
            if not before.is_file():
                before.write_text(json.dumps(judge(begun / "model", folders, split)))
            keep("before", seed, json.loads(before.read_text()))
        for variant, own in study.variants.items():
            if (variant, seed) in done:
                continue
            folder, started = out / "runs" / f"{name}-{variant.replace(' ', '_')}-{seed}", time.process_time()
            stages, where = stages_of(study, own), folder.with_suffix(".yaml")
            recipe = recipe_of(start=str(begun / "model"), stages=stages, seed=seed, path=where)
            run_recipe(recipe, out=folder, data=[prepare(one, own.labels, kept) for one in study.sets])
            seconds = time.process_time() - started
            lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
            rewards = [line["reward"] for line in lines if "reward" in line]
            keep(variant, seed, judge(folder / "model", folders, split), seconds, rewards)
            shutil.rmtree(folder)


def start_of(study: Study, seed: int, out: Path) -> Path:
    """The folder of the cold start of a seed, run where it is not there yet; studies with the same start share it."""
    digest = hashlib.blake2b(repr((study.sets, study.start)).encode(), digest_size=4).hexdigest()
    begun = out / "starts" / f"{digest}-{seed}"
    if not (begun / "model").is_dir():
        cold = {"name": "coldstart", "kind": "coldstart"} | study.start
        recipe = recipe_of(start="embedded", stages=[cold], seed=seed, path=begun.with_suffix(".yaml"))
        run_recipe(recipe, out=begun, data=[prepare(one, "minmax", out / "sets") for one in study.sets])
    return begun


def results(path: Path) -> list[Values]:
    """The lines of a study that are whole."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


Judged = tuple[float | None, float, str]  # score, opinion, what is pictured


def agreement(values: Sequence[Judged]) -> float:
    """SRCC of scores and opinions; an answer that was not parsed counts as the mean of the others."""
    scores = np.array([np.nan if score is None else score for score, _, _ in values], dtype=float)
    if np.isnan(scores).all() or np.ptp(scores[~np.isnan(scores)]) == 0:
        return 0.0
    return srcc(np.nan_to_num(scores, nan=float(np.nanmean(scores))), [opinion for _, opinion, _ in values])


def of_set(found: Values, name: str) -> list[Judged]:
    """The judged pictures of one set."""
    return [value for key, value in found.items() if key.startswith(f"{name}:")]


def drawn(generator: np.random.Generator, own: Mapping[int, Values], other: Mapping[int, Values], name: str) -> Numbers:
    """Mean SRCC of two variants on one resample of seeds and contents of a set, [2]."""
    seeds = sorted(set(own) & set(other))
    contents = sorted({content for _, _, content in of_set(own[seeds[0]], name)})
    some = generator.choice(contents, len(contents))
    found = []
    for seed in generator.choice(seeds, len(seeds)):
        values = []
        for variant in (own, other):
            groups: dict[str, list[Judged]] = {}
            for one in of_set(variant[seed], name):
                groups.setdefault(one[2], []).append(one)
            values.append(agreement([one for content in some for one in groups[content]]))
        found.append(values)
    return np.mean(found, axis=0)


def table(study: Study, name: str, *, seeds: int, out: Path) -> None:
    """Print a study's results as a table of Markdown."""
    by: dict[str, dict[int, Values]] = {}
    for row in results(out / f"{name}.jsonl"):
        by.setdefault(row["variant"], {})[row["seed"]] = row["judged"]
    first = next(iter(study.variants))
    print(f"{name}: {study.claim}")
    print("| variant | judged on | seeds | SRCC | interval | beside the first | interval | spread | RMSE |")
    print("|" + " --- |" * 9)
    for one in dict.fromkeys([*study.sets, *study.judged]):
        for variant in ["before", *study.variants]:
            own = by.get(variant, {})
            if not own:
                print(f"| {variant} | {one} | 0 of {seeds} | | | | | | |")
                continue
            base = by.get(first, {})
            shared = sorted(set(own) & set(base))
            generator = np.random.default_rng(0)
            other = base if shared else own
            draws = np.array([drawn(generator, own, other, one) for _ in range(DRAWS)])
            cells = [f"{mean(agreement(of_set(own[seed], one)) for seed in shared or own):.3f}", interval(draws[:, 0])]
            more = ["", ""]
            if shared and variant != first:
                apart = [agreement(of_set(own[s], one)) - agreement(of_set(base[s], one)) for s in shared]
                more = [f"{mean(apart):+.3f}", interval(draws[:, 0] - draws[:, 1], sign="+")]
            known = [[(s, o) for s, o, _ in of_set(own[seed], one) if s is not None] for seed in shared or own]
            spread = mean(float(np.std([s for s, _ in pairs])) if pairs else 0.0 for pairs in known)
            error = mean(
                float(np.sqrt(np.mean([(s - o) ** 2 for s, o in pairs]))) if pairs else np.nan for pairs in known
            )
            cells += [*more, f"{spread:.2f}", f"{error:.2f}"]
            print(f"| {variant} | {one} | {len(shared or own)} of {seeds} | {' | '.join(cells)} |")


def interval(values: Numbers, sign: str = "") -> str:
    """The middle 95 %."""
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def main() -> None:
    """Run what is missing of the studies, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", type=Path, nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/studies"))
    parser.add_argument("--judge", choices=("test", "validation"), default="test")
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    asked = parser.parse_args()
    if not PEOPLE.is_dir() or not asked.studies:
        print(f"{PEOPLE} is not here: nothing studied" if asked.studies else "no study given: see configs/studies")
        return
    torch.set_num_threads(1)
    PROMPTS["preresq_video"] = replace(PROMPTS["preresq_video"], question=QUESTION)
    out = asked.out if asked.judge == "test" else asked.out / "validation"
    for path in asked.studies:
        study = load_config(path, Study)
        if not asked.table:
            run(study, path.stem, seeds=asked.seeds, out=out, split=asked.judge)
        table(study, path.stem, seeds=asked.seeds, out=out)


if __name__ == "__main__":
    main()
