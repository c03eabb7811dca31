"""Students whose encoder is the vision tower of a transformers model, all with drawn weights."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
import yaml
from safetensors.torch import load_file, save_file

from tests.light.conftest import VIEWS
from tests.references.make_checkpoints import make
from tests.support import clips
from vqa.config import load_config
from vqa.data.people import PeopleSet, read_opinions
from vqa.errors import ModelError, UsageError
from vqa.light.card import CARD, WEIGHTS, StudentCard
from vqa.light.config import DistillConfig, RegressionConfig
from vqa.light.distill import distill
from vqa.light.embedding import ENCODED, PLAIN, SIZE, group_sizes, large
from vqa.light.material import Embeddings
from vqa.light.regression import standardisation
from vqa.light.student import Student
from vqa.light.tower import read_tower
from vqa.metrics.correlation import srcc
from vqa.types import Clip, Score, Views
from vqa.views import ViewsConfig, look

pytestmark = [pytest.mark.slow, pytest.mark.model]

LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = LAYERS | {"intermediate_size": 32, "vocab_size": 99, "max_position_embeddings": 8, "eos_token_id": 1}
VISION = LAYERS | {"intermediate_size": 32, "image_size": 32, "patch_size": 8}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def clip(folder: Path) -> None:
    hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=VISION)).save_pretrained(folder)
    hf.CLIPImageProcessor(**CROPPED).save_pretrained(folder)


def siglip(folder: Path) -> None:
    hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=VISION)).save_pretrained(folder)
    hf.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def dinov2(folder: Path) -> None:
    hf.Dinov2Model(hf.Dinov2Config(**LAYERS, image_size=32, patch_size=8)).save_pretrained(folder)
    hf.BitImageProcessor(**CROPPED).save_pretrained(folder)


def convnext(folder: Path) -> None:
    hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])).save_pretrained(folder)
    hf.ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], object]] = {
    "clip": clip,
    "siglip": siglip,
    "dinov2": dinov2,
    "convnext": convnext,
    "qwen2_5_vl": lambda folder: make("qwen2_5_vl", folder),
    "qwen3_vl": lambda folder: make("qwen3_vl", folder),
    "qwen3_5": lambda folder: make("qwen3_5", folder),
    "internvl": lambda folder: make("internvl", folder),
    "smolvlm": lambda folder: make("smolvlm", folder),
}


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a model with drawn weights; `embedded` is that which vqa carries."""
    root = tmp_path_factory.mktemp("towers")

    @cache
    def made(name: str) -> str:
        if name == "embedded":
            return name
        torch.manual_seed(0)
        MAKERS[name](root / name)
        return str(root / name)

    return made


def tried(opinions: Path, encoder: str, *changes: str) -> DistillConfig:
    """The config with this encoder, which sees two pictures of a still: the whole and one crop."""
    few = ["ladders=null", "embedding.crops=1", "embedding.still_grid=1", "embedding.wholes=1"]
    return load_config(opinions / "config.yaml", DistillConfig, [f"encoder={encoder}", *few, *changes])


def views_of(path: Path, **settings: object) -> Views:
    return look(Clip(clip_id=path.name, uri=str(path)), ViewsConfig.model_validate(VIEWS | settings))


