// The browser of views. All that can be chosen stands in the address behind "#", so that a link shows the same again:
// a choice changes the address, and the page is made from the address alone.
"use strict";

const PAGE = 48; // cards made at a time
const STRIP = 3; // views on a card, beside the whole image
const CARD = 3; // classes of an answer on a card
const EACH = 5; // and of each view of a sample that is open
const DEFAULTS = { list: "all", sort: "disagreement", label: "", teacher: "", q: "", flagged: "", open: "" };

const data = JSON.parse(document.getElementById("data").textContent);
const { samples, names, lists } = data;
const byId = new Map(samples.map((sample, number) => [sample.id, number]));
const judged = samples.some((sample) => sample.wrong != null);
if (!judged) DEFAULTS.sort = "entropy";

const grid = document.getElementById("cards");
const status = document.getElementById("status");
const dialog = document.getElementById("detail");
const controls = Object.fromEntries(
  ["label", "teacher", "sort", "search", "flagged"].map((name) => [name, document.getElementById(name)])
);

let state = {}; // as the address says
let built = ""; // the choices that the cards were made for
let entries = []; // of {samples: [number], more, mixed_labels}: what is shown, one card or one group each
let made = 0; // how many of them have their cards

// ---------------------------------------------------------------------------------------------------- small things

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

function percent(fraction) {
  if (fraction > 0 && fraction < 0.0005) return "<\u00a00.1\u00a0%";
  if (fraction < 1 && fraction >= 0.9995) return ">\u00a099.9\u00a0%";
  return (100 * fraction).toFixed(1) + "\u00a0%";
}

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const compare = (one, other) => (one < other ? -1 : one > other ? 1 : 0);

function className(number) {
  const [name, shown] = names[number];
  return make("strong", name === shown ? {} : { title: name }, shown);
}

// ------------------------------------------------------------------------------------------------------ the address

function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  const said = Object.keys(DEFAULTS).map((key) => [key, found.get(key) ?? DEFAULTS[key]]);
  const read = Object.fromEntries(said);
  if (!document.querySelector(`.tabs [data-list="${CSS.escape(read.list)}"]`)) read.list = DEFAULTS.list;
  if (![...controls.sort.options].some((option) => option.value === read.sort)) read.sort = DEFAULTS.sort;
  return read;
}

function address(changes) {
  const wanted = { ...state, ...changes };
  const said = Object.keys(DEFAULTS).filter((key) => wanted[key] !== DEFAULTS[key]);
  return "#" + new URLSearchParams(said.map((key) => [key, wanted[key]]));
}

function change(changes) {
  history.replaceState(null, "", address(changes));
  show();
}

// ----------------------------------------------------------------------------------------------- what is to be shown

function passes(sample) {
  const { label, teacher, q, flagged } = state;
  if (label && (sample.label == null ? label !== "-" : names[sample.label][0] !== label)) return false;
  if (teacher && (!sample.top || names[sample.top[0][0]][0] !== teacher)) return false;
  if (flagged && !sample.flagged) return false;
  return !q || sample.id.toLowerCase().includes(q.toLowerCase());
}

// Samples without a figure come last, in the order of the page, which is that of disagreement.
const ORDERS = {
  disagreement: (one, other) => one - other,
  entropy: (one, other) => (samples[other].entropy ?? -1) - (samples[one].entropy ?? -1) || one - other,
  id: (one, other) => compare(samples[one].id, samples[other].id),
};

function chosen() {
  if (state.list !== "all")
    return lists[state.list].filter((entry) => entry.samples.some((number) => passes(samples[number])));
  const numbers = samples.map((_, number) => number).filter((number) => passes(samples[number]));
  return numbers.sort(ORDERS[state.sort]).map((number) => ({ samples: [number] }));
}

const grouped = () => ["duplicates", "near_duplicates"].includes(state.list);

// ----------------------------------------------------------------------------------------------------------- the cards

const blocks = new Map(); // number -> the pictures of its samples, once they are there and were asked for
const waiting = new Map(); // number -> what is to be done when its pictures are there

// Called by the page behind every block of pictures; before that its element may hold a part of them.
function arrived(block) {
  const asked = waiting.get(block) || [];
  waiting.set(block, null);
  for (const put of asked) put();
}

function encoded(number, place) {
  const block = Math.floor(number / data.block);
  if (!blocks.has(block)) blocks.set(block, JSON.parse(document.getElementById(`pictures-${block}`).textContent));
  return blocks.get(block)[number % data.block][place];
}

