// The server's state, and the requests that change it.
// The server holds everything: a reload or a second tab only asks again.

import { $ } from "./parts.js";

const EVERY = 1000; // milliseconds between two questions for news
const EVERY_WHEN_GONE = 3000;
const GONE = "The server does not answer. Labels so far are saved. This page goes on by "
  + "itself when the server answers again. After a new start of the command, open the "
  + "address that it prints.";
const ENDED = "This address has ended. Open the address that the command printed last.";

/** The last state that the server told; null before the first answer. */
export let state = null;

const listeners = [];
let timer = null;
let isAsking = false;
let isOutdated = false; // something changed while the server was being asked
let chain = Promise.resolve();

/** Call a function with each new state. */
export function onState(listener) {
  listeners.push(listener);
}

/** Say what happened, politely. */
export function say(sentence) {
  $("status").textContent = sentence;
  $("alarm").hidden = true;
}

/** Say that something failed. */
export function alarm(sentence) {
  // While an image is open large, what is behind it cannot be read.
  if ($("large").open) {
    $("large-problem").textContent = sentence;
    $("large-problem").hidden = false;
  }
  $("alarm").textContent = sentence;
  $("alarm").hidden = false;
}

/** Ask the server for JSON. */
export async function ask(path, query = {}) {
  return answerOf(await request(address(path, query)));
}

/** Send JSON to the server. */
export async function send(path, body = {}) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  return answerOf(await request(path, options));
}

/** Return the address of a request, relative to the page. */
export function address(path, query) {
  const text = new URLSearchParams(query).toString();
  return text ? `${path}?${text}` : path;
}

/** Do something, and tell the user in a sentence if it fails. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    alarm(error.message);
    return undefined;
  }
}

/** Do something after all that was asked for earlier, as fast typing needs. */
export function inOrder(action) {
  chain = chain.then(() => attempt(action));
  return chain;
}

/** Ask for news now, and from then on every second. */
export async function listen() {
  clearTimeout(timer);
  if (isAsking) {
    isOutdated = true;
    return;
  }
  isAsking = true;
  let wait = EVERY;
  try {
    const news = await ask("state", state ? { since: state.seq } : {});
    showConnection("");
    if ("n_rows" in news) {
      state = news;
      for (const listener of listeners) attempt(() => listener(state));
    }
  } catch (error) {
    wait = EVERY_WHEN_GONE;
    showConnection(error.status === 403 || error.status === 404 ? ENDED : GONE);
  } finally {
    isAsking = false;
  }
  if (isOutdated) wait = 0;
  isOutdated = false;
  timer = setTimeout(() => document.hidden || listen(), wait);
}

/** Remember what is in view, so that a reload goes on there. */
export function remember(view) {
  Object.assign(pending, view);
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    // Losing a view is no reason to disturb anybody.
    send("view", { ...(state?.view ?? {}), ...pending }).catch(() => undefined);
  }, 300);
}
const pending = {};
let remembering = null;

async function request(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
}

async function answerOf(response) {
  const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
  const body = isJson ? await response.json() : await response.text();
  if (response.ok) return body;
  const sentence = isJson ? body.error : `The server refused this (${response.status}).`;
  throw Object.assign(new Error(sentence), { status: response.status });
}

function showConnection(sentence) {
  // Setting the same text again would make a screen reader repeat it.
  if ($("connection").textContent !== sentence) $("connection").textContent = sentence;
  $("connection").hidden = !sentence;
}

document.addEventListener("visibilitychange", () => document.hidden || listen());
