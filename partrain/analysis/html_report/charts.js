// The charts: which curves each one has, and how plotly draws them.

// Distinguishable on light and dark backgrounds, the first ones best; the colours repeat after twenty runs.
const COLOURS = [
  "#2375b1", "#f47111", "#299104", "#d470dd", "#b82c6d", "#949990", "#7888fd", "#6e662a", "#9269a5", "#9b9003",
  "#b46b5b", "#109586", "#6950cb", "#0e9dd5", "#ea566f", "#167168", "#a78abf", "#ac4405", "#a169e4", "#7b7c6a",
];
// A curve is drawn as the minimum and maximum of each of so many pieces of the visible range. All curves of a chart
// share a budget, because the time to draw grows with their number.
const MAX_PIECES = 600;
const MAX_PIECES_OF_ALL_CURVES = 6000;
// With more curves than this, raw ones would hide the smoothed ones, and lines are thinner.
const MAX_RAW_CURVES = 6;
const RAW_OPACITY = 0.22;
// An axis is logarithmic at first if the largest value is so many times the smallest one.
const LARGE_FACTOR = 10;
// The accuracy from which its chart shows the error rate at first.
const HIGH_ACCURACY = 0.9;
// An error rate of 0 is drawn as this: a logarithmic axis does not reach 0.
const SMALLEST_ERROR = 1e-5;

// Above the curves, in pixels: plotly's menu would cover them and their labels.
const MENU_HEIGHT = 34;

const CHARTS = [
  { id: "loss", groups: ["train", "validation"], smoothed: true, text: ".4f" },
  { id: "accuracy", groups: ["train", "validation"], smoothed: true, text: ".2%" },
  { id: "gradient_norm", groups: ["train"], smoothed: true, text: ".4~g" },
  { id: "epsilon", groups: ["privacy"], smoothed: false, text: ".4~g" },
  { id: "learning_rate", groups: ["train"], smoothed: false, text: ".4~g" },
  { id: "examples_per_second", groups: ["train"], smoothed: true, text: ",.0f", fromZero: true },
];

const element = (id) => document.getElementById(id);
const colour = (run) => COLOURS[run % COLOURS.length];
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isLogarithmic = (chart) => element(`log-${chart.id}`).checked;
const showsErrors = (chart) => chart.id === "accuracy" && isLogarithmic(chart);
const title = (chart) => (showsErrors(chart) ? "error rate" : chart.id.replaceAll("_", " "));

/** Escape a text for plotly, which interprets tags. */
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** Return what is drawn as one curve: a run, or several that differ only in the seed. */
function unitsOf(runs, shown) {
  const units = runs.map((run, number) => ({ number, members: [number], name: `${run.label} ${run.name}`, label: run.label }));
  const groups = element("show-groups").checked ? runs.groups : [];
  for (const [index, group] of groups.entries()) {
    const members = group.filter((number) => shown.has(number));
    if (members.length < 2) continue;
    members.forEach((number) => { units[number] = null; });
    const label = `group ${index + 1}`;
    units[members[0]] = { number: members[0], members, name: label, label };
  }
  return units.filter((unit) => unit && unit.members.every((number) => shown.has(number)));
}

/** Return the name of a curve; that of a group says which of its runs have the curve. */
function nameOf(unit, runs, drawn) {
  if (unit.members.length === 1) return unit.name;
  return `${unit.name}: ${drawn.length > 1 ? "mean of" : "only"} ${drawn.map((number) => runs[number].label).join(", ")}`;
}

/** Return a curve with its x and y values; undefined if the run does not have it. */
function curveOf(run, group, chart, weight) {
  const curve = run[group];
  if (!curve[chart.id]) return undefined;
  return { step: curve.step, x: curve[element("x-axis").value], y: smooth(curve[chart.id], weight) };
}

/** Return the height of a value in a chart; null, which is a gap, for what a logarithmic axis does not reach. */
function height(chart, value) {
  if (value === null) return null;
  if (showsErrors(chart)) return Math.max(SMALLEST_ERROR, 1 - value);
  return value <= 0 && isLogarithmic(chart) ? null : value;
}

