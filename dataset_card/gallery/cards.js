// One photograph with all that is said of it, as elements: every text is set as text, never as HTML.

function element(name, properties = {}, ...children) {
  const { dataset = {}, ...plain } = properties;
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(plain)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

function card(rows, row, texts, terms, actions) {
  const words = (column) => rows.words[column][rows[column][row]];
  const group = rows.duplicate_group[row];
  const label = words("label") || "(no class)";
  const splits = [words("split"), `official ${words("split_official")}`, `clean ${words("split_clean")}`];
  const facts = element(
    "header",
    {},
    picture(rows, row, label),
    element("h2", {}, element("bdi", {}, label)),
    element("p", {}, splits.join(" · ")),
    element("p", {}, element("bdi", {}, rows.path[row])),
    element("p", {}, rows.image_id[row]),
  );
  if (words("duplicate_group")) {
    const text = `Copy or near-copy: group of ${rows.nCopies[group]}`;
    facts.append(element("button", { type: "button", className: "copies", onclick: () => actions.showGroup(group) }, text));
  }
  const described = element("div", { className: "described" });
  texts.forEach(({ set, said }) => described.append(description(rows, row, set, said, terms, actions)));
  const name = `${label}, ${words("split")}, photograph ${rows.image_id[row]}`;
  return element("li", {}, element("article", { tabIndex: -1, "aria-label": name, dataset: { row } }, facts, described));
}

function picture(rows, row, label) {
  const absent = () => element("p", { className: "absent" }, "no picture here");
  const name = rows.thumbnail[row];
  if (!name) return absent();
  const [width, height] = rows.size_px[row];
  const image = element("img", { loading: "lazy", decoding: "async", width, height, alt: `Photograph, class ${label}` });
  image.onerror = () => image.replaceWith(absent());
  if (about.folder) {
    const folder = encodeURIComponent(about.folder);
    image.src = `${folder}/thumbnails/${name.slice(0, 2)}/${name}-${about.thumbnail_px}.jpg`;
  } else {
    load("pictures").then((pictures) => (image.src = `data:image/jpeg;base64,${pictures[name]}`));
  }
  return image;
}

function description(rows, row, set, said, terms, actions) {
  const { name } = about.sets[set];
  // a group, not a section: a hundred landmarks on a page are none
  const column = element(
    "div",
    { className: "said", tabIndex: -1, role: "group", "aria-label": `Description by ${name}`, dataset: { set } },
    element("h3", {}, element("bdi", {}, name)),
  );
  if (!said) {
    column.append(element("p", { className: "facts" }, "this set does not describe the photograph"));
    return column;
  }
  const flags = rows.flags[set][row].map((flag) => rows.words.flags[flag]);
  if (flags.length) column.append(element("p", { className: "flags" }, "Flags: ", element("strong", {}, flags.join(", "))));
  column.append(highlighted(said.text, terms));
  if (said.findings.length) {
    const pairs = said.findings.map(([key, value]) =>
      element("div", {}, element("dt", {}, element("bdi", {}, key)), element("dd", {}, element("bdi", {}, value))),
    );
    column.append(element("dl", { className: "findings" }, ...pairs));
  }
  column.append(element("p", { className: "facts" }, said.facts.join(" · ")));
  column.append(verdicts(rows.image_id[row], set, said, actions));
  return column;
}

function highlighted(text, terms) {
  // `text` with every match of a term in <mark>.
  const whole = element("p", { className: "text", dir: "auto" });
  const places = terms.flatMap((term) => [...text.matchAll(term)].map((found) => [found.index, found.index + found[0].length]));
  places.sort((a, b) => a[0] - b[0]);
  let end = 0;
  for (const [from, to] of places) {
    if (to <= end) continue;
    whole.append(text.slice(end, Math.max(from, end)), element("mark", {}, text.slice(Math.max(from, end), to)));
    end = to;
  }
  whole.append(text.slice(end));
  return whole;
}

function verdicts(imageId, set, said, actions) {
  const { name } = about.sets[set];
  const mark = () => {
    const kept = actions.marksOf[set].of(imageId);
    return kept?.[0] === said.id ? kept : [said.id, "", "", ""];
  };
  const buttons = VERDICTS.map((verdict) =>
    element("button", { type: "button", dataset: { verdict }, "aria-pressed": "false" }, verdict),
  );
  const note = element("input", { type: "text", maxLength: 1000, placeholder: "note", "aria-label": `Note on ${name}` });
  const show = () => {
    const [, review, text] = mark();
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === review)));
    note.value = text;
  };
  const put = (review, text) => {
    actions.marksOf[set].put(imageId, [said.id, review, text, new Date().toISOString().slice(0, 19) + "Z"]);
    show();
    actions.marked();
  };
  buttons.forEach((button) => {
    button.onclick = () => put(mark()[1] === button.dataset.verdict ? "" : button.dataset.verdict, note.value.trim());
  });
  note.onchange = () => put(mark()[1], note.value.trim());
  show();
  return element("div", { className: "verdicts", role: "group", "aria-label": `Review of ${name}` }, ...buttons, note);
}
