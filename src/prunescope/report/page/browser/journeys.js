function unitView() {
  if (state.unit === null) return [el("h2", {}, nameOfView("unit")), chooser(), unitList()];
  return [el("h2", {}, severalLevels() ? `The journey of unit ${state.unit}` : `Unit ${state.unit}`), chooser(), journey(state.unit, state.trial),
    state.other !== null || state.trial2 !== null ? journey(state.other ?? state.unit, state.trial2 ?? state.trial) : null];
}

// The units with the highest IoU, for those who do not know a unit's number.
function unitList() {
  const place = el("section", { "aria-live": "polite" });
  unitsOf(state.layer, state.trial).then((units) => {
    const best = entries(units).filter((one) => one.interpretable).sort((a, b) => b.iou - a.iou).slice(0, 12);
    place.replaceChildren(best.length ? bars(`Units with the highest IoU${atLevel()}`, best.map((one) => ({ unit: one.unit, value: one.iou, text: `${fixed(one.iou)} ${shorten(one.label, 24)}` })), (item) => link({ unit: item.unit }, `unit ${item.unit}`)) : el("p", {}, `No unit is interpretable${atLevel()}. `, link({ view: "units" }, "See all units.")));
  }).catch(problem);
  return place;
}

function chooser() {
  const trials = [...new Set(study.keys.map(([trial]) => trial))];
  const number = (id, label, value, change) => el("label", {}, label, " ", el("input", { type: "number", id, min: 0, value: value ?? "", onchange: changed((text) => go(change(text === "" ? null : Number(text)))) }));
  return el("form", { class: "tools", "aria-label": "Choose units", onsubmit: (event) => event.preventDefault() },
    number("unit", "Unit", state.unit, (unit) => ({ unit })), number("other", "compare with unit", state.other, (other) => ({ other })),
    trials.length > 1 ? el("label", {}, "in trial ", el("select", { id: "trial2", onchange: (event) => go({ trial2: event.target.value === "" ? null : Number(event.target.value) }) }, el("option", { value: "" }, "the same"), trials.map((trial) => el("option", { value: trial, selected: state.trial2 === trial }, String(trial))))) : null, truthBox());
}

function journey(unit, trial) {
  const layer = state.layer, place = el("section", { class: "journey", "aria-label": `Unit ${unit}, trial ${trial}` }, "Loading ...");
  unitsOf(layer, trial).then(async (units) => {
    const at = units.row.get(unit);
    if (at === undefined) { place.replaceChildren(el("p", {}, `Layer ${study.layers[layer]} has no unit ${unit} in trial ${trial}.`)); return; }
    const steps = units.levels.map((level, row) => ({ level, ...unitAt(units, row, at), curve: study.rows.find((one) => one.trial === trial && one.level === level && one.layer === study.layers[layer]) }));
    const maps = await Promise.all(steps.map((step) => mapsOf(layer, trial, step.level)));
    const several = new Set(study.keys.map(([one]) => one)).size > 1;
    place.replaceChildren(...[el("h3", {}, `Unit ${unit}${several ? `, trial ${trial}` : ""}`), story(steps), el("div", { class: "figures" }, iouLine(steps, unit), nextBest(steps)), strip(steps, maps, unit, trial)].filter(Boolean));
  }).catch(problem);
  return place;
}

function story(steps) {
  const parts = [];
  for (const step of steps) {
    const name = step.interpretable ? step.label : step.present && !step.dead ? "not interpretable" : nameOf(step);
    if (parts.at(-1)?.name === name) parts.at(-1).to = step.level;
    else parts.push({ name, from: step.level, to: step.level });
  }
  const where = (part) => (steps.length < 2 ? "" : named() ? ` (${[part.from, part.to].filter((level, place, both) => both.indexOf(level) === place).map(levelName).join(" to ")})` : ` (level ${part.from}${part.to > part.from ? ` to ${part.to}` : ""})`);
  return el("p", { class: "story" }, parts.map((part, place) => [place ? " → " : "", el("b", {}, shorten(part.name)), where(part)]));
}

