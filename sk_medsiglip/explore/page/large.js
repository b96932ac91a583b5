// One image, large: its heat map, its slices and its labels.

import { $, make } from "./parts.js";
import { address, ask, state } from "./session.js";
import { currentRow, factsOf, go, labelWords, onCurrent } from "./images.js";

const SIDE = 1024;
const MOST_IN_STRIP = 16;

const dialog = $("large");
let shown = null; // the row in view
let slice = null; // its slice; null shows what the server chooses

/** Start the large view; neighbours of its row are passed to a function. */
export function startLarge(showNeighbours) {
  onCurrent((row) => dialog.open && update(row));
  $("large-before").addEventListener("click", () => go(-1));
  $("large-after").addEventListener("click", () => go(1));
  $("large-close").addEventListener("click", () => dialog.close());
  $("large-heat-on").addEventListener("change", showHeat);
  $("large-slice").addEventListener("input", () => showSlice(Number($("large-slice").value)));
  $("large-image").addEventListener("load", fitHeat);
  addEventListener("resize", fitHeat);
  $("large-image").addEventListener("error", () => explain("image", pictureQuery()));
  $("large-heat").addEventListener("error", () => explain("heat", heatQuery()));
  $("large-neighbours").addEventListener("click", () => {
    dialog.close();
    showNeighbours(shown);
  });
  dialog.addEventListener("keydown", walk);
}

/** Open the image in hand. */
export function openLarge() {
  const row = currentRow();
  if (row === undefined) return;
  if (!dialog.open) dialog.showModal();
  update(row);
}

/** Tell whether the large view is open. */
export function isLarge() {
  return dialog.open;
}

function update(row) {
  if (row === undefined) return;
  const { group, caption, scores, locked, n_slices: nSlices } = factsOf(row) ?? {};
  $("large-title").textContent = `Image ${row}`;
  const known = Object.entries(scores ?? {}).filter(([, value]) => value !== null);
  $("large-words").textContent = [
    labelWords(row) || "no label",
    group === null || group === undefined ? "" : `patient ${group}`,
    caption && caption !== `image ${row}` ? caption : "",
    locked ? "test set, shown without scores" : "",
    ...known.map(([name, value]) => `score of ${name} ${value.toFixed(2)}`),
  ].filter(Boolean).join(" · ");
  $("large-neighbours").disabled = Boolean(locked);
  $("large-heat-on").disabled = Boolean(locked);
  if (row === shown) return;
  shown = row;
  slice = null;
  showPicture();
  showStrip(nSlices ?? 1);
}

function pictureQuery() {
  return { row: shown, size: SIDE, ...sliceQuery() };
}

function sliceQuery() {
  return slice === null ? {} : { slice };
}

function heatQuery() {
  return { ...sliceQuery(), row: shown, column: $("column").value || state.columns[0] };
}

function showPicture() {
  $("large-problem").hidden = true;
  $("large-image").hidden = false;
  $("large-image").alt = `Image ${shown}, large`;
  $("large-image").src = address("image", pictureQuery());
  showHeat();
}

function showHeat() {
  const isOn = $("large-heat-on").checked && !$("large-heat-on").disabled;
  $("large-heat").hidden = !isOn;
  if (isOn) $("large-heat").src = address("heat", heatQuery());
}

/** Lay the heat map over the image, which fills its frame in one direction only. */
function fitHeat() {
  const { naturalWidth, naturalHeight, clientWidth, clientHeight } = $("large-image");
  const scale = Math.min(clientWidth / naturalWidth, clientHeight / naturalHeight) || 0;
  const [width, height] = [naturalWidth * scale, naturalHeight * scale];
  const { style } = $("large-heat");
  style.width = `${width}px`;
  style.height = `${height}px`;
  style.left = `${(clientWidth - width) / 2}px`;
  style.top = `${(clientHeight - height) / 2}px`;
}

/** Show the server's sentence in place of a picture that did not come. */
async function explain(path, query) {
  const words = await ask(path, query).then(() => "", (error) => error.message);
  if (!words || query.row !== shown) return;
  $(path === "heat" ? "large-heat" : "large-image").hidden = true;
  if (path === "heat") $("large-heat-on").checked = false;
  $("large-problem").textContent = words;
  $("large-problem").hidden = false;
}

function showStrip(nSlices) {
  $("large-slices").hidden = nSlices < 2;
  if (nSlices < 2) return;
  const middle = Math.floor(nSlices / 2);
  $("large-slice").max = nSlices - 1;
  const n = Math.min(nSlices, MOST_IN_STRIP);
  const places = Array.from({ length: n }, (_, i) => Math.round((i * (nSlices - 1)) / Math.max(n - 1, 1)));
  $("large-strip").replaceChildren(...places.map((place) => {
    const button = make("button", { type: "button", "aria-label": `Slice ${place + 1}` },
      make("img", { alt: "", loading: "lazy", src: address("image", { row: shown, size: 160, slice: place }) }));
    button.addEventListener("click", () => showSlice(place));
    return button;
  }));
  showSlice(middle);
}

function showSlice(place) {
  slice = place;
  $("large-slice").value = place;
  $("large-slice-number").textContent = `${place + 1} of ${Number($("large-slice").max) + 1}`;
  showPicture();
}

function walk(event) {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "ArrowLeft") go(-1);
  else if (event.key === "ArrowRight") go(1);
  else return;
  event.preventDefault();
}
