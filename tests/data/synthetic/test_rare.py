"""Rare damage: it repeats by its seed, does more harm with severity, is labelled for what it is."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.data.synthetic.test_ladder import moving, photographs
from vqa.cli.app import app
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.encoding import CODECS, RARE_CODECS, Codec, by_scale, encode_video, vmaf
from vqa.data.synthetic.ladder import BESIDE, sample_rare
from vqa.data.synthetic.rare import RARE, few_wavelets, low_rank, misregistered, repeated_rows, two_tones

__all__ = ["photographs"]


@pytest.mark.parametrize("name", sorted(RARE))
def test_damage_keeps_shape_repeats_by_seed_and_harms_more_with_severity(name: str) -> None:
    frames = moving()
    before = frames.copy()
    mild, again, strong = (RARE[name](frames, s, np.random.default_rng(3)) for s in (0.3, 0.3, 1.0))
    assert (frames == before).all()
    assert mild.shape == frames.shape
    assert mild.dtype == np.uint8
    assert (mild == again).all()
    harms = [np.abs(one.astype(np.int16) - frames).mean() for one in (mild, strong)]
    assert harms[1] > harms[0] > 0


def test_damage_is_what_its_name_says() -> None:
    frames = moving(2)
    generator = np.random.default_rng(0)
    assert (repeated_rows(frames, 0.0, generator)[:, 1::2] == frames[:, ::2]).all()
    apart = misregistered(frames, 1.0, np.random.default_rng(1))
    shifts = [
        next(by for by in range(-5, 6) if (np.roll(frames[..., k], by, 2)[..., 9:-9] == apart[..., k][..., 9:-9]).all())
        for k in range(3)
    ]
    assert sorted(shifts) == [-5, 0, 5]
    blocks = two_tones(frames, 0.0, generator)[0].reshape(24, 4, 40, 4, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 16)
    assert max(len(set(block.tolist())) for block in blocks) == 2
    tile = low_rank(frames, 1.0, generator)[0, :16, :16, 0].astype(np.float64)
    values = np.linalg.svd(tile, compute_uv=False)
    assert values[1] < 0.02 * values[0]


def test_wavelets_above_the_threshold_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving(2)[:, :90, :122]
    # no severity has a threshold of 0, at which the transform and its inverse alone are left
    monkeypatch.setattr("vqa.data.synthetic.rare._steps", lambda *_: 0.0)
    assert (few_wavelets(frames, 0.5, np.random.default_rng(0)) == frames).all()


@pytest.mark.parametrize("name", sorted(RARE_CODECS))
def test_vmaf_of_a_rare_codec_falls_with_its_severity(name: str, tmp_path: Path) -> None:
    frames, codec = moving(), RARE_CODECS[name]
    scores = []
    for severity in (0.0, 1.0):
        path = tmp_path / f"{severity}.{codec.container}"
        encode_video(frames, path, codec=codec, quality=codec.at(severity))
        values = vmaf(frames, path)
        assert len(values) == len(frames)
        scores.append(np.mean(values))
    assert scores[0] > scores[1] + 1


@pytest.mark.parametrize(
    "codec",
    [by_scale("flv", 2, 31, "flv"), by_scale("mjpeg", 2, 31, "mkv"), by_scale("wmv2", 2, 31, "wmv")],
    ids=lambda codec: codec.container,
)
def test_a_file_that_cannot_say_its_colours_is_labelled_like_one_that_can(codec: Codec, tmp_path: Path) -> None:
    # FFmpeg takes them for BT.601; converted from that, VMAF fell by 20
    frames = moving() // 3 + np.array([150, 60, 20], dtype=np.uint8)
    scores = []
    for one in (codec, by_scale("mpeg1video", 2, 31, "mkv")):
        encode_video(frames, path := tmp_path / f"a.{one.container}", codec=one, quality=2)
        scores.append(np.mean(vmaf(frames, path)))
    assert scores[0] > scores[1] - 2


def test_rare_damage_is_drawn_alone_or_beside_common_a_codec_last() -> None:
    generator = np.random.default_rng(0)
    draws = [[name for name, _ in sample_rare(generator)] for _ in range(2000)]
    rare, common = RARE.keys() | RARE_CODECS.keys(), DISTORTIONS.keys() | CODECS.keys()
    for names in draws:
        assert len([name for name in names if name in rare]) == 1
        assert len([name for name in names if name in common]) == len(names) - 1
        codecs = [name for name in names if name in CODECS or name in RARE_CODECS]
        assert len(codecs) == 0 or (len(codecs) == 1 and names[-1] == codecs[0])
    assert abs(np.mean([len(names) == 2 for names in draws]) - BESIDE) < 0.04
    counts = Counter(name for names in draws for name in names if name in rare)
    assert set(counts) == rare


def test_the_command_makes_a_ladder_of_rare_damage(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = CliRunner().invoke(
        app,
        f"data synth {photographs / 'a.png'} --out {out} --clips-per-content 3 --damage rare --workers 1".split(),
    )
    assert said.exit_code == 0, said.output
    rows = pq.read_table(out / "ladder.parquet").to_pylist()
    assert len(rows) == 3
    for row in rows:
        assert any(name in RARE or name in RARE_CODECS for name in row["distortions"])
        assert (out / row["uri"]).is_file()
        assert 0 <= row["vmaf"] < 100
