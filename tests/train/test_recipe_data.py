"""A recipe on what `vqa prepare` and `vqa data import` leave: learns with the clips gone, names what is wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.prepare import PrepareRequest, prepare
from tests.support import clips
from tests.support.recipes import COLDSTART, GRPO, WARMUP, small, written
from vqa.data.manifest import SCHEMA, Manifest, RatingScale, write_manifest
from vqa.errors import UsageError
from vqa.model.card import settle
from vqa.train.dry_run import estimate
from vqa.train.runner import run_recipe
from vqa.views import ViewsConfig

VIEWS = {"keyframes": 4, "global_pixels": 64, "local_pictures": 1, "crop_pixels": 56}


def manifest(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> Path:
    """Rows by clip id, unchecked: what they do not say is a train clip of one set with opinions on 1-5."""
    whole = [
        {"clip_id": name, "uri": str(path.parent / f"{name}.mp4"), "dataset": "set", "content_id": name}
        | {"kind": "video", "split": "train", "mos_raw": row.get("mos"), **row}
        for name, row in rows.items()
    ]
    reasons = pa.array([one.get("reason") for one in whole], pa.string())
    table = pa.Table.from_pylist(whole, schema=SCHEMA).append_column("reason", reasons)
    scales = {one["dataset"]: RatingScale(low=1, high=5) for one in whole}
    write_manifest(path, Manifest(table=table, scales=scales))
    return path


def test_a_recipe_learns_from_a_prepared_folder_alone(tmp_path: Path) -> None:
    """Two data sets of people's opinions with reasons; a clip that cannot be read; then the clips are deleted."""
    rows = {
        f"{name}{number}": {
            "dataset": name,
            "mos": 1.5 + number,
            "split": "val" if number == 3 else "train",
            "reason": "Soft, but steady.",
        }
        for name in ("a", "b")
        for number in range(4)
    }
    for seed, name in enumerate(rows):
        clips.write_video(tmp_path / f"{name}.mp4", width=160, height=96, frames=8, seed=seed)
    clips.write_text(tmp_path / "b0.mp4")
    out, file, made = tmp_path / "prepared", tmp_path / "a.yaml", tmp_path / "run"
    values = small(COLDSTART | {"max_steps": 1}, GRPO | {"max_steps": 2, "eval_steps": 1}, views=VIEWS)
    recipe = written(file, values)
    listed = manifest(tmp_path / "m.parquet", rows)
    request = PrepareRequest(manifest=listed, out=out, recipe=file, max_failed="1", json_summary=True)
    assert prepare(request) == 0
    for video in tmp_path.glob("*.mp4"):
        video.unlink()

    model = run_recipe(recipe, data=[out], out=made)
    assert (model / "model.safetensors").is_file()
    card, _ = settle(str(model), {})
    assert {name: card.views[name] for name in VIEWS} == VIEWS and card.views["temporal"] == "uniform"  # its card's
    assert not VIEWS.items() & settle("embedded", {})[0].views.items()
    facts = json.loads((made / "grpo" / "stage.json").read_text())["settings"]
    assert (facts["clips"].split(" (")[0], facts["held_out"].split(" (")[0]) == ("5 clips", "2 clips")
    lines = [json.loads(line) for line in (made / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out/parsed" in line] == [0, 1, 2]
    assert all(line["rollout/clips_encoded"] == 2 for line in lines if "rollout/clips_encoded" in line)

    for part in (out / "pictures").iterdir():
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(
        UsageError, match=r"clip \w\d: its pictures in .*parquet, row \d, cannot be read .*`vqa prepare` again"
    ):
        run_recipe(recipe, data=[out], out=tmp_path / "torn")
    assert not (tmp_path / "torn" / "coldstart" / "model").exists()


def test_pictures_of_other_views_are_refused_by_name_and_value(tmp_path: Path) -> None:
    """A folder prepared without `--for`: the embedded card's views, for a recipe of another model."""
    (tmp_path / "run.json").write_text(json.dumps({"sampling": {"views": EMBEDDED.identity(), "seed": 0}}))
    values = small(GRPO, card="qwen2.5-vl-7b-instruct", start="embedded", model=None, views={"global_pixels": 512})
    words = (
        r"prepared with views.temporal = uniform, where the recipe has keyframe; views.global_pixels = 224, where the "
        r"recipe has 512; .*`vqa prepare MANIFEST --for RECIPE`.* --set views.temporal=uniform --set views"
    )
    recipe = written(tmp_path / "a.yaml", values)
    with pytest.raises(UsageError, match=words):
        run_recipe(recipe, data=[tmp_path], out=tmp_path / "out")
    with pytest.raises(UsageError, match=words):
        list(estimate(recipe, data=[tmp_path]))
    request = PrepareRequest(manifest=tmp_path, out=tmp_path, recipe=tmp_path / "a.yaml", model="embedded")
    with pytest.raises(UsageError, match="--model embedded: the recipe of --for has a model of its own"):
        prepare(request)
    wrong = written(tmp_path / "a.yaml", values | {"views": {"keyfames": 3}})
    with pytest.raises(UsageError, match=r"the recipe, views: unknown key 'keyfames'.*keyframes"):
        run_recipe(wrong, data=[tmp_path], out=tmp_path / "out")


EMBEDDED = ViewsConfig(**settle("embedded", {})[0].views)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            {"a": {"mos": 2.0, "split": None}, "b": {"mos": 3.0}},
            r"data set 'set' in .*m.parquet: 1 of 2 clips have no split, such as a; they may be its test clips. Import",
        ),
        (
            {name: {"mos": 2.0, "split": None, "dataset": "spaq"} for name in "ab"},
            r"'spaq' in .*: 2 of 2 clips have no split.* --split-list q-align\): "
            r"q-align: train 8897, test 2224 \(Q-Fut",
        ),
        ({"a": {"mos": 2.0}, "b": {"mos": None}}, r"m.parquet: 1 rows have no mos_raw. Every row needs one"),
        ({"a": {"mos": 2.0}, "b": {"mos": 91.2}}, r"m.parquet, row 2 \(b\): .*mos = 91.2 do not fit scale 1-5"),
        (
            {"a": {"mos": 2.0}},
            r"data set 'set' in .*m.parquet has one clip, a, and nothing to compare it with. Add clips",
        ),
        (
            {"a": {"mos": 2.0}, "b": {"mos": 3.0}, "c": {"mos": 3.0, "dataset": "other"}},
            r"data set 'other' in .* has one clip, c",
        ),
        (
            {"a": {"mos": 2.0}, "b": {"mos": 3.0}},
            r"clip a of set: its pictures do not load \(.*a.mp4.*remove the clip",
        ),
    ],
)
def test_a_manifest_that_cannot_teach_is_refused(tmp_path: Path, rows: dict[str, Any], words: str) -> None:
    listed, values = manifest(tmp_path / "m.parquet", rows), small(GRPO, validation_clips=0)
    with pytest.raises(UsageError, match=words):
        run_recipe(written(tmp_path / "a.yaml", values), data=[listed], out=tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_data_that_is_not_there_is_refused_with_what_makes_it(tmp_path: Path) -> None:
    recipe = written(tmp_path / "a.yaml", small(GRPO, validation_clips=0))
    (tmp_path / "labels.csv").write_text("path,mos\n")
    for name, words in (
        ("none.parquet", r"none\.parquet: no such file\. Make a manifest of a label file by `vqa data import`"),
        ("none", r"none: no such folder\. Make it by `vqa data synth` \(a ladder\) or `vqa prepare`"),
        ("labels.csv", r"labels\.csv: not a manifest \(\.parquet\)\. Make one of a label file by `vqa data import`"),
    ):
        with pytest.raises(UsageError, match=words):
            run_recipe(recipe, data=[tmp_path / name], out=tmp_path / "out")


def test_a_prepared_folder_without_opinions_is_refused(tmp_path: Path) -> None:
    """By hand: `vqa prepare` takes them from a manifest, which has them."""
    from vqa.data.view_cache import CLIPS

    for opinion, words in (
        (None, "clip b has no opinion. Import the data set"),
        (91.2, "the opinion 91.2, not on 1-5. Import"),
    ):
        row = {"dataset": "set", "uri": "x.mp4", "part": "part-000001.parquet", "row": 0, "status": "ok"}
        rows = [row | {"clip_id": "a", "opinion": 2.0}, row | {"clip_id": "b", "opinion": opinion}]
        pq.write_table(pa.Table.from_pylist(rows, schema=CLIPS), tmp_path / "clips.parquet")
        with pytest.raises(UsageError, match=words):
            run_recipe(written(tmp_path / "a.yaml", small(GRPO)), data=[tmp_path], out=tmp_path / "out")


def test_a_warm_up_takes_ladders_alone(ladder: Path, tmp_path: Path) -> None:
    listed = manifest(tmp_path / "m.parquet", {"a": {"mos": 2.0}, "b": {"mos": 3.0}})
    recipe = written(tmp_path / "a.yaml", small(WARMUP))
    with pytest.raises(UsageError, match=rf"stage warmup: a warm-up needs ladders .*, not {listed}"):
        run_recipe(recipe, data=[ladder, listed], out=tmp_path / "out")