/** Return the traces of a chart: first those with a name, then the raw curves and the bands behind them. */
function tracesOf(chart, runs, shown, range) {
  const groups = chart.groups.filter((group) => chart.groups.length === 1 || element(`show-${group}`).checked);
  const units = unitsOf(runs, shown);
  const pieces = Math.min(MAX_PIECES, Math.ceil(MAX_PIECES_OF_ALL_CURVES / Math.max(1, units.length * groups.length)));
  const traces = [];
  const behind = [];
  for (const group of groups) {
    const weight = chart.smoothed && group === "train" ? Number(element("smoothing").value) : 0;
    for (const [place, unit] of units.entries()) {
      const drawn = unit.members.filter((number) => runs[number][group][chart.id]);
      if (!drawn.length) continue;
      const curves = drawn.map((number) => curveOf(runs[number], group, chart, weight));
      const curve = curves.length > 1 ? average(curves) : curves[0];
      const indices = thin(curve.x, curve.y, range, pieces);
      const share = units.length > 1 && group === groups[0] ? (place + 1) / (units.length + 1) : null;
      traces.push(lineOf(chart, { ...unit, name: nameOf(unit, runs, drawn) }, group, curve, indices, share, units.length > MAX_RAW_CURVES));
      if (curve.low) behind.push(bandOf(chart, unit, curve, indices));
      else if (weight && units.length <= MAX_RAW_CURVES && element("show-raw").checked) {
        const raw = curveOf(runs[drawn[0]], group, chart, 0);
        behind.push(rawOf(chart, unit, raw, thin(raw.x, raw.y, range, pieces)));
      }
    }
  }
  return [...traces, ...behind];
}

/** Return the trace of a curve. Its label is at a share of its length, so that the labels of all curves are apart. */
function lineOf(chart, unit, group, curve, indices, share, isCrowded) {
  const isValidation = group === "validation";
  const x = indices.map((index) => curve.x[index]);
  const y = indices.map((index) => height(chart, curve.y[index]));
  const isDrawn = (k) => x[k] !== null && y[k] !== null;
  let labelled = share === null ? -1 : Math.round(share * (y.length - 1));
  while (labelled >= 0 && !isDrawn(labelled)) labelled -= 1;
  const name = plain(unit.name);
  const kind = chart.groups.length > 1 ? `${group} ` : "";
  const axis = element("x-axis").value;
  return {
    x,
    y,
    customdata: indices.map((index) => curve.y[index]),
    mode: indices.length <= (isValidation ? 60 : 5) ? "lines+markers" : "lines",
    line: {
      color: colour(unit.number),
      width: isValidation ? 2 : isCrowded ? 1 : 1.6,
      dash: isValidation ? "dash" : "solid",
    },
    marker: { color: colour(unit.number), size: 6 },
    name,
    meta: { members: unit.members, label: unit.label, labelled },
    hovertemplate: `${name}<br>${kind}${chart.id.replaceAll("_", " ")} %{customdata:${chart.text}}<br>${axis} %{x:,}<extra></extra>`,
  };
}

/** Return the labels of the curves, which are above all of them. */
function labelsOf(chart, traces) {
  return traces.filter((trace) => trace.meta.labelled >= 0).map(({ x, y, line, meta }) => ({
    x: x[meta.labelled],
    y: isLogarithmic(chart) ? Math.log10(y[meta.labelled]) : y[meta.labelled],
    text: `<b>${meta.label}</b>`,
    name: meta.members.join(),
    showarrow: false,
    yshift: 11,
    borderpad: 1,
    bgcolor: `${variable("--ground")}c0`,
    font: { color: line.color, size: 13 },
  }));
}

function rawOf(chart, unit, raw, indices) {
  return {
    x: indices.map((index) => raw.x[index]),
    y: indices.map((index) => height(chart, raw.y[index])),
    mode: "lines",
    line: { color: colour(unit.number), width: 1 },
    opacity: RAW_OPACITY,
    hoverinfo: "skip",
    zorder: -1,
    meta: { members: unit.members },
  };
}

/** Return the area between the lowest and the highest curve of a group, where both can be drawn. */
function bandOf(chart, unit, curve, allIndices) {
  const indices = allIndices.filter((index) => [curve.low, curve.high].every((values) => height(chart, values[index]) !== null));
  const back = [...indices].reverse();
  return {
    x: [...indices, ...back].map((index) => curve.x[index]),
    y: [...indices.map((index) => curve.high[index]), ...back.map((index) => curve.low[index])].map((value) => height(chart, value)),
    mode: "lines",
    line: { width: 0, color: colour(unit.number) },
    fill: "toself",
    fillcolor: `${colour(unit.number)}38`,
    hoverinfo: "skip",
    zorder: -1,
    meta: { members: unit.members },
  };
}

