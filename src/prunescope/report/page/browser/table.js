const ROW = 78;
const FILTERS = { "": "all units", interpretable: "interpretable", not: "not interpretable", above: "above chance", localised: "localised", dead: "dead", removed: "removed", changed: "other concept than one level before" };
const COLUMNS = [["unit", "Unit"], ["label", "Concept"], ["images", "Most exciting images"], ["category", "Category"], ["iou", "IoU"], ["interval", "95 % interval"], ["fate", "Fate"], ["dense", "At level 0"], ["q", "q"]];

// All units of a level, whatever has become of them, with their concept in the dense network and one level before.
function entries(units) {
  const row = units.levels.indexOf(state.level), dense = units.levels.indexOf(0);
  if (row < 0) return [];
  return Array.from(units.units, (_, place) => {
    const one = unitAt(units, row, place);
    const first = dense >= 0 ? unitAt(units, dense, place) : null, before = row ? unitAt(units, row - 1, place) : null;
    one.dense = first?.interpretable ? first.label : "";
    one.changed = Boolean(before && (before.interpretable !== one.interpretable || (one.interpretable && before.concept !== one.concept)));
    one.removed = !one.present;
    one.not = !one.interpretable;
    one.interval = one.low;
    return one;
  });
}

function chosen(all) {
  const text = state.find.trim().toLowerCase(), number = /^\d+$/.test(text) ? Number(text) : null;
  const found = all.filter((one) => (!state.show || one[state.show]) && (!state.category || one.category === state.category) && (!state.fate || one.fate === state.fate)
    && (!text || one.unit === number || `${one.label}\n${one.dense}`.toLowerCase().includes(text)));
  const key = state.sort, sign = state.down ? -1 : 1;
  const worth = (one) => (key === "iou" || key === "interval" || key === "q" || key === "unit" ? (missing(one[key]) ? -1 : one[key]) : null);
  const order = worth(found[0] ?? {}) === null ? (a, b) => sign * String(a[key]).localeCompare(String(b[key])) || b.iou - a.iou
    : key === "iou" ? (a, b) => sign * ((a.interpretable - b.interpretable) || ((a.present && !a.dead) - (b.present && !b.dead)) || (a.iou ?? 0) - (b.iou ?? 0)) || a.unit - b.unit
    : (a, b) => sign * (worth(a) - worth(b)) || a.unit - b.unit;
  return found.sort(order);
}

// The columns that the page has data for.
function columns(units) {
  const known = { interval: units.low, fate: units.fate.some((fate) => fate !== 255), dense: severalLevels() && units.levels.includes(0), q: units.q, images: study.pictures };
  return COLUMNS.filter(([name]) => !(name in known) || known[name]);
}

