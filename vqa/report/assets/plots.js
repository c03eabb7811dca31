"use strict";
// The charts, from the data, rows and filters of page.js, which runs after this file.
const COLOURS = ["#4a86e8", "#d6452b", "#12875a", "#9a55c4", "#c23c78", "#6f7a2a", "#7d5a44", "#5f6f83"]; // data sets
const MODELS = ["#0c8f9c", "#e0861a"]; // as .side0 and .side1 of page.css
const charts = {};

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

// Points in parts, each [name, colour, [{ x, y, at }]].
function points(id, { parts, xName, yName, under = [], xAxis, yAxis, named = parts.length > 1 }) {
  const many = shown.length > 2000, size = many ? 1.6 : 3;
  const drawn = parts.map(([label, colour, data]) => ({
    label, data: data.sort((a, b) => a.x - b.x), // the library takes points that it need not parse as sorted
    pointRadius: size, pointHoverRadius: 6, pointHitRadius: 4, borderWidth: 0, backgroundColor: colour + (many ? "80" : "bf"), order: 1,
  }));
  chart(id, {
    type: "scatter", x: xName, y: yName, xAxis, yAxis, data: { datasets: [...drawn, ...under] },
    options: {
      parsing: false, normalized: true, interaction: { mode: "nearest" }, events: ["mousemove", "mouseout", "click", "touchstart"],
      onClick: (_, hits) => { const hit = hits.find(({ datasetIndex }) => datasetIndex < drawn.length); if (hit) open(drawn[hit.datasetIndex].data[hit.index].at); },
    },
    plugins: {
      legend: { display: named, labels: { color: css("--ink"), usePointStyle: true, pointStyle: "circle", boxHeight: 7, filter: (item) => Boolean(item.text) } },
      tooltip: { callbacks: { label: ({ raw }) => raw.at === undefined ? "" : `${rows.clip_id[raw.at].slice(-60)}: ${number(raw.x)}, ${number(raw.y)}` } },
    },
  });
  walk(byId(id), charts[id], drawn.map(({ data }) => data));
}

function bySet(x, y) {
  const sets = data.filters["data set"] ?? { words: [""], at: new Uint8Array(data.count) };
  const parts = sets.words.map((word, k) => [word, COLOURS[k % COLOURS.length], []]);
  for (const at of shown) if (x[at] != null && y[at] != null) parts[sets.at[at]][2].push({ x: x[at], y: y[at], at });
  return parts;
}

const byModel = () => [rows.residual, data.residual_b].map((column, side) => [
  data.models[side], MODELS[side], shown.filter((at) => column[at] != null).map((at) => ({ x: rows.mos[at], y: column[at], at })),
]);

// By keyboard: arrows go from point to point (left to right), Enter opens the clip.
function walk(canvas, drawn, parts) {
  const order = parts.flatMap((part, datasetIndex) => part.map(({ x, at }, index) => ({ x, at, datasetIndex, index }))).sort((a, b) => a.x - b.x);
  let place = -1;
  canvas.tabIndex = 0;
  canvas.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    const opens = event.key === "Enter" && place >= 0;
    if (!order.length || !(step || opens)) return;
    event.preventDefault(); // else Enter goes on to the dialog's button and closes it
    if (opens) return open(order[place].at);
    place = Math.min(order.length - 1, Math.max(0, place + step));
    drawn.setActiveElements([order[place]]);
    drawn.tooltip.setActiveElements([order[place]], { x: 0, y: 0 });
    drawn.update("none");
  };
}

function curve({ x, y, band: [below, above] }) {
  const line = (offset, more) => ({
    type: "line", label: "", data: x.map((value, k) => ({ x: value, y: y[k] + offset })),
    borderColor: css("--ink"), borderWidth: 2, pointRadius: 0, pointHitRadius: 0, order: 0, ...more,
  });
  const edge = { borderWidth: 1, borderDash: [4, 4], borderColor: css("--quiet") };
  return [line(0), line(below, edge), line(above, { ...edge, fill: "-1", backgroundColor: css("--bar") + "44" })];
}

function scatters() {
  const picked = selects["data set"]?.value, names = Object.keys(data.curves[0]);
  const set = picked ? data.filters["data set"].words[+picked] : names.length === 1 ? names[0] : null;
  const [lowest, highest] = [Math.min, Math.max].map((end) => rows.mos.reduce((a, b) => end(a, b)));
  const yAxis = { min: Math.floor(lowest), max: Math.ceil(highest) }; // one for both models
  [["scatter", rows.score], ["scatter_b", data.score_b]].slice(0, data.models.length).forEach(([id, x], side) => {
    const found = data.curves[side][set];
    points(id, { parts: bySet(x, rows.mos), xName: "score", yName: "opinion", yAxis, under: found ? curve(found) : [] });
    byId(`${id}-fit`).textContent = found
      ? "Line: 4-parameter logistic; between the dashes lie 90 % of the set's clips."
      : set ? "No curve could be fitted to this set." : "Pick one data set above to see its fit: opinions of several sets share no scale.";
  });
  points("residuals", {
    parts: two ? byModel() : bySet(rows.mos, rows.residual), named: !two && Boolean(data.filters["data set"]), xName: "opinion", yName: "residual",
    yAxis: { grid: { color: ({ tick }) => (tick.value === 0 ? css("--ink") : css("--rule")) } },
  });
}