function iouLine(steps, unit) {
  const rows = steps.filter((step) => step.curve).map((step) => ({ ...step.curve, iou: step.present ? step.iou : null, low: step.low, high: step.high, label: nameOf(step), fate: step.fate, threshold: step.threshold }));
  const known = rows.filter((row) => !missing(row.iou));
  if (rows.length < 2 || !known.length) return null;
  const high = Math.max(study.iou, ...known.flatMap((row) => [row.iou, row.high ?? 0])) * 1.1;
  const { root, x, y } = frame(`IoU of unit ${unit}: ${known.map((row) => `level ${row.level} ${fixed(row.iou)} ${shorten(row.label)}`).join("; ")}`, rows, 0, high, "IoU");
  const band = known.filter((row) => !missing(row.low));
  if (band.length > 1) root.append(svg("path", { d: `${pathOf([...band.map((row) => [x.to(row.level), y(row.high)]), ...band.map((row) => [x.to(row.level), y(row.low)]).reverse()])}Z`, fill: "currentColor", "fill-opacity": 0.13 }));
  root.append(svg("line", { x1: FRAME.left, x2: FRAME.width - FRAME.right, y1: y(study.iou), y2: y(study.iou), stroke: "#d55e00", "stroke-dasharray": "5 3" }),
    svg("path", { d: pathOf(known.map((row) => [x.to(row.level), y(row.iou)])), fill: "none", stroke: COLORS[0], "stroke-width": 1.6 }));
  const names = [...new Set(known.map((row) => row.label))];
  for (const row of known) root.append(svg("circle", { cx: x.to(row.level), cy: y(row.iou), r: 4.5, fill: COLORS[names.indexOf(row.label) % COLORS.length], stroke: "currentColor", "stroke-opacity": row.iou > study.iou ? 1 : 0 }));
  interactive(root, x, (level) => {
    const row = rows.find((one) => one.level === level);
    return row ? [`Level ${level}, ${placeName(row)}`, `${shorten(row.label)}${missing(row.iou) ? "" : `, IoU ${fixed(row.iou)}`}`, missing(row.low) ? null : `${fixed(row.low)} to ${fixed(row.high)}`, row.fate && `fate: ${row.fate}`, missing(row.threshold) ? null : `threshold ${fixed(row.threshold)}`].filter(Boolean) : [];
  });
  return figure(`unit-${unit}`, root, ["The unit's best concept at each level: its ", term("IoU"), " with its 95 % interval over images; the dashed line is the bound of interpretable units. Points of one colour are of one concept."], names.slice(0, 12).map((name) => [COLORS[names.indexOf(name) % COLORS.length], shorten(name)]));
}

function strip(steps, maps, unit, trial) {
  const ranks = [0, 1, 2, 3];
  const image = (step, rank, side) => { const of = maps[steps.indexOf(step)]; return of?.row.has(unit) ? example(of, unit, rank, step.concept, side, `${steps.length > 1 ? `${levelName(step.level)}, image` : "Image"} ${rank + 1}: ${shorten(nameOf(step))}`) : "–"; };
  const cells = (label, value) => el("tr", {}, el("th", { scope: "row" }, label), steps.map((step) => el("td", { class: step.interpretable ? null : "not" }, value(step))));
  const table = el("table", { class: "strip" },
    el("thead", {}, el("tr", {}, el("td"), steps.map((step) => el("th", { scope: "col", "aria-current": step.level === state.level ? "true" : null }, link({ view: "units", level: step.level }, severalLevels() ? levelName(step.level) : "All units"))))),
    el("tbody", {}, !named() && study.rows.some((row) => !missing(positionOf(row))) && cells(study.curves.at ? shorten(study.axis ?? "", 30) : "Weights", (step) => placeName(step.curve)), steps.some((step) => !missing(step.into)) && cells(term("weights into the unit", "Into the unit"), (step) => (missing(step.into) ? "–" : `${percent(step.into)} %`)), cells("Concept", (step) => (step.present && !step.dead && step.label ? link({ view: "concept", concept: step.label, level: step.level }, shorten(step.label, 30)) : nameOf(step))),
      cells("IoU", (step) => (step.present ? fixed(step.iou) : "–")), steps.some((step) => step.fate) && cells(term("fate", "Fate"), (step) => step.fate), steps.some((step) => !missing(step.threshold)) && cells(term("threshold", "Threshold"), (step) => fixed(step.threshold, 2)),
      study.pictures && (steps.length < 2 ? cells("Images", (step) => ranks.map((rank) => image(step, rank, 192))) : ranks.map((rank) => cells(`Image ${rank + 1}`, (step) => image(step, rank, 96))))));
  if (steps.length < 2) table.classList.add("alone");
  const title = el("h4", { id: `strip-${unit}-${trial}` }, severalLevels() ? "Level by level " : "Most exciting images ", study.pictures ? button("Save as PNG", () => saveStrip(table, steps, unit, trial)) : null);
  // Of two units, the same levels stay below each other.
  const box = scrolled(`strip-${unit}-${trial}`, table);
  box.classList.add("levels");
  box.addEventListener("scroll", () => document.querySelectorAll(".levels").forEach((other) => { if (other !== box && other.scrollLeft !== box.scrollLeft) other.scrollLeft = box.scrollLeft; }));
  return el("div", {}, title, box, legend());
}

function saveStrip(table, steps, unit, trial) {
  const side = 100, canvas = el("canvas", { width: steps.length * side + 10, height: 4 * side + 60 }), context = canvas.getContext("2d");
  context.fillStyle = "#ffffff"; context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#24292f"; context.font = "12px sans-serif";
  context.fillText(`${shorten(study.title)}, ${study.layers[state.layer]}, unit ${unit}, trial ${trial}`, 6, 14);
  steps.forEach((step, column) => {
    context.fillText(named() ? levelName(step.level) : placeName(step.curve), 6 + column * side, 32, side - 6);
    context.fillText(shorten(nameOf(step), 20), 6 + column * side, 48, side - 6);
  });
  steps.forEach((_, column) => [...table.tBodies[0].rows].flatMap((row) => [...row.cells[column + 1].querySelectorAll("canvas")]).forEach((drawn, rank) => {
    const scale = (side - 4) / Math.max(drawn.width, drawn.height);
    context.drawImage(drawn, 6 + column * side, 56 + rank * side, drawn.width * scale, drawn.height * scale);
  }));
  canvas.toBlob((blob) => download(`unit-${unit}-trial-${trial}.png`, blob));
}

