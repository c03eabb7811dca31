"""Plots of the rewards of recipes."""

import numpy as np
import pytest
from typer.testing import CliRunner

from vqa.cli.app import app
from vqa.errors import UsageError
from vqa.report.rewards import curves, plot_preset


def test_the_curve_is_the_published_formula():
    scores, earned = curves("omniquality_r", truths=[2.5], draws=1)
    np.testing.assert_allclose(earned["total"][0], np.exp(-((scores - 2.5) ** 2) / (2 * 0.64**2)) + 0.5)
    np.testing.assert_allclose(earned["format"][0], 0.5)


def test_the_picture_is_drawn():
    picture = np.asarray(plot_preset("q_insight", truths=[3.0]).convert("L"))
    assert picture.shape == (430, 1120)
    assert (picture < 200).sum() > 2000  # lines and letters, not an empty page


def test_the_command_writes_a_picture_a_preset(tmp_path):
    result = CliRunner().invoke(app, ["rewards", "plot", "cappo", "q_ponder", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cappo.png", "q_ponder.png"]


def test_an_unknown_preset_is_refused():
    with pytest.raises(UsageError, match="Known are: preresq_video"):
        plot_preset("magic")
