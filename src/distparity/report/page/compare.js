// Two columns side by side: what is worse, what is better, and what has moved.

const DRIFT = 4;

function drawCompare(main) {
  const [a, b] = compared();
  const shown = shownCases();
  const changes = a && b ? compareColumns(a, b, shown) : null;
  renew(
    main,
    el(
      "div",
      { class: "compare" },
      el(
        "div",
        { class: "pair" },
        chooser("a", "From", a),
        el("span", { "aria-hidden": "true" }, "→"),
        chooser("b", "to", b),
        el("button", { type: "button", class: "plain", onclick: () => go({ a: b.name, b: a.name }) }, "Swap"),
      ),
      changes ? sections(a, b, changes) : el("p", { class: "empty" }, "There is only one cell."),
    ),
  );
  return shown;
}

function compared() {
  const b = columnByName.get(state.b) ?? columns.at(-1);
  const a = columnByName.get(state.a) ?? earlier(b) ?? columns.find((column) => column !== b) ?? b;
  return [a, b];
}

function chooser(name, label, chosen) {
  const options = columns.map((column) =>
    el("option", { value: column.name, selected: column === chosen }, column.title),
  );
  const id = `choose-${name}`;
  const choose = (event) => go({ [name]: event.target.value });
  return el("label", { for: id }, label, " ", el("select", { id, onchange: choose }, options));
}

// Where two outcomes differ, which way; and where both have a ratio, by how much it moved.
function compareColumns(a, b, shown) {
  const changes = { regressed: [], fixed: [], drifted: [], other: [] };
  for (const one of shown) {
    const was = statusOf(a, one);
    const is = statusOf(b, one);
    const factor = moved(a.ratio[one.index], b.ratio[one.index]);
    const change = { one, was, is, factor };
    if (right(was) && wrong(is)) changes.regressed.push(change);
    else if (wrong(was) && right(is)) changes.fixed.push(change);
    else if (was !== is) changes.other.push(change);
    else if (factor > DRIFT || factor < 1 / DRIFT) changes.drifted.push(change);
  }
  const size = ({ factor }) => Math.abs(Math.log(factor || Number.MIN_VALUE));
  changes.drifted.sort((one, other) => size(other) - size(one));
  return changes;
}

// Of the numbers alone: that a failure is declared makes it no less a failure, and what passes though
// it is declared to fail is right. What has not come, and what could not be judged, is neither.
const RIGHT = ["passed", "unexpectedly-fixed"];
const WRONG = ["failed", "crash", "timeout", "flaky", "expected-failure"];
const right = (status) => RIGHT.includes(status.key);
const wrong = (status) => WRONG.includes(status.key);

function moved(was, is) {
  if (was === null || is === null || was === undefined || is === undefined || was === is) return 1;
  return was === 0 ? Infinity : is / was;
}

function times(factor) {
  if (factor === 1) return "";
  return factor > 1 ? `× ${short(factor)}` : `÷ ${short(1 / factor)}`;
}

function sections(a, b, changes) {
  const told = [
    ["regressed", "Regressed", "It was right and is wrong now."],
    ["fixed", "Fixed", "It was wrong and is right now."],
    ["drifted", `Drifted by more than ${DRIFT} ×`, "The outcome is the same, the ratio is not."],
    ["other", "Other changes", "One of the two says nothing, or it is right or wrong in another way."],
  ];
  return told.map(([name, heading, meaning]) =>
    el(
      "section",
      { class: `change ${name}`, id: `change-${name}` },
      el("h2", {}, `${heading} `, el("span", { class: "count" }, changes[name].length.toLocaleString("en"))),
      el("p", { class: "under" }, meaning),
      changes[name].length ? changeTable(a, b, changes[name]) : null,
    ),
  );
}

function changeTable(a, b, rows) {
  const side = (column) => [`${column.torch} ${column.device} `, el("small", {}, "outcome, ratio")];
  const heads = ["case", side(a), side(b), "factor"];
  return el(
    "table",
    { class: "outcomes" },
    el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col" }, name)))),
    el(
      "tbody",
      {},
      rows.map(({ one, was, is, factor }) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, caseLink(one, b)),
          el("td", {}, verdict(was, a.ratio[one.index])),
          el("td", {}, verdict(is, b.ratio[one.index])),
          el("td", {}, times(factor)),
        ),
      ),
    ),
  );
}

// An outcome and its ratio: beside it where there is room, else below.
function verdict(status, ratio) {
  const size = ratio === null ? null : el("span", { class: "number" }, swatch(ratio), short(ratio));
  return el("div", { class: "verdict" }, badge(status), size);
}
