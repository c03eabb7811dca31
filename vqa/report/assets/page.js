"use strict";
// Everything from the data becomes text by textContent: a file name or a reason can never be markup.
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.columns, labelled = data.kind === "evaluation", two = Boolean(data.score_b);
const byId = (id) => document.getElementById(id);
const FIRST_LINES = innerWidth < 640 ? 15 : 50;
const all = Array.from({ length: data.count }, (_, at) => at);
let shown = all, sorting = { key: labelled ? "residual" : "score", down: labelled }, lines = FIRST_LINES;

function element(tag, { text, ...settings } = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), settings);
  if (text !== undefined) made.textContent = text;
  made.append(...inside);
  return made;
}
const number = (value, digits = 2) => {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
};
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const folder = shared(rows.clip_id).lastIndexOf("/") + 1; // the folder that all clips share is not shown
// Enough digits for a hundredth of the range of scores, whatever their scale.
const scoreDigits = (column) => {
  const known = column.filter((value) => value != null);
  const range = known.reduce((a, b) => Math.max(a, b), -Infinity) - known.reduce((a, b) => Math.min(a, b), Infinity);
  return known.length && range > 0 ? Math.min(6, Math.max(0, 2 - Math.round(Math.log10(range / 4)))) : 2;
};
const DIGITS = { score: scoreDigits(rows.score), score_std: scoreDigits(rows.score), score_b: two ? scoreDigits(data.score_b) : 2 };
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function shared(names) {
  let end = names.length > 1 ? names[0].length : 0;
  for (const name of names) while (!name.startsWith(names[0].slice(0, end))) end -= 1;
  return end ? names[0].slice(0, end) : "";
}

// --- filters

const selects = {};
for (const [name, { words }] of Object.entries(data.filters)) {
  const select = element("select", { name }, element("option", { value: "", text: "all" }));
  words.forEach((word, at) => select.append(element("option", { value: String(at), text: word })));
  select.addEventListener("change", update);
  selects[name] = select;
  byId("filters").append(element("label", { text: name }, select));
}
const search = element("input", { type: "search", name: "search", placeholder: "part of a name or reason" });
search.addEventListener("input", update);
byId("filters").append(element("label", { text: "search" }, search));
byId("filters").addEventListener("submit", (event) => event.preventDefault());

function update() {
  const wanted = Object.entries(selects).filter(([, one]) => one.value).map(([name, one]) => [data.filters[name].at, +one.value]);
  const part = search.value.toLowerCase();
  shown = all.filter((at) => wanted.every(([places, value]) => [places[at]].flat().includes(value))
    && (!part || rows.clip_id[at].toLowerCase().includes(part) || rows.reason[at].toLowerCase().includes(part)));
  lines = FIRST_LINES;
  draw();
}

// --- tables

// A table that folds into blocks on a phone has its heads in each cell too.
function table(heads, lines, className = "") {
  if (className) for (const line of lines) line.forEach((one, k) => { one.dataset.head = heads[k].textContent; });
  const body = element("tbody");
  for (const line of lines) body.append(element("tr", {}, ...line));
  return element("table", { className }, element("thead", {}, element("tr", {}, ...heads)), body);
}
const head = (text, isNumber) => element("th", { text, scope: "col", className: isNumber ? "number" : "" });
const cell = (text, className = "number") => element("td", { text, className });

// Entries are [name, [value, note] or null of each side].
function bars(id, entries, { digits = 0, heads = ["", "clips", ""] } = {}) {
  if (!entries.length) return byId(id).replaceChildren(element("p", { className: "quiet", text: "None." }));
  const most = Math.max(...entries.flatMap(([, ...sides]) => sides.map((side) => side?.[0] ?? 0)), 1e-9);
  byId(id).replaceChildren(table([head(heads[0]), head(heads[1], true), head(heads[2])], entries.map(([name, ...sides]) => {
    const drawn = sides.map((side, k) => {
      const bar = element("div", { className: `bar side${sides.length > 1 ? k : ""}` });
      bar.style.width = `${(100 * (side?.[0] ?? 0)) / most}%`;
      return element("div", { className: "line" }, bar);
    });
    const cells = sides.map((side) => element("div", { className: "line", text: number(side?.[0], digits) }, element("small", { text: side?.[1] ?? "" })));
    return [cell(name, "name"), element("td", { className: "number" }, ...cells), element("td", { className: "bars" }, ...drawn)];
  })));
}

