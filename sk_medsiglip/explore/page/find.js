// Images found by a score, a column of the table, or their numbers.

import { $, fillSelect, make } from "./parts.js";
import { attempt, onState, state } from "./session.js";
import { showSelection } from "./images.js";

const BY_NUMBER = "number";
const BY_NAME = "name";

/** Start the form. */
export function startFind() {
  onState(({ colours }) => {
    const places = colours.filter(({ column, kind }) => column !== undefined && kind !== "label");
    fillSelect($("find-in"), [
      [BY_NAME, "file name or patient"],
      [BY_NUMBER, "image numbers"],
      ...places.map(({ id, name }) => [id, name]),
    ]);
    showFields();
  });
  $("find-in").addEventListener("change", showFields);
  $("find-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(find);
  });
}

function chosen() {
  return state.colours.find(({ id }) => id === $("find-in").value);
}

function showFields() {
  const isWords = $("find-in").value === BY_NAME || chosen()?.kind === "category";
  for (const field of document.querySelectorAll(".for-range")) field.hidden = isWords;
  for (const field of document.querySelectorAll(".for-words")) field.hidden = !isWords;
  const values = (isWords && chosen()?.values) || [];
  $("find-values").replaceChildren(...values.map((value) => make("option", { value })));
}

async function find() {
  const place = chosen();
  const [low, high] = ["find-low", "find-high"].map((id) => numberOf($(id)));
  const between = `from ${low ?? "the lowest"} to ${high ?? "the highest"}`;
  if ($("find-in").value === BY_NAME) {
    await showSelection({ text: $("find-is").value }, `with the name ${$("find-is").value}`);
  } else if (!place) {
    await showSelection({ rows: numbers(low, high) }, `with numbers ${between}`);
  } else if (place.kind === "score") {
    await showSelection({ column: place.column, low, high }, `with ${place.name} ${between}`);
  } else if (place.kind === "number") {
    await showSelection({ where: { [place.column]: { low, high } } }, `with ${place.name} ${between}`);
  } else {
    const words = $("find-is").value;
    await showSelection({ where: { [place.column]: [words] } }, `with ${place.name} ${words}`);
  }
}

function numberOf(field) {
  return field.value === "" ? null : Number(field.value);
}

function numbers(low, high) {
  const first = Math.max(low ?? 0, 0);
  const last = Math.min(high ?? first, state.n_rows - 1);
  return Array.from({ length: Math.max(last - first + 1, 0) }, (_, i) => first + i);
}
