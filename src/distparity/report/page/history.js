// What the columns of one device say together, in words: since when something is right, and when it was
// not.

// "fsdp2 on cpu: right since 2.9", a line for each device; of several cases the worst counts.
function histories(among, shown, name) {
  return devices
    .map((device) => [device, shown.filter((column) => column.device === device)])
    .filter(([, own]) => own.length)
    .map(([device, own]) => `${name} on ${device}: ${spansInWords(own.map((column) => ({ torch: column.torch, is: together(among, column) })))}`);
}

// Of cases in a column: wrong if one is, right if one passed and none is wrong, else not judged.
function together(among, column) {
  return verdictOf(among.map((one) => statusOf(column, one)));
}

function verdictOf(found) {
  if (found.some((status) => wrong(status) || status.key === "error" || status.key === "missing")) return "wrong";
  return found.some(right) ? "right" : "silent";
}

function spansInWords(states) {
  const judged = states.filter(({ is }) => is !== "silent");
  if (!judged.length) return "not judged";
  const spans = [];
  judged.forEach(({ torch, is }, place) => {
    if (is !== "wrong") return;
    if (spans.at(-1)?.to === place - 1) spans.at(-1).to = place;
    else spans.push({ from: place, to: place });
  });
  const last = judged.length - 1;
  const named = ({ from, to }) => (from === to ? judged[from].torch : `${judged[from].torch} to ${judged[to].torch}`);
  const [first] = spans;
  let words = `broken ${spans.map((span) => (span.to === last && span.from < last && spans.length > 1 ? `since ${judged[span.from].torch}` : named(span))).join(", ")}`;
  if (!spans.length) words = judged.length === 1 ? `right in ${judged[0].torch}` : `right in all of ${named({ from: 0, to: last })}`;
  else if (spans.length === 1 && first.from === 0 && first.to < last) words = `right since ${judged[first.to + 1].torch}`;
  else if (spans.length === 1 && first.from > 0 && first.to === last) words = `broken since ${judged[first.from].torch}`;
  const silent = states.filter(({ is }) => is === "silent").map(({ torch }) => torch);
  return silent.length ? `${words}; not judged in ${silent.join(", ")}` : words;
}

// How much is wrong in the whole report, in one sentence.
function answer() {
  const found = columns.map((column) => count(cases, column));
  const sum = (name) => found.reduce((total, one) => total + one[name], 0);
  const [bad, known] = [sum("bad"), sum("known")];
  const declared = known ? `; ${known.toLocaleString("en")} wrong as declared` : "";
  if (!bad) return `Nothing wrong in ${plural(columns.length, "cell")}${declared}`;
  const where = `in ${found.filter((one) => one.bad).length} of ${plural(columns.length, "cell")}`;
  return `${bad.toLocaleString("en")} of ${plural(sum("total"), "result")} wrong, ${where}${declared}`;
}
