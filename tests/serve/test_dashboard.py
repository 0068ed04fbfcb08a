"""The Grafana dashboard: it asks for what the code makes, for all of it, and by its labels."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serve.model import Model, Options

FILE = Path("docs") / "grafana" / "deployc.json"
RAYS_TAGS = {"application", "deployment", "replica"}
"""What Ray Serve adds to every metric."""
KINDS = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
"""What Prometheus gets to see of a metric."""


@dataclass(frozen=True)
class Metric:
    """One that the code makes."""

    name: str
    kind: str
    tags: frozenset[str]

    @property
    def exported(self) -> set[str]:
        return {f"ray_{self.name}{suffix}" for suffix in KINDS[self.kind]}


def _made(root: Path) -> Iterator[Metric]:
    """The metrics that the code makes, read from its text."""
    for file in (root / "serve").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="metrics"), attr=kind),
                    args=[ast.Constant(value=str(name)), *_],
                ) if kind in KINDS:
                    texts = [e for k in node.keywords if k.arg == "tag_keys" for e in ast.walk(k)]
                    tags = {str(e.value) for e in texts if isinstance(e, ast.Constant)}
                    yield Metric(name, kind, frozenset(tags))
                case _:
                    pass


@pytest.fixture(scope="module")
def metrics(root: Path) -> list[Metric]:
    found = list(_made(root))
    assert len(found) >= 8
    return found


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    return json.loads((root / FILE).read_text("utf-8"))


@pytest.fixture(scope="module")
def expressions(dashboard: dict[str, Any]) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = dashboard["templating"]["list"]
    return found + [each["definition"] for each in variables if each["type"] == "query"]


def _names(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", expression))


def test_every_metric_that_a_panel_names_is_made(
    expressions: list[str], metrics: list[Metric]
) -> None:
    exported = {name for metric in metrics for name in metric.exported}
    for expression in expressions:
        assert _names(expression), expression
        assert _names(expression) <= exported, expression


def test_every_metric_that_is_made_is_on_a_panel(
    dashboard: dict[str, Any], metrics: list[Metric]
) -> None:
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for expression in targets for name in _names(expression)}
    assert [metric.name for metric in metrics if not metric.exported & named] == []


def test_labels_are_those_of_the_metric_they_are_asked_of(
    expressions: list[str], metrics: list[Metric], make_predictor: Any
) -> None:
    variant = {*Model(make_predictor(), Options("twice", 8, 64)).variant_in_use(), "provider"}
    for expression in expressions:
        asked = [metric for metric in metrics if metric.exported & _names(expression)]
        own = [variant if m.name == "deployc_variant_in_use" else m.tags for m in asked]
        known = RAYS_TAGS | {"le"} | set[str]().union(*own)
        matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
        grouped = re.findall(r"\bby\s*\(([^)]*)\)", expression)
        named = {*matched, *(label.strip() for each in grouped for label in each.split(","))}
        listed = re.findall(r"^label_values\(.*,\s*(\w+)\)$", expression)
        assert named | set(listed) <= known, expression


def test_legends_name_labels_that_the_query_keeps(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            kept = ",".join(re.findall(r"\bby\s*\(([^)]*)\)", target["expr"]))
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert label in re.split(r",\s*", kept), panel["title"]


def test_counters_are_read_as_rates_and_gauges_are_not(
    expressions: list[str], metrics: list[Metric]
) -> None:
    gauges = {name for m in metrics if m.kind == "Gauge" for name in m.exported}
    for expression in expressions:
        rated = set(re.findall(r"\brate\((ray_\w+){[^}]*}\[\$__rate_interval\]\)", expression))
        assert _names(expression) - gauges == rated, expression


def test_quantiles_are_taken_of_buckets_by_their_ends(expressions: list[str]) -> None:
    taken = [each for each in expressions if each.startswith("histogram_quantile")]
    assert len(taken) >= 2
    for expression in taken:
        assert re.fullmatch(
            r"histogram_quantile\(0\.\d+, sum by \(le[^)]*\) "
            r"\(rate\(ray_\w+_bucket{[^}]*}\[\$__rate_interval\]\)\)\)",
            expression,
        ), expression


def test_brackets_close_and_variables_exist(
    expressions: list[str], dashboard: dict[str, Any]
) -> None:
    known = {each["name"] for each in dashboard["templating"]["list"]} | {"__rate_interval"}
    for expression in expressions:
        rest = re.sub(r'"[^"]*"', "", expression)
        for pair in ("()", "{}", "[]"):
            assert rest.count(pair[0]) == rest.count(pair[1]), expression
        assert set(re.findall(r"\$(\w+)", expression)) <= known, expression


def test_the_model_is_chosen_by_a_variable_in_every_query(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            selectors = re.findall(r"{([^}]*)}", target["expr"])
            assert selectors
            chosen = re.compile(r'\b(deployment|model)=~"\$model"')  # a split has two deployments
            assert all(chosen.search(each) for each in selectors), panel["title"]


def test_panels_have_their_own_places_and_grafana_10_s_form(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 38
    assert dashboard["id"] is None, "Grafana gives it one where it is imported"
    assert (dashboard["uid"], dashboard["title"]) == ("deployc", "deployc")
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
