/* Requests to the service. */

const PATIENCE = 30_000; // timeout of a request in milliseconds
const BUSY = new Set([429, 503]);

/** An error response of the service: `index` is that of the text in the request, `wait` the delay before a retry in seconds. */
export class Refusal extends Error {
  constructor(status, error, wait) {
    super(error?.message ?? `status ${status}`);
    this.status = status;
    this.index = error?.index ?? null;
    this.wait = wait;
  }

  get busy() {
    return BUSY.has(this.status);
  }
}

/** The API key; `locked` tells whether the service requires one, or rejected this one. */
export const key = { value: "", locked: false };

/** Return the service's response. Throws Refusal for an error response, TypeError or TimeoutError without a response. */
export async function send(path, body, signal) {
  const headers = key.value ? { Authorization: `Bearer ${key.value}` } : {};
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
  throw new Refusal(response.status, document.error, wait);
}

/** Return the body of a request: each item of `items` holds one text or two. */
export const requestOf = (inputs, items) => (inputs === "pair" ? { pairs: items } : { texts: items.map(([text]) => text) });

const SIZE = 100; // texts per request of a batch
const TRIES = 5; // requests for the same texts if the service is busy or does not answer
const REST = 2; // seconds before a request without a response is repeated
const DIVISIBLE = new Set([413, 422]); // statuses that a smaller request may avoid

/** The error that ended `answerAll` at the rows `from` to `to`; `cause` is that of `send`. */
export class BatchError extends Error {
  constructor(cause, batch) {
    super(cause.message, { cause });
    this.from = batch[0].row;
    this.to = batch.at(-1).row;
  }
}

/**
 * Yield the outcomes of `items` (`{row, texts}`) in batches, as pairs of a row and `{result, release}` or `{error}`.
 *
 * `target` has `route`, `inputs` and `recipe`; `waiting` is called with an error and the seconds until the request is
 * repeated. A refused text gets its error, and the others of its batch are sent again. Throws BatchError if a whole
 * batch fails.
 */
export async function* answerAll(target, items, signal, waiting) {
  let size = SIZE;
  let batch = [];
  for (let next = 0; batch.length || next < items.length; ) {
    if (!batch.length) {
      batch = items.slice(next, next + size);
      next += batch.length;
    }
    try {
      const { results, release } = await sendPatiently(target, batch, signal, waiting);
      yield batch.map(({ row }, index) => [row, { result: results[index], release }]);
      batch = [];
    } catch (error) {
      if (!DIVISIBLE.has(error.status)) throw new BatchError(error, batch);
      if (error.index !== null || batch.length === 1) {
        const [{ row }] = batch.splice(error.index ?? 0, 1);
        yield [[row, { error: error.message }]];
      } else {
        size = Math.ceil(batch.length / 2);
        next -= batch.length - size;
        batch.length = size;
      }
    }
  }
}

/** Send a batch, repeatedly if the service is busy or does not answer. */
async function sendPatiently({ route, inputs, recipe }, batch, signal, waiting) {
  const body = { ...requestOf(inputs, batch.map(({ texts }) => texts)), recipe };
  for (let tries = 1; ; tries++) {
    try {
      return await send(`.${route}`, body, signal);
    } catch (error) {
      const passes = !signal.aborted && (error instanceof Refusal ? error.busy : true);
      if (!passes || tries === TRIES) throw error;
      const seconds = error.wait ?? REST;
      waiting(error, seconds);
      await pause(seconds, signal);
    }
  }
}

/** Wait for `seconds`, or until `signal` is aborted. */
const pause = (seconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => resolve(clearTimeout(timer)), { once: true });
  });
