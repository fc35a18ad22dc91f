// The page: from the filters to the photographs shown, by mouse and by key; the address keeps the place.

const PAGE_ROWS = 50;
const byId = (id) => document.getElementById(id);
const form = byId("filters");
const say = (id, text) => (byId(id).textContent = text);
const number = (count) => count.toLocaleString("en");
const SPLITS = { split: "source", split_official: "official", split_clean: "clean" };

const marksOf = about.sets.map((set) => new Marks(set, (text) => say("notice", text)));
const actions = { marksOf, marked: showCounts, showGroup: (group) => showAll(String(group)) };
const view = { matching: [], page: 0, card: 0, group: "", turn: 0 }; // `turn` tells a newer search from an older one
let rows;

start().catch(fail);

async function start() {
  rows = await load(about.rows);
  countCopies(rows);
  rows.imageIds = new Set(rows.image_id);
  fillFilters();
  takeAddress();
  listen();
  showCounts();
  await find();
}

function fail(error) {
  say("notice", `This page cannot be shown: ${error.message}`);
}

function fillFilters() {
  const options = (words, value) => words.map((word, at) => element("option", { value: value(at) }, word));
  const named = (words) => words.map((word) => word || "(none)");
  byId("label").append(element("option", { value: "" }, "all"), ...options(named(rows.words.label), String));
  byId("split").append(element("option", { value: "" }, "all"));
  for (const [column, title] of Object.entries(SPLITS)) {
    const group = element("optgroup", { label: title });
    group.append(...options(named(rows.words[column]), (at) => `${column} ${at}`));
    byId("split").append(group);
  }
  byId("flag").append(
    element("option", { value: "" }, "all"),
    element("option", { value: "any" }, "any flag"),
    element("option", { value: "none" }, "no flag"),
    ...options(rows.words.flags, String),
  );
  about.sets.forEach(({ name, model }, set) => {
    const box = element("input", { type: "checkbox", name: "set", value: String(set), defaultChecked: true });
    const by = model ? ` (${model})` : "";
    byId("sets").append(element("label", {}, box, " ", element("bdi", {}, name + by)));
  });
}

function wanted() {
  const values = new FormData(form);
  const [column, word] = values.get("split").split(" ");
  const flag = values.get("flag");
  return {
    label: values.get("label") === "" ? null : Number(values.get("label")),
    split: column ? { column, word: Number(word) } : null,
    flag: ["", "any", "none"].includes(flag) ? flag : Number(flag),
    group: view.group === "" ? null : Number(view.group),
    copies: values.get("copies"),
    mark: values.get("mark"),
    query: values.get("query").trim(),
    sets: values.getAll("set").map(Number),
  };
}

async function find(page = view.page, focus = "") {
  // Filter all rows anew and show one page of them; a newer call overtakes an older one that still reads texts.
  // `focus` is the card that gets it: "first", "last", or "" for none.
  const turn = (view.turn += 1);
  const want = wanted();
  let found = null;
  if (want.query) {
    found = await searchTexts(want.query, want.sets, (share) => {
      if (turn === view.turn) say("progress", `Reading the descriptions: ${Math.round(100 * share)} %`);
    });
    if (turn !== view.turn) return;
  }
  say("progress", "");
  view.matching = [];
  for (let row = 0; row < about.n_rows; row += 1) {
    if ((!found || found[row]) && passes(rows, row, want, marksOf)) view.matching.push(row);
  }
  await show(page, want, focus);
}

async function show(page, want, focus) {
  const turn = view.turn;
  const nPages = Math.max(1, Math.ceil(view.matching.length / PAGE_ROWS));
  view.page = Math.min(Math.max(0, page), nPages - 1);
  const shown = view.matching.slice(view.page * PAGE_ROWS, (view.page + 1) * PAGE_ROWS);
  byId("cards").setAttribute("aria-busy", "true");
  const terms = termsOf(want.query);
  const cards = await Promise.all(
    shown.map(async (row) => {
      const texts = await Promise.all(want.sets.map(async (set) => ({ set, said: await textOf(set, row) })));
      return card(rows, row, texts, terms, actions);
    }),
  );
  if (turn !== view.turn) return;
  byId("cards").replaceChildren(...cards);
  byId("cards").removeAttribute("aria-busy");
  say("count", `${number(view.matching.length)} of ${number(about.n_rows)} photographs${view.group ? ", one group of copies" : ""}.`);
  say("n-pages", `of ${number(nPages)}`);
  byId("page").value = String(view.page + 1);
  byId("page").max = String(nPages);
  for (const button of document.querySelectorAll("[data-turn]")) {
    button.disabled = ["first", "previous"].includes(button.dataset.turn) ? view.page === 0 : view.page === nPages - 1;
  }
  keepAddress();
  choose(focus === "last" ? cards.length - 1 : 0, focus !== "");
}

function choose(at, focus = true) {
  // Make one card the one that Tab reaches, and go there.
  const articles = [...document.querySelectorAll("article")];
  view.card = at;
  articles.forEach((article, place) => (article.tabIndex = place === at ? 0 : -1));
  if (!focus || !articles[at]) return;
  articles[at].focus({ preventScroll: true });
  articles[at].scrollIntoView({ block: "nearest" });
}

function showCounts() {
  const nMarks = marksOf.reduce((sum, marks) => sum + marks.among(rows.imageIds).length, 0);
  say("n-marks", `${number(nMarks)} descriptions reviewed, kept in this browser.`);
}

function filter() {
  find(0).catch(fail);
}

function showAll(group = "") {
  // Take every filter back, but for the copies of one photograph where a group is named.
  form.reset();
  view.group = group;
  find(0, group && "first").catch(fail);
}

function turnPage(to, focus = "") {
  const last = Math.ceil(view.matching.length / PAGE_ROWS) - 1;
  const page = { first: 0, previous: view.page - 1, next: view.page + 1, last }[to] ?? to;
  if (!(page >= 0 && page <= last) || page === view.page) return;
  view.turn += 1;
  show(page, wanted(), focus)
    .then(() => focus || byId("photographs").scrollIntoView())
    .catch(fail);
}

function keepAddress() {
  const kept = new URLSearchParams([...new FormData(form)].filter(([name, value]) => value && name !== "set"));
  for (const box of form.querySelectorAll("[name=set]:not(:checked)")) kept.append("without", box.value);
  if (view.group) kept.set("group", view.group);
  if (view.page) kept.set("page", String(view.page + 1));
  history.replaceState(null, "", `#${kept}`);
}

function takeAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of kept) if (name !== "set" && form.elements[name]) form.elements[name].value = value;
  for (const field of form.querySelectorAll("select")) if (field.selectedIndex < 0) field.value = "";
  for (const box of form.querySelectorAll("[name=set]")) box.checked = !kept.getAll("without").includes(box.value);
  view.group = kept.get("group") ?? "";
  view.page = Math.max(0, (Number(kept.get("page")) || 1) - 1);
}
