const layerName = () => study.layers[state.layer];
const rowsHere = () => study.rows.filter((row) => row.layer === layerName());
const rowNow = () => rowsHere().find((row) => row.trial === state.trial && row.level === state.level);
const severalLevels = () => new Set(study.keys.map(([, level]) => level)).size > 1;
const atLevel = () => (severalLevels() ? (named() ? ` in ${study.axis === "Basis" ? "the basis " : ""}${levelName(state.level)}` : ` at level ${state.level}`) : "");
const has = (rows, column) => rows.some((row) => !missing(row[column]));
const breaksOf = (quantity) => (study.verdict ? rowsOf(study.verdict.breaks).filter((row) => row.quantity === quantity && (quantity === "accuracy" || row.layer === layerName()) && row.weights_remaining < 1).map((row) => row.weights_remaining) : []);

const VERDICTS = { A: "Pruning has no effect on the number of interpretable units.", B: "Pruning raises the number of interpretable units.",
  C: "Pruning lowers the number of interpretable units.", mixed: "The levels contradict each other about the number of interpretable units.",
  undecided: "Whether pruning changes the number of interpretable units is undecided." };

function mainPanels(rows) {
  const units = Math.max(...rows.map((row) => row.units ?? 0));
  return [
    has(rows, "accuracy") && { name: "figure1-accuracy", column: "accuracy", scale: 100, floor: null, label: "Top-1 accuracy (%)", breaks: breaksOf("accuracy"), caption: "Figure 1. Accuracy on the validation set." },
    { name: "figure2-interpretable", column: "interpretable", label: `Interpretable units (of ${units})`, breaks: breaksOf("interpretable"), references: [["chance_interpretable", "chance"], ["untrained_interpretable", "untrained network"]], caption: ["Figure 2, left. ", term("unit", "Units"), " that detect a ", term("concept"), "."] },
    { name: "figure2-concepts", column: "concepts", label: "Detected concepts", breaks: breaksOf("concepts"), references: [["chance_concepts", "chance"], ["untrained_concepts", "untrained network"]], caption: "Figure 2, right. How many different concepts they detect." },
  ].filter(Boolean);
}

const grid = (...figures) => el("div", { class: "figures" }, figures.filter(Boolean));

function overview() {
  const rows = rowsHere();
  const verdict = study.verdict && el("section", { "aria-labelledby": "verdict" }, el("h2", { id: "verdict" }, "Verdict"),
    el("p", { class: "verdict" }, el("b", {}, study.verdict.hypothesis), VERDICTS[study.verdict.hypothesis] ?? ""), el("p", {}, sentence(study.verdict.text)));
  return [
    el("dl", { class: "facts" }, study.facts.map(([name, text]) => el("div", {}, el("dt", {}, factName(name)), el("dd", {}, sentence(text))))),
    study.unfinished ? notes() : null,
    verdict, severalLevels() ? grid(...mainPanels(rows).map((panel) => curve(panel, rows))) : null, now(), severalLevels() ? null : categoryBars(), differences(),
    study.unfinished ? null : notes(),
  ];
}

const FACTS = { trials: "trial", levels: "level", interpretable: "interpretable", threshold: "threshold", "top-1 accuracy": "top-1", "interpretable units": "interpretable", "detected concepts": "detected",
  "dead units": "dead", "above chance": "q", localised: "localised", "still interpretable": "consistency", "of those, same concept": "consistency" };
const factName = (name) => (FACTS[name.toLowerCase()] ? explained(FACTS[name.toLowerCase()], name) : name);
const notes = () => (study.notes.length ? el("aside", { class: "notice", "aria-label": "Notes" }, study.notes.map((note) => el("p", {}, note))) : null);

function now() {
  const row = rowNow();
  if (!row) return el("p", {}, "This level is not finished in this trial.");
  const counted = (value) => (missing(value) ? null : tidy(value));
  const facts = [["Top-1 accuracy", missing(row.accuracy) ? null : `${tidy(100 * row.accuracy)} %`], ["Interpretable units", `${tidy(row.interpretable)} of ${tidy(row.units)}`], ["Detected concepts", tidy(row.concepts)],
    ["Dead units", counted(row.dead)], ["Above chance", counted(row.above_chance)], ["Localised", counted(row.localised)], ["Still interpretable", missing(row.still_interpretable) ? null : `${tidy(100 * row.still_interpretable)} %`], ["Of those, same concept", missing(row.same_concept) ? null : `${tidy(100 * row.same_concept)} %`]];
  return el("section", { "aria-labelledby": "now" }, el("h2", { id: "now" }, !severalLevels() ? "Results" : named() ? `${study.axis}: ${levelName(state.level)}` : `At level ${state.level}`),
    el("dl", { class: "now" }, facts.filter(([, value]) => !missing(value)).map(([name, value]) => el("div", {}, el("dt", {}, factName(name)), el("dd", {}, value)))));
}

