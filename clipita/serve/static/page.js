"use strict";
// The page in Italian and English. It asks this server alone, and keeps nothing but the language that was chosen.

const WORDS = {
  it: {
    other: "English", tabs: "Che cosa vuoi fare", tab_search: "Cerca", tab_name: "Dai un nome", tab_where: "Dove",
    token_title: "Serve il codice", token_help: "È stato scritto nel terminale all'avvio del server.",
    token: "Codice", enter: "Entra", wrong_token: "Il codice non è questo.",
    query: "Che cosa cerchi?", search: "Cerca", filters: "Date e altri filtri", since: "Dal giorno",
    until: "Al giorno", archive: "Archivio", all_archives: "Tutti", show_all: "Mostra le più vicine anche se non c'è",
    wishes: "Di più e di meno", results: "Fotografie trovate", similar: "Simili", more: "Più così",
    similar_short: "Simili", more_short: "Più", less_short: "Meno", less: "Meno così", close: "Chiudi", remove: "Togli", searching: "Sto cercando…",
    found: n => n === 1 ? "1 fotografia" : `${n} fotografie, le più vicine per prime`,
    nothing: "Non ho trovato nulla che lo mostri.", nearest: "Non ho trovato nulla che lo mostri; ecco le più vicine.",
    no_archive: "Nessuna cartella da cercare. Avvia il server con una: clipita serve CARTELLA",
    ask: "Scrivi che cosa cerchi, oppure scegli una fotografia simile.",
    growing: (name, done, total) => `${name}: ${done} di ${total} fotografie lette. Si può già cercare.`,
    waiting: name => `${name}: in attesa di essere letta.`, update_failed: (name, why) => `${name}: ${why}`,
    drop: "Trascina qui una fotografia, incollala, oppure", pick: "Scegli una fotografia",
    photo: "La fotografia scelta", labels: "Etichette, una per riga", labels_help: "Basta il nome: «gatto» diventa «un gatto».",
    example: "gatto\ncane\ncavallo\nuna tazza di caffè\nun razzo", name: "Dai un nome", thinking: "Sto guardando…",
    scores: "Probabilità", none: "Nessuna di queste.", best: (label, share) => `${label}, ${share}`,
    need_photo: "Scegli prima una fotografia.", need_labels: "Scrivi almeno due etichette.",
    need_text: "Scrivi che cosa cercare nella fotografia.",
    sought: "Che cosa cerchi nella fotografia?", where: "Dov'è?", strength: "Intensità della mappa",
    where_help: "Chiaro è dove il modello lo vede. La mappa è un indizio, non un contorno; scuro ai lati è ciò che non guarda.",
    place: (x, y, cosine) => `Soprattutto al ${x} da sinistra e al ${y} dall'alto. Coseno ${cosine}.`,
    looks: text => `Dove vede: ${text}`, busy: "Il server è occupato. Riprova tra un momento.",
    too_large: "La fotografia è troppo grande.", unreadable: "Questo file non si può leggere come fotografia.",
    gone: "Il server non risponde.", problem: "Non è andata: ", like: "simili a questa", plus: "più", minus: "meno",
    cosine: "coseno", about: (model, license) => `Modello ${model}, licenza ${license}. Niente esce da questo server.`,
  },
  en: {
    other: "Italiano", tabs: "What to do", tab_search: "Search", tab_name: "Name it", tab_where: "Where",
    token_title: "A token is needed", token_help: "It was printed in the terminal when the server started.",
    token: "Token", enter: "Enter", wrong_token: "This is not the token.",
    query: "What are you looking for? (in Italian)", search: "Search", filters: "Dates and other filters",
    since: "From day", until: "To day", archive: "Archive", all_archives: "All",
    show_all: "Show the nearest even if it is not there", wishes: "More and less", results: "Photographs found",
    similar: "Similar", more: "More so", similar_short: "Similar", more_short: "More", less_short: "Less",
    less: "Less so", close: "Close", remove: "Remove", searching: "Searching…",
    found: n => n === 1 ? "1 photograph" : `${n} photographs, the nearest first`,
    nothing: "Found nothing that shows it.", nearest: "Found nothing that shows it; these are the nearest.",
    no_archive: "There is no folder to search. Start the server with one: clipita serve FOLDER",
    ask: "Write what you are looking for, or choose a similar photograph.",
    growing: (name, done, total) => `${name}: ${done} of ${total} photographs read. It can be searched already.`,
    waiting: name => `${name}: waiting to be read.`, update_failed: (name, why) => `${name}: ${why}`,
    drop: "Drop a photograph here, paste it, or", pick: "Choose a photograph",
    photo: "The chosen photograph", labels: "Labels in Italian, one a line", labels_help: "The noun is enough: “gatto” becomes “un gatto”.",
    example: "gatto\ncane\ncavallo\nuna tazza di caffè\nun razzo", name: "Name it", thinking: "Looking…",
    scores: "Probabilities", none: "None of these.", best: (label, share) => `${label}, ${share}`,
    need_photo: "Choose a photograph first.", need_labels: "Write at least two labels.",
    need_text: "Write what to look for in the photograph.",
    sought: "What to look for in it? (in Italian)", where: "Where is it?", strength: "Strength of the map",
    where_help: "Bright is where the model sees it. The map is a hint, not an outline; dark at the sides is what it does not see.",
    place: (x, y, cosine) => `Mostly ${x} from the left and ${y} from the top. Cosine ${cosine}.`,
    looks: text => `Where it sees: ${text}`, busy: "The server is busy. Try again in a moment.",
    too_large: "The photograph is too large.", unreadable: "This file cannot be read as a photograph.",
    gone: "The server does not answer.", problem: "It did not work: ", like: "like this one", plus: "more", minus: "less",
    cosine: "cosine", about: (model, license) => `Model ${model}, license ${license}. Nothing leaves this server.`,
  },
};
const RAMP = [[30, 20, 90], [130, 30, 120], [225, 70, 70], [252, 160, 40], [252, 250, 150]];

