// The same in Chromium, by the package's own files as modules of a page of the edge's origin; and the API's page.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

let input = "";
for await (const part of process.stdin) input += part;
const { url, user, cookie, chromium: executablePath } = JSON.parse(input);
const imports = JSON.stringify({ imports: { llmrouter: "/app/llmrouter/index.js" } });
const PAGE = `<!doctype html><title>app</title><script type="importmap">${imports}</script>`;
const dist = fileURLToPath(new URL("./node_modules/llmrouter/dist/", import.meta.url));

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  const open = async (origin, session) => {
    const context = await browser.newContext();
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    await page.route("**/app/**", async (route) => {
      const path = new URL(route.request().url()).pathname.replace("/app/", "");
      if (path === "") return route.fulfill({ contentType: "text/html", body: PAGE });
      const file = path === "checks.mjs" ? new URL("./checks.mjs", import.meta.url) : dist + path.replace("llmrouter/", "");
      return route.fulfill({ contentType: "text/javascript", body: await readFile(file, "utf8") });
    });
    if (session) await context.addCookies([{ name: "session", value: session, url, httpOnly: true, sameSite: "Lax" }]);
    await page.goto(`${origin}/app/`);
    return page;
  };
  const check = async (page, options) =>
    page.evaluate(async (given) => {
      const { LlmRouter } = await import("llmrouter");
      const { asUser } = await import("/app/checks.mjs");
      return asUser(new LlmRouter(given));
    }, options);

  const bearer = await check(await open(url), { token: user });
  const session = await check(await open(url, cookie), {});
  const strangers = await open("http://elsewhere.localhost:1", cookie);
  const foreign = await strangers.evaluate(async (baseUrl) => {
    const { LlmRouter, route } = await import("llmrouter");
    return route(new LlmRouter({ baseUrl })).then(() => "no error", (error) => error.reason);
  }, url);

  const docs = await (await browser.newContext()).newPage();
  docs.setDefaultTimeout(20_000);
  const problems = [];
  docs.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  docs.on("pageerror", (error) => problems.push(String(error)));
  const hosts = new Set();
  docs.on("request", (request) => hosts.add(new URL(request.url()).origin));
  await docs.goto(`${url}/api/v2/llm/docs`);
  await docs.fill("#identity input", user);
  await docs.click("#route .try button");
  await docs.fill("#route .try textarea", '{"power_level": "ECO"}');
  await docs.click("#route .try form button");
  await docs.waitForSelector("#route .try pre:has-text('request id')");
  const tried = await docs.textContent("#route .try pre");
  await docs.fill("#filter", "platform-key");
  const left = await docs.locator("nav li:visible").allTextContents();
  console.log(JSON.stringify({ bearer, session, foreign, docs: { tried, left, problems, hosts: [...hosts] } }));
} finally {
  await browser.close();
}
