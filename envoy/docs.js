// Adds to the page what needs a script: a filter for the menu, and for each operation a form that sends it.
const filter = document.getElementById("filter");
filter.hidden = false;
filter.addEventListener("input", () => {
  const sought = filter.value.trim().toLowerCase();
  for (const entry of document.querySelectorAll("nav li")) {
    const name = entry.querySelector("a").hash.slice(1);
    const text = `${entry.textContent} ${document.getElementById(name).textContent}`.toLowerCase();
    entry.hidden = !text.includes(sought);
  }
});

const identity = document.getElementById("identity");
identity.hidden = false;
identity.addEventListener("submit", (event) => event.preventDefault());

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A body to begin with: the fields that are required, each with something of its type.
function sample(schema, known) {
  if (schema.$ref) return sample(known[schema.$ref.split("/").at(-1)], known);
  if (schema.anyOf) return sample(schema.anyOf[0], known);
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  const type = [schema.type].flat()[0];
  if (type === "object") {
    const required = (schema.required ?? []).map((name) => [name, sample(schema.properties[name], known)]);
    return Object.fromEntries(required);
  }
  if (type === "array") return [];
  return { string: "", integer: schema.minimum ?? 0, number: schema.minimum ?? 0, boolean: false }[type];
}

async function send(verb, path, inputs, body, output) {
  const query = new URLSearchParams();
  const headers = {};
  let target = path;
  for (const [place, name, input] of inputs) {
    if (place === "path") target = target.replace(`{${name}}`, encodeURIComponent(input.value));
    else if (input.value && place === "query") query.append(name, input.value);
    else if (input.value) headers[name] = input.value;
  }
  if (query.size) target += `?${query}`;
  const token = identity.querySelector("input").value.trim();
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  const started = performance.now();
  const answer = await fetch(target, { method: verb.toUpperCase(), headers, body: body?.value });
  const text = await answer.text();
  const took = Math.round(performance.now() - started);
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // It is no JSON: shown as it came.
  }
  const id = answer.headers.get("x-request-id") ?? "none";
  output.textContent = `${answer.status} ${answer.statusText} in ${took} ms, request id ${id}\n\n${shown}`;
}

function form(verb, path, operation, known) {
  const made = element("form");
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const input = element("input", { name: parameter.name, required: parameter.required, placeholder: parameter.schema.format ?? "" });
    made.append(element("label", {}, parameter.name, input));
    return [parameter.in, parameter.name, input];
  });
  const schema = operation.requestBody?.content["application/json"].schema;
  const body = schema && element("textarea", { value: JSON.stringify(sample(schema, known), null, 2), spellcheck: false, ariaLabel: "Body" });
  if (body) made.append(body);
  const output = element("pre", { hidden: true });
  made.append(element("button", { textContent: "Send" }), output);
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    output.hidden = false;
    output.textContent = "…";
    send(verb, path, inputs, body, output).catch((error) => (output.textContent = String(error)));
  });
  return made;
}

fetch("/api/v2/llm/openapi.json").then((answer) => answer.json()).then(({ paths, components }) => {
  for (const [path, item] of Object.entries(paths)) {
    for (const [verb, operation] of Object.entries(item)) {
      const place = document.querySelector(`.try[data-operation="${operation.operationId}"]`);
      const open = element("button", { type: "button", textContent: "Try it" });
      open.addEventListener("click", () => place.replaceChildren(form(verb, path, operation, components.schemas)));
      place.append(open);
    }
  }
});
