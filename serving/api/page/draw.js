/* Draw answers, releases and the equivalent calls from programs. */

const FIGURES = { accuracy: "Accuracy", f1: "F1", pearson: "Pearson r" };

const percent = (share) => `${(share * 100).toFixed(1)}%`;
const number = (value) => String(Math.round(value * 100) / 100);
export const day = (time) => new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

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

export const warning = (text) => element("p", text, { class: "warning" });
export const problem = (text) => element("p", text, { class: "problem" });

/** Draw a classification; return its elements, and a sentence for screen readers. */
export function drawClasses({ label, score, probabilities }) {
  const bars = Object.entries(probabilities).map(([name, share]) => {
    const track = element("span", element("i", [], { "--share": share }), { class: "track", "aria-hidden": "true" });
    const cells = [element("span", name), track, element("span", percent(share), { class: "number" })];
    return element("li", cells, name === label ? { class: "best" } : {});
  });
  const result = element("p", [element("strong", label), element("span", `${percent(score)} sure`)], { class: "result" });
  return { parts: [result, element("ul", bars, { class: "bars" })], sentence: `${label}, ${percent(score)} sure` };
}

/** Draw a score in the same form: on a scale if the release has a score range, with a verdict for a pair. */
export function drawScore({ score, similar }, { score_range: range, similar_at: cut }) {
  const pair = similar !== undefined;
  const figure = number(score) + (range ? ` of ${range[1]}` : "");
  const said = pair ? [similar ? "similar" : "not similar", figure] : [figure];
  const [first, ...rest] = said;
  const result = element("p", [element("strong", first), ...rest.map((text) => element("span", text))], { class: "result" });
  const parts = [result];
  if (range) {
    const share = (value) => (value - range[0]) / (range[1] - range[0]);
    const marks = [element("i", [], { "--share": share(score) }), ...(pair ? [element("b")] : [])];
    const ends = range.map((text) => element("span", String(text)));
    if (pair) ends.splice(1, 0, element("span", `similar from ${cut}`, { class: "cut" }));
    const scale = [element("div", marks, { class: "track" }), element("p", ends, { class: "ends" })];
    parts.push(element("div", scale, { class: "scale", "aria-hidden": "true", ...(pair ? { "--cut": share(cut) } : {}) }));
  }
  return { parts, sentence: said.join(", ") };
}

/** Draw a deployed release with its metrics. */
export function describeRelease([recipe, release]) {
  const title = element("h3", [release.title, element("span", recipe, { class: "quiet" })]);
  if (release.sample) title.append(element("span", "sample data", { class: "chip" }));
  const figures = Object.entries(release.figures).map(([name, value]) => [FIGURES[name] ?? name, value.toFixed(4)]);
  const facts = [
    ["Release", element("code", release.release), { class: "wide" }],
    ...figures,
    ["Reads", `${release.max_length} tokens`],
    ["Runs on", `${release.provider.replace("ExecutionProvider", "")}, ${release.variant}`],
    ["Created", day(release.created), { class: "wide" }],
  ];
  const list = facts.map(([name, value, attributes]) => element("div", [element("dt", name), element("dd", value)], attributes));
  return element("article", [title, element("dl", list)], { class: "release" });
}

/** Return a request as a curl command; it refers to the API key, but never shows it. */
export function curlCall(url, body, keyed) {
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const lines = [`curl ${url}`, "-H 'Content-Type: application/json'"];
  if (keyed) lines.push('-H "Authorization: Bearer $API_KEY"');
  return [...lines, `-d '${quoted}'`].join(" \\\n  ");
}

/** Return the same request in Python. */
export function pythonCall(url, body, keyed) {
  const lines = ["import httpx", "", "answer = httpx.post(", `    "${url}",`];
  if (keyed) lines.splice(0, 1, "import os", "", "import httpx");
  if (keyed) lines.push('    headers={"Authorization": f"Bearer {os.environ[\'API_KEY\']}"},');
  // JSON without null, true and false is a valid Python literal.
  return [...lines, `    json=${JSON.stringify(body)},`, ")", "answer.raise_for_status()", 'print(answer.json()["results"])'].join("\n");
}
