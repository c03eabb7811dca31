"""Metrics, comparisons and audit findings as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vqa.console import printable

if TYPE_CHECKING:
    from vqa.data.audit import Finding
    from vqa.evaluate.schema import Comparison, EvaluationMetrics, SetMetrics, Statistic

SHOWN = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic4": "PLCC fitted",
    "krcc": "KRCC",
    "rmse_logistic4": "RMSE fitted",
}


def metrics_table(metrics: "EvaluationMetrics") -> RenderableType:
    """Table of sets, means and groups with intervals, and reasons of missing values."""
    table = Table()
    table.add_column("", overflow="fold")
    table.add_column("used /\nexpected", justify="right", no_wrap=True)
    for title in SHOWN.values():
        table.add_column(title, justify="right", min_width=7)
    for name, part in metrics["datasets"].items():
        _add(table, name, part["statistics"], part)
    if len(metrics["datasets"]) > 1:
        for kind, statistics in metrics["means"].items():
            _add(table, f"{kind} mean", statistics)
    for column, groups in metrics["groups"].items():
        for name, part in groups.items():
            _add(table, f"{column} = {name}", part["statistics"], part)
    if metrics["published"]:
        published: dict[str, Statistic] = {
            "srcc": {"value": metrics["published"]["srcc"], "low": None, "high": None, "reason": None},
            "plcc": {"value": metrics["published"]["plcc"], "low": None, "high": None, "reason": None},
        }
        _add(table, "published", published)
    parts = [*metrics["datasets"].values(), *(one for groups in metrics["groups"].values() for one in groups.values())]
    reasons = dict.fromkeys(part["statistics"][name]["reason"] for part in parts for name in SHOWN)
    return Group(table, *(Text(f"no value: {printable(reason)}") for reason in reasons if reason))


def _add(table: Table, name: str, statistics: "Mapping[str, Statistic]", part: "SetMetrics | None" = None) -> None:
    used = f"{part['used']} / {part['expected']}" if part else ""
    table.add_row(Text(printable(name)), used, *(_cell(statistics.get(key)) for key in SHOWN))


def _cell(statistic: "Statistic | None") -> str:
    if statistic is None or statistic["value"] is None:
        return "-"
    value = f"{statistic['value']:.4f}"
    return value if statistic["low"] is None else f"{value}\n{statistic['low']:.3f}..\n{statistic['high']:.3f}"


def differences_table(comparison: "Comparison") -> RenderableType:
    """Table of pairs of models by set and statistic, with p-values after Holm."""
    rows = comparison["differences"]
    table = Table(caption="p after Holm's correction", caption_justify="left")
    table.add_column(overflow="fold", min_width=max((len(row["statistic"]) for row in rows), default=0))
    for title in ("first", "second"):
        table.add_column(title, overflow="fold", min_width=8)
    for title in ("difference", "p"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        sides = zip((row["first"], row["second"]), row["values"], strict=True)
        names = (Text(f"{printable(name)}\n{_short(value)}") for name, value in sides)
        bounds = "" if row["low"] is None else f"\n{row['low']:+.3f}..\n{row['high']:+.3f}"
        p_values = [f"{value:.4f} {test}" for test, value in row["p_holm"].items() if value is not None]
        start = Text(f"{row['statistic']}\n{printable(row['dataset'])}\n{row['clips']} clips")
        table.add_row(start, *names, _short(row["difference"], "+.4f") + bounds, "\n".join(p_values))
    return table


def _short(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else f"{value:{form}}"


def findings_table(found: Sequence["Finding"], *, total: int) -> Table:
    """Return a row per failed check."""
    table = Table(title=f"Failed checks ({len(found)} of {total})", title_justify="left")
    for title in ("check", "clip", "detail"):
        table.add_column(title, overflow="fold")
    for one in found:
        table.add_row(one.check, Text(printable(one.clip_id or one.uri)), Text(printable(one.detail)))
    return table
