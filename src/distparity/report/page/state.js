// What is being looked at. All of it is in the address, so that a view can be sent.

const VIEWS = ["matrix", "compare", "runs"];
const LISTS = ["out", "str", "dev", "open", "shut"];
// In the lists of what is open and shut these stand for branches of a kind.
const ALL = "*";
const SCENARIOS = "*s";

const state = blank();

function blank() {
  return {
    view: "matrix",
    q: "",
    out: new Set(),
    str: new Set(),
    dev: new Set(),
    diff: false,
    by: "torch",
    // null: nobody has opened or closed anything yet.
    open: null,
    // Families are open until somebody shuts them.
    shut: new Set(),
    case: "",
    group: "",
    col: "",
    a: "",
    b: "",
    theme: "auto",
  };
}

// Reads the address into the state; returns what the address names and this report has not.
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const strange = [];
  Object.assign(state, blank());
  const one = (name, known) => {
    const value = given.get(name) ?? "";
    if (value && !known(value)) strange.push(value);
    else if (value) state[name] = value;
  };
  one("view", (value) => VIEWS.includes(value));
  one("q", () => true);
  one("by", (value) => ["torch", "device"].includes(value));
  one("theme", (value) => ["auto", "light", "dark"].includes(value));
  one("case", (value) => caseById.has(value));
  one("group", (value) => cases.some((c) => inGroup(c, value)));
  for (const name of ["col", "a", "b"]) one(name, (value) => columnByName.has(value));
  state.diff = given.has("diff");
  const known = { out: BY_KEY, str: new Set(strategies), dev: new Set(devices) };
  for (const name of LISTS) {
    if (!given.has(name)) continue;
    const values = given.getAll(name).filter(Boolean);
    const unknown = !(name in known) ? [] : values.filter((value) => !known[name].has(value));
    strange.push(...unknown);
    state[name] = new Set(values.filter((value) => !unknown.includes(value)));
  }
  return strange;
}

function address() {
  const given = new URLSearchParams();
  const plain = blank();
  for (const name of ["view", "q", "by", "case", "group", "col", "a", "b", "theme"]) {
    if (state[name] !== plain[name]) given.set(name, state[name]);
  }
  if (state.diff) given.set("diff", "1");
  for (const name of LISTS) {
    for (const value of state[name] ?? []) given.append(name, value);
  }
  if (state.open && !state.open.size) given.set("open", "");
  return `#${given}`;
}

// Changes the state and draws it. What opens or leaves a view can be gone back from.
function go(changes, { step = false } = {}) {
  Object.assign(state, changes);
  const next = address();
  if (next !== (location.hash || "#")) {
    if (step) history.pushState(null, "", next);
    else history.replaceState(null, "", next);
  }
  draw();
}

function toggled(set, value) {
  const next = new Set(set);
  if (!next.delete(value)) next.add(value);
  return next;
}

const familyPath = (one) => `family.${one.family}`;

function inGroup(one, path) {
  return [familyPath(one), one.scenario, `${one.scenario}/${one.strategy}`].includes(path);
}

function shownColumns() {
  // A comparison names its two columns itself, whatever their devices.
  const all = state.view === "compare" || !state.dev.size;
  const shown = columns.filter((column) => all || state.dev.has(column.device));
  if (state.by === "torch") return shown;
  return devices.flatMap((device) => shown.filter((column) => column.device === device));
}

// The columns that a view is about: filters look at these alone.
function lookedAt() {
  return state.view === "compare" ? unique(compared()) : shownColumns();
}

function shownCases(shown = lookedAt()) {
  const said = haystacks(shown);
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = new Set([...state.out].map((key) => BY_KEY.get(key)));
  return cases.filter((one) => {
    if (state.str.size && !state.str.has(one.strategy)) return false;
    if (words.length && !words.every((word) => said(one).includes(word))) return false;
    if (wanted.size && !shown.some((column) => wanted.has(statusOf(column, one)))) return false;
    return !state.diff || differs(one, shown);
  });
}

function differs(one, shown) {
  return shown.some((column) => statusOf(column, one) !== statusOf(shown[0], one));
}
