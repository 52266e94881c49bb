const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const FRAME = { left: 52, right: 10, top: 10, bottom: 40, width: 380, height: 230 };

const trialName = (trial) => (study.trial_names ? shorten(study.trial_names[trial], 30) : `Trial ${trial}`);
const positionOf = (row) => (study.curves.at ? row.at : row.weights_remaining);
const placeName = (row) => (!row ? "" : study.curves.at ? String(row.at_label) : `${percent(row.weights_remaining)} %`);

// Levels are drawn at equal distances from left to right, which is a logarithmic axis where each level prunes alike.
function positions(rows) {
  const levels = [...new Set(rows.map((row) => row.level))].sort((a, b) => a - b);
  const byLevel = new Map(levels.map((level) => {
    const found = rows.filter((row) => row.level === level).map(positionOf).filter((value) => !missing(value));
    return [level, found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : null];
  }));
  const values = [...byLevel.values()];
  const logarithmic = !study.curves.at && values.every((value) => value > 0);
  const scaled = (level) => (logarithmic ? -Math.log(byLevel.get(level)) : study.curves.at ? byLevel.get(level) : level);
  const ends = levels.map(scaled);
  const low = Math.min(...ends), high = Math.max(...ends);
  const inner = FRAME.width - FRAME.left - FRAME.right - 16;
  const to = (level) => FRAME.left + 8 + (high > low ? (inner * (scaled(level) - low)) / (high - low) : inner / 2);
  return { levels, to };
}

function ticksUpTo(low, high) {
  const step = [1, 2, 2.5, 5, 10].map((one) => one * 10 ** Math.floor(Math.log10((high - low) / 4 || 1)))
    .find((one) => (high - low) / one <= 5) ?? 1;
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step) ticks.push(tick);
  return ticks;
}

