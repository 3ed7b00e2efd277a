// Cases as a tree: scenarios, their strategies, their worlds and dtypes; and what a branch adds up to.

function tree(shown) {
  const roots = new Map();
  for (const one of shown) {
    const root = branch(roots, one.scenario, one.scenario, 1);
    root.cases.push(one);
    const group = branch(root.children, one.strategy, `${one.scenario}/${one.strategy}`, 2);
    group.cases.push(one);
  }
  return [...roots.values()];
}

function branch(siblings, name, path, level) {
  if (!siblings.has(name)) {
    const label = name || "the cell itself";
    siblings.set(name, { path, label, level, cases: [], children: new Map(), tallies: [] });
  }
  return siblings.get(name);
}

// passed / total, how many of every other outcome, and the worst ratio with its case.
function tally(node, column) {
  node.tallies[column.index] ??= count(node.cases, column);
  return node.tallies[column.index];
}

function count(among, column) {
  const found = { total: 0, passed: 0, counts: new Map(), worst: null, where: null, bad: 0, silent: 0 };
  for (const one of among) {
    const status = statusOf(column, one);
    if (status === ABSENT) continue;
    found.total += 1;
    found.counts.set(status, (found.counts.get(status) ?? 0) + 1);
    if (status.family === "bad") found.bad += 1;
    if (status.family === "silent") found.silent += 1;
    const ratio = column.ratio[one.index];
    if (ratio !== null && (found.worst === null || ratio > found.worst)) {
      found.worst = ratio;
      found.where = one;
    }
  }
  found.passed = found.counts.get(PASSED) ?? 0;
  return found;
}

// The outcomes other than a pass, the worst first.
function others(found) {
  return statuses.filter((status) => status !== PASSED && found.counts.has(status));
}

function inWords(found) {
  if (!found.total) return ABSENT.name;
  const parts = [`${found.passed} of ${found.total} passed`];
  parts.push(...others(found).map((status) => `${found.counts.get(status)} ${status.name}`));
  if (found.worst !== null) parts.push(`worst ratio ${short(found.worst)}, ${found.where.name}`);
  return parts.join("; ");
}
