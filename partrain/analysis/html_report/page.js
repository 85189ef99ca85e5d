// The page of a comparison: the controls of the charts.

// The initial smoothing leaves about so many independent values per curve.
const SMOOTHED_VALUES = 40;

function say(text) {
  element("no-curves").textContent = text;
  element("no-curves").hidden = false;
}

/** Show the selected runs in the charts, and dim the others in the tables. */
function draw(runs, ranges) {
  const shown = new Set([...document.querySelectorAll("#runs input:checked")].map((box) => Number(box.dataset.run)));
  element("smoothing-value").value = Number(element("smoothing").value).toFixed(3);
  for (const cell of document.querySelectorAll("th[data-run], td[data-run]")) {
    cell.classList.toggle("off", !shown.has(Number(cell.dataset.run)));
  }
  return drawCharts(runs, shown, ranges);
}

/** Hide the charts and controls without curves, and choose the initial smoothing and scales. */
function prepareControls(runs) {
  const numValues = Math.max(1, ...runs.map((run) => run.train.step.length));
  element("smoothing").value = Math.max(0, 1 - SMOOTHED_VALUES / numValues);
  element("groups-control").hidden = runs.groups.length === 0;
  element("validation-control").hidden = !runs.some((run) => run.validation.step.length);
  for (const chart of CHARTS) {
    const hasCurves = chart.groups.some((group) => runs.some((run) => run[group][chart.id]));
    element(chart.id).parentElement.hidden = !hasCurves && chart.id !== "loss";
    element(`log-${chart.id}`).checked = isBetterLogarithmic(chart, runs);
  }
}

function connectControls(runs, ranges) {
  const redraw = () => draw(runs, ranges);
  for (const { id } of CHARTS.filter((chart) => element(chart.id).on)) {
    element(id).on("plotly_relayout", (change) => {
      const range = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (change["xaxis.autorange"]) ranges[id] = null;
      else if (range[0] !== undefined) ranges[id] = range.map(Number);
      else return;
      redraw();
    });
  }
  element("curves").addEventListener("input", (event) => {
    if (event.target.id === "x-axis") CHARTS.forEach(({ id }) => { ranges[id] = null; });
    redraw();
  });
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  const boxes = document.querySelectorAll("#runs input");
  boxes.forEach((box) => box.addEventListener("input", redraw));
  for (const [id, on] of [["all-runs", true], ["no-runs", false]]) {
    element(id)?.addEventListener("click", () => {
      boxes.forEach((box) => { box.checked = on; });
      redraw();
    });
  }
  for (const marked of document.querySelectorAll("#runs li[data-run], thead th[data-run]")) {
    marked.addEventListener("pointerenter", () => emphasise(Number(marked.dataset.run)));
    marked.addEventListener("pointerleave", () => emphasise(null));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

async function start() {
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("li[data-run], th[data-run]").forEach((marked) => {
    marked.style.setProperty("--run", colour(Number(marked.dataset.run)));
  });
  if (typeof DecompressionStream === "undefined") {
    for (const id of ["controls", "charts"]) element(id).hidden = true;
    say("This browser is too old to draw the curves; a browser from 2023 or later is needed. The tables below are complete.");
    return;
  }
  await loadPlotly();
  const packed = JSON.parse(await unpack("packed-data"));
  const runs = Object.assign(packed.runs.map(prepare), { groups: packed.groups });
  const ranges = Object.fromEntries(CHARTS.map(({ id }) => [id, null]));
  prepareControls(runs);
  await draw(runs, ranges);
  connectControls(runs, ranges);
  document.documentElement.dataset.drawn = "yes";
}

start().catch((error) => {
  say(`The curves cannot be drawn: ${error.message}. The tables below are complete.`);
  throw error;
});
