// Draws line charts of a table on the page with uPlot. The table stays; without this script it
// is open.
//
// <div data-chart="TABLE-ID" data-columns="delivered opened" data-unit="%"> takes the columns
// with these <th data-name>. Each <td data-value> has a number, the first one a time.
"use strict";
(() => {
  // Series differ by dashes, too, not only by color.
  const DASHES = [[], [6, 4], [2, 3], [10, 4, 2, 4]];
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const color = name => getComputedStyle(root).getPropertyValue(name).trim();
  const DAY = 86400;
  // Ticks are whole days, because values are per day. A month of uPlot has 30.
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 90, 180, 365].map(days => days * DAY);
  // At least a week, because uPlot would show years for a single point.
  const week = (first, last) => {
    const more = Math.max(0, 7 * DAY - (last - first)) / 2;
    return [first - more, last + more];
  };
  const charts = [];

  function columns(table, names) {
    const heads = [...table.tHead.rows[0].cells].map(cell => cell.dataset.name);
    const rows = [...table.tBodies[0].rows];
    const read = name => rows.map(row => {
      const value = row.cells[heads.indexOf(name)].dataset.value;
      return value ? Number(value) : null;
    });
    const at = read("at");
    const order = at.map((_, n) => n).sort((a, b) => at[a] - at[b]);
    return [at, ...names.map(read)].map(column => order.map(n => column[n]));
  }

  function draw(place) {
    const names = place.dataset.columns.split(" ");
    const percent = place.dataset.unit === "%";
    const show = value => value == null ? "–"
      : percent ? `${(100 * value).toLocaleString("en", { maximumFractionDigits: 2 })} %`
      : value.toLocaleString("en");
    const table = document.getElementById(place.dataset.chart);
    const data = columns(table, names);
    const called = name => table.querySelector(`th[data-name="${name}"]`).textContent;
    const day = (at, more) => new Date(at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", ...more });
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    place.hidden = false;
    place.replaceChildren();
    return new uPlot({
      width: place.clientWidth,
      height: 240,
      cursor: { y: false },
      scales: { x: { range: (_, first, last) => week(first, data[0].length === 1 ? first : last) }, y: { range: (_, low, high) => [percent || low > 0 && low < high / 2 ? 0 : low, high || 1] } },
      axes: [{ ...axis, space: 72, incrs: STEPS, values: (_, ticks) => ticks.map(at => day(at)) }, { ...axis, size: 64, values: (_, ticks) => ticks.map(show) }],
      series: [
        { label: "When", value: (_, at) => at == null ? "–" : day(at, { year: "numeric" }) },
        ...names.map((name, n) => ({
          label: called(name),
          stroke: color(`--series-${n + 1}`),
          width: 2,
          dash: DASHES[n % DASHES.length],
          points: { size: 6, fill: color("--surface"), show: data[0].length < 50 },
          value: (_, value) => show(value),
          spanGaps: true,
        })),
      ],
    }, data, place);
  }

  function all() {
    charts.splice(0).forEach(chart => chart.destroy());
    document.querySelectorAll("[data-chart]").forEach(place => charts.push(draw(place)));
  }

  all();
  dark.addEventListener("change", all);
  addEventListener("resize", () => charts.forEach(chart => {
    const width = chart.root.parentElement.clientWidth;
    if (width !== chart.width) chart.setSize({ width, height: 240 });
  }));
  document.querySelectorAll("details[data-closes]").forEach(details => { details.open = false; });
})();
