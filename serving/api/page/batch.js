/* The card for many texts: pasted lines or a file, the columns to send, a table of answers, and its download. */

import { element, inWords } from "./draw.js";
import { answerAll, Refusal } from "./service.js";
import { decode, readFile, readPasted, TableError, textColumns, toCsv, width } from "./table.js";
import { count, say } from "./texts.js";

const SHOWN = 100; // rows in the table on the page
const READ = 200; // characters of a text in the table
const MOST = 64; // megabytes of a file
const NAMED = /\.(csv|tsv|tab)$/i; // files whose first row has the names of the columns

export class Batch {
  /** `events` has the functions `locked` (a key is required) and `lost` (no response). */
  constructor(section, events) {
    const find = (selector) => section.querySelector(selector);
    this.section = section;
    this.events = events;
    this.recipes = {};
    this.pasted = find("textarea");
    this.file = find("input[type=file]");
    this.recipe = find(".recipe select");
    this.columns = [...section.querySelectorAll(".column select")];
    this.header = find("input[type=checkbox]");
    this.status = find("[role=status]");
    this.progress = find("progress");
    this.start = find(".start");
    this.stop = find(".stop");
    this.download = find(".download");
    this.answers = find("table");
    this.more = find(".more");
    this.listen();
    this.load([]);
  }

  listen() {
    this.pasted.addEventListener("input", () => this.paste());
    this.file.addEventListener("change", () => this.open(this.file.files));
    // Anywhere on the page: the browser would replace the page by a file that is dropped outside the card.
    document.addEventListener("dragover", (event) => holdsFile(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      this.open(event.dataTransfer.files);
    });
    for (const field of [this.recipe, this.header]) field.addEventListener("change", () => this.guess());
    for (const column of this.columns) column.addEventListener("change", () => this.reset());
    this.start.addEventListener("click", () => this.run());
    this.stop.addEventListener("click", () => this.running.abort());
    this.download.addEventListener("click", () => this.save());
  }

  /** Update the deployed releases. A recipe with answers stays while it is not deployed, because they belong to it. */
  update(deployed) {
    const before = this.release?.inputs;
    const chosen = this.recipe.value;
    const recipes = this.running || this.outcomes.size ? { [chosen]: this.release, ...deployed } : deployed;
    this.recipes = recipes;
    this.section.hidden = !Object.keys(recipes).length;
    this.recipe.replaceChildren(...Object.keys(recipes).map((name) => element("option", name)));
    if (chosen in recipes) this.recipe.value = chosen;
    if (this.recipe.value !== chosen || this.release?.inputs !== before) this.guess();
  }

  get release() {
    return this.recipes[this.recipe.value];
  }

  /** Number of texts that the recipe reads at a time. */
  get needed() {
    return this.release?.inputs === "pair" ? 2 : 1;
  }

  /** Return the names of the columns. */
  nameColumns() {
    const names = this.header.checked && this.table.length ? this.table[0] : [];
    return Array.from({ length: this.width }, (_, index) => names[index] || say("columnNumber", { number: index + 1 }));
  }

  paste() {
    this.file.value = "";
    this.load(readPasted(this.pasted.value));
  }

  async open([file]) {
    if (!file) return;
    this.pasted.value = "";
    try {
      if (file.size > MOST * 1e6) throw new TableError("tooLarge", { name: file.name, most: MOST });
      const text = decode(new Uint8Array(await file.arrayBuffer()), file.name);
      this.load(readFile(text, file.name), file.name);
    } catch (error) {
      if (!(error instanceof TableError)) throw error;
      this.load([]);
      this.tell(() => say(error.reason, error.values), true);
    }
  }

  load(table, name = "") {
    this.table = table;
    this.width = width(table);
    this.name = name;
    this.header.checked = NAMED.test(name);
    this.guess();
  }

  /** Take the rows below the names of the columns, and select the columns with the most Korean. */
  guess() {
    this.rows = this.header.checked ? this.table.slice(1) : this.table;
    this.names = this.nameColumns();
    const found = textColumns(this.rows, this.needed);
    this.columns.forEach((column, index) => {
      column.replaceChildren(...this.names.map((name, value) => element("option", name, { value })));
      if (index < found.length) column.value = found[index];
    });
    this.reset();
  }

  /** Forget all answers, because they belong to other texts. */
  reset() {
    this.running?.abort();
    this.running = null;
    this.outcomes = new Map();
    this.errors = 0;
    const lacking = this.table.length > 0 && this.names.length < this.needed;
    if (lacking) this.tell(() => say("twoColumns"), true);
    else this.tell(() => this.about());
    this.ready = this.rows.length > 0 && !lacking;
    this.draw();
  }

  about() {
    const rows = count(this.rows.length);
    if (!this.table.length) return "";
    return this.name ? say("rowsOf", { name: this.name, count: rows }) : say("rows", { count: rows });
  }

  textsOf(row) {
    return this.columns.slice(0, this.needed).map((column) => row[column.value] ?? "");
  }

  /** Send the rows that have no answer yet. */
  async run() {
    const running = new AbortController();
    this.running = running;
    this.drawControls();
    const { route, inputs } = this.release;
    const target = { route, inputs, recipe: this.recipe.value };
    try {
      for await (const outcomes of answerAll(target, this.pending(), running.signal, (...wait) => this.wait(...wait))) {
        if (running.signal.aborted) break;
        this.keep(outcomes);
      }
    } catch (error) {
      if (!running.signal.aborted) this.fail(error);
    }
    if (this.running !== running) return;
    this.running = null;
    this.drawControls();
  }

