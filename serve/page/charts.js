// The past two minutes, out of the counters of GET /models/{name}/stats, and charts of them.

import { el, short, svg, time } from "./dom.js";

export const SPAN_S = 120;
const FRESH_S = 10; // a replica that was not met for so long no longer counts
const BREAK_S = 4; // points so far apart are not joined
const LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 20, HEIGHT = 168;

// Counters -> a point a second. Each poll meets one of the replicas, which tells of itself: what
// each did since it was last met is a rate of its own, and rates are added up.
export class History {
  constructor() {
    this.points = [];
    this.sheds = {};
    this.met = new Map();
  }

  // The counts of those who were met now.
  add(now, ...told) {
    for (const stats of told) this.meet(now, stats);
    for (const [key, each] of this.met) if (now - each.now > FRESH_S) this.met.delete(key);
    const known = [...this.met.values()].map((each) => each.since).filter(Boolean);
    if (!known.length) return;
    if (now - this.points.at(-1)?.t > BREAK_S) this.gap(now - BREAK_S);
    this.points.push(point(now, known));
    while (this.points[0].t < now - SPAN_S - 5) this.points.shift();
  }

  meet(now, stats) {
    const id = stats.replica ?? "";
    const before = this.met.get(id);
    const usable = before && now - before.now < FRESH_S && total(stats.requests) >= total(before.stats.requests);
    const since = usable ? delta(before.stats, stats, now - before.now) : null;
    this.met.set(id, { now, stats, since });
    for (const [rule, n] of Object.entries(since?.sheds ?? {})) {
      if (n > 0) this.sheds[rule] = (this.sheds[rule] ?? 0) + n;
    }
  }

  // Nothing is known of this second, so that lines are not drawn through it.
  gap(now) {
    if (this.points.at(-1)?.answered !== undefined) this.points.push({ t: now });
  }
}

const total = (counts) => Object.values(counts ?? {}).reduce((sum, n) => sum + n, 0);

function minus(now, before) {
  return Object.fromEntries(Object.entries(now ?? {}).map(([key, n]) => [key, n - (before?.[key] ?? 0)]));
}

function delta(before, now, seconds) {
  const requests = minus(now.requests, before.requests);
  const runs = (stats) => Object.values(stats.batches).reduce((sum, each) => sum + each.count, 0);
  return {
    seconds,
    good: requests.ok ?? 0,
    bad: total(requests) - (requests.ok ?? 0),
    late: now.late - before.late,
    sheds: minus(now.sheds, before.sheds),
    items: now.items - before.items,
    runs: runs(now) - runs(before),
    latency: minus(now.latency?.counts, before.latency?.counts),
    ratio: now.latency?.ratio,
  };
}

function point(t, known) {
  const rate = (count) => known.reduce((sum, each) => sum + count(each) / each.seconds, 0);
  const sum = (count) => known.reduce((all, each) => all + count(each), 0);
  const times = {};
  for (const each of known) for (const [bucket, n] of Object.entries(each.latency)) {
    times[bucket] = (times[bucket] ?? 0) + n;
  }
  const runs = sum((each) => each.runs);
  return {
    t,
    answered: rate((each) => each.good),
    refused: rate((each) => each.bad),
    late: rate((each) => each.late),
    shed: rate((each) => total(each.sheds)),
    batch: runs ? sum((each) => each.items) / runs : null,
    p50: quantile(times, known[0].ratio, 0.5),
    p99: quantile(times, known[0].ratio, 0.99),
  };
}

// Bucket i holds times up to ratio ** i milliseconds; within it, evenly on a logarithmic scale.
export function quantile(counts, ratio, share) {
  const wanted = total(counts) * share;
  if (!wanted || !ratio) return null;
  let seen = 0;
  const buckets = Object.keys(counts).map(Number).sort((a, b) => a - b);
  for (const bucket of buckets) {
    const here = counts[bucket];
    if (here && seen + here >= wanted) return ratio ** (bucket - 1 + (wanted - seen) / here);
    seen += here;
  }
  return ratio ** buckets.at(-1);
}

// --- scales

function linear(largest) {
  const top = Math.max(largest * 1.05, 1);
  const rough = top / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((n) => n * unit >= rough) * unit;
  const ticks = [];
  for (let at = 0; at <= top; at += step) ticks.push(at);
  return { ticks, place: (value) => Math.min(value / top, 1), text: short };
}

function logarithmic(smallest, largest) {
  const low = Math.floor(Math.log10(smallest * 0.95));
  const high = Math.max(low + 1, Math.log10(largest * 1.6));
  const ticks = [];
  for (let power = low; power <= high; power += 1) ticks.push(10 ** power);
  const place = (value) => Math.min(Math.max((Math.log10(value) - low) / (high - low), 0), 1);
  return { ticks, place, text: time };
}

