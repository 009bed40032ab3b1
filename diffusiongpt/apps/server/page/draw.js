// The tab that draws: a prompt with pictures, the route, progress, and what was drawn on this visit.

import { ask, eventsOf, Failure, Work } from "./api.js";
import { routeCard } from "./route.js";
import { at, el, number, onLanguage, t } from "./words.js";

const KEPT = 60; // pictures of a visit: they are held in memory
const SMALL = 256; // pixels below which a picture is enlarged without smoothing

const history = [];
let route = null;

export function setUpDraw() {
  const work = new Work([at("draw-go"), at("ask")], at("draw-cancel"), at("draw-progress"));
  at("draw-form").addEventListener("submit", (event) => {
    event.preventDefault();
    work.run((signal) => draw(work, signal));
  });
  at("ask").addEventListener("click", () => {
    if (at("draw-form").reportValidity()) work.run(preview);
  });
  at("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("draw-form").requestSubmit();
  });
  onLanguage(show);
}

export async function listModels() {
  const models = (await ask("GET", "/v1/models")).data;
  const chosen = at("model").value;
  at("model").replaceChildren(...models.map((one) => el("option", { value: one.id }, one.id)));
  if (models.some((one) => one.id === chosen)) at("model").value = chosen;
}

async function fields() {
  const image = await Promise.all([...at("pictures").files].map(asDataUrl));
  return {
    prompt: at("prompt").value,
    model: at("model").value,
    size: at("size").value,
    ...(at("seed").value ? { seed: Number(at("seed").value) } : {}),
    ...(image.length ? { image } : {}),
  };
}

function asDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Failure(`${file.name}: ${reader.error.message}`));
    reader.readAsDataURL(file);
  });
}

async function preview(signal) {
  route = await ask("POST", "/v1/route", { body: await fields(), signal });
  show();
}

async function draw(work, signal) {
  const body = { ...(await fields()), stream: true, partial_images: 2 };
  const options = { body, signal, raw: true };
  const response = await (body.image
    ? ask("POST", "/v1/images/edits", options)
    : ask("POST", "/v1/images/generations", options));
  let done = false;
  for await (const event of eventsOf(response)) {
    if (event.error) throw new Failure(event.error.message);
    if (event.type === "diffusiongpt.progress") work.show(event.phase, event.done, event.total);
    else if (event.type.endsWith(".completed")) {
      keep(event, body.prompt);
      done = true;
    }
  }
  if (!done) throw new Failure(t("cut"));
  show();
}

function keep(event, prompt) {
  const type = `image/${event.output_format}`;
  const data = Uint8Array.from(atob(event.b64_json), (letter) => letter.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([data], { type }));
  const story = event.diffusiongpt;
  const file = `${story.drawn_by.replace(/[^\w.-]+/g, "_")}-${story.seed}.${event.output_format}`;
  history.unshift({ url, file, prompt, story });
  for (const old of history.splice(KEPT)) URL.revokeObjectURL(old.url);
  route = story.route;
}

export function sharp(event) {
  event.target.classList.toggle("small", event.target.naturalWidth < SMALL);
}

function show() {
  at("route").hidden = !route;
  if (route) at("route").replaceChildren(...routeCard(route));
  at("history-title").hidden = !history.length;
  at("history").replaceChildren(...history.map(figure));
}

function figure({ url, file, prompt, story }) {
  const image = el("img", { src: url, alt: t("picture_by", { prompt, expert: story.drawn_by }) });
  image.addEventListener("load", sharp);
  const seconds = Object.values(story.timings).reduce((sum, part) => sum + part, 0);
  const line = t("drawn_line", { expert: story.drawn_by, seed: story.seed, seconds: number(seconds, 1) });
  const names = (list, of) => list.map(of).join(t("read_sep"));
  const dropped = story.dropped.filter((one) => one.name !== "partial_images");
  return el(
    "figure", {}, image,
    el(
      "figcaption", {},
      el("p", {}, prompt),
      el("p", { class: "faint" }, line),
      dropped.length ? el("p", { class: "faint" }, t("dropped", { names: names(dropped, (one) => one.name) })) : null,
      story.fallbacks.length ? el("p", { class: "faint" }, t("fallbacks", { names: names(story.fallbacks, (one) => one.expert) })) : null,
      ...story.notices.map((notice) => el("p", { class: "faint" }, notice)),
      el("a", { class: "button", href: url, download: file }, t("download")),
    ),
  );
}
