"use strict";
// Everything from the data becomes text by textContent: a file name or a reason can never be markup.
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.columns, labelled = data.kind === "evaluation", two = Boolean(data.score_b);
const byId = (id) => document.getElementById(id);
const COLOURS = ["#3b78d8", "#d6452b", "#12875a", "#9a55c4", "#b3771a", "#0f8fae", "#c23c78", "#6f7a2a"];
const all = Array.from({ length: data.count }, (_, at) => at);
const charts = {};
let shown = all, sorting = { key: labelled ? "residual" : "score", down: labelled }, lines = 50;

function element(tag, { text, ...settings } = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), settings);
  if (text !== undefined) made.textContent = text;
  made.append(...inside);
  return made;
}
const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

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
  shown = all.filter((at) => wanted.every(([places, value]) => places[at] === value)
    && (!part || rows.clip_id[at].toLowerCase().includes(part) || rows.reason[at].toLowerCase().includes(part)));
  lines = 50;
  draw();
}

// --- charts

function chart(id, settings) {
  charts[id]?.destroy();
  const grid = { color: css("--rule") }, ticks = { color: css("--quiet") };
  const axis = (text) => ({ grid, ticks, title: { display: true, text, color: css("--ink") } });
  charts[id] = new Chart(byId(id), {
    ...settings,
    options: {
      animation: false, maintainAspectRatio: false, ...settings.options,
      scales: { x: { ...axis(settings.x), ...settings.xAxis }, y: { ...axis(settings.y), ...settings.yAxis } },
      plugins: { legend: { display: false, labels: { color: css("--ink"), filter: (item) => Boolean(item.text) } }, ...settings.plugins },
    },
  });
}

function points(id, { x, y, xName, yName, under = [], xAxis, yAxis }) {
  const sets = data.filters["data set"] ?? { words: [""], at: new Uint8Array(data.count) };
  const parts = sets.words.map(() => []);
  for (const at of shown) if (x[at] != null && y[at] != null) parts[sets.at[at]].push({ x: x[at], y: y[at], at });
  const size = shown.length > 2000 ? 1.6 : 3;
  const datasets = parts.map((part, k) => ({
    label: sets.words[k], data: part, pointRadius: size, pointHoverRadius: 6, pointHitRadius: 4, borderWidth: 0,
    backgroundColor: COLOURS[k % COLOURS.length] + (shown.length > 2000 ? "99" : "cc"), order: 1,
  }));
  chart(id, {
    type: "scatter", x: xName, y: yName, xAxis, yAxis, data: { datasets: [...datasets, ...under] },
    options: {
      parsing: false, normalized: true, events: ["mousemove", "mouseout", "click", "touchstart"],
      onClick: (_, hits) => { const hit = hits.find(({ datasetIndex }) => datasetIndex < parts.length); if (hit) open(parts[hit.datasetIndex][hit.index].at); },
    },
    plugins: {
      legend: { display: sets.words.length > 1, labels: { color: css("--ink"), filter: (item) => Boolean(item.text) } },
      tooltip: { callbacks: { label: ({ raw }) => raw.at === undefined ? "" : `${rows.clip_id[raw.at].slice(-60)}: ${number(raw.x)}, ${number(raw.y)}` } },
    },
  });
  walk(byId(id), charts[id], parts);
}

// By keyboard: arrows go from point to point (left to right), Enter opens the clip.
function walk(canvas, drawn, parts) {
  const order = parts.flatMap((part, datasetIndex) => part.map(({ x, at }, index) => ({ x, at, datasetIndex, index }))).sort((a, b) => a.x - b.x);
  let place = -1;
  canvas.tabIndex = 0;
  canvas.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter" && place >= 0) return open(order[place].at);
    if (!step || !order.length) return;
    event.preventDefault();
    place = Math.min(order.length - 1, Math.max(0, place + step));
    drawn.setActiveElements([order[place]]);
    drawn.tooltip.setActiveElements([order[place]], { x: 0, y: 0 });
    drawn.update("none");
  };
}

