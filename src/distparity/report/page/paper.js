// On paper nothing scrolls: what is wider than a page goes on in another table below.

// In pixels: a landscape page of A4 or Letter between its margins, and the names. Smaller than this
// zoom the smallest text would be below 6 pt. And so many runs stand side by side.
const PAPER = { width: 950, names: 270, zoom: 0.75, runs: 6 };
const BANDS = { matrix: matrixBands, runs: runsBands };

// What was on the screen, while it is being printed.
let laid = null;

function layOnPaper() {
  const scroller = main.querySelector(":scope > .scroller");
  if (laid || !scroller) return;
  const { scrollTop, scrollLeft } = scroller;
  const held = scroller.contains(document.activeElement) ? document.activeElement : null;
  laid = { scroller, scrollTop, scrollLeft, held };
  main.replaceChildren(el("div", { class: "paper" }, BANDS[state.view]()));
}

function layBack() {
  if (!laid) return;
  const { scroller, scrollTop, scrollLeft, held } = laid;
  laid = null;
  main.replaceChildren(scroller);
  Object.assign(scroller, { scrollTop, scrollLeft });
  held?.focus({ preventScroll: true });
}

function matrixBands() {
  const { columns, rows, width, table } = matrix;
  const zoom = Math.max(PAPER.zoom, Math.min(1, PAPER.width / (PAPER.names + width * columns.length)));
  const room = Math.max(1, Math.floor((PAPER.width / zoom - PAPER.names) / width));
  return bands(columns.length, room).map(([from, to]) => {
    const lines = rows.map((row, index) => drawRow(row, index, drawCells(row, from, to)));
    const band = el("table", { class: table.className, role: "treegrid" }, head(from, to), el("tbody", {}, lines));
    band.style.setProperty("--column", `${width}px`);
    band.style.width = `${PAPER.names + width * (to - from)}px`;
    band.style.zoom = zoom;
    return band;
  });
}

function runsBands() {
  const shown = shownColumns();
  return bands(shown.length, PAPER.runs).map(([from, to]) => runsTable(shown, shown.slice(from, to)));
}

// From and to of parts that have room, as equal as they can be.
function bands(total, room) {
  const number = Math.ceil(total / room);
  const size = Math.ceil(total / number);
  return Array.from({ length: number }, (_, part) => [part * size, Math.min(total, (part + 1) * size)]);
}
