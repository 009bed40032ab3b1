// What a form is doing, how far it is, and what went wrong.

import { Failure } from "./api.js";
import { at, el, t } from "./words.js";

// What a form has done, which can be given up. How far it is goes into an empty part of the page.
export class Work {
  constructor(buttons, cancel, place) {
    this.bar = el("progress", { "data-t-label": "progress" });
    this.line = el("span", { role: "status" });
    place.append(this.bar, this.line);
    Object.assign(this, { buttons, cancel, place });
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
    this.cancel.hidden = this.place.hidden = !on;
  }

  show(phase, done, total) {
    const line = t(`phase_${phase}`);
    if (total) Object.assign(this.bar, { max: total, value: done });
    else this.bar.removeAttribute("value");
    const counted = total && phase === "draw";
    this.line.textContent = counted ? t("step_of", { phase: line, done, total }) : line;
  }
}

export function complain(text) {
  const place = at("alert");
  place.textContent = text;
  place.hidden = !text;
}

// What to say of an error: ours is meant to be read, any other is a mistake of the page.
export function said(error) {
  if (!(error instanceof Failure)) console.error(error);
  return error.message;
}