// The picture at a place of a sample: 0 is the whole image, and its views follow.
function picture(number, place, alt) {
  const sample = samples[number];
  const there = place ? sample.views[place - 1].picture : sample.picture;
  if (!there) return make("span", { class: "none" }, "no picture");
  const image = make("img", { alt, decoding: "async", ...(data.side <= 64 ? { class: "pixels" } : {}) });
  const put = () => image.setAttribute("src", "data:image/webp;base64," + encoded(number, place));
  const block = Math.floor(number / data.block);
  if (waiting.get(block) === null) put();
  else waiting.set(block, [...(waiting.get(block) || []), put]);
  return image;
}

function pictures(number, count) {
  const views = samples[number].views.slice(0, count);
  return [picture(number, 0, "the whole image"), ...views.map((view, place) => picture(number, place + 1, `view ${view.view}`))];
}

function bars(top, label, count) {
  return top.slice(0, count).map(([number, probability]) => {
    const fill = make("i");
    fill.style.width = 100 * probability + "%";
    const [name, shown] = names[number];
    const title = name === shown ? {} : { title: name };
    const own = number === label ? "bar own" : "bar";
    return make("div", { class: own, ...title }, fill, make("span", {}, shown), make("span", {}, percent(probability)));
  });
}

function disagrees(sample) {
  return sample.given != null && sample.top[0][0] !== sample.label;
}

function labelLine(sample, mixed) {
  if (sample.label == null) return make("div", { class: "line quiet" }, make("span", {}, "no label"));
  const bad = sample.flagged || mixed;
  const said = make("span", bad ? { class: "bad" } : {}, "label: ", className(sample.label));
  return make("div", { class: "line" }, said, sample.given == null ? null : make("span", {}, percent(sample.given)));
}

function scoreLine(sample) {
  const wrong = sample.wrong == null ? null : `P(wrong) ${percent(sample.wrong)}`;
  const entropy = `entropy ${sample.entropy.toFixed(2)}`;
  const mark = make("span", sample.flagged ? { class: "mark bad" } : { class: "quiet" }, wrong ?? entropy);
  return make("div", { class: "line" }, mark, wrong && make("span", { class: "quiet" }, entropy));
}

function card(number, mixed) {
  const sample = samples[number];
  const strip = make("div", { class: "strip" }, ...pictures(number, STRIP));
  const kind = sample.flagged ? " flagged" : disagrees(sample) ? " unsure" : "";
  const said = sample.unjudged
    ? [make("div", { class: "said quiet" }, `Not judged: ${sample.unjudged}.`)]
    : [make("div", { class: "said" }, ...bars(sample.top, sample.label, CARD)), scoreLine(sample)];
  const link = make("a", { href: address({ open: sample.id }) }, sample.id);
  return make("li", { class: "card" + kind, "data-id": sample.id }, strip, labelLine(sample, mixed), ...said, link);
}

function group(entry) {
  const text = entry.mixed_labels ? "Under different labels" : "Under one label";
  const more = entry.more ? `, and ${counted(entry.more, "more sample")} that are not shown here` : "";
  const heading = make("p", { class: entry.mixed_labels ? "bad" : "quiet" }, text + more + ".");
  return make("li", { class: "group" }, heading, make("ul", {}, ...entry.samples.map((one) => card(one, entry.mixed_labels))));
}

const end = document.getElementById("end");
const watcher = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), {
  rootMargin: "1000px",
});

function more() {
  const next = entries.slice(made, made + PAGE);
  made += next.length;
  grid.append(...next.map((entry) => (grouped() ? group(entry) : card(entry.samples[0]))));
  watcher.unobserve(end); // so that it speaks up again where the end is still in sight
  if (made < entries.length) watcher.observe(end);
}

function rebuild() {
  entries = chosen();
  made = 0;
  grid.replaceChildren();
  grid.classList.toggle("groups", grouped());
  const all = state.list === "all" ? samples.length : lists[state.list].length;
  const noun = grouped() ? "group" : "sample";
  status.textContent = `Showing ${entries.length.toLocaleString("en")} of ${counted(all, noun)}`;
  more();
}

// -------------------------------------------------------------------------------------------------- one sample, large

function fact(term, value) {
  return [make("dt", {}, term), make("dd", {}, value)];
}

function facts(sample) {
  const list = make("dl", { class: "facts" });
  if (sample.wrong != null) list.append(...fact("P(wrong)", percent(sample.wrong)));
  list.append(...fact("entropy", `${sample.entropy.toFixed(3)} nat, ${sample.disagreement.toFixed(3)} of it views that contradict one another`));
  return list;
}

