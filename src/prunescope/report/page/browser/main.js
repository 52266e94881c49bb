let study = null;
const VIEWS = { overview: ["Overview", overview], figures: ["Figures", figuresView], units: ["Units", unitsView], unit: ["A unit's journey", unitView], concept: ["A concept's journey", conceptView], numbers: ["All numbers", numbersView] };

// A comparison has no units.
const shows = (view) => (study.kind === "comparison" ? ["overview", "figures", "numbers"].includes(view) : view !== "figures" || severalLevels() || study.kind === "study" || study.kind === "series");
const nameOfView = (view) => (severalLevels() ? VIEWS[view][0] : { unit: "A unit", concept: "A concept" }[view] ?? VIEWS[view][0]);

function problem(error) {
  byId("problem").hidden = false;
  byId("problem").textContent = `This page cannot show everything: ${error.message}`;
  console.error(error);
}

// The state names a trial and a level that are finished, whatever the address says.
function complete(wanted) {
  const trials = [...new Set(study.keys.map(([trial]) => trial))];
  wanted.trial = trials.includes(wanted.trial) ? wanted.trial : trials[0];
  const levels = study.keys.filter(([trial]) => trial === wanted.trial).map(([, level]) => level);
  wanted.level = levels.includes(wanted.level) ? wanted.level : wanted.level === null ? levels[0] : levels.reduce((a, b) => (Math.abs(b - wanted.level) < Math.abs(a - wanted.level) ? b : a));
  if (wanted.layer >= study.layers.length) wanted.layer = 0;
  if (!VIEWS[wanted.view] || !shows(wanted.view)) wanted.view = "overview";
  return wanted;
}

function controls() {
  const trials = [...new Set(study.keys.map(([trial]) => trial))];
  const levels = study.keys.filter(([trial]) => trial === state.trial).map(([, level]) => level);
  const choice = (id, label, options, change) => (options.length > 1 ? el("label", {}, label, " ", el("select", { id, onchange: (event) => go(change(Number(event.target.value)), true) }, options.map(([value, text]) => el("option", { value, selected: state[id] === value }, text)))) : null);
  byId("choices").replaceChildren(...[choice("layer", "Layer", study.layers.map((name, place) => [place, name]), (layer) => ({ layer })), choice("trial", study.trial_names ? "Study" : "Trial", trials.map((trial) => [trial, study.trial_names ? trialName(trial) : String(trial)]), (trial) => ({ trial }))].filter(Boolean));
  const slider = byId("level");
  byId("levels").hidden = levels.length < 2;
  slider.max = levels.length - 1;
  slider.value = levels.indexOf(state.level);
  const row = rowNow(), at = row && placeName(row) !== "– %" ? placeName(row) : "";
  const words = named() ? `${state.level + 1} of ${levels.length}: ${at}` : `Level ${state.level}${at && `: ${at}${study.curves.at ? study.axis && ` (${shorten(study.axis, 30)})` : " of weights"}`}`;
  byId("levels").firstChild.data = named() ? `${study.axis} ` : "Level ";
  slider.setAttribute("aria-valuetext", words);
  byId("where").textContent = words;
  byId("views").replaceChildren(...Object.entries(VIEWS).filter(([name]) => shows(name)).map(([name]) => { const item = link({ view: name }, nameOfView(name)); if (name === state.view) item.setAttribute("aria-current", "page"); return item; }));
}

function render() {
  state = complete(readState());
  const focused = document.activeElement?.id, scroll = document.querySelector(".units")?.scrollTop ?? 0, before = byId("main").dataset.view;
  hideTip();
  controls();
  byId("main").replaceChildren(...VIEWS[state.view][1]().flat(Infinity).filter(Boolean));
  byId("main").dataset.view = state.view;
  document.title = `${shorten(study.title)} · ${nameOfView(state.view)} · prunescope`;
  if (focused && focused !== document.activeElement?.id) byId(focused)?.focus({ preventScroll: true });
  if (before === state.view && document.querySelector(".units")) document.querySelector(".units").scrollTop = scroll;
}

async function start() {
  study = await load("study");
  study.rows = rowsOf(study.curves);
  if (study.pictures) study.pictures.numbers = await unpack(study.pictures.images);
  byId("kind").textContent = { study: "Pruning study", series: "Series of checkpoints", dissection: "Dissection", table: "Imported table", comparison: "Comparison of studies" }[study.kind];
  byId("title").textContent = study.title;
  byId("terms").replaceChildren(...Object.entries(TERMS).map(([word, text]) => el("div", {}, el("dt", {}, word), el("dd", {}, text))));
  byId("level").addEventListener("input", (event) => {
    const levels = study.keys.filter(([trial]) => trial === state.trial).map(([, level]) => level);
    go({ level: levels[Number(event.target.value)] }, true);
  });
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
  addEventListener("popstate", render);
  addEventListener("hashchange", render);
  render();
  document.documentElement.dataset.ready = "yes";
}
start().catch(problem);
