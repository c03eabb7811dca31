"""Metrics: the page that a run serves, which promtool takes, and the dashboard asked of a real Prometheus."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.engine import run_stages
from jobs.ledger import Ledger
from jobs.metrics import METRICS, JobMetrics, serving
from jobs.progress import JobProgress
from jobs.request import ScoreRequest
from jobs.resume import Work
from jobs.score import score
from tests.jobs.test_local_executor import Reader
from tests.support.kept import ROOT
from vqa.console import Engine
from vqa.data.score_table import ScoreRow, ScoreTable
from vqa.errors import UsageError
from vqa.types import Clip

DASHBOARD = ROOT / "jobs" / "cluster" / "grafana.json"
ROWS = [
    ScoreRow(
        clip_id=name,
        uri=name,
        run_key=name,
        status="ok",
        score=3.0,
        decode_seconds=0.2,
        score_seconds=2.0,
        answers_total=4,
        answers_parsed=3,
        prompt_tokens=500,
        answer_tokens=40,
    )
    for name in "abc"
] + [ScoreRow(clip_id="d", uri="d", run_key="d", error_kind="corrupt", error="e", decode_seconds=50.0)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def values(text: str) -> dict[str, float]:
    return {
        f"{one.name}{{{','.join(f'{name}={value}' for name, value in sorted(one.labels.items()))}}}": one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


@contextmanager
def served(price: float | None = 36.0) -> Iterator[tuple[JobMetrics, int]]:
    metrics, port = JobMetrics(price_per_hour=price), free_port()
    with serving(str(port), metrics):
        yield metrics, port


def fill(metrics: JobMetrics) -> None:
    metrics.rows(ROWS)
    fill_state(metrics)


def fill_state(metrics: JobMetrics) -> None:
    workers, waiting = {"decoding": 3, "scoring": 1}, {"scoring": 5}
    metrics.state(done=4, open_=2, total=10, workers=lambda: workers, waiting=lambda: waiting, is_last=True)


def test_the_page_counts_what_the_rows_say() -> None:
    with served() as (metrics, port):
        fill(metrics)
        text = page(port)
    found = values(text)
    assert found["vqa_clips_total{error_kind=,status=ok}"] == 3
    assert found["vqa_clips_total{error_kind=corrupt,status=failed}"] == 1
    assert found["vqa_stage_seconds_sum{stage=decoding}"] == pytest.approx(50.6)
    assert found["vqa_stage_seconds_bucket{le=0.3,stage=decoding}"] == 3
    assert found["vqa_stage_seconds_count{stage=scoring}"] == 3
    assert (found["vqa_answers_total{kind=all}"], found["vqa_answers_total{kind=with_score}"]) == (12, 9)
    assert (found["vqa_tokens_total{kind=prompt}"], found["vqa_tokens_total{kind=answer}"]) == (1500, 120)
    assert found["vqa_waiting{stage=scoring}"] == 5
    assert [found[f"vqa_files{{state={state}}}"] for state in ("done", "open", "left")] == [4, 2, 6]
    assert found["vqa_stage_workers{stage=decoding}"] == 3
    assert 0 < found["vqa_cost{}"] < 36 * 60 / 3600
    with pytest.raises(urllib.error.URLError):
        page(port)  # it ends with the run
    if promtool := shutil.which("promtool"):
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_run_keeps_them_up_to_date(tmp_path: Path) -> None:
    work = [Work(clip=Clip(clip_id=name, uri=f"/{name}")) for name in "abcde"]
    progress = JobProgress(5, quiet=True)
    with served(price=None) as (metrics, port):
        ledger = Ledger.of(work, clip_seconds=None)
        run_stages([Reader()], ledger, ScoreTable(tmp_path), progress, engine=Engine.LOCAL, metrics=metrics)
        found = values(page(port))
    assert found["vqa_clips_total{error_kind=,status=ok}"] == 5
    assert (found["vqa_files{state=done}"], found["vqa_files{state=left}"]) == (5, 0)
    assert found["vqa_stage_workers{stage=decoding}"] == 1
    assert "vqa_cost{}" not in found or found["vqa_cost{}"] == 0, "no price was given"


def test_what_top_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("jobs.metrics.time.monotonic", lambda: clock[0])
    metrics = JobMetrics(price_per_hour=36.0)
    assert metrics.facts() == {"workers": {}, "busy": {}, "waiting": {}, "tokens_per_second": {}, "cost": 0.0}
    clock[0] += 70.0  # the model loads
    metrics.rows(ROWS[:1])
    clock[0] += 10.0
    metrics.rows(ROWS[1:3])
    fill_state(metrics)
    # Of three decoders 0.6 s of work in 30 s, of the model 6 s of 10; 1,500 and 120 tokens in 10 s; 80 s at 36 an hour.
    assert metrics.facts() == {
        "workers": {"decoding": 3, "scoring": 1},
        "busy": {"decoding": 0.02, "scoring": 0.6},
        "waiting": {"scoring": 5},
        "tokens_per_second": {"prompt": 150.0, "answer": 12.0},
        "cost": 0.8,
    }


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "localhost:70000", "", "9" * 5000])
def test_an_address_of_another_form(address: str) -> None:
    with pytest.raises(UsageError, match="wanted HOST:PORT"), serving(address, JobMetrics()):
        pass


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({"metrics": "99999"}, "--metrics 99999: wanted"), ({"ray_address": "a:1"}, "--ray-address a:1: not used by")],
)
def test_options_are_checked_before_sources_are_read(tmp_path: Path, given: dict[str, str], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        score(ScoreRequest(sources=("/nowhere.mp4",), out=tmp_path / "out", engine=Engine.LOCAL, **given))


def test_an_address_that_is_taken() -> None:
    with (
        served() as (_, port),
        pytest.raises(UsageError, match=r"cannot be listened at .*; give another port"),
        serving(f"127.0.0.1:{port}", JobMetrics()),
    ):
        pass


def expressions(*, without: str = "\0") -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"] if without not in target["expr"]]


def test_the_dashboard_asks_for_every_metric_and_no_other() -> None:
    asked = set(re.findall(r'__name__=~"\(ray_\)\?(\w+)"', " ".join(expressions())))
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum")}
    assert asked == {name + suffix for name, one in METRICS.items() for suffix in suffixes[one.kind]}


NEEDS_PROMETHEUS = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus: apt-get install prometheus"
)


@contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        started = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(60)
            except subprocess.TimeoutExpired:  # Ray asks each of its processes first
                started.kill()
                started.wait()


@contextmanager
def prometheus(folder: Path, **ports: int) -> Iterator[int]:
    """A server that scrapes jobs of these names every second, and its port."""
    targets = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in ports.items()
    ]
    config, own = folder / "prometheus.yml", free_port()
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": targets}))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    log = folder / "prometheus.log"
    with process([*command, f"--web.listen-address=127.0.0.1:{own}"], log) as server:
        wait_until(lambda: bool(ask(own, "up")), server, log)
        yield own


def wait_until(is_so: Callable[[], bool], server: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.5)


@pytest.mark.slow
@NEEDS_PROMETHEUS
def test_a_real_prometheus_answers_the_dashboard(tmp_path: Path) -> None:
    with served() as (metrics, port):
        fill(metrics)
        with prometheus(tmp_path, vqa=port) as own:
            deadline = time.monotonic() + 60
            while len(ask(own, 'vqa_files{state="done"}[1m]')) == 0 or scrapes(own) < 3:
                assert time.monotonic() < deadline
                metrics.rows(ROWS)
                time.sleep(0.5)
            for expression in expressions(without="ray_data_"):
                asked = expression.replace("$__rate_interval", "1m")
                assert ask(own, asked), asked
            assert {one["metric"]["status"] for one in ask(own, "vqa_clips_total")} == {"ok", "failed"}


class Telling(Reader):
    """A second stage: ROWS in turn, for whatever rows come, more slowly than they come."""

    def process(self, items: Sequence[Any]) -> Iterator[ScoreRow]:
        for item in items:
            time.sleep(0.2)
            facts = ROWS[int(item.clip_id) % len(ROWS)]
            yield replace(facts, clip_id=item.clip_id, uri=item.uri, run_key=item.run_key)


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.timeout(600)
@NEEDS_PROMETHEUS
@pytest.mark.skipif(not all(map(find_spec, ("opencensus", "grpc"))), reason="no exporter: pip install 'ray[default]'")
def test_a_real_prometheus_answers_it_of_a_run_on_ray_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the run's own page and of Ray's exporter, which has the same counts in the end."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")  # the exporter's process; seconds on a busy machine
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    gcs, exported, count = free_port(), free_port(), 200
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={gcs}"]
    command += ["--num-cpus=3", f"--metrics-export-port={exported}", "--include-dashboard=false"]
    command += ["--object-store-memory=100000000", f"--temp-dir={tempfile.mkdtemp(prefix='vqa-ray-')}"]
    work = [Work(clip=Clip(clip_id=f"{n}", uri=f"/{n}")) for n in range(count)]
    with process(command, tmp_path / "ray.log") as head, served() as (metrics, port):
        wait_until(lambda: is_exporting(exported), head, tmp_path / "ray.log")
        with prometheus(tmp_path, page=port, ray=exported) as own:
            # Ray Data counts what waits, in the panel's second line.
            unanswered = {one.replace("$__rate_interval", "30s") for one in expressions(without="vqa_waiting")}
            assert any("ray_data_" in one for one in unanswered)
            over = threading.Event()

            def look() -> None:
                while not over.wait(1) and unanswered:
                    unanswered.difference_update([one for one in unanswered if ask(own, one)])

            watcher = threading.Thread(target=look)
            watcher.start()
            try:
                ledger, progress = Ledger.of(work, clip_seconds=None), JobProgress(count, quiet=True)
                where: dict[str, Any] = {"engine": Engine.RAY, "ray_address": f"127.0.0.1:{gcs}", "metrics": metrics}
                run_stages([Reader(), Telling()], ledger, ScoreTable(tmp_path), progress, **where)
                wait_until(lambda: counts(own) == {"page": count, "ray": count}, head, tmp_path / "ray.log")
            finally:
                over.set()
                watcher.join()
            assert not unanswered


def is_exporting(port: int) -> bool:
    try:
        return "ray_" in page(port)
    except OSError:  # not up yet
        return False


def counts(port: int) -> dict[str, float]:
    found = ask(port, 'sum by (job) ({__name__=~"(ray_)?vqa_clips_total"})')
    return {one["metric"]["job"]: float(one["value"][1]) for one in found}


def ask(port: int, expression: str) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:  # an expression that it refuses
        raise AssertionError(f"{expression}: {error.read().decode()}") from error
    except urllib.error.URLError:  # not up yet
        return []
    result: list[dict[str, Any]] = found["data"]["result"]
    return result


def scrapes(port: int) -> float:
    found = ask(port, "count_over_time(up[1m])")
    return float(found[0]["value"][1]) if found else 0.0
