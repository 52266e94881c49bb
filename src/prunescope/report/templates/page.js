"use strict";
(() => {
  const find = document.getElementById("find");
  const category = document.getElementById("category");
  const order = document.getElementById("order");
  const only = document.getElementById("only");
  const count = document.getElementById("count");
  const levels = [...document.querySelectorAll("details.level")];
  const read = (item) => ({
    item,
    label: item.querySelector(".l").textContent,
    category: item.querySelector("i").textContent,
    dense: item.querySelector(".d")?.textContent ?? "",
    iou: Number(item.querySelector(".v")?.textContent ?? 0),
    unit: Number(item.querySelector(".u span").textContent),
    interpretable: !item.classList.contains("not"),
  });
  const known = new Map();
  const units = (level) => {
    if (!known.has(level)) known.set(level, [...level.querySelectorAll(".units > li")].map(read));
    return known.get(level);
  };
  const orders = {
    iou: null,
    unit: (a, b) => a.unit - b.unit,
    label: (a, b) => Number(b.interpretable) - Number(a.interpretable) || a.label.localeCompare(b.label) || b.iou - a.iou,
  };
  const matches = (unit, text) =>
    (!category.value || unit.category === category.value) &&
    (!only.checked || unit.interpretable) &&
    (!text || String(unit.unit) === text || `${unit.label} ${unit.dense}`.toLowerCase().includes(text));
  const update = () => {
    const text = find.value.trim().toLowerCase();
    let shown = 0;
    let all = 0;
    for (const level of levels.filter((one) => one.open)) {
      const list = level.querySelector(".units");
      if (!list) continue;
      const compare = orders[order.value];
      const sorted = compare ? [...units(level)].sort(compare) : units(level);
      for (const unit of sorted) {
        unit.item.hidden = !matches(unit, text);
        shown += unit.item.hidden ? 0 : 1;
        all += 1;
      }
      if (level.dataset.order !== order.value && (level.dataset.order || compare)) list.append(...sorted.map((unit) => unit.item));
      level.dataset.order = order.value;
    }
    count.textContent = all ? `${shown} of ${all} units shown` : "";
  };
  const names = new Set([...document.querySelectorAll(".units i")].map((name) => name.textContent).filter(Boolean));
  for (const name of [...names].sort()) category.add(new Option(name, name));
  for (const field of [find, category, order, only]) field.addEventListener("input", update);
  document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());
  for (const level of levels) level.addEventListener("toggle", update);
  document.getElementById("tools").hidden = false;
})();
