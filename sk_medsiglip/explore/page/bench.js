// The prompt bench: texts are tried, looked at, and taken.

import { $, change, count, figure, make, table } from "./parts.js";
import { attempt, inOrder, listen, onState, remember, say, send, state } from "./session.js";
import { histogram, rocCurve } from "./charts.js";

let fields = []; // { key, side, box }: one for each text area
let built = null; // the questions that the text areas were made for
let taken = null; // the prompts that the text areas show
let isTyped = false;

/** Start the bench; the colour of tried scores is passed to a function. */
export function startBench(showTrial) {
  onState(update);
  $("try").addEventListener("click", () => attempt(() => tryPrompts(showTrial)));
  $("take").addEventListener("click", takePrompts);
}

function update({ columns, classes, prompts, view }) {
  const asked = JSON.stringify([columns, classes]);
  if (built !== asked) {
    build(columns, classes);
    built = asked;
    if (view?.prompts) {
      fill(view.prompts);
      isTyped = true;
    }
  }
  // What somebody is typing is left alone, whatever another tab takes.
  if (isTyped || taken === JSON.stringify(prompts)) return;
  taken = JSON.stringify(prompts);
  fill(prompts ?? {});
}

function build(columns, classes) {
  const asked = classes
    ? classes.map((name) => ({ key: String(name), side: null, words: `Texts for ${name}` }))
    : columns.flatMap((name) => [
      { key: name, side: "positive", words: `${name}: texts of images with it` },
      { key: name, side: "negative", words: `${name}: texts of images without it` },
    ]);
  fields = asked.map(({ key, side, words }) => {
    const box = make("textarea", { rows: 2, spellcheck: false });
    box.addEventListener("input", () => {
      isTyped = true;
      remember({ prompts: read() });
    });
    $("prompts").append(make("label", {}, words, box));
    return { key, side, box };
  });
}

function fill(prompts) {
  for (const { key, side, box } of fields) {
    const found = side ? prompts[key]?.[side] : prompts[key];
    box.value = [found ?? []].flat().join("\n");
  }
}

/** Return the texts; questions without any are left out. */
function read() {
  const prompts = {};
  for (const { key, side, box } of fields) {
    const lines = box.value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!lines.length) continue;
    if (side) prompts[key] = { ...prompts[key], [side]: lines };
    else prompts[key] = lines;
  }
  return prompts;
}

async function tryPrompts(showTrial) {
  const prompts = read();
  if (!Object.keys(prompts).length) throw new Error("Type a text for each side first.");
  say("Trying…");
  const found = await send("score", { prompts });
  $("tried").replaceChildren(...trialParts(found));
  $("tried").scrollIntoView({ block: "start" });
  await showTrial(found.colour);
  say("Tried. The map is coloured by these scores.");
}

function trialParts({ auc, histogram: bins, roc, texts }) {
  const parts = auc.map(({ label, value, low, high, n, n_positive: nPositive, note }) =>
    make("p", { className: "auc" },
      make("strong", { textContent: `${label}: ` }),
      value === null ? note ?? "no figure"
        : `area under the ROC curve ${figure(value)} (${figure(low)} to ${figure(high)}), ${count(n, "label")}, ${nPositive} positive`));
  if (!auc.length) {
    parts.push(make("p", { className: "soft", textContent:
      "There is no ROC curve yet: it needs labels of both kinds." }));
  }
  const drawings = make("div", { className: "drawings" });
  for (const [name, some] of byLabel(bins)) {
    drawings.append(histogram(name, some));
    if (roc?.[name]) drawings.append(rocCurve(name, roc[name]));
  }
  // Curves of several classes bear the name of their column.
  for (const [name, curve] of Object.entries(roc ?? {})) {
    if (!bins.some((bin) => bin.label === name)) drawings.append(rocCurve(name, curve));
  }
  parts.push(drawings);
  if (texts?.length) {
    parts.push(table("What each text adds to the area", ["Text", "For", "Adds"],
      texts.map((one) => [one.text, [one.column, one.side].filter(Boolean).join(", "), change(one.change)])));
  }
  return parts;
}

function byLabel(bins) {
  const found = new Map();
  for (const bin of bins) found.set(bin.label, [...(found.get(bin.label) ?? []), bin]);
  return found;
}

function takePrompts() {
  return inOrder(async () => {
    await send("prompts", { prompts: read() });
    isTyped = false;
    taken = JSON.stringify(state.prompts);
    remember({ prompts: null });
    say("The prompts are taken. They count from the next refit on: press r.");
    listen();
  });
}
