// Curves as numbers: reading, smoothing, averaging, thinning out.

const GROUPS = ["train", "validation", "privacy"];

/** Return the running sums of differences. */
function sums(differences, factor = 1) {
  let sum = 0;
  return differences.map((difference) => (sum += difference) * factor);
}

/** Compute the values of the x axes of each curve. */
function prepare(run) {
  for (const group of GROUPS) {
    const curve = run[group];
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

/** Return the mean of curves, with the lowest and the highest value, at the steps that all have. */
function average(curves) {
  const [first, ...others] = curves;
  const places = others.map((curve) => new Map(curve.step.map((step, index) => [step, index])));
  const result = { x: [], y: [], low: [], high: [] };
  first.step.forEach((step, index) => {
    const indices = [index, ...places.map((place) => place.get(step))];
    if (indices.includes(undefined)) return;
    const y = indices.map((place, k) => curves[k].y[place]);
    const x = indices.map((place, k) => curves[k].x[place]);
    if (y.includes(null) || x.includes(null)) return;
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    result.x.push(mean(x));
    result.y.push(mean(y));
    result.low.push(Math.min(...y));
    result.high.push(Math.max(...y));
  });
  return result;
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

/** Return the smallest and the largest of many numbers, without nulls and, if so demanded, only positive ones. */
function extremes(values, onlyPositive) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || (onlyPositive && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}