function tally(column) {
  const counts = new Map();
  for (const at of shown) if (column[at] != null) counts.set(column[at], (counts.get(column[at]) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([name, count]) => [name, [count, ""]]);
}

function errors() {
  const { words, at: places } = data.filters[byId("by").value] ?? { words: ["all"], at: new Uint8Array(data.count) };
  const sides = (two ? [rows.residual, data.residual_b] : [rows.residual]).map((column) => {
    const parts = words.map(() => []);
    for (const at of shown) if (column[at] != null) for (const place of [places[at]].flat()) parts[place].push(Math.abs(column[at]));
    return parts.map((part) => {
      if (!part.length) return null;
      const centre = mean(part), spread = Math.sqrt(mean(part.map((value) => (value - centre) ** 2)) / Math.max(1, part.length - 1));
      return [centre, part.length > 1 ? ` ± ${number(2 * spread)}, n = ${part.length}` : " n = 1"];
    });
  });
  const entries = words.map((word, k) => [word, ...sides.map((side) => side[k])]).filter(([, ...found]) => found.some(Boolean));
  bars("errors", entries, { digits: 2, heads: [byId("by").value || "clips", "mean error", ""] });
}

function figures() {
  const known = data.statistics.map((_, k) => data.metrics.some((lines) => lines.some(({ values }) => values[k][0] !== null)));
  const titles = data.statistics.map((text, k) => [text, k]).filter(([, k]) => k < 4 || known[k]);
  const part = (group) => {
    const names = data.metrics[0].filter((line) => line.group === group).map(({ name }) => name);
    const found = names.flatMap((name) => data.metrics.map((lines, side) => [side, lines.find((line) => line.group === group && line.name === name)]).filter(([, line]) => line));
    return table([head(group || "data set"), ...(two ? [head("model")] : []), ...titles.map(([text]) => head(text, true))], found.map(([side, line]) => [
      element("td", { className: "name", text: line.name }, element("small", { text: `${line.used} of ${line.expected} clips` })), ...(two ? [element("td", { className: "name" }, swatch(side))] : []),
      ...titles.map(([, k]) => line.values[k]).map(([value, low, high, reason]) => element("td", { className: "number", text: number(value, 3), title: reason ?? "" },
        element("small", { text: low === null ? (value === null ? reason ?? "" : "") : `${number(low, 3)}${low < 0 ? " to " : "–"}${number(high, 3)}` }))),
    ]), "folds");
  };
  const groups = [...new Set(data.metrics[0].map(({ group }) => group))].filter(Boolean);
  byId("figures").replaceChildren(part(""), ...groups.map((group) => element("details", {}, element("summary", { text: `By ${group}` }), part(group))));
  byId("splits").textContent = known.slice(-2).some(Boolean) ? ` Splits: the median over ${data.splits} random fifths, with minimum and maximum.` : "";
}

const swatch = (side) => element("span", { className: "model", text: data.models[side] }, element("i", { className: `side${side}` }));

const COLUMNS = [["clip_id", "clip"], ["status", "status"], ["score", "score"], ...(two ? [["score_b", "other score"]] : []), ["score_std", "spread"],
  ...(labelled ? [["mos", "opinion"], ["residual", "residual"]] : []), ...(two ? [["residual_b", "other residual"]] : [])].filter(([key], place) => place < 3 || column(key).some((value) => value != null));
function column(key) { return key.endsWith("_b") ? data[key] : rows[key]; }

function clips() {
  const { key, down } = sorting, values = column(key), isError = key.startsWith("residual");
  const rank = (at) => (isError && values[at] != null ? Math.abs(values[at]) : values[at]);
  const order = [...shown].sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    if (x == null || y == null) return (x == null) - (y == null) || a - b;
    return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1) || a - b;
  });
  const heads = COLUMNS.map(([name, text], place) => {
    const button = element("button", { type: "button", text: text + (name === key ? (down ? " ▼" : " ▲") : "") });
    button.dataset.key = name;
    button.addEventListener("click", () => {
      sorting = { key: name, down: name === key ? !down : false };
      clips();
      byId("clips").querySelector(`[data-key="${name}"]`).focus();
    });
    const made = element("th", { scope: "col", className: place > 1 ? "number" : "", ariaSort: name === key ? (down ? "descending" : "ascending") : "none" }, button);
    return made;
  });
  byId("clips").replaceChildren(table(heads, order.slice(0, lines).map((at) => COLUMNS.map(([name]) => {
    if (name === "clip_id") return element("td", { className: "name" }, opener(at));
    if (name === "status") return cell(rows.status[at] + (rows.error_kind[at] ? `: ${rows.error_kind[at]}` : ""), "");
    return cell(number(column(name)[at], DIGITS[name]));
  })), "folds"));
  byId("count").textContent = `${shown.length} of ${data.count} clips; ${Math.min(lines, shown.length)} in the table. Residuals sort by their size.`.replace(labelled ? "" : " Residuals sort by their size.", "");
  byId("more").hidden = shown.length <= lines;
}

