"""Files laid out as released RALI's, and the score that its own steps give."""

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from tests.support import clips
from vqa.errors import ModelError
from vqa.light.card import CALIBRATION, LINK, WIDTH, student_digest
from vqa.light.released import convert, convert_weights, read_pca_mean
from vqa.light.student import Student
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look

PCA = Path(__file__).parents[1] / "references/rali_pca.pkl"  # 16 features, 6 components; make_rali_pca.py
PROCESSOR = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_convert_rgb": True}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP and a scorer with drawn weights."""
    folder = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower | {"vocab_size": 99, "max_position_embeddings": 8},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    clip = CLIPModel(config).eval()
    config.save_pretrained(folder / "best")
    kinds = {"image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor"}
    (folder / "best/preprocessor_config.json").write_text(json.dumps(PROCESSOR | kinds))
    scorer = {
        "pca_scale": -torch.rand(16) - 0.5,  # a learnt scale can be negative
        "pca_components": torch.linalg.qr(torch.randn(16, 16))[0][:6],
        "prototypes": torch.randn(10, 6),
        "proto_scores": torch.linspace(0.31, 0.69, 10),
        "logit_scale": torch.tensor(1 / 0.07),
    }
    state = {f"clip.{name}": tensor for name, tensor in clip.state_dict().items()}
    state |= {f"scorer.{name}": tensor for name, tensor in scorer.items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "ckpt.pt")
    shutil.copy(PCA, folder / "pca.pkl")
    return folder


def by_its_own_steps(released: Path, picture: Path) -> float:
    """The released inference, step by step (bytedance/Q-Insight, src/eval/demo_rali_score.py)."""
    state = torch.load(released / "ckpt.pt", weights_only=True)["state_dict"]
    clip = CLIPModel(CLIPConfig.from_pretrained(released / "best"))
    clip.load_state_dict({name[5:]: one for name, one in state.items() if name.startswith("clip.")})
    scale, components, prototypes, scores, logit_scale = (
        state[f"scorer.{name}"] for name in ("pca_scale", "pca_components", "prototypes", "proto_scores", "logit_scale")
    )
    mean = torch.from_numpy((np.random.default_rng(0).standard_normal((64, 16)) * np.arange(1, 17) + 0.5).mean(0))
    pixels = CLIPImageProcessorPil(**PROCESSOR)(images=[Image.open(picture)], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        pooled = clip.eval().vision_model(pixel_values=pixels).pooler_output
        features = clip.visual_projection(pooled)
        places = ((features - mean.float()) / scale.abs()) @ components.T
        cosines = torch.nn.functional.cosine_similarity(places[:, None], prototypes[None], dim=2)
        return float(torch.softmax(cosines * logit_scale, 1) @ scores)


def test_released_files_score_as_by_their_own_steps(released: Path, tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    for name in (WIDTH, CALIBRATION, LINK):  # of a student that was there before
        (tmp_path / "student" / name).write_text("{}")
    convert(released, tmp_path / "student", low=0.0, high=1.0)
    student = Student.load(tmp_path / "student")
    found = []
    for n in range(3):
        picture = tmp_path / f"{n}.png"
        clips.write_image(picture, width=90 + 20 * n, height=70, seed=n)
        views = look(Clip(clip_id="a", uri=str(picture)), ViewsConfig.model_validate(student.card.views))
        (score,) = student.score([views])
        assert isinstance(score, Score)
        assert score.score == pytest.approx(1 + 4 * by_its_own_steps(released, picture), abs=1e-4)
        found.append(score.score)
    assert len(set(found)) == 3
    assert score.reason is None  # released vectors have no words
    digest = student_digest(tmp_path / "student")
    student.save(tmp_path / "again")
    assert student_digest(tmp_path / "again") == digest


class Harmful:
    def __init__(self, harm: Path) -> None:
        self.harm = harm

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.harm,))


def test_a_pickle_that_names_anything_else_is_refused_and_runs_nothing(released: Path, tmp_path: Path) -> None:
    folder, harm = tmp_path / "released", tmp_path / "harm"
    shutil.copytree(released, folder)
    (folder / "pca.pkl").write_bytes(pickle.dumps(Harmful(harm)))
    with pytest.raises(ModelError, match=r"pca\.pkl: no uncompressed joblib pickle of a PCA .*it names pathlib"):
        convert(folder, tmp_path / "student", low=0.0, high=1.0)
    assert not harm.exists()
    assert not any((tmp_path / "student").iterdir())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "pca.pkl").write_bytes(PCA.read_bytes()[:-60]), "no uncompressed joblib pickle"),
        (lambda folder: torch.save({"state_dict": Harmful(folder / "harm")}, folder / "ckpt.pt"), "no checkpoint of"),
        (lambda folder: torch.save({"state_dict": {}}, folder / "ckpt.pt"), "KeyError: 'scorer.pca_scale'"),
    ],
)
def test_weights_of_another_layout_are_refused(released: Path, tmp_path: Path, spoil: object, said: str) -> None:
    folder = tmp_path / "released"
    shutil.copytree(released, folder)
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        convert_weights(str(folder), str(tmp_path / "out"), 0.0, 1.0)
    assert not (tmp_path / "out").exists()
    assert not (folder / "harm").exists()


def test_folders_of_another_layout_are_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no ckpt\.pt\. Give the folder"):
        convert(tmp_path, tmp_path / "student", low=0.0, high=1.0)
    folder = tmp_path / "released"
    shutil.copytree(released, folder)
    (folder / "best/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="'bert' is no CLIP"):
        convert(folder, tmp_path / "student", low=0.0, high=1.0)
    assert not (tmp_path / "student").exists()


def test_scores_outside_the_scale_are_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lie between 0\.310 and 0\.690, outside 1 to 5\. Give the scale"):
        convert_weights(str(released), str(tmp_path / "out"), 1.0, 5.0)


def test_the_pickle_is_read_as_joblib_wrote_it() -> None:
    points = np.random.default_rng(0).standard_normal((64, 16)) * np.arange(1, 17) + 0.5
    assert read_pca_mean(PCA.open("rb"), name="a") == pytest.approx(points.mean(0))
    with pytest.raises(ModelError, match=r"UnpicklingError: it names builtins\.eval"):
        read_pca_mean(io.BytesIO(b"cbuiltins\neval\n(S'1'\ntR."), name="a")
