// Small parts that every other file uses: elements, words and numbers.
// Data is only ever put in as text, so that no label or file name can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element of the page with an id. */
export function $(id) {
  return document.getElementById(id);
}

/** Make an element: names with a dash, and role, are attributes, others properties. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Make an element of a drawing. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Make a table with a caption; the first cell of each row is its heading. */
export function table(caption, head, rows) {
  const cells = (row) => row.map((text, i) =>
    make(i ? "td" : "th", i ? { textContent: text } : { textContent: text, scope: "row" }));
  const top = head.map((text) => make("th", { textContent: text, scope: "col" }));
  return make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    make("table", {},
      make("caption", { textContent: caption }),
      make("thead", {}, make("tr", {}, ...top)),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row))))));
}

/** Fill a select with options, and keep what was chosen if it is still there. */
export function fillSelect(select, options) {
  const before = select.value;
  const now = JSON.stringify(options);
  if (select.dataset.options === now) return;
  select.dataset.options = now;
  select.replaceChildren(...options.map(([value, text]) =>
    make("option", { value, textContent: text })));
  if (options.some(([value]) => String(value) === before)) select.value = before;
}

/** Return a figure with two decimals, a dash where there is none. */
export function figure(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}

/** Return a change with its sign. */
export function change(value) {
  if (value === null || value === undefined) return "–";
  return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
}

/** Return a number of things in words. */
export function count(n, thing) {
  return `${n.toLocaleString("en")} ${thing}${n === 1 ? "" : "s"}`;
}
