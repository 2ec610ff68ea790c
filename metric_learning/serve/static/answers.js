// The server's answers: asked for, and drawn. Texts go in as text, never as HTML.

export class Problem extends Error {
  constructor(message, field = null) {
    super(message);
    this.field = field;
  }
}

export async function ask(path, zones, signal) {
  const form = new FormData();
  for (const zone of zones) form.append(zone.field, zone.file, "picture");
  let response;
  try {
    response = await fetch(path, { method: "POST", body: form, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("No answer. Is the server still running, and the file still there?");
  }
  const said = await response.json().catch(() => null);
  if (!response.ok || !said) throw new Problem(said?.error ?? `The server answered ${response.status}.`, said?.field);
  return said;
}

export function element(tag, name = "", ...content) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...content);
  return made;
}

function at(made, share) {
  made.style.setProperty("--at", `${Math.min(Math.max(share, 0), 1) * 100}%`);
  return made;
}

// Two digits; four where two would hide on which side of the threshold a value lies.
function shown(value, threshold) {
  const close = threshold !== null && value !== threshold && value.toFixed(2) === threshold.toFixed(2);
  return value.toFixed(close ? 4 : 2);
}

function side(same) {
  return same === null ? "" : same ? "is-same" : "is-different";
}

function meaning(said) {
  const from = said.threshold_similarity;
  const rule = from === null ? "" : `From similarity ${from.toFixed(2)} on, two pictures count as the same.`;
  const rate = said.far === null ? "" : `Of different ones about 1 in ${Math.round(1 / said.far).toLocaleString("en")} does so too.`;
  const fitted = "uncalibrated: nothing was fitted for these weights. The number is (1 + cosine) / 2, and 0.5 is no threshold.";
  return [rule, rate, said.calibrated ? "" : fitted].filter(Boolean).join(" ");
}

export function verdict(said) {
  const value = shown(said.similarity, said.threshold_similarity);
  const head = said.same === null ? "Similarity, from 0 to 1" : said.same ? "✓ The same" : "✗ Different";
  const words = element("div", "", element("p", `headline ${side(said.same)}`, head), element("p", "plain", meaning(said)));
  const number = element("p", `score ${side(said.same)}`, element("span", "quiet", "Similarity "), value);
  return element("div", "verdict", number, words, scale(said), more(said));
}

function scale(said) {
  const made = element("div", `scale ${side(said.same)}`);
  made.setAttribute("aria-hidden", "true");
  made.append(element("div", "track", at(element("div", "fill"), said.similarity)));
  made.append(element("span", "low", "0"), element("span", "high", "1"));
  const from = said.threshold_similarity;
  if (from !== null) {
    made.append(at(element("div", "tick"), from));
    if (from > 0.08 && from < 0.92) made.append(at(element("span", "label", `threshold ${from.toFixed(2)}`), from));
  }
  return made;
}

function more(said) {
  const rows = [
    ["Similarity", said.similarity.toFixed(4)],
    ["Cosine", said.cosine.toFixed(4)],
    ["Threshold", said.threshold_from],
  ];
  if (said.group !== null) rows.push(["Group", said.group]);
  const list = element("dl");
  for (const [name, value] of rows) list.append(element("dt", "", name), element("dd", "", value));
  return element("details", "", element("summary", "", "Numbers"), list);
}

export function summary(said) {
  const { results, count } = said;
  const many = results.length === 1 ? "The nearest" : `The ${results.length} nearest`;
  const same = results.filter((found) => found.same).length;
  const all = same > 1 && same === results.length;
  const counted = said.threshold === null ? "" : ` ${all ? "All" : same || "None"} ${same === 1 ? "counts" : "count"} as the same.`;
  const first = results.length ? `${many} of ${count.toLocaleString("en")}.${counted}` : "The gallery is empty.";
  return element("div", "", element("p", "summary", first), element("p", "plain", meaning(said)));
}

export function results(said) {
  return said.results.map((found, index) => {
    const image = element("img");
    image.loading = "lazy";
    image.alt = found.name;
    image.src = `/api/gallery/${found.row}`;
    const shot = element("div", "shot", element("span", "rank", String(index + 1)), image);
    image.addEventListener("error", () => image.replaceWith("The picture is gone"));
    const line = element("div", "line", element("span", "value", shown(found.similarity, said.threshold_similarity)));
    if (found.same !== null) line.append(element("span", `same ${side(found.same)}`, found.same ? "✓ same" : "✗ different"));
    const thin = element("div", "thin", at(element("div", "fill"), found.similarity));
    const name = element("div", "name", ...found.name.split(/(?<=[/\\])/).flatMap((part) => [part, element("wbr")]));
    name.title = found.name;
    return element("li", `result ${side(found.same)}`, shot, element("div", "words", line, thin, name));
  });
}

export function failure(problem, again) {
  const button = element("button", "button", "Try again");
  button.type = "button";
  button.addEventListener("click", again);
  return element("div", "failed", element("p", "", problem.message), button);
}
