"use strict";

// Every name comes from others and goes into the page as text, never as HTML (the server forbids it as well).
// Times are counted down on this page's own clock from the seconds that the server says are left.

const SILENCE_MS = 16_000; // The server is heard every 5 s at least.
const AGAIN_MS = 2_000;
const SHOWN_LIMITS = 30;
const SHOWN_PACES = 12;
const SHOWN_EVENTS = 15;
const KEPT_EVENTS = 50;
const FILTER_FROM = 8;
const WINDOW_MS = 300_000;
const BRIEF_SECONDS = 2; // Shorter limits, which a known pace meets now and then, move nothing on the page.
const SPEAKS_AGAIN_MS = 10_000;

const limits = new Map();
const paces = new Map();
const histories = new Map();
const nodes = { limits: new Map(), paces: new Map() };
const visible = new WeakSet();
let events = [];
let health = { state: "starting" };
let healthAt = 0;
let source = null;
let heardAt = performance.now();
let connected = false;
let failed = false;
let token = null; // What acts.js writes with.
let writable = false;
let wanted = "";
const showAll = { limits: false, paces: false, events: false };
let spokenAt = -Infinity;

const $ = (id) => document.getElementById(id);
const keyOf = (of) => JSON.stringify([of.backend, of.model]);
const matches = (of) => wanted === "" || (of.target || "").toLowerCase().includes(wanted);

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

// How things are written.

