"""``bench/echo.py``: every server is in the table, those without figures, too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import runtime
from runtime.answers import to_json
from tests.bench_modules import SERVING, bench_modules


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The bench's modules, which find their neighbours in their own folder."""
    with bench_modules([*SERVING, "echo"]) as found:
        yield found


def named(bench: Any, name: str) -> Any:
    (server,) = [each for each in bench.echo.SERVERS if each.name == name]
    return server


def results(bench: Any, load: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Any:
    versions = {each.name: "1.0" for each in bench.echo.SERVERS}
    found = bench.echo.Results("2026-01-01", load, bench.echo.Lengths(2, 3.0), versions)
    for server, rate in ((bench.echo.BASE, 100.0), (named(bench, "bare uvicorn"), 450.0)):
        for clients in bench.echo.CLIENTS:
            found.note(server, clients, rate)
            found.note(server, clients, 2 * rate)
    return found


def row(bench: Any, found: Any, name: str) -> str:
    (line,) = [each for each in bench.echo.lines(found) if each.startswith(f"| {name} |")]
    return line


def bare_bench(bench: Any, tmp_path: Path) -> Any:
    return bench.echo.Bench(tmp_path, tmp_path, bench.echo.Lengths(1, 0.05))


def test_a_ratio_is_to_rays_proxy_in_the_same_round(bench: Any) -> None:
    cell = bench.echo.cell([300.0, 800.0, 500.0], [100.0, 200.0, 100.0])
    assert cell == "4.00 [3.00 to 5.00] (500/s)"
    assert bench.echo.cell([300.0], [100.0]) == "3.00 (300/s)"
    assert row(bench, results(bench), "bare uvicorn").count("4.50 [4.50 to 4.50] (675/s)") == 4


def test_a_round_without_figures_is_told_and_shifts_no_ratio(bench: Any) -> None:
    cell = bench.echo.cell(["failed", 800.0], [100.0, 200.0])
    assert cell == "4.00 (800/s); failed: 1 of 2 rounds"
    assert bench.echo.cell(["did not start"] * 2, [100.0, 200.0]) == "did not start"


def test_without_rays_proxy_there_are_rates_alone(bench: Any) -> None:
    assert bench.echo.cell([300.0, 400.0], ["did not start"] * 2) == "(350/s)"
    assert bench.echo.cell([300.0], [0.0]) == "(300/s)"


def test_a_missing_rival_is_in_the_table_as_such(bench: Any, tmp_path: Path) -> None:
    found = results(bench)
    server = named(bench, "LitServe")
    found.versions["LitServe"] = server.version(tmp_path)
    assert found.versions["LitServe"] is None
    line = row(bench, found, "LitServe")
    assert line.startswith("| LitServe | not installed |")
    assert line.count("|") == row(bench, found, "bare uvicorn").count("|")
    assert "litserve" not in "\n".join(bench.echo.lines(found))
    assert "bentoml 1.0" in "\n".join(bench.echo.lines(found))


def test_every_server_has_a_row_from_the_beginning(bench: Any) -> None:
    text = bench.echo.lines(results(bench))
    rows = [line for line in text if line.startswith("| ")]
    assert [line.split(" | ")[0][2:] for line in rows[1:]] == [s.name for s in bench.echo.SERVERS]
    assert len({line.count("|") for line in rows}) == 1


def test_a_busy_machine_is_told_in_the_pages_head(bench: Any) -> None:
    quiet, busy = (
        "\n".join(bench.echo.lines(results(bench, load)))
        for load in ((0.1, 9.0, 9.0), (99.0, 9.0, 9.0))
    )
    assert "busy with other work" in busy
    assert "busy with other work" not in quiet
    assert "99.0, 9.0, 9.0" in busy


@pytest.mark.parametrize("error", [SystemExit("no"), subprocess.TimeoutExpired("load", 1)])
def test_a_server_that_does_not_start_is_noted_and_the_run_goes_on(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException
) -> None:
    def fails(*_: Any) -> AbstractContextManager[str]:
        raise error

    run = bare_bench(bench, tmp_path)
    monkeypatch.setattr(bench.echo.Bench, "_serve", fails)
    run.results.versions = {each.name: "1.0" for each in bench.echo.SERVERS}
    told: list[int] = []
    found = run.run(lambda: told.append(1))
    assert len(told) == len(bench.echo.SERVERS)
    rounds = [["did not start"]] * len(bench.echo.CLIENTS)
    assert [list(found.rates[each.name].values()) for each in bench.echo.SERVERS] == [rounds] * 6
    assert bench.echo.ours_failed(found) == [s.name for s in bench.echo.SERVERS if not s.rival]


def test_a_server_without_a_right_answer_is_noted(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def silent(*_: Any) -> AbstractContextManager[str]:
        return nullcontext("http://127.0.0.1:9")

    run, rival = bare_bench(bench, tmp_path), named(bench, "BentoML")
    monkeypatch.setattr(bench.echo.Bench, "_serve", silent)
    monkeypatch.setattr(bench.serving, "SETTLE_S", 0.1)
    run.play(rival)
    assert list(run.results.rates["BentoML"].values()) == [["no right answer"]] * 4
    assert bench.echo.ours_failed(run.results) == []


def test_a_wrong_answer_gives_no_figure(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wrong(*_: Any) -> list[Any]:
        return [bench.load.Sent(0.0, 0.01, 200, right=right) for right in (True, False)]

    monkeypatch.setattr(bench.echo, "send", wrong)
    run = bare_bench(bench, tmp_path)
    found = run._rate(named(bench, "BentoML"), "http://127.0.0.1:9", 8)
    assert found == "1 wrong answers of 2, the first with 200"


def test_all_are_sent_the_same_bytes(bench: Any, tmp_path: Path) -> None:
    run, url = bare_bench(bench, tmp_path), "http://127.0.0.1:9"
    model, *others = sorted(bench.echo.SERVERS, key=lambda server: bool(server.program))
    bodies = {run._ask(server, url).body for server in others}
    assert len(bodies) == 1
    (body,) = bodies
    assert len(body) == 27 * 1024
    assert run._ask(model, url).body.endswith(body)


def test_bare_uvicorn_answers_the_length(bench: Any, tmp_path: Path) -> None:
    run, server = bare_bench(bench, tmp_path), named(bench, "bare uvicorn")
    with run._serve(server) as url:
        found = bench.load.send(run._ask(server, url), bench.load.Closed(4, 0.2))
    assert len(found) >= 4
    assert all(each.right for each in found)


def test_the_model_answers_the_sum(bench: Any, tmp_path: Path) -> None:
    bench.echo.build(tmp_path / "sum")
    run = bare_bench(bench, tmp_path)
    want = run._ask(named(bench, "deployc, with a model"), "http://127.0.0.1:9").want
    with runtime.load(tmp_path / "sum") as predictor:
        (answer,) = predictor.predict([bench.echo.numbers()])
    assert want in json.dumps(to_json(answer))