const $ = id => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
let language = localStorage.getItem("language") || (navigator.language.startsWith("it") ? "it" : "en");
let words = WORDS[language];
let status = null; // what the server said last of itself
let photo = null; // {blob, url, name}: what "name" and "where" are asked about
let place = null; // the map that is shown
let wishes = []; // {sign: 1 or -1, id, name}
let base = null; // {id, name} while photographs like one are searched
let viewed = null; // the photograph in the viewer
let lastSearch = 0; // the number of the search in work, so that a slow older one is dropped

const percent = share => new Intl.NumberFormat(language, {style: "percent", maximumFractionDigits: 1}).format(share);
const short = share => new Intl.NumberFormat(language, {style: "percent", maximumFractionDigits: 0}).format(share);
const decimal = value => new Intl.NumberFormat(language, {minimumFractionDigits: 2, maximumFractionDigits: 2}).format(value);
const thumbnail = (id, size = 0) => `/api/photo/${id}?size=${size}`;

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(words.gone);
  }
  if (response.status === 401 && path !== "/api/login") showLogin();
  if (!response.ok) {
    const known = {401: words.wrong_token, 413: words.too_large, 503: words.busy};
    const told = await response.json().then(body => body.detail, () => response.statusText);
    throw new Error(known[response.status] || words.problem + told);
  }
  return response.json();
}
const askJson = (path, body) =>
  ask(path, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)});
function askOfPhoto(path, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, JSON.stringify(value));
  form.append("image", photo.blob, "image");
  return ask(path, {method: "POST", body: form});
}

function translate() {
  words = WORDS[language];
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = words[element.dataset.t];
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", words[element.dataset.label]);
  $("language").textContent = words.other;
  $("language").lang = language === "it" ? "en" : "it";
  for (const image of document.querySelectorAll(".shown img")) image.alt = words.photo;
  if (status) showStatus();
  showWishes();
  if (place) showPlace();
}

