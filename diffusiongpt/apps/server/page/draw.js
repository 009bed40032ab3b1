// The tab that draws: a prompt with pictures, the route, progress, and what was drawn on this visit.

import { ask, follow } from "./api.js";
import { Given } from "./given.js";
import { figure, received } from "./picture.js";
import { routeCard } from "./route.js";
import { at, el, onLanguage } from "./words.js";
import { Work } from "./work.js";

const KEPT = 60; // pictures of a visit: they are held in memory

const history = [];
let route = null;
let given = null; // the pictures that go in

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
  given = new Given(at("pictures"), at("draw-mask"));
  onLanguage(show);
}

export async function listModels() {
  const models = (await ask("GET", "/v1/models")).data;
  const chosen = at("model").value;
  at("model").replaceChildren(...models.map((one) => el("option", { value: one.id }, one.id)));
  if (models.some((one) => one.id === chosen)) at("model").value = chosen;
}

async function fields() {
  return {
    prompt: at("prompt").value,
    model: at("model").value,
    size: at("size").value,
    ...(at("seed").value ? { seed: Number(at("seed").value) } : {}),
    ...(await given.fields()),
  };
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
  for (const event of await follow(response, work)) {
    history.unshift(received(event, body.prompt));
    route = event.diffusiongpt.route;
  }
  for (const old of history.splice(KEPT)) URL.revokeObjectURL(old.url);
  show();
}

function show() {
  at("route").hidden = !route;
  if (route) at("route").replaceChildren(...routeCard(route));
  at("history-title").hidden = !history.length;
  at("history").replaceChildren(...history.map(figure));
}
