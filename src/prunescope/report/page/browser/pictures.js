const LINE = [255, 214, 10], TRUTH_LINE = [64, 224, 255];

// Bilinear interpolation with half-pixel centres, as dissection does it; the mask is where the result is above the cut.
function maskOf(bytes, start, [h, w], [height, width], cut) {
  const along = (cells, pixels) => Array.from({ length: pixels }, (_, pixel) => {
    const at = Math.min(Math.max(((pixel + 0.5) * cells) / pixels - 0.5, 0), cells - 1);
    const low = Math.floor(at);
    return [low, Math.min(low + 1, cells - 1), at - low];
  });
  const columns = along(w, width), mask = new Uint8Array(height * width);
  along(h, height).forEach(([up, down, share], y) => {
    columns.forEach(([left, right, part], x) => {
      const top = bytes[start + up * w + left] * (1 - part) + bytes[start + up * w + right] * part;
      const low = bytes[start + down * w + left] * (1 - part) + bytes[start + down * w + right] * part;
      mask[y * width + x] = top * (1 - share) + low * share > cut ? 1 : 0;
    });
  });
  return mask;
}
window.prunescope.maskOf = maskOf;

function truthOf(truth, place, concept, [height, width]) {
  const at = truth.tiles.findIndex((tile, index) => tile === place && truth.concepts[index] === concept);
  if (at < 0) return null;
  const [rows, columns] = truth.size, small = new Uint8Array(rows * columns);
  let pixel = 0;
  for (let run = at ? truth.ends[at - 1] : 0, inside = 0; run < truth.ends[at]; run += 1, inside ^= 1) {
    small.fill(inside, pixel, pixel + truth.runs[run]);
    pixel += truth.runs[run];
  }
  const mask = new Uint8Array(height * width);
  for (let y = 0; y < height; y += 1) for (let x = 0; x < width; x += 1) mask[y * width + x] = small[Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width)];
  return mask;
}

function outline(pixels, mask, height, width, color) {
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = y * width + x;
      if (!mask[at]) continue;
      if (x && y && x < width - 1 && y < height - 1 && mask[at - 1] && mask[at + 1] && mask[at - width] && mask[at + width]) continue;
      pixels.set(color, 4 * at);
    }
  }
}

// Draws one of the four images of a unit on a canvas: dimmed outside of the mask, which is outlined.
async function drawExample(canvas, maps, unit, rank, concept) {
  const row = maps?.row.get(unit);
  const tile = row === undefined ? -1 : maps.tiles[4 * row + rank];
  if (tile < 0) return;
  const known = study.pictures, place = tile % known.tiles;
  const sheet = await sheetOf(Math.floor(tile / known.tiles));
  const { width, height } = canvas, context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(sheet.image, (place % known.columns) * known.width, Math.floor(place / known.columns) * known.height, known.width, known.height, 0, 0, width, height);
  const area = maps.size[0] * maps.size[1];
  const mask = maskOf(maps.maps, (4 * row + rank) * area, maps.size, [height, width], maps.cut[4 * row + rank]);
  const data = context.getImageData(0, 0, width, height);
  if (mask.includes(1)) for (let at = 0; at < mask.length; at += 1) if (!mask[at]) for (let channel = 0; channel < 3; channel += 1) data.data[4 * at + channel] *= 0.62;
  const truth = state.truth && concept >= 0 ? truthOf(sheet.truth, place, concept, [height, width]) : null;
  if (truth) outline(data.data, truth, height, width, TRUTH_LINE);
  outline(data.data, mask, height, width, LINE);
  context.putImageData(data, 0, 0);
  canvas.dataset.image = known.numbers[tile];
}

// Images are drawn a few at a time and after everything else, and not at all once they have left the page, so that
// scrolling, sorting and moving the slider do not wait for them.
const queue = [];
let drawing = 0;
function later(canvas, draw) {
  queue.push([canvas, draw]);
  if (drawing < 4) { drawing += 1; setTimeout(drawQueued); }
}
async function drawQueued() {
  while (queue.length) {
    const [canvas, draw] = queue.shift();
    if (!canvas.isConnected) continue;
    await draw().catch(problem);
    await new Promise((done) => setTimeout(done));
  }
  drawing -= 1;
}

function example(maps, unit, rank, concept, side, words) {
  const known = study.pictures;
  if (!known) return null;
  const scale = side / Math.max(known.width, known.height);
  const open = () => enlarge(maps, unit, rank, concept, words);
  // One stop of the tabulator key per unit and level; the dialog leads to the other images.
  const canvas = el("canvas", { width: Math.round(known.width * scale), height: Math.round(known.height * scale), role: "button", "aria-label": words, tabindex: rank ? -1 : 0,
    onclick: open, onkeydown: (event) => { if (["Enter", " "].includes(event.key)) { event.preventDefault(); open(); } } });
  later(canvas, () => drawExample(canvas, maps, unit, rank, concept));
  return canvas;
}

function enlarge(maps, unit, rank, concept, words) {
  const dialog = byId("large"), side = Math.min(640, innerWidth - 70, innerHeight - 200);
  const show = (at) => {
    const drawn = example(maps, unit, at, concept, side, `Image ${at + 1} of 4`);
    drawn.setAttribute("role", "img");
    drawn.removeAttribute("tabindex");
    const step = (text, to) => { const other = button(text, () => { show(to); dialog.querySelectorAll("button")[to < at ? 0 : 1].focus(); }); other.disabled = to < 0 || to > 3; return other; };
    dialog.replaceChildren(drawn, el("p", {}, words.replace(/\b([Ii]mage) \d/, `$1 ${at + 1}`)), el("form", { method: "dialog", class: "tools" }, step("Previous image", at - 1), step("Next image", at + 1), el("button", {}, "Close")));
  };
  show(rank);
  if (!dialog.open) dialog.showModal();
}
