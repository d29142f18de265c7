/* Choices that the browser keeps: for ever (language, theme), or until the tab is closed (history). */

/** A value that is kept in the browser. A browser that blocks storage keeps it until the page is closed. */
export class Kept {
  constructor(storage, name, value) {
    this.storage = storage;
    this.name = `saebyeok.${name}`;
    this.current = this.read() ?? value;
  }

  read() {
    try {
      return JSON.parse(window[this.storage].getItem(this.name));
    } catch {
      return null;
    }
  }

  get value() {
    return this.current;
  }

  set value(value) {
    this.current = value;
    try {
      window[this.storage].setItem(this.name, JSON.stringify(value));
    } catch {
      // The browser blocks storage, or it is full.
    }
  }
}

/** Return the kept choice between `options`; `fallback` is the choice of a first visit. */
export function remembered(name, options, fallback) {
  const kept = new Kept("localStorage", name, fallback);
  if (!options.includes(kept.value)) kept.current = fallback;
  return kept;
}

const theme = remembered("theme", ["automatic", "light", "dark"], "automatic");

/** Let `select` choose between the options of `kept`, now and when the page is opened again. */
export function offer(select, kept, apply) {
  select.value = kept.value;
  select.addEventListener("change", () => {
    kept.value = select.value;
    apply();
  });
}

const showTheme = () => (document.documentElement.dataset.theme = theme.value);
showTheme();
offer(document.querySelector("#theme"), theme, showTheme);