def test_an_attention_that_is_not_installed_is_not_asked_for(towers: Callable[[str], str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(towers("clip"), tmp_path / "clip"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_attn_implementation": "flash_attention_2"}))
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    encoder, plain = (read_tower(place)[0] for place in (str(folder), towers("clip")))
    np.testing.assert_array_equal(encoder.encode([picture]), plain.encode([picture]))


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "qwen2_5_vl", "embedded"])
def test_a_student_of_any_tower_is_trained_saved_and_scores_the_same(
    opinions: Path, towers: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    config = tried(opinions, towers(name))
    student = distill(config, lambda _: None)
    student.save(tmp_path / "student")
    assert student.card.encoder == "tower"
    assert student.card.trained_on[0].startswith(f"encoder: {name} (blake2b:")
    assert not list(Path(towers(name)).glob("*.bin")) and {one.suffix for one in (tmp_path / "student").iterdir()} == {
        ".yaml",
        ".safetensors",
    }
    again = Student.load(tmp_path / "student")
    stills = sorted((opinions / "people/tiny").glob("[01]*.png"))
    film = clips.write_video(tmp_path / "a.mp4", frames=8)
    shown = [views_of(path) for path in (*stills, film)]
    scores = [one.score for one in student.score(shown) if isinstance(one, Score)]
    assert len(scores) == len(shown)
    assert (
        scores == [one.score for view in reversed(shown) for one in again.score([view]) if isinstance(one, Score)][::-1]
    )
    assert srcc(np.array(scores[:-1]), np.tile([4.5, 3.5, 2.5, 1.5], 2)) > 0.9


@pytest.mark.parametrize("name", ["clip", "qwen2_5_vl"])
def test_features_are_moments_of_the_towers_own_hidden_states(towers: Callable[[str], str], name: str) -> None:
    encoder, _, _ = read_tower(towers(name))
    assert encoder.config.depths == [0, 1, 2]
    picture = clips.picture(0, width=120, height=90)
    (found,) = encoder.encode([picture])
    whole = hf.AutoModel.from_pretrained(towers(name)).eval()
    given = hf.AutoImageProcessor.from_pretrained(towers(name))(images=[picture], return_tensors="pt")
    with torch.inference_mode():
        if name == "clip":
            states = whole.vision_model(**given, output_hidden_states=True).hidden_states
        else:
            pixels, grid = given["pixel_values"], given["image_grid_thw"]
            states = whole.visual(pixels, grid_thw=grid, output_hidden_states=True).hidden_states
    rows = [one.flatten(0, -2).numpy() for one in states]
    wanted = np.concatenate([part for one in rows for part in (one.mean(0), one.std(0))])
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.01)  # weights are rounded to float16
    together = encoder.encode([picture, clips.picture(1, width=64, height=64)])
    np.testing.assert_array_equal(together[0], found)


@pytest.mark.parametrize(
    ("name", "channels"),  # of all hidden states that are taken
    [("clip", 48), ("convnext", 48), ("qwen3_vl", 96), ("qwen3_5", 96), ("internvl", 96), ("smolvlm", 96)],
)
def test_pictures_of_any_size_have_features(towers: Callable[[str], str], name: str, channels: int) -> None:
    encoder, _, words = read_tower(towers(name))
    assert words.endswith(f"{type(encoder.tower).__name__}; licence: not stated here, see where it comes from")
    assert encoder.size == 2 * channels
    for height, width in ((1, 1), (3, 200), (1, 900), (150, 2)):
        found = encoder.encode([np.full((height, width, 3), 90, np.uint8)])
        assert found.shape == (1, encoder.size) and np.isfinite(found).all()
    sharp, soft = (encoder.encode([clips.picture(0, width=96, height=96, noise=one)]) for one in (40.0, 0.0))
    assert not np.allclose(sharp, soft, rtol=1e-3)


def test_a_picture_three_pixels_high_is_no_picture_of_three_channels(towers: Callable[[str], str]) -> None:
    encoder, _, _ = read_tower(towers("clip"))
    red, thin = (np.full((height, 200, 3), (250, 20, 90), np.uint8) for height in (200, 3))
    np.testing.assert_allclose(encoder.encode([thin]), encoder.encode([red]), atol=1e-4)


def test_the_statistics_stay_and_what_is_kept_is_kept_by_encoder(opinions: Path, towers: Callable[[str], str]) -> None:
    plain, other = Embeddings(tried(opinions, towers("clip"))), Embeddings(tried(opinions, towers("siglip")))
    rows = read_opinions(load_config(opinions / "people.yaml", PeopleSet), opinions / "people")[:3]
    found, others = plain.of_opinions(rows, print), other.of_opinions(rows, print)
    assert found.shape == (3, PLAIN + 3 * 96)
    np.testing.assert_array_equal(found[:, 192 : large(found.shape[1]).start], others[:, 192 : -96 - 22])
    assert not np.array_equal(found[:, large(found.shape[1])], others[:, large(found.shape[1])])
    assert not np.array_equal(found[:, :192], others[:, :192])


def test_another_encoders_features_together_count_as_much() -> None:
    """Of 5 features a picture, each counts as ENCODED / 5 of EfficientNet-Lite0's."""
    rows = np.random.default_rng(0).standard_normal((400, PLAIN + 15))
    config = RegressionConfig()
    centre, scale = standardisation([rows], config)
    taken = (((rows - centre) * scale)[:, :10] ** 2).sum(1).mean()
    assert taken == pytest.approx(2 * ENCODED, rel=1e-3)
    assert sum(group_sizes(PLAIN + 15).values()) == PLAIN + 15 and sum(group_sizes(SIZE).values()) == SIZE


def test_an_id_of_the_hub_is_read_from_its_cache_offline(
    towers: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, cached = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub/models--some--clip"
    shutil.copytree(towers("clip"), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder, revision, words = read_tower("some/clip")
    assert revision == commit and words.startswith(f"some/clip ({commit}), CLIPVisionModel")
    picture = [clips.picture(0, width=64, height=64)]
    np.testing.assert_array_equal(encoder.encode(picture), read_tower(towers("clip"))[0].encode(picture))
    with pytest.raises(UsageError, match=r"encoder some/other: .* get online or give a folder\. Give a vision model"):
        read_tower("some/other")


def text_only(folder: Path) -> None:
    hf.BertModel(hf.BertConfig(**LAYERS, intermediate_size=32, vocab_size=99)).save_pretrained(folder)


def pickled(folder: Path) -> None:
    dinov2(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def other_code(folder: Path) -> None:
    folder.mkdir()
    settings = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")


def without_processor(folder: Path) -> None:
    dinov2(folder)
    (folder / "preprocessor_config.json").unlink()


def cut_short(folder: Path) -> None:
    dinov2(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: one for name, one in tensors.items() if "layer.1" not in name}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, "no card of that name, folder or hub id"),
        (text_only, "bert has no vision tower"),
        (pickled, "pytorch_model.bin is a pickle, which can run code; save it as safetensors"),
        (other_code, "needs code of its own, which is never run"),
        (without_processor, "processor"),
        (cut_short, r"weights encoder\.layer\.1\.\S+ are not in its files"),
    ],
)
def test_what_is_no_encoder_is_refused_in_one_line_with_the_way_out(
    opinions: Path, tmp_path: Path, damage: Callable[[Path], None] | None, said: str
) -> None:
    folder = tmp_path / "encoder"
    if damage:
        damage(folder)
    with pytest.raises(UsageError, match=said) as caught:
        distill(tried(opinions, str(folder), f"cache={tmp_path / 'cache'}"), lambda _: None)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"encoder {folder}: ") and message.endswith("or null for EfficientNet-Lite0.")
    assert not (folder / "ran").exists() and not (tmp_path / "cache").exists()


