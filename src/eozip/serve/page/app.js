// The page: what is chosen becomes addresses of pictures and numbers.
import { histogramChart, seriesChart, seriesTable, short } from "./charts.js";
import { canDrawMaps, MapView, PlainView } from "./views.js";

const $ = (id) => document.getElementById(id);
const HOVER = 200; // milliseconds between questions about the chunk under the cursor
const state = { layers: [], originals: {}, view: null, place: null, hovered: 0, busy: 0, asked: {} };

async function ask(address, kind) {
  state.asked[kind]?.abort();
  const controller = new AbortController();
  state.asked[kind] = controller;
  const answer = await fetch(address, { signal: controller.signal });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

/** Runs, and says what went wrong; a question that a later one replaced is forgotten. */
async function tried(work) {
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") $("fault").textContent = error.message;
  }
}

const left = () => state.layers[Number($("left").value)];

/** What lies on the right: a layer, and whether its error is drawn. */
function right() {
  const [what, number] = $("right").value.split(":");
  if (what === "none") return null;
  return { layer: state.layers[Number(number)], error: what === "error" };
}

function drawn() {
  const chosen = $("view").value;
  if (chosen !== "own") return JSON.parse(chosen);
  const text = $("formula").value.trim();
  if (!text) return { bands: left().colour.join(",") };
  return text.split(",").length === 3 && !text.includes("(") ? { bands: text } : { formula: text };
}

function query(more = {}) {
  return new URLSearchParams({ date: $("date").value, ...drawn(), ...more }).toString();
}

function stretch() {
  const [low, high] = [$("low").value.trim(), $("high").value.trim()];
  return low && high ? { low, high } : {};
}

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function fillLayers() {
  const stores = state.layers.filter((layer) => layer.kind === "store");
  $("left").replaceChildren(...stores.map((layer) => option(layer.number, layer.name)));
}

function fillRight() {
  const here = left();
  const original = state.originals[here.number];
  const alike = state.layers.filter((layer) => layer.number !== here.number && layer.kind === "store" && Boolean(layer.bounds) === Boolean(here.bounds));
  const options = [option("none:", "nothing"), ...alike.map((layer) => option(`layer:${layer.number}`, layer.name))];
  if (original !== undefined) {
    options.push(option(`layer:${original}`, "its original"), option(`error:${here.number}`, "its error"));
  }
  $("right").replaceChildren(...options);
}

function fillViews() {
  const here = left();
  const views = here.combinations.map(({ name, bands }) => option(JSON.stringify({ bands: bands.join(",") }), `${name}: ${bands.join(" ")}`));
  const indices = Object.keys(here.indices).map((name) => option(JSON.stringify({ formula: name }), name.toUpperCase()));
  $("view").replaceChildren(...views, ...indices, option("own", "own formula or bands"));
}

function facts() {
  const here = left();
  const size = `${here.shape[0]} dates, ${here.shape[1]} bands, ${here.shape[2]} x ${here.shape[3]} pixels`;
  const psnr = here.psnr === null ? "every pixel exact" : `PSNR ${here.psnr.toFixed(2)} dB`;
  $("facts").textContent = `${here.name}: ${size}, ${here.codec}, ${here.ratio} times smaller, ${psnr}`;
}

