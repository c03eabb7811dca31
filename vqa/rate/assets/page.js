"use strict";
// One task after another. A vote is kept in localStorage until the server has it on disk, so that neither a closed page
// nor a server that died loses it; the server takes a vote that it already has as recorded.
const byId = (id) => document.getElementById(id);
const GRADES = [[5, "5 Excellent"], [4, "4 Good"], [3, "3 Fair"], [2, "2 Poor"], [1, "1 Bad"]];
const SIDES = [[1, "← Left"], [0, "↓ No difference"], [-1, "Right →"]];
const KEYS = { ArrowLeft: 1, ArrowRight: -1, ArrowDown: 0 };
const RETRY = 1000; // milliseconds
const GAP = 16, BELOW = 110; // pixels between two clips, and of what stands around them
const PENDING = `${location.pathname}pending`, NAME = `${location.pathname}subject`;

let subject = "", mode = "acr", task = null, open = false, shownAt = 0, waited = 0, scale = 1;

const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function only(id) {
  for (const one of ["start", "stage", "paused", "end"]) byId(one).hidden = one !== id;
}

function trouble(text) {
  byId("trouble").hidden = !text;
  byId("trouble").textContent = text || "";
}

// Until the server answers: a refusal is returned, a silence waited out.
async function ask(address, options) {
  for (;;) {
    try {
      const answer = await fetch(address, options);
      if (answer.status < 500) {
        trouble("");
        return { ok: answer.ok, ...(await answer.json().catch(() => ({ error: `refused (${answer.status})` }))) };
      }
    } catch (error) { /* no server: again */ }
    trouble("The server does not answer. Your last judgement is kept and sent as soon as it does.");
    await wait(RETRY);
  }
}

async function send() {
  const kept = localStorage.getItem(PENDING);
  if (kept === null) return;
  const answer = await ask("vote", { method: "POST", headers: { "Content-Type": "application/json" }, body: kept });
  localStorage.removeItem(PENDING);
  if (!answer.ok) console.warn(answer.error);
}

async function next() {
  await send();
  const answer = await ask(`task?subject=${encodeURIComponent(subject)}`);
  if (!answer.ok) {
    only("start");
    trouble(answer.error);
    return;
  }
  mode = answer.mode;
  task = answer.task;
  if (task === null) {
    byId("total").textContent = `${subject}: ${answer.done} judgements are recorded. You can close this page.`;
    only("end");
    return;
  }
  only("stage");
  byId("note").textContent = task.training ? "Training: this one does not count." : "";
  byId("progress").textContent = task.training ? "" : `${answer.done + 1} of ${answer.goal}`;
  await show();
}

// Native size: one pixel of the clip on one of the screen. What does not fit is reduced, both of a pair alike; the
// factor is recorded with the vote.
function fit() {
  const ratio = window.devicePixelRatio || 1, count = task.media.length;
  const room = [window.innerWidth - GAP * (count - 1), window.innerHeight - BELOW].map((side) => side * ratio);
  const wide = task.media.reduce((sum, one) => sum + one.width, 0);
  const high = Math.max(...task.media.map((one) => one.height));
  scale = Math.min(1, room[0] / wide, room[1] / high);
  [...byId("clips").children].forEach((one, k) => {
    one.style.width = `${(task.media[k].width * scale) / ratio}px`;
    one.style.height = `${(task.media[k].height * scale) / ratio}px`;
  });
}

async function show() {
  open = false;
  const shown = task, places = [task.first, task.second].filter((at) => at !== null);
  const made = shown.media.map((one, k) => {
    const element = document.createElement(one.kind === "image" ? "img" : "video");
    element.alt = k ? "right clip" : "clip";
    if (one.kind === "video") Object.assign(element, { muted: true, playsInline: true, preload: "auto" });
    element.src = `media/${places[k]}`;
    return element;
  });
  byId("clips").replaceChildren(...made);
  answers();
  fit();
  try {
    await Promise.all(made.map((one) => (one.tagName === "IMG" ? one.decode() : playable(one))));
  } catch (error) {
    trouble("This clip cannot be shown by this browser. Tell the person who runs the test.");
    return;
  }
  if (task !== shown) return;
  byId("clips").dataset.ready = String(shown.number);
  shownAt = performance.now();
  waited = 0;
  await play();
}

const playable = (video) => new Promise((done, failed) => {
  video.addEventListener("canplaythrough", done, { once: true });
  video.addEventListener("error", failed, { once: true });
});

// Videos of a pair start together; the judgement opens when all have been seen to their end.
async function play() {
  const shown = task, videos = [...byId("clips").querySelectorAll("video")];
  const ends = videos.map((one) => new Promise((done) => one.addEventListener("ended", done, { once: true })));
  videos.forEach((one) => { one.currentTime = 0; });
  await Promise.all(videos.map((one) => one.play())).catch(() => {});
  await Promise.all(ends);
  if (task !== shown || !byId("paused").hidden) return;
  open = true;
  for (const one of byId("answers").children) one.disabled = false;
}

function answers() {
  byId("answers").replaceChildren(...(mode === "acr" ? GRADES : SIDES).map(([value, text]) => {
    const button = document.createElement("button");
    button.textContent = text;
    button.disabled = true;
    button.addEventListener("click", () => vote(value));
    return button;
  }));
}

async function vote(value) {
  if (!open) return;
  open = false;
  const seconds = (performance.now() - shownAt) / 1000 - waited;
  const { number, first, second, training, repeat } = task;
  localStorage.setItem(PENDING, JSON.stringify({ subject, number, first, second, training, repeat, value, seconds, scale }));
  task = null;
  byId("clips").replaceChildren(); // grey between two clips
  await next();
}

let pausedAt = 0;
function pause() {
  if (byId("stage").hidden) return;
  pausedAt = performance.now();
  open = false;
  byId("clips").querySelectorAll("video").forEach((one) => one.pause());
  only("paused");
  byId("resume").focus();
}

async function resume() {
  waited += (performance.now() - pausedAt) / 1000;
  if (task === null) return next();
  only("stage");
  if (byId("clips").dataset.ready !== String(task.number)) return show();
  fit();
  await play();
}

const fullScreen = () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen());

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "INPUT" || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const value = mode === "acr" ? { 1: 1, 2: 2, 3: 3, 4: 4, 5: 5 }[key] : KEYS[key];
  if (value !== undefined && !byId("stage").hidden) {
    event.preventDefault();
    vote(value);
  } else if (key === "p") {
    if (byId("paused").hidden) pause(); else resume();
  } else if (key === "r" && open) play();
  else if (key === "f") fullScreen()?.catch(() => {});
});
addEventListener("resize", () => { if (task) fit(); });
byId("resume").addEventListener("click", resume);
byId("who").addEventListener("submit", async (event) => {
  event.preventDefault();
  subject = byId("subject").value.trim();
  localStorage.setItem(NAME, subject);
  document.documentElement.requestFullscreen?.().catch(() => {});
  await next();
});

(async () => {
  byId("subject").value = localStorage.getItem(NAME) ?? "";
  await send();
  const answer = await ask("task?subject=-");
  for (const one of document.querySelectorAll(`.${answer.mode}`)) one.hidden = false;
  mode = answer.mode;
  document.documentElement.dataset.ready = "";
  byId("subject").focus();
})();