function oneView(view, label, image) {
  const mixed = view.mixed == null ? "" : `, mixed with ${view.mixed}`;
  const said = make("div", {}, ...bars(view.top, label, EACH));
  return make("li", {}, make("small", {}, `view ${view.view}${mixed}`), image, said);
}

function largeView(number) {
  const sample = samples[number];
  const [whole, ...images] = pictures(number, Infinity);
  const said = make("div", {}, labelLine(sample));
  if (sample.flagged) said.append(make("div", { class: "mark bad" }, "This label is likelier wrong than right."));
  if (sample.unjudged) said.append(make("p", { class: "quiet" }, `Not judged: ${sample.unjudged}.`));
  else said.append(make("div", { class: "said" }, ...bars(sample.top, sample.label, Infinity)), facts(sample));
  const body = [make("div", { class: "whole" }, whole, said)];
  if (sample.views.length) {
    body.push(make("h3", {}, `${sample.views.length} of ${counted(data.views_stored, "view")}, and what the teacher said of each`));
    body.push(make("ul", { class: "each" }, ...sample.views.map((view, place) => oneView(view, sample.label, images[place]))));
  }
  return body;
}

function showDetail() {
  const number = byId.get(state.open);
  if (number == null) {
    if (dialog.open) dialog.close();
    if (state.open) status.textContent += `. ${state.open} is not on this page.`;
    return;
  }
  document.getElementById("detail-id").textContent = samples[number].id;
  document.getElementById("detail-body").replaceChildren(...largeView(number));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function step(by) {
  const shown = entries.flatMap((entry) => entry.samples);
  const next = shown[shown.indexOf(byId.get(state.open)) + by];
  if (next != null) change({ open: samples[next].id });
}

// --------------------------------------------------------------------------------------------------------- all of it

function show() {
  state = read();
  controls.search.value = state.q;
  controls.flagged.checked = Boolean(state.flagged);
  controls.sort.value = state.sort;
  for (const name of ["label", "teacher"]) {
    const known = [...controls[name].options].some((option) => option.value === state[name]);
    controls[name].value = state[name] = known ? state[name] : "";
  }
  for (const tab of document.querySelectorAll(".tabs a")) {
    tab.href = address({ list: tab.dataset.list, open: "" });
    if (tab.dataset.list === state.list) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
  for (const intro of document.querySelectorAll(".intro")) intro.hidden = intro.dataset.intro !== state.list;
  controls.sort.disabled = state.list !== "all"; // a list has an order of its own
  const wanted = address({ open: "" });
  if (wanted !== built) {
    built = wanted;
    rebuild();
  }
  showDetail();
}

function fill(select, numbers, all) {
  const counts = new Map();
  for (const number of numbers) counts.set(number, (counts.get(number) || 0) + 1);
  const shown = new Map();
  for (const number of counts.keys()) shown.set(names[number][1], (shown.get(names[number][1]) || 0) + 1);
  const options = [...counts].map(([number, count]) => {
    const [name, english] = names[number];
    return [name, `${shown.get(english) > 1 ? `${english} ${name}` : english} (${count.toLocaleString("en")})`];
  });
  options.sort((one, other) => compare(one[1], other[1]));
  select.append(make("option", { value: "" }, all), ...options.map(([value, text]) => make("option", { value }, text)));
}

fill(controls.label, samples.map((sample) => sample.label).filter((number) => number != null), "all");
const unlabelled = samples.filter((sample) => sample.label == null).length;
if (unlabelled) controls.label.append(make("option", { value: "-" }, `no label (${unlabelled.toLocaleString("en")})`));
fill(controls.teacher, samples.filter((sample) => sample.top).map((sample) => sample.top[0][0]), "all");
if (!judged) {
  controls.sort.options[0].remove();
  document.querySelector(".tools .check").hidden = true;
}
if (matchMedia("(max-width: 34rem)").matches) document.querySelector(".overview").open = false;

const form = document.querySelector(".tools");
let typing;
form.addEventListener("input", () => {
  clearTimeout(typing);
  const flagged = controls.flagged.checked ? "1" : "";
  const wanted = { label: controls.label.value, teacher: controls.teacher.value, sort: controls.sort.value, flagged };
  typing = setTimeout(() => change({ ...wanted, q: controls.search.value }), 80);
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  change({ ...DEFAULTS, list: state.list });
});
dialog.addEventListener("close", () => state.open && change({ open: "" }));
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
document.getElementById("close").addEventListener("click", () => dialog.close());
document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (dialog.open && event.key === "ArrowLeft") step(-1);
  else if (dialog.open && event.key === "ArrowRight") step(1);
  else if (event.key === "/" && !dialog.open && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    controls.search.focus();
  }
});
addEventListener("hashchange", show);
show();
