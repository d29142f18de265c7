/* Every text of the page in English and Korean, and the language in use. */

import { remembered } from "./preferences.js";

export const TEXTS = {
  en: {
    tagline: "Korean BERT models, retrained overnight and served by morning.",
    links: "Service links",
    docs: "API docs",
    metrics: "Metrics",
    releases: "Releases",
    language: "Language",
    theme: "Theme",
    automatic: "Automatic",
    light: "Light",
    dark: "Dark",

    key: "API key",
    useKey: "Use it",
    keyNote: "The key stays in this page and is forgotten when you close it.",
    keyRequired: "This service requires an API key.",
    keyRejected: "The service does not accept this API key.",

    loading: "Loading the deployed releases …",
    noRelease: "The service runs, but no release is deployed yet. This page updates automatically.",
    unreachable: "The service does not answer. This page keeps trying.",
    failing: "The service reports an error: {message}",

    "text.classification": "Classify a text",
    "text.regression": "Score a text",
    "pair.classification": "Classify two sentences",
    "pair.regression": "Compare two sentences",
    recipe: "Recipe",
    text: "Korean text",
    first: "First sentence",
    second: "Second sentence",
    try: "Try",
    blank: "The answer appears here as you type.",
    sure: "{share} sure",
    of: "{score} of {most}",
    similar: "similar",
    notSimilar: "not similar",
    similarFrom: "similar from {score}",
    truncated: "The text was cut off: the model reads at most {most} tokens.",
    sample:
      "Trained on the small synthetic sample that ships with Saebyeok. The answer shows that the pipeline works, not how well the model performs.",
    answeredBy: "{milliseconds} ms, by release ",
    repeated: "The service did not answer. The request is repeated as soon as it is back.",
    keyNeeded: "The service requires an API key.",
    busy: "{message}. Trying again in {seconds} s.",
    calls: "Call the service with curl or Python",
    copy: "Copy",
    copied: "Copied",

    many: "Many texts at once",
    lines: "One text per line; for a pair, two texts with a tab between them",
    file: "Or choose a CSV, TSV or text file, or drop it here",
    header: "The first row contains the column names",
    column: "Text column",
    secondColumn: "Second text column",
    columnNumber: "Column {number}",
    start: "Start",
    resume: "Continue",
    stop: "Stop",
    download: "Download as CSV",
    row: "Row",
    answer: "Answer",
    rows: "Rows: {count}",
    rowsOf: "{name}. Rows: {count}",
    shownRows: "The table shows the first {count} rows. The download has all rows.",
    progress: "Rows done: {done} of {count}. Rows with an error: {errors}.",
    batchFailed: "Rows {from} to {to}: {message}. Continue sends them again.",
    noAnswer: "the service did not answer",
    emptyText: "The text is empty.",
    cutOff: "cut off",
    twoColumns: "This recipe reads two texts, so the table needs two columns.",
    tooLarge: "{name} is larger than {most} MB. Split the file.",
    unreadable: "{name} is not text in UTF-8, UTF-16 or EUC-KR (CP949).",
    openQuote: "Line {line}: a quotation mark is not closed, or text follows the closing one.",

    history: "Tried in this session",
    historyNote: "This browser tab keeps the list until you close it.",
    clear: "Clear",

    deployed: "Deployed releases",
    deployment: "Deployment {number}, since {time}: {reason}",
    sampleData: "sample data",
    accuracy: "Accuracy",
    f1: "F1",
    pearson: "Pearson r",
    release: "Release",
    reads: "Reads",
    tokens: "{count} tokens",
    runsOn: "Runs on",
    created: "Created",
  },
  ko: {
    tagline: "밤새 다시 학습하고 아침부터 서비스하는 한국어 BERT 모델",
    links: "서비스 링크",
    docs: "API 문서",
    metrics: "지표",
    releases: "릴리스",
    language: "언어",
    theme: "화면 테마",
    automatic: "자동",
    light: "밝게",
    dark: "어둡게",

    key: "API 키",
    useKey: "사용",
    keyNote: "키는 이 페이지에만 있으며, 페이지를 닫으면 사라집니다.",
    keyRequired: "이 서비스는 API 키가 필요합니다.",
    keyRejected: "서비스가 이 API 키를 받아들이지 않습니다.",

    loading: "배포된 릴리스를 불러오는 중입니다 …",
    noRelease: "서비스는 실행 중이지만 아직 배포된 릴리스가 없습니다. 이 페이지는 자동으로 갱신됩니다.",
    unreachable: "서비스가 응답하지 않습니다. 계속 다시 시도합니다.",
    failing: "서비스 오류: {message}",

    "text.classification": "문장 분류",
    "text.regression": "문장 점수",
    "pair.classification": "두 문장 분류",
    "pair.regression": "두 문장 비교",
    recipe: "레시피",
    text: "한국어 문장",
    first: "첫째 문장",
    second: "둘째 문장",
    try: "예문",
    blank: "입력하면 여기에 결과가 나타납니다.",
    sure: "확률 {share}",
    of: "{most}점 만점에 {score}점",
    similar: "비슷함",
    notSimilar: "비슷하지 않음",
    similarFrom: "{score}점부터 비슷함",
    truncated: "글이 잘렸습니다. 모델은 최대 {most}토큰까지 읽습니다.",
    sample:
      "새벽에 들어 있는 작은 합성 데이터로 학습한 모델입니다. 이 결과는 파이프라인이 작동한다는 것을 보여 줄 뿐, 모델의 성능을 나타내지 않습니다.",
    answeredBy: "{milliseconds} ms, 릴리스 ",
    repeated: "서비스가 응답하지 않았습니다. 응답이 돌아오면 다시 요청합니다.",
    keyNeeded: "서비스에 API 키가 필요합니다.",
    busy: "{message}. {seconds}초 뒤에 다시 시도합니다.",
    calls: "curl 또는 Python으로 호출하기",
    copy: "복사",
    copied: "복사했습니다",

    many: "여러 문장 한꺼번에",
    lines: "한 줄에 한 문장. 두 문장을 읽는 레시피는 두 문장 사이에 탭을 넣으세요",
    file: "또는 CSV, TSV, 텍스트 파일을 고르거나 여기에 끌어다 놓으세요",
    header: "첫 행은 열 이름입니다",
    column: "문장 열",
    secondColumn: "둘째 문장 열",
    columnNumber: "{number}열",
    start: "시작",
    resume: "계속",
    stop: "중지",
    download: "CSV로 내려받기",
    row: "행",
    answer: "결과",
    rows: "행 {count}개",
    rowsOf: "{name}, 행 {count}개",
    shownRows: "표에는 처음 {count}개 행만 보입니다. 내려받은 파일에는 모든 행이 있습니다.",
    progress: "전체 {count}개 행 중 {done}개 완료, 오류 {errors}개.",
    batchFailed: "{from}~{to}행: {message}. ‘계속’을 누르면 다시 보냅니다.",
    noAnswer: "서비스가 응답하지 않았습니다",
    emptyText: "문장이 비어 있습니다.",
    cutOff: "잘림",
    twoColumns: "이 레시피는 두 문장을 읽으므로 열이 두 개 필요합니다.",
    tooLarge: "{name}: {most}MB보다 큽니다. 파일을 나누어 주세요.",
    unreadable: "{name}: UTF-8, UTF-16, EUC-KR(CP949) 텍스트가 아닙니다.",
    openQuote: "{line}행: 따옴표가 닫히지 않았거나, 닫힌 따옴표 뒤에 글자가 있습니다.",

    history: "이번 세션에서 시도한 문장",
    historyNote: "이 브라우저 탭을 닫을 때까지 남아 있습니다.",
    clear: "지우기",

    deployed: "배포된 릴리스",
    deployment: "배포 {number}, {time}부터: {reason}",
    sampleData: "샘플 데이터",
    accuracy: "정확도",
    f1: "F1",
    pearson: "피어슨 r",
    release: "릴리스",
    reads: "입력 한도",
    tokens: "{count}토큰",
    runsOn: "실행 환경",
    created: "생성 시각",
  },
};

export const language = remembered("language", Object.keys(TEXTS), preferred());

/** Return the first language of the browser that the page has. */
function preferred() {
  return navigator.languages.map((tag) => tag.split("-")[0]).find((tag) => tag in TEXTS) ?? "en";
}

/** Return a text in the language in use; `values` replace its placeholders. */
export function say(name, values = {}) {
  return TEXTS[language.value][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

export const count = (value) => value.toLocaleString(language.value);
export const time = (value, style) => new Date(value).toLocaleString(language.value === "en" ? "en-GB" : "ko", style);

/** Write the texts of all elements with `data-say`, and the names of those with `data-name`. */
export function translate() {
  document.documentElement.lang = language.value;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of document.querySelectorAll("[data-name]")) node.setAttribute("aria-label", say(node.dataset.name));
}
