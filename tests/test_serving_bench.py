"""``bench/serving.py``: the load is open, what came back is counted right, nothing is made up."""

from __future__ import annotations

import asyncio
import dataclasses
import http.server
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime.answers import to_json
from tests.bench_modules import BENCH, SERVING, bench_modules

SPECS = BENCH.parent / "specs"
ENGINE = "sleeping_engines.sleeping"
ANSWER = b"HTTP/1.1 200 OK\r\nServer-Timing: pre;dur=1.500, engine;dur=4.250\r\n"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The bench's modules, which find their neighbours in their own folder."""
    folders = [BENCH, BENCH / "sleeping"]
    with bench_modules(SERVING, [ENGINE, "sleeping_engines"], folders) as found:
        found.sleeping = importlib.import_module(ENGINE)
        yield found


def plan(bench: Any, **changed: Any) -> Any:
    return bench.load.Open(**{"rate": 100.0, "seconds": 2.0, "slo_ms": 50.0, "seed": 1, **changed})


def sent(bench: Any, due: float, took: float | None, status: int = 200, timing: str = "") -> Any:
    return bench.load.Sent(due, took, status, status == 200, timing)


def model(bench: Any, **changed: Any) -> Any:
    about: dict[str, Any] = {"name": "m", "artifact": Path("a"), "body": b"body", "image": True}
    return bench.players.Played(**{**about, "want": "three", "slo_ms": 250.0, **changed})


def outcome(bench: Any, goodput: float) -> Any:
    return bench.serving_table.Outcome(100, int(goodput), 0, 0, 0, goodput, 20.0, 40.0)


def test_arrivals_are_the_same_for_the_same_seed_alone(bench: Any) -> None:
    one = bench.load.due_times(plan(bench))
    assert one == bench.load.due_times(plan(bench))
    assert one != bench.load.due_times(plan(bench, seed=2))


def test_arrivals_come_at_the_rate_and_within_the_time(bench: Any) -> None:
    dues = bench.load.due_times(plan(bench, rate=1000.0, seconds=10.0))
    assert len(dues) == pytest.approx(10_000, rel=0.05)
    assert dues == sorted(dues)
    assert dues[-1] < 10


def test_latency_counts_from_the_due_time_and_arrivals_do_not_wait_for_answers(bench: Any) -> None:
    found, waiting = asyncio.run(stalled(bench, stall=0.3))
    early = [each for each in found if each.due < 0.2]
    assert waiting >= len(early) > 5
    assert len(found) == len(bench.load.due_times(plan(bench, seconds=0.5)))
    assert all(each.right for each in found)
    assert all(each.took + each.due > 0.29 for each in early)


def test_an_answer_that_is_still_missing_at_the_end_is_counted(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.load, "DRAIN_S", 0.05)
    found, _ = asyncio.run(stalled(bench, stall=60))
    assert len(found) == len(bench.load.due_times(plan(bench, seconds=0.5)))
    assert bench.serving_table.outcome(found, plan(bench)).failed == len(found)


async def stalled(bench: Any, stall: float) -> tuple[list[Any], int]:
    """What an open loop finds at a server that answers nobody before ``stall``.

    And how many requests it held by then.
    """
    opened = asyncio.Event()
    held: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(4)
            held.append(opened.is_set())
            await opened.wait()
            writer.write(ANSWER + b"Content-Length: 5\r\n\r\nthree")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ask = bench.load.Ask(f"http://127.0.0.1:{port}/x", b"body", "text/plain", "three")
    load = bench.load._Load(ask)
    asyncio.get_running_loop().call_later(stall, opened.set)
    await load.open(plan(bench, seconds=0.5))
    server.close()
    return load.sent, held.count(False)