def test_a_damaged_student_of_a_tower_is_refused(opinions: Path, towers: Callable[[str], str], tmp_path: Path) -> None:
    whole = tmp_path / "student"
    distill(tried(opinions, towers("dinov2")), lambda _: None).save(whole)
    card, tensors = yaml.safe_load((whole / CARD).read_text()), load_file(whole / WEIGHTS)

    def refused(said: str) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            Student.load(tmp_path / "other")
        assert "\n" not in str(caught.value)
        shutil.rmtree(tmp_path / "other")

    def changed(changes: dict[str, object]) -> None:
        shutil.copytree(whole, tmp_path / "other")
        found = StudentCard.model_validate(
            card | {"tower": card["tower"] | changes} if changes else card | {"tower": None}
        )
        (tmp_path / "other" / CARD).write_text(yaml.safe_dump(found.model_dump(mode="json")))

    changed({})
    refused("the card has no tower")
    changed({"processor": {"image_processor_type": "AutoModel"}})
    refused("AutoModel is no image processor")
    changed({"depths": [1, 9]})
    refused("cannot be used")
    shutil.copytree(whole, tmp_path / "other")
    fewer = {name: one for name, one in tensors.items() if "layer.1.norm1" not in name}
    save_file(fewer, tmp_path / "other" / WEIGHTS)
    refused("2 weights are missing")


def test_the_steps_of_rali_and_the_command_take_a_tower(
    opinions: Path, towers: Callable[[str], str], tmp_path: Path, vqa: Callable[..., tuple[int, str, str]]
) -> None:
    """The command; basis vectors; ladders, looked at by the encoder too."""
    changes = [f"encoder={towers('dinov2')}", "embedding.still_grid=1", "rali.align=null", "rali.tuning.steps=20"]
    changes += ["rali.basis.components=8", "rali.basis.buckets=2", "rali.basis.vectors=4"]
    sets = [part for one in changes for part in ("--set", one)]
    code, _, heard = vqa("distill", opinions / "config.yaml", "--out", tmp_path / "student", *sets)
    assert code == 0, heard
    student = Student.load(tmp_path / "student")
    assert student.card.trained_on[2] == "ladders: 10 pictures of 2 contents, in order of severity"
    (score,) = student.score([views_of(opinions / "people/tiny/00.png")])
    assert isinstance(score, Score) and (score.reason or "").startswith("nearest basis: ")
    code, _, heard = vqa("distill", opinions / "config.yaml", "--out", tmp_path / "no", "--set", "encoder=nobody")
    assert code == 2 and "encoder nobody" in heard and "Traceback" not in heard
