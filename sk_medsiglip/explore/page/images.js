// The images in view: a grid to walk through with keys, and the answers to them.

import { $, count, fillSelect, make } from "./parts.js";
import { address, ask, attempt, inOrder, listen, onState, remember, say, send, state }
  from "./session.js";

const PER_PAGE = 60; // images that are added to the grid at a time
const PER_QUEUE = 16;
const MOST = 500; // rows that the server describes at a time
const SIGNS = { yes: "✓ yes", no: "✗ no", unsure: "? unsure" };

const grid = $("grid");

let rows = []; // numbers of the images in view
let notes = new Map(); // what is to be said of some of them
let nShown = 0;
let current = 0; // place of the image in hand, among the rows
let isQueue = false;
const facts = new Map(); // what the server says of each row in view
const marked = new Set();
const sent = new Set(); // "row column" whose answer is on its way

let nAnswered = 0; // answers and undos so far

const listeners = [];

/** Call a function with the row in hand and what is known of it, when that changes. */
export function onCurrent(listener) {
  listeners.push(listener);
}

/** Start the grid and its buttons; the row that Enter opens is passed to a function. */
export function startImages(open) {
  onState(update);
  $("queue").addEventListener("click", () => attempt(showQueue));
  $("suspects").addEventListener("click", () => attempt(showSuspects));
  $("mark-all").addEventListener("click", markAll);
  $("undo").addEventListener("click", undo);
  $("more").addEventListener("click", () => attempt(showMore));
  $("column").addEventListener("change", renderAll);
  grid.addEventListener("keydown", (event) => walk(event, open));
  grid.addEventListener("click", (event) => {
    const tile = event.target.closest("[role=option]");
    if (!tile) return;
    setCurrent([...grid.children].indexOf(tile), true);
    if (event.target.closest(".mark")) mark();
  });
  grid.addEventListener("dblclick", () => open());
}

/** Show the images to label next. */
export async function showQueue() {
  const query = { k: PER_QUEUE };
  if (state.columns.length > 1 && column()) query.column = column();
  const found = await ask("queue", query);
  await showRows(found.rows, found.why, { isQueue: true });
  say(found.rows.length ? `${count(found.rows.length, "image")} to label.`
    : "There is nothing left to label.");
}

/** Show the rows that meet conditions, which the server tests. */
export async function showSelection(query, words) {
  const { n, rows: found } = await send("select", query);
  const cut = n > found.length ? ` The first ${found.length} are shown.` : "";
  await showRows(found, `${count(n, "image")} ${words}.${cut}`);
  say(`${count(n, "image")} selected.`);
}

/** Show labels that look wrong, copies, and images that could not be read. */
export async function showSuspects() {
  const found = await ask("suspects");
  const told = new Map();
  const add = (row, text) => told.set(row, [told.get(row), text].filter(Boolean).join("; "));
  for (const one of found.labels) add(one.row, `${one.finding ?? "label"}: looks like ${one.suggested}`);
  for (const row of found.unreadable ?? []) add(row, "could not be read");
  for (const one of found.copies) {
    add(one.row, `copy of ${one.other_row}`);
    add(one.other_row, `copy of ${one.row}`);
  }
  const words = `${count(told.size, "suspect")}. ${found.note ?? ""}`;
  await showRows([...told.keys()].slice(0, MOST), words, { notes: told });
  say(`${count(told.size, "suspect")}.`);
}

/** Show the images nearest to one. */
export async function showNeighbours(row) {
  const found = await ask("neighbours", { row, k: 12 });
  const told = new Map(found.rows.map((one) => [one.row, `cosine ${one.cosine.toFixed(3)}`]));
  told.set(row, "this image");
  const words = `The images nearest to image ${row}, by their embeddings and not on the map.`;
  await showRows([row, ...found.rows.map((one) => one.row)], words, { notes: told });
}

/** Go on with the rows that were in view before a reload. */
export async function restore({ rows: seen, why, at, isQueue: wasQueue }) {
  await showRows(seen, why, { isQueue: wasQueue, focus: false });
  setCurrent(Math.min(at ?? 0, seen.length - 1), false);
}