function curve(name) {
  const { x, y, band: [below, above] } = data.curves[name];
  const line = (offset, more) => ({
    type: "line", label: "", data: x.map((value, k) => ({ x: value, y: y[k] + offset })),
    borderColor: css("--ink"), borderWidth: 2, pointRadius: 0, pointHitRadius: 0, order: 0, ...more,
  });
  const edge = { borderWidth: 1, borderDash: [4, 4], borderColor: css("--quiet") };
  return [line(0), line(below, edge), line(above, { ...edge, fill: "-1", backgroundColor: css("--bar") + "44" })];
}

function scatters() {
  const names = Object.keys(data.curves);
  const picked = selects["data set"]?.value;
  const set = picked ? data.filters["data set"].words[+picked] : names.length === 1 ? names[0] : null;
  points("scatter", { x: rows.score, y: rows.mos, xName: "score", yName: "opinion", under: set && data.curves[set] ? curve(set) : [] });
  byId("fit").textContent = set && data.curves[set]
    ? "Line: 4-parameter logistic; between the dashes lie 90 % of the set's clips."
    : "Pick one data set above to see its fit: opinions of several sets share no scale.";
  if (two) points("scatter_b", { x: data.score_b, y: rows.mos, xName: "score", yName: "opinion" });
  points("residuals", {
    x: rows.mos, y: rows.residual, xName: "opinion", yName: "residual",
    yAxis: { grid: { color: ({ tick }) => (tick.value === 0 ? css("--ink") : css("--rule")) } },
  });
}

function histogram() {
  const sides = [[rows.score, data.models?.[0] ?? "score"], ...(two ? [[data.score_b, data.models[1]]] : [])];
  const scores = sides.map(([column]) => shown.map((at) => column[at]).filter((value) => value != null));
  const low = Math.min(...scores.flat().length ? [scores.flat().reduce((a, b) => Math.min(a, b))] : [1]);
  const high = Math.max(...scores.flat().length ? [scores.flat().reduce((a, b) => Math.max(a, b))] : [5]);
  const bins = 24, width = (high - low) / bins || 1;
  chart("histogram", {
    type: "bar", x: "score", y: "clips", xAxis: { ticks: { color: css("--quiet"), maxTicksLimit: 9 } },
    data: {
      labels: Array.from({ length: bins }, (_, k) => number(low + (k + 0.5) * width)),
      datasets: scores.map((values, side) => {
        const counts = new Array(bins).fill(0);
        for (const value of values) counts[Math.min(bins - 1, Math.floor((value - low) / width))] += 1;
        return { label: sides[side][1], data: counts, backgroundColor: COLOURS[side] + "cc", categoryPercentage: 1, barPercentage: 0.95 };
      }),
    },
    plugins: { legend: { display: two, labels: { color: css("--ink") } } },
  });
}

function certainty() {
  const { reliability, calibration } = data;
  const bins = calibration?.reliability ?? reliability;
  if (!bins && !calibration) return;
  byId("certainty").hidden = false;
  byId("coverage").textContent = calibration
    ? `Calibrated opinion ± ${number(calibration.half_width)}: held ${number(100 * calibration.coverage, 1)} % of ${calibration.measured.clips} clips that the fit never saw (wanted ${number(100 * calibration.coverage_wanted, 0)} %; 95 % interval ${number(100 * calibration.coverage_low, 1)} to ${number(100 * calibration.coverage_high, 1)} %).`
    : "Not calibrated. Error by the spread that the model reports, in tenths of the clips:";
  byId("reliability").parentElement.hidden = !bins;
  if (bins) chart("reliability", {
    type: "scatter", x: "spread of the answers (score_std)", y: "root mean square error",
    data: { datasets: [{ data: bins.map(({ score_std, rmse }) => ({ x: score_std, y: rmse })), showLine: true, borderColor: COLOURS[0], backgroundColor: COLOURS[0] }] },
  });
}

