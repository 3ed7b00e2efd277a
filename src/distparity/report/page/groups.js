// Cases as a tree: families of scenarios, these, their strategies, their worlds and dtypes; and what a
// branch adds up to. Where no file says a family, scenarios are the roots.

const KINDS = [
  { kind: "family", name: (one) => one.family, path: familyPath },
  { kind: "scenario", name: (one) => one.scenario, path: (one) => one.scenario },
  { kind: "strategy", name: (one) => one.strategy, path: (one) => `${one.scenario}/${one.strategy}` },
];
const LEVELS = families.some(Boolean) ? KINDS : KINDS.slice(1);

function tree(shown) {
  const roots = new Map();
  for (const one of shown) {
    let siblings = roots;
    LEVELS.forEach((how, depth) => {
      const node = branch(siblings, how, one, depth + 1);
      node.cases.push(one);
      siblings = node.children;
    });
  }
  return [...roots.values()];
}

function branch(siblings, { kind, name, path }, one, level) {
  const key = name(one);
  if (!siblings.has(key)) {
    const label = key || (kind === "family" ? "other" : "the cell itself");
    siblings.set(key, { kind, path: path(one), label, level, cases: [], children: new Map(), tallies: [] });
  }
  return siblings.get(key);
}

// passed / total, how many of every other outcome, and the worst ratio with its case.
function tally(node, column) {
  node.tallies[column.index] ??= count(node.cases, column);
  return node.tallies[column.index];
}

function count(among, column) {
  const found = { total: 0, passed: 0, counts: new Map(), worst: null, where: null, bad: 0, known: 0, silent: 0, bounded: false };
  for (const one of among) {
    const status = statusOf(column, one);
    if (status === ABSENT) continue;
    found.total += 1;
    found.counts.set(status, (found.counts.get(status) ?? 0) + 1);
    if (status.family === "bad") found.bad += 1;
    if (status.family === "silent") found.silent += 1;
    // A failure that is declared has its mark; it must not hide the next one behind its ratio.
    if (status.family === "known") found.known += 1;
    const ratio = status.family === "known" ? null : column.ratio[one.index];
    const bounded = status === PASSED && boundedIn(column, one);
    // Of a bound that is always reached, the ratio says nothing beside that of a training.
    const more = found.bounded === bounded ? ratio > found.worst : found.bounded;
    if (ratio !== null && (found.worst === null || more)) {
      found.worst = ratio;
      found.where = one;
      found.bounded = bounded;
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
