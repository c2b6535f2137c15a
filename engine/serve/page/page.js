// The address in, the page out: what is searched for is in the address, so that going back and sharing it work.
"use strict";

const CLIP_S = 60; // the server makes no longer ones
const MARGIN_S = 20; // of a clip that begins where somebody clicked
const STRIP_FRAMES = 12;
const AFTER = /\s*(?:->|→)\s*|[\s,;.]+then\s+/i; // between what is to be seen first and what follows
const UNWANTED = /(?<=\s)-(?:"([^"]+)"|([^\s>-]\S*))/g;
const DAY = /^\d{4}-\d\d-\d\d$/;
const at = (id) => document.getElementById(id);
const [form, sentence, results, status, progress, start] = ["form", "q", "results", "status", "progress", "start"].map(at);
const filters = ["folder", "length", "since", "until", "top"].map(at);
const unset = (filter) => (filter.options ? filter.options[0].value : "");
let asked = 0; // number of the last search: answers of older ones are dropped
let picture = null; // the file that was dropped
let current = null; // the row that keys act on
let answered = null; // the last answer, for "show them anyway"
let events = null;
const unplayable = new Set(); // ids of files that this browser has refused

// --- words -----------------------------------------------------------------------------------------------------

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (!parts[0]) parts.shift();
  return parts.map((part, place) => (place ? String(part).padStart(2, "0") : part)).join(":");
}

