"""Prometheus metrics of a running job: at an address here, and by Ray's exporter."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jobs.progress import RATE_SECONDS
from vqa.data.score_table import ScoreRow
from vqa.errors import UsageError

# Seconds of a clip in a stage: from a light tier's milliseconds to a deadline.
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
STATE_SECONDS = 2.0  # between two looks at what takes a call to Ray
STAGES = {"decoding": "decode_seconds", "scoring": "score_seconds"}  # name: column of a row
TOKENS = {"prompt": "prompt_tokens", "answer": "answer_tokens"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is declared to an exporter."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    "vqa_clips": Metric("counter", "Finished clips.", ("status", "error_kind")),
    "vqa_stage_seconds": Metric("histogram", "Seconds of a clip in a stage; their sum is the work done.", ("stage",)),
    "vqa_stage_workers": Metric("gauge", "Workers of a stage.", ("stage",)),
    "vqa_answers": Metric("counter", "Answers of the model: all, and those that hold a score.", ("kind",)),
    "vqa_tokens": Metric("counter", "Tokens of prompts, read once for all answers, and of answers.", ("kind",)),
    "vqa_waiting": Metric("gauge", "Clips that wait for a stage; on Ray, Ray Data counts them itself.", ("stage",)),
    "vqa_files": Metric("gauge", "Files: done, open (handed out, not done), left.", ("state",)),
    "vqa_cost": Metric("gauge", "Cost so far, in the currency of job.price_per_hour."),
}


class Exporter(Protocol):
    """What takes the values."""

    def add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Count `value` more, set a gauge to it, or observe it, by the metric's kind."""


class JobMetrics:
    """The values of one job, handed to every exporter."""

    def __init__(self, *, price_per_hour: float | None = None) -> None:
        """Nothing is exported yet."""
        self._exporters: list[Exporter] = []
        self._price = price_per_hour
        self._began = time.monotonic()
        self._next_state = 0.0
        self._is_on_ray = False
        self._rows_since: float | None = None  # the first rows
        self._tokens, self._stage_seconds = dict.fromkeys(TOKENS, 0), dict.fromkeys(STAGES, 0.0)
        self._workers: Mapping[str, int] = {}
        self._waiting: Mapping[str, int] = {}
        self._worker_seconds = dict.fromkeys(STAGES, 0.0)
        self._looked = self._began

    def export(self, exporter: Exporter) -> None:
        """Hand values to this one too, from here on."""
        self._exporters.append(exporter)

    def export_by_ray(self) -> None:
        """Hand them to Ray's exporter, once this process is connected to a Ray."""
        if not self._is_on_ray:
            self._is_on_ray = True
            self.export(RayExporter())

    def rows(self, rows: Sequence[ScoreRow]) -> None:
        """Count finished clips."""
        if self._rows_since is None and rows:
            self._rows_since = self._looked = time.monotonic()
        for row in rows:
            self._add("vqa_clips", 1, status=row.status, error_kind=row.error_kind or "")
            for stage, column in STAGES.items():
                if (seconds := getattr(row, column)) is not None:
                    self._add("vqa_stage_seconds", seconds, stage=stage)
                    self._stage_seconds[stage] += seconds
            self._add("vqa_answers", row.answers_total or 0, kind="all")
            self._add("vqa_answers", row.answers_parsed or 0, kind="with_score")
            for kind, column in TOKENS.items():
                self._add("vqa_tokens", getattr(row, column) or 0, kind=kind)
                self._tokens[kind] += getattr(row, column) or 0

    def state(
        self,
        *,
        done: float,
        open_: int,
        total: int,
        workers: Callable[[], Mapping[str, int]],
        waiting: Callable[[], Mapping[str, int]],
        is_last: bool = False,
    ) -> None:
        """Set the gauges, every few seconds and at the end.

        Files done, handed out, in all; by stage, workers and clips that wait; cost.
        """
        now = time.monotonic()
        if now < self._next_state and not is_last:
            return
        self._next_state = now + STATE_SECONDS
        self._workers, self._waiting = workers(), waiting()
        for stage, count in self._workers.items() if self._rows_since is not None else ():
            self._worker_seconds[stage] += count * (now - self._looked)
        self._looked = now
        for state, number in (("done", done), ("open", open_), ("left", max(0.0, total - done))):
            self._add("vqa_files", number, state=state)
        for stage, count in self._workers.items():
            self._add("vqa_stage_workers", count, stage=stage)
        for stage, count in self._waiting.items():
            self._add("vqa_waiting", count, stage=stage)
        if (cost := self._cost) is not None:
            self._add("vqa_cost", cost)

    def facts(self) -> dict[str, object]:
        """Workers, load and queues by stage, tokens a second, cost; for run.json.

        `busy` is the share of the workers' time at work since the first rows.
        """
        seconds = time.monotonic() - self._rows_since if self._rows_since is not None else 0.0
        busy = {
            stage: round(min(1.0, self._stage_seconds[stage] / spent), 3)
            for stage, spent in self._worker_seconds.items()
            if spent >= RATE_SECONDS
        }
        is_known = seconds >= RATE_SECONDS and any(self._tokens.values())
        return {
            "workers": dict(self._workers),
            "busy": busy,
            "waiting": dict(self._waiting),
            "tokens_per_second": {kind: round(count / seconds, 1) for kind, count in self._tokens.items() if is_known},
            "cost": None if self._cost is None else round(self._cost, 4),
        }

    @property
    def _cost(self) -> float | None:
        return None if self._price is None else self._price * (time.monotonic() - self._began) / 3600

    def _add(self, name: str, value: float, **labels: str) -> None:
        for exporter in self._exporters:
            exporter.add(name, value, labels)


