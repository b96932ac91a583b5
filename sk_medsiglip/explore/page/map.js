// The map: a picture drawn by the server, and the mouse and keys on it.
// 100,000 circles are too many for a browser, so the server sends pixels, and tests
// itself which points an outline holds.

import { $, draw, fillSelect, make } from "./parts.js";
import { address, ask, attempt, onState, remember, state } from "./session.js";

const LARGEST = 2048; // pixels of a picture's side that the server draws at most
const CLICK = 6; // pixels around a click that count as the point itself
const ZOOM = 1.5;
const PAN = 0.2; // share of the view that an arrow key moves

const frame = $("map");
const picture = $("map-image");
const overlay = $("map-overlay");

let whole = null; // data coordinates of all points: x0, x1, y0, y1
let area = null; // those in view
let mapId = null;
let isDrawing = false;
let isStale = false;
let trace = []; // pixels of the outline that is being drawn
let place = null; // the image in hand, in data coordinates
let version = 0; // makes the browser ask again for colours that have changed
let onOutline = () => undefined;

/** Start the map; a function takes what was selected, and words for it. */
export function startMap(select) {
  onOutline = select;
  onState(update);
  $("colour").addEventListener("change", () => attempt(recolour));
  $("zoom-in").addEventListener("click", () => zoom(ZOOM));
  $("zoom-out").addEventListener("click", () => zoom(1 / ZOOM));
  $("zoom-all").addEventListener("click", showAll);
  $("select-view").addEventListener("click", () => selectBox(area, "in view on the map"));
  picture.addEventListener("load", isDrawn);
  picture.addEventListener("error", isDrawn);
  frame.addEventListener("wheel", wheel, { passive: false });
  frame.addEventListener("keydown", arrow);
  frame.addEventListener("pointerdown", begin);
  new ResizeObserver(refresh).observe(frame);
}

/** Zoom around a place in the view, by default its middle. */
export function zoom(factor, at = { x: 0.5, y: 0.5 }) {
  if (!area) return;
  const width = (area.x1 - area.x0) / factor;
  const height = (area.y1 - area.y0) / factor;
  const x0 = area.x0 + (area.x1 - area.x0 - width) * at.x;
  const y0 = area.y0 + (area.y1 - area.y0 - height) * (1 - at.y);
  show({ x0, x1: x0 + width, y0, y1: y0 + height });
}

/** Show the whole map. */
export function showAll() {
  if (whole) show({ ...whole });
}

/** Put a ring around an image's point; null removes it. */
export function ringAt(x, y) {
  place = x === null || x === undefined ? null : { x, y };
  drawOverlay();
}

/** Colour by the scores of prompts that are being tried. */
export async function colourByTrial(id) {
  const listed = [...$("colour").options].some((one) => one.value === id);
  if (!listed) $("colour").append(make("option", { value: id, textContent: "Tried prompts" }));
  $("colour").value = id;
  version += 1;
  await recolour();
}

async function update({ colours, view, seq, map }) {
  const isFirst = whole === null;
  fillSelect($("colour"), colours.map(({ id, name }) => [id, name]));
  if (isFirst && view?.colour) chooseColour(view.colour);
  version = Math.max(version + 1, seq);
  const moved = mapId !== map.id;
  mapId = map.id;
  await readLegend(moved);
  if (isFirst && view?.area) area = view.area;
  refresh();
}

function chooseColour(id) {
  if ([...$("colour").options].some((one) => one.value === id)) $("colour").value = id;
}

async function recolour() {
  remember({ colour: $("colour").value });
  await readLegend(false);
  refresh();
}

async function readLegend(moved) {
  const { legend, note, ...bounds } = await ask("map", { colour: $("colour").value });
  const seesAll = area === null || sameArea(area, whole);
  if (whole === null || moved) whole = { x0: bounds.x0, x1: bounds.x1, y0: bounds.y0, y1: bounds.y1 };
  if (seesAll) area = { ...whole };
  $("map-note").textContent = note ?? "";
  $("legend").replaceChildren(...legend.map(({ colour, text }) =>
    make("li", {}, swatch(colour), text)));
  const named = $("colour").selectedOptions[0]?.textContent ?? "";
  const words = legend.map(({ text }) => text).join(", ");
  picture.alt = `Map of ${state.n_rows} images, coloured by ${named}: ${words}`;
}

function swatch(colour) {
  return draw("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" },
    draw("rect", { width: 10, height: 10, fill: colour }));
}

function sameArea(one, other) {
  return other !== null && ["x0", "x1", "y0", "y1"].every((name) => one[name] === other[name]);
}

function show(wanted) {
  area = wanted;
  remember({ area });
  refresh();
}