function opener(at) {
  const button = element("button", { type: "button", className: "link", text: rows.clip_id[at].slice(folder), title: rows.clip_id[at] });
  button.addEventListener("click", () => open(at));
  return button;
}

// --- clips

function numbers(at) {
  const known = COLUMNS.slice(2).map(([key, name]) => [name, column(key)[at], DIGITS[key]]).filter(([, value]) => value != null);
  return element("div", { className: "numbers" }, ...known.map(([name, value, digits]) => element("div", {}, element("span", { text: `${name} ` }), element("b", { text: number(value, digits) }))));
}

function pictures(at) {
  const found = data.thumbnails[rows.clip_id[at]];
  if (!found?.mosaic) return [element("div", { className: "none", text: found?.missing ?? "No picture in this page. `vqa views` draws one." })];
  return [element("img", { className: "mosaic", src: found.mosaic, alt: "Keyframes, row by row" }),
    element("div", { className: "crops" }, ...found.crops.map((src, k) => element("img", { src, alt: `Crop ${k + 1}` })))];
}

function cards(id, places) {
  const chosen = new Set(shown);
  const left = places.filter((at) => chosen.has(at));
  byId(id).replaceChildren(...left.map((at) => element("article", { className: "card" }, ...pictures(at), element("h3", {}, opener(at)), numbers(at), element("p", rows.reason[at] ? { text: rows.reason[at] } : { text: "No reason given.", className: "quiet" }))));
  if (!left.length) byId(id).append(element("p", { className: "quiet", text: places.length ? "None of them matches the filters." : "None." }));
}

function open(at) {
  byId("clip-title").textContent = rows.clip_id[at];
  const facts = Object.entries(data.filters).map(([name, { words, at: places }]) => `${name}: ${[places[at]].flat().map((place) => words[place]).join(" + ")}`).join(", ");
  const error = rows.error[at] ? [element("p", { text: rows.error[at] })] : [];
  byId("clip-body").replaceChildren(numbers(at), element("p", { text: rows.reason[at] }), ...error, ...pictures(at), element("p", { className: "quiet", text: facts }), element("p", { className: "quiet", text: rows.uri[at] }));
  byId("clip").showModal();
}

// --- the page

function draw() {
  clips();
  histogram();
  bars("status", tally(rows.status));
  cards("worst", data.worst);
  if (!labelled) {
    cards("best", data.best);
    bars("failures", tally(all.map((at) => rows.error_kind[at] ?? (rows.status[at] === "ok" ? null : rows.status[at]))));
    return;
  }
  scatters();
  errors();
}

function theme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  byId("theme").textContent = dark ? "Light" : "Dark";
  draw();
  if (labelled) { certainty(); shares(); }
  else if (data.videos.length) timeline();
}

byId("theme").addEventListener("click", () => theme(!document.documentElement.classList.contains("dark")));
byId("more").addEventListener("click", () => { lines += 200; clips(); });
if (labelled) {
  for (const [id, name] of [["scatter", data.models[0]], ...(two ? [["scatter_b", data.models[1]]] : [])]) {
    const canvas = element("canvas", { id, role: "img", ariaLabel: "Scores against opinions; arrow keys go from clip to clip, Enter opens one" });
    byId("scatters").append(element("section", {}, element("h2", { text: `Score and opinion: ${name}` }), element("p", { className: "quiet", id: `${id}-fit` }), element("div", { className: "plot tall" }, canvas)));
  }
  for (const name of ["resolution", "duration", "codec", "distortion", ...Object.keys(data.filters)]) {
    if (data.filters[name] && ![...byId("by").options].some((one) => one.value === name)) byId("by").append(element("option", { value: name, text: name }));
  }
  byId("by").addEventListener("change", errors);
  figures();
  if (two) for (const id of ["residual-models", "error-models"]) byId(id).append(swatch(0), swatch(1));
} else if (data.videos.length) {
  byId("timelines").hidden = false;
  data.videos.forEach(({ name }, at) => byId("video").append(element("option", { value: String(at), text: name })));
  byId("video").addEventListener("change", timeline);
  byId("videos").append(table([head("video"), head("mean", true), head("5 % below", true), head("windows", true)], data.videos.slice(0, 50).map((video, at) => {
    const button = element("button", { type: "button", className: "link", text: video.name });
    button.addEventListener("click", () => { byId("video").value = String(at); timeline(); byId("timelines").scrollIntoView(); });
    return [element("td", { className: "name" }, button), cell(number(video.mean)), cell(number(video.p5)), cell(String(video.windows.length))];
  })));
}
theme(matchMedia("(prefers-color-scheme: dark)").matches);
// Ready once laid out and painted, two frames after the scripts; the value is when these had run.
const scripted = String(Math.round(performance.now()));
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = scripted; }));