/** Give the marked images, or the one in hand, an answer; "" takes it back. */
export function answer(value) {
  const chosen = marked.size ? [...marked] : rows.slice(current, current + 1);
  if (!chosen.length) {
    say("There is no image in view. Press q for images to label.");
    return;
  }
  const name = column();
  const keys = chosen.map((row) => `${row} ${name}`);
  keys.forEach((key) => sent.add(key));
  marked.clear();
  renderAll();
  step();
  inOrder(async () => {
    try {
      await send("label", { rows: chosen, column: name, value });
    } finally {
      keys.forEach((key) => sent.delete(key));
      nAnswered += 1;
      renderAll();
    }
    for (const row of chosen) {
      if (facts.has(row)) facts.get(row).labels[name] = value;
    }
    renderAll();
    const left = isQueue ? rows.filter((row) => !isAnswered(row)).length : null;
    const next = state.is_ended ? "q for more" : "r to refit";
    const done = left === 0 ? ` All of these are answered: press ${next}.` : "";
    say(`${chosen.length > 1 ? count(chosen.length, "image") : `Image ${chosen[0]}`}: ${value}.${done}`);
    listen();
  });
}

/** Go on to the next image without an answer. */
export function skip() {
  step();
  if (rows.length) say("Skipped. Nothing was stored.");
}

/** Take the last label back. */
export function undo() {
  return inOrder(async () => {
    const { undone } = await send("undo");
    nAnswered += 1;
    if (!undone) {
      say("There is nothing to undo.");
      return;
    }
    await readFacts(rows.slice(0, nShown));
    const at = rows.indexOf(undone.rows[0]);
    if (at >= 0) setCurrent(at, hasFocus());
    say(`Taken back: ${undone.value} of ${undone.rows.length > 1
      ? count(undone.rows.length, "image") : `image ${undone.rows[0]}`}.`);
    listen();
  });
}

/** Go to another image in view. */
export function go(places) {
  if (rows.length) setCurrent(Math.max(0, Math.min(current + places, nShown - 1)), hasFocus());
}

/** Mark the image in hand, or take its mark away. */
export function mark() {
  const row = rows[current];
  if (row === undefined) return;
  if (!marked.delete(row)) marked.add(row);
  render(current);
}

/** Return the row in hand. */
export function currentRow() {
  return rows[current];
}

/** Return what the server says of a row in view. */
export function factsOf(row) {
  return facts.get(row);
}

/** Return the answers of a row in words. */
export function labelWords(row) {
  const { labels } = facts.get(row) ?? { labels: {} };
  return Object.entries(labels)
    .filter(([, value]) => value !== "" && value !== null)
    .map(([name, value]) => {
      const word = SIGNS[value] ?? `✓ ${value}`;
      return Object.keys(labels).length > 1 ? `${name}: ${word}` : word;
    })
    .join(", ");
}

function column() {
  return $("column").value || state.columns[0];
}

async function update({ columns }) {
  fillSelect($("column"), columns.map((name) => [name, name]));
  $("column-label").hidden = columns.length < 2;
  if (rows.length) await readFacts(rows.slice(0, nShown));
}

async function showRows(found, why, options = {}) {
  const { notes: told = new Map(), isQueue: asked = false, focus = true } = options;
  rows = found;
  notes = told;
  isQueue = asked;
  nShown = Math.min(PER_PAGE, rows.length);
  current = 0;
  marked.clear();
  $("why").textContent = why;
  grid.replaceChildren(...rows.slice(0, nShown).map(makeTile));
  $("more").hidden = nShown >= rows.length;
  grid.scrollTop = 0;
  await readFacts(rows.slice(0, nShown));
  setCurrent(0, focus);
  remember({ rows: rows.slice(0, PER_PAGE), why, isQueue });
}

async function showMore() {
  const next = rows.slice(nShown, nShown + PER_PAGE);
  nShown += next.length;
  grid.append(...next.map(makeTile));
  $("more").hidden = nShown >= rows.length;
  await readFacts(next);
}

async function readFacts(wanted) {
  if (!wanted.length) return;
  const before = nAnswered;
  const found = await ask("rows", { rows: wanted.slice(0, MOST).join(",") });
  if (before !== nAnswered) {
    await readFacts(wanted); // these are older than an answer that came in between
    return;
  }
  found.forEach((one) => facts.set(one.row, one));
  renderAll();
  tellCurrent();
}

