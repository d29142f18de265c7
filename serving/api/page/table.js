/* Tables: read CSV, TSV and lines of text, choose columns, and write CSV. */

const LOOKED_AT = 100; // rows from which the text columns are guessed
const HANGUL = /[\uac00-\ud7a3]/g;
const FORMULA = /^(?:[\t\r\n]|\s*[=+\-@＝＋－＠])/; // texts that a spreadsheet computes (OWASP, CSV injection)
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i;

/** A file or pasted text that is no table; `reason` is the name of a text in the catalog. */
export class TableError extends Error {
  constructor(reason, values) {
    super(reason);
    this.reason = reason;
    this.values = values;
  }
}

/** Return the text of bytes in UTF-8, UTF-16 with a byte order mark, or CP949, in which Excel saves Korean CSV. */
export function decode(bytes, name) {
  const [first, second] = bytes;
  const wide = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : null;
  for (const encoding of wide ? [wide] : ["utf-8", "euc-kr"]) {
    try {
      return new TextDecoder(encoding, { fatal: true }).decode(bytes);
    } catch {
      // Try the next one.
    }
  }
  throw new TableError("unreadable", { name });
}

/** Return the rows of a file by the end of its name; other files than CSV and TSV have one text per line. */
export function readFile(text, name) {
  if (/\.(tsv|tab)$/i.test(name)) return readTabs(text);
  return /\.csv$/i.test(name) ? parse(text, delimiterOf(text), true) : readLines(text);
}

/** Return the rows of pasted text: cells of a spreadsheet, which tabs separate, or one text per line. */
export const readPasted = (text) => (text.includes("\t") ? readTabs(text) : readLines(text));

const readLines = (text) => parse(text, "\n", false);

/** Return rows of cells that tabs separate. Many programs quote no cell, so that a text may begin with a quotation mark. */
function readTabs(text) {
  try {
    return parse(text, "\t", true);
  } catch (error) {
    if (error instanceof TableError) return parse(text, "\t", false);
    throw error;
  }
}

/** Return the character that separates the cells of the first line. */
function delimiterOf(text) {
  const [line] = text.replace(/"[^"]*"/g, "").split("\n", 1);
  const counts = [",", ";", "\t"].map((delimiter) => [line.split(delimiter).length, delimiter]);
  return counts.reduce((best, found) => (found[0] > best[0] ? found : best))[1];
}

/** Return the rows of `text` without empty lines. A line feed ends a row: a carriage return alone is part of a text. */
function parse(text, delimiter, quoting) {
  const rows = [];
  const end = new RegExp(`${delimiter}|\\r?\\n`, "g");
  let row = [];
  for (let at = 0; at < text.length || row.length; ) {
    const quote = quoting && text[at] === '"' ? closingQuote(text, at, delimiter) : null;
    end.lastIndex = quote === null ? at : quote + 1;
    const match = end.exec(text);
    const stop = match?.index ?? text.length;
    row.push(quote === null ? text.slice(at, stop) : text.slice(at + 1, quote).replaceAll('""', '"'));
    at = match ? end.lastIndex : text.length;
    if (match?.[0] === delimiter && delimiter !== "\n") continue;
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  }
  return rows;
}

/** Return the position of the quotation mark that closes the one at `start`. */
function closingQuote(text, start, delimiter) {
  let at = text.indexOf('"', start + 1);
  while (at >= 0 && text[at + 1] === '"') at = text.indexOf('"', at + 2);
  const ends = [delimiter, "\n", "\r\n"].some((end) => text.startsWith(end, at + 1));
  if (at >= 0 && (ends || at + 1 === text.length)) return at;
  throw new TableError("openQuote", { line: text.slice(0, start).split("\n").length });
}

/** Return the indexes of the `wanted` columns with the most Korean in the first rows, in the order of the table. */
export function textColumns(rows, wanted) {
  const korean = (column) =>
    rows.slice(0, LOOKED_AT).reduce((sum, row) => sum + (row[column]?.match(HANGUL)?.length ?? 0), 0);
  const columns = Array.from({ length: width(rows) }, (_, column) => [korean(column), column]);
  const best = columns.sort((one, other) => other[0] - one[0]).slice(0, wanted);
  return best.map(([, column]) => column).sort((one, other) => one - other);
}

/** Return the number of columns. */
export const width = (rows) => rows.reduce((most, row) => Math.max(most, row.length), 0);

/** Return a text that a spreadsheet shows and does not compute: one like a formula gets an apostrophe in front. */
const inert = (text) => (FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text);

/** Return rows as CSV (RFC 4180) without formulas, with the byte order mark by which Excel recognises UTF-8. */
export function toCsv(rows) {
  const quoted = (text) => (/^\s|[",\r\n]|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const cell = (value) => quoted(inert(value));
  return `\ufeff${rows.map((row) => `${row.map((value) => cell(String(value ?? ""))).join(",")}\r\n`).join("")}`;
}
