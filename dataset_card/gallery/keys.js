// What the page listens to: fields, buttons and single keys, which can be switched off.

function listen() {
  let typing;
  form.addEventListener("input", (event) => {
    clearTimeout(typing);
    view.group = "";
    typing = setTimeout(filter, event.target.type === "search" ? 200 : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("show-all").onclick = () => showAll();
  byId("page").addEventListener("change", (event) => turnPage(Number(event.target.value) - 1));
  for (const button of document.querySelectorAll("[data-turn]")) button.onclick = () => turnPage(button.dataset.turn);
  byId("export").onclick = saveCsv;
  byId("import").onclick = () => byId("import-file").click();
  byId("import-file").addEventListener("change", takeCsv);
  byId("help-open").onclick = () => byId("help").showModal();
  document.addEventListener("keydown", pressed);
  document.addEventListener("focusin", (event) => {
    const article = event.target.closest("article");
    if (article) choose([...document.querySelectorAll("article")].indexOf(article), false);
  });
  window.addEventListener("storage", () => {
    marksOf.forEach((marks) => marks.read());
    showCounts();
  });
}

function saveCsv() {
  const file = new Blob([exportMarks(about.sets, marksOf, rows.imageIds)], { type: "text/csv" });
  const link = element("a", { href: URL.createObjectURL(file), download: "review.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function takeCsv(event) {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    const nMarks = importMarks(await file.text(), about.sets, marksOf);
    say("notice", `${number(nMarks)} marks were read from ${file.name}.`);
  } catch (error) {
    say("notice", `${file.name} was not read: ${error.message}.`);
  }
  showCounts();
  await find();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  l: () => stepSet(1),
  h: () => stepSet(-1),
  ArrowRight: () => stepSet(1),
  ArrowLeft: () => stepSet(-1),
  n: () => turnPage("next", "first"),
  p: () => turnPage("previous", "first"),
  g: () => described()?.querySelector('[data-verdict="good"]')?.click(),
  w: () => described()?.querySelector('[data-verdict="wrong"]')?.click(),
  u: () => described()?.querySelector('[data-verdict="unsure"]')?.click(),
  c: () => described()?.querySelector("input")?.focus(),
  "/": () => byId("query").focus(),
  "?": () => byId("help").showModal(),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const at = event.target;
  if (at.matches("input, select, textarea")) {
    if (event.key === "Escape" && at.closest(".said")) at.closest(".said").focus();
    return;
  }
  const isArrow = event.key.startsWith("Arrow");
  if (isArrow ? !at.matches("article, .said") : !byId("keys").checked) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function step(by) {
  const isInside = document.activeElement.closest("article") !== null;
  const to = isInside ? view.card + by : view.card;
  if (to < 0) turnPage("previous", "last");
  else if (to >= document.querySelectorAll("article").length) turnPage("next", "first");
  else choose(to);
}

const article = () => document.querySelectorAll("article")[view.card];
const described = () => document.activeElement.closest(".said") ?? article()?.querySelector(".said");

function stepSet(by) {
  const all = [...(article()?.querySelectorAll(".said") ?? [])];
  const now = all.indexOf(document.activeElement.closest(".said"));
  const next = all[now < 0 ? 0 : Math.min(Math.max(0, now + by), all.length - 1)];
  next?.focus();
}
