"""The local engine: decoding ahead but not far, what fails costs itself only, and a stop that waits for nothing."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jobs import local_executor
from jobs.engine import JobOptions, choose_engine, run_stages
from jobs.ledger import Ledger
from jobs.local_executor import LocalExecutor
from jobs.progress import JobProgress
from jobs.resume import Work
from jobs.rows import new_row
from jobs.stages import LightStage, Resources, Sample, SampleStage
from tests.support import clips
from tests.support.deadly import Deadly
from vqa.console import Engine
from vqa.data.score_table import ScoreRow, ScoreTable, read_scores
from vqa.errors import ModelError, UsageError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.types import Clip
from vqa.views import ViewsConfig


@dataclass(kw_only=True)
class Reader:
    """A first stage: a row for each file, after what `slow` says."""

    batch_size: int | None = None
    workers: int = 1
    fails: Sequence[str] = ()
    hangs: Sequence[str] = ()
    fault: ModelError | None = None
    made: list[str] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    def resources(self, cluster: Mapping[str, float]) -> Resources:
        return Resources(workers=self.workers)

    def setup(self) -> None:
        if self.fault:
            raise self.fault

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        for item in items:
            name = item.clip.clip_id
            if name in self.hangs:
                time.sleep(60)
            if name in self.fails:
                raise TypeError(name)
            self.made.append(name)
            yield ScoreRow(clip_id=name, uri=item.clip.uri, run_key=name, status="ok", score=3.0)

    def close(self) -> None:
        self.closed.append(threading.get_ident())


@dataclass(kw_only=True)
class Model(Reader):
    """A second stage, which notes its batches."""

    batch_size: int | None = 4
    batches: list[list[str]] = field(default_factory=list)

    def process(self, items: Sequence[ScoreRow]) -> Iterator[ScoreRow]:  # type: ignore[override]
        names = [item.clip_id for item in items]
        self.batches.append(names)
        if set(names) & set(self.fails):
            raise TypeError("one of them")
        yield from items


def work(count: int) -> list[Work]:
    return [Work(clip=Clip(clip_id=f"{n:02d}", uri=f"/{n}")) for n in range(count)]


def test_decoding_runs_ahead_of_the_model_by_no_more_than_a_batch() -> None:
    reader, model = Reader(), Model()
    with LocalExecutor([reader, model]) as executor:
        stream = executor.stream(work(40))
        first = next(stream)
        deadline = time.monotonic() + 30
        while len(reader.made) < len(first) + 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(first) + 4 <= len(reader.made) <= len(first) + 4 + 1, "a queue of a batch, and one in hand"
        names = [row.clip_id for row in first] + [row.clip_id for batch in stream for row in batch]
    assert names == [f"{n:02d}" for n in range(40)]
    assert max(map(len, model.batches)) <= 4
    assert (len(reader.closed), len(model.closed)) == (1, 1)
    assert reader.closed[0] != threading.get_ident()


MIDDLE = ["01", "02", "03", "04"]


@dataclass(kw_only=True)
class Paced(Reader):
    """A first stage that makes some clips after the model has had others, and each a little after the last."""

    model: Model
    after: Mapping[str, str]

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        for item in items:
            time.sleep(0.05)
            deadline = time.monotonic() + 30
            wanted = self.after.get(item.clip.clip_id)
            while wanted and not any(wanted in batch for batch in self.model.batches):
                assert time.monotonic() < deadline, f"{wanted} was held back"
                time.sleep(0.01)
            yield from super().process([item])


@pytest.mark.parametrize(
    ("hold", "workers", "after", "batches"),
    [
        # The first row at once; then what decoding gives slowly goes to the model together.
        (60.0, 1, {"01": "00"}, [["00"], MIDDLE, ["05"]]),
        # But not for ever: what comes next may take long.
        (0.2, 1, {"01": "00", "02": "01", "03": "02"}, [["00"], ["01"], ["02"]]),
        # Nor near the end, where one decoder has no more work and the other is at the last clip.
        (60.0, 2, dict.fromkeys(MIDDLE, "00") | {"05": "04"}, [["00"], MIDDLE, ["05"]]),
    ],
)
def test_a_slow_decoder_s_clips_go_to_the_model_together(
    monkeypatch: pytest.MonkeyPatch, hold: float, workers: int, after: Mapping[str, str], batches: list[list[str]]
) -> None:
    monkeypatch.setattr(local_executor, "HOLD_SECONDS", hold)
    model = Model(batch_size=5 if workers > 1 else 4)
    reader = Paced(workers=workers, model=model, after=after)
    with LocalExecutor([reader, model]) as executor:
        assert sum(map(len, executor.stream(work(6)))) == 6
    assert [sorted(batch) for batch in model.batches[: len(batches)]] == batches


@pytest.mark.parametrize("workers", [1, 3])
def test_what_fails_costs_itself_and_its_neighbours_get_a_second_try(tmp_path: Path, workers: int) -> None:
    reader, model = Reader(fails=["03"], workers=workers), Model(fails=["07"])
    ledger = Ledger.of(work(10), clip_seconds=None)
    table, progress = ScoreTable(tmp_path), JobProgress(10, quiet=True)
    assert not run_stages([reader, model], ledger, table, progress, engine=Engine.LOCAL)
    assert sorted(clip.clip_id for clip in ledger.lost()) == ["03", "07"]
    assert sorted(read_scores(tmp_path)["clip_id"].to_pylist()) == [f"{n:02d}" for n in range(10) if n not in (3, 7)]


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_stage_cannot_be_set_up_for_is_raised(place: int) -> None:
    stages = [Reader(), Model()]
    stages[place].fault = ModelError("no weights")
    with LocalExecutor(stages) as executor, pytest.raises(ModelError, match=r"^no weights$"):
        list(executor.stream(work(3)))


@dataclass(kw_only=True)
class Sampler(Reader):
    """A first stage that leaves the score to the next."""

    # Reader gives rows; stages take what the one before gives
    def process(self, items: Sequence[Work]) -> Iterator[Sample]:  # type: ignore[override]
        for item in items:
            yield Sample(row=new_row(item.clip, "print", settings="s"), views=b"")


@pytest.mark.parametrize("fault", ["deadly", "hanging"])
def test_what_ends_the_model_costs_that_clip_its_score_and_the_run_goes_on(tmp_path: Path, fault: str) -> None:
    model = Deadly(
        card=ModelCard(source="embedded"),
        generation=GenerationConfig(),
        model_id="m",
        model_revision="r",
        notes=tmp_path,
    )
    names = [*"abc", fault, *"def"]
    ledger = Ledger.of([Work(clip=Clip(clip_id=name, uri=f"/{name}")) for name in names], clip_seconds=None)
    table, progress = ScoreTable(tmp_path / "out"), JobProgress(len(names), quiet=True)
    stages = [Sampler(), model]
    assert not run_stages(stages, ledger, table, progress, engine=Engine.LOCAL, stall_seconds=1.0)
    assert not list(ledger.lost())
    rows = read_scores(tmp_path / "out").to_pylist()
    assert {row["clip_id"]: (row["score"], row["error_kind"]) for row in rows} == dict.fromkeys(
        "abcdef", (3.0, None)
    ) | {fault: (None, "crashed")}
    assert (tmp_path / fault).read_text()[-1] == "1", "tried again, alone"
    assert {row["model_id"] for row in rows}.isdisjoint({str(os.getpid())}), "in a process of its own"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_keeps_what_is_finished_and_waits_for_no_file(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_executor, "HOLD_SECONDS", 0.1)  # no sample comes behind the fifth
    reader, model = Reader(hangs=["05"]), Model()
    ledger = Ledger.of(work(10), clip_seconds=None)
    table, progress = ScoreTable(tmp_path), JobProgress(10, quiet=True)

    def stop() -> None:
        while progress.clips_done < 5:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    started = time.monotonic()
    assert run_stages([reader, model], ledger, table, progress, engine=Engine.LOCAL)
    assert time.monotonic() - started < 30
    assert read_scores(tmp_path)["clip_id"].to_pylist() == [f"{n:02d}" for n in range(5)]


def test_auto_is_local_for_few_files_without_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = JobOptions(out=tmp_path)
    assert [choose_engine(options, files=files) for files in (0, 64, 65)] == [Engine.LOCAL, Engine.LOCAL, Engine.RAY]
    with_address = JobOptions(out=tmp_path, ray_address="auto")
    assert choose_engine(with_address, files=1) is Engine.RAY
    assert choose_engine(JobOptions(out=tmp_path, engine=Engine.RAY), files=1) is Engine.RAY
    assert choose_engine(JobOptions(out=tmp_path, engine=Engine.LOCAL), files=1000) is Engine.LOCAL
    with pytest.raises(UsageError, match="--engine local"):
        choose_engine(JobOptions(out=tmp_path, engine=Engine.LOCAL, ray_address="auto"), files=1)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert choose_engine(options, files=1) is Engine.RAY
    assert choose_engine(JobOptions(out=tmp_path, engine=Engine.LOCAL), files=1) is Engine.LOCAL


def test_a_local_run_imports_no_ray(
    tmp_path: Path, model_card: Path, vqa: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run where any import of Ray fails, and no module that has imported it before is at hand."""
    for name in [name for name in sys.modules if name.startswith(("jobs", "ray."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    clips.write_video(tmp_path / "a.mp4", frames=4)
    arguments = ("score", tmp_path / "a.mp4", "--out", tmp_path / "out", "--model", model_card, "--json")
    code, said, heard = vqa(*arguments)
    assert (code, json.loads(said)["engine"]) == (0, "local"), heard
    code, _, heard = vqa(*arguments, "--fresh", "--engine", "ray")
    assert code != 0 and "ray" in heard


@dataclass(kw_only=True)
class Mute(Reader):
    """A first stage whose answers hold no score, but for those of `read`."""

    read: Sequence[str] = ()

    def process(self, items: Sequence[Work]) -> Iterator[ScoreRow]:
        for item in items:
            name = item.clip.clip_id
            status = "ok" if name in self.read else "unparsed"
            score = 3.0 if name in self.read else None
            error = None if score else "no score from 1 to 5 in the model's answer: 'I see a slope.'"
            yield ScoreRow(clip_id=name, uri=item.clip.uri, run_key=name, status=status, score=score, error=error)


@pytest.mark.parametrize(("read", "limit", "rows"), [((), 5, 5), (("02",), 5, 12), ((), None, 12)])
def test_a_model_whose_first_answers_cannot_be_read_stops_the_job(
    tmp_path: Path, read: Sequence[str], limit: int | None, rows: int
) -> None:
    table = ScoreTable(tmp_path, rows_per_part=4, seconds_per_write=0)
    ledger = Ledger.of(work(12), clip_seconds=None)
    options = {"engine": Engine.LOCAL, "unread_limit": limit}
    if rows < 12:
        with pytest.raises(ModelError, match=r"none of the first 5 answers holds a score, e\.g\. .*'I see a slope\.'"):
            run_stages([Mute(read=read)], ledger, table, JobProgress(12, quiet=True), **options)
    else:
        assert not run_stages([Mute(read=read)], ledger, table, JobProgress(12, quiet=True), **options)
    assert read_scores(tmp_path).num_rows >= rows


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_all_cores_decode(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqa.machine.cores", lambda: cores)
    either = SampleStage(views=ViewsConfig(), settings=""), LightStage(student=Path(), model_id="", model_revision="")
    assert LocalExecutor(either).workers() == {"decoding": cores, "scoring": 1}
    fewer = replace(either[0], workers=3)
    assert LocalExecutor([fewer]).workers() == {"decoding": 3, "scoring": 0}
