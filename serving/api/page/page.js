/* The page at `/`: asks the service it came from, as a person types. */

import { curlCall, describeRelease, day, drawClasses, drawScore, element, problem, pythonCall, warning } from "./draw.js";

const TYPING = 250; // milliseconds of rest before a text is sent
const SETTLED = 900; // milliseconds of rest before an answer is read out
const LOOK = { live: 15_000, waiting: 3_000 }; // milliseconds between two looks at what is deployed
const PATIENCE = 30_000; // milliseconds for an answer
const REST = 1_000; // milliseconds before what had no answer is asked again, with the service back
const BUSY = new Set([429, 503]);
const SAMPLE =
  "Trained on the small made-up sample that Saebyeok ships: the answer shows that the road works, and says nothing about real texts.";

const find = (selector, within = document) => within.querySelector(selector);

/** What the service refused or could not do; `wait` is in seconds where it says when to ask again. */
class Refusal extends Error {
  constructor(status, message, wait) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

let key = "";
let locked = false; // whether the service wants a key, or another one

/** The service's answer. Throws Refusal where it answers with an error, TypeError or TimeoutError where not at all. */
async function send(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers, cache: "no-store" };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  if (body) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(PATIENCE);
  const response = await fetch(path, { ...options, signal: signal ? AbortSignal.any([signal, limit]) : limit });
  const document = await response.json().catch((error) => {
    if (error instanceof SyntaxError) return {};
    throw error;
  });
  if (response.ok) return document;
  const wait = Math.min(Number(response.headers.get("Retry-After")) || 2, PATIENCE / 1000);
  throw new Refusal(response.status, document.error?.message ?? `status ${response.status}`, wait);
}

/** What a panel is called where it asks a release of that kind, by what is read, and how the answer is drawn. */
const WAYS = {
  text: {
    classification: { heading: "Classify a text", draw: drawClasses },
    regression: { heading: "Score a text", draw: drawScore },
  },
  pair: {
    classification: { heading: "Classify two sentences", draw: drawClasses },
    regression: { heading: "Compare two sentences", draw: drawScore },
  },
};

/** A place to ask releases that read alike: its fields, its answer, and how to ask the same from a program. */
class Panel {
  constructor(id, inputs, read) {
    this.section = find(`#${id}`);
    this.inputs = inputs;
    this.read = read;
    this.recipes = {};
    this.fields = [...this.section.querySelectorAll("textarea, input")];
    this.choice = find("select", this.section);
    this.answer = find(".answer", this.section);
    this.spoken = find("[role=status]", this.section);
    for (const field of this.fields) field.addEventListener("input", () => this.ask(TYPING));
    this.choice.addEventListener("change", () => this.ask(0));
    for (const example of this.section.querySelectorAll(".examples button")) {
      example.addEventListener("click", () => this.fill([example.textContent, example.dataset.second]));
    }
    this.blank();
  }

  fill(texts) {
    this.fields.forEach((field, index) => (field.value = texts[index]));
    this.ask(0);
  }

  /** Take over what is deployed; asks again where another release answers now. */
  update(recipes) {
    const mine = Object.entries(recipes).filter(([, item]) => item.inputs === this.inputs);
    const before = this.release?.release;
    this.recipes = Object.fromEntries(mine);
    const names = Object.keys(this.recipes);
    const chosen = names.includes(this.choice.value) ? this.choice.value : names[0];
    this.choice.replaceChildren(...names.map((name) => element("option", name)));
    this.choice.value = chosen ?? "";
    this.choice.parentElement.hidden = names.length < 2;
    this.section.hidden = !names.length;
    if (!names.length) this.stop();
    else if (this.release.release !== before) this.ask(0);
    else this.explain();
  }

  get release() {
    return this.recipes[this.choice.value];
  }

  get way() {
    return { path: `.${this.release.route}`, ...WAYS[this.inputs][this.release.kind] };
  }

  /** The request's body, or null where a field is empty. */
  get body() {
    const texts = this.fields.map((field) => field.value);
    if (texts.some((text) => !text.trim())) return null;
    const several = Object.keys(this.recipes).length > 1;
    return { ...this.read(texts), ...(several ? { recipe: this.choice.value } : {}) };
  }

  stop() {
    this.asking?.abort();
    this.asking = null;
    clearTimeout(this.timer);
    clearTimeout(this.saying);
  }

  /** Ask for what the fields hold in `delay` milliseconds; whatever was asked before is of no interest any more. */
  ask(delay) {
    this.stop();
    find("h2", this.section).textContent = this.way.heading;
    find(".title", this.section).textContent = this.release.title;
    this.explain();
    if (!this.body) this.blank();
    else this.timer = setTimeout(() => this.request(), delay);
  }