// --- charts

// lines: [{key, name, color}], color a class of style.css; limit: a value to hold them against.
export class Chart {
  constructor({ title, unit, lines, log = false, text = short, limit = null }) {
    Object.assign(this, { title, unit, lines, log, text, limit, points: [], now: 0, at: null });
    this.legend = el("p", { className: "legend" });
    this.note = el("p", { className: "faint note" });
    this.plot = el("div", { className: "plot", role: "img" });
    this.node = el(
      "figure",
      { className: "card chart", tabIndex: 0, "aria-label": `${title}; arrow keys read single seconds` },
      el("figcaption", {}, el("strong", {}, title), " ", el("span", { className: "faint" }, unit)),
      this.legend, this.plot, this.note,
    );
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.look(null));
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.node.addEventListener("blur", () => this.look(null));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  show(points, now, limit, note = "") {
    Object.assign(this, { points, now, limit });
    this.note.textContent = note;
    this.draw();
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    this.look(Math.max(0, (1 - share) * SPAN_S));
  }

  key(event) {
    const step = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.look(Math.min(Math.max((this.at ?? 0) + step, 0), SPAN_S));
  }

  look(at) {
    this.at = at;
    this.draw();
  }

  // The point that is read: the newest, or the one nearest to where somebody looks.
  read() {
    if (this.at === null) return this.points.at(-1);
    const wanted = this.now - this.at;
    const distance = (each) => Math.abs(each.t - wanted);
    return this.points.reduce((best, each) => (best && distance(best) <= distance(each) ? best : each), undefined);
  }

  draw() {
    const found = this.read();
    const when = this.at === null || !found ? "" : ` ${Math.round(this.now - found.t)} s ago`;
    const entry = (name, color, value) =>
      el("span", {}, el("i", { className: `swatch ${color}` }), `${name} `, el("b", {}, value));
    this.legend.replaceChildren(
      ...this.lines.map(({ key, name, color }) => entry(name, color, this.text(found?.[key]))),
      ...(this.limit ? [entry(this.limit.name, "limit", this.text(this.limit.value))] : []),
      el("span", { className: "faint" }, when),
    );
    this.plot.setAttribute("aria-label", `${this.title}: ${this.legend.textContent}`);
    this.plot.replaceChildren(this.picture(this.plot.clientWidth || 300, found));
  }

  scale() {
    const values = this.lines.flatMap(({ key }) => this.points.map((each) => each[key])).filter(Number.isFinite);
    if (this.limit) values.push(this.limit.value);
    if (!this.log) return linear(Math.max(0, ...values));
    const positive = values.filter((value) => value > 0);
    return logarithmic(Math.min(10, ...positive), Math.max(100, ...positive));
  }

  picture(width, found) {
    const { ticks, place, text } = this.scale();
    const x = (t) => LEFT + (1 - (this.now - t) / SPAN_S) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - place(value)) * (HEIGHT - TOP - BOTTOM);
    const end = width - RIGHT, floor = HEIGHT - BOTTOM;
    const drawing = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
    for (const tick of ticks) {
      drawing.append(
        svg("line", { class: "grid", x1: LEFT, x2: end, y1: y(tick), y2: y(tick) }),
        svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, text(tick)),
      );
    }
    for (const [ago, anchor, words] of [[SPAN_S, "start", "2 min ago"], [SPAN_S / 2, "middle", "1 min"], [0, "end", "now"]]) {
      drawing.append(svg("text", { x: x(this.now - ago), y: HEIGHT - 5, "text-anchor": anchor }, words));
    }
    if (this.limit) {
      const at = y(this.limit.value);
      drawing.append(svg("line", { class: "limit", x1: LEFT, x2: end, y1: at, y2: at }));
    }
    for (const { key, color } of this.lines) drawing.append(...this.line(key, color, x, y));
    if (this.at !== null && found) {
      drawing.append(svg("line", { class: "cursor", x1: x(found.t), x2: x(found.t), y1: TOP, y2: floor }));
    }
    return drawing;
  }

  // Unbroken stretches become lines, and a lone second a dot.
  line(key, color, x, y) {
    const parts = [];
    let part = [];
    for (const each of [...this.points, {}]) {
      const good = Number.isFinite(each[key]) && each.t >= this.now - SPAN_S;
      if (good) part.push(`${x(each.t).toFixed(1)},${y(each[key]).toFixed(1)}`);
      else if (part.length) parts.push(part), (part = []);
    }
    return parts.map((each) => {
      if (each.length > 1) return svg("polyline", { class: color, points: each.join(" ") });
      const [cx, cy] = each[0].split(",");
      return svg("circle", { class: color, cx, cy, r: 2 });
    });
  }
}