/** Return the range of the y axis: of all curves but the raw ones, whose outliers would flatten the others. */
function heightRange(chart, traces) {
  const log = isLogarithmic(chart);
  const found = extremes(traces.filter((trace) => trace.name || trace.fill).flatMap((trace) => trace.y), log);
  if (!found) return undefined;
  let [low, high] = log ? found.map(Math.log10) : found;
  if (showsErrors(chart)) {
    // The smoothed error of training batches can be close to 0 without any meaning.
    const measured = extremes(traces.filter((trace) => trace.line.dash === "dash").flatMap((trace) => trace.y), true);
    if (measured) low = Math.max(low, Math.log10(measured[0] / 10));
  }
  const margin = 0.06 * (high - low) || (log ? 0.1 : 0.1 * Math.abs(high) || 1);
  if (chart.fromZero && !log) return [0, high + margin];
  return [low - margin, high + margin];
}

function layoutOf(chart, traces, range) {
  const axis = element("x-axis").value;
  const line = variable("--line");
  const common = { gridcolor: line, zeroline: false, linecolor: line, automargin: true };
  const log = isLogarithmic(chart);
  const heights = heightRange(chart, traces);
  const format = chart.id === "accuracy" ? ".4~%" : log ? ".3~g" : undefined;
  return {
    paper_bgcolor: variable("--ground"),
    plot_bgcolor: variable("--ground"),
    font: { color: variable("--text"), family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: variable("--raised"), font: { color: variable("--text") }, align: "left", namelength: -1 },
    margin: { l: 56, r: 12, t: MENU_HEIGHT, b: 40 },
    showlegend: false,
    hovermode: "closest",
    uirevision: axis,
    annotations: labelsOf(chart, traces),
    xaxis: { ...common, title: { text: axis }, exponentformat: "none", ...(range && { range, autorange: false }) },
    yaxis: {
      ...common,
      title: { text: title(chart), standoff: 8 },
      type: log ? "log" : "linear",
      nticks: log ? 3 : 8, // with more, plotly labels 6%, 7%, 8%, 9% and 10% one on top of the other
      ...(format && { tickformat: format }),
      ...(heights && { range: heights }),
      uirevision: `${axis} ${log}`,
    },
  };
}

/** Return whether a logarithmic axis shows the curves of a chart better. */
function isBetterLogarithmic(chart, runs) {
  const weight = Number(element("smoothing").value);
  const values = chart.groups.flatMap((group) => runs.flatMap((run) =>
    (curveOf(run, group, chart, chart.smoothed && group === "train" ? weight : 0)?.y ?? [])));
  if (chart.id === "accuracy") {
    const accuracies = extremes(values, false);
    const errors = accuracies && extremes(values.map((value) => (value === null ? null : 1 - value)), true);
    return Boolean(errors) && accuracies[1] >= HIGH_ACCURACY && errors[1] >= LARGE_FACTOR * errors[0];
  }
  if (chart.id !== "loss" && chart.id !== "gradient_norm") return false;
  const found = extremes(values, true);
  return Boolean(found) && found[1] >= LARGE_FACTOR * found[0];
}

/** Draw the selected runs in all charts that have curves. */
function drawCharts(runs, shown, ranges) {
  return Promise.all(CHARTS.filter((chart) => !element(chart.id).parentElement.hidden).map((chart) => {
    const traces = tracesOf(chart, runs, shown, ranges[chart.id]);
    const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    element(chart.id).parentElement.querySelector("b").textContent = title(chart);
    return Plotly.react(element(chart.id), traces, layoutOf(chart, traces, ranges[chart.id]), config);
  }));
}

/** Show one run clearly and all others faintly; null shows all as before. */
function emphasise(run) {
  for (const chart of CHARTS) {
    const { data, layout } = element(chart.id);
    if (!data?.length) continue;
    const isMember = (members) => run === null || members.includes(run);
    const opacity = data.map((trace) => (trace.name || trace.fill ? 1 : RAW_OPACITY) * (isMember(trace.meta.members) ? 1 : 0.12));
    const annotations = layout.annotations.map((label) => (
      { ...label, opacity: isMember(label.name.split(",").map(Number)) ? 1 : 0.12 }));
    Plotly.update(element(chart.id), { opacity }, { annotations });
  }
}