const spoken = (moment) => `${clock(moment.start_s)} to ${clock(moment.end_s)}`;
const path = (id) => id.split("/").map(encodeURIComponent).join("/");
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function element(name, text, classes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

// --- the question and the address -------------------------------------------------------------------------------

function question() {
  return new URLSearchParams(location.search);
}

function ask(changes) {
  const next = new URLSearchParams();
  for (const [name, value] of Object.entries(changes)) if (value) next.set(name, value);
  for (const each of filters) if (each.value && each.value !== unset(each)) next.set(each.id, each.value);
  history.pushState(null, "", next.size ? `/?${next}` : "/");
  return follow();
}

/** What the address says, in the server's parameters. */
function parameters(from) {
  const to = new URLSearchParams();
  if (from.get("like")) {
    to.set("like", from.get("like"));
    to.set("at", from.get("at") || "0");
  } else if (from.get("q")) {
    const wanted = from.get("q").replace(UNWANTED, (_, phrase, word) => (to.append("not", phrase || word), ""));
    const [first, ...rest] = wanted.split(AFTER).filter((part) => part.trim());
    to.set("q", first || "");
    for (const each of rest) to.append("then", each);
  }
  const [shortest, longest] = (from.get("length") || "").split("-");
  if (shortest) to.set("shortest", shortest);
  if (longest) to.set("longest", longest);
  for (const name of ["folder", "since", "until", "top"]) if (from.get(name)) to.set(name, from.get(name));
  to.set("moments", "5"); // of which the clear ones are shown
  return to;
}

/** Shows what the address asks for. */
async function follow() {
  const wanted = question();
  sentence.value = wanted.get("q") || "";
  for (const each of filters) {
    const value = wanted.get(each.id);
    const known = value && (each.options ? [...each.options].some((option) => option.value === value) : DAY.test(value));
    each.value = known ? value : unset(each); // a date that is none leaves its field empty
  }
  if (wanted.get("q") || wanted.get("like")) picture = null;
  const number = ++asked;
  close();
  if (!wanted.get("q") && !wanted.get("like") && !picture) {
    results.replaceChildren();
    status.replaceChildren();
    progress.hidden = true;
    start.hidden = false;
    document.title = "GridCLIP";
    return;
  }
  start.hidden = true;
  progress.hidden = false;
  status.textContent = "Searching …";
  results.setAttribute("aria-busy", "true");
  try {
    const request = picture ? { method: "POST", body: picture } : {};
    const response = await fetch(`/api/search?${parameters(wanted)}`, request);
    const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (number !== asked) return;
    if (!response.ok) throw new Error(answer.error);
    show(answer, wanted);
  } catch (error) {
    if (number !== asked) return;
    const lost = error instanceof TypeError;
    fail(lost ? "The server does not answer" : "No answer", lost ? "It may have been stopped." : error.message);
  } finally {
    if (number === asked) {
      progress.hidden = true;
      results.removeAttribute("aria-busy");
    }
  }
}

function fail(title, reason) {
  const note = element("div", undefined, "note bad");
  const again = element("button", "Try again");
  again.type = "button";
  again.onclick = follow;
  note.append(element("strong", title), element("span", reason ? `${reason[0].toUpperCase()}${reason.slice(1)}` : ""), element("br"), again);
  status.replaceChildren(note);
  results.replaceChildren();
}

// --- the answer -------------------------------------------------------------------------------------------------

function show(answer, wanted) {
  answered = answer;
  const { results: found, noise } = answer;
  const named = picture ? `the picture ${picture.name}` : wanted.get("like") ? `${wanted.get("like")} at ${clock(wanted.get("at") || 0)}` : `“${wanted.get("q")}”`;
  document.title = `${picture || wanted.get("like") ? `Like ${named}` : wanted.get("q")} · GridCLIP`;
  results.replaceChildren();
  if (!found.length) {
    note("No video", ["folder", "length", "since", "until"].some((name) => wanted.get(name)) ? "None of the videos that the filters let through answers this." : "The store has no video that could answer this.");
    return;
  }
  const best = found[0].score;
  if (noise && best <= noise.median) {
    note(
      `Nothing matches ${named}`,
      `The best video scores ${best.toFixed(2)}, which half of all sentences of random words exceed here (${noise.median.toFixed(2)}).`,
      "Show the nearest anyway",
      () => list(found, noise, wanted),
    );
    return;
  }
  if (noise && best <= noise.level) {
    note(`Weak answers to ${named}`, `The best video scores ${best.toFixed(2)}; sentences of random words reach ${noise.level.toFixed(2)} here. Say more of what is to be seen.`);
    list(found, noise, wanted);
    return;
  }
  const count = found.length === 1 ? "One video" : `${found.length} videos`;
  status.replaceChildren();
  if (picture) {
    const small = element("img");
    small.src = URL.createObjectURL(picture);
    small.onload = () => URL.revokeObjectURL(small.src);
    small.alt = "";
    status.append(small);
  }
  status.append(`${count} ${picture || wanted.get("like") ? "like" : "for"} ${named}, ${Math.round(answer.took_ms)} ms`);
  list(found, noise, wanted);
}

function note(title, reason, action, act) {
  const box = element("div", undefined, "note");
  box.append(element("strong", title), element("span", reason));
  if (action) {
    const button = element("button", action);
    button.type = "button";
    button.onclick = () => {
      button.remove();
      act();
    };
    box.append(element("br"), button);
  }
  status.replaceChildren(box);
}

function list(found, noise, wanted) {
  const cosines = found.flatMap((row) => (row.curve ? row.curve.cosine : []));
  const scale = { low: Math.min(...cosines), high: Math.max(...cosines), top: Math.max(...found.map((row) => row.score), noise ? noise.level : 0) * 1.05 };
  const weak = !noise || found[0].score <= noise.level;
  let divided = weak;
  for (const row of found) {
    if (!divided && row.score <= noise.level) {
      divided = true;
      results.append(element("li", `From here on no better than sentences of random words (${noise.level.toFixed(2)})`, "divide"));
    }
    results.append(makeRow(row, scale, noise, divided && !weak));
  }
  const play = wanted.get("play");
  const chosen = play && [...results.querySelectorAll(".row")].find((row) => row.video.video_id === play);
  if (chosen) playAt(chosen, Number(wanted.get("t")) || 0);
}

/** Those that stand out in their video: nearer to its best moment than to its worst. */
function clear(video) {
  const [best] = video.moments;
  if (!best || !video.curve || question().get("q")?.match(AFTER)) return video.moments;
  const half = (best.score + Math.min(...video.curve.cosine)) / 2;
  return video.moments.filter((moment) => moment === best || moment.score > half);
}

function makeRow(video, scale, noise, faint) {
  video.moments = clear(video);
  const row = at("row").content.cloneNode(true).firstElementChild;
  const pick = (selector) => row.querySelector(selector);
  row.video = video;
  const best = video.moments[0];
  row.chosen = best || null;
  row.classList.toggle("faint", faint);
  const [folder, name] = [video.video_id.slice(0, video.video_id.lastIndexOf("/") + 1), video.video_id.slice(video.video_id.lastIndexOf("/") + 1)];
  const title = pick("h2");
  if (folder) title.append(element("span", folder));
  title.append(name);
  title.title = video.video_id;
  pick(".number").textContent = video.score.toFixed(2);
  pick(".score").title = `Cosine ${video.score.toFixed(4)}` + (noise ? `; random words reach ${noise.level.toFixed(4)} in this store` : "");
  pick(".meter i").style.width = `${Math.max(0, Math.min(100, (100 * video.score) / scale.top))}%`;
  if (noise) pick(".meter b").style.left = `${(100 * noise.level) / scale.top}%`;
  else pick(".meter b").remove();

  const poster = pick(".poster");
  poster.setAttribute("aria-label", best ? `Play ${video.video_id} from ${clock(best.start_s)}` : `Play ${video.video_id}`);
  pick(".poster .time").textContent = `▶ ${clock(best ? best.start_s : 0)}`;
  poster.onclick = () => playAt(row, best ? best.start_s : 0, best);
  const line = pick(".line");
  if (video.file) {
    picturesOf(row, best);
    if (!video.local) pick('[data-do="ffmpeg"]').remove();
  } else {
    poster.disabled = true;
    pick(".poster .time").textContent = "no file here";
    pick(".strip").remove();
    pick(".more").remove();
  }
  if (video.curve) pick(".curve").append(...curve(video, scale));
  else pick(".curve").remove();
  if (video.duration_s) timeLine(row, line);
  else line.remove();

  const moments = pick(".moments");
  video.moments.forEach((moment, place) => {
    const button = element("button", `${clock(moment.start_s)}–${clock(moment.end_s)}`);
    button.type = "button";
    button.disabled = !video.file;
    button.append(element("span", moment.score.toFixed(2)));
    button.setAttribute("aria-label", `Moment ${place + 1}, ${spoken(moment)}, score ${moment.score.toFixed(2)}`);
    button.onclick = () => playAt(row, moment.start_s, moment);
    moments.append(button);
  });
  if (!video.moments.length) moments.append(element("span", "times unknown"));
  for (const action of row.querySelectorAll("[data-do]")) action.onclick = () => act(row, action);
  row.addEventListener("focusin", () => makeCurrent(row, false));
  if (pick(".more")) pick(".more").addEventListener("toggle", (event) => event.target.open && aimDownload(row));
  return row;
}

function picturesOf(row, best) {
  const { video_id: id } = row.video;
  const still = row.querySelector(".poster img");
  const strip = row.querySelector(".strip");
  for (const image of [still, strip]) image.onerror = () => image.classList.add("missing");
  still.src = `/api/frame/${path(id)}?at=${best ? ((best.start_s + best.end_s) / 2).toFixed(1) : 0}`;
  strip.src = `/api/strip/${path(id)}?frames=${STRIP_FRAMES}`;
}

/** The marks of the moments and the curve of cosines, all rows on one scale, as parts of an SVG of 1000 x 100. */
function curve(video, scale) {
  const { start_s, end_s, cosine } = video.curve;
  const x = (seconds) => ((1000 * seconds) / video.duration_s).toFixed(1);
  const y = (value) => (96 - (88 * (value - scale.low)) / Math.max(scale.high - scale.low, 1e-6)).toFixed(1);
  const draw = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const points = cosine.map((value, place) => `${x((start_s[place] + end_s[place]) / 2)},${y(value)}`);
  points.unshift(`${x(start_s[0])},${y(cosine[0])}`);
  points.push(`${x(end_s.at(-1))},${y(cosine.at(-1))}`);
  const marks = video.moments.map((moment, place) =>
    draw("rect", { class: place ? "mark" : "first", x: x(moment.start_s), y: 0, height: 100, width: Math.max(4, x(moment.end_s) - x(moment.start_s)) }),
  );
  return [...marks.reverse(), draw("polygon", { class: "area", points: `0,100 ${points.join(" ")} 1000,100` }), draw("polyline", { class: "path", points: points.join(" ") })];
}

// --- the line of time: hovering shows the frame there, a click or Enter plays from there ---------------------------

function timeLine(row, line) {
  const { video } = row;
  const cursor = line.querySelector(".cursor");
  let now = row.chosen ? row.chosen.start_s : 0;
  const put = (seconds) => {
    now = Math.min(Math.max(seconds, 0), video.duration_s);
    line.setAttribute("aria-valuenow", now.toFixed(1));
    line.setAttribute("aria-valuetext", clock(now));
    cursor.style.left = `${(100 * now) / video.duration_s}%`;
  };
  line.setAttribute("aria-label", `Time in ${video.video_id}`);
  line.setAttribute("aria-valuemax", video.duration_s.toFixed(1));
  put(now);
  const second = (event) => {
    const box = line.getBoundingClientRect();
    return (video.duration_s * (event.clientX - box.left)) / box.width;
  };
  line.onpointermove = (event) => {
    put(second(event));
    cursor.hidden = false;
    if (event.pointerType === "mouse") preview(row, now, event);
  };
  line.onpointerleave = line.onblur = () => {
    cursor.hidden = true;
    at("preview").hidden = true;
  };
  line.onclick = (event) => playAt(row, (put(second(event)), now));
  line.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5 }[event.key];
    if (step) put(now + step * Math.max(1, video.duration_s / 60));
    else if (event.key === "Home") put(0);
    else if (event.key === "End") put(video.duration_s);
    else if (event.key === "Enter" || event.key === " ") playAt(row, now);
    else return;
    cursor.hidden = false;
    event.preventDefault();
    event.stopPropagation();
  };
}

