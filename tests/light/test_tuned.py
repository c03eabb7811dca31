"""An encoder tuned to VMAF of damaged crops."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tests.support.detailed import detailed
from vqa import machine
from vqa.data.synthetic.picture_ladder import SUFFIXES, read_picture
from vqa.errors import UsageError
from vqa.light import tuned
from vqa.light.config import DistillConfig, TunedConfig
from vqa.light.encoder import EfficientNetLite0
from vqa.light.material import Embeddings, published_encoder
from vqa.light.tuned import tuned_encoder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 540 pixels with detail at all sizes, and one that is too small."""
    folder = tmp_path_factory.mktemp("contents")
    for k in range(4):
        Image.fromarray(detailed(k, 540)).save(folder / f"{k}.png")
    Image.new("RGB", (64, 64)).save(folder / "small.png")
    return folder


def settings(contents: Path, **changes: object) -> TunedConfig:
    given = {"sources": [contents], "crops": 12, "chunks": 1, "judged": 1, "steps": 8, "batch": 4}
    return TunedConfig.model_validate(given | changes)


def tune(config: TunedConfig, cache: Path, said: list[str]) -> EfficientNetLite0:
    return tuned_encoder(published_encoder(), config, cache, read=read_picture, suffixes=SUFFIXES, say=said.append)


def test_what_vmaf_says_of_crops_is_learnt_and_kept(contents: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tuned, "_WARM_UP", 1)
    errors: list[float] = []
    loss = tuned._loss

    def noted(*given: object) -> torch.Tensor:
        found = loss(*given)  # type: ignore[arg-type]
        errors.append(found.item())
        return found

    monkeypatch.setattr(tuned, "_loss", noted)
    said: list[str] = []
    network = tune(settings(contents, steps=18), tmp_path, said)
    assert np.mean(errors[-3:]) < 0.6 * np.mean(errors[:3]), "the same 12 crops again and again"
    assert said[0].startswith("encoder: step 0 of 18, other contents' crops: R2 of VMAF ")
    assert not network.training and not any(one.requires_grad for one in network.parameters())
    again = tune(settings(contents, steps=18), tmp_path, said_again := [])
    assert said_again == []
    whole, was = (
        tune(settings(contents, steps=18, share=1), tmp_path, []).state_dict(),
        published_encoder().state_dict(),
    )
    for name, one in network.state_dict().items():
        assert torch.allclose(one, (whole[name] + was[name]) / 2, atol=1e-6), "half of the way, as set"
    picture = torch.full((1, 3, 64, 64), 90.0)
    for one, other, was in zip(network(picture), again(picture), published_encoder().eval()(picture), strict=True):
        assert torch.equal(one, other)
        assert not torch.allclose(one, was)


def test_a_tuning_that_was_killed_goes_on_to_the_same_end(contents: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tuned, "_SAVED", 3)
    config = settings(contents, steps=6)
    whole = tune(config, tmp_path / "whole", [])

    class KilledError(Exception):
        pass

    class Until(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if "step 3" in line:
                raise KilledError

    with pytest.raises(KilledError):
        tune(config, tmp_path / "cut", Until())
    after = tune(config, tmp_path / "cut", said := [])
    assert said[0].startswith("encoder: step 3 of 6")
    for name, one in after.state_dict().items():
        assert torch.allclose(one, whole.state_dict()[name], atol=1e-6), name


def test_each_crop_is_seen_once_a_turn_in_an_order_of_its_own(contents: Path, tmp_path: Path) -> None:
    config = settings(contents, chunks=3, shuffled=2)
    learnt = tuned._Crops(tmp_path, [contents / "0.png", contents / "1.png"], 3, config=config, read=read_picture)
    for number in learnt.missing:
        learnt.make(number)
    steps = list(itertools.islice(tuned._batches(learnt, config, start=0), 12))
    drawn = sorted(crop.tobytes() for number in range(3) for crop in learnt[number].crops)
    assert sorted(crop.tobytes() for crops, _ in steps[:9] for crop in crops) == drawn
    assert steps[9][0][0, :, ::-1].tobytes() in drawn, "the next turn has them mirrored"
    place = {crop.tobytes(): number for number in range(3) for crop in learnt[number].crops}
    assert any(len({place[crop.tobytes()] for crop in crops}) == 2 for crops, _ in steps[:9]), "of two chunks"
    for (crops, targets), (again, told) in zip(steps[7:], tuned._batches(learnt, config, start=7), strict=False):
        assert np.array_equal(crops, again) and np.array_equal(targets, told)


def test_a_student_sees_with_the_tuned_encoder(contents: Path, tmp_path: Path) -> None:
    given = {"folder": contents, "cache": tmp_path, "ladders": {"sources": [contents]}}
    plain = Embeddings(DistillConfig.model_validate(given))
    other = Embeddings(
        DistillConfig.model_validate(
            given | {"tuned": settings(contents, steps=2, chunks=machine.cores()).model_dump()}
        )
    )
    assert other.origin == f"{plain.origin}, tuned by VMAF and colour of {12 * machine.cores()} damaged crops"
    picture = np.asarray(Image.open(contents / "0.png"))
    assert not np.allclose(plain.of_picture(picture), other.of_picture(picture), rtol=0.01)
    assert plain._which != other._which, "what is kept on disk must not be taken for that of another encoder"


def test_contents_that_do_not_suffice_are_refused(contents: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"small\.png and 0 more: none is a picture of 504 pixels"):
        tuned.draw_chunk([contents / "small.png"], 4, seed=0, number=0)
    (tmp_path / "wrong").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "wrong" / name).write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"tuned\.sources, contents that are learnt: \S+\.png and 0 more: none is a"):
        tune(settings(tmp_path / "wrong"), tmp_path, [])
    with pytest.raises(UsageError, match=r"tuned\.sources: 1 picture\. Give at least two"):
        tune(settings(contents / "0.png"), tmp_path, [])
    with pytest.raises(ValidationError, match="batch = 13: more than the 12 crops of a chunk"):
        settings(contents, batch=13)
    with pytest.raises(ValidationError, match="EfficientNet-Lite0 alone is tuned"):
        DistillConfig.model_validate(
            {"folder": ".", "encoder": "embedded", "ladders": {"sources": ["."]}, "tuned": {"sources": ["."]}}
        )


def test_an_encoder_looks_with_the_weights_that_it_has_now() -> None:
    """Without gradients convolutions run on packed copies of the weights, which a step of training makes stale."""
    network = published_encoder().eval()
    pictures = torch.full((1, 3, 64, 64), 90.0)
    pictures[..., 20:40] = 200.0
    with torch.no_grad():
        before = network(pictures)[-1]
    learning = network(pictures)[-1]
    assert torch.allclose(learning, before, atol=1e-3)
    learning.mean().backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    with torch.no_grad():
        after = network(pictures)[-1]
    assert torch.allclose(after, network(pictures)[-1], atol=1e-3)
    assert not torch.allclose(after, before, atol=1e-3)