const isBasis = (name) => name.startsWith("basis_") && !/_(low|high)$/.test(name);

function figuresView() {
  const rows = rowsHere(), categories = study.categories ?? [];
  const most = Math.max(1, ...categories.flatMap((name) => rows.map((row) => row[name] ?? 0)));
  const share = (name, label, caption, references = []) => has(rows, name) && curve({ name, column: name, scale: 100, label, caption, references }, rows);
  const several = new Set(rows.map((one) => one.level)).size > 1;
  return [
    several && [el("h2", {}, "Figures"), grid(...mainPanels(rows).map((panel) => curve(panel, rows)))],
    categoryBars(),
    several && grid(...categories.map((name) => curve({ name: `figure3-${name}`, column: name, label: name, caption: `Figure 3. Detected concepts of the category ${name} (the most in any is ${most}).` }, rows))),
    several && Object.keys(study.curves).some((name) => isBasis(name) && has(rows, name)) && [el("h2", {}, "Other bases"), grid(...Object.keys(study.curves).filter(isBasis).map((name) => curve({ name, column: name, label: "Concepts, as a ratio", caption: `Concepts that the directions of the basis ${shorten(name.slice(6), 40)} detect, divided by those of the units. Below 1, the units' own basis is special.` }, rows)))],
    several && [el("h2", {}, "Consistency with the dense network"), grid(
      share("still_interpretable", "Still interpretable (%)", "Figure 4, left. The dense network's interpretable units that still are.", [["still_interpretable_floor", "units renumbered"], ["still_interpretable_across", "other trials"], ["retrained_still_interpretable", "retrained"]]),
      share("same_concept", "Same concept (%)", "Figure 4, right. Of those, the units that detect the same concept.", [["same_concept_floor", "units renumbered"], ["same_concept_across", "other trials"], ["retrained_same_concept", "retrained"]]),
      share("same_concept_kappa", "Cohen's kappa (%)", ["Figure 5. Agreement corrected for chance (", term("kappa"), ")."]),
      share("reliability", "Reliability (%)", "Figure 5. The share of resamples of the images in which units keep their concept."),
      share("concepts_still_detected", "Still detected (%)", "Figure 5. The dense network's concepts that some unit still detects."),
      share("matched_by_concept", "Matched by concept (%)", "Figure 5. Units that can be matched with the dense network's by their concepts.")),
    el("h2", {}, "Fates of units"), grid(fateAreas(rows))],
    study.sensitivity && el("h2", {}, "Other bounds of the IoU"),
    grid(heat(layerName(), "interpretable", "Interpretable units"), heat(layerName(), "concepts", "Detected concepts"), heat(layerName(), "chance_interpretable", "Interpretable by chance")),
    claims(), study.classes ? classesView() : null, study.exemplars ? exemplarsView() : null,
  ];
}

function differences() {
  if (!study.differences) return null;
  const rows = rowsOf(study.differences).filter((row) => row.layer === layerName() || !row.layer);
  const scale = (row) => (["interpretable", "concepts"].includes(row.quantity) ? 1 : 100);
  return [el("h2", { id: "differences" }, "Differences from the first study"), el("p", {}, "At equal weights remaining and at equal accuracy, with 95 % intervals. Accuracies and shares are in points."),
    scrolled("differences", plainTable(["Study", "Minus", "Quantity", "At", "Difference", "95 % interval", "Trials"], rows.map((row) => [shorten(row.study, 40), shorten(row.reference, 40), row.quantity.replaceAll("_", " "), `${percent(row.position)} % ${row.at === "accuracy" ? "accuracy" : "of weights"}`, tidy(row.difference * scale(row), 2), missing(row.low) ? "–" : `${tidy(row.low * scale(row), 2)} to ${tidy(row.high * scale(row), 2)}`, row.trials])))];
}

function categoryBars() {
  const row = rowNow(), categories = study.categories ?? [];
  if (!row || !categories.length) return null;
  return [el("h2", {}, "Detected concepts by category"), bars(atLevel() ? `Number of different concepts${atLevel()}` : "Number of different concepts", categories.map((name) => ({ name, value: row[name] ?? 0, text: String(row[name] ?? 0) })), (item) => (shows("units") ? link({ view: "units", category: item.name, show: "interpretable" }, item.name) : item.name))];
}

