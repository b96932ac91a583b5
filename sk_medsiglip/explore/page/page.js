// The page of `sk-medsiglip explore`: its parts are joined here, and keys mean something.
//
//     session.js   the server's state, and the requests that change it
//     map.js       the map, and outlines on it
//     images.js    the grid of images, and the answers to them
//     large.js     one image, large
//     bench.js     prompts: tried and taken
//     charts.js    histograms and ROC curves
//     results.js   figures, test set and files
//     find.js      images by score, column or number
//     parts.js     elements, words and numbers

import { $, count, make, table } from "./parts.js";
import { attempt, listen, onState, state } from "./session.js";
import { answer, onCurrent, restore, showNeighbours, showQueue, showSelection, skip, startImages, undo }
  from "./images.js";
import { isLarge, openLarge, startLarge } from "./large.js";
import { colourByTrial, ringAt, showAll, startMap, zoom } from "./map.js";
import { startBench } from "./bench.js";
import { startFind } from "./find.js";
import { refit, startResults } from "./results.js";

const KEYS = [
  ["q", "show what to label next", () => attempt(showQueue)],
  ["u", "unsure: not learned from, not asked again", () => answer("unsure")],
  ["s", "skip: go to the next image, nothing is stored", skip],
  ["z", "undo the last label", undo],
  ["r", "refit: train on the labels so far", refit],
  ["+", "zoom in on the map", () => zoom(1.5)],
  ["-", "zoom out", () => zoom(1 / 1.5)],
  ["0", "whole map", showAll],
  ["?", "these keys", () => $("help").showModal()],
];
const ELSEWHERE = [
  ["arrows", "next image in the grid; another part of the map"],
  ["space", "mark an image; an answer is for all marked ones"],
  ["Enter", "open an image large"],
  ["Escape", "close"],
];

let actions = {}; // what each key does
let asked = null; // the values that the buttons were made for

startMap((query, words) => attempt(() => showSelection(query, words)));
startImages(openLarge);
startLarge((row) => attempt(() => showNeighbours(row)));
startBench(colourByTrial);
startFind();
startResults(showQueue);
startTabs();
onCurrent((row, known) => ringAt(known?.x, known?.y));
onState(update);
$("help-button").addEventListener("click", () => $("help").showModal());
$("help-link").addEventListener("click", () => $("help").close());
document.addEventListener("keydown", press);
listen().then(() => state?.view?.rows?.length && attempt(() => restore(state.view)));

function update() {
  if (asked !== JSON.stringify(state.values)) makeAnswers();
  document.title = $("title").textContent = state.title;
  $("demo").hidden = !state.is_demo;
  const known = Object.values(state.n_labels).flatMap(Object.values).reduce((sum, n) => sum + n, 0);
  const failed = state.n_failed ? `, ${state.n_failed} unreadable` : "";
  const locked = state.n_locked ? `, ${state.n_locked} for the test` : "";
  $("counts").textContent = `${count(state.n_rows, "image")}, ${count(known, "label")}${locked}${failed}`;
  showEmbedding();
  showNotes();
  $("next-step").textContent = nextStep();
}

function showEmbedding() {
  const { n_rows: n, n_embedded: done, n_failed: failed, seconds_left: seconds } = state;
  const isGoingOn = state.is_embedding;
  $("embedding-error").textContent = state.embedding_error ?? "";
  $("embedding-error").hidden = !state.embedding_error;
  $("embedding").hidden = !isGoingOn;
  if (!isGoingOn) return;
  $("embedding-bar").max = n;
  $("embedding-bar").value = done + failed;
  const left = seconds === null ? "" : ` About ${seconds < 90
    ? count(Math.ceil(seconds), "second") : count(Math.ceil(seconds / 60), "minute")} left.`;
  $("embedding-words").textContent = `${done + failed} of ${n} images are read.${left} You can begin with these.`;
}

function showNotes() {
  $("notes").replaceChildren(...state.notes.map((note) => make("li", { textContent: note })));
  $("notes").hidden = !state.notes.length;
}

/** Say in one sentence what to do now. */
function nextStep() {
  const { is_ended: isEnded, n_locked: n, n_locked_labelled: labelled, n_looks: looks } = state;
  if (looks) return "Done: the report and the classifier are under Files.";
  if (isEnded && labelled < n) return `Label the ${n - labelled} test images that have no label: press q.`;
  if (isEnded) return "Open Test set and judge the classifier.";
  const counts = Object.values(state.n_labels);
  const answers = counts.map((by) => state.values.map((value) => by[value] ?? 0));
  const known = answers.flat().reduce((sum, n) => sum + n, 0);
  if (!known) return "Label 16 images: press q.";
  if (!state.prompts && !answers.some((by) => by.filter(Boolean).length > 1)) {
    return "Label images of both kinds: press q.";
  }
  const learned = nLearned();
  if (known !== learned) return `${count(Math.abs(known - learned), "label")} not learned from yet: press r.`;
  return state.n_locked ? "Press q for the next images. When the figures stand still, judge (Test set)."
    : "Press q for the next images, or write the files (Files).";
}

function nLearned() {
  const last = Math.max(...state.figures.map((one) => one.refit));
  const ns = state.figures.filter((one) => one.refit === last).map((one) => one.n);
  // Classes share their images; each finding has its own.
  return state.classes ? Math.max(0, ...ns) : ns.reduce((sum, n) => sum + n, 0);
}

/** Make the buttons and keys of the answers: y and n, or a digit for each class. */
function makeAnswers() {
  asked = JSON.stringify(state.values);
  const isFinding = state.classes === null;
  const values = isFinding ? ["yes", "no"] : state.values;
  const keys = values.map((value, i) => {
    if (isFinding) return [value[0], value, () => answer(value)];
    return [i < 9 ? String(i + 1) : "", String(value), () => answer(value)];
  });
  const shared = KEYS.filter(([key]) => key === "u" || key === "s")
    .map(([key, words, act]) => [key, words.split(":")[0], act]);
  for (const id of ["values", "large-values"]) {
    $(id).replaceChildren(...[...keys, ...shared].map(([key, words, act]) => {
      const button = make("button", { type: "button", textContent: `${words} ` });
      if (key) button.append(make("kbd", { textContent: key }));
      if (key) button.setAttribute("aria-keyshortcuts", key);
      button.addEventListener("click", act);
      return button;
    }));
  }
  const named = keys.filter(([key]) => key);
  actions = Object.fromEntries([...named, ...KEYS].map(([key, , act]) => [key, act]));
  const rows = [...named.map(([key, words]) => [key, words]), ...KEYS.map(([key, words]) => [key, words]), ...ELSEWHERE];
  $("help-keys").replaceChildren(table("Keys of this page", ["Key", "Meaning"], rows));
}

function press(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || !(key in actions)) return;
  const types = target.matches("textarea, select, input:not([type=radio], [type=checkbox], [type=range])");
  const dialog = document.querySelector("dialog[open]");
  if (types || (dialog && !isLarge()) || (isLarge() && !"ynuszr123456789".includes(key))) return;
  event.preventDefault();
  actions[key]();
}

function startTabs() {
  const tabs = [...$("tabs").children];
  const open = (tab) => {
    for (const one of tabs) {
      const isOpen = one === tab;
      one.setAttribute("aria-selected", isOpen);
      one.tabIndex = isOpen ? 0 : -1;
      $(one.getAttribute("aria-controls")).hidden = !isOpen;
    }
    tab.focus();
  };
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) open(tabs[(i + step + tabs.length) % tabs.length]);
    });
  }
}
