"""A recipe runs all its stages, none of them twice, and refuses what has changed under it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

from tests.support import clips
from tests.support.recipes import COLDSTART, GRPO, WARMUP, small, written
from vqa.errors import ModelError, UsageError
from vqa.model.card import settle
from vqa.prompt import reason
from vqa.train import generate
from vqa.train.grpo.config import OBJECTIVES
from vqa.train.hardware import RENAMED_LORA, Lora
from vqa.train.recipe import KINDS, RENAMED, Recipe
from vqa.train.runner import run_recipe
from vqa.train.stage_record import begin_stage

pytestmark = pytest.mark.slow

hf: Any = transformers


def refused(call: Any, *parts: str, kind: type[Exception] = UsageError) -> None:
    """The call is refused in words that hold all the parts."""
    with pytest.raises(kind) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_all_stages_run_once_and_a_change_is_refused(ladder: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "a.yaml", tmp_path / "out"
    frozen = COLDSTART | {"vision_learning_rate": 0.0, "cache_features": True, "ema_decay": 0.9, "answer_weight": 3.0}
    other = {"prompt": "visualquality_r1"}
    again = WARMUP | {"name": "again"}
    values = small(WARMUP, again, frozen | other, GRPO | {"max_steps": 1, "reward": "visualquality_r1"} | other)
    model = run_recipe(written(file, values), data=[ladder], out=out)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(names(model))
    assert len({(model / name).stat().st_mode for name in names(model)}) == 1  # whoever reads one file can read all
    scored, _ = settle(str(model), {})  # as `vqa score --model out/model` asks it
    assert (scored.source, scored.views) == (str(model), settle(str(values["card"]), {})[0].views)
    assert scored.prompt == "visualquality_r1" and not scored.trust_remote_code
    own = model / "vqa.yaml"
    own.write_text(own.read_text() + "trust_remote_code: true\nsource: elsewhere/model\n")
    assert settle(str(model), {})[0] == scored  # a folder cannot ask for more than how it is asked

    lines = (out / "log.jsonl").read_text().splitlines()
    assert {json.loads(line)["stage"] for line in lines} == {"warmup", "again", "coldstart", "grpo"}
    one, other = ((out / name / "crops-train.npy").read_bytes() for name in ("warmup", "again"))
    assert one != other  # the second warm-up sees other squares
    assert "training_args.bin" not in names(out / "grpo" / "model")

    assert run_recipe(written(file, values), data=[ladder], out=out) == model
    assert (out / "log.jsonl").read_text().splitlines() == lines  # nothing ran again

    changed = written(file, values, "stages.coldstart.learning_rate=0.5")
    refused(
        lambda: run_recipe(changed, data=[ladder], out=out),
        "coldstart: this stage is finished",
        "learning_rate is 0.5, was 0.001",
    )
    changed = written(file, values, "seed=7")
    refused(
        lambda: run_recipe(changed, data=[ladder], out=out), "warmup", "seed is 7, was 0", "another --out, or delete"
    )
    table = pq.read_table(ladder / "ladder.parquet")
    (tmp_path / "fewer").mkdir()
    pq.write_table(table.slice(0, 5), tmp_path / "fewer" / "ladder.parquet")
    refused(
        lambda: run_recipe(written(file, values), data=[tmp_path / "fewer"], out=out), "clips is 3 clips", "was 4 clips"
    )


def test_a_warm_up_learns_from_all_ladders(ladder: Path, tmp_path: Path) -> None:
    wider = tmp_path / "wider"
    shutil.copytree(ladder, wider)
    rows = pq.read_table(ladder / "ladder.parquet").to_pylist()
    rows = [row | {"clip_id": f"wider-{row['clip_id']}", "split": "train"} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), wider / "ladder.parquet")
    for row in rows:  # other pictures, to tell whose they are
        clips.write_video(wider / row["uri"], width=160, height=96, frames=10, seed=9)
    recipe = written(tmp_path / "a.yaml", small(WARMUP))
    run_recipe(recipe, data=[ladder], out=tmp_path / "one")
    run_recipe(recipe, data=[ladder, wider], out=tmp_path / "both")
    one, both = (np.load(tmp_path / out / "warmup" / "crops-train.npy") for out in ("one", "both"))
    assert (len(one), len(both)) == (4, 10)
    assert (both[:4] == one).all()
    assert (both[6:] != one).any((1, 2, 3, 4)).all()


def test_stages_hand_texts_on(ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"kind": "write", "plain": True, "max_new_tokens": 6}
    again = {"question": "Say it anew: {reason}", "rewrites": ["told"]}
    values = small(
        COLDSTART | {"max_steps": 1},
        texts | {"name": "told"},
        texts | {"name": "retold"} | again,
        COLDSTART | {"name": "tower", "max_steps": 1, "start": "coldstart", "reasons": ["retold"], "text": "freeze"},
        GRPO | {"max_steps": 1, "objectives": [{"kind": "caption_kl", "weight": 0.1}], "captions": "told"},
        validation_clips=0,
    )
    recipe, out = written(tmp_path / "a.yaml", values), tmp_path / "out"
    asked: list[tuple[str, str | None]] = []
    encode = generate.encode_question

    def noting(processor: Any, clip: Any, *, prompt: Any, question: str | None = None) -> Any:
        asked.append((clip.clip_id, question))
        return encode(processor, clip, prompt=prompt, question=question)

    monkeypatch.setattr(generate, "encode_question", noting)
    run_recipe(recipe, data=[ladder], out=out, until="retold")
    assert not (out / "tower").exists()
    told = [json.loads(line) for line in (out / "told" / "reasons.jsonl").read_text().splitlines()]
    assert [row["id"] for row in told] == ["2", "3", "4", "5"]  # those to learn from
    texts_ = {row["id"]: reason(row["conversations"][-1]["value"]) for row in told}
    assert all(texts_.values()) and len(set(texts_.values())) > 1
    anew = [(clip, f"Say it anew: {text}") for clip, text in texts_.items()]  # what is rewritten is what was told
    assert asked == [(clip, None) for clip in texts_] + anew
    run_recipe(recipe, data=[ladder], out=out)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if "answers" in line] == ["told", "retold"]
    assert any(line.get("caption_kl", 0) > 0 for line in lines if line["stage"] == "grpo")
    refused(
        lambda: run_recipe(recipe, data=[ladder], out=out, until="sft"), "--until sft: no stage of that name", "retold"
    )

    values["stages"][1]["plain"] = False  # noise holds no numbers
    silent = written(tmp_path / "b.yaml", values)
    refused(lambda: run_recipe(silent, data=[ladder], out=tmp_path / "b"), "stage told: none of 4 clips got an answer")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            small(COLDSTART | {"lr": 1}),
            ["stage 'coldstart'", "unknown key 'lr'", "learning_rate, vision_learning_rate"],
        ),
        (small(COLDSTART, sed=1), ["unknown key 'sed'", "seed"]),
        (small(COLDSTART, seed=-1), ["seed = -1", "greater than or equal to 0"]),
        (small(GRPO | {"seed": 2**32}), ["stage 'grpo'", "seed = 4294967296", "less than 4294967296"]),
        (small(COLDSTART | {"kind": "sft"}), ["kind is 'sft'", "warmup, coldstart, grpo, write"]),
        (small(COLDSTART | {"num_train_epochs": 1}), ["give one of max_steps and num_train_epochs"]),
        (small(COLDSTART | {"reasons": ["coldstart"]}), ["'coldstart' is no earlier stage of kind write"]),
        (small(COLDSTART | {"start": "coldstart"}), ["'coldstart' is no earlier stage that trains"]),
        (small(COLDSTART | {"cache_features": True}), ["frozen tower; set vision_learning_rate: 0"]),
        (
            small(COLDSTART | {"vision_learning_rate": 0.1}, hardware={"vision_tower": "frozen"}),
            ["stage coldstart: vision_learning_rate is 0.1 and hardware.vision_tower frozen"],
        ),
        (small(COLDSTART | {"text": "freeze"}, hardware={"lora": {}}), ["text: freeze needs hardware", "no lora"]),
        (
            small(COLDSTART | {"ema_decay": 0.9}, hardware={"sharding": "fsdp2"}),
            ["ema_decay is 0.9, which needs"],
        ),
        (small(GRPO, hardware={"offload": "parameters"}), ["offload: parameters needs shards; set sharding"]),
        (small(GRPO, hardware={"master_weights": False}), ["set precision: bfloat16 too"]),
        (small(GRPO, hardware={"shards": 2}), ["unknown key 'hardware.shards'", "sharding, offload, master_weights"]),
        (small(WARMUP, start="embedded"), ["one of start", "and model"]),
        (small(WARMUP, start="embedded", model=None), ["sizes under model, and start: embedded at the"]),
        (small(GRPO | {"num_generations": 1}), ["stage 'grpo'", "num_generations = 1", "greater than or equal to 2"]),
        (small(COLDSTART | {"sav_steps": 1}), ["did you mean 'save_steps'?"]),
        (small({"kind": "grpo", "max_steps": 1}), ["stage None", "key 'name' is missing"]),
        (small(GRPO, GRPO | {"max_steps": 7}), ["stages need different names, these are grpo, grpo"]),
        ({"start": "embedded"}, ["no stages"]),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path, values: dict[str, Any], parts: list[str]) -> None:
    refused(lambda: written(tmp_path / "a.yaml", values), *parts)


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        (stage, old, new)
        for stage in (WARMUP, COLDSTART, GRPO, {"name": "told", "kind": "write"})
        for old, new in RENAMED[KINDS[stage["kind"]].__name__].items()
    ],
)
def test_an_old_key_is_refused_with_the_new_name(tmp_path: Path, stage: dict[str, Any], old: str, new: str) -> None:
    refused(lambda: written(tmp_path / "a.yaml", small(stage | {old: 1})), f"key {old!r} is now {new}", stage["name"])
    fields = KINDS[stage["kind"]].model_fields | Recipe.model_fields
    assert old not in KINDS[stage["kind"]].model_fields and all(
        name in fields for name in re.findall(r"'(\w+)'|^(\w+):", new)[0] if name
    )
    assert all(kind in OBJECTIVES for kind in re.findall(r"kind: (\w+)", new))


@pytest.mark.parametrize(("old", "new"), RENAMED_LORA.items())
def test_an_old_key_of_lora_is_refused_with_pefts_name(tmp_path: Path, old: str, new: str) -> None:
    values = small(COLDSTART, hardware={"lora": {old: 1}})
    refused(lambda: written(tmp_path / "a.yaml", values), f"key {old!r} is now {new}")
    assert new.strip("'") in Lora.model_fields


def test_a_frozen_tower_of_the_hardware_is_frozen_in_every_stage(tmp_path: Path) -> None:
    recipe = written(tmp_path / "a.yaml", small(COLDSTART, GRPO, hardware={"vision_tower": "frozen", "lora": {"r": 4}}))
    assert [stage.vision_learning_rate for stage in recipe.stages] == [0, 0]  # type: ignore[union-attr]
    assert recipe.hardware.taught == {"vision_tower": "frozen", "lora": {"r": 4}}


def test_a_folder_trained_with_the_old_keys_is_refused(tmp_path: Path) -> None:
    settings = {"kind": "coldstart", "rate": 0.001}
    (tmp_path / "stage.json").write_text(json.dumps({"settings": settings, "is_finished": True}))
    refused(
        lambda: begin_stage(tmp_path, settings),
        "by another version of vqa",
        "stage.json has version 1, wanted 3",
        "--out",
    )


def test_an_assignment_to_no_stage_is_refused(tmp_path: Path) -> None:
    words = "--set stages.gpo: no stage of that name in", "There are coldstart, grpo"
    refused(lambda: written(tmp_path / "a.yaml", small(COLDSTART, GRPO), "stages.gpo.max_steps=3"), *words)


def manifest(path: Path, **columns: list[Any]) -> Path:
    """A ladder as it should not be, by what its columns hold."""
    path.mkdir()
    count = len(next(iter(columns.values())))
    row = {"clip_id": [f"clip{i}" for i in range(count)], "uri": ["gone.mp4"] * count, "split": ["train"] * count}
    row |= {"distortions": [[]] * count, "severities": [[]] * count, "seed": list(range(count))}
    pq.write_table(pa.table(row | columns), path / "ladder.parquet")
    return path


def test_data_that_cannot_teach_is_refused(tmp_path: Path) -> None:
    recipe = written(tmp_path / "a.yaml", small(COLDSTART))

    def given(name: str, **columns: list[Any]) -> Any:
        return lambda: run_recipe(recipe, data=[manifest(tmp_path / name, **columns)], out=tmp_path / "out")

    refused(given("none", opinion=[None, None]), "none/ladder.parquet: 2 rows have no opinion on 1-5", "'clip0'")
    refused(given("high", opinion=[3.0, 91.2]), "rows have no opinion on 1-5, e.g. 'clip1'", "Make the ladder again")
    refused(
        given("one", opinion=[3.0]),
        "has one clip, clip0, and nothing to compare it with. Add clips, or remove the data set",
    )
    refused(given("flat", opinion=[3.0, 3.0]), "2 train clips without two different opinions. Add clips")
    refused(lambda: run_recipe(recipe, data=[tmp_path / "nowhere"], out=tmp_path / "out"), "nowhere", "vqa prepare")
    (tmp_path / "labels.csv").write_text("name,mos\na.mp4,3\n")
    listed = "labels.csv: not a manifest (.parquet). Make one of a label file by `vqa data import`"
    refused(lambda: run_recipe(recipe, data=[tmp_path / "labels.csv"], out=tmp_path / "out"), listed)
    koniq = written(tmp_path / "b.yaml", small(COLDSTART | {"datasets": ["koniq"]}))
    known = manifest(tmp_path / "known", opinion=[3.0, 4.0], dataset=["spaq"] * 2)
    refused(
        lambda: run_recipe(koniq, data=[known], out=tmp_path / "out"), "no clips of koniq in", "which hold spaq. Give"
    )
    refused(lambda: run_recipe(recipe, out=tmp_path / "out"), "stage coldstart: no data. Give --data FOLDER")
    batch = written(tmp_path / "a.yaml", small(WARMUP | {"per_device_train_batch_size": 3}))
    assert batch  # whether it is a multiple is for the stage to say
    assert not (tmp_path / "out" / "coldstart" / "model").exists()


def test_a_checkpoint_of_another_architecture_is_refused(ladder: Path, tmp_path: Path) -> None:
    config = hf.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=1, n_positions=32)
    hf.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    values = small(COLDSTART, model=None, start=str(tmp_path / "gpt2"))
    recipe = written(tmp_path / "a.yaml", values)
    words = "gpt2 does not take pictures and write text. A scorer must do both."
    refused(lambda: run_recipe(recipe, data=[ladder], out=tmp_path / "out"), words, kind=ModelError)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_good_weights(ladder: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path / "a.yaml", small(COLDSTART | {"max_steps": 9, "learning_rate": 1e30}))
    with pytest.raises(ModelError) as caught:
        run_recipe(recipe, data=[ladder], out=tmp_path / "out")
    found = re.fullmatch(
        r"cold start: the (loss|gradient's norm) is (nan|inf) at step \d\. Lower `learning_rate` and resume from "
        r"(.*) \(as `start`, in another --out\)\.",
        str(caught.value),
    )
    assert found
    assert hf.AutoModelForImageTextToText.from_pretrained(found[3])