function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const pad = (value) => String(value).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${pad(hours % 24)}:${pad(minutes)} h`;
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

function duration(seconds) {
  if (typeof seconds !== "number") return String(seconds);
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * size || seconds === size) return `${+(seconds / size).toPrecision(3)} ${unit}`;
  }
  return `${+seconds.toPrecision(4)} s`;
}

function clock(iso) {
  const time = new Date(iso);
  const today = time.toDateString() === new Date().toDateString();
  const of = time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  return today ? of : `${time.toLocaleDateString([], { day: "numeric", month: "short" })} ${of}`;
}

const words = (text) => String(text).replaceAll("_", " ");
const number = (value) => (value >= 100 ? Math.round(value).toString() : String(+value.toPrecision(3)));

function who(of) {
  const parts = [of.reporter || "unknown"];
  if (of.job_id !== null) parts.push(`job ${of.job_id}`);
  if (of.sheet_num !== null) parts.push(`sheet ${of.sheet_num}`);
  return parts.join(", ");
}

function asked(of) {
  return `asked ${duration(of.asked_wait_seconds)}, ${duration(of.wait_seconds)} counts (${words(of.clamped)})`;
}

function heldToo(limit) {
  const note = limit.note ? `: ${limit.note}` : "";
  return `also held by hand until ${clock(limit.held_until)} by ${limit.held_by || "unknown"}${note}`;
}

function name(node, of) {
  put(node.querySelector(".backend"), of.backend === null ? "everything" : of.backend);
  put(node.querySelector(".model"), of.model === null ? "" : of.model);
  show(node.querySelector(".slash"), of.model !== null);
}

// What the server tells.

function take(told, now) {
  for (const limit of told.limits || []) {
    limits.set(keyOf(limit), { ...limit, endsAt: now + limit.seconds_remaining * 1000 });
  }
  for (const gone of told.limits_gone || []) limits.delete(keyOf(gone));
  for (const pace of told.paces || []) {
    paces.set(keyOf(pace), pace);
    addPoint(keyOf(pace), [now, pace.rate || 0, pace.ceiling || 0, pace.admitted_per_second || 0]);
  }
  for (const gone of told.paces_gone || []) {
    paces.delete(keyOf(gone));
    if (histories.has(keyOf(gone))) addPoint(keyOf(gone), [now, 0, 0, 0]);
  }
  if (told.events) {
    const known = new Set(events.map((event) => event.id));
    events = [...told.events.filter((event) => !known.has(event.id)), ...events].slice(0, KEPT_EVENTS);
    drawEvents();
  }
  if (told.health) {
    health = told.health;
    healthAt = now;
  }
}

function addPoint(key, point) {
  const points = histories.get(key) || [];
  points.push(point);
  while (points.length > 1 && points[1][0] < point[0] - WINDOW_MS) points.shift();
  histories.set(key, points);
}

function begin(told) {
  const now = performance.now();
  limits.clear();
  paces.clear();
  histories.clear();
  events = [];
  for (const of of told.history) {
    histories.set(keyOf(of), of.points.map(([age, ...values]) => [now - age * 1000, ...values]));
  }
  take(told, now);
  writable = told.writable;
  put($("where"), `${told.namespace} on ${told.address}`);
  put($("version"), `rate_coordinator ${told.version}`);
  $("main").removeAttribute("aria-busy");
  drawEvents();
  connected = true;
  failed = false;
  draw();
}

// The connection. A page that nobody sees keeps none: browsers have few for one server.

function connect() {
  close();
  if (document.hidden) return;
  heardAt = performance.now();
  source = new EventSource("api/v1/stream");
  const on = (kind, act) => source.addEventListener(kind, (event) => {
    heardAt = performance.now();
    act(JSON.parse(event.data));
  });
  on("state", begin);
  on("change", (told) => { take(told, performance.now()); draw(); });
  on("beat", () => {});
  const mine = source;
  source.onerror = () => {
    if (source !== mine) return;
    connected = false;
    failed = true;
    draw();
    // It tries again by itself, unless the server refused.
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => source === mine && connect(), AGAIN_MS);
  };
}

function close() {
  if (source) source.close();
  source = null;
  connected = false;
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : connect()));

// What is seen.

function rows(kind, all, most, template, fill) {
  const list = $(kind), known = nodes[kind];
  const fitting = all.filter(matches);
  const shown = showAll[kind] ? fitting : fitting.slice(0, most);
  const keys = new Set(shown.map(keyOf));
  for (const [key, node] of known) {
    if (!keys.has(key)) {
      sight.unobserve(node);
      node.remove();
      known.delete(key);
    }
  }
  let place = list.firstElementChild;
  for (const of of shown) {
    const key = keyOf(of);
    let node = known.get(key);
    if (!node) {
      node = $(template).content.firstElementChild.cloneNode(true);
      node.dataset.key = key;
      known.set(key, node);
      sight.observe(node);
    }
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
    fill(node, of);
  }
  offerMore(kind, shown.length, fitting.length);
}

function offerMore(kind, shown, all) {
  show($(`${kind}-more`), shown < all);
  put($(`${kind}-more`), `Show all ${all}`);
}

function fillLimit(node, limit) {
  name(node, limit);
  const byHand = limit.reason === "hold";
  put(node.querySelector(".reason"), byHand ? "held by hand" : words(limit.reason));
  put(node.querySelector(".who"), `${byHand ? "" : "reported "}by ${who(limit)}`);
  put(node.querySelector(".until"), `until ${clock(limit.resume_at)}`);
  const cut = node.querySelector(".asked");
  show(cut, Boolean(limit.clamped));
  if (limit.clamped) put(cut, asked(limit));
  const held = node.querySelector(".held");
  show(held, Boolean(limit.held_until) && (!byHand || limit.note !== ""));
  put(held, byHand ? limit.note : heldToo(limit));
  show(node.querySelector(".pending"), !limit.delivered);
  offerActs(node, limit);
  tickLimit(node, limit, performance.now());
}

function tickLimit(node, limit, now) {
  const left = Math.max(0, limit.endsAt - now);
  put(node.querySelector(".time"), countdown(left));
  const whole = Math.max(limit.wait_seconds * 1000, limit.seconds_remaining * 1000, 1);
  node.querySelector(".bar div").style.transform = `scaleX(${Math.min(1, left / whole).toFixed(4)})`;
}

function fillPace(node, pace) {
  name(node, pace);
  put(node.querySelector(".value"), pace.rate ? number(pace.rate) : "learning");
  put(node.querySelector(".unit"), pace.rate ? "calls/s" : "");
  put(node.querySelector(".refused"), pace.ceiling ? `refused at ${number(pace.ceiling)}` : "");
  put(node.querySelector(".through"), `${number(pace.admitted_per_second || 0)} let through`);
  put(node.querySelector(".processes"), pace.processes === 1 ? "1 process" : `${pace.processes} processes`);
  plot(node, pace);
}

function plot(node, pace) {
  if (!visible.has(node)) return;
  const now = performance.now();
  const points = (histories.get(keyOf(pace)) || []).map(([at, ...values]) => [300 - ((now - at) * 300) / WINDOW_MS, ...values]);
  const top = roundUp(Math.max(1e-9, ...points.flatMap((point) => point.slice(1))) * 1.05);
  const y = (value) => (71 - (value / top) * 70).toFixed(1);
  // A value holds until the next one; where it is 0 there is none.
  const line = (index) => {
    let path = "", before = 0;
    points.forEach((point, place) => {
      const from = Math.max(0, point[0]).toFixed(1);
      const to = Math.max(0, place + 1 < points.length ? points[place + 1][0] : 300).toFixed(1);
      if (point[index] > 0) path += `${before > 0 ? "L" : "M"}${from} ${y(point[index])}H${to}`;
      before = point[index];
    });
    return path;
  };
  let area = "";
  points.forEach((point, place) => {
    const from = Math.max(0, point[0]).toFixed(1);
    const to = Math.max(0, place + 1 < points.length ? points[place + 1][0] : 300).toFixed(1);
    if (point[3] > 0) area += `M${from} 71V${y(point[3])}H${to}V71Z`;
  });
  node.querySelector("path.line").setAttribute("d", line(1));
  node.querySelector("path.ceiling").setAttribute("d", line(2));
  node.querySelector("path.fleet").setAttribute("d", area);
  put(node.querySelector(".top-label"), points.length ? `${number(top)}/s` : "");
  const said = pace.rate ? `now ${number(pace.rate)} calls per second` : "still to be learned";
  node.querySelector("svg").setAttribute("aria-label", `Pace of ${pace.target} over the last 5 minutes, ${said}`);
}

function none(kind, shown, text) {
  show($(`${kind}-empty`), shown === 0 && !$("main").hasAttribute("aria-busy"));
  put($(kind === "limits" ? "limits-none" : `${kind}-empty`), wanted === "" ? text : "Nothing of that name.");
}

function roundUp(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * size >= value) * size;
}

function drawEvents() {
  const fitting = events.filter(matches);
  const shown = showAll.events ? fitting : fitting.slice(0, SHOWN_EVENTS);
  offerMore("events", shown.length, fitting.length);
  $("events").replaceChildren(...shown.map((event) => {
    const node = $("event").content.firstElementChild.cloneNode(true);
    const time = node.querySelector("time");
    time.dateTime = event.detected_at;
    put(time, clock(event.detected_at));
    name(node, event);
    const [kind, what] = story(event);
    node.querySelector(".kind").dataset.kind = kind;
    put(node.querySelector(".kind"), kind);
    put(node.querySelector(".what"), what);
    if (event.kind !== "pace") put(node.querySelector(".who"), `by ${who(event)}`);
    return node;
  }));
  none("events", shown.length, "Nothing was reported yet.");
}

function story(event) {
  if (event.probe) return ["lifted", "one call was let through and served"];
  if (event.kind === "clear") return ["cleared", ""];
  if (event.kind === "hold") return ["held", `${duration(event.wait_seconds)}${event.note ? `, ${event.note}` : ""}`];
  if (event.kind === "release") return ["released", ""];
  if (event.kind === "pace") return ["pace", event.pace_rate ? `${number(event.pace_rate)} calls/s from now on` : "forgotten"];
  const wait = event.clamped ? asked(event) : duration(event.wait_seconds);
  const told = `${wait}, ${words(event.reason)}`;
  return event.extended ? ["limited", told] : ["reported", `${told}: changes nothing`];
}

function draw() {
  const now = performance.now();
  for (const [key, limit] of limits) if (limit.endsAt <= now) limits.delete(key);
  const active = [...limits.values()].sort((one, other) => other.endsAt - one.endsAt || (one.target < other.target ? -1 : 1));
  const kept = [...paces.values()].sort((one, other) => (one.target < other.target ? -1 : 1));
  const lasting = active.filter((limit) => limit.wait_seconds >= BRIEF_SECONDS || limit.seconds_remaining >= BRIEF_SECONDS);
  const brief = active.filter((limit) => !lasting.includes(limit) && matches(limit));
  rows("limits", lasting, SHOWN_LIMITS, "limit", fillLimit);
  rows("paces", kept, SHOWN_PACES, "pace", fillPace);
  put($("brief"), brief.length ? `for a moment: ${brief.map((limit) => limit.target).join(", ")}` : "");
  const begun = !$("main").hasAttribute("aria-busy");
  none("limits", nodes.limits.size, active.length ? "Nothing is limited for longer than a moment." : "Nothing is limited.");
  show($("limits-hint"), wanted === "" && active.length === 0);
  none("paces", nodes.paces.size, "No pace has to be kept to: every call may go at once.");
  show($("legend"), nodes.paces.size > 0);
  show($("filter"), active.length + kept.length > FILTER_FROM || wanted !== "");
  if (begun) {
    put($("count"), String(active.length));
    $("count").classList.toggle("some", active.length > 0);
    put($("paces-count"), String(kept.length));
    put($("paces-of"), kept.length === 1 ? "pace kept" : "paces kept");
  }
  show($("unlock"), writable && token === null);
  show($("hold-any"), writable && token !== null);
  put($("access"), !begun ? "" : !writable ? "read-only: the server has no token" : token === null ? "read-only in this tab" : "unlocked in this tab");
  document.title = begun && lasting.length ? `${lasting.length} limited – Rate limits` : "Rate limits";
  if (begun && now - spokenAt > SPEAKS_AGAIN_MS) {
    put($("spoken"), lasting.length ? `${lasting.length} limited` : "nothing is limited");
    spokenAt = now;
  }
  tick();
}

function tick() {
  const now = performance.now();
  let next = Infinity, over = false;
  for (const limit of limits.values()) {
    next = Math.min(next, limit.endsAt);
    over = over || limit.endsAt <= now;
  }
  if (over) {
    draw();
    return;
  }
  for (const [key, node] of nodes.limits) if (visible.has(node)) tickLimit(node, limits.get(key), now);
  put($("next"), next === Infinity ? "–" : countdown(next - now));
  drawConnection(now);
}

function drawConnection(now) {
  if (source && now - heardAt > SILENCE_MS) {
    failed = true;
    connect();
  }
  const state = !connected ? (failed ? "lost" : "connecting") : health.state === "connected" ? "live" : "degraded";
  $("connection").dataset.state = state;
  put($("connection"), { lost: "stream lost", connecting: "connecting", live: "live", degraded: "Redis is away" }[state]);
  document.body.toggleAttribute("data-stale", state === "lost");
  show($("trouble"), state === "degraded" || state === "lost");
  $("trouble").dataset.state = state;
  if (state === "lost") put($("trouble"), "The server does not answer. Countdowns go on from what was known; trying again.");
  if (state === "degraded") {
    const away = countdown(health.degraded_seconds * 1000 + now - healthAt);
    put($("trouble"), `Redis has been away for ${away}. This is what was known. ${health.last_error || ""}`);
  }
}

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) {
      visible.delete(target);
      continue;
    }
    visible.add(target);
    const key = target.dataset.key;
    if (nodes.limits.get(key) === target) tickLimit(target, limits.get(key), performance.now());
    if (nodes.paces.get(key) === target) plot(target, paces.get(key));
  }
}, { rootMargin: "300px" });

for (const kind of Object.keys(showAll)) {
  $(`${kind}-more`).addEventListener("click", () => {
    showAll[kind] = true;
    draw();
    drawEvents();
  });
}
$("wanted").addEventListener("input", (event) => {
  wanted = event.target.value.trim().toLowerCase();
  draw();
  drawEvents();
});

setInterval(tick, 250);
setInterval(() => {
  for (const [key, node] of nodes.paces) if (paces.has(key)) plot(node, paces.get(key));
  const oldest = performance.now() - WINDOW_MS;
  for (const [key, points] of histories) if (!paces.has(key) && points.at(-1)[0] < oldest) histories.delete(key);
}, 1000);
// Only when the other script is there as well.
document.addEventListener("DOMContentLoaded", connect);
