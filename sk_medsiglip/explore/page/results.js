// What came of it: the figures of each refit, the labels, the test set, the files.

import { $, change, count, figure, make, table } from "./parts.js";
import { attempt, inOrder, listen, onState, say, send, state } from "./session.js";

const REFITS_SHOWN = 8;

/** Start the panels; the images to label are shown by a function. */
export function startResults(showQueue) {
  onState(update);
  $("refit").addEventListener("click", refit);
  $("judge").addEventListener("click", askToJudge);
  $("judge-dialog").addEventListener("close", () => inOrder(() => decide(showQueue)));
  $("save").addEventListener("click", () => inOrder(save));
  $("quit-button").addEventListener("click", () => $("quit-dialog").showModal());
  $("quit-dialog").addEventListener("close", () => attempt(quit));
}

/** Train on the labels so far. */
export function refit() {
  return inOrder(async () => {
    say("Training…");
    const { figures, stage } = await send("refit");
    const words = figures.filter(({ value }) => value !== null).map(({ label, value, change: moved }) =>
      `${label} ${figure(value)}${moved === null ? "" : `, ${change(moved)}`}`);
    say(words.length ? `Trained (${stage}): ${words.join("; ")}.` : `Trained (${stage}). There is no figure yet.`);
    listen();
  });
}

function update({ figures, n_labels: counts, labels_file: file, is_ended: isEnded }) {
  $("figures").replaceChildren(figures.length ? refits(figures)
    : make("p", { textContent: "There is no figure yet. Label images of both kinds, then press r." }));
  const values = [...state.values.map(String), "unsure"];
  $("label-counts").replaceChildren(table("Labels so far", ["Column", ...values],
    Object.entries(counts).map(([name, by]) => [name, ...values.map((value) => by[value] ?? 0)])));
  $("labels-file").textContent = file ? `, in ${file}` : "";
  $("refit").disabled = isEnded;
  $("test-words").textContent = testWords();
  $("judge").disabled = !state.n_locked;
  $("judged").replaceChildren(...(state.judgement ? [judgedTable(state.judgement)] : []));
}

function refits(figures) {
  const latest = [...figures].reverse();
  const shown = [...new Set(latest.map(({ refit: number }) => number))].slice(0, REFITS_SHOWN);
  const rows = latest.filter(({ refit: number }) => shown.includes(number)).map((one) => [
    one.refit, one.label, one.stage || "–", one.n,
    one.value === null ? one.note ?? "–" : `${figure(one.value)} (${figure(one.low)} to ${figure(one.high)})`,
    change(one.change),
  ]);
  return table("Figures after each refit", ["Refit", "Label", "By", "Labels", "Area (interval)", "Moved"], rows);
}

function testWords() {
  const { n_locked: n, n_locked_labelled: labelled, n_looks: looks, is_ended: isEnded } = state;
  if (!n) return "No images are kept apart for a test. Start the command with --lock 0.2 to have a test set.";
  const kept = `${count(n, "image")} kept apart for the test since the start. `;
  const seen = looks ? ` The test set was looked at ${count(looks, "time")}.` : "";
  if (isEnded) return `${kept}The training has ended. ${labelled} of ${n} have labels.${seen}`;
  return `${kept}They have no scores, and nothing is learned from them. ${labelled ? `${labelled} have labels.` : "They have no labels yet."}${seen}`;
}

function askToJudge() {
  const { n_locked: n, n_locked_labelled: labelled, is_ended: isEnded } = state;
  const missing = n - labelled;
  const words = isEnded
    ? "The classifier is evaluated on the test images."
    : "Judging ends the training: afterwards nothing more can be labelled or trained.";
  $("judge-words").textContent = `${words} Every look at the test set is counted.${missing
    ? ` ${count(missing, "test image")} ${missing === 1 ? "has" : "have"} no label yet.` : ""}`;
  $("judge-yes").textContent = isEnded ? "Judge" : "End the training and judge";
  $("judge-yes").hidden = !state.can_judge;
  $("judge-label").hidden = isEnded || missing === 0;
  $("judge-dialog").returnValue = "";
  $("judge-dialog").showModal();
}

async function decide(showQueue) {
  const chosen = $("judge-dialog").returnValue;
  if (chosen === "end") {
    await send("end");
    say("The training has ended. Label the test images: they have no scores.");
    await listen();
    await showQueue();
  } else if (chosen === "judge") {
    say("Judging. This takes a while…");
    const { files } = await send("judge");
    showFiles(files);
    say("Judged. The report and the classifier are under Files.");
    listen();
  }
}

function judgedTable(figures) {
  const rows = figures.map((one) => [
    one.estimator ?? "–", one.label ?? "–", one.metric ?? "–",
    one.value === null ? one.note ?? "–" : `${figure(one.value)} (${figure(one.low)} to ${figure(one.high)})`,
  ]);
  return table("Figures on the test set", ["Classifier", "Label", "Figure", "Value (interval)"], rows);
}

async function save() {
  say("Writing…");
  const { files } = await send("save");
  showFiles(files);
  say("The files are written.");
}

function showFiles(files) {
  $("files").replaceChildren(...files.map((file) => {
    const name = file.name ?? file;
    const link = make("a", { href: file.href ?? `files/${encodeURIComponent(name)}`, textContent: name });
    link.setAttribute("download", "");
    return make("li", {}, link);
  }));
}

async function quit() {
  if ($("quit-dialog").returnValue !== "quit") return;
  $("quit-dialog").returnValue = "";
  await send("quit");
  say("The server has stopped. You can close this page.");
}
