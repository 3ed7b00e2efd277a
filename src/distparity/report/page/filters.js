// What is chosen above: what is shown, and how far the rows are open.

function drawFilters() {
  for (const view of VIEWS) {
    const link = byId(`to-${view}`);
    if (state.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const search = byId("q");
  if (search.value !== state.q) search.value = state.q;
  byId("diff").checked = state.diff;
  drawStrategies();
  choices("devices", devices, "dev");
  const orders = [
    { value: "torch", content: "by torch", title: "Columns of one torch together" },
    { value: "device", content: "by device", title: "Columns of one device together" },
  ];
  chips(byId("by"), devices.length > 1 ? orders : [], (value) => state.by === value, (by) => go({ by }));
  drawOutcomes();
  drawDepth();
  const devicesChosen = state.view !== "compare" && state.dev.size;
  byId("reset").hidden = !(state.q || state.out.size || state.str.size || devicesChosen || state.diff);
  const theme = byId("theme");
  theme.replaceChildren(icon(state.theme), state.theme);
  theme.setAttribute("aria-label", `Colours: ${state.theme}; switch to ${THEMES[state.theme]}`);
}

function choices(id, values, name) {
  const offered = values.length > 1 ? values : [];
  const choose = (value) => go({ [name]: toggled(state[name], value) });
  chips(byId(id), offered.map((value) => ({ value, content: value })), (value) => state[name].has(value), choose);
}

// Strategies by what they are settings of: fsdp2, fsdp2_hsdp, fsdp2_zero1 are a line.
const headOf = (strategy) => strategy.split("_")[0];

function drawStrategies() {
  const menu = byId("strategy-menu");
  menu.hidden = strategies.length < 2;
  const chosen = [...state.str];
  const words = chosen.length === 0 ? `all ${strategies.length}` : chosen.length < 3 ? chosen.join(", ") : `${chosen.length} of ${strategies.length}`;
  menu.querySelector("b").textContent = words;
  menu.classList.toggle("used", chosen.length > 0);
  const groups = unique(strategies.map(headOf)).map((head) => strategies.filter((one) => headOf(one) === head));
  const lines = groups.filter((members) => members.length > 1).map(strategyLine);
  const single = groups.filter((members) => members.length === 1).flat();
  renew(byId("strategies"), ...lines, el("div", { class: "chips", role: "group", "aria-label": "others" }, single.map(strategyChip)));
}

const strategyChip = (one) =>
  chip(one, state.str.has(one), () => go({ str: toggled(state.str, one) }), { "data-value": one });

function strategyLine(members) {
  const head = headOf(members[0]);
  const whole = members.every((one) => state.str.has(one));
  const rest = [...state.str].filter((one) => !members.includes(one));
  const all = chip(`all ${head}`, whole, () => go({ str: new Set(whole ? rest : [...rest, ...members]) }), { class: "chip whole" });
  return el("div", { class: "chips", role: "group", "aria-label": head }, all, members.map(strategyChip));
}

// How far the matrix is open, all at once.
const DEPTHS = [
  { value: "families", title: "One row per family of scenarios", open: () => new Set(), shut: () => new Set([ALL]) },
  { value: "scenarios", title: "One row per scenario", open: () => new Set(), shut: () => new Set() },
  { value: "strategies", title: "Every scenario with its strategies", open: () => new Set([SCENARIOS]), shut: () => new Set() },
  { value: "cases", title: "Every case", open: () => new Set([ALL]), shut: () => new Set() },
];

function drawDepth() {
  const list = (set) => [...(set ?? [])].join("\n");
  const isOn = (value) => {
    const { open, shut } = DEPTHS.find((one) => one.value === value);
    return list(open()) === list(state.open) && list(shut()) === list(state.shut);
  };
  const offered = LEVELS === KINDS ? DEPTHS : DEPTHS.slice(1);
  const choose = (value) => {
    const { open, shut } = DEPTHS.find((one) => one.value === value);
    go({ open: open(), shut: shut() });
  };
  chips(byId("depth"), offered.map(({ value, title }) => ({ value, title, content: value })), isOn, choose);
}

// How many there are of every outcome, by column.
const totals = columns.map((column) => {
  const found = statuses.map(() => 0);
  for (const status of column.status) if (status >= 0) found[status] += 1;
  return found;
});

function drawOutcomes() {
  const sum = (among, status) => among.reduce((total, column) => total + totals[column.index][status.number], 0);
  const there = [PASSED, ...statuses.slice(0, -1)].filter((status) => sum(columns, status));
  const here = lookedAt();
  const offered = there.map((status) => ({
    value: status.key,
    title: status.meaning,
    content: [badge(status), el("b", {}, sum(here, status).toLocaleString("en"))],
  }));
  const place = byId("outcomes");
  const choose = (value) => go({ out: toggled(state.out, value) });
  chips(place, offered.map((one) => ({ ...one, content: el("span", {}, ...one.content) })), (value) => state.out.has(value), choose);
}
