/* The page at `/`: calls its service while the user types. */

import { curlCall, describeRelease, day, drawClasses, drawScore, element, problem, pythonCall, warning } from "./draw.js";

const TYPING = 250; // milliseconds without typing before a text is sent
const SETTLED = 900; // milliseconds before a screen reader reads an answer
const LOOK = { live: 15_000, waiting: 3_000 }; // milliseconds between requests for the deployed releases
const PATIENCE = 30_000; // timeout of a request in milliseconds
const REST = 1_000; // milliseconds before a failed request is repeated once the service is back
const BUSY = new Set([429, 503]);
const SAMPLE =
  "Trained on the small synthetic sample that ships with Saebyeok. The answer shows that the pipeline works, not how well the model performs.";

const find = (selector, within = document) => within.querySelector(selector);

/** An error response of the service; `wait` is the delay before a retry in seconds. */
class Refusal extends Error {
  constructor(status, message, wait) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

let key = "";
let locked = false; // whether the service requires a key, or rejected the current one

/** Return the service's response. Throws Refusal for an error response, TypeError or TimeoutError without a response. */
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

/** Heading of a panel and the function that draws its answer, by input and kind of the release. */
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

/** Panel for all releases with the same input: its fields, the answer, and the equivalent calls from programs. */
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

  /** Update the deployed releases; repeat the request if the release has changed. */
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

  /** The request's body, or null if a field is empty. */
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

  /** Send the content of the fields after `delay` milliseconds; cancel the previous request. */
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
      parts.push(warning(`The text was cut off: the model reads at most ${most ?? "its maximum of"} tokens.`));
    }
    if (answer.sample) parts.push(warning(SAMPLE));
    const by = [`${Math.max(1, Math.round(took))} ms, by release `, element("code", answer.release)];
    this.settle([...parts, element("p", by, { class: "quiet" })], sentence);
  }

  fail(error) {
    if (!(error instanceof Refusal)) {
      look();
      this.settle([problem("The service did not answer. The request is repeated as soon as it is back.")]);
      this.failed = true;
    } else if (error.status === 401) {
      lock();
      this.settle([problem("The service requires an API key.")]);
      this.failed = true;
    } else if (BUSY.has(error.status)) {
      this.settle([problem(`${error.message}. Trying again in ${error.wait} s.`)]);
      this.timer = setTimeout(() => this.request(), error.wait * 1000);
    } else {
      this.settle([problem(error.message)]);
    }
  }

  /** Repeat a request that failed because the service was unreachable or required a key. */
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

  /** Show the equivalent calls with curl and Python. */
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

/** Show the state of the service; an empty text hides it. */
function tell(text, tone = "") {
  const state = find("#state");
  state.hidden = !text;
  state.className = `notice ${tone}`;
  if (state.textContent !== text) state.textContent = text;
}

function lock() {
  locked = true;
  find("#key").hidden = false;
  tell(key ? "The service does not accept this API key." : "This service requires an API key.", "warn");
}

function showDeployment(deployed) {
  const empty = deployed.deployment === 0;
  find("#key").hidden = !locked;
  if (empty) tell("The service runs, but no release is deployed yet. This page updates automatically.", "warn");
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

/** Request the deployed releases now and periodically. */
async function look() {
  clearTimeout(looking);
  let live = false;
  try {
    live = showDeployment(await send("releases"));
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) lock();
    else if (error instanceof Refusal) tell(`The service reports an error: ${error.message}`, "bad");
    else tell("The service does not answer. This page keeps trying.", "bad");
  }
  clearTimeout(looking);
  // A hidden page sends no requests.
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
  // Browsers allow the clipboard only for HTTPS and localhost.
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(find("pre", code).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2_000);
  });
}
tell("Loading the deployed releases …");
look();
