// The blind comparison: two pictures, a vote by pointer or key, and only then who drew them.

import { ask } from "./api.js";
import { sharp } from "./picture.js";
import { why } from "./route.js";
import { at, el, onLanguage, t } from "./words.js";
import { complain, said, Work } from "./work.js";

const LOOK_MS = 400;
const KEYS = { 1: "A", 2: "B", 0: "tie", "-": "both_bad" };
const DAY_MS = 86_400_000; // the server takes no longer time to decide

let shown = null; // the comparison, with `vote` once it is cast
let sending = false;
const looked = { ms: 0, since: null }; // how long the pictures were in sight

export function setUpCompare() {
  const work = new Work([at("compare-go")], at("compare-cancel"), at("compare-progress"));
  at("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    work.run((signal) => compare(work, signal));
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || at("compare").hidden) return;
    if (event.key in KEYS) vote(KEYS[event.key]);
  });
  document.addEventListener("visibilitychange", () => count(!document.hidden && shown));
  onLanguage(show);
}

// Time in another tab or with the screen off is no time to decide.
function count(on) {
  if (looked.since !== null) looked.ms += performance.now() - looked.since;
  looked.since = on ? performance.now() : null;
}

async function compare(work, signal) {
  shown = null;
  show();
  const looking = setInterval(() => look(work, signal), LOOK_MS);
  try {
    const body = { prompt: at("compare-prompt").value, k: 2 };
    shown = { ...(await ask("POST", "/v1/compare", { body, signal })), vote: null, undone: false };
  } finally {
    clearInterval(looking);
  }
  show();
  Object.assign(looked, { ms: 0, since: null });
  count(!document.hidden);
  // out of the prompt, so that keys count without a click first; on the group, so that Enter favours neither
  at("choices").focus();
}

// A comparison has no stream of its own: the queue knows how far it is.
async function look(work, signal) {
  const { mine } = await ask("GET", "/v1/queue", { signal }).catch(() => ({ mine: [] }));
  const job = mine.findLast((one) => one.kind === "compare");
  if (job && !signal.aborted) work.show(job.phase, job.done, job.total);
}

async function vote(choice) {
  if (!shown || shown.vote || sending) return;
  sending = true;
  complain("");
  count(true);
  const seconds = looked.ms <= DAY_MS ? { seconds: looked.ms / 1000 } : {};
  try {
    shown.vote = await ask("POST", "/v1/votes", { body: { ballot: shown.ballot, choice, ...seconds } });
  } catch (error) {
    complain(said(error));
  } finally {
    sending = false;
  }
  show();
}

async function undo() {
  complain("");
  try {
    await ask("DELETE", "/v1/votes");
    shown.undone = true;
  } catch (error) {
    complain(said(error));
  }
  show();
}

function show() {
  at("ballot").hidden = !shown;
  if (!shown) return;
  at("blind").replaceChildren(...shown.data.map(picture));
  const label = (choice) => (choice.length === 1 ? t("choose", { letter: choice }) : t(choice));
  at("choices").hidden = Boolean(shown.vote);
  at("choices").replaceChildren(
    ...["1", "2", "0", "-"].map((key) =>
      el("button", { type: "button", "aria-keyshortcuts": key, onclick: () => vote(KEYS[key]) }, label(KEYS[key]), el("kbd", { "aria-hidden": "true" }, key)),
    ),
  );
  at("verdict").hidden = !shown.vote;
  if (shown.vote) at("verdict").replaceChildren(...verdict(shown.vote));
}

function picture({ letter, b64_json }) {
  const image = el("img", {
    src: `data:image/${shown.output_format};base64,${b64_json}`,
    alt: t("blind_picture", { letter, prompt: shown.prompt }),
  });
  image.addEventListener("load", sharp);
  const by = shown.vote ? el("p", {}, shown.vote.pictures[letter].drawn_by) : null;
  return el("figure", {}, image, el("figcaption", {}, el("strong", {}, letter), by));
}

function verdict({ outcome, winner, queued, pictures, route }) {
  return [
    el("strong", {}, t(`voted_${outcome}`, { expert: winner })),
    queued ? el("p", { role: "status" }, t("vote_waits")) : null,
    el("p", {}, `${t("would_route")} ${why(route)}`),
    el("p", { class: "faint" }, t("seed_was", { seed: pictures.A.seeds[0] })),
    shown.undone
      ? el("p", { role: "status" }, t("undone"))
      : el("button", { type: "button", onclick: undo }, t("undo")),
  ].filter((part) => part !== null);
}
