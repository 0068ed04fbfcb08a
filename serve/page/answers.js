// Draws answers: bars of classes, boxes on the picture, a picture that came out, numbers.

import { el, short } from "./dom.js";

// The colours of `deployc predict --plot`; a class has the one at its index.
const COLORS = ["#0969da", "#cf222e", "#1a7f37", "#bf8700", "#8250df", "#bf3989", "#1b7c83", "#bc4c00"];
const SHOWN = 10;
const LARGEST = 4096; // numbers of a tensor that are drawn
const BARS = 64; // more numbers than this are drawn as colours

// One answer as an element. about: {url: of the picture that was sent, language, schema, key}.
export function drawAnswer(answer, about) {
  if (answer.classes) return classes(answer.classes, about);
  if (answer.detections) return detections(answer.detections, about);
  if (answer.image) return image(answer.image, about);
  if (answer.outputs) return outputs(answer.outputs);
  return el("p", { className: "faint" }, "see the JSON below");
}

// The languages that labels come in; none where a label is one text.
export function languagesOf(answers) {
  const entries = answers.flatMap((each) => each.classes ?? each.detections ?? []);
  const names = entries.flatMap((each) => (each.label && typeof each.label === "object" ? Object.keys(each.label) : []));
  return [...new Set(names)];
}

function nameOf({ label, index }, language) {
  if (label && typeof label === "object") return label[language] ?? Object.values(label)[0] ?? `class ${index}`;
  return label ?? `class ${index}`;
}

// The picture that was sent; formats that the browser cannot show leave a word in its place.
function sent(url) {
  if (!url) return null;
  const picture = el("img", { alt: "the picture that was sent", className: "sent" });
  picture.addEventListener("load", () => {
    if (Math.max(picture.naturalWidth, picture.naturalHeight) <= 96) picture.classList.add("tiny");
  });
  picture.addEventListener("error", () => {
    picture.replaceWith(el("p", { className: "faint" }, "this browser cannot show the picture"));
  });
  picture.src = url;
  return picture;
}

// --- classes

function classes(entries, { url, language }) {
  const share = shares(entries);
  const rows = entries.map((each, place) => row(each, share(each), place === 0, language));
  const list = el("ol", { className: "bars" }, rows.slice(0, SHOWN));
  const rest = rows.slice(SHOWN);
  const more = el("details", {}, el("summary", {}, `${rest.length} more`), el("ol", { className: "bars" }, rest));
  const words = entries.length ? null : el("p", { className: "faint" }, "no class is likely enough");
  return el("div", { className: "beside" }, sent(url), el("div", {}, words, list, rest.length ? more : null));
}

// The probability itself, or the score as a part of the best one.
function shares(entries) {
  const scores = entries.map((each) => each.score).filter(Number.isFinite);
  const low = Math.min(0, ...scores);
  const range = Math.max(...scores) - low || 1;
  return (each) => Math.min(Math.max("probability" in each ? each.probability : (each.score - low) / range, 0), 1) || 0;
}

function valueOf(each) {
  if ("probability" in each) return each.probability === null ? "not finite" : `${(100 * each.probability).toFixed(1)} %`;
  return "score" in each ? (each.score === null ? "not finite" : short(each.score)) : "";
}

function row(each, share, best, language) {
  const bar = el("span", { className: best ? "best" : "", style: { width: `${100 * share}%` } });
  return el(
    "li", {},
    el("span", { className: "name" }, nameOf(each, language)),
    el("span", { className: "faint" }, valueOf(each)),
    el("span", { className: "track", "aria-hidden": "true" }, bar),
  );
}

// --- detections

