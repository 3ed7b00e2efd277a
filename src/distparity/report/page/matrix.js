// The matrix: a tree of rows. Only what is in sight is in the document: of the rows, and in these of the
// columns.

const HEIGHT = { row: 28, line: 15 };
// Widths in pixels: a column's bounds, one in which a word fits beside a count, a digit and a small one,
// what is around a count, a ratio and a mark, a ground below texts, a cell's edge.
const WIDTH = { least: 94, most: 150, word: 125, digit: 7.4, small: 6.4, count: 8, ratio: 8, mark: 22, ground: 8, edge: 14 };
// Of names, in pixels: a letter, and what is around one. In letters: a long one, and the end that is not cut.
const NAME = { letter: 8.4, around: 110, long: 24, end: 10 };
// So many rows and columns beyond those in sight are in the document.
const AHEAD = { rows: 6, columns: 2 };

const matrix = {
  rows: [],
  columns: [],
  roots: [],
  // Whether there are so few scenarios that they are shown open.
  few: false,
  // Of a column and of the names, in pixels.
  width: WIDTH.least,
  names: 0,
  // Where the keyboard is: row -1 is the header, column -1 the names.
  at: { row: 0, column: -1 },
  // What is drawn, as rows and columns from and to.
  drawn: null,
  scroller: null,
  table: null,
  body: null,
};

function isOpen(node) {
  if (state.open?.has(node.path)) return true;
  return !state.shut.has(node.path) && opensByItself(node);
}

function opensByItself({ kind }) {
  if (kind === "family") return !state.shut.has(ALL);
  // A report of few scenarios is shown open; who opens or closes one has said what they want.
  if (state.open === null) return kind === "scenario" && matrix.few;
  return state.open.has(ALL) || (kind === "scenario" && state.open.has(SCENARIOS));
}

function flatten(nodes) {
  const rows = [];
  const visit = (siblings, parent) => {
    siblings.forEach((node, index) => {
      const row = { node, parent, level: node.level, place: index + 1, among: siblings.length };
      const mine = rows.push({ ...row, open: isOpen(node) }) - 1;
      if (!rows[mine].open) return;
      if (node.children.size) visit([...node.children.values()], mine);
      else {
        node.cases.forEach((one, place) =>
          rows.push({ one, parent: mine, level: node.level + 1, place: place + 1, among: node.cases.length }),
        );
      }
    });
  };
  visit(nodes, -1);
  let top = 0;
  for (const row of rows) {
    row.top = top;
    row.height = HEIGHT.row + (row.node ? HEIGHT.line * (linesIn(row.node) - 1) : 0);
    top += row.height;
  }
  return rows;
}

function drawMatrix(main) {
  const focused = matrix.table?.contains(document.activeElement);
  const { scrollTop = 0, scrollLeft = 0 } = matrix.scroller ?? {};
  const held = matrix.rows[matrix.at.row];
  matrix.columns = shownColumns();
  const shown = shownCases(matrix.columns);
  matrix.roots = tree(shown);
  matrix.few = unique(shown.map((one) => one.scenario)).length <= 2;
  matrix.at.column = Math.min(matrix.at.column, matrix.columns.length - 1);
  if (!shown.length) {
    matrix.rows = [];
    matrix.scroller = matrix.table = null;
    main.replaceChildren(el("p", { class: "empty" }, "No case matches these filters."));
    return shown;
  }
  matrix.body = el("tbody");
  matrix.table = el(
    "table",
    {
      class: LEVELS === KINDS ? "matrix families" : "matrix",
      role: "treegrid",
      "aria-label": "Outcomes by case and cell",
      "aria-colcount": matrix.columns.length + 1,
      tabindex: "-1",
      onkeydown: onMatrixKey,
      onclick: onMatrixClick,
      onfocusin: onMatrixFocus,
    },
    head(0, matrix.columns.length),
    matrix.body,
  );
  matrix.scroller = el("div", { class: "scroller", onscroll: () => windowed() }, matrix.table);
  main.replaceChildren(matrix.scroller);
  widths();
  // Only now is it known how wide a cell is, and by that how high a row.
  matrix.rows = flatten(matrix.roots);
  matrix.table.setAttribute("aria-rowcount", matrix.rows.length + 2);
  matrix.at.row = Math.max(matrix.at.row < 0 ? -1 : 0, sameRow(held));
  matrix.scroller.scrollTop = scrollTop;
  matrix.scroller.scrollLeft = scrollLeft;
  windowed(true);
  if (focused) focusCell();
  return shown;
}

