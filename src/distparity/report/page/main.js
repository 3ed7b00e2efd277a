// What holds the page together: the views, the themes, the keys of all of them.

const byId = (id) => document.getElementById(id);
const main = byId("main");
const VIEW = { matrix: drawMatrix, compare: drawCompare, runs: drawRuns };
// How many pixels of a landscape page the matrix may be wide.
const PAPER = 1000;
const THEMES = { auto: "light", light: "dark", dark: "auto" };

function say(words) {
  byId("said").textContent = words;
}

function draw() {
  const root = document.documentElement;
  root.dataset.theme = state.theme;
  root.dataset.view = state.view;
  drawFilters();
  // First, because what it leaves is the matrix's.
  drawPanel();
  const shown = VIEW[state.view](main);
  const few = shown.length === cases.length ? plural(cases.length, "case") : `${shown.length.toLocaleString("en")} of ${plural(cases.length, "case")}`;
  say(`${few}, ${plural(shownColumns().length, "cell")}`);
}

function readAndDraw() {
  const strange = readAddress();
  const notice = byId("notice");
  notice.hidden = !strange.length;
  notice.textContent = strange.length ? `The address names what is not in this report: ${strange.join(", ")}` : "";
  draw();
}

function start() {
  byId("scale").append(...scale());
  byId("key").querySelector("div").append(...key());
  for (const view of VIEWS) {
    byId(`to-${view}`).addEventListener("click", (event) => {
      event.preventDefault();
      go({ view, case: "", group: "", col: "" }, { step: true });
    });
  }
  byId("q").addEventListener("input", (event) => go({ q: event.target.value }));
  byId("diff").addEventListener("change", (event) => go({ diff: event.target.checked }));
  byId("theme").addEventListener("click", () => go({ theme: THEMES[state.theme] }));
  byId("reset").addEventListener("click", () => {
    const { q, out, str, dev, diff } = blank();
    go({ q, out, str, dev, diff });
  });
  addEventListener("hashchange", readAndDraw);
  addEventListener("popstate", readAndDraw);
  addEventListener("resize", () => matrix.scroller && state.view === "matrix" && draw());
  addEventListener("keydown", onKey);
  addEventListener("click", (event) => {
    // What was clicked may have been drawn anew since.
    const way = event.composedPath();
    shutMenus((menu) => !way.includes(menu));
  });
  // On paper there is nothing to scroll: all rows are drawn.
  addEventListener("beforeprint", () => drawWhole(true));
  addEventListener("afterprint", () => drawWhole(false));
  readAndDraw();
}

function drawWhole(whole) {
  if (!matrix.scroller || state.view !== "matrix") return;
  matrix.whole = whole;
  windowed(true);
  matrix.table.style.zoom = whole ? Math.min(1, PAPER / matrix.table.offsetWidth) : "";
}

function shutMenus(which) {
  const open = [...document.querySelectorAll("details.menu[open]")].filter(which);
  for (const menu of open) menu.open = false;
  return open.length > 0;
}

function onKey(event) {
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "/" && !typing) {
    byId("q").focus();
    event.preventDefault();
  } else if (event.key === "Escape" && shutMenus(() => true)) event.preventDefault();
  else if (event.key === "Escape" && !panel.hidden && !typing) closePanel();
}

start();