def test_an_answer_that_never_comes_is_failed(bench: Any) -> None:
    ask = bench.load.Ask("http://127.0.0.1:9/x", b"", "text/plain", "three")
    load = bench.load._Load(ask)
    asyncio.run(load.open(plan(bench, seconds=0.1)))
    assert load.sent
    assert bench.serving_table.outcome(load.sent, plan(bench)).failed == len(load.sent)


@pytest.mark.parametrize(
    ("got", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-le", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
    ],
)
def test_a_response_is_whole_when_its_last_byte_is_there(
    bench: Any, got: bytes, *, whole: bool
) -> None:
    assert bench.load._whole(got) is whole


def test_an_answer_is_right_only_with_status_200_and_what_it_must_say(bench: Any) -> None:
    head = bench.load.head_of
    assert head(ANSWER + b"\r\n\r\nthree", b"three")[:2] == (200, True)
    assert head(ANSWER + b"\r\n\r\nfour", b"three")[:2] == (200, False)
    assert head(b"HTTP/1.1 503 No\r\n\r\nthree", b"three")[:2] == (503, False)
    assert head(b"", b"three")[:2] == (0, False)


def test_stages_are_read_from_server_timing(bench: Any) -> None:
    _, _, timing = bench.load.head_of(ANSWER + b"\r\n", b"")
    assert bench.serving_table.stage_ms(timing, "engine") == 4.25
    assert bench.serving_table.stage_ms(timing, "pre") == 1.5
    assert bench.serving_table.stage_ms(timing, "post") == 0


def test_every_counted_arrival_has_one_end_and_the_warm_up_has_none(bench: Any) -> None:
    found = [
        sent(bench, 0.5, 0.001),
        sent(bench, 1.0, 0.049),
        sent(bench, 1.1, 0.051),
        sent(bench, 1.2, 0.001, 429),
        sent(bench, 1.3, 0.001, 504),
        sent(bench, 1.4, 0.001, 500),
        sent(bench, 1.5, None, 0),
    ]
    made = bench.serving_table.outcome(found, plan(bench, warm_up=1.0))
    ends = (made.in_time, made.late, made.refused, made.failed)
    assert ends == (1, 1, 2, 2)
    assert made.sent == sum(ends)


def test_goodput_is_per_second_of_the_time_that_counts(bench: Any) -> None:
    found = [sent(bench, 1.0 + n / 100, 0.01) for n in range(30)]
    assert bench.serving_table.outcome(found, plan(bench, warm_up=1.5)).goodput == 0
    assert bench.serving_table.outcome(found, plan(bench, warm_up=0.5)).goodput == 20


def test_the_engine_is_taken_out_request_by_request(bench: Any) -> None:
    timing = "pre;dur=0.5, queue;dur=9, engine;dur={}, post;dur=0.25"
    found = [sent(bench, 0, 0.001 * (e + 2), 200, timing.format(e)) for e in (5, 50, 20)]
    made = bench.serving_table.beside(found, 21.0)
    assert made.beside_ms == pytest.approx(2)
    assert (made.engine_ms, made.processing_ms, made.bare_p50_ms) == (20, 0.75, 21)


def test_saturation_is_counted_from_answer_to_answer(bench: Any) -> None:
    ends = [0.2, 0.4, 0.9, 1.4, 1.9, 2.2]
    found = [sent(bench, 0.0, end) for end in ends]
    loop = bench.load.Closed(2, 2.0)
    assert bench.serving_table.answered(found, loop, items=8) == pytest.approx(8 * 3 / 1.5)
    assert bench.serving_table.answered(found[:1], loop) == 0
    assert bench.serving_table.answered([], loop) == 0


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was sent; every third connection ends without an answer."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).asked += 1
        if self.asked % 3 == 0:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Server-Timing", "engine;dur=1.5")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


