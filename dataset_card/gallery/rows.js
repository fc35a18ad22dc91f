// The rows: read from the page or from scripts beside it, found by filter and by search in their texts.

const about = JSON.parse(document.getElementById("about").textContent);
const received = new Map(); // name of a piece -> promise of its value
const waiting = new Map(); // name of a piece under way -> who takes its value

window.vlDermnetReceive = (name, value) => {
  waiting.get(name)?.(value);
  waiting.delete(name);
};

function load(name) {
  if (!received.has(name)) received.set(name, about.folder ? loadScript(name) : loadElement(name));
  return received.get(name);
}

async function loadElement(name) {
  return JSON.parse(document.getElementById(name).textContent);
}

function loadScript(name) {
  return new Promise((resolve, reject) => {
    waiting.set(name, resolve);
    const script = document.createElement("script");
    script.src = `${about.folder.split("/").map(encodeURIComponent).join("/")}/${name}`;
    script.onload = () => script.remove();
    script.onerror = () => {
      received.delete(name);
      reject(new Error(`cannot read ${about.folder}/${name}: keep the folder beside this page`));
    };
    document.head.append(script);
  });
}

const chunkOf = (row) => Math.floor(row / about.rows_per_chunk);
const loadTexts = (set, chunk) => load(about.texts[set][chunk]);

async function textOf(set, row) {
  return (await loadTexts(set, chunkOf(row)))[row % about.rows_per_chunk];
}

function termsOf(query) {
  return query.split(/\s+/).filter(Boolean).map((term) => new RegExp(RegExpEscape(term), "giu"));
}

function RegExpEscape(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

async function searchTexts(query, sets, progress) {
  // Rows of which one description, of one of the sets, holds every term; all texts are read for it, once.
  const terms = termsOf(query).map((term) => new RegExp(term.source, "iu"));
  const found = new Uint8Array(about.n_rows);
  const nChunks = sets.length * Math.ceil(about.n_rows / about.rows_per_chunk);
  let nRead = 0;
  for (const set of sets) {
    for (let chunk = 0; chunk < about.texts[set].length; chunk += 1) {
      const texts = await loadTexts(set, chunk);
      texts.forEach((said, number) => {
        if (said && terms.every((term) => term.test(said.text))) found[chunk * about.rows_per_chunk + number] = 1;
      });
      nRead += 1;
      if (progress && nRead % 10 === 0) progress(nRead / nChunks);
    }
  }
  return found;
}

function passes(rows, row, wanted, marksOf) {
  // Whether a row passes every filter but the search; `wanted` has numbers of words, or null for any.
  if (wanted.label !== null && rows.label[row] !== wanted.label) return false;
  if (wanted.split && rows[wanted.split.column][row] !== wanted.split.word) return false;
  if (wanted.group !== null && rows.duplicate_group[row] !== wanted.group) return false;
  if (wanted.copies === "only" && !rows.words.duplicate_group[rows.duplicate_group[row]]) return false;
  if (wanted.copies === "once" && rows.isLaterCopy[row]) return false;
  const described = wanted.sets.filter((set) => rows.flags[set][row] !== null);
  if (!described.length) return false;
  if (wanted.flag === "none" && described.some((set) => rows.flags[set][row].length)) return false;
  if (wanted.flag === "any" && !described.some((set) => rows.flags[set][row].length)) return false;
  if (typeof wanted.flag === "number" && !described.some((set) => rows.flags[set][row].includes(wanted.flag))) {
    return false;
  }
  if (!wanted.mark) return true;
  const verdicts = described.map((set) => marksOf[set].of(rows.image_id[row]));
  if (wanted.mark === "none") return verdicts.some((mark) => mark === null);
  if (wanted.mark === "any") return verdicts.some((mark) => mark !== null);
  return verdicts.some((mark) => mark?.[1] === wanted.mark);
}

function countCopies(rows) {
  // How often each group's photograph stands in the dataset, and which rows repeat an earlier one.
  rows.nCopies = new Uint32Array(rows.words.duplicate_group.length);
  rows.isLaterCopy = new Uint8Array(about.n_rows);
  rows.duplicate_group.forEach((group, row) => {
    rows.isLaterCopy[row] = rows.words.duplicate_group[group] && rows.nCopies[group] ? 1 : 0;
    rows.nCopies[group] += 1;
  });
}