function nextBest(steps) {
  const step = steps.find((one) => one.level === state.level);
  if (!step?.next.length) return null;
  return bars(`The unit's best concepts${atLevel()}, by IoU`, step.next.map(([concept, iou]) => ({ name: study.names[concept], value: iou, text: fixed(iou) })), (item) => link({ view: "concept", concept: item.name }, shorten(item.name)));
}

function conceptView() {
  const names = [...study.names].sort();
  const field = el("input", { type: "search", id: "concept", list: "concepts", value: state.concept ?? "", autocomplete: "off", onchange: changed((text) => go({ concept: text || null })) });
  const place = el("section", { "aria-live": "polite" });
  const parts = [el("h2", {}, nameOfView("concept")), el("form", { class: "tools", "aria-label": "Choose a concept", onsubmit: (event) => { event.preventDefault(); go({ concept: field.value || null }); } }, el("label", {}, "Concept ", field), el("datalist", { id: "concepts" }, names.map((name) => el("option", { value: name }))), button("Show", () => go({ concept: field.value || null }))), place];
  unitsOf(state.layer, state.trial).then((units) => place.replaceChildren(...[state.concept === null ? detectedList(units) : detectors(units)].flat().filter(Boolean))).catch(problem);
  return parts;
}

function detectedList(units) {
  const row = units.levels.indexOf(state.level), counts = new Map();
  if (row < 0) return [];
  for (let place = 0; place < units.count; place += 1) {
    const one = unitAt(units, row, place);
    if (one.interpretable) counts.set(one.label, (counts.get(one.label) ?? 0) + 1);
  }
  const items = [...counts].sort((a, b) => b[1] - a[1]).map(([name, value]) => ({ name, value, text: `${value} unit${value > 1 ? "s" : ""}` }));
  return [items.length ? bars(`Concepts that units detect${atLevel()}`, items, (item) => link({ concept: item.name }, shorten(item.name))) : el("p", {}, `No unit is interpretable${atLevel()}.`)];
}

function detectors(units) {
  const wanted = state.concept.trim().toLowerCase(), concept = study.names.findIndex((name) => name === state.concept) >= 0 ? study.names.indexOf(state.concept) : study.names.findIndex((name) => name.toLowerCase() === wanted);
  if (concept < 0) return [el("p", {}, `The data set has no concept called ${shorten(state.concept)}. `, link({ concept: null }, "See those that units detect."))];
  const found = [];
  for (let place = 0; place < units.count; place += 1) {
    const steps = units.levels.map((_, row) => unitAt(units, row, place));
    if (steps.some((step) => step.interpretable && step.concept === concept)) found.push({ unit: units.units[place], steps });
  }
  const name = study.names[concept];
  if (!found.length) return [el("p", {}, `No unit of this layer and trial detects ${shorten(name)} at any level.`)];
  const first = (one) => one.steps.findIndex((step) => step.interpretable && step.concept === concept);
  const best = (one) => Math.max(...one.steps.map((step) => (step.interpretable && step.concept === concept ? step.iou : 0)));
  found.sort((a, b) => first(a) - first(b) || best(b) - best(a));
  const most = Math.max(...found.map(best));
  const body = found.map((one) => el("tr", {}, el("th", { scope: "row" }, link({ view: "unit", unit: one.unit }, `unit ${one.unit}`)), one.steps.map((step) => {
    const is = step.interpretable && step.concept === concept;
    const box = el("td", { class: is ? "is" : "not", title: `${nameOf(step)}${step.present ? `, IoU ${fixed(step.iou)}` : ""}` }, is ? fixed(step.iou) : shorten(step.interpretable ? step.label : nameOf(step) === "removed" || step.dead ? nameOf(step) : "·", 12));
    if (is) box.style.setProperty("--share", `${Math.round((70 * step.iou) / most)}%`);
    return box;
  })));
  const counts = units.levels.map((_, row) => found.filter((one) => one.steps[row].interpretable && one.steps[row].concept === concept).length);
  return [el("h3", { id: "detectors" }, `Units that detect ${shorten(name, 80)}`), el("p", {}, `${found.length} unit${found.length > 1 ? "s detect" : " detects"} it at some level, in the order of first detection; blue cells are detections, with the IoU. Other cells name what the unit detects instead; a dot means that it is not interpretable.`),
    scrolled("detectors", el("table", { class: "strip" }, el("thead", {}, el("tr", {}, el("td"), units.levels.map((level) => el("th", { scope: "col", "aria-current": level === state.level ? "true" : null }, severalLevels() ? levelName(level) : "IoU")))), el("tbody", {}, el("tr", {}, el("th", { scope: "row" }, "units"), counts.map((count) => el("td", {}, String(count)))), body)))];
}