function preview(row, seconds, event) {
  const strip = row.querySelector(".strip");
  const box = at("preview");
  if (!strip || !strip.naturalWidth) return;
  const cell = Math.min(STRIP_FRAMES - 1, Math.floor((STRIP_FRAMES * seconds) / row.video.duration_s));
  const [image, time] = box.children;
  const height = 134;
  const width = (height * strip.naturalWidth) / STRIP_FRAMES / strip.naturalHeight;
  image.style.width = `${width}px`;
  image.style.height = `${height}px`;
  image.style.backgroundImage = `url("${strip.src}")`;
  image.style.backgroundSize = `${width * STRIP_FRAMES}px ${height}px`;
  image.style.backgroundPosition = `${-cell * width}px 0`;
  time.textContent = clock(seconds);
  box.hidden = false;
  const line = row.querySelector(".line").getBoundingClientRect();
  box.style.left = `${Math.min(Math.max(8, event.clientX - width / 2), innerWidth - width - 8)}px`;
  box.style.top = `${line.top - box.offsetHeight - 6}px`;
}

// --- the player ---------------------------------------------------------------------------------------------------

function close() {
  for (const stage of document.querySelectorAll(".stage:not([hidden])")) {
    const video = stage.querySelector("video");
    if (video) {
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
    stage.replaceChildren();
    stage.hidden = true;
  }
  for (const button of document.querySelectorAll(".moments .on")) button.classList.remove("on");
}

/** Plays a video from a second on: the file itself, or a clip where this browser cannot play it. */
function playAt(row, seconds, moment) {
  const { video } = row;
  if (!video.file) return;
  close();
  makeCurrent(row, false);
  row.chosen = moment || { start_s: seconds, end_s: Math.min(seconds + MARGIN_S, video.duration_s || seconds + MARGIN_S), score: null };
  const place = video.moments.indexOf(moment);
  if (place >= 0) row.querySelectorAll(".moments button")[place].classList.add("on");
  const stage = row.querySelector(".stage");
  const player = element("video");
  player.controls = true;
  player.playsInline = true;
  player.setAttribute("aria-label", `${video.video_id} from ${clock(seconds)}`);
  const says = element("p", undefined);
  const words = element("span", "");
  const shut = element("button", "Close", "small");
  shut.type = "button";
  shut.onclick = () => {
    close();
    row.querySelector(".poster").focus();
  };
  says.append(words, shut);
  stage.replaceChildren(player, says);
  stage.hidden = false;
  player.addEventListener("loadedmetadata", () => {
    if (!player.videoWidth && !player.dataset.clip) clip();
    if (!player.videoWidth) return;
    player.style.aspectRatio = `${player.videoWidth} / ${player.videoHeight}`;
    player.style.maxWidth = `calc(54vh * ${player.videoWidth / player.videoHeight})`;
  });
  player.addEventListener("error", () => {
    if (!player.getAttribute("src")) return;
    if (player.dataset.clip) words.textContent = "This moment cannot be shown: the file may be damaged.";
    else clip();
  });
  const clip = () => {
    unplayable.add(video.video_id);
    const end_s = Math.min(row.chosen.end_s, seconds + CLIP_S);
    player.dataset.clip = "1";
    player.dataset.offset = seconds;
    words.textContent = `Your browser does not play this kind of file: a clip of ${clock(seconds)} to ${clock(end_s)}, made for it.`;
    player.src = clipAddress(video.video_id, seconds, end_s);
    player.play().catch(() => {});
  };
  if (unplayable.has(video.video_id)) {
    clip();
  } else {
    player.src = `/media/${path(video.video_id)}#t=${seconds.toFixed(3)}`;
    player.play().catch(() => {});
  }
  row.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function clipAddress(id, start_s, end_s) {
  return `/api/clip/${path(id)}?start=${start_s.toFixed(2)}&end=${Math.max(end_s, start_s + 0.5).toFixed(2)}`;
}

// --- what a row can do ----------------------------------------------------------------------------------------------

function span(row) {
  const moment = row.chosen || { start_s: 0, end_s: Math.min(row.video.duration_s || MARGIN_S, MARGIN_S) };
  return [moment.start_s, Math.min(moment.end_s, moment.start_s + CLIP_S)];
}

function aimDownload(row) {
  row.querySelector('[data-do="clip"]').href = `${clipAddress(row.video.video_id, ...span(row))}&save=1`;
}

async function act(row, button) {
  const [start_s, end_s] = span(row);
  const { video_id: id } = row.video;
  if (button.dataset.do === "like") {
    sentence.value = "";
    return ask({ like: id, at: ((start_s + end_s) / 2).toFixed(2) });
  }
  if (button.dataset.do === "clip") return undefined;
  let text;
  if (button.dataset.do === "link") {
    const address = question();
    address.set("play", id);
    address.set("t", start_s.toFixed(2));
    text = `${location.origin}/?${address}`;
  } else {
    const quoted = `'${row.video.file.replaceAll("'", "'\\''")}'`;
    text = `ffmpeg -ss ${start_s.toFixed(2)} -i ${quoted} -t ${(end_s - start_s).toFixed(2)} clip.mp4`;
  }
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    prompt("Copy it from here:", text); // without https a browser gives no clipboard, but for this machine's own pages
  }
  setTimeout(() => (button.textContent = before), 1500);
  return undefined;
}

function makeCurrent(row, focus) {
  if (current) current.classList.remove("current");
  current = row;
  if (!row) return;
  if (focus) {
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }
  row.classList.add("current");
}

// --- keys, pictures, events -------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    const menu = document.querySelector(".more[open]");
    if (menu) menu.open = false;
    else if (document.querySelector(".stage:not([hidden])")) {
      close();
      if (current) current.focus();
    } else if (event.target === sentence) sentence.blur();
    return;
  }
  if (/^(INPUT|SELECT|TEXTAREA|VIDEO)$/.test(event.target.tagName)) return;
  const rows = [...results.querySelectorAll(".row")];
  const place = rows.indexOf(current);
  if (event.key === "/") sentence.select();
  else if (event.key === "j" || event.key === "k") makeCurrent(rows[Math.min(Math.max(place + (event.key === "j" ? 1 : -1), 0), rows.length - 1)], true);
  else if (event.key === "Enter" && event.target === current) current.querySelector(".poster").click();
  else if (/^[1-5]$/.test(event.key) && current) current.querySelectorAll(".moments button")[event.key - 1]?.click();
  else if (event.key === "m" && current) current.querySelector('[data-do="like"]').click();
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll(".more[open]")) if (!menu.contains(event.target)) menu.open = false;
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  picture = null;
  results.focus({ preventScroll: true }); // the keys of the results work, and a phone's keyboard goes away
  ask({ q: sentence.value.trim() });
});
for (const each of filters) {
  each.addEventListener("change", () => ask({ q: question().get("q"), like: question().get("like"), at: question().get("at") }));
}
addEventListener("popstate", follow);

