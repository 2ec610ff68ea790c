// Tabs, where dropped and pasted pictures go, and when the server is asked.

import { Zone } from "./zone.js";
import { ask, element, failure, results, summary, verdict } from "./answers.js";

const panels = [...document.querySelectorAll("[role=tabpanel]")];
const tabs = [...document.querySelectorAll("[role=tab]")];

// ---- a panel asks when all of its pictures are there

class Panel {
  constructor(section, path, draw) {
    this.section = section;
    this.answer = section.querySelector(".answer");
    this.zones = [...section.querySelectorAll(".zone")].map((zone) => new Zone(zone, () => this.ask()));
    this.path = path;
    this.draw = draw;
    this.hint = this.answer?.firstElementChild;
    this.running = null;
  }

  async ask() {
    this.running?.abort();
    this.running = null;
    this.draw(null);
    if (!this.zones.every((zone) => zone.file)) {
      this.show(this.hint);
      return;
    }
    const mine = (this.running = new AbortController());
    this.show(element("p", "waiting", "Looking…"), true);
    try {
      const said = await ask(this.path(), this.zones, mine.signal);
      this.zones.forEach((zone) => zone.say(""));
      this.show(this.draw(said));
    } catch (problem) {
      if (mine.signal.aborted) return;
      const zone = this.zones.find((one) => one.field === problem.field);
      zone?.say(problem.message);
      this.show(zone ? this.hint : failure(problem, () => this.ask()));
    }
  }

  show(content, busy = false) {
    this.answer.classList.toggle("busy", busy);
    this.answer.setAttribute("aria-busy", String(busy));
    this.answer.replaceChildren(content);
  }

  // One picture to the zone, or the first empty one, or the last; several to the zones in their order.
  place(files, zone) {
    if (files.length > 1 && this.zones.length > 1) {
      this.zones.forEach((one, i) => one.take(files[i]));
    } else {
      (zone ?? this.zones.find((one) => !one.file) ?? this.zones.at(-1))?.take(files[0]);
    }
  }
}

const [compareSection, searchSection] = panels;
const compare = new Panel(compareSection, () => "/api/compare", (said) => said && verdict(said));
const list = searchSection.querySelector(".results");
const topK = document.querySelector("#top-k");
const search = new Panel(
  searchSection,
  () => `/api/search?top_k=${encodeURIComponent(topK.value)}`,
  (said) => {
    list.replaceChildren(...(said ? results(said) : []));
    list.hidden = !said?.results.length;
    return said && summary(said);
  },
);
topK?.addEventListener("change", () => search.ask());

const panelOf = (section) => (section === compareSection ? compare : search);
const active = () => panelOf(panels.find((section) => !section.hidden));
const zoneOf = (target) => active().zones.find((zone) => zone.element.contains(target));

// ---- drop and paste, anywhere on the page

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

function lightUp(zone) {
  for (const panel of [compare, search]) {
    for (const one of panel.zones) one.element.classList.toggle("over", one === zone);
  }
}

document.addEventListener("dragover", (event) => {
  event.preventDefault(); // else the browser leaves the page for the file
  if (carriesFiles(event)) lightUp(zoneOf(event.target));
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) lightUp(null);
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  lightUp(null);
  const zone = zoneOf(event.target);
  const folder = [...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
  if (folder || !event.dataTransfer.files.length) {
    (zone ?? active().zones[0])?.say(folder ? "That is a folder; drop a picture." : "That is no file; drop a picture.");
  } else {
    active().place([...event.dataTransfer.files], zone);
  }
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  active().place(files, zoneOf(document.activeElement));
});

// ---- tabs

function choose(tab, focus = false) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    document.getElementById(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  if (focus) tab.focus();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: i + 1, ArrowLeft: i - 1 + tabs.length, Home: 0, End: tabs.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    choose(tabs[steps[event.key] % tabs.length], true);
  });
});
const asked = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
if (asked) choose(asked);
