// The facts of every run, one column a cell; a fact that is not the same everywhere stands out.

function drawRuns(main) {
  const shown = shownColumns();
  main.replaceChildren(
    el(
      "div",
      { class: "scroller", tabindex: "0", role: "region", "aria-label": "Facts of every run" },
      runsTable(shown, shown),
    ),
  );
  return cases;
}

// The columns that are here, of all that are shown: what differs does so among all.
function runsTable(shown, here) {
  const known = new Map(shown.map((column) => [column, new Map(factsOf(column))]));
  const names = unique(shown.flatMap((column) => [...known.get(column).keys()]));
  const rows = names.map((name) => {
    const values = shown.map((column) => known.get(column).get(name));
    const differ = values.some((value) => value !== values[0]);
    return el(
      "tr",
      { class: differ ? "differ" : null },
      el("th", { scope: "row" }, name.replaceAll("_", " ")),
      here.map((column) => el("td", {}, known.get(column).get(name) || "–")),
    );
  });
  const tallies = new Map(shown.map((column) => [column, count(cases, column)]));
  const outcomeRows = [PASSED, ...statuses.slice(0, -1)]
    .filter((status) => [...tallies.values()].some((found) => found.counts.has(status)))
    .map((status) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, badge(status)),
        here.map((column) => el("td", { class: "number" }, String(tallies.get(column).counts.get(status) ?? "–"))),
      ),
    );
  const heads = here.map((column) => el("th", { scope: "col" }, column.title));
  return el(
    "table",
    { class: "runs" },
    el("caption", { class: "hidden" }, "Facts of every run"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "fact"), heads)),
    el("tbody", {}, ...outcomeRows, ...rows),
  );
}
