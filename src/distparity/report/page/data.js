// What the report is about: read once, never changed.

const raw = JSON.parse(document.getElementById("data").textContent);

const statuses = raw.statuses.map((status, number) => ({ ...status, number }));
const BY_KEY = new Map(statuses.map((status) => [status.key, status]));
const PASSED = BY_KEY.get("passed");
// Not an outcome: the cell has no such case, so that nothing can be said of it.
const ABSENT = {
  name: "no such case here",
  key: "absent",
  short: "",
  family: "absent",
  meaning: "This cell has no such case.",
  number: -1,
};

const cases = raw.cases.map(([scenario, name, strategy, world, dtype, family], index) => ({
  index,
  id: `${scenario}/${name}`,
  scenario,
  name,
  strategy,
  world,
  dtype,
  family,
  label: world === null ? name : `${world} ${world === 1 ? "rank" : "ranks"} · ${dtype}`,
}));
const caseById = new Map(cases.map((one) => [one.id, one]));

const number = (value) => (value === "inf" ? Infinity : value);
const columns = raw.columns.map((column, index) => ({
  ...column,
  index,
  ratio: column.ratio.map(number),
  error: column.error.map(number),
  runs: column.runs.map((run) => ({ ...run, ratio: run.ratio.map(number) })),
  title: `torch ${column.torch} on ${column.device}`,
}));
const columnByName = new Map(columns.map((column) => [column.name, column]));

const unique = (values) => [...new Set(values)];
const families = unique(cases.map((one) => one.family));
const strategies = unique(cases.map((one) => one.strategy)).filter(Boolean);
const devices = unique(columns.map((column) => column.device));
const torches = unique(columns.map((column) => column.torch));

function statusOf(column, one) {
  return statuses[column.status[one.index]] ?? ABSENT;
}

const text = (place) => raw.strings[place ?? 0];
const messageOf = (column, one) => text(column.message[one.index]);
const diagnosisOf = (column, one) => text(column.diagnosis[one.index]);
const causeOf = (column, one) => text(column.cause[one.index]);
const detailOf = (column, one) => text(column.detail[one.index]);
const rerunOf = (column, one) => text(column.rerun[one.index]);
// The files of its scenario and strategy, in the version of distparity that ran it.
const sourcesOf = (column, one) =>
  [one.scenario, `/${one.strategy}`].map((name) => text(column.sources[name])).filter(Boolean);
// Of an operation: what it may be off by is a bound that some sum always reaches.
const boundedIn = (column, one) => column.more[one.index]?.checks !== undefined;
const moreOf = (column, one) =>
  Object.entries(column.more[one.index] ?? {}).map(([name, place]) => [name, text(place)]);

// What a filter by text looks at: the name, and whatever was said of the case in these columns. It is
// kept while these are looked at, since every letter that is typed asks for it.
let kept = { of: "", texts: [] };
function haystacks(shown) {
  const of = shown.map((column) => column.index).sort().join();
  if (kept.of !== of) kept = { of, texts: [] };
  const { texts } = kept;
  const said = (one) => shown.flatMap((column) => [messageOf(column, one), diagnosisOf(column, one)]);
  return (one) => (texts[one.index] ??= [one.id, one.family, ...unique(said(one))].join("\n").toLowerCase());
}