class RayExporter:
    """Ray's exporter on every node (`ray.util.metrics`); names begin with `ray_`."""

    def __init__(self) -> None:
        """Declare the metrics to the Ray that this process is connected to."""
        from ray.util import metrics

        self._gauges: dict[str, metrics.Gauge] = {}
        self._counters: dict[str, metrics.Counter] = {}
        self._histograms: dict[str, metrics.Histogram] = {}
        for name, one in METRICS.items():
            if one.kind == "gauge":
                self._gauges[name] = metrics.Gauge(name, one.meaning, one.labels)
            elif one.kind == "counter":
                self._counters[name] = metrics.Counter(name, one.meaning, one.labels)
            else:
                self._histograms[name] = metrics.Histogram(name, one.meaning, list(BUCKETS), one.labels)

    def add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """As of `Exporter`."""
        if name in self._gauges:
            self._gauges[name].set(value, dict(labels))
        elif name in self._histograms:
            self._histograms[name].observe(value, dict(labels))
        elif value > 0:  # Ray refuses to count nothing
            self._counters[name].inc(value, dict(labels))


class PageExporter:
    """A page in Prometheus' text format, by prometheus_client."""

    def __init__(self) -> None:
        """Declare the metrics. Raises UsageError without prometheus_client."""
        try:
            import prometheus_client as client
        except ImportError as error:
            raise UsageError("--metrics needs prometheus_client: pip install 'vqa[metrics]'") from error
        client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = client.CollectorRegistry()
        self._gauges: dict[str, client.Gauge] = {}
        self._counters: dict[str, client.Counter] = {}
        self._histograms: dict[str, client.Histogram] = {}
        for name, one in METRICS.items():
            if one.kind == "gauge":
                self._gauges[name] = client.Gauge(name, one.meaning, one.labels, registry=self.registry)
            elif one.kind == "counter":
                self._counters[name] = client.Counter(name, one.meaning, one.labels, registry=self.registry)
            else:
                self._histograms[name] = client.Histogram(
                    name, one.meaning, one.labels, registry=self.registry, buckets=BUCKETS
                )

    def add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """As of `Exporter`."""
        if name in self._gauges:
            gauge = self._gauges[name]
            (gauge.labels(**labels) if labels else gauge).set(value)
        elif name in self._histograms:
            self._histograms[name].labels(**labels).observe(value)
        else:
            self._counters[name].labels(**labels).inc(value)


def check_address(address: str | None) -> None:
    """Raise UsageError for what `serving` could not take, before a job begins."""
    if address is None:
        return
    port = address.rpartition(":")[2]
    if not (port.isdecimal() and port.isascii() and len(port) <= 5 and int(port) < 2**16):
        raise UsageError(f"--metrics {address}: wanted HOST:PORT, or a port from 0 to 65535")


@contextlib.contextmanager
def serving(address: str | None, metrics: JobMetrics) -> Iterator[None]:
    """Serve metrics at HOST:PORT or a local PORT while the block runs; None: nowhere.

    Raises:
        UsageError: another form of address, one that cannot be listened at, or no prometheus_client.
    """
    if address is None:
        yield
        return
    check_address(address)
    host, _, port = address.rpartition(":")
    exporter = PageExporter()
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(int(port), addr=host.strip("[]") or "127.0.0.1", registry=exporter.registry)
    except OSError as error:
        raise UsageError(f"--metrics {address}: cannot be listened at ({error.strerror}); give another port") from error
    metrics.export(exporter)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