// All columns are equally wide, as far as there is room for them.
function widths() {
  matrix.table.style.removeProperty("--names");
  const usual = matrix.table.querySelector(".corner").offsetWidth;
  // Where columns leave room, names that are longer than usual have it.
  const longest = Math.max(...cases.flatMap((one) => [one.scenario.length, one.strategy.length]));
  const left = matrix.scroller.clientWidth - 20 - WIDTH.least * matrix.columns.length;
  const names = Math.max(usual, Math.min(left, NAME.around + NAME.letter * longest));
  if (names > usual && !matchMedia("print").matches) matrix.table.style.setProperty("--names", `${Math.floor(names)}px`);
  matrix.names = matrix.table.querySelector(".corner").offsetWidth;
  const room = (matrix.scroller.clientWidth - matrix.names - 20) / matrix.columns.length;
  matrix.width = Math.floor(Math.max(WIDTH.least, Math.min(WIDTH.most, room)));
  matrix.table.style.setProperty("--column", `${matrix.width}px`);
  matrix.table.style.width = `${matrix.names + matrix.width * matrix.columns.length}px`;
}

// How many lines the fullest cell of a row takes: the count, and beside or below it the ratio and the
// marks.
function linesIn(node) {
  return Math.max(...matrix.columns.map((column) => linesOf(tally(node, column))));
}

function linesOf(found) {
  const room = matrix.width - WIDTH.edge;
  let left = room - WIDTH.count - WIDTH.digit * `${found.passed}/${found.total}`.length - (found.silent ? WIDTH.ground : 0);
  let lines = 1;
  const widths = others(found).map((status) => WIDTH.mark + WIDTH.digit * String(found.counts.get(status)).length);
  if (found.worst !== null) widths.unshift(WIDTH.ratio + WIDTH.small * short(found.worst).length);
  for (const width of widths) {
    if (width > left) {
      lines += 1;
      left = room;
    }
    left -= width;
  }
  return lines;
}

function sameRow(held) {
  const at = Math.min(matrix.at.row, matrix.rows.length - 1);
  if (!held) return at;
  const same = (row) => (held.node ? row.node?.path === held.node.path : row.one === held.one);
  const found = matrix.rows.findIndex(same);
  return found < 0 ? at : matrix.at.row < 0 ? -1 : found;
}

// -- the header ------------------------------------------------------------------------------

function head(from, to) {
  const outer = state.by === "torch" ? "torch" : "device";
  const inner = outer === "torch" ? "device" : "torch";
  const here = matrix.columns.slice(from, to);
  const spans = [];
  here.forEach((column, index) => {
    if (spans.at(-1)?.name === column[outer]) spans.at(-1).span += 1;
    else spans.push({ name: column[outer], span: 1, place: from + index });
  });
  const corner = el("th", { class: "corner", rowspan: 2, scope: "col", role: "columnheader", "aria-colindex": 1 });
  corner.append(el("span", {}, "scenario"), el("small", {}, "strategy, ranks · dtype"));
  return el(
    "thead",
    {},
    el(
      "tr",
      { role: "row", "aria-rowindex": 1 },
      corner,
      spans.map(({ name, span, place }) =>
        el(
          "th",
          { colspan: span, scope: "colgroup", role: "columnheader", class: "outer", "aria-colindex": place + 2 },
          el("span", {}, name),
        ),
      ),
    ),
    el(
      "tr",
      { role: "row", "aria-rowindex": 2 },
      here.map((column, index) => {
        const place = from + index;
        return el(
          "th",
          { scope: "col", role: "columnheader", class: `inner${starts(place) ? " starts" : ""}`, "aria-colindex": place + 2 },
          el(
            "button",
            {
              type: "button",
              tabindex: "-1",
              "data-head": place,
              "aria-label": `${column.title}${whole(column) ? "" : ", the run ended early"}: facts of the run`,
              title: whole(column) ? column.title : `${column.title}: the run ended early`,
              class: state.col === column.name && !state.case ? "chosen" : null,
            },
            whole(column) ? null : icon("error", "alert"),
            column[inner],
          ),
        );
      }),
    ),
  );
}