  async request() {
    const asking = new AbortController();
    this.asking = asking;
    const { path, draw } = this.way;
    this.answer.setAttribute("aria-busy", "true");
    const begun = performance.now();
    try {
      const answer = await send(path, this.body, asking.signal);
      if (this.asking !== asking) return;
      this.show(answer, draw, performance.now() - begun);
    } catch (error) {
      if (this.asking !== asking) return;
      this.fail(error);
    }
  }

  show(answer, draw, took) {
    const [result] = answer.results;
    const { parts, sentence } = draw(result, this.recipes[answer.recipe] ?? {});
    if (result.truncated) {
      const most = this.recipes[answer.recipe]?.max_length;
      parts.push(warning(`Only the beginning was read: the model takes ${most ?? "so many"} tokens, and this is longer.`));
    }
    if (answer.sample) parts.push(warning(SAMPLE));
    const by = [`${Math.max(1, Math.round(took))} ms, by release `, element("code", answer.release)];
    this.settle([...parts, element("p", by, { class: "quiet" })], sentence);
  }

  fail(error) {
    if (!(error instanceof Refusal)) {
      look();
      this.settle([problem("No answer came. It is asked again as soon as the service is back.")]);
      this.failed = true;
    } else if (error.status === 401) {
      lock();
      this.settle([problem("The service wants an API key.")]);
      this.failed = true;
    } else if (BUSY.has(error.status)) {
      this.settle([problem(`${error.message}. Asking again in ${error.wait} s.`)]);
      this.timer = setTimeout(() => this.request(), error.wait * 1000);
    } else {
      this.settle([problem(error.message)]);
    }
  }

  /** Ask again what had no answer because the service was away or locked. */
  retry() {
    if (this.failed && !locked && this.release) this.ask(REST);
  }

  blank() {
    this.settle([element("p", "The answer appears here as you type.", { class: "quiet" })], "");
  }

  settle(parts, sentence = parts[0].textContent) {
    this.failed = false;
    this.answer.setAttribute("aria-busy", "false");
    this.answer.replaceChildren(...parts);
    this.saying = setTimeout(() => (this.spoken.textContent = sentence), SETTLED);
  }

  /** The same request as a program makes it. */
  explain() {
    if (!this.release) return;
    const example = this.section.querySelector(".examples button");
    const body = this.body ?? this.read([example.textContent, example.dataset.second]);
    const url = new URL(this.way.path, location.href).href;
    const [curl, python] = this.section.querySelectorAll("pre");
    curl.textContent = curlCall(url, body, key !== "");
    python.textContent = pythonCall(url, body, key !== "");
  }
}

const panels = [
  new Panel("texts", "text", ([text]) => ({ texts: [text] })),
  new Panel("pairs", "pair", ([left, right]) => ({ pairs: [[left, right]] })),
];

/** Say how the service is; nothing where all is well. */
function tell(text, tone = "") {
  const state = find("#state");
  state.hidden = !text;
  state.className = `notice ${tone}`;
  if (state.textContent !== text) state.textContent = text;
}

function lock() {
  locked = true;
  find("#key").hidden = false;
  tell(key ? "The service does not know this API key." : "This service wants an API key.", "warn");
}

function showDeployment(deployed) {
  const empty = deployed.deployment === 0;
  find("#key").hidden = !locked;
  if (empty) tell("The service runs, and nothing is deployed yet. This page fills by itself as soon as a release is.", "warn");
  else if (!locked) tell("");
  find("#panels").hidden = find("#served").hidden = empty;
  find("#deployment").textContent = empty
    ? ""
    : `Deployment ${deployed.deployment}, since ${day(deployed.created)}: ${deployed.reason}`;
  find("#releases").replaceChildren(...Object.entries(deployed.recipes).map(describeRelease));
  for (const panel of panels) {
    panel.update(deployed.recipes);
    panel.retry();
  }
  return !empty;
}

let looking;

/** See what is deployed, and go on seeing. */
async function look() {
  clearTimeout(looking);
  let live = false;
  try {
    live = showDeployment(await send("releases"));
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) lock();
    else if (error instanceof Refusal) tell(`The service is not well: ${error.message}`, "bad");
    else tell("The service does not answer. This page goes on asking.", "bad");
  }
  clearTimeout(looking);
  // A page that nobody sees asks nothing.
  if (document.visibilityState === "visible") looking = setTimeout(look, live ? LOOK.live : LOOK.waiting);
}

document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
find("#key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("#key-value").value.trim();
  locked = false;
  for (const panel of panels) panel.explain();
  look();
});
for (const code of document.querySelectorAll(".code")) {
  const button = find("button", code);
  // Browsers lend the clipboard to https and to this machine alone.
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(find("pre", code).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2_000);
  });
}
tell("Asking what is deployed …");
look();
