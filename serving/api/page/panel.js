/* A panel that answers while the user types. */

import { curlCall, drawResult, element, problem, pythonCall, quiet, warning } from "./draw.js";
import { key, Refusal, requestOf, send } from "./service.js";
import { say } from "./texts.js";

const TYPING = 250; // milliseconds without typing before a text is sent
const SETTLED = 900; // milliseconds before a screen reader reads an answer, and before it is part of the history
const REST = 1_000; // milliseconds before a failed request is repeated once the service is back

/** Examples of the shipped recipes; other recipes read other texts. */
const EXAMPLES = {
  nsmc: [
    ["정말 재미있게 봤어요. 또 보고 싶은 영화입니다."],
    ["시간이 아까웠다. 다시는 안 본다."],
    ["배우는 좋았는데 이야기가 지루했어요."],
  ],
  "klue-sts": [
    ["오늘 날씨가 정말 좋네요.", "오늘은 날씨가 참 좋습니다."],
    ["내일 회의는 몇 시에 시작하나요?", "회의가 내일 언제 열리나요?"],
    ["이 식당은 김치찌개가 맛있어요.", "거실 불 좀 꺼 주세요."],
  ],
};
/** Texts of the calls that are shown before anything is typed. */
const PLACEHOLDERS = ["여기에 문장을 쓰세요.", "여기에 둘째 문장을 쓰세요."];

/** Panel for all releases with the same input: its fields, the answer, and the equivalent calls from programs. */
export class Panel {
  /** `events` has the functions `locked` (a key is required), `lost` (no response) and `answered` (an answer has settled). */
  constructor(section, inputs, events) {
    const find = (selector) => section.querySelector(selector);
    this.section = section;
    this.inputs = inputs;
    this.events = events;
    this.recipes = {};
    this.fields = [...section.querySelectorAll("textarea, input")];
    this.heading = find("h2");
    this.title = find(".title");
    this.choice = find("select");
    this.examples = find(".examples");
    this.answer = find(".answer");
    this.spoken = find("[role=status]");
    this.calls = section.querySelectorAll("pre");
    for (const field of this.fields) field.addEventListener("input", () => this.ask(TYPING));
    this.choice.addEventListener("change", () => this.choose());
    this.blank();
  }

  choose() {
    this.describe();
    this.ask(0);
  }

  /** Choose a recipe that is deployed, enter texts, and send them at once. */
  fill(texts, recipe = this.choice.value) {
    if (!this.release) return;
    if (recipe !== this.choice.value && recipe in this.recipes) {
      this.choice.value = recipe;
      this.describe();
    }
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
    else if (this.release.release !== before) this.choose();
    else this.explain();
  }

  get release() {
    return this.recipes[this.choice.value];
  }

  /** The texts of the fields, or null if one is empty. */
  get texts() {
    const texts = this.fields.map((field) => field.value);
    return texts.every((text) => text.trim()) ? texts : null;
  }

  bodyOf(texts) {
    const several = Object.keys(this.recipes).length > 1;
    return { ...requestOf(this.inputs, [texts]), ...(several ? { recipe: this.choice.value } : {}) };
  }

  stop() {
    this.asking?.abort();
    this.asking = null;
    clearTimeout(this.timer);
    clearTimeout(this.settling);
  }

  /** Send the content of the fields after `delay` milliseconds; cancel the previous request. */
  ask(delay) {
    this.stop();
    this.explain();
    if (!this.texts) this.blank();
    else this.timer = setTimeout(() => this.request(), delay);
  }

  async request() {
    const asking = new AbortController();
    this.asking = asking;
    this.answer.setAttribute("aria-busy", "true");
    const texts = this.texts;
    const begun = performance.now();
    try {
      const answer = await send(`.${this.release.route}`, this.bodyOf(texts), asking.signal);
      if (this.asking === asking) this.show(answer, texts, performance.now() - begun);
    } catch (error) {
      if (this.asking === asking) this.fail(error);
    }
  }

  show(answer, texts, took) {
    const [result] = answer.results;
    const release = this.recipes[answer.recipe] ?? this.release;
    this.settle(() => {
      const { parts, sentence } = drawResult(result, release);
      if (result.truncated) parts.push(warning(say("truncated", { most: release.max_length })));
      if (answer.sample) parts.push(warning(say("sample")));
      const milliseconds = Math.max(1, Math.round(took));
      const by = [say("answeredBy", { milliseconds }), element("code", answer.release)];
      return { parts: [...parts, quiet(by)], sentence };
    }, () => this.events.answered({ inputs: this.inputs, recipe: answer.recipe, texts, result, release }));
  }

  fail(error) {
    const repeats = !(error instanceof Refusal) || error.status === 401;
    if (!(error instanceof Refusal)) this.events.lost();
    else if (error.status === 401) this.events.locked();
    else if (error.busy) this.timer = setTimeout(() => this.request(), error.wait * 1000);
    this.settle(() => ({ parts: [problem(complaint(error))] }));
    this.failed = repeats;
  }

  /** Repeat a request that failed because the service was unreachable or required a key. */
  retry() {
    if (this.failed && !key.locked && this.release) this.ask(REST);
  }

  blank() {
    this.settle(() => ({ parts: [quiet(say("blank"))], sentence: "" }));
  }

  /** Draw the answer by `draw`; once it has stayed for a moment, say it to screen readers and call `then`. */
  settle(draw, then = () => {}) {
    this.failed = false;
    this.draw = draw;
    const sentence = this.drawAnswer();
    this.answer.setAttribute("aria-busy", "false");
    this.settling = setTimeout(() => {
      this.spoken.textContent = sentence;
      then();
    }, SETTLED);
  }

  /** Draw the answer; return a sentence for screen readers. */
  drawAnswer() {
    const { parts, sentence = parts[0].textContent } = this.draw();
    this.answer.replaceChildren(...parts);
    return sentence;
  }

  /** Draw everything in the language in use. */
  redraw() {
    this.drawAnswer();
    if (this.release) this.describe();
  }

  /** Show title and examples of the chosen release. */
  describe() {
    this.heading.textContent = say(`${this.inputs}.${this.release.kind}`);
    this.title.textContent = this.release.title;
    const examples = EXAMPLES[this.choice.value] ?? [];
    this.examples.hidden = !examples.length;
    const buttons = examples.map((texts) => {
      const button = element("button", texts[0], { type: "button", lang: "ko" });
      button.addEventListener("click", () => this.fill(texts));
      return button;
    });
    this.examples.replaceChildren(element("span", say("try"), { class: "quiet" }), ...buttons);
  }

  /** Show the equivalent calls with curl and Python. */
  explain() {
    if (!this.release) return;
    const body = this.bodyOf(this.texts ?? EXAMPLES[this.choice.value]?.[0] ?? PLACEHOLDERS.slice(0, this.fields.length));
    const call = [new URL(".", location.href).href.replace(/\/$/, ""), this.release.route, body, key.value !== ""];
    const [curl, python] = this.calls;
    curl.textContent = curlCall(...call);
    python.textContent = pythonCall(...call);
  }
}

/** Return the sentence for an error of `send`. */
function complaint(error) {
  if (!(error instanceof Refusal)) return say("repeated");
  if (error.status === 401) return say("keyNeeded");
  return error.busy ? say("busy", { message: error.message, seconds: error.wait }) : error.message;
}
