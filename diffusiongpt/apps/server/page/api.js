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

// What a form has done, which can be given up, with a bar of how far it is.
export class Work {
  constructor(buttons, cancel, bar) {
    Object.assign(this, { buttons, cancel, bar });
    this.cancel.addEventListener("click", () => this.control?.abort());
  }

  // Run something that takes a signal; says what went wrong in the page's alert.
  async run(work) {
    if (this.control) return;
    this.control = new AbortController();
    this.show("route", 0, null);
    this.busy(true);
    complain("");
    try {
      await work(this.control.signal);
    } catch (error) {
      complain(error.name === "AbortError" ? t("cancelled") : said(error));
    } finally {
      this.control = null;
      this.busy(false);
    }
  }

  busy(on) {
    for (const button of this.buttons) button.disabled = on;
    this.cancel.hidden = this.bar.hidden = !on;
  }

  show(phase, done, total) {
    const bar = this.bar.querySelector("progress");
    const line = t(`phase_${phase}`);
    if (total) Object.assign(bar, { max: total, value: done });
    else bar.removeAttribute("value");
    const counted = total && phase === "draw";
    this.bar.querySelector("[role=status]").textContent = counted ? t("step_of", { phase: line, done, total }) : line;
  }
}

export function complain(text) {
  const place = document.getElementById("alert");
  place.textContent = text;
  place.hidden = !text;
}

// What to say of an error: ours is meant to be read, any other is a mistake of the page.
export function said(error) {
  if (!(error instanceof Failure)) console.error(error);
  return error.message;
}
