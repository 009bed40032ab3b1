// Pictures that come from the server, with their story.

import { el, number, t } from "./words.js";

const SMALL = 256; // pixels below which a picture is enlarged without smoothing

// What the last event of a stream carries, with an address in this tab; whoever keeps it revokes that.
export function received(event, prompt) {
  const type = `image/${event.output_format}`;
  const data = Uint8Array.from(atob(event.b64_json), (letter) => letter.charCodeAt(0));
  const story = event.diffusiongpt;
  const file = `${story.drawn_by.replace(/[^\w.-]+/g, "_")}-${story.seed}.${event.output_format}`;
  return { url: URL.createObjectURL(new Blob([data], { type })), file, prompt, story };
}

export function sharp(event) {
  event.target.classList.toggle("small", event.target.naturalWidth < SMALL);
}

export function figure({ url, file, prompt, story }) {
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
