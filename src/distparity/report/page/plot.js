// The ratio of one case over the torch versions, drawn with D3: drift shows here before it fails.

const PLOT = { width: 640, height: 250, left: 52, right: 14, top: 16, bottom: 26, lane: 22 };
const FLOOR = PLOT.height - PLOT.bottom;
// What a logarithmic scale has no place for: above it what is infinite, below it what is 0.
const BEYOND = 14;
const END = PLOT.width - PLOT.right;
// Filled ones, told apart by shape alone.
const SHAPES = [d3.symbolCircle, d3.symbolSquare, d3.symbolDiamond, d3.symbolTriangle, d3.symbolCross, d3.symbolStar];

function plot(one, chosen, choose) {
  const shown = shownColumns();
  const names = torches.filter((torch) => shown.some((column) => column.torch === torch));
  const kinds = devices.filter((device) => shown.some((column) => column.device === device));
  const ratioOf = (column) => column.ratio[one.index];
  const across = d3.scalePoint(names, [PLOT.left, END]).padding(0.5);
  // Devices of one torch stand side by side.
  const beside = d3.scalePoint(kinds, [-1, 1].map((side) => side * Math.min(5 * (kinds.length - 1), across.step() / 3)));
  const x = (column) => across(column.torch) + (kinds.length > 1 ? beside(column.device) : 0);
  const scaled = d3.scaleLog(decades(shown.map(ratioOf)), [FLOOR - BEYOND, PLOT.top + BEYOND]).clamp(true);
  const y = (ratio) => (ratio === Infinity ? PLOT.top : ratio === 0 ? FLOOR : scaled(ratio));
  const picture = d3
    .create("svg:svg")
    .attr("class", "plot")
    .attr("viewBox", `0 0 ${PLOT.width} ${PLOT.height + kinds.length * PLOT.lane}`)
    .attr("role", "img")
    .attr("aria-label", `Ratio over torch versions, on a logarithmic scale; the table below has the numbers. ${one.id}`);
  drawAxes(picture, across, scaled, shown.map(ratioOf));
  kinds.forEach((device, lane) => {
    const line = shown.filter((column) => column.device === device);
    const judged = line.filter((column) => ratioOf(column) !== null);
    const symbol = d3.symbol(SHAPES[lane % SHAPES.length]);
    const color = `d${lane % 6}`;
    picture.append("path").attr("class", `way ${color}`).attr("d", d3.line(x, (column) => y(ratioOf(column)))(judged));
    picture
      .selectAll(null)
      .data(judged)
      .join("path")
      .attr("class", (column) => `point ${color} f-${statusOf(column, one).family}${column === chosen ? " chosen" : ""}`)
      .attr("transform", (column) => `translate(${x(column)},${y(ratioOf(column))})`)
      .attr("d", (column) => symbol.size(column === chosen ? 120 : 60)())
      .on("click", (_, column) => choose(column))
      .append("title")
      .text((column) => `${column.title}: ${statusOf(column, one).name}, ratio ${short(ratioOf(column))}`);
    drawLane(picture, device, PLOT.height + lane * PLOT.lane + 8, symbol.size(60)(), color);
    drawIcons(picture, line.filter((column) => ratioOf(column) === null), one, x, PLOT.height + lane * PLOT.lane + 1);
  });
  return picture.node();
}

// Whole powers of ten around the ratios, and around what is allowed.
function decades(ratios) {
  const sized = ratios.filter((ratio) => ratio > 0 && ratio !== Infinity);
  const [low, high] = d3.extent([0.1, 10, ...sized], Math.log10);
  return [10 ** Math.max(Math.floor(low), -12), 10 ** Math.min(Math.ceil(high), 30)];
}

function drawAxes(picture, across, scaled, ratios) {
  const allowed = scaled(1);
  const [low, high] = scaled.domain().map(Math.log10).map(Math.round);
  const every = Math.ceil((high - low) / 7);
  const powers = d3.range(low, high + 1).filter((power) => power !== 0 && power % every === 0);
  const label = (value) => (value >= 0.01 && value <= 100 ? d3.format("~r")(value) : d3.format(".0e")(value).replace("+", ""));
  const room = Math.ceil(46 / across.step());
  picture.append("rect").attr("class", "beyond").attr("x", PLOT.left).attr("y", PLOT.top).attr("width", END - PLOT.left).attr("height", allowed - PLOT.top);
  picture
    .append("g")
    .attr("class", "axis")
    .attr("transform", `translate(${PLOT.left},0)`)
    .call(d3.axisLeft(scaled).tickValues(powers.map((power) => 10 ** power)).tickFormat(label).tickSizeInner(PLOT.left - END).tickSizeOuter(0).tickPadding(6));
  picture
    .append("g")
    .attr("class", "axis")
    .attr("transform", `translate(0,${FLOOR})`)
    .call(d3.axisBottom(across).tickFormat((name, place) => (place % room ? "" : name.slice(0, 14))).tickSizeInner(PLOT.top - FLOOR).tickSizeOuter(0).tickPadding(8));
  picture.append("line").attr("class", "limit").attr("x1", PLOT.left).attr("x2", END).attr("y1", allowed).attr("y2", allowed);
  const words = [
    { text: "1", kind: "limit", x: PLOT.left - 6, y: allowed + 4 },
    { text: "allowed", kind: "limit", x: END - 4, y: allowed - 5 },
  ];
  if (ratios.includes(Infinity)) words.push({ text: "∞", kind: "beyond", x: PLOT.left - 6, y: PLOT.top + 4 });
  if (ratios.includes(0)) words.push({ text: "0", kind: "beyond", x: PLOT.left - 6, y: FLOOR + 4 });
  picture
    .selectAll(null)
    .data(words)
    .join("text")
    .attr("class", (word) => word.kind)
    .attr("x", (word) => word.x)
    .attr("y", (word) => word.y)
    .text((word) => word.text);
}

// Below the axis, one line a device: its shape, and the outcomes that have no ratio.
function drawLane(picture, device, middle, symbol, color) {
  picture.append("path").attr("class", `point ${color} f-good`).attr("transform", `translate(8,${middle})`).attr("d", symbol);
  picture.append("text").attr("x", 17).attr("y", middle + 4).text(device.slice(0, 8));
  picture.append("line").attr("class", "rule").attr("x1", PLOT.left).attr("x2", END).attr("y1", middle + 11).attr("y2", middle + 11);
}

function drawIcons(picture, columns, one, x, top) {
  const icons = picture
    .selectAll(null)
    .data(columns)
    .join("g")
    .attr("class", (column) => `icon s-${statusOf(column, one).key}`);
  icons.append("title").text((column) => `${column.title}: ${statusOf(column, one).name}`);
  icons
    .append("use")
    .attr("href", (column) => `#i-${statusOf(column, one).key}`)
    .attr("x", (column) => x(column) - 7)
    .attr("y", top)
    .attr("width", 14)
    .attr("height", 14);
}
