// A route in sentences: who draws and why, what it takes, and why not another. All figures are the server's.

import { bytes, el, nodeName, number, signed, t, word } from "./words.js";

function scored(route, expert) {
  return route.candidates.find((one) => one.expert === expert);
}

// The part of the score by which one is furthest ahead of another.
function mainPart(better, worse) {
  const names = [...new Set([...Object.keys(better.parts), ...Object.keys(worse.parts)])];
  const gap = (name) => (better.parts[name] ?? 0) - (worse.parts[name] ?? 0);
  const main = names.reduce((best, name) => (gap(name) > gap(best) ? name : best));
  const name = word("part", main);
  return name === main ? t("part_other", { name }) : name;
}

export function why(route) {
  const chosen = scored(route, route.expert);
  const others = route.candidates.filter((one) => one !== chosen);
  const facts = { expert: route.expert, count: route.candidates.length };
  let sentence = t("why_only", facts);
  if (Object.keys(route.propensities).length) {
    sentence = t("why_explored", { ...facts, share: `${number(100 * route.propensity, 1)} %` });
  } else if (chosen && others.length) {
    const other = others[0];
    const scores = { ...facts, other: other.expert, score: signed(chosen.score), other_score: signed(other.score) };
    sentence = chosen.score > other.score
      ? t("why_gap", { ...scores, part: mainPart(chosen, other) })
      : t("why_even", scores);
  }
  const path = route.path.filter((node) => node !== "root").map(nodeName).join(t("read_sep"));
  return path ? `${sentence} ${t("read_as", { path })}` : sentence;
}

export function whyNot(route, expert) {
  const rejected = route.rejected.find((one) => one.expert === expert);
  if (rejected) return t("not_rejected", rejected);
  const [best, one] = [scored(route, route.expert), scored(route, expert)];
  const facts = { expert, score: signed(one.score), best_score: signed(best.score), count: route.candidates.length };
  if (one.score >= best.score) return t("not_behind", facts);
  return t("not_lower", { ...facts, place: route.candidates.indexOf(one) + 1, part: mainPart(best, one) });
}

// The route as a part of the page, with a choice of experts to ask about.
export function routeCard(route) {
  const takes = [];
  if (route.placement) {
    const { device, seconds, download_bytes: pulled } = route.placement; // a number that is not known is null
    if (seconds !== null) takes.push(t("takes", { device, seconds: number(Math.max(seconds, 0.1), 1) }));
    if (pulled) takes.push(t("takes_download", { size: bytes(pulled) }));
  }
  const others = [...route.candidates, ...route.rejected].map((one) => one.expert).filter((id) => id !== route.expert);
  const answer = el("p", { role: "status" });
  const choice = el(
    "select",
    { "aria-label": t("why_not"), onchange: () => { answer.textContent = choice.value ? whyNot(route, choice.value) : ""; } },
    el("option", { value: "" }, t("choose_expert")),
    ...others.map((id) => el("option", { value: id }, id)),
  );
  return [
    el("strong", {}, t("why_title", { expert: route.expert })),
    el("p", {}, why(route)),
    takes.length ? el("p", { class: "faint" }, takes.join(" ")) : null,
    others.length ? el("div", { class: "fields" }, el("label", {}, `${t("why_not")} `, choice)) : null,
    others.length ? answer : null,
  ].filter((part) => part !== null);
}