/** Ask for a new picture; one at a time, so that a wheel does not flood the server. */
function refresh() {
  if (!area || !frame.clientWidth) return;
  drawOverlay();
  isStale = isDrawing;
  if (isDrawing) return;
  isDrawing = true;
  const { clientWidth, clientHeight } = frame;
  const most = LARGEST / Math.max(clientWidth, clientHeight);
  const ratio = Math.min(devicePixelRatio || 1, most);
  picture.src = address("map.png", {
    ...area,
    w: Math.round(clientWidth * ratio),
    h: Math.round(clientHeight * ratio),
    colour: $("colour").value,
    v: version,
  });
}

function isDrawn() {
  isDrawing = false;
  frame.dataset.drawn = version; // tells a test, and nobody else, what is in view
  if (isStale) refresh();
}

function drawOverlay() {
  const { clientWidth, clientHeight } = frame;
  overlay.width = clientWidth;
  overlay.height = clientHeight;
  const pen = overlay.getContext("2d");
  pen.lineWidth = 2;
  pen.strokeStyle = "#000";
  if (place && area) {
    const { x, y } = toPixels(place);
    for (const [radius, colour] of [[11, "#fff"], [9, "#000"]]) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.strokeStyle = colour;
      pen.stroke();
    }
  }
  if (trace.length < 2) return;
  pen.beginPath();
  corners().forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
  pen.fillStyle = "rgba(0, 0, 0, .08)";
  pen.fill();
  pen.stroke();
}

/** Return the corners of the outline in hand, in pixels. */
function corners() {
  if (tool() !== "box") return trace;
  const [[x0, y0], [x1, y1]] = [trace[0], trace[trace.length - 1]];
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
}

function tool() {
  return document.querySelector("input[name=tool]:checked").value;
}

function toPixels({ x, y }) {
  return {
    x: ((x - area.x0) / (area.x1 - area.x0)) * frame.clientWidth,
    y: ((area.y1 - y) / (area.y1 - area.y0)) * frame.clientHeight,
  };
}

function toData([x, y]) {
  return [
    area.x0 + (x / frame.clientWidth) * (area.x1 - area.x0),
    area.y1 - (y / frame.clientHeight) * (area.y1 - area.y0),
  ];
}

function pixelOf(event) {
  const box = frame.getBoundingClientRect();
  return [event.clientX - box.left - frame.clientLeft, event.clientY - box.top - frame.clientTop];
}

function begin(event) {
  if (event.button !== 0 || !area) return;
  const start = { ...area };
  trace = [pixelOf(event)];
  frame.setPointerCapture(event.pointerId);
  const move = (moved) => {
    if (tool() === "move") drag(start, trace[0], pixelOf(moved));
    else extend(pixelOf(moved));
    drawOverlay();
  };
  const stop = (stopped) => {
    frame.removeEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) frame.removeEventListener(name, stop);
    if (stopped.type === "pointerup" && tool() !== "move") finish();
    trace = [];
    drawOverlay();
  };
  frame.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, stop);
}

/** Add a corner to the outline, unless it is hardly away from the last. */
function extend([x, y]) {
  const [lastX, lastY] = trace[trace.length - 1];
  if (Math.hypot(x - lastX, y - lastY) > 2) trace.push([x, y]);
}

function drag(start, [x0, y0], [x1, y1]) {
  const right = ((x0 - x1) / frame.clientWidth) * (start.x1 - start.x0);
  const up = ((y1 - y0) / frame.clientHeight) * (start.y1 - start.y0);
  show({ x0: start.x0 + right, x1: start.x1 + right, y0: start.y0 + up, y1: start.y1 + up });
}

function finish() {
  const xs = trace.map(([x]) => x);
  const ys = trace.map(([, y]) => y);
  const size = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  if (size <= CLICK) {
    const [x, y] = trace[0];
    const [x0, y0] = toData([x - CLICK, y + CLICK]);
    const [x1, y1] = toData([x + CLICK, y - CLICK]);
    selectBox({ x0, x1, y0, y1 }, "at this place of the map");
  } else {
    onOutline({ polygon: corners().map(toData) }, "inside the outline");
  }
}

function selectBox(box, words) {
  if (box) onOutline({ box: [box.x0, box.y0, box.x1, box.y1] }, words);
}

function wheel(event) {
  event.preventDefault();
  const [x, y] = pixelOf(event);
  const at = { x: x / frame.clientWidth, y: y / frame.clientHeight };
  zoom(event.deltaY < 0 ? ZOOM : 1 / ZOOM, at);
}

function arrow(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const step = steps[event.key];
  if (!step || !area || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const right = step[0] * PAN * (area.x1 - area.x0);
  const up = step[1] * PAN * (area.y1 - area.y0);
  show({ x0: area.x0 + right, x1: area.x1 + right, y0: area.y0 + up, y1: area.y1 + up });
}
