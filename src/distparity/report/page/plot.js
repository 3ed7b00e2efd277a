// The ratio of one case over the torch versions: drift shows here before it fails.
// One line of points on a logarithmic axis: a library for it would be more script than all of the page,
// and what is here can be reached by the keyboard's table below it and is drawn with the page's pictures.

const PLOT = { width: 640, height: 250, left: 52, right: 14, top: 16, bottom: 26, lane: 22 };
const SHAPES = ["circle", "square", "diamond", "triangle", "cross", "plus"];

function plot(one, chosen, choose) {
  const shown = shownColumns();
  const names = torches.filter((torch) => shown.some((column) => column.torch === torch));
  const kinds = devices.filter((device) => shown.some((column) => column.device === device));
  const lanes = kinds.length;
  const height = PLOT.height + lanes * PLOT.lane;
  const floor = PLOT.height - PLOT.bottom;
  const span = PLOT.width - PLOT.left - PLOT.right;
  const step = span / names.length;
  const x = (column) => {
    const shift = kinds.length > 1 ? (kinds.indexOf(column.device) - (kinds.length - 1) / 2) * Math.min(9, step / (kinds.length + 1)) : 0;
    return PLOT.left + step * (names.indexOf(column.torch) + 0.5) + shift;
  };
  const [low, high] = decades(shown.map((column) => column.ratio[one.index]));
  const y = (ratio) => {
    if (ratio === Infinity) return PLOT.top;
    const place = (Math.log10(Math.max(ratio, 10 ** low)) - low) / (high - low);
    return floor - place * (floor - PLOT.top - 12);
  };
  const picture = svg("svg", {
    class: "plot",
    viewBox: `0 0 ${PLOT.width} ${height}`,
    role: "img",
    "aria-label": `Ratio over torch versions, on a logarithmic scale; the table below has the numbers. ${one.id}`,
  });
  picture.append(...axes(low, high, y, floor), ...ticks(names, step, floor));
  kinds.forEach((device, lane) => {
    const line = shown.filter((column) => column.device === device);
    picture.append(...series(line, one, { x, y, lane, chosen, choose }));
    picture.append(...laneOf(line, one, { x, lane, device, lanes }));
  });
  return picture;
}

function decades(ratios) {
  const sized = ratios.filter((ratio) => ratio !== null && ratio > 0 && ratio !== Infinity);
  const low = Math.floor(Math.log10(Math.min(0.1, ...sized)));
  const high = Math.ceil(Math.log10(Math.max(10, ...sized)));
  return [Math.max(low, -12), Math.min(high, 30)];
}

function axes(low, high, y, floor) {
  const drawn = [];
  const every = Math.ceil((high - low) / 7);
  const end = PLOT.width - PLOT.right;
  drawn.push(
    svg("rect", {
      class: "beyond",
      x: PLOT.left,
      y: PLOT.top,
      width: end - PLOT.left,
      height: y(1) - PLOT.top,
    }),
  );
  for (let power = low; power <= high; power += 1) {
    if (power === 0 || power % every !== 0) continue;
    const at = y(10 ** power);
    drawn.push(svg("line", { class: "grid", x1: PLOT.left, x2: end, y1: at, y2: at }));
    const label = Math.abs(power) <= 2 ? String(Number((10 ** power).toFixed(2))) : `1e${power}`;
    drawn.push(svg("text", { class: "axis", x: PLOT.left - 6, y: at + 4, "text-anchor": "end" }, label));
  }
  drawn.push(svg("line", { class: "limit", x1: PLOT.left, x2: end, y1: y(1), y2: y(1) }));
  drawn.push(svg("text", { class: "axis limit", x: PLOT.left - 6, y: y(1) + 4, "text-anchor": "end" }, "1"));
  drawn.push(svg("text", { class: "limit", x: end - 4, y: y(1) - 5, "text-anchor": "end" }, "allowed"));
  drawn.push(svg("line", { class: "grid", x1: PLOT.left, x2: end, y1: floor, y2: floor }));
  return drawn;
}

function ticks(names, step, floor) {
  const every = Math.ceil(46 / step);
  return names.flatMap((name, place) => {
    const at = PLOT.left + step * (place + 0.5);
    const mark = svg("line", { class: "grid", x1: at, x2: at, y1: PLOT.top, y2: floor });
    if (place % every !== 0) return [mark];
    return [mark, svg("text", { class: "axis", x: at, y: floor + 17, "text-anchor": "middle" }, name.slice(0, 14))];
  });
}

function series(line, one, { x, y, lane, chosen, choose }) {
  const judged = line.filter((column) => column.ratio[one.index] !== null);
  const points = judged.map((column) => `${x(column)},${y(column.ratio[one.index])}`);
  const way = svg("polyline", { class: `way d${lane % 6}`, points: points.join(" ") });
  const marks = judged.map((column) => {
    const ratio = column.ratio[one.index];
    const status = statusOf(column, one);
    const point = shape(SHAPES[lane % SHAPES.length], x(column), y(ratio), column === chosen ? 6.5 : 4.5);
    point.setAttribute("class", `point d${lane % 6} f-${status.family}${column === chosen ? " chosen" : ""}`);
    point.append(svg("title", {}, `${column.title}: ${status.name}, ratio ${short(ratio)}`));
    point.addEventListener("click", () => choose(column));
    return point;
  });
  const tops = judged.filter((column) => column.ratio[one.index] === Infinity);
  const endless = tops.map((column) =>
    svg("text", { class: "axis", x: x(column) + 8, y: PLOT.top + 5 }, "∞"),
  );
  return [way, ...marks, ...endless];
}

// Below the axis: the outcomes that have no ratio, one line a device.
function laneOf(line, one, { x, lane, device, lanes }) {
  const middle = PLOT.height + lane * PLOT.lane + 8;
  const mark = shape(SHAPES[lane % SHAPES.length], 8, middle, 4.5);
  mark.setAttribute("class", `point d${lane % 6} f-good`);
  const label = svg("text", { class: "axis", x: 17, y: middle + 4 }, device.slice(0, 8));
  const rule = lanes > 1 || lane === 0 ? svg("line", { class: "grid", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: middle + 11, y2: middle + 11 }) : null;
  const icons = line
    .filter((column) => column.ratio[one.index] === null)
    .map((column) => {
      const status = statusOf(column, one);
      const use = svg("use", { href: `#i-${status.key}`, x: x(column) - 7, y: middle - 7, width: 14, height: 14 });
      return svg("g", { class: `icon s-${status.key}` }, svg("title", {}, `${column.title}: ${status.name}`), use);
    });
  return [mark, label, rule, ...icons].filter(Boolean);
}

function shape(kind, x, y, r) {
  const s = r * 0.9;
  const path = {
    circle: `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
    square: `M${x - s},${y - s}h${2 * s}v${2 * s}h${-2 * s}z`,
    diamond: `M${x},${y - r * 1.25}L${x + r * 1.25},${y}L${x},${y + r * 1.25}L${x - r * 1.25},${y}z`,
    triangle: `M${x},${y - r * 1.15}L${x + r * 1.1},${y + r * 0.85}H${x - r * 1.1}z`,
    cross: `M${x - s},${y - s}L${x + s},${y + s}M${x + s},${y - s}L${x - s},${y + s}`,
    plus: `M${x - r},${y}H${x + r}M${x},${y - r}V${y + r}`,
  }[kind];
  return svg("path", { d: path });
}
