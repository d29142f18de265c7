/* The page at `/`: lists the deployed releases, and connects its parts. */

import { Batch } from "./batch.js";
import { drawDeployment } from "./draw.js";
import { History } from "./history.js";
import { Panel } from "./panel.js";
import { offer } from "./preferences.js";
import { key, Refusal, send } from "./service.js";
import { language, say, translate } from "./texts.js";

const LOOK = { live: 15_000, waiting: 3_000 }; // milliseconds between requests for the deployed releases

const find = (selector, within = document) => within.querySelector(selector);

const events = { locked: lock, lost: look, answered: (entry) => history.add(entry) };
const panels = { text: new Panel(find("#texts"), "text", events), pair: new Panel(find("#pairs"), "pair", events) };
const history = new History(find("#history"), ({ inputs, recipe, texts }) => {
  panels[inputs].fill(texts, recipe);
  panels[inputs].section.scrollIntoView({ block: "nearest" });
});
const batch = new Batch(find("#batch"), events);

let deployed = { deployment: 0, recipes: {} };
let state = () => "";

/** Show the state of the service: the sentence of `text`, now and in another language. An empty one hides it. */
function tell(text, tone = "") {
  state = text;
  const shown = find("#state");
  shown.hidden = !text();
  shown.className = `notice ${tone}`;
  if (shown.textContent !== text()) shown.textContent = text();
}

function lock() {
  key.locked = true;
  find("#key").hidden = false;
  tell(() => say(key.value ? "keyRejected" : "keyRequired"), "warn");
}

function showDeployment(found) {
  deployed = found;
  const empty = deployed.deployment === 0;
  find("#key").hidden = !key.locked;
  if (empty) tell(() => say("noRelease"), "warn");
  else if (!key.locked) tell(() => "");
  find("#panels").hidden = find("#served").hidden = empty;
  find("#releases").replaceChildren(...drawDeployment(deployed));
  batch.update(deployed.recipes);
  for (const panel of Object.values(panels)) {
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
    else if (error instanceof Refusal) tell(() => say("failing", { message: error.message }), "bad");
    else tell(() => say("unreachable"), "bad");
  }
  clearTimeout(looking);
  // A hidden page sends no requests.
  if (document.visibilityState === "visible") looking = setTimeout(look, live ? LOOK.live : LOOK.waiting);
}

/** Show everything in the language in use. */
function speak() {
  translate();
  tell(state, find("#state").className.replace("notice", "").trim());
  find("#releases").replaceChildren(...drawDeployment(deployed));
  for (const part of [...Object.values(panels), batch, history]) part.redraw();
}

document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
find("#key").addEventListener("submit", (event) => {
  event.preventDefault();
  key.value = find("#key-value").value.trim();
  key.locked = false;
  for (const panel of Object.values(panels)) panel.explain();
  look();
});
for (const code of document.querySelectorAll(".code")) {
  const button = find("button", code);
  // Browsers allow the clipboard only for HTTPS and localhost.
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(find("pre", code).textContent);
    button.textContent = say("copied");
    setTimeout(() => (button.textContent = say("copy")), 2_000);
  });
}
offer(find("#language"), language, speak);
tell(() => say("loading"));
speak();
look();