function detections(entries, { url, language, schema }) {
  const scores = entries.map((each) => each.score).filter(Number.isFinite);
  const least = { value: Math.min(0, ...scores) };
  const toCorners = cornersOf(schema);
  const boxes = entries.map((each) => (toCorners ? frame(each, toCorners, language) : null));
  const rows = entries.map((each, place) => found(each, boxes[place], language));
  const stage = el("div", { className: "stage" });
  const picture = sent(url);
  const place = () => {
    const { naturalWidth: width, naturalHeight: height } = picture;
    boxes.forEach((box) => box?.place(width, height));
    stage.append(...boxes.filter(Boolean).map((box) => box.node).reverse()); // the best one on top
  };
  if (picture) stage.append(picture), picture.addEventListener("load", place);
  const count = el("output", {});
  const show = () => {
    const good = entries.map((each) => (each.score ?? least.value) >= least.value);
    good.forEach((keep, n) => {
      rows[n].hidden = !keep;
      if (boxes[n]) boxes[n].node.hidden = !keep;
    });
    const shown = good.filter(Boolean).length;
    count.textContent = `${shown} of ${entries.length} with a score from ${least.value.toFixed(2)} on`;
  };
  const slider = el("input", {
    type: "range", min: least.value, max: Math.max(1, ...scores), step: 0.01, value: least.value, "aria-label": "Smallest score that is shown",
    oninput: (event) => ((least.value = Number(event.target.value)), show()),
  });
  show();
  const odd = toCorners ? null : el("p", { className: "faint" }, `the boxes are ${schema}: they cannot be drawn on the picture`);
  const none = entries.length ? el("p", { className: "row" }, slider, count) : el("p", {}, "nothing found");
  return el("div", {}, stage, odd, none, el("ol", { className: "found" }, rows));
}

// What makes corners in pixels of the picture out of a box; null where that cannot be.
function cornersOf(description) {
  if (!description) return (box) => box;
  if (!description.endsWith("in pixels of the image that was sent")) return null;
  if (description.startsWith("left, top, width, height")) return ([x, y, w, h]) => [x, y, x + w, y + h];
  if (description.startsWith("centre x")) return ([x, y, w, h]) => [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
  return (box) => box;
}

// The description of boxes in the JSON Schema of a model's answers.
export function boxesOf(schema) {
  return schema?.properties?.detections?.items?.properties?.box?.description ?? "";
}

function frame(each, toCorners, language) {
  const color = COLORS[each.index % COLORS.length];
  const words = `${nameOf(each, language)} ${each.score === null ? "" : each.score.toFixed(2)}`;
  const label = el("span", { style: { background: color } }, words);
  const node = el("div", { className: "box", style: { borderColor: color } }, label);
  const place = (width, height) => {
    const [left, top, right, bottom] = toCorners(each.box);
    if (![left, top, right, bottom].every(Number.isFinite)) return;
    const percent = (value, whole) => `${(100 * value) / whole}%`;
    Object.assign(node.style, {
      left: percent(left, width), top: percent(top, height),
      width: percent(right - left, width), height: percent(bottom - top, height),
    });
    node.classList.toggle("at-top", top < 0.08 * height);
  };
  return { node, place };
}

function found(each, box, language) {
  const light = (on) => () => box?.node.classList.toggle("lit", on);
  const swatch = el("i", { className: "swatch", style: { background: COLORS[each.index % COLORS.length] } });
  const corners = each.box.map((edge) => (edge === null ? "–" : String(Math.round(edge * 100) / 100))).join(", ");
  return el(
    "li", { tabIndex: 0, onfocus: light(true), onblur: light(false), onpointerenter: light(true), onpointerleave: light(false) },
    swatch, el("span", { className: "name" }, nameOf(each, language)),
    el("span", {}, each.score === null ? "–" : each.score.toFixed(3)),
    el("span", { className: "faint box-text" }, corners),
  );
}

// --- pictures

function image({ format, width, height, base64 }, { url }) {
  const source = `data:image/${format};base64,${base64}`;
  const result = el("img", { className: "result", alt: `the answer, ${width} by ${height} pixels`, src: source });
  if (Math.max(width, height) <= 256) result.classList.add("tiny");
  const save = el("a", { href: source, download: `answer.${format}` }, "Save the answer");
  const size = el("span", { className: "faint" }, `${width} × ${height} pixels`);
  if (!url) return el("div", {}, result, el("p", { className: "row" }, save, size));
  const below = el("img", { className: "below", alt: "the picture that was sent", src: url });
  below.addEventListener("error", () => below.remove());
  below.addEventListener("load", () => {
    size.textContent = `${below.naturalWidth} × ${below.naturalHeight} pixels in, ${width} × ${height} out`;
  });
  const slider = el("input", {
    type: "range", min: 0, max: 100, value: 100, "aria-label": "How much of the answer is seen over the picture that was sent",
    oninput: (event) => (result.style.opacity = event.target.value / 100),
  });
  const ends = el("p", { className: "row" }, el("span", { className: "faint" }, "sent"), slider, el("span", { className: "faint" }, "answer"));
  return el("div", {}, el("div", { className: "over" }, below, result), ends, el("p", { className: "row" }, save, size));
}

// --- tensors

function outputs(tensors) {
  const parts = Object.entries(tensors).map(([name, value]) => tensor(name, value));
  return el("div", {}, parts);
}

function tensor(name, value) {
  const shape = shapeOf(value);
  const numbers = [value].flat(Infinity);
  const drawing = numbers.length <= 1 ? null : numbers.length <= BARS ? columns(numbers) : colors(numbers, shape);
  const caption = `${name} [${shape.join(", ")}]`;
  return el("figure", { className: "tensor" }, el("figcaption", {}, el("strong", {}, caption), " ", told(numbers)), drawing);
}

function shapeOf(value) {
  return Array.isArray(value) ? [value.length, ...shapeOf(value[0])] : [];
}

function told(numbers) {
  if (numbers.length === 1) return el("b", {}, String(numbers[0]));
  const finite = numbers.filter(Number.isFinite);
  if (!finite.length) return el("span", { className: "faint" }, "nothing finite");
  const [low, high] = [finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))];
  const length = Math.sqrt(finite.reduce((sum, each) => sum + each * each, 0));
  const words = [`from ${short(low)} to ${short(high)}`];
  words.push(finite.length < numbers.length ? `${numbers.length - finite.length} not finite` : `length ${short(length)}`);
  if (numbers.length > LARGEST) words.push(`the first ${LARGEST} are drawn`);
  return el("span", { className: "faint" }, words.join(", "));
}

