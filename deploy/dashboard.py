"""The Grafana dashboard as code: what callers get, what there is to do, and what does it. deploy/generate.py writes it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, prometheus, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import Dashboard as DashboardModel
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
HERE = 'namespace=~"$namespace"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """Expressions by their legend. `unit` is Grafana's."""

    title: str
    says: str
    unit: str
    expressions: dict[str, str]
    stacked: bool = False


def quantiles(metric: str, by: str = "") -> dict[str, str]:
    """p50, p95 and p99 of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    rate = f"sum by ({labels}) (rate({metric}_bucket{{{HERE}}}{RATE}))"
    return {f"{legend}p{q}": f"histogram_quantile(0.{q}, {rate})" for q in (50, 95, 99)}


def mean(metric: str) -> str:
    total, count = (f"sum(rate({metric}_{part}{{{HERE}}}{RATE}))" for part in ("sum", "count"))
    return f"{total} / {count}"


def rate(metric: str, by: str) -> dict[str, str]:
    return {f"{{{{{by}}}}}": f"sum by ({by}) (rate({metric}{{{HERE}}}{RATE}))"}


ROWS: dict[str, tuple[Panel, ...]] = {
    "What callers get": (
        Panel(
            "Calls by code",
            "All calls but health and reflection. UNAVAILABLE, ABORTED and INTERNAL are faults of ours.",
            "reqps",
            rate("grpc_server_call_duration_seconds_count", "grpc_code"),
            stacked=True,
        ),
        Panel(
            "Calls that failed by our fault",
            "As a share of all; alerts burn at 1.44 % over an hour, and 0.6 % over six.",
            "percentunit",
            {"{{job}}": f"job:grpc_server_call_errors:ratio_rate5m{{{HERE}}}"},
        ),
        Panel(
            "Time of a request that succeeds",
            "From its arrival to its result, 95 of 100.",
            "s",
            {"{{task}}": f"max by (task) (job_task:synthesis_task_duration_seconds:p95_5m{{{HERE}}})"},
        ),
        Panel(
            "Wait for the first bundle",
            "Of requests that were let in. An alert begins at 10 s.",
            "s",
            quantiles("synthesis_queue_wait_seconds"),
        ),
        Panel(
            "Requests turned away",
            "overloaded and deadline are for want of workers, quota is the caller's own.",
            "reqps",
            rate("synthesis_rejected_total", "reason"),
            stacked=True,
        ),
        Panel(
            "Ends of requests that were let in",
            "lost is a request that workers died of; failed is a mistake of ours.",
            "reqps",
            rate("synthesis_task_duration_seconds_count", "outcome"),
            stacked=True,
        ),
    ),
    "What there is to do": (
        Panel(
            "Offered cost",
            "Image-steps that are queued, in flight, or were turned away in the last minute: what workers are scaled by.",
            "short",
            {"all": f"sum(synthesis_offered_cost{{{HERE}}})", "{{pod}}": f"synthesis_offered_cost{{{HERE}}}"},
        ),
        Panel(
            "Offered cost of each worker",
            "The autoscaler adds workers above its threshold (deploy/README.md).",
            "short",
            {"a worker": f"sum(synthesis_offered_cost{{{HERE}}}) / sum(worker_up{{{HERE}}})"},
        ),
        Panel(
            "Pictures",
            "Those that wait for their first bundle, and those that have begun.",
            "short",
            {
                "wait": f"sum(synthesis_queue_depth{{{HERE}}})",
                "in flight": f"sum(synthesis_jobs_in_flight{{{HERE}}})",
            },
            stacked=True,
        ),
    ),
    "What does it": (
        Panel(
            "Workers",
            "That run, that are ready, and that the gateway which has the fewest can use.",
            "short",
            {
                "run": f"count(worker_up{{{HERE}}})",
                "ready": f"sum(worker_up{{{HERE}}})",
                "in use": f"min(sum by (job, instance) (synthesis_backend_up{{{HERE}}}))",
            },
        ),
        Panel(
            "Busy",
            "Share of the time in which a worker computed a bundle.",
            "percentunit",
            {"{{pod}}": f"sum by (pod) (rate(worker_compute_seconds_sum{{{HERE}}}{RATE}))"},
        ),
        Panel(
            "Pictures of a bundle",
            "On average. Many gateways, and exact requests, make it smaller.",
            "short",
            {"pictures": mean("synthesis_batch_size")},
        ),
        Panel(
            "A step",
            "Of a batch, as workers measured it, on average, by the size of the batch.",
            "s",
            {
                "{{batch_size}}": f"sum by (batch_size) (rate(synthesis_step_duration_seconds_sum{{{HERE}}}{RATE})) "
                f"/ sum by (batch_size) (rate(synthesis_step_duration_seconds_count{{{HERE}}}{RATE}))"
            },
        ),
        Panel(
            "Bundles sent again",
            "unavailable did not run, lost died with its worker, unreadable are versions that do not understand each other.",
            "ops",
            rate("synthesis_chunk_retries_total", "reason"),
        ),
        Panel(
            "Bundles at the workers",
            "busy is refused because two were there already.",
            "ops",
            rate("worker_bundles_total", "outcome"),
            stacked=True,
        ),
        Panel(
            "Replaced",
            "Processes of TorchServe that died or hung, in an hour.",
            "short",
            {"{{pod}} {{what}}": f"sum by (pod, what) (increase(worker_restarts_total{{{HERE}}}[1h]))"},
        ),
        Panel(
            "Memory of workers",
            "Of the agent, of Java and of the classifiers.",
            "bytes",
            {"{{process}}": f"max by (process) (worker_memory_bytes{{{HERE}}})"},
        ),
        Panel(
            "Memory of gateways",
            "",
            "bytes",
            {"{{pod}}": f'sum by (pod) (process_resident_memory_bytes{{{HERE}, job="gateway"}})'},
        ),
    ),
    "GPUs": (
        Panel(
            "Used",
            "Share of the time in which a kernel ran. Below 10 % while pictures wait is an alert.",
            "percentunit",
            {"{{pod}} {{gpu}}": f"gpu_utilization_ratio{{{HERE}}}"},
        ),
        Panel(
            "Memory",
            "In use, as a share of what there is.",
            "percentunit",
            {"{{pod}} {{gpu}}": f"gpu_memory_used_bytes{{{HERE}}} / gpu_memory_total_bytes{{{HERE}}}"},
        ),
    ),
}


def build() -> DashboardModel:
    """All rows, with the variables `source` (of the data) and `namespace`."""
    board = (
        dashboards.Dashboard("Robust Synthesis")
        .uid("robust-synthesis")
        .tags(["robust-synthesis"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboards.DatasourceVariable("source").type("prometheus").label("Data source"))
        .with_variable(
            dashboards.QueryVariable("namespace")
            .label("Namespace")
            .datasource(SOURCE)
            .query("label_values(synthesis_build_info, namespace)")
            .include_all(True)
            .all_value(".*")  # also where there is none
        )
    )
    number = itertools.count(1)
    for title, panels in ROWS.items():
        board.with_row(dashboards.Row(title).id(next(number)))
        for panel in panels:
            board.with_panel(_graph(panel).id(next(number)))
    return board.build()


def text() -> str:
    """As Grafana imports it."""
    return JSONEncoder(sort_keys=True, indent=2).encode(build()) + "\n"


def _graph(panel: Panel) -> timeseries.Panel:
    graph = timeseries.Panel().title(panel.title).description(panel.says).unit(panel.unit).min(0)
    graph.datasource(SOURCE).span(8).height(8).fill_opacity(10)
    if panel.stacked:
        graph.stacking(_stacking())
    for letter, (legend, expression) in zip("ABCDEF", panel.expressions.items(), strict=False):
        graph.with_target(prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter))
    return graph


def _stacking() -> common.StackingConfig:
    return common.StackingConfig().mode(StackingMode.NORMAL)