// --- tabs: arrows, Home and End move between them, as in every tab list
const tabs = [...document.querySelectorAll("[role=tab]")];
function openTab(name, focus = false) {
  for (const tab of tabs) {
    const isOpen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", isOpen);
    tab.tabIndex = isOpen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !isOpen;
    if (isOpen && focus) tab.focus();
  }
  // The first tab has no mark: a browser would begin there with the keyboard, past the tabs.
  history.replaceState(null, "", name === "search" ? location.pathname : `#${name}`);
  if (name === "where" && place) drawPlace();
}
for (const [number, tab] of tabs.entries()) {
  tab.addEventListener("click", () => openTab(tab.id.slice(4)));
  tab.addEventListener("keydown", event => {
    const to = {ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: tabs.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    openTab(tabs[(to + tabs.length) % tabs.length].id.slice(4), true);
  });
}

// --- the server's state
function showLogin() {
  $("page").hidden = true;
  $("login").hidden = false;
  $("token").focus();
}
$("login").addEventListener("submit", async event => {
  event.preventDefault();
  try {
    await askJson("/api/login", {token: $("token").value});
    $("token").value = "";
    $("login-problem").textContent = "";
    await watch();
  } catch (error) {
    $("login-problem").textContent = error.message;
  }
});
function showStatus() {
  $("login").hidden = true;
  $("page").hidden = false;
  $("about").textContent = words.about(status.model, status.license);
  const lines = status.archives.filter(archive => archive.phase !== "ready").map(archive => {
    if (archive.phase === "failed") return make("div", {className: "problem"}, words.update_failed(archive.name, archive.error));
    if (archive.phase === "waiting") return make("div", {}, words.waiting(archive.name));
    const text = words.growing(archive.name, archive.done, archive.total);
    const bar = make("progress", {max: Math.max(archive.total, 1), value: archive.done});
    bar.setAttribute("aria-label", text);
    return make("div", {}, text, bar);
  });
  $("growing").replaceChildren(...lines);
  const chosen = $("archive").value;
  $("archive-field").hidden = status.archives.length < 2;
  $("archive").replaceChildren(
    make("option", {value: "", textContent: words.all_archives}),
    ...status.archives.map((archive, number) => make("option", {value: number, textContent: archive.name})),
  );
  $("archive").value = chosen;
  if (!status.archives.length) $("search-status").textContent = words.no_archive;
}
async function watch() {
  try {
    status = await ask("/api/status");
    showStatus();
  } catch (error) {
    if (!$("login").hidden) return;
    $("search-status").textContent = error.message;
  }
  const isGrowing = status && status.archives.some(archive => ["waiting", "growing"].includes(archive.phase));
  if (isGrowing || !status) setTimeout(watch, 1000);
}

// --- search
$("search-form").addEventListener("submit", event => {
  event.preventDefault();
  base = null;
  search();
});
for (const id of ["since", "until", "archive", "show-all"]) {
  $(id).addEventListener("change", () => { if (base || $("query").value.trim()) search(); });
}
async function search() {
  showWishes();
  const text = $("query").value.trim();
  if (!base && !text) {
    $("search-status").textContent = status && !status.archives.length ? words.no_archive : words.ask;
    return;
  }
  const number = ++lastSearch;
  const chosen = sign => wishes.filter(wish => wish.sign === sign).map(wish => ({photo: wish.id}));
  const body = {
    ...(base ? {photo: base.id} : {text}), more: chosen(1), less: chosen(-1),
    since: $("since").value, until: $("until").value, show_all: $("show-all").checked,
  };
  if ($("archive").value !== "") body.archive = Number($("archive").value);
  $("search-status").textContent = words.searching;
  try {
    const {found, photos} = await askJson("/api/search", body);
    if (number !== lastSearch) return;
    $("search-status").textContent = found ? words.found(photos.length) : photos.length ? words.nearest : words.nothing;
    $("results").replaceChildren(...photos.map(card));
  } catch (error) {
    if (number === lastSearch) $("search-status").textContent = error.message;
  }
}
function card(found) {
  const name = found.name.split("/").pop();
  const image = make("img", {src: thumbnail(found.id), alt: name, loading: "lazy", width: 320, height: 240});
  const open = make("button", {type: "button", className: "open"}, image);
  open.addEventListener("click", () => view(found));
  const date = found.taken ? new Date(found.taken).toLocaleDateString(language) + " · " : "";
  const about = make("p", {}, name, make("small", {}, `${date}${words.cosine} ${decimal(found.score)}`));
  const actions = make("div", {className: "actions"});
  for (const action of ["similar", "more", "less"]) {
    const button = make("button", {type: "button", textContent: words[`${action}_short`]});
    button.setAttribute("aria-label", `${words[`${action}_short`]}: ${name}`);
    button.title = words[action];
    button.addEventListener("click", () => act(action, found));
    actions.append(button);
  }
  return make("li", {}, open, about, actions);
}
function act(action, found) {
  const name = found.name.split("/").pop();
  if (action === "similar") base = {id: found.id, name};
  else wishes = [...wishes.filter(wish => wish.id !== found.id), {sign: action === "more" ? 1 : -1, id: found.id, name}];
  search();
}
function showWishes() {
  const chip = (text, id, remove) => {
    const button = make("button", {type: "button", textContent: "×"});
    button.setAttribute("aria-label", `${words.remove}: ${text}`);
    button.addEventListener("click", () => { remove(); search(); });
    return make("li", {}, make("img", {src: thumbnail(id), alt: ""}), text, button);
  };
  const chips = wishes.map(wish => chip(`${wish.sign > 0 ? words.plus : words.minus}: ${wish.name}`, wish.id,
    () => { wishes = wishes.filter(other => other !== wish); }));
  if (base) chips.unshift(chip(`${words.like}: ${base.name}`, base.id, () => { base = null; }));
  $("wishes").replaceChildren(...chips);
}

// --- one photograph, large
function view(found) {
  viewed = found;
  $("viewer-photo").src = thumbnail(found.id, 1);
  $("viewer-photo").alt = found.name;
  $("viewer-name").textContent = found.name + (found.taken ? ` · ${new Date(found.taken).toLocaleString(language)}` : "");
  $("viewer").showModal();
}
$("viewer").addEventListener("click", async event => {
  if (event.target === $("viewer")) $("viewer").close(); // beside it
  const action = event.target.dataset.action;
  if (!action) return;
  $("viewer").close();
  if (action === "close") return;
  if (action === "name" || action === "where") {
    const answer = await fetch(thumbnail(viewed.id, 1));
    if (answer.ok) choose(await answer.blob());
    openTab(action, true);
  } else {
    act(action, viewed);
  }
});

// --- the photograph that is asked about, one for both tabs: dropped, pasted or picked
for (const area of document.querySelectorAll(".picture")) {
  area.append($("drop").content.cloneNode(true));
  const drop = area.firstElementChild;
  drop.querySelector("input").addEventListener("change", event => {
    if (event.target.files[0]) choose(event.target.files[0]);
    event.target.value = "";
  });
  drop.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
}
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => {
  event.preventDefault();
  for (const drop of document.querySelectorAll(".drop")) drop.classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (!file) return;
  if (!$("search").hidden) openTab("name");
  choose(file);
});
addEventListener("paste", event => {
  const file = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  if (!$("search").hidden) openTab("name");
  choose(file);
});
function choose(blob) {
  if (photo) URL.revokeObjectURL(photo.url);
  photo = {blob, url: URL.createObjectURL(blob)};
  place = null;
  $("strength-field").hidden = true;
  for (const id of ["name-status", "where-status"]) $(id).textContent = "";
  $("scores").replaceChildren();
  for (const drop of document.querySelectorAll(".drop")) {
    drop.classList.add("full");
    drop.querySelector(".shown").hidden = false;
    drop.querySelector(".hint").hidden = true;
    drop.querySelector("img").src = photo.url;
    drop.querySelector("img").alt = words.photo;
    const canvas = drop.querySelector("canvas");
    canvas.width = canvas.height = 1;
    canvas.getContext("2d").clearRect(0, 0, 1, 1);
  }
}
async function whileAsking(form, line, question) {
  const button = form.querySelector("button.main");
  button.disabled = true;
  $(line).textContent = words.thinking;
  try {
    await question();
  } catch (error) {
    $(line).textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

// --- names
$("name-form").addEventListener("submit", event => {
  event.preventDefault();
  const labels = [...new Set($("labels").value.split(/[\n,;]/).map(label => label.trim()).filter(Boolean))];
  if (!photo) { $("name-status").textContent = words.need_photo; return; }
  if (labels.length < 2) { $("name-status").textContent = words.need_labels; return; }
  whileAsking(event.target, "name-status", async () => {
    const {scores, none} = await askOfPhoto("/api/label", {labels});
    $("name-status").textContent = none ? words.none : words.best(scores[0].label, percent(scores[0].score));
    $("scores").classList.toggle("none", Boolean(none));
    $("scores").replaceChildren(...scores.map(({label, score}) => {
      const bar = make("div");
      bar.style.width = `${100 * score}%`;
      const row = make("div", {className: "row"}, make("span", {}, label), make("span", {}, percent(score)));
      return make("li", {}, row, make("div", {className: "bar"}, bar));
    }));
  });
});

// --- where
$("where-form").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("sought").value.trim();
  if (!photo) { $("where-status").textContent = words.need_photo; return; }
  if (!text) { $("where-status").textContent = words.need_text; return; }
  whileAsking(event.target, "where-status", async () => {
    place = (await askOfPhoto("/api/where", {texts: [text]})).places[0];
    $("strength-field").hidden = false;
    showPlace();
    drawPlace();
  });
});
$("strength").addEventListener("input", () => place && drawPlace());
function showPlace() {
  const [x, y] = place.peak;
  $("where-status").textContent = words.place(short(x), short(y), decimal(place.cosine));
  const canvas = $("where").querySelector("canvas");
  canvas.setAttribute("aria-label", words.looks(place.text));
}
function drawPlace() {
  const {rows, columns, heat} = place;
  const strength = $("strength").value / 100;
  const pixels = colorOf => {
    const small = make("canvas", {width: columns, height: rows});
    const cells = small.getContext("2d").createImageData(columns, rows);
    heat.forEach((value, cell) => cells.data.set(colorOf(value), 4 * cell));
    small.getContext("2d").putImageData(cells, 0, 0);
    return small;
  };
  const hot = pixels(value => {
    const share = Math.max(value, 0) / 255;
    const at = Math.min(share * (RAMP.length - 1), RAMP.length - 1.001);
    const [low, high, part] = [RAMP[Math.floor(at)], RAMP[Math.floor(at) + 1], at % 1];
    return [...low.map((channel, i) => channel + part * (high[i] - channel)), 255 * strength * Math.sqrt(share)];
  });
  const unseen = pixels(value => [0, 0, 0, value < 0 ? 150 : 0]);
  const image = $("where").querySelector(".shown img");
  const canvas = $("where").querySelector("canvas");
  const scale = Math.max(1, Math.round(800 / Math.max(rows, columns)));
  canvas.width = columns * scale;
  canvas.height = rows * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.filter = `blur(${1.8 * scale}px)`; // the map's cells come in blocks, one for each place of the model
  context.drawImage(hot, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  context.imageSmoothingEnabled = false;
  context.drawImage(unseen, 0, 0, canvas.width, canvas.height);
  image.alt = words.photo;
}

$("language").addEventListener("click", () => {
  language = language === "it" ? "en" : "it";
  localStorage.setItem("language", language);
  translate();
  if ($("results").children.length) search();
});
translate();
$("labels").value = words.example;
openTab(["search", "name", "where"].includes(location.hash.slice(1)) ? location.hash.slice(1) : "search");
watch();
