"use strict";

// Of medium lightness, distinguishable on light and dark backgrounds; the colours repeat after twenty runs.
const COLOURS = [
  "#3b82c4", "#e07b1f", "#3fa35b", "#d1495b", "#8e6bbf", "#9c6b4e", "#d46bb0", "#7d8590", "#a9a52b", "#2ba7b5",
  "#1f9e89", "#f0a202", "#6a7fdb", "#b5485d", "#5f8d4e", "#c77dff", "#0096c7", "#bc6c25", "#e5707e", "#6c9a8b",
];
// A curve is drawn as the minimum and maximum of each of so many pieces of the visible range. All curves of a chart
// share a budget, because the time to draw grows with their number.
const MAX_PIECES = 600;
const MAX_PIECES_OF_ALL_CURVES = 6000;
// The initial smoothing leaves about so many independent values per curve.
const SMOOTHED_VALUES = 40;
const METRICS = ["loss", "accuracy"];
const SPLITS = ["train", "validation"];

const element = (id) => document.getElementById(id);
const colour = (run) => COLOURS[run % COLOURS.length];
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Return the text that a script element of the page contains in compressed form. */
async function unpack(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** Return the running sums of differences. */
function sums(differences, factor = 1) {
  let sum = 0;
  return differences.map((difference) => (sum += difference) * factor);
}

/** Compute the values of the x axes of each curve. */
function prepare(run) {
  for (const split of SPLITS) {
    const curve = run[split];
    curve.step = sums(curve.step);
    curve.examples = sums(curve.examples);
    curve.seconds = sums(curve.milliseconds, 0.001);
    curve.epoch = curve.step.map((step) => (run.steps_per_epoch ? step / run.steps_per_epoch : null));
  }
  return run;
}

/** Return the exponential moving average with bias correction; gaps stay gaps. */
function smooth(values, weight) {
  if (weight === 0) return values;
  let average = 0;
  let sum = 0;
  return values.map((value) => {
    if (value === null) return null;
    average = weight * average + (1 - weight) * value;
    sum = weight * sum + (1 - weight);
    return average / sum;
  });
}

/** Return the indices of the points to draw: the minimum and maximum of each piece of the visible range. */
function thin(x, y, range, pieces) {
  let first = 0;
  let last = x.length;
  if (range) {
    while (first < last && x[first] < range[0]) first += 1;
    while (last > first && x[last - 1] > range[1]) last -= 1;
    first = Math.max(0, first - 1);
    last = Math.min(x.length, last + 1);
  }
  const size = Math.max(1, (last - first) / pieces);
  const indices = [];
  for (let start = first; start < last; start += size) {
    const stop = Math.min(last, Math.floor(start + size));
    let low = Math.floor(start);
    let high = low;
    for (let k = low; k < stop; k += 1) {
      if (y[k] === null || y[low] === null || y[k] < y[low]) low = k;
      if (y[k] !== null && (y[high] === null || y[k] > y[high])) high = k;
    }
    indices.push(Math.min(low, high));
    if (low !== high) indices.push(Math.max(low, high));
  }
  if (last > first && indices.at(-1) !== last - 1) indices.push(last - 1);
  return indices;
}

/** Escape a text for plotly, which interprets tags. */
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function trace(run, number, split, metric, range, pieces) {
  const axis = element("x-axis").value;
  const curve = run[split];
  const x = curve[axis];
  const y = smooth(curve[metric], split === "train" ? Number(element("smoothing").value) : 0);
  const indices = thin(x, y, range, pieces);
  const name = plain(`${run.label} ${run.name}`);
  const value = metric === "loss" ? "%{y:.4f}" : "%{y:.2%}";
  return {
    x: indices.map((index) => x[index]),
    y: indices.map((index) => y[index]),
    mode: split === "train" || indices.length > 60 ? "lines" : "lines+markers",
    line: { color: colour(number), width: split === "train" ? 1.4 : 1.8, dash: split === "train" ? "solid" : "dash" },
    marker: { color: colour(number), size: 5 },
    name,
    hovertemplate: `${name}<br>${split} ${metric} ${value}<br>${axis} %{x:,}<extra></extra>`,
  };
}

function layout(metric, range) {
  const axis = element("x-axis").value;
  const line = variable("--line");
  const common = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    title: { text: metric, x: 0.02, font: { size: 15 } },
    paper_bgcolor: variable("--ground"),
    plot_bgcolor: variable("--ground"),
    font: { color: variable("--text"), family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: variable("--raised"), font: { color: variable("--text") }, align: "left", namelength: -1 },
    margin: { l: 48, r: 12, t: 36, b: 40 },
    showlegend: false,
    hovermode: "closest",
    uirevision: axis,
    xaxis: { ...common, title: { text: axis }, exponentformat: "none", ...(range && { range, autorange: false }) },
    yaxis: {
      ...common,
      type: metric === "loss" && element("log-loss").checked ? "log" : "linear",
      ...(metric === "accuracy" && { tickformat: ".4~%" }),
      uirevision: `${axis} ${element("log-loss").checked}`,
    },
  };
}

