// What holds the page together: the views, the themes, the keys of all of them.

const byId = (id) => document.getElementById(id);
const main = byId("main");
const VIEW = { matrix: drawMatrix, compare: drawCompare, runs: drawRuns };
const THEMES = { auto: "light", light: "dark", dark: "auto" };

function say(words) {
  byId("said").textContent = words;
}

function draw() {
  const root = document.documentElement;
  root.dataset.theme = state.theme;
  root.dataset.view = state.view;
  drawFilters();
  const held = panel.contains(document.activeElement);
  const before = panel.dataset.case;
  // First, because what it leaves is the matrix's.
  drawPanel();
  const shown = VIEW[state.view](main);
  if (held && panel.hidden) focusBehind(before);
  const few = shown.length === cases.length ? plural(cases.length, "case") : `${shown.length.toLocaleString("en")} of ${plural(cases.length, "case")}`;
  say(`${few}, ${plural(lookedAt().length, "cell")}`);
}

function readAndDraw() {
  const strange = readAddress();
  const notice = byId("notice");
  notice.hidden = !strange.length;
  notice.textContent = strange.length ? `The address names something that is not in this report: ${strange.join(", ")}` : "";
  draw();
}

function start() {
  byId("answer").textContent = byId("answer").title = answer();
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
  byId("reset").addEventListener("click", (event) => {
    const { q, out, str, dev, diff } = blank();
    go({ q, out, str, dev, diff });
    // By a key: the button has gone, and what it cleared begins here.
    if (event.detail === 0) (byId("q").offsetParent ? byId("q") : main).focus();
  });
  addEventListener("hashchange", readAndDraw);
  addEventListener("popstate", readAndDraw);
  addEventListener("resize", () => matrix.scroller && state.view === "matrix" && !laid && draw());
  addEventListener("keydown", onKey);
  addEventListener("click", (event) => {
    // What was clicked may have been drawn anew since.
    const way = event.composedPath();
    shutMenus((menu) => !way.includes(menu));
  });
  addEventListener("beforeprint", layOnPaper);
  addEventListener("afterprint", layBack);
  readAndDraw();
}

function shutMenus(which) {
  const open = [...document.querySelectorAll("details.menu[open]")].filter(which);
  for (const menu of open) {
    // What is shut cannot keep the keyboard.
    if (menu.contains(document.activeElement)) menu.querySelector("summary").focus();
    menu.open = false;
  }
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