// Whether a column is the first of its torch, or of its device where these are the outer ones.
function starts(place) {
  const { columns } = matrix;
  return place > 0 && columns[place - 1][state.by] !== columns[place][state.by];
}

// Whether the run came to its end; a cell that could not even start has the case "cell/start".
function whole(column) {
  const start = caseById.get("cell/start");
  return column.facts.ended === "finished" && !(start && statusOf(column, start) !== ABSENT);
}

// -- what is in sight ------------------------------------------------------------------------

function windowed(fresh = false) {
  const { rows, body } = matrix;
  const drawn = { rows: rowsInSight(), columns: columnsInSight() };
  if (!fresh && JSON.stringify(drawn) === JSON.stringify(matrix.drawn)) return;
  const focused = body.contains(document.activeElement);
  matrix.drawn = drawn;
  const [from, to] = drawn.rows;
  const [left, right] = drawn.columns;
  const total = rows.at(-1).top + rows.at(-1).height;
  const above = rows[from].top;
  const below = total - rows[to - 1].top - rows[to - 1].height;
  body.replaceChildren(
    ...space(above),
    ...rows
      .slice(from, to)
      .map((row, place) =>
        drawRow(row, from + place, [gap(left), ...drawCells(row, left, right), gap(matrix.columns.length - right)]),
      ),
    ...space(below),
  );
  if (focused) {
    // The table keeps the keyboard when the row it was in has left the document.
    (cellAt() ?? matrix.table).focus({ preventScroll: true });
  }
  const tab = cellAt() ?? body.querySelector("tr[role=row] > *");
  tab?.setAttribute("tabindex", "0");
}

function rowsInSight() {
  const { rows, scroller } = matrix;
  const end = scroller.scrollTop + (scroller.clientHeight || 800);
  const first = rows.findIndex((row) => row.top + row.height >= scroller.scrollTop);
  const last = rows.findIndex((row) => row.top > end);
  return [Math.max(0, first - AHEAD.rows), Math.min(rows.length, (last < 0 ? rows.length : last) + AHEAD.rows)];
}

function columnsInSight() {
  const { columns, scroller, width, names } = matrix;
  const first = Math.floor(scroller.scrollLeft / width);
  const last = Math.ceil((scroller.scrollLeft + (scroller.clientWidth || 1200) - names) / width);
  return [Math.max(0, first - AHEAD.columns), Math.min(columns.length, last + AHEAD.columns)];
}

function space(height) {
  if (!height) return [];
  const row = el("tr", { class: "space", role: "presentation", "aria-hidden": "true" }, el("td"));
  row.firstChild.style.height = `${height}px`;
  return [row];
}

function rowTitle(row) {
  const name = row.node ? row.node.label : row.one.strategy || row.one.name;
  const among = row.node ? row.node.cases : [row.one];
  return [row.node?.path ?? row.one.id, ...histories(among, matrix.columns, name)].join("\n");
}

function isLong(name) {
  return name.length >= NAME.long;
}

// A long name in two parts: where there is no room for all of it, the first is cut. Names that begin alike
// end differently.
function parts(name) {
  if (!isLong(name)) return name;
  return [el("span", { class: "begin" }, name.slice(0, -NAME.end)), name.slice(-NAME.end)];
}