// Columns up and down from zero, each with its number to read.
function columns(numbers) {
  const finite = numbers.map((each) => (Number.isFinite(each) ? each : 0));
  const high = Math.max(0, ...finite), low = Math.min(0, ...finite);
  const range = high - low || 1;
  const columns = numbers.map((each, place) => {
    const value = finite[place];
    const style = { top: `${(100 * (high - Math.max(value, 0))) / range}%`, height: `${(100 * Math.abs(value)) / range}%` };
    return el("li", { title: `${place}: ${each}` }, el("span", { className: value < 0 ? "minus" : "plus", style }));
  });
  return el("ul", { className: "columns", "aria-label": numbers.map(short).join(", ") }, columns);
}

// A cell for each number: paper at zero, full colour at the largest; as wide as the last axis.
function colors(numbers, shape) {
  const last = shape.length > 1 && shape.at(-1) <= 512 ? shape.at(-1) : 64;
  const shown = numbers.slice(0, Math.max(LARGEST - (LARGEST % last), last));
  const canvas = el("canvas", { className: "colors", role: "img", "aria-label": "its numbers as colours", width: last, height: Math.ceil(shown.length / last) });
  const most = shown.reduce((a, b) => Math.max(a, Math.abs(b ?? 0)), 0) || 1;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  shown.forEach((each, place) => {
    const color = (each ?? 0) >= 0 ? [47, 129, 247] : [248, 81, 73];
    pixels.data.set([...color, Math.round((255 * Math.abs(each ?? 0)) / most)], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}
