"use strict";
// The viewer. Pictures hold up to three bands each; colours are put together here, so that one set of pictures
// serves every band combination. document.body.dataset.shown names what is on the screen, once it is.

const data = JSON.parse(document.getElementById("pictures").textContent);
const element = (id) => document.getElementById(id);
const decodedPixels = new Map();

function pixelsOf(uri) {
  if (!decodedPixels.has(uri)) decodedPixels.set(uri, decodePixels(uri));
  return decodedPixels.get(uri);
}

async function decodePixels(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

async function colourPicture(frame, sources) {
  const planes = await Promise.all(frame.map(pixelsOf));
  const made = new ImageData(planes[0].width, planes[0].height);
  for (let i = 0; i < made.data.length; i += 4) {
    sources.forEach(([plane, channel], c) => { made.data[i + c] = planes[plane].data[i + channel]; });
    made.data[i + 3] = 255;
  }
  return made;
}

async function errorPicture(uri) {
  const grey = await pixelsOf(uri);
  const made = new ImageData(grey.width, grey.height);
  for (let i = 0; i < made.data.length; i += 4) {
    const colour = data.colours[grey.data[i]];
    made.data.set([colour[0], colour[1], colour[2], 255], i);
  }
  return made;
}

function draw(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function fill(select, texts, wanted) {
  select.replaceChildren(...texts.map((text, i) => new Option(text, i)));
  select.value = String(Math.max(0, wanted));
}

const chosen = (id) => Number(element(id).value);
const place = () => data.places[chosen("place")];
const level = () => place().levels[chosen("level")];
const sides = () => [place().original, level().entries[chosen("middle")], level().entries[chosen("right")]];

function facts(entry) {
  if (entry.kind === "original") return "original";
  const psnr = entry.psnr === null ? "exact" : entry.psnr.toFixed(2) + " dB";
  return `${entry.method}: ${entry.bytes.toLocaleString("en-US")} bytes, ${entry.bpppb.toFixed(4)} bpppb, ${psnr}`;
}

function fillPlace() {
  fill(element("date"), place().dates, 0);
  fill(element("combination"), place().combinations.map((c) => c.name), 0);
  const aims = place().levels.map((l) => `bytes of ${l.reference} near ${l.psnr} dB`);
  const middle = place().levels.findIndex((l) => l.psnr === 40);
  fill(element("level"), aims, middle);
  fillLevel();
}

function fillLevel() {
  const names = level().entries.map((e) => e.method);
  const before = ["middle", "right"].map((id) => element(id).selectedOptions[0]?.text);
  const codec = level().entries.findIndex((e) => e.kind === "codec");
  const baselines = level().entries.filter((e) => e.kind === "baseline");
  const strongest = baselines.reduce((a, b) => (a && (a.psnr ?? Infinity) >= (b.psnr ?? Infinity) ? a : b), null);
  const other = strongest ? level().entries.indexOf(strongest) : names.length - 1;
  fill(element("middle"), names, before[0] && names.includes(before[0]) ? names.indexOf(before[0]) : codec);
  fill(element("right"), names, before[1] && names.includes(before[1]) ? names.indexOf(before[1]) : other);
}

// 0: the original alone; 50: the middle alone; 100: the right alone. Each comes in from the left.
function slide() {
  const value = chosen("slider");
  const share = value <= 50 ? value / 50 : (value - 50) / 50;
  const [under, over] = value <= 50 ? [0, 1] : [1, 2];
  const canvases = [...element("stage").querySelectorAll("canvas")];
  canvases.forEach((canvas, i) => { canvas.style.visibility = i === under || i === over ? "visible" : "hidden"; });
  canvases[under].style.clipPath = "none";
  canvases[over].style.clipPath = `inset(0 ${100 * (1 - share)}% 0 0)`;
  element("divider").style.left = `${100 * share}%`;
  const [left, right] = [sides()[over], sides()[under]];
  const text = share === 0 ? facts(right) : share === 1 ? facts(left) : `left: ${facts(left)} | right: ${facts(right)}`;
  element("shown").textContent = text;
}

function drawStage(pictures) {
  [...element("stage").querySelectorAll("canvas")].forEach((canvas, i) => draw(canvas, pictures[i]));
  element("stops").replaceChildren(...sides().map((entry) => {
    const stop = document.createElement("span");
    stop.textContent = entry.kind === "original" ? "original" : entry.method;
    return stop;
  }));
  slide();
}

async function figureOf(entry, date, sources) {
  const figure = document.createElement("figure");
  const pictures = [await colourPicture(entry.frames[date], sources)];
  if (entry.errors) pictures.push(await errorPicture(entry.errors[date]));
  for (const picture of pictures) draw(figure.appendChild(document.createElement("canvas")), picture);
  figure.appendChild(document.createElement("figcaption")).textContent = facts(entry);
  return figure;
}

function drawLegend() {
  const strip = new ImageData(256, 1);
  data.colours.forEach((colour, i) => strip.data.set([...colour, 255], 4 * i));
  draw(element("legend"), strip);
}

let latest = 0;

// Decoding takes time: only the last wish is drawn.
async function show() {
  const turn = ++latest;
  const names = ["place", "level", "date", "combination", "middle", "right"];
  const state = names.map((id) => element(id).selectedOptions[0].text).join(" | ");
  const date = chosen("date");
  const sources = place().combinations[chosen("combination")].from;
  const stage = await Promise.all(sides().map((entry) => colourPicture(entry.frames[date], sources)));
  const entries = [place().original, ...level().entries];
  const figures = await Promise.all(entries.map((entry) => figureOf(entry, date, sources)));
  if (turn !== latest) return;
  drawStage(stage);
  element("grid").replaceChildren(...figures);
  element("error-top").textContent = `${level().error_dn.toFixed(0)} DN or more`;
  document.body.dataset.shown = state;
}

function drag(event) {
  if (event.buttons !== 1) return;
  const box = element("stage").getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  element("slider").value = String((chosen("slider") <= 50 ? 0 : 50.5) + 50 * share);
  slide();
}

function begin() {
  if (data.places.length === 0) return;
  fill(element("place"), data.places.map((p) => p.name), 0);
  fillPlace();
  drawLegend();
  element("place").addEventListener("change", () => { fillPlace(); show(); });
  element("level").addEventListener("change", () => { fillLevel(); show(); });
  for (const id of ["date", "combination", "middle", "right"]) element(id).addEventListener("change", show);
  element("slider").addEventListener("input", slide);
  for (const kind of ["pointerdown", "pointermove"]) element("stage").addEventListener(kind, drag);
  show();
}

begin();