function makeTile(row) {
  return make("div", { role: "option", className: "tile", tabIndex: -1 },
    make("div", { className: "thumbnail" }, thumbnail(row)),
    make("div", { className: "line" },
      make("span", { className: "number", textContent: row }),
      make("span", { className: "mark", title: "Mark (space)" })),
    make("div", { className: "answer" }),
    make("div", { className: "soft note-of-tile", textContent: notes.get(row) ?? "" }));
}

function thumbnail(row) {
  if (!state.has_images) {
    return make("p", { className: "unreadable", textContent: "No picture: there are only embeddings." });
  }
  const image = make("img", {
    alt: `Image ${row}`, loading: "lazy", draggable: false, width: 160, height: 160,
    src: address("image", { row, size: 160 }),
  });
  image.addEventListener("error", () => explain(image, { row, size: 160 }));
  return image;
}

/** Put a sentence where an image cannot be shown. */
async function explain(image, query) {
  const words = await ask("image", query).then(() => "", (error) => error.message);
  if (words) image.replaceWith(make("p", { className: "unreadable", textContent: words }));
}

function renderAll() {
  for (let i = 0; i < grid.children.length; i += 1) render(i);
}

function render(i) {
  const tile = grid.children[i];
  const row = rows[i];
  if (!tile) return;
  const isMarked = marked.has(row);
  const waits = [...state.columns].some((name) => sent.has(`${row} ${name}`));
  const words = waits ? "…" : labelWords(row);
  tile.setAttribute("aria-selected", isMarked);
  tile.tabIndex = i === current ? 0 : -1;
  tile.classList.toggle("current", i === current);
  tile.classList.toggle("answered", isAnswered(row));
  tile.querySelector(".mark").textContent = isMarked ? "☑" : "☐";
  tile.querySelector(".answer").textContent = words || "–";
  const group = facts.get(row)?.group;
  const parts = [`Image ${row}`, group === undefined || group === null ? "" : `patient ${group}`,
    words || "no label", isMarked ? "marked" : "", notes.get(row) ?? ""];
  tile.setAttribute("aria-label", parts.filter(Boolean).join(", "));
}

function isAnswered(row) {
  const value = facts.get(row)?.labels[column()];
  return sent.has(`${row} ${column()}`) || (value !== "" && value !== null && value !== undefined);
}

/** Go to the next image without a label, or to the next one where all have one. */
function step() {
  const after = [...rows.keys()].slice(0, nShown);
  const inTurn = [...after.slice(current + 1), ...after.slice(0, current)];
  const next = inTurn.find((i) => !isAnswered(rows[i]));
  if (next !== undefined) setCurrent(next, hasFocus());
  else if (current + 1 < nShown) setCurrent(current + 1, hasFocus());
}

/** Tell whether the focus may move with the image in hand. */
function hasFocus() {
  return grid.contains(document.activeElement) || document.activeElement === document.body;
}

function setCurrent(i, focus) {
  const before = current;
  current = i;
  render(before);
  render(current);
  const tile = grid.children[current];
  if (focus) tile?.focus();
  remember({ at: current });
  tellCurrent();
}

function tellCurrent() {
  for (const listener of listeners) listener(rows[current], facts.get(rows[current]));
}

function markAll() {
  const all = rows.slice(0, nShown);
  const areMarked = all.every((row) => marked.has(row));
  marked.clear();
  if (!areMarked) all.forEach((row) => marked.add(row));
  renderAll();
  say(areMarked ? "Nothing is marked." : `${count(all.length, "image")} marked: one answer labels them all.`);
}

function walk(event, open) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perLine(), ArrowDown: perLine(), Home: -nShown, End: nShown };
  if (event.key in steps) go(steps[event.key]);
  else if (event.key === " ") mark();
  else if (event.key === "Enter") open();
  else return;
  event.preventDefault();
}

function perLine() {
  const top = grid.firstElementChild?.offsetTop;
  return [...grid.children].filter((tile) => tile.offsetTop === top).length;
}
