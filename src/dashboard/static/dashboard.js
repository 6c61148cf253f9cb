// What pages do by themselves: they stay fresh, show times in the visitor's zone, copy, ask, plot and upload.
// Without this script every page but the upload works, and stands still.

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- Times, in the visitor's zone. The title keeps them in UTC.

const sameDay = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minutes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const otherDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const otherYear = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });

function spell(seconds) {
  const two = (length, large, of, small) => {
    const rest = Math.floor((seconds % length) / of);
    return `${Math.floor(seconds / length)} ${large}` + (rest ? ` ${rest} ${small}` : "");
  };
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return two(60, "min", 1, "s");
  if (seconds < 86400) return two(3600, "h", 60, "min");
  return two(86400, "d", 3600, "h");
}

function showTime(time, now) {
  const at = new Date(time.dateTime);
  const format = at.toDateString() === now.toDateString() ? sameDay
    : at.getFullYear() === now.getFullYear() ? otherDay : otherYear;
  let text = format.format(at);
  if (time.hasAttribute("data-distance")) {
    const seconds = Math.round((at - now) / 1000);
    text += seconds < 0 ? ` (${spell(-seconds)} ago)` : ` (in ${spell(seconds)})`;
  }
  if (time.textContent !== text) time.textContent = text;
}

function showTimes() {
  const now = new Date();
  all("time").forEach((time) => showTime(time, now));
}

// --- Freshness: the page is asked for again, and what differs is put into it. Nothing is asked for while the tab is
// hidden, the refresh is off, or a dialog is open.

const every = one("#every");
const connection = one("#connection");
const KEPT = "batchwright.refresh";
let isAsking = false;
let askedAt = Date.now();
let tag = null;

function keep(value) {
  try {
    localStorage.setItem(KEPT, value);
  } catch {
    // A browser that keeps nothing still refreshes.
  }
}

function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

async function refresh() {
  isAsking = true;
  askedAt = Date.now();
  try {
    const here = one("#live").dataset.again ?? location.pathname + location.search;
    // With the tag, what is unchanged is answered with 304, and htmx leaves the page alone.
    const headers = tag ? { "If-None-Match": tag } : {};
    await htmx.ajax("GET", here, { source: "#live", target: "#live", select: "#live", swap: "outerMorph", headers });
  } finally {
    isAsking = false;
  }
}

function tick() {
  const seconds = Number(every.value);
  const isDue = seconds > 0 && Date.now() - askedAt >= seconds * 1000 - 50;
  if (isDue && !isAsking && !document.hidden && one("#live:not([data-still])") && !one("dialog[open]")) refresh();
}

// Before the browser paints, so that no time is seen in two ways.
document.addEventListener("htmx:after:swap", () => {
  showTimes();
  plot();
});
document.addEventListener("htmx:after:request", (event) => {
  const { status, headers } = event.detail.ctx.response;
  if (status < 400) tag = headers.get("etag");
  connection.textContent = status < 400 ? "" : `Not fresh: the server answers ${status}`;
});
document.addEventListener("htmx:error", () => {
  connection.textContent = "Not fresh: the server cannot be reached";
});
document.addEventListener("visibilitychange", tick);
const known = kept();
if (all("option", every).some((option) => option.value === known)) every.value = known;
every.addEventListener("change", () => {
  keep(every.value);
  tick();
});
setInterval(() => {
  tick();
  if (!document.hidden) showTimes();
}, 500);

// --- Copying. The clipboard of scripts is missing on plain http under other names than localhost.

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return true;
  }
  const area = document.createElement("textarea");
  area.className = "offscreen";
  area.value = text;
  area.setAttribute("aria-hidden", "true");
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy !== undefined) {
    const copied = await copy(button.dataset.copy).catch(() => false);
    button.focus();
    button.textContent = copied ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  } else if (button.dataset.dialog !== undefined) {
    const dialog = one(`#${button.dataset.dialog}`);
    one("[data-effect]", dialog).textContent = button.dataset.effect;
    dialog.showModal();
  } else if (button.dataset.close !== undefined) {
    button.closest("dialog").close();
  }
});

// --- The plot. The table beside it has the same numbers, and is where it reads them from.

