// The conversation: turns that may speak of the pictures before them, which the server keeps for a while.

import { ask, Failure, follow, Work } from "./api.js";
import { MaskEditor } from "./mask.js";
import { asDataUrl, figure, received } from "./picture.js";
import { at, el, onLanguage, t } from "./words.js";

let name = null; // what the server calls the conversation
let own = null; // the address in this tab of a picture that goes in
const turns = []; // {text, given, turn, pictures}

export function setUpTalk() {
  const work = new Work([at("talk-go"), at("talk-undo"), at("talk-new")], at("talk-cancel"), at("talk-progress"));
  const mask = new MaskEditor(at("talk-mask"));
  at("talk-form").addEventListener("submit", (event) => {
    event.preventDefault();
    work.run((signal) => say(work, mask, signal));
  });
  at("say").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // Enter also ends a word of an input method
    event.preventDefault();
    at("talk-form").requestSubmit();
  });
  at("talk-pictures").addEventListener("change", () => markable(mask));
  at("talk-undo").addEventListener("click", () => work.run(() => undo(mask)));
  at("talk-new").addEventListener("click", () => work.run(() => startOver(mask)));
  onLanguage(show);
}

// The picture that the next turn is about: the one that goes in, or the last one that came.
function markable(mask) {
  const files = [...at("talk-pictures").files];
  if (own) URL.revokeObjectURL(own);
  own = files.length === 1 ? URL.createObjectURL(files[0]) : null;
  const last = turns.findLast((one) => one.pictures.length);
  mask.show(own ?? (files.length ? null : last?.pictures[0].url ?? null));
}

async function say(work, mask, signal) {
  const text = at("say").value;
  const given = await Promise.all([...at("talk-pictures").files].map(asDataUrl));
  const body = {
    prompt: text,
    ...(given.length ? { image: given } : {}),
    ...(mask.mask ? { mask_image: mask.mask } : {}),
    stream: true,
  };
  const options = { body, signal, raw: true };
  const response = await (name === null
    ? ask("POST", "/v1/conversations", options)
    : ask("POST", `/v1/conversations/${encodeURIComponent(name)}`, options));
  const events = await follow(response, work);
  const { conversation, turn } = events[0].diffusiongpt;
  const pictures = events.filter((event) => event.b64_json).map((event) => received(event, turn.description));
  name = conversation;
  turns.push({ text, given, turn, pictures });
  if (at("say").value === text) at("say").value = ""; // else the next thing is being typed already
  at("talk-pictures").value = "";
  markable(mask);
  show();
  at("turns").lastElementChild.scrollIntoView({ block: "nearest" });
  at("say").focus();
}

// Takes the last turn back, and has its text ready to be said otherwise.
async function undo(mask) {
  await ask("DELETE", `/v1/conversations/${encodeURIComponent(name)}/turns/last`);
  const { text, pictures } = turns.pop();
  for (const picture of pictures) URL.revokeObjectURL(picture.url);
  at("say").value = text;
  markable(mask);
  show();
  at("say").focus();
}

async function startOver(mask) {
  await ask("DELETE", `/v1/conversations/${encodeURIComponent(name)}`).catch((error) => {
    if (!(error instanceof Failure)) throw error; // one that the server has forgotten already is as good
  });
  for (const picture of turns.splice(0).flatMap((one) => one.pictures)) URL.revokeObjectURL(picture.url);
  name = null;
  markable(mask);
  show();
  at("say").focus();
}

function show() {
  at("talk-undo").hidden = !turns.length;
  at("talk-new").hidden = name === null;
  at("talk-how").hidden = Boolean(turns.length);
  at("turns").replaceChildren(...turns.map(shown));
}

function shown({ text, given, turn, pictures }) {
  const thumbs = given.map((url) => el("img", { class: "thumb", src: url, alt: t("picture_in") }));
  return el(
    "li", {},
    el("div", { class: "said" }, el("p", {}, text), ...thumbs),
    el("p", { class: "faint" }, reply(turn, pictures)),
    pictures.length ? el("div", { class: "pictures" }, ...pictures.map(figure)) : null,
  );
}

// What was done, in the language of the page; the answer to a question is the server's own.
function reply(turn, pictures) {
  if (turn.kind === "question") return turn.reply;
  const { task } = pictures[0].story.route;
  if (task === "inpaint") return t("turn_painted");
  if (turn.kind === "edit" && task === "text-to-image") return t("turn_redrawn");
  return t(`turn_${turn.kind}`);
}
