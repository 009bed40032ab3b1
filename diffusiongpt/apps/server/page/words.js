// Words in both languages, and building parts of the page. Text goes in as text, never as markup.

let strings = {};
let language = "en";
const labels = new Map();
const listeners = [];

export async function loadWords() {
  strings = await (await fetch(new URL("strings.json", import.meta.url))).json();
}

export function speak(chosen) {
  language = chosen === "zh" ? "zh" : "en";
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of document.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
  for (const listener of listeners) listener();
}

// Called again when the language changes, for what was built from an answer.
export function onLanguage(listener) {
  listeners.push(listener);
}

export function t(key, values = {}) {
  return strings[key][language].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

// The word for a value of the API, or the value as it is where the page has none.
export function word(kind, value) {
  return `${kind}_${value}` in strings ? t(`${kind}_${value}`) : String(value);
}

export function nameNodes(nodes) {
  for (const node of nodes) labels.set(node.id, node.label);
}

export function nodeName(id) {
  const label = labels.get(id);
  return label?.[language] ?? label?.en ?? id.replaceAll("_", " ");
}

export function number(value, digits = 2) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

export function signed(value) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: 2, minimumFractionDigits: 2, signDisplay: "exceptZero" }).format(value);
}

export function bytes(count) {
  return count >= 1e9 ? `${number(count / 1e9, 1)} GB` : `${number(count / 1e6, 1)} MB`;
}

export const at = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick" || key === "onchange") node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

// columns: {head, cell, kind}; a cell is text or a node. The first column names its row.
export function table(name, columns, rows, kind = "wide") {
  const head = columns.map((column) => el("th", { scope: "col", class: column.kind ?? null }, column.head));
  const body = rows.map((row) =>
    el("tr", {}, ...columns.map((column, place) => {
      const attributes = { class: column.kind ?? null, "data-head": typeof column.head === "string" ? column.head : null };
      return place === 0 ? el("th", { scope: "row" }, column.cell(row)) : el("td", attributes, column.cell(row));
    })),
  );
  return el("table", { class: kind, "aria-label": name }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}
