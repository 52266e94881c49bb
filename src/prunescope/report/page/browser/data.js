const waiting = new Map();
const loaded = new Map();
const KINDS = { u1: Uint8Array, u2: Uint16Array, i2: Int16Array, i4: Int32Array, f4: Float32Array };
const MOST_SHEETS = 300;

window.prunescope = (name, content) => waiting.get(name)?.(content);

function load(name) {
  if (!loaded.has(name)) {
    loaded.set(name, new Promise((resolve, reject) => {
      waiting.set(name, (content) => { waiting.delete(name); resolve(content); });
      const script = el("script", { src: `data/${name}.js` });
      script.onload = () => { script.remove(); if (waiting.has(name)) reject(new Error(`data/${name}.js is damaged`)); };
      script.onerror = () => reject(new Error(`data/${name}.js is missing; keep the folder data beside the page`));
      document.head.append(script);
    }));
  }
  return loaded.get(name);
}

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function unpack({ type, data }) {
  const stream = new Blob([bytesOf(data)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new KINDS[type](await new Response(stream).arrayBuffer());
}

async function unpackAll(content) {
  const names = Object.keys(content);
  const values = await Promise.all(names.map((name) => (content[name]?.data ? unpack(content[name]) : content[name])));
  return Object.fromEntries(names.map((name, place) => [name, values[place]]));
}

const decoded = new Map();
function decode(name, make) {
  if (!decoded.has(name)) {
    decoded.set(name, load(name).then(make));
    const sheets = [...decoded.keys()].filter((one) => one.startsWith("sheet-"));
    if (sheets.length > MOST_SHEETS) { decoded.delete(sheets[0]); loaded.delete(sheets[0]); }
  }
  return decoded.get(name);
}

const unitsOf = (layer, trial) => decode(`units-${layer}-${trial}`, async (content) => {
  const units = await unpackAll(content);
  units.count = units.units.length;
  units.row = new Map(Array.from(units.units, (unit, place) => [unit, place]));
  return units;
});

const mapsOf = (layer, trial, level) => {
  if (!study.maps.some(([a, b, c]) => a === layer && b === trial && c === level)) return Promise.resolve(null);
  return decode(`maps-${layer}-${trial}-${level}`, async (content) => {
    const maps = await unpackAll(content);
    maps.row = new Map(Array.from(maps.units, (unit, place) => [unit, place]));
    return maps;
  });
};

const sheetOf = (number) => decode(`sheet-${number}`, async (content) => {
  const image = new Image();
  image.src = `data:image/webp;base64,${content.image}`;
  const [truth] = await Promise.all([unpackAll(content.truth), image.decode()]);
  return { image, truth };
});

// What is known of one unit at one level (given by its row in the arrays).
function unitAt(units, row, place) {
  const at = row * units.count + place;
  const flags = units.flags[at], concept = units.concept[at];
  const value = (name) => (units[name] ? units[name][at] : null);
  return {
    unit: units.units[place], concept, label: concept < 0 ? "" : study.names[concept],
    category: concept < 0 ? "" : study.categories_of[concept],
    iou: value("iou"), low: value("low"), high: value("high"), threshold: value("threshold"), q: value("q"),
    mirrored: value("mirrored"), precision: value("precision"), recall: value("recall"), into: value("into"),
    interpretable: Boolean(flags & 1), dead: Boolean(flags & 2), present: Boolean(flags & 4),
    above: Boolean(flags & 8), localised: Boolean(flags & 16), fate: study.fates[units.fate[at]] ?? "",
    next: [0, 1, 2, 3].map((rank) => [units.next_concept[4 * at + rank], units.next_iou[4 * at + rank] / 65535])
      .filter(([one]) => one >= 0),
  };
}
// Checkpoints of several networks are named; those of a study have numbers.
const named = () => ["Network", "Basis"].includes(study.axis);
const levelName = (level) => {
  const row = named() ? study.rows.find((one) => one.level === level) : null;
  return row?.at_label ? shorten(String(row.at_label), 30) : `Level ${level}`;
};
const nameOf = (one) => (!one.present ? "removed" : one.dead ? "dead" : one.label || "no concept");

// The rows of the curves, as objects.
function rowsOf(table) {
  const names = Object.keys(table);
  return names.length ? table[names[0]].map((_, place) => Object.fromEntries(names.map((name) => [name, table[name][place]]))) : [];
}
