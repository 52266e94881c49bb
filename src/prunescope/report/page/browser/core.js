const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Children become text nodes, so that a name from a data set is text, whatever it looks like.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const byId = (id) => document.getElementById(id);
const missing = (value) => value === null || value === undefined || Number.isNaN(value);
const fixed = (value, digits = 3) => (missing(value) ? "–" : value.toFixed(digits));
const tidy = (value, digits = 1) => (missing(value) ? "–" : String(Number(value.toFixed(digits))));
const percent = (value) => {
  if (missing(value)) return "–";
  const scaled = 100 * value;
  return scaled >= 1 ? scaled.toFixed(1).replace(/\.0$/, "") : String(Number(scaled.toPrecision(2)));
};
const shorten = (text, most = 60) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const TERMS = {
  unit: "One channel of a layer's output.",
  concept: "A labelled thing such as dog, red or street. A unit's concept is the one with the highest IoU.",
  IoU: "Intersection over union of a unit's mask and a concept's pixels, over the whole data set: 1 is a perfect match.",
  mask: "Where a unit's upsampled activation map is above the unit's threshold. It is outlined in yellow on images.",
  threshold: "The value that a unit exceeds on a small fraction of all positions on all images (0.5 % by default).",
  interpretable: "A unit whose best concept has an IoU above the bound that the study states.",
  level: "How often the network has been pruned. Level 0 is the dense network.",
  "weights remaining": "The weights that pruning has kept, as a share of those that can be pruned.",
  rewinding: "Setting the kept weights back to their values at an early step of training, such as the end of epoch 1 (1ep), and training again.",
  trial: "One chain of levels from one random initialisation.",
  fate: "What has become of a unit of the dense network: kept, changed or unsure (another concept, but resampled images do not show that it has changed), lost, gained, never interpretable, dead or removed.",
  dead: "The unit's activation is the same everywhere, so that it detects nothing.",
  chance: "What would be counted if the labels were those of other images.",
  q: "The p-value against permuted labels, corrected for the number of units. Below 0.05, a unit is above chance.",
  localised: "The unit is interpretable, but not with its mask mirrored left to right, so that it detects the place and not only the image.",
  kappa: "Agreement with the dense network beyond what is expected by chance: 1 is perfect, 0 is chance.",
  "top-1": "The share of validation images whose most probable class, by the network, is the right one.",
  detected: "The different concepts that interpretable units detect. Several units can detect the same one.",
  consistency: "Which share of the dense network's interpretable units are interpretable at this level, and which share of those detect the same concept.",
  "weights into the unit": "The share of the unit's own weights that pruning has kept, in the last convolution of the layer. A unit at the end of a residual block also receives the branch beside it, which is not counted.",
  break: "The fewest weights remaining down to which every level is unchanged.",
};
const term = (word, shown = word) => el("span", { class: "term", title: TERMS[word] }, shown);
// A term that can also be read with the keyboard or by touch.
const explained = (word, shown = word) => el("span", { class: "term", title: TERMS[word], tabindex: 0, role: "note", "aria-label": `${shown}: ${TERMS[word]}`,
  onfocus: (event) => { const box = event.target.getBoundingClientRect(); showTip({ clientX: box.left, clientY: box.bottom - 8 }, [TERMS[word]]); },
  onblur: hideTip, onkeydown: (event) => { if (event.key === "Escape") hideTip(); } }, shown);
// A sentence in which the first use of each term is explained.
const WORDS = { rewinds: "rewinding", IoU: "IoU", "interpretable units": "interpretable", "weights remaining": "weights remaining", "detected concepts": "concept", initialisation: "trial", chance: "chance" };
function sentence(text) {
  const seen = new Set();
  return text.split(new RegExp(`\\b(${Object.keys(WORDS).join("|")})\\b`)).map((part, place) => {
    if (place % 2 === 0 || seen.has(part)) return part;
    seen.add(part);
    return explained(WORDS[part], part);
  });
}

const DEFAULTS = { view: "overview", layer: 0, trial: null, level: null, unit: null, other: null, trial2: null, concept: null,
  find: "", category: "", fate: "", show: "", sort: "iou", down: 1, truth: 0 };
const NUMBERS = ["layer", "trial", "level", "unit", "other", "trial2", "down", "truth"];
let state = { ...DEFAULTS };

function readState() {
  const found = { ...DEFAULTS };
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (!(name in DEFAULTS)) continue;
    if (!NUMBERS.includes(name)) found[name] = value;
    else if (/^\d{1,9}$/.test(value)) found[name] = Number(value);
  }
  if (!location.hash.includes("view=")) {
    if (found.unit !== null) found.view = "unit";
    else if (found.concept !== null) found.view = "concept";
  }
  return found;
}

function address(change) {
  const wanted = { ...state, ...change };
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(wanted)) {
    if (value !== DEFAULTS[name] && value !== null && value !== "") fields.set(name, value);
  }
  return `#${fields}`;
}

// A change of the view can be undone with the browser's back button; moving a slider or typing is not such a change.
function go(change, keep = false) {
  const next = address(change);
  if (next === location.hash || (next === "#" && !location.hash)) return;
  history[keep ? "replaceState" : "pushState"](null, "", next);
  render();
}
const link = (change, ...children) =>
  el("a", { href: address(change), onclick: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    go(change);
    if (change.view && change.view !== "units") byId("main").focus({ preventScroll: false });
  } }, ...children);

function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
const cell = (value) => {
  const text = missing(value) ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const toCsv = (names, rows) => [names, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
// The enter key both changes a field and submits its form, which must still be there when it is submitted.
const changed = (act) => (event) => { const field = event.target; setTimeout(() => { if (field.isConnected) act(field.value); }); };
const button = (text, action) => el("button", { type: "button", onclick: action }, text);
