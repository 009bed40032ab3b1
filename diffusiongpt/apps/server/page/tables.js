// The tabs that show what the server knows: the experts, how people like them, and the machine.

import { ask } from "./api.js";
import { at, bytes, drawn, el, nameNodes, nodeName, number, onLanguage, signed, t, table, word } from "./words.js";
import { complain, said } from "./work.js";

const LOOK_MS = 3000;
const Z95 = 1.96; // standard deviations of a 95 % interval

let experts = [];
let ranking = null;
let machine = null;

export function setUpTables() {
  at("experts-find").addEventListener("input", showExperts);
  at("experts-here").addEventListener("change", showExperts);
  at("node").addEventListener("change", () => loadRanking().catch((error) => complain(said(error))));
  setInterval(() => {
    // a server that stops answering is said where somebody asks it for something
    if (!at("machine").hidden && !document.hidden) loadMachine().catch(() => {});
  }, LOOK_MS);
  onLanguage(() => {
    showExperts();
    showRanking();
    showMachine();
  });
}

export async function loadExperts() {
  experts = (await ask("GET", "/v1/experts")).data;
  showExperts();
}

export async function loadRanking() {
  const node = at("node").value;
  ranking = await (node ? ask("GET", `/v1/ranking?node=${encodeURIComponent(node)}`) : ask("GET", "/v1/ranking"));
  nameNodes(ranking.nodes);
  showRanking();
}

export async function loadMachine() {
  const [state, queue, fleet] = await Promise.all([ask("GET", "/readyz"), ask("GET", "/v1/queue"), ask("GET", "/v1/fleet")]);
  machine = { state, queue, replicas: fleet.replicas };
  showMachine();
}

function showExperts() {
  const sought = at("experts-find").value.trim().toLowerCase();
  const about = (one) => [one.id, one.description, one.license.id, ...one.tags.styles, ...one.tags.subjects].join(" ").toLowerCase();
  const rows = experts.filter((one) => (!at("experts-here").checked || one.at_hand) && about(one).includes(sought));
  at("experts-count").textContent = t("experts_count", { shown: rows.length, count: experts.length });
  at("experts-table").replaceChildren(
    table(t("tab_experts"), [
      { head: t("expert"), cell: (one) => one.id },
      { head: t("draws"), cell: (one) => one.description || one.tags.styles.map(nodeName).join(t("read_sep")) },
      { head: t("licence"), cell: (one) => one.license.id },
      { head: t("commercial"), cell: (one) => word("commercial", one.license.commercial) },
      { head: t("weight"), kind: "number", cell: weight },
      { head: t("at_hand"), cell: (one) => t(one.at_hand ? "yes" : "no") },
    ], rows),
  );
}

function weight(one) {
  if (one.price) return t("a_service");
  return one.size_gb === undefined ? "?" : bytes(one.size_gb * 1e9);
}

function showRanking() {
  if (!ranking) return;
  const chosen = at("node").value;
  const group = (kind) =>
    el("optgroup", { label: t(`kind_${kind}`) }, ...ranking.nodes.filter((node) => node.kind === kind).map((node) => el("option", { value: node.id }, nodeName(node.id))));
  at("node").replaceChildren(el("option", { value: "" }, t("all_prompts")), ...["subject", "style", "need"].map(group));
  at("node").value = chosen;
  const rows = ranking.rows.map((row) => ({ ...row, low: row.mean - Z95 * row.std, high: row.mean + Z95 * row.std }));
  const least = Math.min(0, ...rows.map((row) => row.low));
  const most = Math.max(0, ...rows.map((row) => row.high));
  const place = (value) => `${(100 * (value - least)) / (most - least || 1)}%`;
  const axis = [[least, "start"], [most, "end"]].map(([value, anchor]) =>
    drawn("text", { x: place(value), y: 15, "text-anchor": anchor }, signed(value)),
  );
  at("ranking-table").replaceChildren(
    table(t("tab_ranking"), [
      { head: t("expert"), cell: (row) => row.expert },
      { head: drawn("svg", { role: "img", "aria-label": t("liked") }, ...axis), kind: "plot", cell: (row) => interval(row, place) },
      { head: t("votes"), kind: "number", cell: (row) => number(row.votes, 0) },
      { head: t("wins"), kind: "number", cell: (row) => number(row.wins, 1) },
    ], rows, "plotted"),
  );
}

function interval(row, place) {
  const values = { mean: signed(row.mean), low: signed(row.low), high: signed(row.high) };
  const name = t("interval", values);
  return drawn(
    "svg", { role: "img", "aria-label": name },
    drawn("title", {}, name),
    drawn("line", { class: "zero", x1: place(0), x2: place(0), y1: 0, y2: 22 }),
    drawn("line", { class: "span", x1: place(row.low), x2: place(row.high), y1: 11, y2: 11 }),
    drawn("circle", { class: "dot", cx: place(row.mean), cy: 11, r: 6 }),
  );
}

function showMachine() {
  if (!machine) return;
  const { state, queue, replicas } = machine;
  const facts = [
    [t("version"), state.version],
    [t("device"), state.device],
    [t("known"), t("known_count", { count: state.experts, here: state.at_hand.length })],
    [t("queue"), t("queue_state", queue)],
    ...(state.votes_queued ? [[t("votes_waiting"), number(state.votes_queued, 0)]] : []),
  ];
  at("machine-state").replaceChildren(
    el("dl", { class: "card" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    ...(replicas.length ? [el("h2", {}, t("replicas")), fleet(replicas)] : here(state.loaded)),
    el("h2", {}, t("mine")),
    ...(queue.mine.length ? queue.mine.map(mine) : [el("p", { class: "faint" }, t("mine_none"))]),
  );
}

function here(parts) {
  return [el("h2", {}, t("loaded")), parts.length ? loaded(parts) : el("p", { class: "faint" }, t("loaded_none"))];
}

function fleet(replicas) {
  return table(t("replicas"), [
    { head: t("replica"), cell: (one) => [one.kind, one.name].filter(Boolean).join(" ") },
    { head: t("device"), cell: (one) => one.device },
    { head: t("process"), cell: (one) => t("process_on", { pid: one.pid, node: one.node }) },
    { head: t("requests"), kind: "number", cell: (one) => number(one.requests, 0) },
    { head: t("queue_seconds"), kind: "number", cell: (one) => number(one.queue_s, 1) },
    { head: t("loaded"), cell: (one) => one.loaded.join(t("read_sep")) },
  ], replicas);
}

function loaded(parts) {
  return table(t("loaded"), [
    { head: t("part_of_model"), cell: (one) => one.what },
    { head: t("where"), cell: (one) => one.tier },
    { head: t("weight"), kind: "number", cell: (one) => bytes(one.bytes) },
    { head: t("for_whom"), cell: (one) => one.experts.join(t("read_sep")) },
    { head: t("why"), cell: (one) => t(one.in_use ? "in_use" : "kept") },
  ], parts);
}

function mine(job) {
  const line = t("mine_line", { state: word("phase", job.phase), seconds: number(job.seconds, 0) });
  const cancel = () => ask("DELETE", `/v1/queue/${encodeURIComponent(job.id)}`).then(loadMachine).catch((error) => complain(said(error)));
  return el("p", { class: "row" }, line, el("button", { type: "button", onclick: cancel }, t("cancel")));
}