let chart = null;

function points() {
  const number = (row, name) => Number(row.dataset[name]);
  // The point under way would look as if the rate fell.
  const isOver = (row) => number(row, "at") + number(row, "seconds") <= Date.now() / 1000;
  const rows = all("#course tbody tr").filter(isOver);
  const perSecond = (name) => rows.map((row) => number(row, name) / Math.max(1, number(row, "seconds")));
  const ats = rows.map((row) => number(row, "at"));
  return [ats, perSecond("rows"), perSecond("tokens")];
}

function drawn(place, data) {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const span = (data[0].at(-1) ?? 0) - (data[0][0] ?? 0);
  const format = span > 86400 ? otherDay : span > 600 ? minutes : sameDay;
  const shown = (second) => (second == null ? "–" : format.format(new Date(second * 1000)));
  const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
  const options = {
    width: place.clientWidth,
    height: 190,
    cursor: { drag: { x: false, y: false } },
    scales: { rows: { range: (_, _min, max) => [0, max || 1] }, tokens: { range: (_, _min, max) => [0, max || 1] } },
    series: [
      { label: "", value: (_, second) => (second == null ? "–" : sameDay.format(new Date(second * 1000))) },
      { label: "rows/s", scale: "rows", stroke: color("--running"), width: 1.5, points: { show: data[0].length < 3 } },
      { label: "tokens/s", scale: "tokens", stroke: color("--retrying"), width: 1.5, dash: [5, 4], points: { show: data[0].length < 3 } },
    ],
    axes: [{ ...axis, space: 90, values: (_, seconds) => seconds.map(shown) }, { ...axis, scale: "rows", label: "rows/s", labelSize: 18, size: 54 },
      { ...axis, scale: "tokens", side: 1, label: "tokens/s", labelSize: 18, size: 64, grid: { show: false } }],
  };
  return new uPlot(options, data, place);
}

function plot(anew = false) {
  const place = one("#plot");
  if (!place || typeof uPlot === "undefined") return;
  const data = points();
  if (chart && !anew && place.contains(chart.root)) {
    const isSame = JSON.stringify(chart.data) === JSON.stringify(data);
    if (!isSame) chart.setData(data);
    return;
  }
  chart?.destroy();
  chart = drawn(place, data);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot(true));
addEventListener("resize", () => chart?.setSize({ width: one("#plot").clientWidth, height: 190 }));

// --- The upload. It goes to the API, which streams it through the same checks as every other.

const upload = one("#upload");

function say(text) {
  one("#upload-status").textContent = text;
}

function send(file) {
  const form = new FormData();
  form.append("purpose", "batch");
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  const sent = one("#sent");
  request.upload.addEventListener("progress", (event) => {
    sent.hidden = false;
    sent.value = event.total ? event.loaded / event.total : 0;
    say(event.loaded < event.total ? "Sending…" : "Checking…");
  });
  request.addEventListener("error", () => say("The file could not be sent: the server cannot be reached."));
  request.addEventListener("load", () => {
    const isJson = request.getResponseHeader("content-type")?.startsWith("application/json");
    const answer = isJson ? JSON.parse(request.responseText) : {};
    if (request.status === 200) location.assign(`/dashboard/submit/${answer.id}`);
    else say(answer.error?.message ?? `The server answers ${request.status}.`);
  });
  request.open("POST", "/dashboard/files");
  request.send(form);
  say("Sending…");
}

if (upload) {
  upload.addEventListener("submit", (event) => {
    event.preventDefault();
    const [file] = one("#file").files;
    if (file) send(file);
  });
  const isOver = (over) => (event) => {
    event.preventDefault();
    upload.classList.toggle("over", over);
  };
  upload.addEventListener("dragover", isOver(true));
  upload.addEventListener("dragleave", isOver(false));
  upload.addEventListener("drop", (event) => {
    isOver(false)(event);
    const [file] = event.dataTransfer.files;
    if (file) send(file);
  });
}
// A form that is sent twice has one key, so that it makes one batch.
all("[data-key]").forEach((field) => (field.value = String(crypto.getRandomValues(new Uint32Array(4)))));

showTimes();
plot();
