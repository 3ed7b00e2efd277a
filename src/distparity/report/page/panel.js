// Beside the matrix: one case over all columns, one branch in one column, or the facts of a column.

const panel = document.getElementById("panel");

function drawPanel() {
  const column = columnByName.get(state.col);
  const content = state.case
    ? caseDetails(caseById.get(state.case), column)
    : state.group && column
      ? groupDetails(state.group, column)
      : column
        ? columnDetails(column)
        : null;
  panel.hidden = content === null;
  document.body.classList.toggle("with-panel", content !== null);
  const same = panel.dataset.of === `${state.case}|${state.group}|${state.case ? "" : state.col}`;
  panel.dataset.of = `${state.case}|${state.group}|${state.case ? "" : state.col}`;
  panel.dataset.case = state.case;
  const { scrollTop } = panel;
  renew(panel, ...(content ?? []));
  panel.scrollTop = same ? scrollTop : 0;
}

function closePanel() {
  const before = state.case;
  go({ case: "", group: "", col: "" }, { step: true });
  if (state.view === "matrix" || document.activeElement === document.body) focusBehind(before);
}

// Gives the keyboard to what the details, which have gone, were opened from: a cell, a case's link.
function focusBehind(before) {
  if (matrix.table && state.view === "matrix") focusCell();
  else (main.querySelector(`[data-case="${CSS.escape(before)}"]`) ?? main).focus();
}

function title(over, name, under) {
  return el(
    "header",
    {},
    el("div", {}, el("p", { class: "over" }, over), el("h2", {}, name), el("p", { class: "under" }, under)),
    el(
      "button",
      { type: "button", class: "close", "aria-label": "Close the details", title: "Close (Esc)", onclick: closePanel },
      icon("close"),
    ),
  );
}

// -- one case --------------------------------------------------------------------------------

function caseDetails(one, wanted) {
  const shown = shownColumns();
  const chosen = wanted ?? worstColumn(one, shown);
  const choose = (column) => go({ col: column.name });
  const under = one.world === null ? "" : `${plural(one.world, "rank")} · ${one.dtype}`;
  return [
    title(`${one.scenario}`, one.strategy || one.name, under),
    told([one], shown, one.strategy || one.name),
    plot(one, chosen, choose),
    outcomes(one, shown, chosen, choose),
    chosen?.runs.length ? runsOfCell(one, chosen) : null,
    chosen ? account(one, chosen) : null,
  ].filter(Boolean);
}

// Since when it is right, for each device.
function told(among, shown, name) {
  return el("ul", { class: "history" }, histories(among, shown, name).map((line) => el("li", {}, line)));
}

function worstColumn(one, shown) {
  const known = shown.filter((column) => statusOf(column, one) !== ABSENT);
  const rank = (column) => statusOf(column, one).number;
  return known.reduce((worst, column) => (worst && rank(worst) < rank(column) ? worst : column), null);
}

function outcomes(one, shown, chosen, choose) {
  const rows = shown.map((column) => {
    const status = statusOf(column, one);
    const error = column.error[one.index];
    const time = column.time[one.index];
    return el(
      "tr",
      { class: column === chosen ? "chosen" : null },
      el(
        "th",
        { scope: "row" },
        el("button", { type: "button", "aria-pressed": String(column === chosen), onclick: () => choose(column) }, `${column.torch} ${column.device}`),
      ),
      el("td", {}, badge(status)),
      el("td", { class: "number" }, swatch(column.ratio[one.index], boundedIn(column, one)), short(column.ratio[one.index])),
      el("td", { class: "number" }, short(error)),
      el("td", { class: "number" }, inRanks(time, column.bandwidth[one.index])),
    );
  });
  const names = ["cell", "outcome", "ratio", "largest error", "in ranks"];
  const heads = names.map((name) => el("th", { scope: "col" }, name));
  return el("table", { class: "outcomes" }, el("caption", { class: "hidden" }, "Outcome in every cell"), el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows));
}