def test_one_client_asks_again_and_again_until_it_gets_no_answer(bench: Any) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask = bench.load.Ask(f"http://127.0.0.1:{server.server_port}/", b"x" * 100_000, "a/b", "xx")
        found = bench.load.send(ask, bench.load.Closed(1, 20.0))
        server.shutdown()
    assert [(each.status, each.right) for each in found] == [(200, True)] * 2 + [(0, False)]
    assert found[0].timing == "engine;dur=1.5"
    assert found[2].took is None
    assert found[0].due + found[0].took <= found[1].due


STOPPED = """
import sys, time
sys.path.insert(0, {bench!r})
from _child import child
try:
    with child([sys.executable, "-c", {server!r}], r"serving at (\\S+)") as pid:
        print(pid, flush=True)
        time.sleep(600)
except SystemExit:
    time.sleep(600)  # as for a rival that does not start
"""
SERVER = "import os, time; print('serving at', os.getpid(), flush=True); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_bench_that_is_told_to_end_does_and_so_does_its_server(number: signal.Signals) -> None:
    program = STOPPED.format(bench=str(SPECS.parent / "bench"), server=SERVER)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as bench:
        assert bench.stdout
        server = int(bench.stdout.readline())
        bench.send_signal(number)
        assert bench.wait(60) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_a_spread_is_the_median_and_the_range_over_rounds(bench: Any) -> None:
    assert bench.serving_table.spread([1.0]) == "1.00"
    assert bench.serving_table.spread([3.0, 1.0, 1.5]) == "1.50 (1.00 to 3.00)"


def test_ratios_are_taken_round_by_round(bench: Any) -> None:
    found = {"deployc": [outcome(bench, g) for g in (90, 30)]}
    found["Ray"] = [outcome(bench, g) for g in (30, 30)]
    rows = bench.serving_table.live_rows(found, 100.0)
    assert rows[1][:4] == ["Ray", "30 (30 to 30)", "0.30", "2.00 (1.00 to 3.00)"]


def test_a_rival_without_answers_in_time_gets_no_ratio(bench: Any) -> None:
    found = {"deployc": [outcome(bench, 90)], "Ray": [outcome(bench, 0)]}
    assert bench.serving_table.live_rows(found, 100.0)[1][3] == "theirs is 0"


def test_a_goal_that_is_missed_is_said_to_be_missed(bench: Any) -> None:
    served = bench.serving_table.Served
    found = {"slow": [served(69, 100, 80)], "fast": [served(71, 100, 80)]}
    rows = bench.serving_table.served_table(found, {"slow": 0.7, "fast": 0.7})
    assert [row.split(" | ")[5] for row in rows[2:]] == ["no", "yes"]


def results(bench: Any, load: tuple[float, float, float]) -> Any:
    found = bench.serving.Results("2026-01-01", load, models=[model(bench, capacity=100.0)])
    found.versions = {"deployc": "", "LitServe": None}
    found.live = {"m": {0.5: {"deployc": [outcome(bench, 50)]}}}
    return found


def test_a_rival_that_is_not_installed_is_in_the_table_as_such(bench: Any) -> None:
    text = bench.serving_write.lines(results(bench, (0, 0, 0)), bench.serving.QUICK, 4.0)
    (row,) = [line for line in text if "LitServe" in line]
    assert row.startswith("| 50% | LitServe | not installed |")
    (ours,) = [line for line in text if "| deployc | 50" in line]
    assert row.count("|") == ours.count("|")


def test_a_rival_without_a_right_answer_is_in_the_table_as_such(bench: Any) -> None:
    found = results(bench, (0, 0, 0))
    found.live["m"][0.5] |= {"LitServe": ["did not start"], "BentoML": ["no right answer in 30 s"]}
    text = bench.serving_write.lines(found, bench.serving.QUICK, 4.0)
    rows = [line for line in text if line.startswith("| 50% |")]
    assert "| 50% | LitServe | did not start |" in rows[1]
    assert "| 50% | BentoML | no right answer in 30 s |" in rows[2]
    assert len({row.count("|") for row in rows}) == 1


