"""Every key of a recipe does something: another value trains other weights, or the same by design, or is refused.

A new key fails until it is entered here. The runs, a second or two each, are of `make test-all`.
"""

import functools
import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.support import clips
from tests.support.recipes import COLDSTART, GRPO, SIZES, WARMUP, written
from vqa.errors import UsageError
from vqa.prompt import PROMPTS
from vqa.train.grpo.reward import RankAndScore
from vqa.train.hardware import HardwareConfig, Lora
from vqa.train.recipe import KINDS, Recipe
from vqa.train.runner import run_recipe
from vqa.train.scratch.model import make_model, make_processor, make_tokenizer

OTHER, SAME = "other", "same"  # weights, or texts; any other string: words of the refusal
Case = tuple[Any, dict[str, Any], str]  # the key's other value, what else both runs have, outcome


def other(value: Any, **both: Any) -> Case:
    return value, both, OTHER


def same(value: Any, **both: Any) -> Case:
    return value, both, SAME


def refused(value: Any, words: str, **both: Any) -> Case:
    return value, both, words


FROZEN = {"vision_learning_rate": 0.0}
CACHED = FROZEN | {"cache_features": True}
ADDED = {"lora": {"r": 2, "lora_alpha": 4}}
LOOSE = {"allow_silent": ["format"]}
TWICE = {"num_iterations": 2, "save_steps": 2}
NO_SET = refused(["elsewhere"], "no clips of elsewhere")
COMMON = {"name": same("another"), "data": other(["{folder}/fewer"]), "datasets": NO_SET}
# `kind` is what chooses the schema, `stages` are the other schemas.
CASES: dict[str, dict[str, Case]] = {
    "recipe": {
        "card": other("qwen2.5-vl-7b-instruct", views={"global_pixels": 64, "crop_pixels": 56}),
        "start": other("embedded"),
        "model": other(SIZES | {"text_layers": 2}, start=None, stages="warmup", model=SIZES, validation_clips=2),
        "prompt": other("visualquality_r1"),
        "views": other({"local_pictures": 0}),
        "max_pixels": other(56 * 56, views={"global_pixels": 112}),
        "data": other(["{folder}/fewer"]),
        "stand_in_opinions": refused(False, "stand-in opinions"),
        "views_per_clip": other(3),
        "validation_clips": other(2),  # they choose among the weights
        "seed": other(1),
        "threads": same(2),
        "precision": other("bfloat16"),
        "export": other("bfloat16"),
    },
    "hardware": {
        "auto": same(True),  # without GPUs
        "sharding": refused("fsdp2", "needs a group of processes"),
        "offload": same("optimizer"),
        "master_weights": refused(False, "set precision: bfloat16 too"),
        "optimizer_bits": other(8) if find_spec("torchao") else refused(8, "torchao, which is not installed"),
        "vision_tower": other("frozen"),
        "lora": other(ADDED["lora"]),
    },
    "lora": {
        "r": other(3),
        "lora_alpha": other(8),
        "lora_dropout": other(0.5),
        "target_modules": other(["q_proj"]),
    },
    "warmup": {
        "name": same("another"),
        "start": other("embedded"),
        "data": other(["{folder}/fewer"]),
        "datasets": NO_SET,
        "max_steps": other(3),
        "per_device_train_batch_size": other(8),
        "learning_rate": other(1e-2),
        "frames": other(3),
        "crops": other(3),
    },
    "coldstart": COMMON
    | {
        "start": other("embedded"),
        "prompt": other("visualquality_r1"),
        "reasons": other(["{folder}/reasons.jsonl"]),
        "max_steps": other(2),
        "num_train_epochs": refused(2.0, "give one of max_steps and num_train_epochs"),
        "global_batch_size": other(4),
        "per_device_train_batch_size": same(1),
        "learning_rate": other(1e-2),
        "vision_learning_rate": other(1e-2),
        "text": other("freeze"),
        "answer_weight": other(5.0),
        "weight_decay": other(0.9),
        "ema_decay": other(0.9),
        "save_steps": same(2),
        "eval_steps": same(2),  # nothing is held out to choose by
        "cache_features": other(True, **FROZEN),
        "feature_noise": other(0.5, **CACHED),
        "handed_channels": other(32, **CACHED, feature_noise=0.5),
        "rare_oversampling": other(4.0, **CACHED, max_steps=6),
        "max_new_tokens": same(3),
        "gradient_checkpointing": same(True),
        "dataloader_num_workers": same(1),
    },
    "grpo": COMMON
    | {
        "start": other("embedded"),
        "prompt": other("visualquality_r1", **LOOSE),
        "questions": other(["How good?"]),
        "reward": other("visualquality_r1", **LOOSE),
        "reward_stage": other(2),
        "reward_mode": other("strict"),
        "reward_weights": other({"spread": 0.0}),
        "allow_silent": refused(["nothing"], "allow_silent names nothing"),
        "max_steps": other(2),
        "clips_per_step": other(2),
        "num_generations": other(4, per_device_train_batch_size=36),
        "per_device_train_batch_size": same(3),
        "num_mini_batches": other(3, per_device_train_batch_size=3, save_steps=3),
        "learning_rate": other(1e-2),
        "lr_scheduler_type": other("constant"),
        "lr_scheduler_kwargs": other(
            {"min_lr_rate": 0.9},
            lr_scheduler_type="cosine_with_min_lr",
            **{"lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        ),
        "warmup_steps": other(2),
        "optim": other("sgd"),
        "adam_beta1": other(0.5),
        "adam_beta2": other(0.9),
        "weight_decay": other(0.9),
        "max_grad_norm": other(1e-4),
        "vision_learning_rate": other(0.0),
        "beta": other(0.9),
        "epsilon": other(1e-7, **TWICE),
        "epsilon_high": other(1e-7, **TWICE),
        "num_iterations": other(2, save_steps=2),
        "temperature": other(2.0),
        "top_p": other(0.3),
        "max_completion_length": other(4),
        "top_entropy_quantile": other(0.3),
        "objectives": other([]),
        "captions": refused("{folder}/reasons.jsonl", "captions and objectives that need them"),
        "save_steps": same(3),
        "eval_steps": same(1),
        "patience": same(1),
        "check_first_batch": same(True),
        "shared_prefill": other(False, objectives=[]),
        "gradient_checkpointing": same(True),
        "vllm_mode": refused("server", "vllm_mode is server"),
        "vllm_server_base_url": refused("http://here:1", "needs vllm_mode: server"),
        "vllm_gpu_memory_utilization": refused(0.5, "needs vllm_mode: colocate"),
        "vllm_enable_sleep_mode": refused(True, "needs vllm_mode: colocate"),
        "seed": other(1),
    },
    "write": {
        "name": other("another"),  # answers are drawn by it
        "start": other("{folder}/start", plain=True, max_new_tokens=9),
        "data": other(["{folder}/fewer"]),
        "datasets": NO_SET,
        "prompt": other("visualquality_r1", plain=True),
        "question": other("How good?", plain=True),
        "rewrites": refused(["grpo"], "rewrites and a question with {reason} go together"),
        "num_return_sequences": other(3),
        "max_error": other(1.0, num_return_sequences=2),
        "plain": other(True, num_return_sequences=3),
        "temperature": other(0.1),
        "max_new_tokens": refused(6, "none of 4 clips got an answer"),
    },
}
SCHEMAS: dict[str, Any] = {"recipe": Recipe, "hardware": HardwareConfig, "lora": Lora} | KINDS
STAGES: dict[str, dict[str, Any]] = {
    "warmup": WARMUP,
    "coldstart": COLDSTART | {"max_steps": 3, "save_steps": 3},
    "grpo": GRPO | {"clips_per_step": 3, "num_generations": 3, "per_device_train_batch_size": 9, "save_steps": 99},
    "write": {"name": "write", "kind": "write", "start": "embedded", "max_new_tokens": 160},
}


def test_every_key_has_a_case() -> None:
    apart = {"recipe": {"hardware", "stages"}}
    for name, schema in SCHEMAS.items():
        assert set(CASES[name]) == set(schema.model_fields) - apart.get(name, {"kind"}), name


class Runs:
    """Runs of recipes on a ladder, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of = functools.cache(self._of)

    def values(self, name: str, changed: dict[str, Any]) -> dict[str, Any]:
        """A recipe in which a schema's keys are changed."""
        kind = name if name in STAGES else "grpo" if name in ("hardware", "lora") else "coldstart"
        shared: dict[str, Any] = {"card": "embedded", "threads": 1, "export": "float32", "validation_clips": 0}
        shared |= {
            "stand_in_opinions": True,
            "views": {"local_pictures": 2, "keyframes": 4, "global_pixels": 64, "crop_pixels": 56},
        }
        shared |= {"model": SIZES, "validation_clips": 2} if kind == "warmup" else {"start": f"{self.folder}/start"}
        stage = dict(STAGES[kind])
        if name == "recipe":
            kind = changed.pop("stages", kind)
            shared |= changed
            stage = dict(STAGES[kind])
        elif name in ("hardware", "lora"):
            shared["hardware"] = {"lora": ADDED["lora"] | changed} if name == "lora" else changed
        else:
            stage |= changed
        return shared | {"stages": [stage]}

    def ended(self, name: str, changed: dict[str, Any]) -> dict[str, torch.Tensor] | bytes:
        """Weights of OUT/model, or the texts of a stage that writes."""
        text = json.dumps(self.values(name, dict(changed)), sort_keys=True).replace("{folder}", str(self.folder))
        return self.of(text)

    def _of(self, text: str) -> dict[str, torch.Tensor] | bytes:
        values = json.loads(text)
        out = self.folder / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        listed = values.get("data") or values["stages"][0].get("data")
        recipe = written(out.with_suffix(".yaml"), values)
        model = run_recipe(recipe, data=[] if listed else [self.folder / "ladder"], out=out)
        (stage,) = recipe.stages
        return (
            (out / stage.name / "reasons.jsonl").read_bytes()
            if model == out
            else load_file(model / "model.safetensors")
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, ladder: Path) -> Iterator[Runs]:
    """The folder holds a model of noise, a ladder of clips that differ, one with a clip less, a file of reasons."""
    folder = tmp_path_factory.mktemp("keys")
    tokenizer = make_tokenizer([one.question for one in PROMPTS.values()], vocabulary=300)
    sizes = {name: value for name, value in SIZES.items() if name != "vocabulary"}
    make_model(tokenizer, **sizes, seed=0).save_pretrained(folder / "start")
    make_processor(tokenizer, min_pixels=28 * 28, max_pixels=112 * 112).save_pretrained(folder / "start")
    rows = pq.read_table(ladder / "ladder.parquet").to_pylist()
    for seed, row in enumerate(rows):
        row["uri"] = str(clips.write_video(folder / row["uri"], width=160, height=96, frames=10, seed=seed))
    for name, some in (("ladder", rows), ("fewer", rows[:5])):
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pylist(some), folder / name / "ladder.parquet")
    said = {"from": "gpt", "value": "<think>Seen.</think><answer>3.00\n4.00</answer>"}
    lines = [{"id": str(one), "dataset_name": "ladder", "conversations": [said]} for one in range(2, 6)]
    (folder / "reasons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def read_noise(self: RankAndScore, texts: Any) -> Any:
        """Numbers for words without sense, so that rewards differ."""
        digests = [[hashlib.blake2b(str(text).encode(), digest_size=2).digest() for text in group] for group in texts]
        read = 1 + 4 * np.array([[list(one) for one in group] for group in digests]) / 255
        return read[..., : self._dimensions]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RankAndScore, "_read", read_noise)
        patch.setattr("vqa.train.scratch.warmup.SAMPLE", 16)
        yield Runs(folder)


def apart(one: Any, two: Any) -> float:
    """Distance of two runs' weights as a share of their size; 1 for different texts and shapes."""
    if isinstance(one, bytes) or isinstance(two, bytes) or set(one) != set(two):
        return float(one != two) if isinstance(one, bytes) else 1.0
    if any(one[key].shape != two[key].shape or one[key].dtype != two[key].dtype for key in one):
        return 1.0
    size = sum(float(value.float().square().sum()) for value in one.values()) ** 0.5
    return sum(float((one[key].float() - two[key].float()).square().sum()) for key in one) ** 0.5 / size


@pytest.mark.full
@pytest.mark.parametrize(("name", "key"), [(name, key) for name, cases in CASES.items() for key in cases])
def test_another_value_trains_other_weights_or_is_refused(runs: Runs, name: str, key: str) -> None:
    value, both, outcome = CASES[name][key]
    changed = both | {key: value}  # over what `both` has of this key
    if outcome not in (OTHER, SAME):
        with pytest.raises(UsageError, match=outcome):
            runs.ended(name, changed)
        return
    distance = apart(runs.ended(name, both), runs.ended(name, changed))
    assert distance > 1e-7 if outcome == OTHER else distance < 1e-5, distance
