"""The page at ``/``: its files, and how it behaves in a real browser over a real server."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

import runtime
from runtime.tensors import Tensors
from serve.args import SplitGate
from serve.canary import Pair, SplitModel
from serve.guard import Keys
from serve.http import http_app
from serve.model import Model, Options
from serve.served import Served
from serve.split import Shares
from serve.stats import Stats
from tests.serve.chromium import chromium

MakePredictor = Callable[..., Any]
FILES = {each.name: each.read_bytes() for each in files("serve.page").iterdir() if each.is_file()}
SERVED = {name: content for name, content in FILES.items() if not name.endswith(".py")}
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
NAMESPACE = b"http://www.w3.org/2000/svg"
KEY = "0123456789abcdef"
ARTIFACTS = "DEPLOYC_TEST_ARTIFACTS"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
START_S = 120


# --- the files, without a browser


def get(predictor: Any, path: str, *keys: str, root: str = "", **headers: str) -> httpx.Response:
    """One GET, below the prefix ``root``."""

    async def main() -> httpx.Response:
        model = Model(predictor, Options("twice"))
        transport = httpx.ASGITransport(http_app([model], Keys(keys)), root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get(path, headers=headers)
        await model.close()
        return response

    return asyncio.run(main())


@pytest.mark.parametrize("name", sorted(SERVED))
def test_every_file_of_the_page_comes_as_it_is_with_its_type(
    make_predictor: MakePredictor, name: str
) -> None:
    response = get(make_predictor(), "/" if name == "index.html" else f"/page/{name}")
    assert response.status_code == 200
    assert response.content == SERVED[name]
    assert response.headers["content-type"] == TYPES[name.rpartition(".")[2]]
    assert response.headers["cache-control"] == "no-cache"
    assert "script-src 'self'" in response.headers["content-security-policy"]


def test_a_file_that_the_browser_has_is_not_sent_again(make_predictor: MakePredictor) -> None:
    tag = get(make_predictor(), "/").headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = get(make_predictor(), "/", **{"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert get(make_predictor(), "/", **{"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "index.html", "..%2Fpages.py", ""])
def test_nothing_else_lies_beside_the_page(make_predictor: MakePredictor, name: str) -> None:
    response = get(make_predictor(), f"/page/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_route"


def test_a_prefix_without_a_slash_leads_to_the_page(make_predictor: MakePredictor) -> None:
    response = get(make_predictor(), "/some/app", root="/some/app")
    assert response.status_code == 307
    assert response.next_request is not None
    assert response.next_request.url == "http://test/some/app/"
    below = get(make_predictor(), "/some/app/", root="/some/app")
    assert below.content == SERVED["index.html"]


def test_the_page_needs_no_key_and_what_it_asks_for_does(make_predictor: MakePredictor) -> None:
    for path in ("/", "/page/page.js"):
        assert get(make_predictor(), path, KEY).status_code == 200
    for path in ("/models", "/models/twice/stats", "/pages", "/page"):
        assert get(make_predictor(), path, KEY).status_code == 401


def test_every_file_that_the_page_names_is_there() -> None:
    text = b"\n".join(SERVED.values()).decode()
    named = set(re.findall(r'"(?:page/|\./)([\w.]+)"', text))
    assert named == SERVED.keys() - {"index.html"}


def test_the_page_names_no_other_host() -> None:
    for name, content in SERVED.items():
        rest = content.replace(NAMESPACE, b"")
        assert not re.search(rb"(https?:)?//[\w-]+\.\w", rest), name
        assert b"@import" not in rest, name


def test_the_page_has_nothing_that_a_strict_policy_forbids() -> None:
    html = SERVED["index.html"].decode()
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", html)
    assert re.findall(r"<script(?! type=\"module\" src=)", html) == []


def test_the_page_makes_no_markup_out_of_text() -> None:
    scripts = b"\n".join(content for name, content in SERVED.items() if name.endswith(".js"))
    forbidden = rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert not re.search(forbidden, scripts)


def test_the_page_is_small() -> None:
    assert sum(map(len, SERVED.values())) < 60_000


@pytest.mark.parametrize("seconds", [0.0, 0.000_012, 0.0123, 0.1, 59.0])
def test_the_latency_of_good_answers_is_counted_in_narrow_buckets(seconds: float) -> None:
    stats = Stats()
    stats.request("ok", seconds)
    stats.request("overloaded", 0.5)
    found = stats.to_json()["latency"]
    ((bucket, count),) = found["counts"].items()
    assert count == 1
    upper = found["ratio"] ** int(bucket)
    assert upper / found["ratio"] < max(1000 * seconds, 0.01) <= upper * (1 + 1e-9)


def test_every_replica_counts_under_a_name_of_its_own() -> None:
    assert Stats().to_json()["replica"] != Stats().to_json()["replica"]


# --- in a browser


@dataclass
class Server:
    """A server in a thread of this process."""

    models: Callable[[], Iterable[tuple[Any, str, Path | None]]]
    keys: tuple[str, ...] = ()
    serve: Callable[[list[Model]], Sequence[Served]] = list
    _server: uvicorn.Server | None = None

    async def _main(self) -> None:
        models: list[Model] = []
        for predictor, name, folder in self.models():
            models.append(Model(predictor, Options(name, threads=2), folder))
            await models[-1].warm_up()
        app = http_app(self.serve(models), Keys(self.keys))
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        await self._server.serve()
        for model in models:
            await model.close()

    @contextmanager
    def running(self) -> Generator[str, None, None]:
        thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        thread.start()
        deadline = time.monotonic() + START_S
        while not (self._server and self._server.started):
            assert thread.is_alive(), "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
        self._server.should_exit = True
        thread.join(30)


def answering(predictor: Any, answer: dict[str, Any]) -> Any:
    """The predictor, whose answers are all the same."""

    def postprocess(outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        return [answer for _ in outputs]

    def preprocess(_: object, _out: Tensors | None = None) -> Tensors:
        return {"x": np.ones(2, np.float32)}

    predictor.postprocess = postprocess
    if predictor.manifest.takes == "image":
        predictor.preprocess = preprocess
    return predictor


BOXES = [
    {"index": 0, "label": {"en": "cat", "de": "Katze"}, "score": 0.9, "box": [2.0, 1.0, 6.0, 4.0]},
    {"index": 1, "label": {"en": "dog", "de": "Hund"}, "score": 0.4, "box": [0.0, 0.0, 8.0, 8.0]},
]


@pytest.fixture(scope="module")
def browser() -> Generator[Any, None, None]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(
    browser: Any,  # noqa: ARG001 - no server is started where there is no browser
    digits_artifact: Path,
    make_predictor: MakePredictor,
) -> Generator[str, None, None]:
    """Digits, and models that are made up: of boxes, of a picture, of tensors."""

    def models() -> Iterable[tuple[Any, str, Path | None]]:
        yield runtime.load(digits_artifact), "digits", digits_artifact
        finder = make_predictor(takes="image", answer="detections")
        yield answering(finder, {"detections": BOXES}), "finder", None
        painter = make_predictor(takes="image", answer="image")
        yield answering(painter, {"image": np.full((16, 16, 3), 200, np.uint8)}), "painter", None
        yield make_predictor(), "twice", None

    with Server(models).running() as url:
        yield url


@dataclass
class Tab:
    """An open page, and everything that it should not have done."""

    page: Any
    url: str
    faults: list[str] = field(default_factory=list[str])

    def open(self) -> Tab:
        self.page.on("console", self._console)
        self.page.on("pageerror", self._error)
        self.page.on("request", self._request)
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (e) => console.error('policy', e.violatedDirective, e.blockedURI))"
        )
        self.page.goto(self.url)
        return self

    def choose(self, model: str) -> Tab:
        self.page.get_by_role("radio", name=model).check()
        return self

    def send(self, *paths: Path) -> Tab:
        self.page.set_input_files("#file", list(map(str, paths)))
        self.page.locator("#answer:not([aria-busy]) .timings").wait_for()
        return self

    def write(self, text: str) -> Tab:
        self.page.locator("#text").fill(text)
        self.page.locator("#text").press("Control+Enter")
        self.page.locator("#answer:not([aria-busy])").wait_for()
        return self

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).first.inner_text().split())

    def forgive(self, status: int) -> None:
        """Take back the lines in which Chromium itself tells of an error status."""
        self.faults = [fault for fault in self.faults if f"status of {status}" not in fault]

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _error(self, error: Any) -> None:
        self.faults.append(f"error: {error}")

    def _request(self, request: Any) -> None:
        here = (self.url, f"blob:{self.url}", "data:image/")
        if not request.url.startswith(here):
            self.faults.append(f"request: {request.url}")


OpenTab = Callable[..., Tab]


@pytest.fixture
def tab(browser: Any, site: str) -> Generator[OpenTab, None, None]:
    """Opens the page; at the end of the test it must have kept to the rules."""
    tabs: list[Tab] = []
    contexts: list[Any] = []

    def opened(url: str = site, **options: Any) -> Tab:
        contexts.append(browser.new_context(**{"viewport": DESK, "locale": "en-GB", **options}))
        tabs.append(Tab(contexts[-1].new_page(), url).open())
        return tabs[-1]

    yield opened
    for context in contexts:
        context.close()
    assert [fault for each in tabs for fault in each.faults] == []


@pytest.fixture
def kept(root: Path) -> Path:
    """Where screenshots are kept; ``DEPLOYC_TEST_ARTIFACTS`` names another place."""
    folder = Path(os.environ.get(ARTIFACTS) or root / "build" / "test-artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digit(root: Path, number: int) -> Path:
    return root / "specs" / "samples" / "digits" / f"digit_{number}.png"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {"color_scheme": "light"}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": PHONE, "device_scale_factor": 2, "has_touch": True}),
    ],
)
def test_a_picture_gets_its_answer_drawn_with_its_times(
    tab: OpenTab, root: Path, kept: Path, name: str, options: dict[str, Any]
) -> None:
    opened = tab(**options).choose("digits").send(digit(root, 3))
    assert opened.text(".bars li").startswith("three ")
    times = [opened.text(f"[data-stage={stage}] b") for stage in ("pre", "queue", "engine", "post")]
    assert all(re.fullmatch(r"[\d.e,-]+ m?s", each) for each in times)
    assert opened.text("[data-stage=batch]") == "rode in a batch of 1"
    shown = opened.page.locator(".sent")
    assert shown.evaluate("(picture) => [picture.naturalWidth, picture.naturalHeight]") == [8, 8]
    opened.page.locator(".plot polyline, .plot circle").first.wait_for(state="attached")
    opened.page.screenshot(path=kept / f"page-{name}.png", full_page=True)
    width = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "it scrolls sideways"


def test_light_and_dark_follow_the_system(tab: OpenTab) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    grounds = {
        scheme: sum(map(int, re.findall(r"\d+", tab(color_scheme=scheme).page.evaluate(paper))))
        for scheme in ("light", "dark")
    }
    assert grounds["dark"] < 200
    assert grounds["light"] > 600


def test_a_dropped_file_is_sent_and_so_is_a_pasted_one(tab: OpenTab, root: Path) -> None:
    opened = tab().choose("digits")
    hand = """([bytes, kind]) => {
      const held = new DataTransfer();
      held.items.add(new File([Uint8Array.from(bytes)], "a.png", { type: "image/png" }));
      const init = { bubbles: true, cancelable: true };
      dispatchEvent(kind === "drop" ? new DragEvent(kind, { ...init, dataTransfer: held })
                                    : new ClipboardEvent(kind, { ...init, clipboardData: held }));
    }"""
    for number, kind, label in ((7, "drop", "seven"), (4, "paste", "four")):
        opened.page.evaluate(hand, [list(digit(root, number).read_bytes()), kind])
        opened.page.locator(".bars li", has_text=label).first.wait_for()
        assert opened.text(".bars li").startswith(label)


def test_several_pictures_are_one_request_with_an_answer_each(tab: OpenTab, root: Path) -> None:
    opened = tab().choose("digits").send(digit(root, 1), digit(root, 2))
    best = opened.page.locator(".bars li:first-child .name").all_inner_texts()
    assert best == ["one", "two"]


def test_boxes_lie_on_the_picture_where_the_answer_says(
    tab: OpenTab, root: Path, kept: Path
) -> None:
    opened = tab().choose("finder").send(digit(root, 3))
    opened.page.locator(".box").first.wait_for()
    ground = opened.page.locator(".stage img").bounding_box()
    box = opened.page.locator(".box", has_text="cat").bounding_box()
    scale = ground["width"] / 8
    found = [(box["x"] - ground["x"]) / scale, (box["y"] - ground["y"]) / scale]
    found += [found[0] + box["width"] / scale, found[1] + box["height"] / scale]
    opened.page.screenshot(path=kept / "page-boxes.png")
    assert found == pytest.approx([2, 1, 6, 4], abs=0.05)


def test_labels_in_several_languages_have_a_switch(tab: OpenTab, root: Path) -> None:
    opened = tab().choose("finder").send(digit(root, 3))
    assert opened.text(".found li .name") == "cat"
    opened.page.get_by_label("Language").select_option("de")
    assert opened.text(".found li .name") == "Katze"
    assert opened.page.locator(".box", has_text="Hund").count() == 1


def test_unlikely_boxes_can_be_hidden(tab: OpenTab, root: Path) -> None:
    opened = tab().choose("finder").send(digit(root, 3))
    slider = opened.page.get_by_label("Smallest score that is shown")
    slider.fill("0.5")
    assert opened.page.locator(".box:visible").count() == 1
    assert opened.text("output") == "1 of 2 with a score from 0.50 on"


def test_a_picture_that_came_out_is_shown_over_the_one_that_was_sent(
    tab: OpenTab, root: Path, kept: Path
) -> None:
    opened = tab().choose("painter").send(digit(root, 3))
    assert opened.page.locator(".result").evaluate("(picture) => picture.naturalWidth") == 16
    opened.page.get_by_role("slider").fill("30")
    opened.page.screenshot(path=kept / "page-picture.png")
    assert opened.page.locator(".result").evaluate("(picture) => picture.style.opacity") == "0.3"
    assert "8 × 8 pixels in, 16 × 16 out" in opened.text("#drawn")  # noqa: RUF001 - as it is written


def test_tensors_are_written_as_json_and_come_back_drawn(tab: OpenTab) -> None:
    opened = tab().choose("twice")
    assert opened.page.locator("#text").input_value() == '{"x":[0,0]}'
    opened.write("[1, -2.5]").page.locator(".tensor").wait_for()
    assert opened.text(".tensor figcaption") == "y [2] from -5 to 2, length 5.39"
    assert opened.page.locator(".columns .minus").count() == 1


def test_a_refusal_shows_its_code_message_and_hint(tab: OpenTab, kept: Path) -> None:
    opened = tab().choose("twice").write('{"z": [1, 2]}')
    told = opened.page.get_by_role("alert")
    told.wait_for()
    opened.page.screenshot(path=kept / "page-refusal.png")
    words = " ".join(told.inner_text().split())
    start = "HTTP 400 wrong_input expected the inputs x, found z What to do: send a mapping"
    assert words.startswith(start)
    (fault,) = opened.faults
    assert "400" in fault  # Chromium itself tells of every error status
    opened.faults.clear()


def test_models_are_chosen_with_the_keyboard(tab: OpenTab) -> None:
    opened = tab().choose("digits")
    opened.page.get_by_role("radio", name="digits").focus()
    for name in ("finder", "painter", "twice"):
        opened.page.keyboard.press("ArrowDown")
        assert opened.page.evaluate("document.activeElement.value") == name
        assert opened.page.get_by_role("radio", name=name).is_checked()
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "Tensors as JSON"


def test_sending_again_and_again_shows_up_in_the_charts(tab: OpenTab, kept: Path) -> None:
    opened = tab().choose("twice").write("[1, 2]")
    opened.page.get_by_role("button", name="Send again and again").click()
    busy = re.compile(r"answered [1-9]\d")
    opened.page.locator(".chart .legend", has_text=busy).wait_for()
    opened.page.wait_for_timeout(2500)
    latency = opened.page.locator(".chart", has_text="Latency")
    assert re.search(
        r"half below \S+ m?s 99 % below \S+ m?s SLO 2 s", opened.text(".chart >> nth=2")
    )
    assert latency.locator("line.limit").count() == 1
    assert latency.locator("polyline").count() >= 2
    opened.page.screenshot(path=kept / "page-live.png", full_page=True)
    opened.page.get_by_role("button", name="Stop").click()
    opened.forgive(429)  # a machine that is busy may refuse some of them


def test_the_rates_of_both_artifacts_of_a_canary_are_added_up(tab: OpenTab) -> None:
    script = """async () => {
      const { History } = await import("./page/charts.js");
      const stats = (replica, ok) => ({ replica, requests: { ok }, late: 0, sheds: {},
        batches: { 1: { count: ok } }, items: ok, latency: { counts: {} } });
      const history = new History();
      history.add(0, stats("old", 5), stats("new", 7));
      history.add(1, stats("old", 15), stats("new", 10));
      return history.points;
    }"""
    (point,) = tab().page.evaluate(script)
    assert (point["answered"], point["batch"]) == (13, 1)


def test_a_server_with_keys_is_asked_with_the_key_that_was_typed(
    tab: OpenTab, make_predictor: MakePredictor
) -> None:
    with Server(lambda: [(make_predictor(), "twice", None)], (KEY,)).running() as url:
        opened = tab(url)
        opened.page.get_by_label("This server asks for an API key").fill(KEY)
        opened.page.get_by_role("button", name="Use it").click()
        opened.choose("twice").write("[1, 2]").page.locator(".tensor").wait_for()
        opened.forgive(401)
        opened.page.close()


def test_a_canary_shows_its_share_and_the_work_of_both_artifacts(
    tab: OpenTab, make_predictor: MakePredictor
) -> None:
    def split(models: list[Model]) -> Sequence[Served]:
        stable, new = models
        pair = Pair("canary", "new", "a" * 64, "b" * 64, Shares(1.0, 0.0), SplitGate())
        return [SplitModel(pair, stable, new)]

    def models() -> Iterable[tuple[Any, str, Path | None]]:
        return [(make_predictor(), "twice", None), (make_predictor(), "new", None)]

    with Server(models, serve=split).running() as url:
        opened = tab(url).choose("twice")
        assert "canary: the new artifact answers 100 % of the requests" in opened.text(".about")
        opened.write("[1, 2]").page.get_by_role("button", name="Send again and again").click()
        busy = re.compile("answered [1-9]")  # though the stable one, whose counts come first, idles
        opened.page.locator(".chart .legend", has_text=busy).wait_for()
        opened.page.close()
        opened.forgive(429)  # a machine that is busy may refuse some of them


def test_quantiles_come_out_of_the_buckets(tab: OpenTab) -> None:
    script = """async () => {
      const { quantile } = await import("./page/charts.js");
      const counts = { 10: 50, 20: 49, 30: 1 };
      return [0.5, 0.99, 1].map((share) => Math.log(quantile(counts, 1.1, share)) / Math.log(1.1));
    }"""
    assert tab().page.evaluate(script) == pytest.approx([10, 20, 30])


def test_the_rates_of_several_replicas_are_added_up(tab: OpenTab) -> None:
    script = """async () => {
      const { History } = await import("./page/charts.js");
      const stats = (replica, ok, busy) => ({ replica, requests: { ok, overloaded: busy }, late: 0,
        sheds: { busy }, batches: { 2: { count: ok / 2 } }, items: ok, latency: { counts: {} } });
      const history = new History();
      history.add(0, stats("a", 1000, 0));
      history.add(1, stats("b", 10, 0));
      history.add(2, stats("a", 1020, 6));
      history.add(3, stats("b", 50, 0));
      history.add(4, stats("c", 0, 0));
      history.add(5, stats("a", 0, 0));
      return [history.points.at(-1), history.points[1], history.sheds];
    }"""
    last, both, sheds = tab().page.evaluate(script)
    assert (both["answered"], both["refused"], both["shed"]) == (30, 3, 3)
    assert (both["batch"], sheds) == (2, {"busy": 6})
    assert last["answered"] == 20  # a was restarted, and c has only been met