function drawRow(row, index, drawnCells) {
  const label = row.node ? row.node.label : row.one.label;
  const name = el(
    "th",
    {
      scope: "row",
      role: "rowheader",
      tabindex: "-1",
      "aria-colindex": 1,
      // Read out, a name in two parts has a gap.
      "aria-label": isLong(label) ? `${label} ${row.node?.cases.length ?? ""}`.trim() : null,
      title: rowTitle(row),
    },
    row.node ? icon("open", row.open ? "turned" : "") : null,
    el("span", { class: "label" }, parts(label)),
    row.node ? el("small", {}, String(row.node.cases.length)) : null,
  );
  const line = el(
    "tr",
    {
      role: "row",
      class: `${row.node?.kind ?? "leaf"}${state.case && row.one?.id === state.case ? " chosen" : ""}`,
      "data-row": index,
      "aria-rowindex": index + 3,
      "aria-level": row.level,
      "aria-posinset": row.place,
      "aria-setsize": row.among,
      "aria-expanded": row.node ? String(row.open) : null,
    },
    name,
    drawnCells,
  );
  line.style.height = `${row.height}px`;
  return line;
}

function drawCells(row, from, to) {
  return matrix.columns.slice(from, to).map((column, index) => {
    const place = from + index;
    const cell = row.node ? branchCell(row.node, column) : leafCell(row.one, column);
    if (starts(place)) cell.classList.add("starts");
    cell.dataset.column = place;
    cell.setAttribute("aria-colindex", place + 2);
    return cell;
  });
}

// In place of columns that are not in the document.
function gap(number) {
  return number ? el("td", { class: "gap", colspan: number, role: "presentation", "aria-hidden": "true" }) : null;
}

function branchCell(node, column) {
  const found = tally(node, column);
  const words = `${column.title}: ${inWords(found)}`;
  const attributes = { role: "gridcell", tabindex: "-1", "aria-label": words, title: words };
  if (!found.total) return el("td", { ...attributes, class: "cell s-absent mark" }, icon("absent"));
  const marks = others(found);
  if (marks.length === 1 && found.counts.get(marks[0]) === found.total && found.worst === null) {
    return el(
      "td",
      { ...attributes, class: `cell branch ${look(marks[0], null)}` },
      el("b", {}, icon(marks[0].key), String(found.total)),
      matrix.width < WIDTH.word ? null : el("span", { class: "word" }, marks[0].short),
    );
  }
  const hue = found.worst === null ? "unjudged" : bin(found.worst, found.bounded);
  const cell = el(
    "td",
    { ...attributes, class: `cell branch ${hue}${edge(found)}${found.silent ? " partly" : ""}` },
    judged(`${found.passed}/${found.total}`, found.worst),
    marks.map((status) =>
      el("i", { class: `count f-${status.family}` }, icon(status.key), String(found.counts.get(status))),
    ),
  );
  // The colour speaks for the judged cases alone; the others have their share of the cell.
  cell.style.setProperty("--silent", `${(100 * found.silent) / found.total}%`);
  return cell;
}

// How many passed, and the worst ratio: what the colour of a cell speaks for.
function judged(passed, worst) {
  const ratio = worst === null ? null : el("i", { class: "ratio" }, short(worst));
  return el("span", { class: "judged" }, el("b", {}, passed), ratio);
}

function edge(found) {
  return found.bad ? " bad" : found.known ? " known" : "";
}

function leafCell(one, column) {
  const status = statusOf(column, one);
  const ratio = column.ratio[one.index];
  const words = [
    `${column.title}: ${status.name}`,
    ratio === null ? "" : `ratio ${short(ratio)}`,
    (diagnosisOf(column, one) || messageOf(column, one)).slice(0, 200),
  ];
  const label = words.filter(Boolean).join("; ");
  const chosen = state.case === one.id && state.col === column.name ? " chosen" : "";
  return el(
    "td",
    {
      role: "gridcell",
      tabindex: "-1",
      class: `cell ${look(status, ratio, boundedIn(column, one))}${chosen}`,
      "aria-label": label,
      title: label,
    },
    ...leaf(status, ratio),
  );
}