def test_a_rival_that_is_silent_in_one_round_has_the_figures_of_the_others(bench: Any) -> None:
    found: dict[str, list[Any]] = {"deployc": [outcome(bench, g) for g in (90, 30)]}
    found["Ray"] = ["no right answer in 30 s", outcome(bench, 10)]
    row = bench.serving_table.live_rows(found, 100.0)[1]
    assert row[:2] == ["Ray (no right answer in 30 s: 1 of 2 rounds)", "10"]
    assert row[3] == "3.00"


def silent_bench(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run in which nobody listens at the address of any server."""
    monkeypatch.setattr(bench.serving, "SETTLE_S", 0.1)
    found = bench.serving.Bench.__new__(bench.serving.Bench)
    found.lengths, found.results = bench.serving.QUICK, results(bench, (0, 0, 0))
    return found


def test_a_rival_that_does_not_answer_is_noted_and_the_run_goes_on(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, played = silent_bench(bench, monkeypatch), model(bench)
    run._live(bench.players.LitServe({}, tmp_path), "http://127.0.0.1:9", played, 0)
    noted = [rows["LitServe"] for rows in run.results.live["m"].values()]
    assert noted == [["no right answer in 0.1 s"]] * len(bench.serving.SHARES)


def test_nothing_is_compared_with_a_server_of_ours_that_does_not_answer(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, played = silent_bench(bench, monkeypatch), model(bench)
    with pytest.raises(SystemExit, match="gave no right answer"):
        run._live(bench.players.Deployc({}, tmp_path), "http://127.0.0.1:9", played, 0)


@pytest.fixture
def played(bench: Any, digits_artifact: Path, linear_artifact: Path) -> list[Any]:
    """A model that takes pictures, and one that takes numbers."""
    picture = (SPECS / "samples" / "digits" / "digit_3.png").read_bytes()
    want = answer_of(linear_artifact, [1.0, 2.0])
    digits: dict[str, Any] = {"artifact": digits_artifact, "body": picture, "want": '"three"'}
    linear: dict[str, Any] = {"artifact": linear_artifact, "body": b"[1.0,2.0]", "want": want}
    return [
        model(bench, name="digits", slo_ms=5000.0, **digits),
        model(bench, name="linear", slo_ms=5000.0, image=False, **linear),
    ]


@pytest.mark.parametrize("name", ["LitServe", "BentoML"])
@pytest.mark.parametrize("most", [1, 8])
def test_a_rival_gives_the_right_answer_to_an_image_and_to_numbers(
    bench: Any, played: list[Any], tmp_path: Path, name: str, most: int
) -> None:
    player = getattr(bench.players, name)(bench.artifacts.plug_in(tmp_path), bench.serving.RIVALS)
    if player.version is None:
        pytest.skip(f"no {player.package}: pip install --target {player.packages} {player.package}")
    sized = [dataclasses.replace(each, max_batch=most) for each in played]
    with player.serve(sized, tmp_path) as url:
        for each in sized:
            found = bench.load.send(player.ask(url, each), bench.load.Closed(4, 0.5))
            assert len(found) >= 4
            assert {(got.status, got.right) for got in found} == {(200, True)}, each.name


def answer_of(artifact: Path, item: list[float]) -> str:
    """The number that an artifact of one output answers, as JSON writes it."""
    with runtime.load(artifact) as predictor:
        (answer,) = predictor.predict([np.asarray(item, np.float32)])
    (values,) = to_json(answer)["outputs"].values()
    return str(values[0])


def test_a_busy_machine_is_told_in_the_tables_head(bench: Any) -> None:
    quiet, busy = (
        "\n".join(bench.serving_write.lines(results(bench, load), bench.serving.QUICK, 4.0))
        for load in ((0.1, 9.0, 9.0), (99.0, 9.0, 9.0))
    )
    assert "busy with other work" in busy
    assert "busy with other work" not in quiet
    assert "99.0, 9.0, 9.0" in busy


def test_results_are_written_as_json_without_the_bodies(bench: Any, tmp_path: Path) -> None:
    bench.serving_write.write(results(bench, (0, 0, 0)), bench.serving.Lengths(), 4.0, tmp_path)
    found = json.loads((tmp_path / "serving.json").read_text("utf-8"))
    assert found["models"][0]["body"] == len(b"body")
    assert found["live"]["m"]["0.5"]["deployc"][0]["goodput"] == 50


def test_packages_are_looked_for_in_their_folder_alone(bench: Any, tmp_path: Path) -> None:
    assert bench.players.LitServe({}, tmp_path).version is None
    info = tmp_path / "litserve-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: litserve\nVersion: 1.2\n")
    assert bench.players.LitServe({}, tmp_path).version == "1.2"
    assert bench.players.Deployc({}, tmp_path).version == ""


def test_what_is_held_is_capacity_times_slo_and_two_batches_at_least(bench: Any) -> None:
    assert model(bench, capacity=840.0, max_batch=84, slo_ms=200.0).held == 168
    assert model(bench, capacity=10.0, max_batch=4).held == 8


def test_every_server_is_sent_the_same_item(bench: Any, tmp_path: Path) -> None:
    played = model(bench, want="y", image=False)
    played = dataclasses.replace(played, body=b"[1.0,2.0]")
    sent_bodies = [
        json.loads(kind({}, tmp_path).ask("http://127.0.0.1:1", played).body)
        for kind in bench.players.PLAYERS
    ]
    item = [1.0, 2.0]
    assert sent_bodies == [item, item, {"item": item}, {"items": [item]}]


def test_the_sleeping_engine_has_the_curve_of_the_simulated_one(bench: Any) -> None:
    options = bench.sleeping.SleepingOptions()
    assert (options.base_ms, options.item_ms) == bench.artifacts.CURVE_MS
    spec = bench.artifacts.sleeping_spec(4.0)
    assert spec["targets"][0]["options"] == {"base_ms": 16.0, "item_ms": 1.0}
    text = (BENCH / "batching" / "scenarios.py").read_text("utf-8")
    assert "tuple(4 + 0.25 * size for size in _SIZES)" in text


def test_a_sleeping_run_lasts_as_long_as_said_and_answers_as_the_graph(bench: Any) -> None:
    class Inner:
        def run(self, inputs: Any) -> Any:
            time.sleep(0.01)
            return {"Y": inputs["X"] * 2}

    options = bench.sleeping.SleepingOptions(base_ms=20, item_ms=10)
    session = bench.sleeping.SleepingSession(Inner(), options)
    times: list[float] = []
    for _ in range(10):
        began = time.perf_counter()
        found = session.run({"X": np.ones((3, 2))})
        times.append(time.perf_counter() - began)
        assert (found["Y"] == 2).all()
    assert min(times) == pytest.approx(0.05, abs=0.02)  # a busy machine adds to some of them
    assert min(times) >= 0.05


def test_the_sleeping_engine_is_found_as_an_installed_plug_in(bench: Any, tmp_path: Path) -> None:
    ask = "from runtime.engines import get_engine; print(get_engine('sleeping').name)"
    env = {**os.environ, **bench.artifacts.plug_in(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ask], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "sleeping\n"


def test_a_server_that_does_not_start_ends_the_bench_with_its_own_words(bench: Any) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such port')"]
    with (
        pytest.raises(SystemExit, match="no such port"),
        bench.child.child(command, r"serving at (\S+)"),
    ):
        pytest.fail("it did not start")


def test_a_server_is_ended_by_its_id_and_leaves_nothing(bench: Any) -> None:
    code = "import os, time; print('serving at', os.getpid(), flush=True); time.sleep(60)"
    with bench.child.child([sys.executable, "-c", code], r"serving at (\S+)") as pid:
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