function fillDates() {
  const here = left();
  $("date").max = here.shape[0];
  $("date").value = Math.min(Number($("date").value), here.shape[0]);
  const buttons = here.dates.map((date, i) => {
    const button = document.createElement("button");
    button.type = "button";
    const image = document.createElement("img");
    image.alt = "";
    image.loading = "lazy";
    button.append(image, line(dateName(i)), line(cloudText(here.cloud[i])));
    button.addEventListener("click", () => setDate(i + 1));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  $("thumbnails").replaceChildren(...buttons);
}

function line(text) {
  const made = document.createElement("span");
  made.textContent = text;
  return made;
}

const dateName = (i) => (left().dates[i] || `date ${i + 1}`).slice(0, 10);

function cloudText(cloud) {
  if (cloud?.source === "unreadable") return "cannot be read";
  if (!cloud || cloud.percent === null) return "no data";
  const what = { tags: "cloud", mask: "hidden", bright: "bright" }[cloud.source];
  return `${what} ${cloud.percent} %`;
}

function setDate(t) {
  $("date").value = t;
  refresh();
}

function fillThumbnails() {
  [...$("thumbnails").querySelectorAll("img")].forEach((image, i) => {
    const asked = new URLSearchParams({ ...drawn(), ...stretch(), date: i + 1 });
    image.src = `layers/${left().number}/thumbnail.png?${asked}`;
  });
}

function markDate() {
  const t = Number($("date").value);
  const text = `${dateName(t - 1)}, ${cloudText(left().cloud[t - 1])}`;
  $("date-text").textContent = text;
  $("date").setAttribute("aria-valuetext", text);
  [...$("thumbnails").querySelectorAll("button")].forEach((button, i) => button.setAttribute("aria-current", String(i === t - 1)));
}

/** The date of another layer that is the one shown, by its name where both know it. */
function dateOf(layer) {
  const t = Number($("date").value) - 1;
  const date = left().dates[t];
  const found = !date ? -1 : layer.dates[t] === date ? t : layer.dates.indexOf(date);
  return found >= 0 ? found + 1 : Math.min(t + 1, layer.shape[0]);
}

function layout() {
  const has = right() !== null;
  $("right-view").hidden = $("line").hidden = $("swipe-label").hidden = !has;
  const share = Number($("swipe").value);
  $("right-view").style.clipPath = has ? `inset(0 0 0 ${share}%)` : "";
  $("line").style.left = `${share}%`;
}

function newView() {
  state.view?.remove();
  const hosts = [$("left-view"), $("right-view")];
  hosts.forEach((host) => delete host.dataset.idle);
  const Kind = left().bounds && canDrawMaps() ? MapView : PlainView;
  state.view = new Kind(hosts, left(), choose, hover);
  document.body.dataset.view = Kind === MapView ? "map" : "plain";
}

async function refresh(isNewStretch = false) {
  busy(1);
  $("fault").textContent = "";
  markDate();
  layout();
  await tried(async () => {
    if (isNewStretch) await autoStretch();
    const side = right();
    state.view.show(0, left(), query(stretch()));
    state.view.show(1, side?.layer ?? null, side ? query(side.error ? { error: "1" } : { ...stretch(), date: dateOf(side.layer) }) : "");
    if (isNewStretch) fillThumbnails();
    await Promise.all([legend(side), histogram(), series()]);
  });
  busy(-1);
}

function busy(change) {
  state.busy += change;
  document.body.ariaBusy = String(state.busy > 0);
}

async function autoStretch() {
  const { low, high } = await ask(`layers/${left().number}/stretch.json?${query()}`, "stretch");
  $("low").value = short(low);
  $("high").value = short(high);
}

async function legend(side) {
  const chosen = drawn();
  const what = chosen.formula ? `${chosen.formula} from red (${$("low").value}) over yellow to green (${$("high").value})` : `${chosen.bands} as red, green and blue, reflectance`;
  let text = `Left: ${what}.`;
  if (side?.error) {
    const { high } = await ask(`layers/${left().number}/stretch.json?${query({ error: "1" })}`, "legend");
    text += ` Right: error without sign, black is none, white ${short(high)}.`;
  }
  $("legend").textContent = text;
}

async function histogram() {
  const found = await ask(`layers/${left().number}/histogram.json?${query()}`, "histogram");
  $("histogram").replaceChildren(histogramChart(found.edges, found.counts, found.names));
  $("histogram-text").textContent = `${found.names.join(", ")}, ${dateName(Number($("date").value) - 1)}${found.every > 1 ? `, averages of ${found.every} x ${found.every} pixels` : ""}`;
}

const placeText = (place) => new URLSearchParams(place).toString();

async function chunk(place) {
  const found = await ask(`layers/${left().number}/chunk.json?${placeText(place)}&date=${$("date").value}`, "chunk");
  if (found.bytes === null) {
    $("cursor").textContent = "Outside the store.";
    return null;
  }
  const size = found.bytes >= 1000 ? `${(found.bytes / 1000).toFixed(1)} kB` : `${found.bytes} bytes`;
  const dates = found.dates[1] - found.dates[0];
  $("cursor").textContent = `Row ${found.row}, column ${found.column}. Its chunk (rows ${found.rows.join(" to ")}, columns ${found.columns.join(" to ")}, ${dates} ${dates === 1 ? "date" : "dates"}) cost ${size}: ${found.bits_per_pixel_and_band} bits per pixel and band.`;
  return found;
}

function hover(place) {
  const now = performance.now();
  if (now - state.hovered < HOVER) return;
  state.hovered = now;
  tried(() => chunk(place));
}

async function choose(place) {
  $("fault").textContent = "";
  await tried(async () => {
    const found = await chunk(place);
    if (!found) return;
    state.place = { row: found.row, column: found.column };
    $("row").value = found.row;
    $("column").value = found.column;
    await series();
  });
}

async function series() {
  if (!state.place) return;
  const chosen = drawn();
  const formula = chosen.formula ?? chosen.bands.split(",")[0];
  const asked = new URLSearchParams({ ...state.place, formula });
  const address = `layers/${left().number}/point`;
  const found = await ask(`${address}.json?${asked}`, "series");
  const bound = { exact: "every pixel exact", largest: "band: largest error", typical: "band: typical error (root mean square)" }[found.bound?.kind] ?? "";
  $("series").replaceChildren(seriesChart(found.dates, found.values, found.value_bound, `${formula} at row ${found.row}, column ${found.column}`));
  $("series").dataset.values = JSON.stringify(found.values);
  $("series-text").textContent = `${formula} at row ${found.row}, column ${found.column}; ${bound}`;
  const columns = [{ name: formula, values: found.values }, { name: "bound", values: found.value_bound ?? [] }];
  const bands = found.bands.map((name, i) => ({ name, values: found.reflectance.map((row) => row[i]) }));
  $("table").replaceChildren(seriesTable(found.dates, [...columns, ...bands]));
  $("table-details").hidden = false;
  $("csv").href = `${address}.csv?${asked}`;
  $("csv").hidden = false;
}

function showPixel() {
  const [row, column] = [$("row").value.trim(), $("column").value.trim()];
  const [, , height, width] = left().shape;
  if (!/^\d+$/.test(row) || !/^\d+$/.test(column) || Number(row) >= height || Number(column) >= width) {
    $("fault").textContent = `row, column: expected whole numbers below ${height} and ${width}`;
    return;
  }
  choose({ row, column });
}

function newLayer() {
  fillRight();
  fillViews();
  fillDates();
  facts();
  $("own").hidden = true;
  newView();
  refresh(true);
}

async function start() {
  await tried(async () => {
    const found = await ask("api/layers", "layers");
    Object.assign(state, found);
    fillLayers();
    newLayer();
  });
  document.body.dataset.started = "true";
}

$("controls").addEventListener("submit", (event) => event.preventDefault());
$("left").addEventListener("change", newLayer);
$("right").addEventListener("change", () => refresh());
$("view").addEventListener("change", () => {
  $("own").hidden = $("view").value !== "own";
  if ($("view").value !== "own" || $("formula").value) refresh(true);
});
$("formula").addEventListener("change", () => refresh(true));
["low", "high"].forEach((id) => $(id).addEventListener("change", () => refresh().then(fillThumbnails)));
$("auto").addEventListener("click", () => refresh(true));
$("date").addEventListener("input", () => refresh());
$("swipe").addEventListener("input", layout);
$("show-pixel").addEventListener("click", showPixel);
start();
