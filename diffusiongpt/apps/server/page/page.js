// The page as a whole: its tabs, its language, and the key where one is needed.

import { ask, hasKey, keepKey } from "./api.js";
import { setUpCompare } from "./compare.js";
import { listModels, setUpDraw } from "./draw.js";
import { loadExperts, loadMachine, loadRanking, setUpTables } from "./tables.js";
import { setUpTalk } from "./talk.js";
import { at, loadWords, speak, t } from "./words.js";
import { complain, said } from "./work.js";

const LANGUAGE = "diffusiongpt.language";
const LOADS = { draw: null, talk: null, compare: null, experts: loadExperts, ranking: loadRanking, machine: loadMachine };
const tabs = [...document.querySelectorAll("[role=tab]")];

function select(name) {
  for (const tab of tabs) {
    const here = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    at(tab.getAttribute("aria-controls")).hidden = !here;
  }
}

async function open(name) {
  select(name);
  await attempt(LOADS[name]);
}

async function attempt(load) {
  complain("");
  try {
    await load?.();
  } catch (error) {
    complain(said(error));
  }
}

const named = () => (location.hash.slice(1) in LOADS ? location.hash.slice(1) : "draw");

function setUpTabs() {
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => {
      const name = tab.getAttribute("aria-controls");
      history.pushState(null, "", `#${name}`); // following a link to it would take the focus off the tab
      open(name);
    });
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = tabs.at(to % tabs.length);
      next.focus();
      next.click();
    });
  });
  addEventListener("hashchange", () => open(named()));
}

function setUpLanguage() {
  const wanted = localStorage.getItem(LANGUAGE) ?? navigator.language.slice(0, 2);
  at("language").value = wanted === "zh" ? "zh" : "en";
  at("language").addEventListener("change", () => {
    localStorage.setItem(LANGUAGE, at("language").value);
    speak(at("language").value);
  });
  speak(at("language").value);
}

function setUpKey() {
  document.addEventListener("key-needed", () => { at("key-form").hidden = false; });
  at("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    keepKey(at("key").value.trim());
    at("key").value = "";
    at("key-form").hidden = true;
    await start();
  });
}

// What every tab needs. Readiness is asked first: it is answered without a key, but then says less.
async function start() {
  await attempt(async () => {
    if (!("version" in (await ask("GET", "/readyz")))) {
      at("key-form").hidden = false;
      if (hasKey()) complain(t("key_wrong"));
      else at("key").focus();
      return;
    }
    await Promise.all([listModels(), loadRanking()]); // the ranking has the names of what prompts are about
    await open(named());
  });
}

await loadWords();
setUpDraw();
setUpTalk();
setUpCompare();
setUpTables();
setUpTabs();
setUpLanguage();
setUpKey();
select(named());
await start();
