/* Calls the service at a URL with a key, and prints what the types promise, as JSON. */

import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

const [, , baseUrl, key, text] = process.argv as [string, string, string, string, string];
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });

const classified = await client.POST("/classify", { body: { texts: [text] } });
const compared = await client.POST("/similarity", { body: { pairs: [[text, text]], recipe: "klue-sts" } });
const embedded = await client.POST("/v1/embeddings", { body: { input: text, model: "klue-sts" } });
const releases = await client.GET("/releases");
const refused = await client.POST("/classify", { body: { texts: [text], recipe: "none" } });

// @ts-expect-error The body is typed: a number is no text.
export const wrong = () => client.POST("/classify", { body: { texts: [1] } });

const type: components["schemas"]["ErrorType"] | undefined = refused.error?.error.type;
const label: string | undefined = classified.data?.results[0]?.label;
const similar: boolean | undefined = compared.data?.results[0]?.similar;
console.log(
  JSON.stringify({
    label,
    release: classified.data?.release,
    similar,
    dimensions: embedded.data?.data[0]?.embedding.length,
    recipes: Object.keys(releases.data?.recipes ?? {}).sort(),
    type,
  }),
);