// The runs of one cell by date, the newest first.
function runsOfCell(one, column) {
  const ran = column.runs.map((run) => ({ ...run, status: statuses[run.status[one.index]] ?? ABSENT, ratio: run.ratio[one.index] }));
  const states = ran.map((run) => ({ torch: day(run), is: run.status === ABSENT ? "silent" : verdictOf([run.status]) }));
  const rows = ran.toReversed().map((run) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, when(run)),
      el("td", {}, badge(run.status)),
      el("td", { class: "number" }, swatch(run.ratio), short(run.ratio)),
      el("td", { class: "number" }, inRanks(run.time[one.index], run.bandwidth[one.index])),
      el("td", {}, run.torch),
      el("td", {}, run.distparity),
    ),
  );
  const heads = ["run", "outcome", "ratio", "in ranks", "torch", "distparity"].map((name) => el("th", { scope: "col" }, name));
  return el(
    "section",
    { class: "by-date", "aria-label": `Runs of ${column.name}` },
    el("h3", {}, `Runs of ${column.name}`),
    el("p", { class: "history" }, spansInWords(states)),
    el("table", { class: "outcomes" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)),
  );
}

// A case's time in its ranks, or what an operation over sizes moves there at its largest size.
const inRanks = (time, bandwidth) => (bandwidth ? `${short(bandwidth / 1e9)} GB/s` : time ? `${short(time)} s` : "");

const day = (run) => run.started.slice(0, 10);
const when = (run) => run.started.slice(0, 16).replace("T", " ");

function swatch(ratio, bounded = false) {
  return ratio === null ? null : el("span", { class: `swatch ${bin(ratio, bounded && ratio <= 1)}`, "aria-hidden": "true" });
}

function account(one, column) {
  const status = statusOf(column, one);
  const message = messageOf(column, one);
  const diagnosis = diagnosisOf(column, one);
  const detail = detailOf(column, one);
  const rerun = rerunOf(column, one);
  const more = moreOf(column, one);
  return el(
    "section",
    { class: "account", "aria-label": column.title },
    el("h3", {}, badge(status), ` torch ${column.facts.torch ?? column.torch} on ${column.device}`),
    diagnosis ? el("p", { class: "diagnosis" }, diagnosis) : null,
    message ? el("p", { class: `message f-${status.family}` }, message) : null,
    detail ? el("pre", { class: "detail", tabindex: "0" }, detail) : null,
    more.length ? facts(more) : null,
    sources(one, column),
    rerun
      ? el("div", { class: "rerun" }, el("h4", {}, `To rerun, with torch ${column.facts.torch ?? column.torch}`), copyable(rerun))
      : null,
  );
}

// Where the case is written: links if distparity was built with the address of its sources.
function sources(one, column) {
  const { source, version } = column.facts;
  const paths = sourcesOf(column, one).map((path) => [source ? linked(`${source}/src/distparity/${path}`, path) : path, " "]);
  return paths.length ? el("p", { class: "sources" }, "Source: ", ...paths.flat(), `(distparity ${version})`) : null;
}

function copyable(command) {
  const code = el("code", {}, command);
  const button = el("button", { type: "button", class: "copy", "aria-label": "Copy the command", title: "Copy" }, icon("copy"));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      say("The command was copied.");
    } catch {
      // Without the right to the clipboard: mark it, so that one key copies it.
      getSelection().selectAllChildren(code);
    }
  });
  return el("div", { class: "command" }, code, button);
}

// -- a branch in a column ----------------------------------------------------------------------