function histogram() {
  const other = (at) => (data.residual_b[at] == null ? null : data.residual_b[at] + rows.mos[at]);
  const sides = two ? [[rows.mapped, data.models[0]], [all.map(other), data.models[1]]] : [[rows.score, "score"]]; // two models share only the opinions' scale
  const scores = sides.map(([column]) => shown.map((at) => column[at]).filter((value) => value != null));
  const found = scores.flat(), first = found.reduce((a, b) => Math.min(a, b), Infinity), last = found.reduce((a, b) => Math.max(a, b), -Infinity);
  const rough = last > first ? Math.max((last - first) / 30, 1e-4) : 0.1, ten = 10 ** Math.floor(Math.log10(rough));
  const width = [1, 2, 5, 10].find((step) => step * ten >= rough * 0.999) * ten; // bins at round numbers
  const place = (value) => Math.floor(value / width + 1e-6);
  const bins = found.length ? place(last) - place(first) + 1 : 0, digits = Math.max(0, -Math.floor(Math.log10(width)));
  const edge = (k) => (place(first) + k) * width;
  chart("histogram", {
    type: "bar", x: two ? "score on the opinions' scale" : "score", y: "clips", xAxis: { type: "linear", offset: false, grid: { display: false }, min: edge(0), max: edge(bins), ticks: { color: css("--quiet"), includeBounds: false } }, yAxis: { ticks: { color: css("--quiet"), precision: 0 } },
    data: {
      datasets: scores.map((values, side) => {
        const counts = Array.from({ length: bins }, (_, k) => ({ x: edge(k + 0.5), y: 0, k }));
        for (const value of values) counts[place(value) - place(first)].y += 1;
        return { label: sides[side][1], data: counts, backgroundColor: MODELS[side] + "cc", categoryPercentage: 1, barPercentage: 0.95 };
      }),
    },
    plugins: {
      legend: { display: two, labels: { color: css("--ink") } },
      tooltip: { callbacks: { title: ([{ raw }]) => `${number(edge(raw.k), digits)} to ${number(edge(raw.k + 1), digits)}` } },
    },
  });
}

function certainty() {
  const { reliability, calibration } = data;
  const bins = calibration?.reliability ?? reliability;
  if (!bins && !calibration) return;
  byId("certainty").hidden = false;
  byId("coverage").textContent = calibration
    ? `Calibrated opinion ± ${number(calibration.half_width)}: contains ${number(100 * calibration.coverage, 1)} % of ${calibration.test.clips} held-out clips (target ${number(100 * calibration.coverage_target, 0)} %; 95 % interval ${number(100 * calibration.coverage_low, 1)} to ${number(100 * calibration.coverage_high, 1)} %).`
    : "Not calibrated. Error by the spread that the model reports, in tenths of the clips:";
  byId("reliability").parentElement.hidden = !bins;
  if (!bins) return;
  const most = Math.max(...bins.map((bin) => bin.score_std)), honest = [0, most].map((value) => ({ x: value, y: value }));
  chart("reliability", {
    type: "scatter", x: "spread of the answers (score_std)", y: "root mean square error", xAxis: { min: 0 }, yAxis: { min: 0 },
    plugins: { legend: { display: true, labels: { color: css("--ink"), boxHeight: 1 } } },
    data: { datasets: [{ label: "error, a tenth of the clips each", data: bins.map(({ score_std, rmse }) => ({ x: score_std, y: rmse })), showLine: true, borderColor: MODELS[0], backgroundColor: MODELS[0] },
      { label: "error as large as the spread", data: honest, showLine: true, pointRadius: 0, borderWidth: 1, borderDash: [4, 4], borderColor: css("--quiet"), backgroundColor: css("--quiet") }] },
  });
}

function shares() {
  if (!data.shares) return;
  byId("cascade").hidden = false;
  const line = (key, more) => ({
    data: data.shares.filter((point) => point[key] !== null).map((point) => ({ x: 100 * point.share, y: point[key] })),
    showLine: true, borderColor: MODELS[0], backgroundColor: MODELS[0], ...more,
  });
  const edge = { pointRadius: 0, borderWidth: 1, borderDash: [4, 4], borderColor: css("--quiet") };
  chart("shares", {
    type: "scatter", x: "clips scored by the reasoner (%)", y: "SRCC", xAxis: { min: 0 },
    data: { datasets: [line("srcc", { pointRadius: 3 }), line("low", edge), line("high", edge)] },
  });
}

function timeline() {
  const video = data.videos[+byId("video").value];
  const steps = video.windows.flatMap(([start, end, score]) => [{ x: start, y: score }, { x: end, y: score }]);
  chart("timeline", {
    type: "scatter", x: "seconds", y: "score", yAxis: { min: 1, max: 5 },
    data: { datasets: [{ data: steps, showLine: true, borderColor: MODELS[0], backgroundColor: MODELS[0], pointRadius: 2, borderWidth: 2, spanGaps: false }] },
  });
}
