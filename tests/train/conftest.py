"""A ladder of six tiny clips, and a recipe of all stages that runs on it in seconds."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.support import clips

# Two threads on two busy cores wait for each other: these matrices are small enough for one.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _few_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up on the ladder standardises by as many crops as six clips are worth."""
    if "ladder" in request.fixturenames:
        monkeypatch.setattr("vqa.train.scratch.warmup.SAMPLE", 16)


@pytest.fixture(scope="session")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of six clips: two to choose by, four to learn from."""
    folder = tmp_path_factory.mktemp("ladder")
    rows: list[dict[str, Any]] = []
    for index in range(6):
        clips.write_video(folder / f"{index}.mp4", width=160, height=96, frames=10)
        rows.append(
            {
                "clip_id": f"{index}",
                "uri": f"{index}.mp4",
                "split": "validation" if index < 2 else "train",
                "opinion": 1.5 + 0.5 * index,
                "distortions": ["noise"][: index % 2],
                "severities": [0.5][: index % 2],
                "seed": index,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "ladder.parquet")
    return folder