  /** Return the rows without an outcome; those without a text get their error. */
  pending() {
    const items = this.rows.map((row, index) => ({ row: index + 1, texts: this.textsOf(row) }));
    const left = items.filter(({ row }) => !this.outcomes.has(row));
    const blank = ({ texts }) => texts.some((text) => !text.trim());
    this.keep(left.filter(blank).map(({ row }) => [row, { error: say("emptyText") }]));
    return left.filter((item) => !blank(item));
  }

  keep(outcomes) {
    for (const [row, outcome] of outcomes) {
      this.outcomes.set(row, outcome);
      if (outcome.error) this.errors += 1;
    }
    this.tell(() => this.done());
    this.drawControls();
    if (outcomes.some(([row]) => row <= SHOWN)) this.drawRows();
  }

  done() {
    const [done, rows, errors] = [this.outcomes.size, this.rows.length, this.errors].map(count);
    return say("progress", { done, count: rows, errors });
  }

  wait(error, seconds) {
    this.tell(() => say("busy", { message: messageOf(error), seconds }));
  }

  fail({ from, to, cause }) {
    if (cause.status === 401) this.events.locked();
    else if (!(cause instanceof Refusal)) this.events.lost();
    this.tell(() => say("batchFailed", { from: count(from), to: count(to), message: messageOf(cause) }), true);
  }

  /** Show the sentence of `text`, now and in another language. */
  tell(text, bad = false) {
    this.text = text;
    this.status.textContent = text();
    this.status.className = bad ? "problem" : "quiet";
  }

  /** Draw everything in the language in use. */
  redraw() {
    this.status.textContent = this.text();
    this.names = this.nameColumns();
    for (const option of this.columns.flatMap((column) => [...column.options])) option.textContent = this.names[option.value];
    this.draw();
  }

  draw() {
    this.drawControls();
    this.drawRows();
  }

  drawControls() {
    const done = this.outcomes.size;
    this.header.parentElement.hidden = !this.table.length;
    this.columns.forEach((column, index) => {
      column.parentElement.hidden = index >= this.needed || this.names.length <= this.needed;
    });
    this.start.hidden = Boolean(this.running) || (this.ready && done === this.rows.length);
    this.start.disabled = !this.ready;
    this.start.textContent = say(done ? "resume" : "start");
    this.stop.hidden = !this.running;
    this.download.hidden = !done;
    this.progress.hidden = !done && !this.running;
    this.progress.max = Math.max(1, this.rows.length);
    this.progress.value = done;
  }

  drawRows() {
    const names = this.columns.slice(0, this.needed).map((column) => this.names[column.value] ?? "");
    const head = [say("row"), ...names, say("answer")].map((name) => element("th", name, { scope: "col" }));
    const rows = this.rows.slice(0, SHOWN).map((row, index) => this.drawRow(row, index + 1));
    this.answers.replaceChildren(element("thead", element("tr", head)), element("tbody", rows));
    this.answers.parentElement.hidden = !this.ready;
    this.more.textContent = say("shownRows", { count: SHOWN });
    this.more.hidden = this.rows.length <= SHOWN;
  }

  drawRow(row, number) {
    const texts = this.textsOf(row).map((text) => element("td", shorten(text), { lang: "ko" }));
    return element("tr", [element("td", String(number)), ...texts, this.drawOutcome(this.outcomes.get(number))]);
  }

  drawOutcome({ result, error } = {}) {
    if (error) return element("td", error, { class: "error" });
    if (!result) return element("td");
    const [first, ...rest] = inWords(result, this.release);
    const notes = [...rest, ...(result.truncated ? [say("cutOff")] : [])];
    return element("td", [element("strong", first), ` ${notes.join(", ")}`]);
  }

  /** Download the table with columns for the answers, whose names begin with the recipe's. */
  save() {
    const fields = [...this.outcomes.values()].map(fieldsOf);
    const added = [...new Set(fields.flatMap(Object.keys))];
    const names = added.map((name) => `${this.recipe.value}_${name}`);
    const rows = this.rows.map((row, index) => {
      const found = fieldsOf(this.outcomes.get(index + 1));
      return [...this.names.map((_, column) => row[column]), ...added.map((name) => found[name])];
    });
    const url = URL.createObjectURL(new Blob([toCsv([[...this.names, ...names], ...rows])], { type: "text/csv" }));
    const name = `${this.name.replace(/\.\w+$/, "") || "saebyeok"}-${this.recipe.value}.csv`;
    element("a", [], { href: url, download: name }).click();
    // The browser has begun to read it by then.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

/** Return the fields of an outcome in the service's own names, for a table. */
function fieldsOf({ result, release, error } = {}) {
  if (error) return { error };
  const { probabilities = {}, ...fields } = result ?? {};
  const shares = Object.entries(probabilities).map(([label, share]) => [`probability_${label}`, share]);
  return result ? { ...fields, ...Object.fromEntries(shares), release } : {};
}

const shorten = (text) => (text.length > READ ? `${text.slice(0, READ)} …` : text);
const holdsFile = (event) => event.dataTransfer.types.includes("Files");
const messageOf = (error) => (error instanceof Refusal ? error.message : say("noAnswer"));