/** Show the selected runs in both charts, and dim the others in the tables. */
function draw(runs, ranges) {
  const shown = new Set([...document.querySelectorAll("#runs input:checked")].map((box) => Number(box.dataset.run)));
  const splits = SPLITS.filter((split) => element(`show-${split}`).checked);
  element("smoothing-value").value = Number(element("smoothing").value).toFixed(3);
  for (const head of document.querySelectorAll("th[data-run]")) {
    head.parentElement.classList.toggle("off", !shown.has(Number(head.dataset.run)));
  }
  const pieces = Math.min(MAX_PIECES, Math.ceil(MAX_PIECES_OF_ALL_CURVES / Math.max(1, shown.size * splits.length)));
  return Promise.all(METRICS.map((metric) => {
    const traces = splits.flatMap((split) =>
      runs.flatMap((run, number) => (shown.has(number) ? [trace(run, number, split, metric, ranges[metric], pieces)] : [])));
    const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    return Plotly.react(element(metric), traces, layout(metric, ranges[metric]), config);
  }));
}

/** Sort the rows when a column header is clicked: numerically or alphabetically, missing values last. */
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const isNumeric = [...table.tBodies[0].rows].every((row) => key(row) === "" || !Number.isNaN(Number(key(row))));
    const compare = (a, b) => (isNumeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return Number(a === "") - Number(b === "");
      return descending ? compare(b, a) : compare(a, b);
    });
    table.tBodies[0].append(...rows);
  }));
}

function say(text) {
  element("no-curves").textContent = text;
  element("no-curves").hidden = false;
}

async function start() {
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("[data-run]").forEach((marked) => {
    marked.parentElement.style.setProperty("--run", colour(Number(marked.dataset.run)));
  });
  if (typeof DecompressionStream === "undefined") {
    say("This browser is too old to draw the curves; a browser from 2023 or later is needed. The tables below are complete.");
    return;
  }
  const script = document.createElement("script");
  script.textContent = await unpack("packed-plotly");
  document.head.append(script);
  const runs = JSON.parse(await unpack("packed-runs")).map(prepare);
  const numValues = Math.max(1, ...runs.map((run) => run.train.step.length));
  element("smoothing").value = Math.max(0, 1 - SMOOTHED_VALUES / numValues);
  const ranges = { loss: null, accuracy: null };
  const redraw = () => draw(runs, ranges);
  await redraw();
  for (const metric of METRICS) {
    element(metric).on("plotly_relayout", (change) => {
      const range = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (change["xaxis.autorange"]) ranges[metric] = null;
      else if (range[0] !== undefined) ranges[metric] = range.map(Number);
      else return;
      redraw();
    });
  }
  element("controls").addEventListener("input", (event) => {
    if (event.target.id === "x-axis") METRICS.forEach((metric) => { ranges[metric] = null; });
    redraw();
  });
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  const boxes = document.querySelectorAll("#runs input");
  boxes.forEach((box) => box.addEventListener("input", redraw));
  for (const [id, on] of [["all-runs", true], ["no-runs", false]]) {
    element(id).addEventListener("click", () => {
      boxes.forEach((box) => { box.checked = on; });
      redraw();
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.documentElement.dataset.drawn = "yes";
}

start().catch((error) => {
  say(`The curves cannot be drawn: ${error.message}. The tables below are complete.`);
  throw error;
});
