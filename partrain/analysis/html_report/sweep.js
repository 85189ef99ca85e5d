// The chart of a sweep: a heat map of two listed settings, a curve of one, otherwise parallel coordinates.

// From bad to good, distinguishable on light and dark backgrounds.
const SCALE = [[0, "#7a5195"], [0.5, "#ef5675"], [1, "#ffa600"]];
const MAX_CELLS_WITH_TEXT = 150;
// Above the chart, in pixels: plotly's menu would cover its top.
const MENU_HEIGHT = 34;

const element = (id) => document.getElementById(id);
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** Escape a text for plotly, which interprets tags. */
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const number = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : value);

/** Return the settings of a point, a line for each axis, and what it has reached. */
function describe(sweep, setting) {
  const lines = sweep.axes.map((axis, place) => `${plain(axis.name)} ${plain(number(setting.values[place]))}`);
  const runs = setting.trials.map((trial) => trial.name);
  const more = runs.length > 3 ? `${runs.slice(0, 2).join(", ")} and ${runs.length - 2} more` : runs.join(", ");
  return [...lines, `<b>${plain(sweep.objective)} ${plain(setting.text)}</b>`, plain(more)].join("<br>");
}

/** Return the distinct values of an axis, in order. */
function valuesOf(sweep, place) {
  const { choices } = sweep.axes[place];
  if (choices) return choices;
  return [...new Set(sweep.settings.map((setting) => setting.values[place]))].sort((a, b) => a - b);
}

function baseLayout() {
  return {
    paper_bgcolor: variable("--ground"),
    plot_bgcolor: variable("--ground"),
    font: { color: variable("--text"), family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: variable("--raised"), font: { color: variable("--text") }, align: "left", namelength: -1 },
    margin: { l: 56, r: 12, t: MENU_HEIGHT, b: 48 },
    showlegend: false,
    hovermode: "closest",
  };
}

const axisStyle = () => ({ gridcolor: variable("--line"), linecolor: variable("--line"), zeroline: false, automargin: true });
const format = (sweep) => (sweep.highest ? ".4~%" : ".4~g");

/** One axis, or none: the objective against it, with intervals, and a point for each training. */
function curve(sweep) {
  const axis = sweep.axes[0];
  const settings = axis ? [...sweep.settings].sort((a, b) => (axis.choices
    ? axis.choices.indexOf(a.values[0]) - axis.choices.indexOf(b.values[0]) : a.values[0] - b.values[0])) : sweep.settings;
  const points = { x: [], y: [], text: [] };
  for (const setting of settings) {
    for (const trial of setting.trials) {
      points.x.push(axis ? setting.values[0] : trial.repeat);
      points.y.push(trial.value);
      points.text.push(`${plain(trial.name)}, ${sweep.repeats} ${trial.repeat}`);
    }
  }
  const colour = variable("--accent");
  const traces = [{
    ...points, mode: "markers", hovertemplate: `%{text}<br>%{y:${format(sweep)}}<extra></extra>`,
    marker: { color: axis ? variable("--faint") : colour, size: axis ? 6 : 9, opacity: axis ? 0.6 : 1 },
  }];
  if (axis) {
    traces.push({
      x: settings.map((setting) => setting.values[0]),
      y: settings.map((setting) => setting.mean),
      error_y: { type: "data", array: settings.map((setting) => setting.half_width ?? 0), color: colour, thickness: 1.5 },
      mode: axis.choices ? "markers" : "lines+markers",
      line: { color: colour, width: 2 },
      marker: { color: colour, size: 9 },
      text: settings.map((setting) => describe(sweep, setting)),
      hovertemplate: "%{text}<extra></extra>",
    });
  }
  const categories = axis?.choices ? { type: "category", categoryorder: "array", categoryarray: axis.choices } : {};
  const ticks = axis && !axis.choices && axis.listed
    ? { tickvals: valuesOf(sweep, 0), ticktext: valuesOf(sweep, 0).map(number) } : {};
  const whole = axis ? {} : { dtick: 1 };
  const layout = {
    ...baseLayout(),
    xaxis: {
      ...axisStyle(), ...categories, ...ticks, ...whole,
      ...(axis?.log && { type: "log" }), title: { text: plain(axis ? axis.name : sweep.repeats) },
    },
    yaxis: { ...axisStyle(), title: { text: plain(sweep.objective) }, tickformat: format(sweep) },
  };
  if (!axis) {
    const { mean } = sweep.settings[0];
    layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: mean, y1: mean, line: { color: colour, dash: "dash", width: 1.5 } }];
  }
  return { traces, layout, caption: axis ? "Mean and its interval; grey: single trainings." : "Dashed: the mean." };
}

