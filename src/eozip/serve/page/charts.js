// Charts as SVG: a series with the band in which its true values lie, and a histogram.

const SIZE = { width: 480, height: 220, left: 52, right: 10, top: 10, bottom: 28 };
const SPACE = "http://www.w3.org/2000/svg";

function element(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (text !== undefined) made.textContent = text;
  return made;
}

function frame(title, low, high) {
  const svg = element("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": title });
  const y = (value) => SIZE.top + ((high - value) / (high - low)) * (SIZE.height - SIZE.top - SIZE.bottom);
  for (let i = 0; i <= 4; i += 1) {
    const value = low + ((high - low) * i) / 4;
    svg.append(element("path", { class: "axis", d: `M${SIZE.left} ${y(value)}H${SIZE.width - SIZE.right}` }));
    svg.append(element("text", { x: SIZE.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  return { svg, y };
}

export function short(value) {
  if (value === null || value === undefined) return "none";
  const size = Math.abs(value);
  return size >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** Values by date with their bounds; null where there is no value. */
export function seriesChart(dates, values, bounds, title) {
  const known = values.map((value, i) => [value, bounds?.[i] ?? 0]).filter(([value]) => value !== null);
  const low = Math.min(...known.map(([value, bound]) => value - bound), Infinity);
  const high = Math.max(...known.map(([value, bound]) => value + bound), -Infinity);
  if (!known.length) return document.createTextNode("No data at this pixel.");
  const pad = (high - low || Math.abs(high) || 1) * 0.08;
  const { svg, y } = frame(title, low - pad, high + pad);
  const times = dates.map((date, i) => (dates.every(Boolean) ? Date.parse(date) : i));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const room = SIZE.width - SIZE.left - SIZE.right - 16;
  const x = (i) => SIZE.left + 8 + (last > first ? ((times[i] - first) / (last - first)) * room : room / 2);
  const points = values.map((value, i) => ({ value, bound: bounds?.[i] ?? 0, x: x(i) })).filter((p) => p.value !== null);
  if (bounds) {
    const upper = points.map((p) => `${p.x},${y(p.value + p.bound)}`);
    const lower = points.map((p) => `${p.x},${y(p.value - p.bound)}`).reverse();
    svg.append(element("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
    points.forEach((p) => svg.append(element("path", { class: "axis", d: `M${p.x} ${y(p.value - p.bound)}V${y(p.value + p.bound)}` })));
  }
  svg.append(element("polyline", { class: "stroke", points: points.map((p) => `${p.x},${y(p.value)}`).join(" ") }));
  points.forEach((p) => svg.append(element("circle", { class: "dot", cx: p.x, cy: y(p.value), r: 3.5 })));
  const name = (i) => (dates[i] || `date ${i + 1}`).slice(0, 10);
  svg.append(element("text", { x: SIZE.left, y: SIZE.height - 8 }, name(0)));
  if (dates.length > 1) {
    svg.append(element("text", { x: SIZE.width - SIZE.right, y: SIZE.height - 8, "text-anchor": "end" }, name(dates.length - 1)));
  }
  return svg;
}

const COLOURS = { 0: "#d1495b", 1: "#2e8b57", 2: "#3b6fb6" };

/** Counts between edges, a line a band. */
export function histogramChart(edges, counts, names) {
  const high = Math.max(1, ...counts.flat());
  const { svg, y } = frame(`Histogram of ${names.join(", ")}`, 0, high);
  const room = SIZE.width - SIZE.left - SIZE.right;
  counts.forEach((band, k) => {
    const step = room / band.length;
    const line = band.map((count, i) => `${i ? "L" : "M"}${SIZE.left + i * step} ${y(count)}h${step}`).join("");
    svg.append(element("path", { d: line, fill: "none", stroke: counts.length === 3 ? COLOURS[k] : "var(--main)", "stroke-width": 1.5 }));
  });
  svg.append(element("text", { x: SIZE.left, y: SIZE.height - 8 }, short(edges[0])));
  svg.append(element("text", { x: SIZE.width - SIZE.right, y: SIZE.height - 8, "text-anchor": "end" }, short(edges.at(-1))));
  return svg;
}

/** The series as a table, for those who do not see the chart. */
export function seriesTable(dates, columns) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  ["Date", ...columns.map((column) => column.name)].forEach((name) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  });
  const body = table.createTBody();
  dates.forEach((date, i) => {
    const row = body.insertRow();
    [(date || String(i + 1)).slice(0, 10), ...columns.map((column) => short(column.values[i]))].forEach((text) => {
      row.insertCell().textContent = text;
    });
  });
  return table;
}
