"""Metrics: the page that a run serves, which promtool takes, and the dashboard asked of a real Prometheus."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.engine import run_stages
from jobs.ledger import Ledger
from jobs.metrics import METRICS, Metrics, serving
from jobs.progress import JobProgress
from jobs.resume import Work
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
def served(price: float | None = 36.0) -> Iterator[tuple[Metrics, int]]:
    metrics, port = Metrics(price_per_hour=price), free_port()
    with serving(str(port), metrics):
        yield metrics, port


def fill(metrics: Metrics) -> None:
    metrics.rows(ROWS)
    metrics.state(done=4, open_=2, total=10, workers=lambda: {"decoding": 3, "scoring": 1}, is_last=True)


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


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "localhost:70000", ""])
def test_an_address_of_another_form(address: str) -> None:
    with pytest.raises(UsageError, match="wanted HOST:PORT"), serving(address, Metrics()):
        pass


def test_an_address_that_is_taken() -> None:
    with (
        served() as (_, port),
        pytest.raises(UsageError, match=r"cannot be listened at .*; give another port"),
        serving(f"127.0.0.1:{port}", Metrics()),
    ):
        pass


def expressions() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_dashboard_asks_for_every_metric_and_no_other() -> None:
    asked = set(re.findall(r'__name__=~"\(ray_\)\?(\w+)"', " ".join(expressions())))
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum")}
    assert asked == {name + suffix for name, one in METRICS.items() for suffix in suffixes[one.kind]}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus: apt-get install prometheus")
def test_a_real_prometheus_answers_the_dashboard(tmp_path: Path) -> None:
    with served() as (metrics, port):
        fill(metrics)
        config, own = tmp_path / "prometheus.yml", free_port()
        target = {"job_name": "vqa", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [target]}))
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        command.append(f"--web.listen-address=127.0.0.1:{own}")
        log = (tmp_path / "log").open("w")
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while len(ask(own, 'vqa_files{state="done"}[1m]')) == 0 or scrapes(own) < 3:
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                metrics.rows(ROWS)
                time.sleep(0.5)
            for expression in expressions():
                asked = expression.replace("$__rate_interval", "1m")
                assert ask(own, asked), asked
            assert {one["metric"]["status"] for one in ask(own, "vqa_clips_total")} == {"ok", "failed"}
        finally:
            server.terminate()
            server.wait()
            log.close()


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