function timeline() {
  const video = data.videos[+byId("video").value];
  const steps = video.windows.flatMap(([start, end, score]) => [{ x: start, y: score }, { x: end, y: score }]);
  chart("timeline", {
    type: "scatter", x: "seconds", y: "score", yAxis: { min: 1, max: 5 },
    data: { datasets: [{ data: steps, showLine: true, borderColor: COLOURS[0], backgroundColor: COLOURS[0], pointRadius: 2, borderWidth: 2, spanGaps: false }] },
  });
}

// --- tables

function table(heads, lines) {
  const body = element("tbody");
  for (const line of lines) body.append(element("tr", {}, ...line));
  return element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
}
const head = (text, isNumber) => element("th", { text, scope: "col", className: isNumber ? "number" : "" });
const cell = (text, className = "number") => element("td", { text, className });

function bars(id, entries, { digits = 0, heads = ["", "clips", ""] } = {}) {
  const most = Math.max(...entries.map(([, value]) => value), 1e-9);
  byId(id).replaceChildren(table([head(heads[0]), head(heads[1], true), head(heads[2])], entries.map(([name, value, note = ""]) => {
    const bar = element("div", { className: "bar" });
    bar.style.width = `${(100 * value) / most}%`;
    return [cell(name, "name"), element("td", { className: "number", text: number(value, digits) }, element("small", { text: note })), element("td", { className: "bars" }, bar)];
  })));
}

function tally(column) {
  const counts = new Map();
  for (const at of shown) if (column[at] != null) counts.set(column[at], (counts.get(column[at]) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function errors() {
  const { words, at: places } = data.filters[byId("by").value] ?? { words: ["all"], at: new Uint8Array(data.count) };
  const parts = words.map(() => []);
  for (const at of shown) if (rows.residual[at] != null) parts[places[at]].push(Math.abs(rows.residual[at]));
  bars("errors", parts.map((part, k) => {
    const centre = mean(part), spread = Math.sqrt(mean(part.map((value) => (value - centre) ** 2)) / Math.max(1, part.length - 1));
    return [words[k], centre, part.length > 1 ? ` ± ${number(2 * spread)}, n = ${part.length}` : " n = 1", part.length];
  }).filter((entry) => entry[3]), { digits: 2, heads: [byId("by").value || "clips", "mean error", ""] });
}

function figures() {
  const heads = [head("clips of"), ...(two ? [head("model")] : []), head("used", true), ...["SRCC", "PLCC (logistic)", "KRCC", "RMSE (logistic)"].map((text) => head(text, true))];
  const names = data.metrics[0].map(({ name }) => name);
  const found = names.flatMap((name) => data.metrics.map((lines, side) => [side, lines.find((line) => line.name === name)]).filter(([, line]) => line));
  byId("figures").replaceChildren(table(heads, found.map(([side, line]) => [
    cell(line.name, "name"), ...(two ? [cell(data.models[side], "")] : []), cell(`${line.used} of ${line.expected}`),
    ...line.values.map(([value, low, high, reason]) => element("td", { className: "number", text: number(value, 3), title: reason ?? "" },
      element("br"), element("small", { text: value === null ? "" : low === null ? "" : `${number(low, 3)} to ${number(high, 3)}` }))),
  ])));
  const reasons = [...new Set(data.metrics.flat().flatMap(({ values }) => values.map((value) => value[3]).filter(Boolean)))];
  byId("figures").append(...reasons.map((text) => element("p", { className: "quiet", text: `– ${text}` })));
}

const COLUMNS = [["clip_id", "clip"], ["status", "status"], ["score", "score"], ...(two ? [["score_b", "other score"]] : []), ["score_std", "spread"],
  ...(labelled ? [["mos", "opinion"], ["residual", "residual"]] : [])];
const column = (key) => (key === "score_b" ? data.score_b : rows[key]);

function clips() {
  const { key, down } = sorting, values = column(key), isError = key === "residual";
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
    return cell(number(column(name)[at]));
  }))));
  byId("count").textContent = `${shown.length} of ${data.count} clips; ${Math.min(lines, shown.length)} in the table. Residuals sort by their size.`.replace(labelled ? "" : " Residuals sort by their size.", "");
  byId("more").hidden = shown.length <= lines;
}

