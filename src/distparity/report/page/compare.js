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
      changes ? [el("p", { class: "sentence" }, sentence(changes)), sections(a, b, changes)].flat() : el("p", { class: "empty" }, "There is only one cell."),
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
    // Why it is wrong or says nothing: now, or, of what is right now, before.
    const why = causeOf(is === PASSED ? a : b, one);
    const change = { one, was, is, factor, why };
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

// By how much a ratio moved. From and to 0 and infinity there is no factor.
function times(was, is, factor) {
  if (factor === 1) return "";
  if (was === 0 || was === Infinity) return `from ${short(was)}`;
  if (is === 0 || is === Infinity) return `to ${short(is)}`;
  return factor > 1 ? `× ${short(factor)}` : `÷ ${short(1 / factor)}`;
}

function sentence({ regressed, fixed, drifted, other }) {
  const causes = unique(regressed.map(({ why }) => why)).length;
  const worse = regressed.length ? `${plural(regressed.length, "case")} regressed, for ${plural(causes, "cause")}` : "No case regressed";
  return `${worse}; ${fixed.length} fixed, ${drifted.length} drifted, ${plural(other.length, "other change")}.`;
}

// Changes of one cause together, the most frequent cause first.
function byCause(rows) {
  const groups = new Map();
  for (const change of rows) groups.set(change.why, [...(groups.get(change.why) ?? []), change]);
  return [...groups].sort(([, one], [, other]) => other.length - one.length);
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
  const heads = ["case", side(a), side(b), ["ratio ", el("small", {}, "moved by")]];
  return el(
    "table",
    { class: "outcomes" },
    el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col" }, name)))),
    byCause(rows).map(([why, group]) =>
      el(
        "tbody",
        {},
        why ? el("tr", { class: "cause" }, el("th", { scope: "rowgroup", colspan: 4 }, `${group.length} × ${why}`)) : null,
        group.map(({ one, was, is, factor }) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, caseLink(one, b)),
            el("td", {}, verdict(was, a.ratio[one.index])),
            el("td", {}, verdict(is, b.ratio[one.index])),
            el("td", {}, times(a.ratio[one.index], b.ratio[one.index], factor)),
          ),
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