function unitsView() {
  const body = el("tbody"), count = el("output", { "aria-live": "polite" }), known = el("div", { class: "scroll units", tabindex: 0, role: "region", "aria-label": "Units" });
  const select = (name, label, options) => el("label", {}, label, " ", el("select", { id: `filter-${name}`, onchange: (event) => go({ [name]: event.target.value }, true) },
    options.map(([value, text]) => el("option", { value, selected: state[name] === value }, text))));
  const field = el("input", { type: "search", id: "find", value: state.find, autocomplete: "off", placeholder: "a concept, or a unit number", oninput: (event) => { state.find = event.target.value; history.replaceState(null, "", address({})); update(); } });
  const categories = [...new Set(study.categories_of)].sort().map((name) => [name, shorten(name)]);
  const header = (shown) => el("tr", {}, shown.map(([name, text]) => el("th", { scope: "col", class: `c-${name}`, "aria-sort": name && state.sort === name ? (state.down ? "descending" : "ascending") : null },
    name !== "images" ? el("button", { type: "button", onclick: () => go({ sort: name, down: state.sort === name ? 1 - state.down : ["iou", "interval"].includes(name) ? 1 : 0 }, true) }, TERMS[name] ? term(name, text) : text, state.sort === name ? (state.down ? " ▼" : " ▲") : "") : text)));
  const table = el("table", { class: "list" }, body);
  known.append(table);
  let all = [], found = [], maps = null, drawn = "", shown = COLUMNS;
  const paint = () => {
    const first = Math.max(0, Math.floor(known.scrollTop / ROW) - 3), last = Math.min(found.length, first + Math.ceil(known.clientHeight / ROW) + 7);
    const key = `${first}-${last}`;
    if (key === drawn) return;
    drawn = key;
    const gap = (rows) => { const line = el("tr", { class: "gap", "aria-hidden": "true" }, el("td", { colspan: shown.length })); line.firstChild.style.height = `${rows * ROW}px`; return line; };
    body.replaceChildren(...(first ? [gap(first)] : []), ...found.slice(first, last).map((one, place) => unitRow(one, first + place, maps, shown)), ...(last < found.length ? [gap(found.length - last)] : []));
  };
  const update = () => {
    found = chosen(all);
    table.setAttribute("aria-rowcount", found.length + 1);
    count.textContent = `${found.length} of ${all.length} units`;
    drawn = "";
    paint();
  };
  known.addEventListener("scroll", () => requestAnimationFrame(paint));
  Promise.all([unitsOf(state.layer, state.trial), mapsOf(state.layer, state.trial, state.level)]).then(([units, found_]) => { all = entries(units); maps = found_; shown = columns(units); table.prepend(el("thead", {}, header(shown))); update(); }).catch(problem);
  return [
    el("h2", {}, `Units of ${layerName()}${atLevel()}`),
    el("form", { class: "tools", "aria-label": "Filter units", onsubmit: (event) => event.preventDefault() },
      el("label", {}, "Find ", field), select("category", "Category", [["", "all"], ...categories]), study.curves.fate_kept && select("fate", "Fate", [["", "all"], ...study.fates.map((fate) => [fate, fate])]),
      select("show", "Show", Object.entries(FILTERS)), truthBox(), count,
      button("Save as CSV", () => download("units.csv", toCsv(["unit", "label", "category", "iou", "iou_low", "iou_high", "interpretable", "dead", "removed", "fate", "dense_label", "q"], found.map((one) => [one.unit, one.label, one.category, one.iou, one.low, one.high, one.interpretable, one.dead, one.removed, one.fate, one.dense, one.q])), "text/csv"))),
    known, legend(),
  ];
}
const truthBox = () => (study.pictures ? el("label", { class: "check" }, el("input", { type: "checkbox", id: "truth", checked: Boolean(state.truth), onchange: (event) => go({ truth: event.target.checked ? 1 : 0 }, true) }), " also outline the labelled pixels (blue)") : null);
const legend = () => (study.pictures ? el("p", { class: "legend" }, "The ", term("mask"), " of the unit is outlined in yellow", state.truth ? ", and the labelled pixels of its concept in blue" : "", ". Choose an image to enlarge it.") : null);

function unitRow(one, place, maps, shown) {
  const visible = new Set(shown.map(([name]) => name));
  const images = el("td", { class: "images" }, one.present && maps ? [0, 1, 2, 3].map((rank) => example(maps, one.unit, rank, one.concept, 66, `Image ${rank + 1} of unit ${one.unit}, ${shorten(nameOf(one))}`)) : one.present ? "no example images" : "its filter was pruned");
  return el("tr", { "aria-rowindex": place + 2, class: one.interpretable ? null : "not", "data-unit": one.unit },
    el("th", { scope: "row" }, link({ view: "unit", unit: one.unit }, `unit ${one.unit}`)),
    el("td", { class: "text", title: one.label }, one.concept >= 0 && one.present && !one.dead ? link({ view: "concept", concept: one.label }, shorten(one.label, 40)) : nameOf(one)),
    visible.has("images") && images, el("td", {}, shorten(one.category, 20)), el("td", { class: "number" }, one.present ? fixed(one.iou) : "–"), visible.has("interval") && el("td", { class: "number" }, missing(one.low) ? "–" : `${fixed(one.low)} to ${fixed(one.high)}`),
    visible.has("fate") && el("td", {}, one.fate), visible.has("dense") && el("td", { class: "text", title: one.dense }, shorten(one.dense, 40)), visible.has("q") && el("td", { class: "number" }, fixed(one.q)));
}
