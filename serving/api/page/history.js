/* The texts that were tried in this browser tab, with their answers. */

import { element, inWords } from "./draw.js";
import { Kept } from "./preferences.js";

const MOST = 50; // entries; older ones are removed

/** The list of tried texts, newest first; an entry has `inputs`, `recipe`, `texts`, `result` and `release`. */
export class History {
  /** `open` is called with an entry that the user chooses. */
  constructor(section, open) {
    this.section = section;
    this.open = open;
    this.kept = new Kept("sessionStorage", "history", []);
    section.querySelector("button").addEventListener("click", () => this.keep([]));
    this.redraw();
  }

  /** Add an entry; it replaces the newest one if the user only continued that text. */
  add(entry) {
    const [newest, ...others] = this.kept.value;
    const same = newest?.release.release === entry.release.release;
    const continued = same && entry.texts.every((text, index) => text.startsWith(newest.texts[index]));
    this.keep([entry, ...(continued ? others : this.kept.value)].slice(0, MOST));
  }

  keep(entries) {
    this.kept.value = entries;
    this.redraw();
  }

  redraw() {
    this.section.hidden = !this.kept.value.length;
    this.section.querySelector("ul").replaceChildren(...this.kept.value.map((entry) => this.draw(entry)));
  }

  draw(entry) {
    const button = element("button", entry.texts.join(" / "), { type: "button", lang: "ko" });
    button.addEventListener("click", () => this.open(entry));
    const answer = element("span", inWords(entry.result, entry.release).join(", "));
    return element("li", [button, answer, element("code", entry.release.release)]);
  }
}
