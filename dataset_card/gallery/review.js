// A reviewer's marks: kept in the browser, per description set and text; read from and written as CSV.

const VERDICTS = ["good", "wrong", "unsure"];
const CSV_COLUMNS = ["set_name", "image_id", "description_id", "review", "review_note", "reviewed_at"];

class Marks {
  // One per set. A mark is [description_id, review, review_note, reviewed_at], by image_id; `description_id` names the
  // text that was judged: the mark of another text is kept and exported, but not shown as one of this text.
  constructor(set, complain) {
    this.key = `vl-dermnet/review/${set.name}/${set.fingerprint}`;
    this.complain = complain;
    this.marks = {};
    this.read();
  }

  read() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "{}");
      this.marks = Object.assign(Object.create(null), stored);
    } catch (error) {
      this.complain(`This browser keeps no marks for this page (${error.name}): export them before you close it.`);
    }
  }

  of(imageId) {
    return this.marks[imageId] ?? null;
  }

  among(imageIds) {
    // The marks of these images, sorted; others are of another dataset that the same model described the same way.
    return Object.entries(this.marks).filter(([imageId]) => imageIds.has(imageId)).sort();
  }

  put(imageId, mark) {
    this.read(); // another tab may have written meanwhile
    if (mark[1] || mark[2]) this.marks[imageId] = mark;
    else delete this.marks[imageId];
    this.write();
  }

  putAll(marks) {
    this.read();
    Object.assign(this.marks, marks);
    this.write();
  }

  write() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.marks));
    } catch (error) {
      this.complain(`This browser could not keep the mark (${error.name}): export the marks before you close the page.`);
    }
  }
}

function toCsv(lines) {
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
}

function fromCsv(text) {
  // RFC 4180: quoted cells may hold commas, doubled quotes and line breaks.
  const lines = [];
  let line = [];
  const cells = /("(?:[^"]|"")*"|[^,\r\n]*)(,|\r\n|\n|\r|$)/y;
  text = text.replace(/^\ufeff/, "");
  while (cells.lastIndex < text.length) {
    const found = cells.exec(text);
    if (!found) throw new Error("a quote is not closed");
    line.push(found[1].startsWith('"') ? found[1].slice(1, -1).replaceAll('""', '"') : found[1]);
    if (found[2] !== ",") {
      lines.push(line);
      line = [];
    } else if (cells.lastIndex === text.length) line.push("");
  }
  return line.length ? [...lines, line] : lines;
}

function exportMarks(sets, marksOf, imageIds) {
  // As `read_review` takes it; the mark at the start tells spreadsheets that it is UTF-8.
  const lines = [CSV_COLUMNS];
  sets.forEach((set, number) => {
    for (const [imageId, mark] of marksOf[number].among(imageIds)) {
      lines.push([set.name, imageId, ...mark]);
    }
  });
  return "\ufeff" + toCsv(lines);
}

function importMarks(text, sets, marksOf) {
  // Adds the file's marks to the browser's; where both have one of the same description, the file's counts.
  const [header, ...lines] = fromCsv(text);
  if (!header || header.join() !== CSV_COLUMNS.join()) {
    throw new Error(`its first line is not ${CSV_COLUMNS.join(",")}`);
  }
  const found = sets.map(() => Object.create(null));
  for (const line of lines) {
    if (line.length !== CSV_COLUMNS.length) throw new Error(`a line has ${line.length} cells, not ${CSV_COLUMNS.length}`);
    const [name, imageId, descriptionId, review, note, at] = line;
    const number = sets.findIndex((set) => set.name === name);
    if (number < 0) throw new Error(`it marks the set '${name}', which this page does not show`);
    if (review && !VERDICTS.includes(review)) throw new Error(`it holds the mark '${review}'`);
    found[number][imageId] = [descriptionId, review, note, at];
  }
  found.forEach((marks, number) => marksOf[number].putAll(marks));
  return lines.length;
}
