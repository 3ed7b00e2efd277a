// The small things that everything is drawn with. Texts become text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function icon(key, extra = "") {
  const use = svg("use", { href: `#i-${key}` });
  return svg("svg", { class: `icon s-${key} ${extra}`, "aria-hidden": "true" }, use);
}

// An outcome in a word, with its picture.
function badge(status, word = status.name) {
  return el("span", { class: `badge f-${status.family}` }, icon(status.key), word);
}

// Ratios on a logarithmic scale, blue where they may be and orange where they may not.
const BINS = [
  { to: 0.01, key: "p0" },
  { to: 0.03, key: "p1" },
  { to: 0.1, key: "p2" },
  { to: 0.3, key: "p3" },
  { to: 1, key: "p4" },
  { to: 10, key: "x0" },
  { to: 1000, key: "x1" },
  { to: Infinity, key: "x2" },
];

function bin(ratio, bounded = false) {
  // What an operation may be off by is what some sum is off by: 1 is no more than it should be.
  if (bounded || ratio === 1) return "p2";
  return BINS.find((one) => ratio <= one.to).key;
}

function short(value) {
  if (value === null || value === undefined) return "";
  if (value === Infinity) return "∞";
  if (value === 0) return "0";
  if (value >= 1000 || value < 0.001) return value.toExponential(1).replace("e+", "e").replace(".0e", "e");
  return String(Number(value.toPrecision(2)));
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

function scale() {
  const steps = BINS.map(({ to, key }) =>
    el("span", { class: `step ${key}` }, to === Infinity ? "more" : `≤ ${to}`),
  );
  return [el("span", { class: "name", title: "of error to allowed error" }, "ratio"), ...steps];
}

function key() {
  // Those that come with a ratio stand in the colour of one.
  const samples = { passed: 0.1, failed: 20 };
  const sample = (status) => samples[status.key] ?? null;
  const rows = [...statuses, ABSENT].map((status) =>
    el(
      "tr",
      {},
      el("td", { class: `cell ${look(status, sample(status))}` }, ...leaf(status, sample(status))),
      el("th", { scope: "row" }, status.name),
      el("td", {}, status.meaning),
    ),
  );
  const edges = EDGES.map(({ edge, name, meaning }) => {
    const cell = el("td", { class: `cell branch p3 ${edge}` }, judged("6/8", 0.2));
    cell.style.setProperty("--silent", "25%");
    return el("tr", {}, cell, el("th", { scope: "row" }, name), el("td", {}, meaning));
  });
  const table = (caption, lines) => el("table", { class: "key" }, el("caption", {}, caption), ...lines);
  return [table("Every outcome, and how it is drawn", rows), table("A row of several cases: how many passed, and the worst ratio, with its colour", edges)];
}

const EDGES = [
  { edge: "bad", name: "something is wrong", meaning: "The ratio and its colour are the worst, where there is one." },
  { edge: "known", name: "failed as expected", meaning: "Their ratios do not count, so that they hide no other." },
  { edge: "partly", name: "not judged", meaning: "The hatched part is their share." },
];

// A case in a column: its fill, and what stands in it.
function look(status, ratio, bounded = false) {
  if (status === PASSED || (status.key === "failed" && ratio > 1)) {
    return `s-${status.key} ${ratio === null ? "unjudged" : bin(ratio, bounded && ratio <= 1)}`;
  }
  return `s-${status.key} mark`;
}

function leaf(status, ratio) {
  if (status === ABSENT) return [icon("absent")];
  if (ratio === null || status.family === "silent") return [icon(status.key), el("span", {}, status.short)];
  if (status === PASSED) return [el("span", {}, short(ratio))];
  return [icon(status.key), el("span", {}, short(ratio))];
}

// Draws a place anew; the keyboard stays on the control it was on.
function renew(place, ...children) {
  const controls = () => [...place.querySelectorAll("button, select, [tabindex]")];
  const held = controls().indexOf(document.activeElement);
  place.replaceChildren(...children);
  if (held >= 0) controls()[held]?.focus({ preventScroll: true });
}

// A choice that can be on or off.
function chip(content, isOn, onclick, attributes = {}) {
  return el("button", { type: "button", class: "chip", "aria-pressed": String(isOn), onclick, ...attributes }, content);
}

function chips(place, choices, isOn, choose) {
  const drawn = choices.map(({ value, content, title }) =>
    chip(content, isOn(value), () => choose(value), { "data-value": value, title }),
  );
  renew(place, ...drawn);
}