/** Two listed axes: the objective as the colour of a cell. */
function heatMap(sweep) {
  const [xs, ys] = [valuesOf(sweep, 0), valuesOf(sweep, 1)];
  const at = (x, y) => sweep.settings.find((setting) => setting.values[0] === x && setting.values[1] === y);
  const cells = ys.map((y) => xs.map((x) => at(x, y)));
  const sign = sweep.highest ? 1 : -1;
  const withText = xs.length * ys.length <= MAX_CELLS_WITH_TEXT;
  const trace = {
    type: "heatmap",
    x: xs.map((x) => String(number(x))),
    y: ys.map((y) => String(number(y))),
    z: cells.map((row) => row.map((cell) => (cell ? sign * cell.mean : null))),
    text: cells.map((row) => row.map((cell) => (cell && withText ? plain(cell.text).replace(" ± ", "<br>± ") : ""))),
    texttemplate: "%{text}",
    customdata: cells.map((row) => row.map((cell) => (cell ? describe(sweep, cell) : ""))),
    hovertemplate: "%{customdata}<extra></extra>",
    hoverongaps: false,
    colorscale: SCALE,
    showscale: false,
    xgap: 2,
    ygap: 2,
  };
  const category = { ...axisStyle(), type: "category", showgrid: false };
  const layout = {
    ...baseLayout(),
    xaxis: { ...category, title: { text: plain(sweep.axes[0].name) } },
    yaxis: { ...category, title: { text: plain(sweep.axes[1].name) } },
  };
  return { traces: [trace], layout, caption: `${sweep.objective}: orange is best.` };
}

/** Return a function from the values of an axis to heights from 0 to 1, and its ticks. */
function scaleOf(sweep, place) {
  const { choices, log } = sweep.axes[place];
  const values = valuesOf(sweep, place);
  if (choices) {
    const height = (value) => (values.length > 1 ? values.indexOf(value) / (values.length - 1) : 0.5);
    return { height, ticks: values };
  }
  const of = log ? Math.log : (value) => value;
  const [low, high] = [of(values[0]), of(values.at(-1))];
  const height = (value) => (high > low ? (of(value) - low) / (high - low) : 0.5);
  const ticks = values.length <= 6 ? values : [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const value = low + part * (high - low);
    return Number((log ? Math.exp(value) : value).toPrecision(2));
  });
  return { height, ticks };
}

/** More axes, or ranges: a line for each setting, whose colour is the objective. */
function parallelCoordinates(sweep) {
  const scales = sweep.axes.map((_, place) => scaleOf(sweep, place));
  const means = sweep.settings.map((setting) => setting.mean);
  const [low, high] = [Math.min(...means), Math.max(...means)];
  const height = (mean) => (high > low ? (mean - low) / (high - low) : 0.5);
  const last = sweep.axes.length;
  const style = (setting) => mix(sweep.highest ? height(setting.mean) : 1 - height(setting.mean));
  const traces = [...sweep.settings].reverse().map((setting) => ({
    x: [...sweep.axes.keys(), last],
    y: [...setting.values.map((value, place) => scales[place].height(value)), height(setting.mean)],
    mode: "lines+markers",
    line: { color: style(setting), width: setting === sweep.settings[0] ? 3.5 : 1.5, shape: "linear" },
    marker: { color: style(setting), size: setting === sweep.settings[0] ? 9 : 5 },
    opacity: setting === sweep.settings[0] ? 1 : 0.65,
    text: describe(sweep, setting),
    hovertemplate: "%{text}<extra></extra>",
  }));
  const ticks = [...scales.entries()].flatMap(([place, scale]) => scale.ticks.map((value) => (
    { place, height: scale.height(value), text: number(value) })));
  const shown = (value) => (sweep.highest ? `${(100 * value).toFixed(2)}%` : value.toPrecision(4));
  for (const part of high > low ? [0, 0.5, 1] : [0.5]) {
    ticks.push({ place: last, height: part, text: shown(high > low ? low + part * (high - low) : low) });
  }
  const layout = {
    ...baseLayout(),
    margin: { l: 62, r: 66, t: MENU_HEIGHT, b: 48 },
    annotations: ticks.map((tick) => ({
      x: tick.place, y: tick.height, text: plain(tick.text), showarrow: false,
      xanchor: tick.place === last ? "left" : "right", xshift: tick.place === last ? 8 : -8,
      font: { size: 11, color: variable("--text") }, bgcolor: `${variable("--ground")}b0`,
    })),
    xaxis: {
      ...axisStyle(), tickvals: [...sweep.axes.keys(), last],
      ticktext: [...sweep.axes.map((axis) => plain(axis.name)), plain(sweep.objective)], range: [-0.15, last + 0.05],
    },
    yaxis: { visible: false, range: [-0.06, 1.06] },
  };
  return { traces, layout, caption: "A line is a setting; orange is best, and the best one is bold." };
}

/** Return the colour at a share of the scale. */
function mix(share) {
  const upper = SCALE.findIndex(([place]) => place >= share);
  const [[low, from], [high, to]] = [SCALE[Math.max(0, upper - 1)], SCALE[Math.max(1, upper)]];
  const parts = (colour) => [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  const mixed = parts(from).map((part, k) => Math.round(part + ((share - low) / (high - low)) * (parts(to)[k] - part)));
  return `rgb(${mixed.join(", ")})`;
}

function draw(sweep) {
  const isMap = sweep.axes.length === 2 && sweep.axes.every((axis) => axis.listed);
  const { traces, layout, caption } = sweep.axes.length < 2 ? curve(sweep) : isMap ? heatMap(sweep) : parallelCoordinates(sweep);
  element("caption").textContent = caption;
  return Plotly.react(element("chart"), traces, layout, { responsive: true, displaylogo: false });
}

async function start() {
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  if (!element("chart")) return;
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old; one from 2023 or later is needed");
  }
  await loadPlotly();
  const sweep = JSON.parse(await unpack("packed-data"));
  await draw(sweep);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(sweep));
  document.documentElement.dataset.drawn = "yes";
}

start().catch((error) => {
  element("no-chart").textContent = `The chart cannot be drawn: ${error.message}. The tables below are complete.`;
  element("no-chart").hidden = false;
  throw error;
});
