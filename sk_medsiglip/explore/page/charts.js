// Two drawings: scores by label, and the ROC curve with its band.
// Each label has a lane of its own with its name, so nothing depends on a colour.

import { draw, make } from "./parts.js";

const WIDTH = 360;
const LANE = 44;
const LEFT = 92; // room for the names of lanes
const SIDE = 220; // of the square of an ROC curve
const MARGIN = 34;

/** Draw how many rows with each label have scores within each range. */
export function histogram(name, bins) {
  const ranges = new Set(["column", "label", "low", "high"]);
  const words = Object.keys(bins[0]).filter((word) =>
    !ranges.has(word) && bins.some((bin) => bin[word] > 0));
  const low = bins[0].low;
  const high = bins[bins.length - 1].high;
  const across = (score) => LEFT + ((score - low) / (high - low || 1)) * (WIDTH - LEFT - 8);
  const height = words.length * LANE + 28;
  const lanes = words.map((word, i) => {
    const counts = bins.map((bin) => bin[word]);
    const most = Math.max(...counts);
    const total = counts.reduce((sum, n) => sum + n, 0);
    const bottom = (i + 1) * LANE;
    const bars = bins.filter((bin) => bin[word] > 0).map((bin) => {
      const tall = Math.max((bin[word] / most) * (LANE - 10), 1);
      return draw("rect", {
        x: across(bin.low), y: bottom - tall, height: tall,
        width: Math.max(across(bin.high) - across(bin.low) - 0.5, 1), class: `bar ${kind(word)}`,
      });
    });
    return draw("g", {}, ...bars,
      draw("line", { x1: LEFT, x2: WIDTH - 8, y1: bottom, y2: bottom, class: "axis" }),
      text(LEFT - 6, bottom - 14, word, "end"),
      text(LEFT - 6, bottom - 1, total.toLocaleString("en"), "end"));
  });
  const label = `Scores of ${name} by label: ${words.join(", ")}`;
  return figureOf(`Scores of ${name}, by label`, draw("svg",
    { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label, class: "histogram" },
    ...lanes,
    text(LEFT, height - 12, low.toFixed(1), "start"),
    text((LEFT + WIDTH) / 2, height - 12, "score (log odds)", "middle"),
    text(WIDTH - 8, height - 12, high.toFixed(1), "end")));
}

/** Draw an ROC curve with its band. */
export function rocCurve(name, { fpr, tpr, low, high }) {
  const x = (share) => MARGIN + share * SIDE;
  const y = (share) => 8 + (1 - share) * SIDE;
  const line = (values) => fpr.map((share, i) => `${x(share)},${y(values[i])}`);
  const parts = [
    draw("rect", { x: x(0), y: y(1), width: SIDE, height: SIDE, class: "frame" }),
    draw("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "chance" }),
    draw("polyline", { points: line(tpr).join(" "), class: "curve" }),
    text(x(0.5), y(0) + 28, "False positive rate", "middle"),
    text(x(0), y(0) + 14, "0", "middle"),
    text(x(1), y(0) + 14, "1", "middle"),
    text(x(0) - 6, y(1) + 8, "1", "end"),
    draw("text", { transform: `translate(${x(0) - 14} ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" },
      "True positive rate"),
  ];
  if (low && high) {
    const band = [...line(low), ...line(high).reverse()].join(" ");
    parts.splice(1, 0, draw("polygon", { points: band, class: "band" }));
  }
  return figureOf(`ROC curve of ${name}${low && high ? ", with its band" : ""}`, draw("svg",
    { viewBox: `0 0 ${SIDE + MARGIN + 10} ${SIDE + 44}`, role: "img", class: "roc", "aria-label": `ROC curve of ${name}` },
    ...parts));
}

function figureOf(caption, drawing) {
  return make("figure", {}, make("figcaption", { textContent: caption }), drawing);
}

function text(x, y, words, anchor) {
  return draw("text", { x, y, "text-anchor": anchor }, String(words));
}

function kind(word) {
  return ["yes", "no", "unsure", "unlabelled"].includes(word) ? `is-${word}` : "is-class";
}