function groupDetails(path, column) {
  const among = shownCases().filter((one) => inGroup(one, path));
  const family = KINDS[0].path(among[0] ?? {}) === path;
  const found = count(among, column);
  const here = among
    .filter((one) => statusOf(column, one) !== ABSENT)
    .sort((a, b) => statusOf(column, a).number - statusOf(column, b).number || ratioOf(column, b) - ratioOf(column, a));
  const name = (one) => (path.includes("/") ? one.label : family ? one.id : one.name);
  const rows = here.flatMap((one) => {
    const said = (diagnosisOf(column, one) || messageOf(column, one)).slice(0, 300);
    const line = el(
      "tr",
      { class: said ? "above" : null },
      el("th", { scope: "row" }, caseLink(one, column, name(one))),
      el("td", {}, badge(statusOf(column, one))),
      el("td", { class: "number" }, swatch(column.ratio[one.index], boundedIn(column, one)), short(column.ratio[one.index])),
    );
    return said ? [line, el("tr", {}, el("td", { class: "message", colspan: 3 }, said))] : [line];
  });
  const heads = ["case", "outcome", "ratio"].map((name) => el("th", { scope: "col" }, name));
  return [
    title(column.title, family ? among[0].family || "other" : path, inWords(found)),
    told(among, shownColumns(), path.split("/").at(-1) || "other"),
    el("table", { class: "outcomes" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)),
  ];
}

const ratioOf = (column, one) => column.ratio[one.index] ?? -1;

function caseLink(one, column, label = one.id) {
  const open = () => {
    go({ case: one.id, group: "", col: column?.name ?? "" }, { step: true });
    panel.focus();
  };
  return el("button", { type: "button", onclick: open, title: one.id, "data-case": one.id }, label);
}

// -- a column --------------------------------------------------------------------------------

function columnDetails(column) {
  const found = count(cases, column);
  const badges = [...statuses]
    .reverse()
    .filter((status) => found.counts.has(status))
    .map((status) => badge(status, `${found.counts.get(status)} ${status.name}`));
  const worst = found.where && el("p", {}, "Worst ratio ", swatch(found.worst, found.bounded), `${short(found.worst)}: `, caseLink(found.where, column));
  const before = earlier(column);
  const compare =
    before &&
    el(
      "button",
      { type: "button", class: "plain", onclick: () => go({ view: "compare", a: before.name, b: column.name, case: "", group: "", col: "" }, { step: true }) },
      `Compare with torch ${before.torch}`,
    );
  return [
    title("cell", column.title, `${plural(found.total, "case")}, ${column.seconds.toFixed(0)} s`),
    el("p", { class: "badges" }, badges),
    worst || null,
    ...pairsOf(column),
    compare || null,
    facts(factsOf(column)),
  ].filter(Boolean);
}

// Of a run with --each-pair: node against node, and the one that all wrong pairs share.
function pairsOf({ pairs }) {
  const drawn = pairs.tables.map(([head, ...rows], number) =>
    el(
      "table",
      { class: "outcomes pairs" },
      el("caption", {}, `Each pair of ${number ? "devices" : "nodes"}: cases that were wrong, of those that ran`),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map(([name, ...cells]) =>
        el("tr", {}, el("th", { scope: "row" }, name), cells.map((text) => el("td", { class: /^[1-9]/.test(text) ? "number f-bad" : "number" }, text)))),
      ),
    ),
  );
  return [...drawn, ...(pairs.conclusion ? [el("p", { class: "conclusion" }, pairs.conclusion)] : [])];
}

// The same device under the torch before.
function earlier(column) {
  return columns.slice(0, column.index).findLast((one) => one.device === column.device);
}

function factsOf(column) {
  const named = ["cell", "cell_torch"];
  const stated = Object.entries(column.facts).filter(([name]) => !named.includes(name));
  return [...stated, ["started", column.started], ["host", column.host]];
}

function facts(pairs) {
  return el(
    "dl",
    { class: "facts" },
    pairs.flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, value ? worth(name, value) : "–")]),
  );
}

// A value as it is shown: where expectations say that a failure is reported, that leads there.
function worth(name, value) {
  if (name !== "link") return value;
  return value.split(" ").flatMap((word) => [linked(word), " "]);
}

function linked(address, words = address) {
  if (!address.startsWith("https://")) return words;
  return el("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, words);
}