function claims() {
  if (!study.claims) return null;
  return [el("h2", { id: "claims" }, "The claims of the paper"), el("p", {}, `Whether this study shows what Frankle and Bau 2019 state, for layer ${study.layers.at(-1)}. Intervals are 95 % t intervals over trials.`),
    scrolled("claims", plainTable(["Claim", "Paper", "Here", "95 % interval", "Answer"], rowsOf(study.claims).map((row) => [row.claim, tidy(row.paper, 3), tidy(row.value, 3), missing(row.low) ? "–" : `${tidy(row.low, 3)} to ${tidy(row.high, 3)}`, row.answer])))];
}

const scrolled = (label, table) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": label }, table);
const plainTable = (names, rows) => el("table", { class: "plain" }, el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)))),
  el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, place) => el("td", { class: /^[\d.,–-]/.test(String(value)) && place ? "number" : null }, value))))));

function classesView() {
  const place = el("div", {}, "Loading ...");
  if (state.level === 0) return [el("h2", { id: "classes" }, "Classes that lose most"), el("p", {}, "Choose a level above 0 to see the classes whose accuracy falls most from level 0 to that level.")];
  load("classes").then((table) => {
    const rows = rowsOf(table).filter((row) => row.trial === state.trial);
    const at = (level) => new Map(rows.filter((row) => row.level === level).map((row) => [row.class, row]));
    const before = at(0), after = at(state.level);
    const lost = [...after.values()].filter((row) => before.has(row.class)).map((row) => ({ ...row, change: row.accuracy - before.get(row.class).accuracy, dense: before.get(row.class).accuracy })).filter((row) => row.change < 0)
      .sort((a, b) => a.change - b.change).slice(0, 20);
    place.replaceChildren(before.size && after.size && !lost.length ? el("p", {}, `No class loses accuracy from level 0 to level ${state.level}.`) : lost.length ? scrolled("classes", plainTable(["Class", "Images", "Dense (%)", `Level ${state.level} (%)`, "95 % interval", "Change"], lost.map((row) => [`class ${row.class}`, row.images, percent(row.dense), percent(row.accuracy), `${percent(row.accuracy_low)} to ${percent(row.accuracy_high)}`, tidy(100 * row.change)])))
      : el("p", {}, "There are no predictions for level 0 and for this level of this trial."));
  }).catch(problem);
  return [el("h2", { id: "classes" }, "Classes that lose most"), el("p", {}, `The classes whose accuracy falls most, at most 20, from level 0 to level ${state.level}.`), place];
}

function exemplarsView() {
  const place = el("div", {}, "Loading ...");
  load("exemplars").then((table) => {
    const rows = rowsOf(table).filter((row) => row.level === state.level);
    const agreeing = (count, row) => (row.trials > 1 ? ` (${count} of ${row.trials} trials)` : "");
    place.replaceChildren(...(rows.length ? [el("p", {}, `${rows[0].of} validation image${rows[0].of > 1 ? "s" : ""} at level ${state.level}${rows[0].of > rows.length ? `, of which these ${rows.length} are the clearest` : ""}. exemplars.csv lists all.`),
      scrolled("exemplars", plainTable(["Validation image", "Its class", "Dense networks", "Pruned networks"], rows.map((row) => [`image ${row.image}`, `class ${row.class}`, `class ${row.dense}${agreeing(row.dense_agreeing, row)}`, `class ${row.pruned}${agreeing(row.pruned_agreeing, row)}`])))]
      : [el("p", {}, state.level === 0 ? "Choose a level above 0." : `There are none at level ${state.level}.`)]));
  }).catch(problem);
  return [el("h2", { id: "exemplars" }, "Images whose prediction changes"), el("p", {}, "The class that most trials predict differs from that of the dense networks."), place];
}

function numbersView() {
  const rows = study.rows.filter((row) => row.layer === layerName());
  const names = Object.keys(study.curves).filter((name) => name !== "layer" && !/_(low|high)$/.test(name) && has(rows, name));
  const shares = /accuracy|top5|weights_remaining|still_|same_|concepts_still|matched|reliability|retrained_/;
  const shown = (name, value) => (typeof value !== "number" ? value ?? "–" : name === "loss" ? fixed(value) : shares.test(name) ? percent(value) : tidy(value, 1));
  return [el("h2", { id: "numbers" }, "All numbers"), el("p", {}, "One row per trial and level; shares are in percent. evidence.csv contains the same numbers in full precision. ", button("Save as CSV", () => download("numbers.csv", toCsv(Object.keys(study.curves), study.rows.map((row) => Object.values(row))), "text/csv"))),
    scrolled("numbers", plainTable(names.map((name) => name.replaceAll("_", " ")), rows.map((row) => names.map((name) => shown(name, row[name])))))];
}
