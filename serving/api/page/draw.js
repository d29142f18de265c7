/* Draw answers, releases and the equivalent calls from programs. */

import { say, time } from "./texts.js";

const FIGURES = new Set(["accuracy", "f1", "pearson"]);

export const percent = (share) => `${(share * 100).toFixed(1)}%`;
const number = (value) => String(Math.round(value * 100) / 100);
const day = (value) => time(value, { dateStyle: "medium", timeStyle: "short" });

/** Create an element with text, child elements and attributes; custom properties (`--share`) are set in its style. */
export function element(name, content = [], attributes = {}) {
  const made = document.createElement(name);
  made.append(...[content].flat());
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("--")) made.style.setProperty(key, value);
    else made.setAttribute(key, value);
  }
  return made;
}

export const quiet = (content) => element("p", content, { class: "quiet" });
export const warning = (text) => element("p", text, { class: "warning" });
export const problem = (text) => element("p", text, { class: "problem" });

/** Return the main part of a result and, if there is one, a second part, as texts. */
export function inWords(result, release) {
  if (release.kind === "classification") return [result.label, say("sure", { share: percent(result.score) })];
  const score = number(result.score);
  const figure = release.score_range ? say("of", { score, most: release.score_range[1] }) : score;
  return result.similar === undefined ? [figure] : [say(result.similar ? "similar" : "notSimilar"), figure];
}

/** Draw a result of `release`; return its elements, and a sentence for screen readers. */
export function drawResult(result, release) {
  const parts = inWords(result, release);
  const [first, ...rest] = parts;
  const line = element("p", [element("strong", first), ...rest.map((text) => element("span", text))], { class: "result" });
  const picture = release.kind === "classification" ? drawClasses(result) : drawScale(result, release);
  return { parts: [line, ...picture], sentence: parts.join(", ") };
}

function drawClasses({ label, probabilities }) {
  const bars = Object.entries(probabilities).map(([name, share]) => {
    const track = element("span", element("i", [], { "--share": share }), { class: "track", "aria-hidden": "true" });
    const cells = [element("span", name), track, element("span", percent(share), { class: "number" })];
    return element("li", cells, name === label ? { class: "best" } : {});
  });
  return [element("ul", bars, { class: "bars" })];
}

function drawScale({ score, similar }, { score_range: range, similar_at: cut }) {
  if (!range) return [];
  const pair = similar !== undefined;
  const share = (value) => (value - range[0]) / (range[1] - range[0]);
  const marks = [element("i", [], { "--share": share(score) }), ...(pair ? [element("b")] : [])];
  const ends = range.map((text) => element("span", String(text)));
  if (pair) ends.splice(1, 0, element("span", say("similarFrom", { score: cut }), { class: "cut" }));
  const scale = [element("div", marks, { class: "track" }), element("p", ends, { class: "ends" })];
  return [element("div", scale, { class: "scale", "aria-hidden": "true", ...(pair ? { "--cut": share(cut) } : {}) })];
}

/** Draw the deployment, and its releases with their metrics. */
export function drawDeployment({ deployment, created, reason, recipes }) {
  if (deployment === 0) return [];
  const line = say("deployment", { number: deployment, time: day(created), reason });
  return [quiet(line), ...Object.entries(recipes).map(drawRelease)];
}

function drawRelease([recipe, release]) {
  const title = element("h3", [release.title, element("span", recipe, { class: "quiet" })]);
  if (release.sample) title.append(element("span", say("sampleData"), { class: "chip" }));
  const figures = Object.entries(release.figures).map(([name, value]) => [
    FIGURES.has(name) ? say(name) : name,
    value.toFixed(4),
  ]);
  const facts = [
    [say("release"), element("code", release.release), { class: "wide" }],
    ...figures,
    [say("reads"), say("tokens", { count: release.max_length })],
    [say("runsOn"), `${release.provider.replace("ExecutionProvider", "")}, ${release.variant}`],
    [say("created"), day(release.created), { class: "wide" }],
  ];
  const list = facts.map(([name, value, attributes]) => element("div", [element("dt", name), element("dd", value)], attributes));
  return element("article", [title, element("dl", list)], { class: "release" });
}

/** Return a request to `route` of the service at `base` as a curl command; it refers to the API key, but never shows it. */
export function curlCall(base, route, body, keyed) {
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const lines = [`curl ${base}${route}`, "-H 'Content-Type: application/json'"];
  if (keyed) lines.push('-H "Authorization: Bearer $API_KEY"');
  return [...lines, `-d '${quoted}'`].join(" \\\n  ");
}

/** Return the same request with the Python client, whose methods are named like the routes. */
export function pythonCall(base, route, body, keyed) {
  const [imports, key] = keyed ? [["import os", ""], ', os.environ["API_KEY"]'] : [[], ""];
  // JSON without null, true and false is a valid Python literal.
  const options = Object.entries(body).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return [
    ...imports,
    "from serving.client import Client  # without the rest of Saebyeok: from saebyeok_client import Client",
    "",
    `with Client("${base}"${key}) as client:`,
    `    answer = client.${route.slice(1)}(${options.join(", ")})`,
    "print(answer.results)",
  ].join("\n");
}
