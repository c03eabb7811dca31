"""A cold start learns, moves only what it may, and leaves plain weights behind."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from accelerate import PartialState

from tests.support import samples
from vqa.errors import UsageError
from vqa.prompt import PROMPTS, PromptName, answer_text
from vqa.train.checkpoints import save_model
from vqa.train.clips.dataset import TrainingClip
from vqa.train.clips.ladder import rarity_weights
from vqa.train.context import StageContext
from vqa.train.hardware import HardwareConfig
from vqa.train.metrics_log import MetricsLog
from vqa.train.recipe import ColdStart
from vqa.train.scratch.model import make_model, make_processor, make_tokenizer
from vqa.train.scratch.warmup import HANDED
from vqa.train.sft.features import add_channel_noise, cache_features, channel_spread
from vqa.train.sft.trainer import cold_start

hf: Any = transformers


def say(opinion: float, _: np.random.Generator, prompt: PromptName) -> str:
    return answer_text("It looks fair.", [opinion] * PROMPTS[prompt].dimensions)


@pytest.fixture(scope="module")
def learned() -> list[TrainingClip]:
    found = []
    for place, opinion in enumerate((1.5, 3.0, 4.5)):
        pictures = [samples.smooth_picture(np.random.default_rng(place), height=56, width=84) for _ in range(2)]
        load = partial(samples.random_views, f"clip{place}", pictures)
        found.append(
            TrainingClip(
                clip_id=f"clip{place}", dataset="a", opinion=opinion, load=load, write_answer=partial(say, opinion)
            )
        )
    return found


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any]:
    tokenizer = make_tokenizer([answer_text("It looks fair.", [3.25])], vocabulary=300)
    processor = make_processor(tokenizer, min_pixels=784, max_pixels=12544)
    sizes = {"vision_width": 48, "vision_layers": 1, "text_width": 64, "text_layers": 1}
    return make_model(tokenizer, **sizes, seed=0), processor


def train(made: tuple[Any, Any], learned: list[TrainingClip], folder: Path, **more: Any) -> tuple[Any, list[float]]:
    """The trained model, and the loss of each step."""
    values = {
        "name": "cold",
        "kind": "coldstart",
        "max_steps": 8,
        "global_batch_size": 3,
        "learning_rate": 0.01,
        "save_steps": 99,
        "eval_steps": 1,
    }
    hardware = HardwareConfig(lora=more.pop("lora", None))
    settings = ColdStart(**values | {"max_new_tokens": 4} | more)
    folder.mkdir(exist_ok=True)
    context = StageContext(
        prompt="visualquality_r1",
        readout="answer",
        precision=torch.float32,
        seed=0,
        folder=folder,
        log=MetricsLog(folder / "log.jsonl", "cold"),
        processes=PartialState(cpu=True),
        hardware=hardware,
    )
    model = cold_start(copy.deepcopy(made[0]), made[1], learned, [], settings=settings, context=context)
    return model, [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def moved(before: Any, after: Any) -> tuple[bool, bool]:
    """Whether anything of the tower moved, and of the rest."""
    changed = {True: False, False: False}
    for (name, one), (_, other) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        changed["visual" in name] |= not torch.equal(one, other)
    return changed[True], changed[False]


@pytest.mark.parametrize(
    ("more", "tower", "text"),
    [
        ({}, True, True),
        ({"vision_learning_rate": 0.0}, False, True),
        ({"vision_learning_rate": 0.0, "cache_features": True, "per_device_train_batch_size": 1}, False, True),
        ({"text": "freeze"}, True, False),
        ({"lora": {"r": 4, "lora_alpha": 8}, "vision_learning_rate": 0.0}, False, True),
        ({"lora": {"r": 4, "lora_alpha": 8}}, True, True),
    ],
    ids=["full", "frozen-tower", "kept-features", "tower-alone", "lora", "lora-and-tower"],
)
def test_the_loss_falls_and_only_what_may_move_moves(
    made: tuple[Any, Any], learned: list[TrainingClip], tmp_path: Path, more: dict[str, Any], tower: bool, text: bool
) -> None:
    model, losses = train(made, learned, tmp_path, **more)
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert moved(made[0], model) == (tower, text)


@pytest.mark.parametrize("vision_rate", [None, 0.0], ids=["full", "frozen-tower"])
def test_recomputing_activations_changes_no_loss(
    made: tuple[Any, Any], learned: list[TrainingClip], tmp_path: Path, vision_rate: float | None
) -> None:
    plain, again = (
        train(
            made, learned, tmp_path / f"{recompute}", gradient_checkpointing=recompute, vision_learning_rate=vision_rate
        )[1]
        for recompute in (False, True)
    )
    assert again == pytest.approx(plain, rel=1e-4)
    assert plain[-1] < plain[0]


def test_lora_is_merged_into_weights_that_plain_transformers_load(
    made: tuple[Any, Any], learned: list[TrainingClip], tmp_path: Path
) -> None:
    model, _ = train(made, learned, tmp_path, lora={"r": 4, "target_modules": ["q_proj"]}, vision_learning_rate=0.0)
    save_model(model, made[1], tmp_path / "model", processes=PartialState(cpu=True))
    assert not list((tmp_path / "model").glob("adapter*"))
    plain, report = hf.AutoModelForImageTextToText.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    start = dict(made[0].named_parameters())
    changed = {name for name, one in plain.named_parameters() if not torch.equal(one, start[name])}
    assert changed == {"model.language_model.layers.0.self_attn.q_proj.weight"}


def test_links_in_the_place_of_a_draft_of_weights_are_not_written_through(
    made: tuple[Any, Any], learned: list[TrainingClip], tmp_path: Path
) -> None:
    victims = tmp_path / "victims"
    victims.mkdir()
    for name in ("config.json", "trainer_state.json"):
        (victims / name).write_text("precious")
    for draft in (tmp_path / "unfinished", tmp_path / "cold/unfinished/checkpoint-1"):
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.symlink_to(victims)
    model, _ = train(made, learned, tmp_path / "cold", max_steps=1, save_steps=1)
    save_model(model, made[1], tmp_path / "model", processes=PartialState(cpu=True))
    assert (tmp_path / "model/config.json").is_file()
    assert (tmp_path / "cold/checkpoint-1/trainer_state.json").is_file()
    assert {path.name: path.read_text() for path in victims.iterdir()} == {
        "config.json": "precious",
        "trainer_state.json": "precious",
    }


def test_what_cannot_be_learned_from_is_refused(
    made: tuple[Any, Any], learned: list[TrainingClip], tmp_path: Path
) -> None:
    bare = [TrainingClip(clip_id="b", dataset="a", opinion=3.0, load=learned[0].load)]
    with pytest.raises(UsageError, match=r"cold start: clip b has no reason to learn from\. Give `reasons`"):
        train(made, bare, tmp_path)
    with pytest.raises(
        UsageError,
        match=r"batch of 3 does not divide into batches of 2 on 1 processes\. Choose per_device_train_batch_size",
    ):
        train(made, learned, tmp_path, per_device_train_batch_size=2)
    with pytest.raises(UsageError, match=r"no layer of the text model is called nothing\. There are down_proj, "):
        train(made, learned, tmp_path, lora={"target_modules": ["nothing"]})

    def broken() -> Any:
        raise ValueError("torn")

    torn = TrainingClip(clip_id="c", dataset="a", opinion=3.0, load=broken, write_answer=learned[0].write_answer)
    with pytest.raises(UsageError, match=r"clip c of a: its pictures do not load \(torn\)\. Prepare the data again"):
        train(made, [torn], tmp_path)


def test_noise_moves_all_but_the_channels_handed_over_and_is_the_same_for_the_same_draw(
    made: tuple[Any, Any], learned: list[TrainingClip]
) -> None:
    looks = [look for one in cache_features(*made, learned, prompt="visualquality_r1").by_clip for look in one]
    spread = channel_spread(looks, handed=HANDED)
    assert (spread[:HANDED] == 0).all() and (spread[HANDED:] > 0).all()
    first, again, other = (add_channel_noise(looks[0], spread, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for plain, one, same, different in zip(
        looks[0].features, first.features, again.features, other.features, strict=True
    ):
        assert torch.equal(one, same) and not torch.equal(one, different)
        torch.testing.assert_close(one[:, :HANDED], plain[:, :HANDED])
        shift = one - plain
        torch.testing.assert_close(shift, shift[:1].expand_as(shift))  # alike at every place


def test_clips_of_rare_damage_are_drawn_more_often_up_to_the_limit() -> None:
    clips = [["x264"]] * 50 + [["vp9", "scaling"]] * 40 + [["noise"]] * 9 + [["banding"]]
    found = rarity_weights(clips, most=4)
    assert found.sum() == pytest.approx(1)
    compressed, blurred, noisy, banded = found[[0, 50, 90, 99]] / found[0]
    assert (compressed, blurred) == pytest.approx((1, 1.5))  # codecs are one kind: 90 to 40
    assert (noisy, banded) == pytest.approx((10**0.5, 4))  # 90 to 9; the root of 90 to 1 is above the limit
    assert rarity_weights([[], [], ["noise"]], most=4)[2] == pytest.approx(2**0.5 / (2 + 2**0.5))  # none is a kind too
