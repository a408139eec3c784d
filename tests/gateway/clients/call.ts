// Calls the gateway by the types that openapi-typescript made of its description. usage: URL IMAGE
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

const [url, image] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });
const images = [readFileSync(image).toString("base64")];

const found = await client.POST("/v1/recognize", { body: { images, labels: ["猫", "狗"], top_k: 1 } });
const label: string | undefined = found.data?.results[0].predictions?.[0].label;
if (label !== "猫") throw new Error(JSON.stringify(found));
const banks = await client.GET("/v1/banks");
if (banks.data?.banks[0].name !== "default") throw new Error(JSON.stringify(banks));
const refused = await client.POST("/v1/recognize", { body: { images: ["AAAA"] } });
if (refused.error?.code !== "picture_type_unsupported") throw new Error(JSON.stringify(refused));
console.log("called");