function searchPicture(file) {
  if (!file) return;
  picture = file;
  ask({});
}
at("picture").addEventListener("change", (event) => {
  searchPicture(event.target.files[0]);
  event.target.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").hidden = true;
  searchPicture([...event.dataTransfer.files].find((file) => file.type.startsWith("image/")));
});

at("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = shown === "dark" ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
});
if (localStorage.getItem("theme")) document.documentElement.dataset.theme = localStorage.getItem("theme");

function tell(counts) {
  const failed = counts.failed ? `, ${counts.failed.toLocaleString("en")} failed` : "";
  at("counts").textContent = `${plural(counts.videos, "video")}${failed}${counts.growing ? ", more are coming" : ""}`;
  at("counts").classList.toggle("growing", counts.growing);
}

/** Follows the store while the page is looked at: a browser opens few connections to a server, for all its tabs. */
function listen() {
  if (events) events.close();
  events = null;
  if (document.hidden) return;
  events = new EventSource("/api/events");
  events.addEventListener("counts", (event) => tell(JSON.parse(event.data)));
}

async function begin() {
  try {
    const info = await (await fetch("/api/info")).json();
    tell(info);
    at("counts").title = `${plural(info.embeddings, "embedding")}; ${info.view}; model ${info.model}; ${info.aggregate}`;
    for (const folder of info.folders) at("folder").append(new Option(folder, folder));
    at("folder").parentElement.hidden = !info.folders.length;
    for (const each of [at("since"), at("until")]) each.parentElement.hidden = !info.dates;
  } catch {
    at("counts").textContent = "";
  }
  listen();
  document.addEventListener("visibilitychange", listen);
  addEventListener("pagehide", () => events && events.close());
  addEventListener("pageshow", listen);
  await follow();
  if (!question().size && matchMedia("(pointer: fine)").matches) sentence.focus(); // no keyboard over a phone's page
}
begin();