function opener(at) {
  const button = element("button", { type: "button", className: "link", text: rows.clip_id[at] });
  button.addEventListener("click", () => open(at));
  return button;
}

// --- clips

function numbers(at) {
  const known = [["score", rows.score[at]], ...(two ? [["other score", data.score_b[at]]] : []), ...(labelled ? [["opinion", rows.mos[at]], ["residual", rows.residual[at]]] : []), ["spread", rows.score_std[at]]];
  return element("div", { className: "numbers" }, ...known.map(([name, value]) => element("div", {}, element("span", { text: `${name} ` }), element("b", { text: number(value) }))));
}

function pictures(at) {
  const seen = data.seen[rows.clip_id[at]];
  if (!seen?.mosaic) return [element("div", { className: "none", text: seen?.missing ?? "No pictures of this clip in the page, which holds those of the extremes; `vqa views` draws them." })];
  return [element("img", { className: "mosaic", src: seen.mosaic, alt: "Keyframes, row by row" }),
    element("div", { className: "crops" }, ...seen.crops.map((src, k) => element("img", { src, alt: `Crop ${k + 1}` })))];
}

function cards(id, places) {
  const chosen = new Set(shown);
  const left = places.filter((at) => chosen.has(at));
  byId(id).replaceChildren(...left.map((at) => element("article", { className: "card" }, ...pictures(at), element("h3", {}, opener(at)), numbers(at), element("p", { text: rows.reason[at] || "No reason given." }))));
  if (!left.length) byId(id).append(element("p", { className: "quiet", text: "None of them is left by the filters." }));
}

function open(at) {
  byId("clip-title").textContent = rows.clip_id[at];
  const facts = Object.entries(data.filters).map(([name, { words, at: places }]) => `${name}: ${words[places[at]]}`).join(", ");
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
    bars("failures", tally(rows.error_kind));
    return;
  }
  scatters();
  errors();
}

function theme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  byId("theme").textContent = dark ? "Light" : "Dark";
  draw();
  if (labelled) certainty();
  else if (data.videos.length) timeline();
}

byId("theme").addEventListener("click", () => theme(!document.documentElement.classList.contains("dark")));
byId("more").addEventListener("click", () => { lines += 200; clips(); });
if (labelled) {
  for (const [id, name] of [["scatter", data.models[0]], ...(two ? [["scatter_b", data.models[1]]] : [])]) {
    const canvas = element("canvas", { id, role: "img", ariaLabel: "Scores against opinions; arrow keys go from clip to clip, Enter opens one" });
    byId("scatters").append(element("section", {}, element("h2", { text: `Score and opinion: ${name}` }), element("p", { className: "quiet", id: id === "scatter" ? "fit" : "" }), element("div", { className: "plot tall" }, canvas)));
  }
  for (const name of ["resolution", "duration", "codec", "distortion", ...Object.keys(data.filters)]) {
    if (data.filters[name] && ![...byId("by").options].some((one) => one.value === name)) byId("by").append(element("option", { value: name, text: name }));
  }
  byId("by").addEventListener("change", errors);
  figures();
} else if (data.videos.length) {
  byId("timelines").hidden = false;
  data.videos.forEach(({ name }, at) => byId("video").append(element("option", { value: String(at), text: name })));
  byId("video").addEventListener("change", timeline);
  byId("videos").append(table([head("video"), head("mean", true), head("5th percentile", true), head("windows", true)], data.videos.slice(0, 50).map((video, at) => {
    const button = element("button", { type: "button", className: "link", text: video.name });
    button.addEventListener("click", () => { byId("video").value = String(at); timeline(); byId("timelines").scrollIntoView(); });
    return [element("td", { className: "name" }, button), cell(number(video.mean)), cell(number(video.p5)), cell(String(video.windows.length))];
  })));
}
theme(matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.dataset.ready = String(Math.round(performance.now()));