function frame(words, rows, low, high, label) {
  const x = positions(rows);
  const y = (value) => FRAME.height - FRAME.bottom - ((FRAME.height - FRAME.top - FRAME.bottom) * (value - low)) / (high - low || 1);
  const root = svg("svg", { viewBox: `0 0 ${FRAME.width} ${FRAME.height}`, role: "img", "aria-label": words, "font-size": 11.5, "font-family": "sans-serif", fill: "currentColor" });
  for (const tick of ticksUpTo(low, high)) {
    root.append(
      svg("line", { x1: FRAME.left, x2: FRAME.width - FRAME.right, y1: y(tick), y2: y(tick), stroke: "currentColor", "stroke-opacity": 0.15 }),
      svg("text", { x: FRAME.left - 6, y: y(tick) + 4, "text-anchor": "end" }, tidy(tick, 2)));
  }
  let last = -Infinity;
  for (const level of x.levels) {
    if (x.to(level) - last < (study.curves.at ? 56 : 28)) continue;
    last = x.to(level);
    const row = rows.find((one) => one.level === level);
    const name = study.curves.at ? shorten(String(row.at_label), 9) : percent(row.weights_remaining);
    const anchor = name.length < 6 ? "middle" : level === x.levels[0] ? "start" : level === x.levels.at(-1) ? "end" : "middle";
    root.append(svg("text", { x: last, y: FRAME.height - FRAME.bottom + 15, "text-anchor": anchor }, missing(positionOf(row)) ? String(level) : name));
  }
  const axis = study.curves.at ? study.axis ?? "" : rows.some((row) => !missing(row.weights_remaining)) ? "Weights remaining (%)" : "Level";
  root.append(
    svg("text", { x: (FRAME.left + FRAME.width - FRAME.right) / 2, y: FRAME.height - 6, "text-anchor": "middle" }, axis),
    svg("text", { transform: `translate(10 ${(FRAME.height - FRAME.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, label));
  return { root, x, y };
}

// Hovering shows the values at the nearest level; clicking moves the whole page to it.
function interactive(root, x, tell) {
  const mark = svg("line", { y1: FRAME.top, y2: FRAME.height - FRAME.bottom, stroke: "currentColor", "stroke-opacity": 0.6, "stroke-dasharray": "2 3", class: "mark" });
  const put = (level) => { if (x.levels.includes(level)) for (const end of ["x1", "x2"]) mark.setAttribute(end, x.to(level)); };
  put(state.level);
  const nearest = (event) => {
    const box = root.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * FRAME.width;
    return x.levels.reduce((best, level) => (Math.abs(x.to(level) - at) < Math.abs(x.to(best) - at) ? level : best));
  };
  root.append(mark);
  root.addEventListener("mousemove", (event) => showTip(event, tell(nearest(event))));
  root.addEventListener("mouseleave", hideTip);
  root.addEventListener("click", (event) => go({ level: nearest(event) }, true));
}
function showTip(event, lines) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line) => el("div", {}, line)));
  tip.hidden = false;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}
const hideTip = () => { byId("tip").hidden = true; };

function figure(name, root, caption, values = []) {
  return el("figure", { id: name },
    root,
    values.length ? el("ul", { class: "values" }, values.map(([color, text]) => {
      const item = el("li", {}, color ? el("i", { "aria-hidden": "true" }) : null, text);
      if (color) item.firstChild.style.background = color;
      return item;
    })) : null,
    el("figcaption", {}, caption, " ", button("Save as SVG", () => {
      const copy = root.cloneNode(true);
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      copy.setAttribute("color", "#24292f");
      copy.querySelector(".mark")?.remove();
      download(`${name}.svg`, new XMLSerializer().serializeToString(copy), "image/svg+xml");
    })));
}

// The area between the second and the third number of each point.
const areaOf = (points) => `${pathOf([...points.map(([at, high]) => [at, high]), ...points.map(([at, , low]) => [at, low]).reverse()])}Z`;
const pathOf = (points) => points.map(([a, b], place) => `${place ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");

// panel: {name, column, label, caption, scale, floor, references: [[column, name]], breaks}
function curve(panel, rows) {
  const scale = panel.scale ?? 1;
  const trials = [...new Set(rows.map((row) => row.trial))].sort((a, b) => a - b);
  const compared = study.kind === "comparison"; // each study has a band of its own
  const bandRows = trials.length === 1 || compared ? rows : trials.length >= 3 ? meansOf(rows[0].layer) : [];
  const band = bandRows.filter((row) => !missing(row[`${panel.column}_low`]) && !missing(row[`${panel.column}_high`]));
  const references = (panel.references ?? []).filter(([column]) => rows.some((row) => !missing(row[column])));
  const all = [panel.column, ...references.map(([column]) => column)].flatMap((column) => rows.map((row) => row[column]));
  all.push(...references.flatMap(([column]) => bandRows.map((row) => row[`${column}_high`])));
  all.push(...band.flatMap((row) => [row[`${panel.column}_low`], row[`${panel.column}_high`]].map((one) => (panel.floor === null ? one : Math.max(one, 0)))));
  const height = (value) => y((panel.floor === null ? value : Math.max(value, 0)) * scale);
  const known = all.filter((value) => !missing(value)).map((value) => value * scale);
  if (!known.length) return null;
  const high = Math.max(...known), low = panel.floor === null ? Math.min(...known) : 0;
  const margin = (high - low || 1) * 0.06;
  const first = rows.find((row) => row.level === Math.min(...rows.map((one) => one.level)));
  const end = rows.find((row) => row.level === Math.max(...rows.map((one) => one.level)));
  const words = `${panel.label}: ${tidy(mean(rows, panel.column, first.level) * scale)} at ${levelName(first.level).replace("Level", "level")}, ${tidy(mean(rows, panel.column, end.level) * scale)} at ${levelName(end.level).replace("Level", "level")}${trials.length > 1 ? ", as means over trials" : ""}`;
  const { root, x, y } = frame(words, rows, panel.floor === null ? low - margin : 0, high + margin, panel.label);
  for (const trial of compared ? trials : [null]) {
    const ordered = band.filter((row) => trial === null || row.trial === trial).sort((a, b) => a.level - b.level);
    if (ordered.length < 2) continue;
    const area = areaOf(ordered.map((row) => [x.to(row.level), height(row[`${panel.column}_high`]), height(row[`${panel.column}_low`])]));
    root.append(svg("path", { d: area, class: "band", fill: trial === null ? "currentColor" : COLORS[trials.indexOf(trial) % COLORS.length], "fill-opacity": trial === null ? 0.13 : 0.16 }));
  }
  references.forEach(([column], place) => {
    const points = x.levels.map((level) => [x.to(level), mean(rows, column, level)]).filter(([, value]) => !missing(value));
    const around = (compared ? [] : bandRows).filter((row) => !missing(row[`${column}_low`]) && !missing(row[`${column}_high`])).sort((a, b) => a.level - b.level);
    if (around.length > 1) root.append(svg("path", { d: areaOf(around.map((row) => [x.to(row.level), height(row[`${column}_high`]), height(row[`${column}_low`])])), fill: "currentColor", "fill-opacity": 0.08 }));
    root.append(svg("path", { d: pathOf(points.map(([a, b]) => [a, y(b * scale)])), fill: "none", stroke: "currentColor", "stroke-opacity": 0.7, "stroke-dasharray": ["2 3", "6 3", "8 3 2 3"][place] }));
  });
  for (const at of panel.breaks ?? []) {
    const level = x.levels.find((one) => Math.abs((rows.find((row) => row.level === one)?.weights_remaining ?? -1) - at) < 1e-6);
    if (level === undefined) continue;
    root.append(svg("line", { x1: x.to(level), x2: x.to(level), y1: FRAME.top, y2: FRAME.height - FRAME.bottom, stroke: "#d55e00", "stroke-width": 1.5 }),
      svg("text", x.to(level) > FRAME.width - 60 ? { x: x.to(level) - 4, y: FRAME.top + 10, "text-anchor": "end" } : { x: x.to(level) + 4, y: FRAME.top + 10 }, "break"));
  }
  // More trials than colours are grey, except for the chosen one.
  const crowded = trials.length > COLORS.length;
  const colorOf = (trial, place = trials.indexOf(trial)) => (!crowded ? COLORS[place] : trial === state.trial ? COLORS[0] : "currentColor");
  for (const [place, trial] of [...trials.entries()].sort(([, a], [, b]) => (a === state.trial) - (b === state.trial))) {
    const line = rows.filter((row) => row.trial === trial && !missing(row[panel.column])).sort((a, b) => a.level - b.level);
    const color = colorOf(trial, place), drawn = crowded && trial !== state.trial;
    root.append(svg("path", { d: pathOf(line.map((row) => [x.to(row.level), y(row[panel.column] * scale)])), fill: "none", stroke: color, "stroke-opacity": drawn ? 0.35 : 1, "stroke-width": trial === state.trial ? 2.4 : 1.3 }));
    if (!drawn) for (const row of line) root.append(svg("circle", { cx: x.to(row.level), cy: y(row[panel.column] * scale), r: 3, fill: color }));
  }
  const tell = (level) => {
    const here = rows.filter((row) => row.level === level);
    return [named() ? levelName(level) : `Level ${level}, ${placeName(here[0])}`, ...here.map((row) => `${trials.length > 1 ? `${trialName(row.trial)}: ` : ""}${tidy(row[panel.column] * scale, 2)}${interval(row, panel.column, scale)}`),
      ...references.map(([column, name]) => `${name}: ${tidy(mean(rows, column, level) * scale, 2)}`)];
  };
  interactive(root, x, tell);
  const here = rows.filter((row) => row.level === state.level && (!crowded || row.trial === state.trial));
  const values = here.map((row) => [colorOf(row.trial), `${trials.length > 1 ? `${trialName(row.trial)}: ` : `${levelName(row.level)}: `}${missing(row[panel.column]) ? "–" : tidy(row[panel.column] * scale, 2)}${interval(row, panel.column, scale)}`]);
  if (crowded) values.push([null, `grey: ${trials.length - 1} other ${compared ? "studies" : "trials"} (mean of all ${tidy(mean(rows, panel.column, state.level) * scale, 2)})`]);
  values.push(...references.map(([column, name], place) => [null, `${["dotted", "dashed", "dash-dotted"][place]}: ${name}${missing(mean(rows, column, state.level)) ? "" : ` (${tidy(mean(rows, column, state.level) * scale, 1)})`}`]));
  if (band.length > 1) values.push([null, compared ? "bands: 95 % intervals of each study" : `band: 95 % interval over ${trials.length === 1 ? "images" : "trials"}`]);
  return figure(panel.name, root, panel.caption, values);
}
const interval = (row, column, scale) => (missing(row[`${column}_low`]) ? "" : ` (${tidy(row[`${column}_low`] * scale, 1)} to ${tidy(row[`${column}_high`] * scale, 1)})`);
function mean(rows, column, level) {
  const values = rows.filter((row) => row.level === level).map((row) => row[column]).filter((value) => !missing(value));
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}
const meansOf = (layer) => (study.means ? rowsOf(study.means).filter((row) => row.layer === layer) : []);

function fateAreas(rows) {
  const order = ["kept", "unsure", "changed", "gained", "lost", "never", "dead", "removed"];
  const shown = order.filter((fate) => rows.some((row) => row[`fate_${fate}`]));
  if (!shown.length || new Set(rows.map((row) => row.level)).size < 2) return null;
  const levels = [...new Set(rows.map((row) => row.level))].filter((level) => !missing(mean(rows, `fate_${shown[0]}`, level))).sort((a, b) => a - b);
  const most = Math.max(...levels.map((level) => shown.reduce((sum, fate) => sum + mean(rows, `fate_${fate}`, level), 0)));
  const { root, x, y } = frame(`Fates of the dense network's units, means over trials. At the last level: ${shown.map((fate) => `${fate} ${tidy(mean(rows, `fate_${fate}`, levels.at(-1)))}`).join(", ")}`, rows, 0, most, "Units");
  const below = levels.map(() => 0);
  for (const fate of shown) {
    const base = levels.map((level, place) => [x.to(level), y(below[place])]).reverse();
    levels.forEach((level, place) => { below[place] += mean(rows, `fate_${fate}`, level); });
    const top = levels.map((level, place) => [x.to(level), y(below[place])]);
    root.append(svg("path", { d: `${pathOf([...top, ...base])}Z`, fill: study.fate_colors[fate] }));
  }
  const lines = (level) => shown.map((fate) => `${fate}: ${tidy(mean(rows, `fate_${fate}`, level))}`);
  interactive(root, x, (level) => [`Level ${level}`, ...lines(level)]);
  return figure("fates", root, ["What becomes of the dense network's units (", term("fate"), "); means over trials. ", shown.map((fate) => [link({ view: "units", fate }, fate), " "])],
    shown.map((fate) => [study.fate_colors[fate], `${fate}: ${tidy(mean(rows, `fate_${fate}`, state.level))}`]));
}

function heat(layer, column, title) {
  if (!study.sensitivity?.[column]) return null;
  const rows = rowsOf(study.sensitivity).filter((row) => row.layer === layer && !missing(row[column]));
  if (!rows.length) return null;
  const levels = [...new Set(rows.map((row) => row.level))].sort((a, b) => a - b);
  const bounds = [...new Set(rows.map((row) => row.bound))].sort((a, b) => a - b);
  const value = (level, bound) => {
    const found = rows.filter((row) => row.level === level && row.bound === bound).map((row) => row[column]);
    return found.reduce((sum, one) => sum + one, 0) / found.length;
  };
  const most = Math.max(...rows.map((row) => row[column]), 1);
  const root = svg("svg", { viewBox: `0 0 ${FRAME.width} ${FRAME.height}`, role: "img", "font-size": 11.5, "font-family": "sans-serif", fill: "currentColor",
    "aria-label": `${title} at bounds of the IoU from ${bounds[0]} to ${bounds.at(-1)}: at the bound ${bounds[4] ?? bounds[0]}, ${tidy(value(levels[0], bounds[4] ?? bounds[0]))} at level ${levels[0]} and ${tidy(value(levels.at(-1), bounds[4] ?? bounds[0]))} at level ${levels.at(-1)}` });
  const wide = (FRAME.width - FRAME.left - FRAME.right) / levels.length, high = (FRAME.height - FRAME.top - FRAME.bottom) / bounds.length;
  levels.forEach((level, column_) => {
    bounds.forEach((bound, line) => {
      const count = value(level, bound), share = count / most;
      root.append(svg("rect", { x: FRAME.left + column_ * wide, y: FRAME.height - FRAME.bottom - (line + 1) * high, width: wide + 0.3, height: high + 0.3,
        fill: `rgb(${Math.round(253 * share)},${Math.round(34 + 197 * share)},${Math.round(78 - 22 * share)})`,
        onmousemove: (event) => showTip(event, [`Level ${level}, IoU above ${bound}`, `${title}: ${tidy(count)}`]), onmouseleave: hideTip, onclick: () => go({ level }, true) }));
    });
    if (column_ % Math.ceil(levels.length / 11) === 0) root.append(svg("text", { x: FRAME.left + (column_ + 0.5) * wide, y: FRAME.height - FRAME.bottom + 15, "text-anchor": "middle" }, String(level)));
  });
  bounds.forEach((bound, line) => { if (line % 4 === 0) root.append(svg("text", { x: FRAME.left - 6, y: FRAME.height - FRAME.bottom - line * high - high / 2 + 4, "text-anchor": "end" }, String(bound))); });
  root.append(svg("text", { x: FRAME.width / 2, y: FRAME.height - 6, "text-anchor": "middle" }, "Level"),
    svg("text", { transform: `translate(12 ${FRAME.height / 2 - 20}) rotate(-90)`, "text-anchor": "middle" }, "Bound of the IoU"));
  return figure(`sensitivity-${column}`, root, `${title} at every bound of the IoU, from 0 (dark) to ${tidy(most)} (bright). This study's bound is ${study.iou}.`);
}

function bars(title, items, labelOf) {
  const most = Math.max(...items.map((item) => item.value), 1e-9);
  return el("table", { class: "bars" }, el("caption", {}, title),
    el("tbody", {}, items.map((item) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${(100 * Math.max(item.value, 0)) / most}%`;
      return el("tr", {}, el("th", { scope: "row" }, labelOf(item)), el("td", {}, bar), el("td", {}, item.text));
    })));
}
