// What the page asks the server for: the same API that every client uses.

import { t } from "./words.js";

const KEY = "diffusiongpt.key";

export class Failure extends Error {}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function hasKey() {
  return Boolean(sessionStorage.getItem(KEY));
}

// The answer as JSON; with `raw`, the response itself. A failure is the server's own message.
export async function ask(method, path, { body, signal, raw } = {}) {
  const headers = { accept: raw ? "text/event-stream, application/json" : "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(`.${path}`, document.baseURI), {
      method, headers, signal, credentials: "omit", body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(t("unreachable"));
  }
  if (response.ok) return raw ? response : response.json();
  const said = await response.json().catch(() => null);
  if (response.status === 401) document.dispatchEvent(new Event("key-needed"));
  throw new Failure(said?.error?.message ?? `${response.status} ${response.statusText}`);
}

// The events of a stream, each as an object with its type.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const data = text.slice(0, end).split("\n").filter((line) => line.startsWith("data:"));
      text = text.slice(end + 2);
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5).trimStart()).join("\n"));
    }
  }
}

// The last events of a drawing: its pictures. How far it is goes to the bar of its form.
export async function follow(response, work) {
  const last = [];
  for await (const event of eventsOf(response)) {
    if (event.error) throw new Failure(event.error.message);
    if (event.type === "diffusiongpt.progress") work.show(event.phase, event.done, event.total);
    else if (event.type.endsWith(".completed")) last.push(event);
  }
  if (!last.length) throw new Failure(t("cut"));
  return last;
}
