// The page: chooses a model, sends what is dropped, pasted or written, and watches the server.

import { boxesOf, drawAnswer, languagesOf } from "./answers.js";
import { Chart, History } from "./charts.js";
import { $, el, short, time } from "./dom.js";

const POLL_MS = 1000;
const CARDS_EVERY = 5; // polls
const AT_ONCE = 6; // as many connections as browsers open to one server
const EXAMPLE = 64; // numbers of an example that is written for a model of tensors
const SHOWN = 20000; // characters of an answer's JSON

const state = {
  key: sessionStorage.getItem("deployc-key") ?? "",
  cards: [],
  name: "",
  form: "", // what is sent: file, text or json
  asked: null, // the last question: {name, body, type, urls, words}
  answered: null, // and its answer: {answers, question}
  language: "",
  abort: null,
  repeating: false,
  histories: new Map(),
};

const cardOf = (name) => state.cards.find((each) => each.name === name);
const card = () => cardOf(state.name);

// --- the server

class Refused extends Error {
  constructor(status, { code = "", message = "", hint = "" } = {}, retry = "") {
    super(message || `the server answered ${status}`);
    Object.assign(this, { status, code, hint, retry });
  }
}

// Paths are relative, so that the page works below any prefix.
async function fetchFrom(path, options = {}) {
  const headers = { ...options.headers, ...(state.key ? { authorization: `Bearer ${state.key}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const text = await response.text();
  let error = { message: text.slice(0, 500) };
  try {
    error = JSON.parse(text).error ?? error;
  } catch {
    // HAProxy and Ray answer plain text
  }
  if (response.status === 401) askForKey();
  throw new Refused(response.status, error, response.headers.get("retry-after") ?? "");
}

const getJson = async (path) => (await fetchFrom(path)).json();

function askForKey() {
  if (!$("key").hidden) return;
  $("key").hidden = false;
  $("key-text").focus();
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = $("key-text").value.trim();
  sessionStorage.setItem("deployc-key", state.key);
  $("key").hidden = true;
  poll.count = 0;
});

// --- models

const STATES = { ready: "good", stuck: "bad", unavailable: "bad" };

function showModels(cards) {
  if (JSON.stringify(cards) === JSON.stringify(state.cards)) return;
  state.cards = cards;
  if (!card()) choose(cards[0]?.name ?? "");
  else listModels();
}

function listModels() {
  const within = $("models").contains(document.activeElement);
  $("models").replaceChildren(...state.cards.map(modelRow));
  if (within) $("models").querySelector("input:checked")?.focus();
}

function modelRow(each) {
  const radio = el("input", { type: "radio", name: "model", value: each.name, checked: each.name === state.name, onchange: () => choose(each.name) });
  const badge = el("span", { className: `badge ${STATES[each.state] ?? "warn"}` }, each.state);
  const count = each.warnings?.length ?? 0;
  const warned = count ? el("span", { className: "badge warn" }, count === 1 ? "1 warning" : `${count} warnings`) : null;
  const name = el("label", { className: "model" }, radio, el("strong", {}, each.name), el("span", { className: "badges" }, warned, badge));
  return el("div", {}, name, each.name === state.name && each.variant ? details(each) : null);
}

// What is told of the chosen model alone, so that the list stays short.
function details(each) {
  const { engine, device, precision } = each.variant;
  const { slo_ms: slo, max_batch: most, capacity } = each.serving ?? {};
  const figures = [`${engine}, ${device}, ${precision}`, slo && `SLO ${time(slo.value)}`, most && `batches up to ${most.value}`, capacity && `${short(capacity.value)} items/s in time`];
  const warnings = (each.warnings ?? []).map((text) => el("li", {}, text));
  return el(
    "div", { className: "about" },
    each.description ? el("p", {}, each.description) : null,
    el("p", { className: "faint" }, figures.filter(Boolean).join(" · ")),
    each.split ? el("p", { className: "faint" }, splitWords(each.split)) : null,
    warnings.length ? el("ul", { className: "warnings", "aria-label": "Warnings" }, warnings) : null,
  );
}

function splitWords({ mode, state: at, weight, sample, reason }) {
  if (at === "rolled_back") return `${mode}: rolled back, ${reason.why}`;
  const share = short(100 * (mode === "canary" ? weight : sample));
  return `${mode}: the new artifact ${mode === "canary" ? "answers" : "is compared on"} ${share} % of the requests`;
}

function choose(name) {
  state.name = name;
  stopRepeating();
  $("again").hidden = true;
  state.abort?.abort();
  $("load").textContent = "";
  listModels();
  showForms();
  drawCharts();
}

// --- what is sent

const FORMS = {
  image: { file: "Picture", json: "Pixels as JSON" },
  audio: { file: "Sound" },
  text: { text: "Text", file: "Text file" },
  tensors: { json: "Tensors as JSON", file: "File" },
};
const FILES = {
  image: ["Drop a picture here", "image/*,.npy,.json"],
  audio: ["Drop a WAV file here", "audio/*,.wav"],
  text: ["Drop a text file here", "text/plain,.txt"],
  tensors: ["Drop a .npy or .json file here", ".npy,.json,application/json"],
};

function showForms() {
  const forms = FORMS[card()?.takes] ?? {};
  const names = Object.keys(forms);
  const buttons = names.map((name) => el("button", { type: "button", onclick: () => showForm(name) }, forms[name]));
  $("forms").replaceChildren(...buttons);
  $("forms").hidden = !names.length;
  showForm(names[0] ?? "");
}

function showForm(form) {
  state.form = form;
  const { takes } = card() ?? {};
  const names = Object.keys(FORMS[takes] ?? {});
  [...$("forms").children].forEach((button, n) => button.setAttribute("aria-pressed", names[n] === form));
  $("drop").hidden = form !== "file";
  $("write").hidden = form !== "text" && form !== "json";
  if (form === "file") [$("drop-what").textContent, $("file").accept] = FILES[takes];
  if (form === "file") $("drop").lastElementChild.textContent = takes === "image" ? "or choose or paste one; several are one request" : "or choose one";
  if (form === "json" || form === "text") writeExample(form);
}

function writeExample(form) {
  const inputs = Object.entries(card().inputs ?? {});
  const shapes = inputs.map(([name, { shape, dtype }]) => `${name} [${shape.slice(1).join(", ")}] ${dtype}`);
  const wanted = card().takes === "image" ? "[height, width] or [height, width, 3], 0 to 255" : shapes.join(", ");
  $("text-label").textContent = form === "text" ? "Text" : `JSON: ${wanted}`;
  $("text").value = form === "json" && card().takes === "tensors" ? example(inputs) : "";
}

function example(inputs) {
  const sizes = inputs.map(([, { shape }]) => shape.slice(1).map((dim) => (Number.isInteger(dim) ? dim : 1)));
  if (sizes.flatMap((dims) => dims.reduce((a, b) => a * b, 1)).reduce((a, b) => a + b, 0) > EXAMPLE) return "";
  const zeros = ([first, ...rest]) => (first === undefined ? 0 : Array.from({ length: first }, () => zeros(rest)));
  return JSON.stringify(Object.fromEntries(inputs.map(([name], n) => [name, zeros(sizes[n])])));
}

$("file").addEventListener("change", () => {
  askFiles([...$("file").files]);
  $("file").value = ""; // so that the same file can be chosen again
});

$("write").addEventListener("submit", (event) => {
  event.preventDefault();
  askWritten();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) askWritten();
});

addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) event.preventDefault(), askFiles(files);
});

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault(); // or the browser would open the file
    document.body.classList.toggle("dragging", name === "dragenter" || name === "dragover");
    if (name === "drop") askFiles([...event.dataTransfer.files]);
  });
}

function askWritten() {
  const body = $("text").value;
  const type = state.form === "json" ? "application/json" : "text/plain";
  const quoted = body.length > 2000 ? "@question" : body;
  ask({ body, type, urls: [], curl: `--data-binary ${quote(quoted)} -H 'Content-Type: ${type}'` });
}

// One file is sent as it is; several are one request of several items.
function askFiles(files) {
  if (!files.length || !card()) return;
  const urls = files.map((file) => (card().takes === "image" && !/\.(npy|json)$/.test(file.name) ? URL.createObjectURL(file) : null));
  if (files.length === 1) {
    const [file] = files;
    const type = typeOf(file);
    ask({ body: file, type, urls, curl: `--data-binary ${quote(`@${file.name}`)} -H 'Content-Type: ${type}'` });
    return;
  }
  const body = new FormData();
  files.forEach((file, n) => body.append(`item${n}`, file));
  ask({ body, type: "", urls, curl: files.map((file, n) => `-F ${quote(`item${n}=@${file.name}`)}`).join(" ") });
}

function typeOf(file) {
  if (file.name.endsWith(".npy")) return "application/x-npy";
  if (file.name.endsWith(".json")) return "application/json";
  return file.type || "application/octet-stream";
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// --- asking

async function ask(question) {
  stopRepeating();
  state.abort?.abort(); // which takes the earlier request out of the server's queue
  const { signal } = (state.abort = new AbortController());
  state.asked?.urls.forEach((url) => url && URL.revokeObjectURL(url));
  state.asked = { ...question, name: state.name };
  $("answer").setAttribute("aria-busy", "true");
  say("waiting for the answer");
  try {
    showAnswer(await send(state.asked, signal));
  } catch (error) {
    if (!signal.aborted) showError(error);
  }
  if (state.abort.signal !== signal) return; // the next question waits already
  $("answer").removeAttribute("aria-busy");
}

const pathOf = (name) => `models/${encodeURIComponent(name)}`;

async function send({ name, body, type }, signal) {
  const began = performance.now();
  const headers = type ? { "content-type": type } : {};
  const response = await fetchFrom(`${pathOf(name)}/predict`, { method: "POST", body, headers, signal });
  const found = await response.json();
  const took = performance.now() - began;
  return { found, took, timing: timingOf(response.headers.get("server-timing") ?? "") };
}

// "pre;dur=1.2, batch;desc="3"" -> {pre: "1.2", batch: "3"}
function timingOf(header) {
  const parts = header.split(",").map((part) => part.trim().match(/^(\w+);(?:dur|desc)="?([\d.]+)"?$/));
  return Object.fromEntries(parts.filter(Boolean).map(([, name, value]) => [name, value]));
}

function say(words, className = "faint") {
  Object.assign($("said"), { textContent: words, className });
}

function showError(error) {
  $("again").hidden = true;
  $("languages").hidden = true;
  say(error instanceof Refused ? "The request was refused." : "The server cannot be reached.", "");
  const code = error.code ? el("code", {}, error.code) : null;
  const wait = error.retry ? el("p", {}, `Try again in ${error.retry} s.`) : null;
  const hint = error.hint ? el("p", {}, el("strong", {}, "What to do: "), error.hint) : null;
  const status = error.status ? `HTTP ${error.status} ` : "";
  $("drawn").replaceChildren(el("div", { className: "error", role: "alert" }, el("p", {}, status, code), el("p", {}, error.message), hint, wait));
}

function showAnswer({ found, took, timing }) {
  state.answered = { answers: found.answers ?? [found.answer], found, took, timing, question: state.asked };
  const languages = languagesOf(state.answered.answers);
  const liked = [state.language, navigator.language.slice(0, 2), "en", languages[0]];
  state.language = liked.find((each) => languages.includes(each)) ?? "";
  $("language").replaceChildren(...languages.map((each) => el("option", { value: each, selected: each === state.language }, each)));
  $("languages").hidden = languages.length < 2;
  $("again").hidden = false;
  $("repeated").textContent = "six at a time, to see batches form";
  drawAnswered();
  if ($("answer").getBoundingClientRect().top > innerHeight / 2) $("answer").scrollIntoView(); // a phone's
}

$("language").addEventListener("change", () => {
  state.language = $("language").value;
  drawAnswered();
});

function drawAnswered() {
  const { answers, found, took, timing, question } = state.answered;
  const boxes = boxesOf(cardOf(question.name)?.answer_schema);
  const drawn = answers.map((answer, n) => drawAnswer(answer, { url: question.urls[n], language: state.language, schema: boxes }));
  const items = answers.length > 1 ? `${answers.length} items, ` : "";
  say(`${question.name}: ${items}${time(took)}`);
  const json = JSON.stringify(found, null, 1);
  const raw = json.length > SHOWN ? `${json.slice(0, SHOWN)}\n… ${json.length - SHOWN} more characters` : json;
  const address = new URL(`${pathOf(question.name)}/predict`, document.baseURI);
  const key = state.key ? ' -H "Authorization: Bearer $KEY"' : "";
  $("drawn").replaceChildren(
    ...drawn,
    timings(timing, took),
    el("details", {}, el("summary", {}, "JSON"), el("pre", { tabIndex: 0 }, raw)),
    el("details", {}, el("summary", {}, "The same from a shell"), el("pre", { tabIndex: 0 }, `curl ${question.curl}${key} ${address}`)),
  );
}

const STAGES = [["pre", "pre-processing"], ["queue", "queue"], ["engine", "engine"], ["post", "post-processing"]];

// Where the time went: the server's stages, and what is left of what this page waited.
function timings(timing, took) {
  const known = STAGES.map(([key, name]) => ({ key, name, ms: Number(timing[key] ?? 0) }));
  const rest = Math.max(took - known.reduce((sum, { ms }) => sum + ms, 0), 0);
  const parts = [...known, { key: "rest", name: "network and browser", ms: rest }];
  const bars = parts.map(({ key, ms }) => el("span", { className: `part ${key}`, style: { flexGrow: ms } }));
  const words = parts.map(({ key, name, ms }) => el("li", { "data-stage": key }, el("i", { className: `swatch ${key}` }), `${name} `, el("b", {}, time(ms))));
  const batch = timing.batch ? el("li", { "data-stage": "batch" }, "rode in a batch of ", el("b", {}, timing.batch)) : null;
  return el("div", { className: "timings" }, el("div", { className: "strip", "aria-hidden": "true" }, bars), el("ul", { className: "legend", "aria-label": "Where the time went" }, words, batch));
}

// --- again and again

$("repeat").addEventListener("click", () => (state.repeating ? stopRepeating() : repeat()));

function stopRepeating() {
  state.repeating = null;
  $("repeat").setAttribute("aria-pressed", "false");
  $("repeat").textContent = "Send again and again";
}

async function repeat() {
  const run = (state.repeating = { good: 0, refused: 0 });
  $("repeat").setAttribute("aria-pressed", "true");
  $("repeat").textContent = "Stop";
  const worker = async () => {
    while (state.repeating === run) {
      try {
        await send(state.asked);
        run.good += 1;
      } catch (error) {
        run.refused += 1;
        if (!(error instanceof Refused)) return stopRepeating(); // the server is gone
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
      $("repeated").textContent = `${run.good} answered${run.refused ? `, ${run.refused} refused` : ""}`;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

// --- live

const charts = {
  rate: new Chart({ title: "Rate", unit: "requests/s", lines: [{ key: "answered", name: "answered", color: "engine" }, { key: "refused", name: "refused", color: "bad" }] }),
  batch: new Chart({ title: "Batch size", unit: "items, mean of a second", lines: [{ key: "batch", name: "mean", color: "post" }] }),
  latency: new Chart({
    title: "Latency", unit: "in the server, logarithmic", log: true, text: time,
    lines: [{ key: "p50", name: "half below", color: "pre" }, { key: "p99", name: "99 % below", color: "queue" }],
  }),
  shed: new Chart({ title: "Turned away", unit: "per second", lines: [{ key: "shed", name: "items shed", color: "bad" }, { key: "late", name: "late answers", color: "queue" }] }),
};
$("charts").replaceChildren(...Object.values(charts).map((chart) => chart.node));

function history() {
  if (!state.histories.has(state.name)) state.histories.set(state.name, new History());
  return state.histories.get(state.name);
}

function drawCharts(now = performance.now() / 1000) {
  const { points, sheds } = history();
  const { slo_ms: slo, max_batch: most } = card()?.serving ?? {};
  const causes = Object.entries(sheds).map(([rule, n]) => `${rule} ${n}`);
  charts.rate.show(points, now, null);
  charts.batch.show(points, now, null, most ? `at most ${most.value}` : "");
  charts.latency.show(points, now, slo ? { name: "SLO", value: slo.value } : null);
  charts.shed.show(points, now, null, causes.length ? `shed since this page opened: ${causes.join(", ")}` : "");
}

// One after another: a slow server is not asked faster than it answers.
async function poll() {
  try {
    if (document.hidden) {
      history().gap(performance.now() / 1000);
    } else {
      if (poll.count % CARDS_EVERY === 0) showModels((await getJson("models")).models);
      poll.count += 1;
      if (state.name) await watch(state.name);
      online(true);
    }
  } catch (error) {
    poll.count = 0;
    history().gap(performance.now() / 1000);
    online(false, error);
  }
  setTimeout(poll, POLL_MS);
}
poll.count = 0;

async function watch(name) {
  const { stats } = await getJson(`${pathOf(name)}/stats`);
  const now = performance.now() / 1000;
  if (name !== state.name) return;
  const canary = cardOf(name)?.split?.mode === "canary"; // both artifacts answer: their rates add up
  history().add(now, stats, ...(canary && stats.new ? [stats.new] : []));
  $("load").textContent = `${stats.waiting} waiting, ${Math.max(stats.load - stats.waiting, 0)} in the engine`;
  drawCharts(now);
}

function online(good, error) {
  const words = good ? `${state.cards.filter((each) => each.state === "ready").length} of ${state.cards.length} models ready` : error instanceof Refused ? error.message : "the server cannot be reached";
  if ($("server").textContent !== words) $("server").textContent = words; // a reader speaks each change
  $("server").className = good ? "good" : "bad";
}

poll();
