// The conversation: turns that may speak of the pictures before them, which the server keeps for a while.

import { ask, Failure, follow } from "./api.js";
import { Given } from "./given.js";
import { figure, received } from "./picture.js";
import { at, el, onLanguage, t } from "./words.js";
import { Work } from "./work.js";

let name = null; // what the server calls the conversation
let given = null; // the pictures that go in with the next turn
const turns = []; // {text, image, turn, pictures, notices}

export function setUpTalk() {
  const work = new Work([at("talk-go"), at("talk-undo"), at("talk-new")], at("talk-cancel"), at("talk-progress"));
  given = new Given(at("talk-pictures"), at("talk-mask"), () => lastOf(turns)?.pictures[0].url ?? null);
  at("talk-form").addEventListener("submit", (event) => {
    event.preventDefault();
    work.run((signal) => say(work, signal));
  });
  at("say").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // Enter also ends a word of an input method
    event.preventDefault();
    at("talk-form").requestSubmit();
  });
  at("talk-undo").addEventListener("click", () => work.run(undo));
  at("talk-new").addEventListener("click", () => work.run(startOver));
  onLanguage(show);
}

// The last turn with pictures: the first of them is what a mask is made over while none goes in.
function lastOf(some) {
  return some.findLast((one) => one.pictures.length);
}

async function say(work, signal) {
  const text = at("say").value;
  const body = { prompt: text, ...(await given.fields()), stream: true };
  const options = { body, signal, raw: true };
  const response = await (name === null
    ? ask("POST", "/v1/conversations", options)
    : ask("POST", `/v1/conversations/${encodeURIComponent(name)}`, options));
  const events = await follow(response, work);
  const { conversation, turn, notices } = events[0].diffusiongpt;
  const pictures = events.filter((event) => event.b64_json).map((event) => received(event, turn.description));
  name = conversation;
  turns.push({ text, image: body.image ?? [], turn, pictures, notices });
  if (at("say").value === text) at("say").value = ""; // else the next thing is being typed already
  given.clear();
  show();
  at("turns").lastElementChild.scrollIntoView({ block: "nearest" });
  at("say").focus();
}

// Takes the last turn back, and has its text ready to be said otherwise.
async function undo() {
  await ask("DELETE", `/v1/conversations/${encodeURIComponent(name)}/turns/last`);
  const { text, pictures } = turns.pop();
  for (const picture of pictures) URL.revokeObjectURL(picture.url);
  at("say").value = text;
  given.show();
  show();
  at("say").focus();
}

async function startOver() {
  await ask("DELETE", `/v1/conversations/${encodeURIComponent(name)}`).catch((error) => {
    if (!(error instanceof Failure)) throw error; // one that the server has forgotten already is as good
  });
  for (const picture of turns.splice(0).flatMap((one) => one.pictures)) URL.revokeObjectURL(picture.url);
  name = null;
  given.show();
  show();
  at("say").focus();
}

function show() {
  at("talk-undo").hidden = !turns.length;
  at("talk-new").hidden = name === null;
  at("talk-how").hidden = Boolean(turns.length);
  at("turns").replaceChildren(...turns.map(shown));
}

function shown({ text, image, turn, pictures, notices }, place) {
  const thumbs = image.map((url) => el("img", { class: "thumb", src: url, alt: t("picture_in") }));
  return el(
    "li", {},
    el("div", { class: "said" }, el("p", {}, text), ...thumbs),
    el("p", { class: "faint" }, reply(turn, pictures, turns.slice(0, place))),
    ...(pictures.length
      ? [el("div", { class: "pictures" }, ...pictures.map(figure))]
      : notices.map((notice) => el("p", { class: "faint" }, notice))),
  );
}

// What was done, in the language of the page; the answer to a question is the server's own.
function reply(turn, pictures, before) {
  if (turn.kind === "question") return turn.reply;
  const { task } = pictures[0].story.route;
  if (task === "inpaint") {
    // the words may name another picture than the one that the mask was made over
    const { refers_to: named, picture } = turn;
    if (named === null || (named === lastOf(before).turn.index && picture === 0)) return t("turn_painted");
    return t("turn_painted_named", { turn: named + 1, picture: picture + 1 });
  }
  if (turn.kind === "edit" && task === "text-to-image") return t("turn_redrawn");
  return t(`turn_${turn.kind}`);
}
