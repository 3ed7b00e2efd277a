// The hand and the keyboard in the matrix.

// So many rows a page is.
const PAGE = 10;

function cellAt({ row, column } = matrix.at) {
  if (row < 0) return matrix.table.querySelector(`[data-head="${Math.max(column, 0)}"]`);
  const line = matrix.body.querySelector(`[data-row="${row}"]`);
  return line?.querySelector(column < 0 ? "th" : `[data-column="${column}"]`) ?? null;
}

function placeOf(target) {
  const head = target.closest("[data-head]");
  if (head) return { row: -1, column: Number(head.dataset.head) };
  const line = target.closest("[data-row]");
  const cell = target.closest("td, th");
  if (!line || !cell) return null;
  return { row: Number(line.dataset.row), column: Number(cell.dataset.column ?? -1) };
}

function focusCell() {
  const { row, column } = matrix.at;
  const box = matrix.scroller;
  if (row >= 0) {
    const { top, height } = matrix.rows[row];
    const header = matrix.table.tHead.offsetHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height + header > box.scrollTop + box.clientHeight) {
      box.scrollTop = top + height + header - box.clientHeight;
    }
  }
  if (column >= 0) intoSight(column);
  windowed();
  const cell = cellAt();
  for (const old of matrix.table.querySelectorAll('[tabindex="0"]')) old.setAttribute("tabindex", "-1");
  cell.setAttribute("tabindex", "0");
  cell.focus({ preventScroll: true });
}

// The names stay where they are, so that a cell may be under them and count as in sight.
function intoSight(column) {
  const { scroller: box, names, width } = matrix;
  const left = column * width;
  const right = names + left + width - box.clientWidth;
  if (box.scrollLeft > left) box.scrollLeft = left;
  else if (box.scrollLeft < right) box.scrollLeft = right;
}

function onMatrixFocus(event) {
  const place = placeOf(event.target);
  if (place) matrix.at = place;
}

function onMatrixClick(event) {
  const place = placeOf(event.target);
  if (!place) return;
  matrix.at = place;
  act(place, { byKey: event.detail === 0 });
}

// Opens what is at a place: a branch by its name, details by a cell.
function act({ row, column }, { byKey }) {
  const here = matrix.rows[row];
  if (row < 0) go({ case: "", group: "", col: matrix.columns[column].name }, { step: true });
  else if (here.node && column < 0) fold(here, !here.open);
  else if (here.node) {
    go({ case: "", group: here.node.path, col: matrix.columns[column].name }, { step: true });
  } else {
    const col = column < 0 ? "" : matrix.columns[column].name;
    go({ case: here.one.id, group: "", col }, { step: true });
  }
  if (byKey && !panel.hidden && !(here?.node && column < 0)) panel.focus();
}

function fold({ node }, wanted) {
  const open = new Set(state.open ?? openByItself());
  const shut = new Set(state.shut);
  open.delete(node.path);
  shut.delete(node.path);
  Object.assign(state, { open, shut });
  // What is as wanted without a word needs none in the address.
  if (isOpen(node) !== wanted) (wanted ? open : shut).add(node.path);
  go({ open, shut });
  focusCell();
}

// The scenarios that stand open though nobody has opened them.
function openByItself() {
  const all = (nodes) => nodes.flatMap((node) => [node, ...all([...node.children.values()])]);
  return all(matrix.roots)
    .filter((node) => node.kind === "scenario" && isOpen(node))
    .map((node) => node.path);
}

function onMatrixKey(event) {
  if (event.altKey || event.metaKey) return;
  const { row, column } = matrix.at;
  const here = matrix.rows[row];
  const end = matrix.columns.length - 1;
  const bottom = matrix.rows.length - 1;
  const to = (r, c) => ({ row: Math.max(-1, Math.min(bottom, r)), column: Math.max(r < 0 ? 0 : -1, Math.min(end, c)) });
  const moves = {
    ArrowDown: () => to(row + 1, column),
    ArrowUp: () => to(row - 1, column),
    PageDown: () => to(row + PAGE, column),
    PageUp: () => to(Math.max(0, row - PAGE), column),
    ArrowRight: () => to(row, column + 1),
    ArrowLeft: () => (column < 0 && here?.parent >= 0 ? to(here.parent, -1) : to(row, column - 1)),
    Home: () => to(event.ctrlKey ? 0 : row, -1),
    End: () => (event.ctrlKey ? to(bottom, column) : to(row, end)),
  };
  if (here?.node && column < 0 && event.key === "ArrowRight" && !here.open) fold(here, true);
  else if (here?.node && column < 0 && event.key === "ArrowLeft" && here.open) fold(here, false);
  else if (event.key === "Enter" || event.key === " ") act(matrix.at, { byKey: true });
  else if (moves[event.key]) {
    matrix.at = moves[event.key]();
    focusCell();
  } else return;
  event.preventDefault();
}
